"""Cutting route messages of one family: one alone, or all of a datagram at once into columns.

A message is cut into the destination and everything else, which is the key to what is known of it:

    IPv4   [ header, rtmsg, RTA_TABLE, header of RTA_DST ] destination [ everything after ]
           0       16     28         36                40            44
    IPv6   [ the same ] destination [ up to cacheinfo ] cacheinfo [ RTA_PREF ]
           0          40          56                  end-40    end-8

IPv6's RTA_CACHEINFO holds counters and the time left, so it is cut out too; only whether the route
expires goes into the key. (The kernel's order of attributes: fib_dump_info() in net/ipv4, and
rt6_fill_node() in net/ipv6.)

A datagram of a dump is cut by one call of a Struct that has the fields of all its messages behind one
another: that takes 60 ns a message, of which 30 are for making the Struct, where a loop takes 400.
Nothing is looked at but the lengths. That a message is a route of this family, of this dump, and has its
destination where the cut assumed, follows from its key, if that is known: it holds the rest, header included.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from functools import lru_cache
from itertools import accumulate
from operator import add

import attrs

from ._attributes import AF_INET, AF_INET6, Buffer, align, iter_attributes
from ._framing import HEADER_SIZE
from ._route import ROUTE_HEADER, RTA_CACHEINFO, RTA_DST

# Bytes of a payload up to the destination, and of the destination itself.
_HEAD = 24
_DESTINATION = {AF_INET: 4, AF_INET6: 16}
# IPv6's cacheinfo: where it begins and ends, from the end.
_CACHEINFO, _AFTER_CACHEINFO = 40, 8
_SHORTEST = {AF_INET: 28, AF_INET6: 84}
# Long messages are multipath routes, whose keys would fill a table with kilobytes each.
_LONGEST = 512
# The shortest message that can be a route: one without any attribute.
_LEAST = HEADER_SIZE + ROUTE_HEADER.size
# Structs for datagrams of so many kinds and lengths; each takes up to 50 KB.
_MOST_STRUCTS = 32
_EXPIRES = b"e"


def _fields(family: int, head: int, size: int) -> str:
    # The fields behind `head` bytes and a payload's first 24. "expires" is only compared with 0.
    if family == AF_INET:
        return f"{head + _HEAD}sI{size - 28}s"
    return f"{head + _HEAD}s16s{size - 80}s8xI20x8s"


class Cut:
    """How a route's payload of one family and one length in bytes is cut; the length is a multiple of 4.

    Attributes:
      family: AF_INET or AF_INET6.
      size: Bytes of a payload.
      fields: Takes a payload of IPv4 apart: head, destination, rest. Of IPv6 there is more (see `one`).
    """

    __slots__ = ("family", "fields", "size")

    def __init__(self, family: int, size: int) -> None:
        self.family: int = family
        self.size: int = size
        self.fields: struct.Struct = struct.Struct(">" + _fields(family, 0, size))

    def one(self, data: Buffer, start: int) -> tuple[bytes, int]:
        """Cut the payload at ``start``; returns its key and its destination."""
        if self.family == AF_INET:
            head, destination, rest = self.fields.unpack_from(data, start)
            return head + rest, destination
        head, address, rest, expires, preference = self.fields.unpack_from(data, start)
        key = head + preference + _EXPIRES + rest if expires else head + preference + rest
        return key, int.from_bytes(address)


def cut_for(family: int, size: int) -> Cut | None:
    """Return how payloads of a family and a length in bytes are cut; None where they must be walked."""
    return Cut(family, size) if is_cut(family, size) else None


def is_cut(family: int, size: int) -> bool:
    """Whether a payload of so many bytes has room for what is cut out, and is short enough for its key to be kept."""
    return family in _SHORTEST and _SHORTEST[family] <= size <= _LONGEST and size % 4 == 0


def has_shape(family: int, data: Buffer, start: int, end: int) -> bool:
    """Whether a payload is what the cut of a family assumes: the only RTA_DST, and RTA_CACHEINFO of IPv6, in its place."""
    found = [
        span for span in iter_attributes(data, start + ROUTE_HEADER.size, end) if span[0] in (RTA_DST, RTA_CACHEINFO)
    ]
    expected = [(RTA_DST, start + _HEAD, start + _HEAD + _DESTINATION[family])]
    if family == AF_INET6:
        expected.append((RTA_CACHEINFO, end - _CACHEINFO, end - _AFTER_CACHEINFO))
    return found == expected


# ---- a whole datagram ----------------------------------------------------------------------------------------------


@attrs.frozen(slots=True)
class Columns:
    """The messages at the start of a datagram, cut as if all of them were routes of one family.

    Attributes:
      lengths: What each message says of its length in bytes; together they lie within the datagram.
      keys: The key of each. Comes once.
      destinations: The destination of each; nonsense where the message is no such route.
      end: Offset in bytes just past the last of them.
    """

    lengths: list[int]
    keys: Iterator[bytes]
    destinations: list[int]
    end: int

    def starts(self) -> list[int]:
        """Where each message begins, and at last `end`; offsets in bytes into the datagram."""
        return [*accumulate(map(align, self.lengths), initial=0)]


def cut_datagram(family: int, data: bytes) -> Columns:
    """Cut a datagram's messages, up to the first that is too short to be a route, or cut off."""
    lengths, end = _lengths(data)
    if not lengths:
        return Columns(lengths, iter(()), [], end)
    length, count = lengths[0], len(lengths)
    if lengths.count(length) == count:
        row = _struct_of_row(family, length, count)
    else:
        row = struct.Struct(">" + "".join(map(_FORMS[family].__getitem__, lengths)))
    fields = row.unpack_from(data)
    if family == AF_INET:
        return Columns(lengths, map(add, fields[::3], fields[2::3]), list(fields[1::3]), end)
    heads, rests, expiring, preferences = fields[::5], fields[2::5], fields[3::5], fields[4::5]
    if any(expiring):
        marks = [_EXPIRES if expires else b"" for expires in expiring]
        keys = map(b"".join, zip(heads, preferences, marks, rests, strict=True))
    else:
        keys = map(b"".join, zip(heads, preferences, rests, strict=True))
    return Columns(lengths, keys, list(map(int.from_bytes, fields[1::5])), end)


def _lengths(data: bytes) -> tuple[list[int], int]:
    """The lengths of the messages, as far as they can be routes, and where the last of them ends."""
    words = memoryview(data)[: len(data) & ~3].cast("I")
    at, end = 0, len(words)
    lengths: list[int] = []
    if not end or words[0] < _LEAST:
        return lengths, 0
    # Most often all messages have the length of the first, and then their lengths are a column of the whole.
    stride = words[0] + 3 >> 2
    if end % stride == 0:
        lengths = words[::stride].tolist()
        if lengths.count(words[0]) == len(lengths):
            return lengths, end << 2
        lengths.clear()
    while at < end:
        length = words[at]
        if length < _LEAST:
            return lengths, at << 2
        lengths.append(length)
        at += length + 3 >> 2
    if at > end:
        at -= lengths.pop() + 3 >> 2
    return lengths, at << 2


class _Forms(dict[int, str]):
    """A message's fields in the words of `struct`, by its length."""

    def __init__(self, family: int) -> None:
        super().__init__()
        self._family = family

    def __missing__(self, length: int) -> str:
        size = length - HEADER_SIZE
        if is_cut(self._family, size):
            form = self[length] = _fields(self._family, HEADER_SIZE, size)
            return form
        # A message that is walked in any case takes its place in the columns; what they say of it is never looked at.
        if self._family == AF_INET:
            return f"{align(length) - 4}sI0s"
        return f"{align(length) - 20}s16s0sI0s"


_FORMS = {family: _Forms(family) for family in _SHORTEST}


@lru_cache(_MOST_STRUCTS)
def _struct_of_row(family: int, length: int, count: int) -> struct.Struct:
    return struct.Struct(">" + _FORMS[family][length] * count)
