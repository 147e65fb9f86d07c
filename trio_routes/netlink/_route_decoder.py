"""The hot path of a dump: a route message to ``(destination, shared RouteBody)`` in half a microsecond.

A kernel that dumps a hundred thousand routes sends a hundred thousand messages that differ in
little but the destination. So the message is cut into the destination and the rest, by one
precompiled Struct per family and length, and the rest, as bytes, is the key under which the decoded
body lies:

    IPv4   [ rtmsg, RTA_TABLE, header of RTA_DST ] destination [ everything after ]
            0                                   24            28
    IPv6   [ the same ] destination [ ..., header of RTA_CACHEINFO ] cacheinfo [ RTA_PREF ]
            0         24            40                          end-40         end-8

IPv6's RTA_CACHEINFO holds counters and the time left, so it is cut out too; only whether the route
expires goes into the key. (The kernel's order of attributes: fib_dump_info() in net/ipv4, and
rt6_fill_node() in net/ipv6.)

Why this cannot confuse routes: the key holds every byte that was not cut out, the attributes'
headers among them, and a key is only learnt after the ordinary walk has decoded the message and
found the one RTA_DST (and RTA_CACHEINFO) exactly where the cut assumes them. A message of another
shape, such as a default route without RTA_DST, is never learnt and takes the walk each time.
"""

from __future__ import annotations

import struct
import weakref
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import NamedTuple, TypeAlias

from .._errors import NetlinkDecodeError
from ._attributes import AF_INET, AF_INET6, Buffer, align, iter_attributes
from ._framing import HEADER, HEADER_SIZE, MessageType
from ._route import ROUTE_HEADER, RTA_CACHEINFO, RTA_DST, RouteBody, decode_route

_NEWROUTE = int(MessageType.RTM_NEWROUTE)

# Offsets in bytes; those of the cacheinfo are from the end.
_DST = 24
_AFTER_DST = {AF_INET: 28, AF_INET6: 40}
_CACHEINFO, _AFTER_CACHEINFO = 40, 8
_SHORTEST = {AF_INET: 28, AF_INET6: 84}
# Long messages are multipath routes, whose keys would fill the table with kilobytes each.
_LONGEST = 512
# Learnt keys; at about 200 bytes each, 13 MB. A table of a million routes through a hundred
# gateways needs some thousands; only one with a metric per route gets near.
_MOST_KEYS = 65_536


# Routes that lie behind one another in a dump and differ in nothing but the destination: (body, destinations).
Run: TypeAlias = tuple[RouteBody, Sequence[int]]


class RouteBatch(NamedTuple):
    """What `RouteDecoder.decode_many` found.

    Attributes:
      runs: The RTM_NEWROUTE messages, in order, as runs of those that have the same body.
      end: Offset in bytes, in the same buffer, of the first message that is not one of them (a DONE,
        an ERROR, a message of another sequence number), or where the datagram ends.
      flags: All nlmsg_flags of these messages, or-ed. NLM_F_DUMP_INTR here means that the dump is torn.
    """

    runs: list[Run]
    end: int
    flags: int


class RouteDecoder:
    """Decodes route messages into shared bodies: within one decoder, equal bodies are the same object.

    A body lives as long as somebody uses it, or as its key is among those learnt (the table of keys
    is emptied when it is full, and fills again), so memory is bounded by what the caller keeps.

    Not thread-safe; a pt has its own.
    """

    __slots__ = ("_bodies", "_cuts", "_most_keys", "_seen")

    def __init__(self, most_keys: int = _MOST_KEYS) -> None:
        self._most_keys = most_keys
        # One table per family, so that a message cut for one can never meet a key of the other.
        self._seen: dict[int, dict[bytes, RouteBody]] = {AF_INET: {}, AF_INET6: {}}
        self._cuts: dict[tuple[int, int], struct.Struct | None] = {}
        self._bodies: weakref.WeakKeyDictionary[RouteBody, weakref.ref[RouteBody]] = weakref.WeakKeyDictionary()

    def decode(self, data: Buffer, start: int, end: int) -> tuple[int, RouteBody]:
        """Decode the payload ``data[start:end]`` of one route message; the result equals `decode_route`'s.

        Raises:
          NetlinkDecodeError: As for `decode_route`.
        """
        if not 0 <= start < end <= len(data):
            raise NetlinkDecodeError("a route is cut off", start)
        family = data[start]
        cut = self._cut_for(family, end - start)
        if cut is None:
            return self._walk(data, start, end)
        if family == AF_INET:
            before, destination, after = cut.unpack_from(data, start)
            key = before + after
        else:
            before, high, low, after, expires, tail = cut.unpack_from(data, start)
            destination = high << 64 | low
            key = before + after + tail + b"e" if expires else before + after + tail
        body = self._seen[family].get(key)
        return self._learn(key, data, start, end) if body is None else (destination, body)

    def decode_many(self, data: Buffer, start: int = 0, end: int | None = None) -> RouteBatch:
        """Decode the RTM_NEWROUTE messages at the start of a datagram, up to the first message that is none.

        All of them have the sequence and port of the first; a message that has not ends the batch. An
        offset to go on from is returned, for `iter_messages`.

        Args:
          data: A buffer that holds one datagram.
          start: Offset in bytes of the first message.
          end: Offset in bytes just past the datagram; None for the whole of ``data``.

        Raises:
          NetlinkDecodeError: A message breaks its framing; the routes before it are lost with it.
        """
        size = len(data)
        end = size if end is None else end
        if not 0 <= start <= end <= size:
            raise NetlinkDecodeError("the datagram's bounds lie outside the buffer", start)
        # One copy: slices of bytes can be dict keys, and 32 KiB copy in the time of three routes.
        datagram = bytes(memoryview(data)[start:end])
        try:
            batch = self._decode_datagram(datagram)
        except NetlinkDecodeError as error:
            raise NetlinkDecodeError(error.message, start + error.offset) from None
        return RouteBatch(batch.runs, start + batch.end, batch.flags)

    def intern(self, body: RouteBody) -> RouteBody:
        """Return the one object that stands for this body, which is ``body`` itself if there was none."""
        known = self._bodies.get(body)
        first = known() if known is not None else None
        if first is None:
            self._bodies[body] = weakref.ref(body)
            return body
        return first

    def _decode_datagram(self, data: bytes) -> RouteBatch:
        """Do `decode_many`'s loop. `decode` is written out again in it: a call a route would cost a fifth more."""
        routes: list[tuple[int, RouteBody]] = []
        append = routes.append
        kinds: dict[bytes, _Kind | None] = {}
        seen4, seen6 = self._seen[AF_INET].get, self._seen[AF_INET6].get
        end, payload, all_flags, first = len(data), HEADER_SIZE, 0, data[8:16]
        while payload - HEADER_SIZE < end:
            # Header and family are the same for hundreds of messages, so they are looked at once.
            head = data[payload - HEADER_SIZE : payload + 1]
            kind = kinds.get(head)
            if kind is None:
                kind = self._kind_of(data, payload, first)
                if kind is None:
                    break
                all_flags |= kind.flags
                kinds[head] = kind
            size, stride, family, cut, _ = kind
            if payload + size > end:
                raise NetlinkDecodeError(f"a message claims {size} bytes of {end - payload}", payload - HEADER_SIZE)
            if cut is None:
                append(self._walk(data, payload, payload + size))
            elif family == AF_INET:
                before, destination, after = cut.unpack_from(data, payload)
                body = seen4(before + after)
                if body is None:
                    append(self._learn(before + after, data, payload, payload + size))
                else:
                    append((destination, body))
            else:
                before, high, low, after, expires, tail = cut.unpack_from(data, payload)
                key = before + after + tail + b"e" if expires else before + after + tail
                body = seen6(key)
                if body is None:
                    append(self._learn(key, data, payload, payload + size))
                else:
                    append((high << 64 | low, body))
            payload += stride
        return RouteBatch(list(_runs_of(routes)), min(payload - HEADER_SIZE, end), all_flags)

    def _kind_of(self, data: bytes, payload: int, first: bytes) -> _Kind | None:
        """Read a header not met before in this datagram; None if its message is not for this batch."""
        at = payload - HEADER_SIZE
        if payload > len(data):
            raise NetlinkDecodeError(f"{len(data) - at} bytes are left, too few for a header", at)
        length, type, flags, _, _ = HEADER.unpack_from(data, at)
        if length < HEADER_SIZE or at + length > len(data):
            raise NetlinkDecodeError(f"a message claims {length} bytes of {len(data) - at}", at)
        if type != _NEWROUTE or data[at + 8 : at + 16] != first:
            return None
        if length < HEADER_SIZE + ROUTE_HEADER.size:
            raise NetlinkDecodeError("a route is cut off", payload)
        family = data[payload]
        size = length - HEADER_SIZE
        return _Kind(size, align(length), family, self._cut_for(family, size), flags)

    def _cut_for(self, family: int, size: int) -> struct.Struct | None:
        """Return the Struct that cuts payloads of this length; None where they must be walked."""
        try:
            return self._cuts[family, size]
        except KeyError:
            pass
        if family not in _SHORTEST or not _SHORTEST[family] <= size <= _LONGEST or size % 4:
            return None
        # Big-endian, for the destination; "expires" is only compared with 0.
        if family == AF_INET:
            cut = struct.Struct(f">24sI{size - 28}s")
        else:
            cut = struct.Struct(f">24sQQ{size - 80}s8xI20x8s")
        self._cuts[family, size] = cut
        return cut

    def _walk(self, data: Buffer, start: int, end: int) -> tuple[int, RouteBody]:
        message = decode_route(data, start, end)
        return message.destination, self.intern(message.body)

    def _learn(self, key: bytes, data: Buffer, start: int, end: int) -> tuple[int, RouteBody]:
        """Decode a message whose key is new; keep the key if the message has the shape that the cut assumes."""
        destination, body = self._walk(data, start, end)
        if _has_shape(data, start, end):
            seen = self._seen[body.family]
            if len(seen) >= self._most_keys:
                seen.clear()
            seen[key] = body
        return destination, body


def _runs_of(routes: Iterable[tuple[int, RouteBody]]) -> Iterator[Run]:
    for _, run in groupby(routes, lambda route: id(route[1])):
        destinations, bodies = zip(*run, strict=True)
        yield bodies[0], destinations


class _Kind(NamedTuple):
    """What messages with the same header and family have in common."""

    size: int  # of the payload
    stride: int  # from one such message to the next
    family: int
    cut: struct.Struct | None
    flags: int


def _has_shape(data: Buffer, start: int, end: int) -> bool:
    """Whether the only RTA_DST, and for IPv6 the only RTA_CACHEINFO, are where the cut assumes them."""
    family = data[start]
    found = [
        span for span in iter_attributes(data, start + ROUTE_HEADER.size, end) if span[0] in (RTA_DST, RTA_CACHEINFO)
    ]
    expected = [(RTA_DST, start + _DST, start + _AFTER_DST[family])]
    if family == AF_INET6:
        expected.append((RTA_CACHEINFO, end - _CACHEINFO, end - _AFTER_CACHEINFO))
    return found == expected
