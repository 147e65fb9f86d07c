"""Cutting route messages of one family and length, one at a time or hundreds at once.

A message is cut into the destination and everything else, which is the key to what is known of it:

    IPv4   header [ rtmsg, RTA_TABLE, header of RTA_DST ] destination [ everything after ]
           0      16                                    40           44
    IPv6   header [ the same ] destination [ up to cacheinfo ] cacheinfo [ RTA_PREF ]
           0      16         40           56                  end-40    end-8

IPv6's RTA_CACHEINFO holds counters and the time left, so it is cut out too; only whether the route
expires goes into the key. (The kernel's order of attributes: fib_dump_info() in net/ipv4, and
rt6_fill_node() in net/ipv6.)

The messages of a dump follow one another without a gap, and in most tables hundreds of one length. Such
a row is cut by a single call of a Struct that repeats the fields of one: what a loop does in half a
microsecond a message takes a fifth of it that way.
"""

from __future__ import annotations

import struct
from collections import defaultdict
from collections.abc import Sequence
from functools import lru_cache
from operator import add
from typing import NamedTuple, TypeAlias

from ._attributes import AF_INET, AF_INET6, Buffer, iter_attributes
from ._framing import HEADER_SIZE
from ._route import ROUTE_HEADER, RTA_CACHEINFO, RTA_DST, RouteBody

# Routes of one dump that differ in nothing but the destination: (body, destinations).
Run: TypeAlias = tuple[RouteBody, Sequence[int]]

# Offsets in bytes into the payload; those of the cacheinfo are from the end.
_DST = 24
_AFTER_DST = {AF_INET: 28, AF_INET6: 40}
_CACHEINFO, _AFTER_CACHEINFO = 40, 8
_SHORTEST = {AF_INET: 28, AF_INET6: 84}
# Long messages are multipath routes, whose keys would fill a table with kilobytes each.
_LONGEST = 512
# Structs for rows of so many kinds and lengths; each takes up to 70 KB.
_MOST_STRUCTS = 32
_EXPIRES = b"e"


class Row(NamedTuple):
    """Messages with one header behind one another, cut.

    Attributes:
      begin: What the keys of all of them begin with, as far as that was found out.
      ends: The rest of each key.
      destinations: Each destination.
    """

    begin: bytes
    ends: Sequence[bytes]
    destinations: Sequence[int]


class Cut:
    """How route messages of one family and one length in bytes are cut; the length is a multiple of 4.

    Attributes:
      family: AF_INET or AF_INET6.
      size: Bytes of a payload.
      fields: Takes a payload of IPv4 apart: head, destination, rest. Of IPv6 there is more (see `one`).
    """

    __slots__ = ("family", "fields", "size")

    def __init__(self, family: int, size: int) -> None:
        self.family: int = family
        self.size: int = size
        self.fields: struct.Struct = struct.Struct(">" + _fields(family, size))

    def one(self, data: Buffer, start: int) -> tuple[bytes, int]:
        """Cut the payload at ``start``; returns its key and its destination."""
        if self.family == AF_INET:
            head, destination, rest = self.fields.unpack_from(data, start)
            return head + rest, destination
        head, address, rest, expires, preference = self.fields.unpack_from(data, start)
        key = head + preference + _EXPIRES + rest if expires else head + preference + rest
        return key, int.from_bytes(address)

    def row(self, data: bytes, at: int) -> Row:
        """Cut the messages from ``at`` on that have the header of the first, as many as are whole; that one is."""
        stride = HEADER_SIZE + self.size
        # Where the low bytes of the lengths would be, as far as they are what they should be. That is but a guess.
        lengths = data[at::stride]
        count = min(len(lengths) - len(lengths.lstrip(lengths[:1])), (len(data) - at) // stride)
        fields = _struct_of_row(self.family, self.size, count).unpack_from(data, at)
        step = len(fields) // count
        headers = fields[::step]
        if headers.count(headers[0]) < count:
            count = next(number for number, header in enumerate(headers) if header != headers[0])
            fields = fields[: step * count]
        heads, rests = fields[1::step], fields[3::step]
        if self.family == AF_INET:
            if _are_one(heads):
                return Row(heads[0], rests, fields[2::step])
            return Row(b"", list(map(add, heads, rests)), fields[2::step])
        destinations = list(map(int.from_bytes, fields[2::step]))
        expiring, preferences = fields[4::step], fields[5::step]
        if not any(expiring) and _are_one(heads) and _are_one(preferences):
            return Row(heads[0] + preferences[0], rests, destinations)
        marks = [_EXPIRES if expires else b"" for expires in expiring]
        return Row(b"", list(map(b"".join, zip(heads, preferences, marks, rests, strict=True))), destinations)


def _fields(family: int, size: int) -> str:
    # Big-endian, for IPv4's destination; "expires" is only compared with 0.
    return f"24sI{size - 28}s" if family == AF_INET else f"24s16s{size - 80}s8xI20x8s"


@lru_cache(_MOST_STRUCTS)
def _struct_of_row(family: int, size: int, count: int) -> struct.Struct:
    return struct.Struct(">" + f"{HEADER_SIZE}s{_fields(family, size)}" * count)


def cut_for(family: int, size: int) -> Cut | None:
    """Return how payloads of a family and a length in bytes are cut; None where they must be walked."""
    if family not in _SHORTEST or not _SHORTEST[family] <= size <= _LONGEST or size % 4:
        return None
    return Cut(family, size)


def has_shape(family: int, data: Buffer, start: int, end: int) -> bool:
    """Whether a payload is what the cut of a family assumes: the only RTA_DST, and RTA_CACHEINFO of IPv6, in its place."""
    found = [
        span for span in iter_attributes(data, start + ROUTE_HEADER.size, end) if span[0] in (RTA_DST, RTA_CACHEINFO)
    ]
    expected = [(RTA_DST, start + _DST, start + _AFTER_DST[family])]
    if family == AF_INET6:
        expected.append((RTA_CACHEINFO, end - _CACHEINFO, end - _AFTER_CACHEINFO))
    return found == expected


def by_key(row: Row) -> tuple[dict[bytes, Sequence[int]], list[tuple[bytes, int]]]:
    """Put the routes of a row together that have the same key.

    Returns:
      To the end of each key its destinations; and apart from those, in order, the routes (end, destination) whose
      destination some route before them has: the kernel's order of the routes to one prefix says which is in use.
    """
    _, ends, destinations = row
    if len(set(destinations)) < len(destinations):
        return _by_key_in_order(row)
    if _are_one(ends):
        return {ends[0]: destinations}, []
    together: defaultdict[bytes, list[int]] = defaultdict(list)
    for end, destination in zip(ends, destinations, strict=True):
        together[end].append(destination)
    return {**together}, []


def _by_key_in_order(row: Row) -> tuple[dict[bytes, Sequence[int]], list[tuple[bytes, int]]]:
    # 10.0.0.0/8 and 10.0.0.0/16 have one destination and are two prefixes; they stay in order, too.
    seen: set[int] = set()
    together: dict[bytes, list[int]] = {}
    later: list[tuple[bytes, int]] = []
    for end, destination in zip(row.ends, row.destinations, strict=True):
        these = together.setdefault(end, [])
        if destination in seen:
            later.append((end, destination))
        else:
            seen.add(destination)
            these.append(destination)
    return {**together}, later


def _are_one(values: Sequence[object]) -> bool:
    """Whether all values are equal; there is at least one."""
    return values.count(values[0]) == len(values)
