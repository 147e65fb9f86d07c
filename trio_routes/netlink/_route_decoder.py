"""The hot path of a dump: route messages to runs of destinations with a shared RouteBody, many at a time.

A kernel that dumps a hundred thousand routes sends a hundred thousand messages that differ in
little but the destination. So a message is cut into the destination and the rest
(`_route_columns.py`), and the rest, as bytes, is the key under which the decoded body lies.

Why this cannot confuse routes: the key holds every byte that was not cut out, the attributes'
headers among them, and a key is only learnt after the ordinary walk has decoded the message and
found the one RTA_DST (and RTA_CACHEINFO) exactly where the cut assumes them. A message of another
shape, such as a default route without RTA_DST, is never learnt and takes the walk each time.
"""

from __future__ import annotations

import weakref
from typing import NamedTuple

from .._errors import NetlinkDecodeError
from ._attributes import AF_INET, AF_INET6, Buffer, align
from ._framing import HEADER, HEADER_SIZE, MessageType
from ._route import ROUTE_HEADER, RouteBody, decode_route
from ._route_columns import Cut, Row, Run, by_key, cut_for, has_shape

_NEWROUTE = int(MessageType.RTM_NEWROUTE)

# Learnt keys; at about 200 bytes each, 13 MB. A table of a million routes through a hundred
# gateways needs some thousands; only one with a metric per route gets near.
_MOST_KEYS = 65_536
# Messages with one header in a row that are cut at once: what makes it pay. Where there is no such row, the next
# messages are not asked for one.
_A_ROW = 32
_LOOK_AGAIN = 16


class RouteBatch(NamedTuple):
    """What `RouteDecoder.decode_many` found.

    Attributes:
      runs: The RTM_NEWROUTE messages, in order, as runs of those that have the same body.
      end: Offset in bytes, in the same buffer, of the first message that is not one of them (a DONE,
        an ERROR, a message of another sequence number), or where the datagram ends.
      flags: All nlmsg_flags of these messages, or-ed. NLM_F_DUMP_INTR here means that the dump is torn.
      messages: How many there were.
    """

    runs: list[Run]
    end: int
    flags: int
    messages: int


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
        self._cuts: dict[tuple[int, int], Cut | None] = {}
        self._bodies: weakref.WeakKeyDictionary[RouteBody, weakref.ref[RouteBody]] = weakref.WeakKeyDictionary()

    def decode(self, data: Buffer, start: int, end: int) -> tuple[int, RouteBody]:
        """Decode the payload ``data[start:end]`` of one route message; the result equals `decode_route`'s.

        Raises:
          NetlinkDecodeError: As for `decode_route`.
        """
        if not 0 <= start < end <= len(data):
            raise NetlinkDecodeError("a route is cut off", start)
        return self._decode(self._cut_for(data[start], end - start), data, start, end)

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
        return RouteBatch(batch.runs, start + batch.end, batch.flags, batch.messages)

    def intern(self, body: RouteBody) -> RouteBody:
        """Return the one object that stands for this body, which is ``body`` itself if there was none."""
        known = self._bodies.get(body)
        first = known() if known is not None else None
        if first is None:
            self._bodies[body] = weakref.ref(body)
            return body
        return first

    def _decode_datagram(self, data: bytes) -> RouteBatch:
        runs: list[Run] = []
        append = runs.append
        kinds: dict[bytes, _Kind] = {}
        seen4, seen6 = self._seen[AF_INET].get, self._seen[AF_INET6].get
        end, at, all_flags, first, look_at, together = len(data), 0, 0, data[8:16], 0, 0
        while at < end:
            # Header and family are the same for hundreds of messages, so they are looked at once.
            head = data[at : at + HEADER_SIZE + 1]
            kind = kinds.get(head)
            if kind is None:
                kind = self._kind_of(data, at, first)
                if kind is None:
                    break
                all_flags |= kind.flags
                kinds[head] = kind
            size, stride, family, cut, _ = kind
            payload = at + HEADER_SIZE
            if payload + size > end:
                raise NetlinkDecodeError(f"a message claims {size} bytes of {end - payload}", at)
            if cut is None:
                append(self._one(data, payload, payload + size))
            else:
                if at >= look_at:
                    if data.startswith(head, at + _A_ROW // 2 * stride) and data.startswith(head, at + _A_ROW * stride):
                        row = cut.row(data, at)
                        these = self._decode_row(cut, row, data, payload)
                        runs += these
                        together += len(row.ends) - len(these)
                        at += len(row.ends) * stride
                        continue
                    look_at = at + _LOOK_AGAIN * stride
                # As `_decode`, which is not called: a call a route would cost a fifth more.
                if family == AF_INET:
                    before, destination, after = cut.fields.unpack_from(data, payload)
                    body = seen4(before + after)
                else:
                    key, destination = cut.one(data, payload)
                    body = seen6(key)
                append(self._one(data, payload, payload + size) if body is None else (body, (destination,)))
            at += stride
        return RouteBatch(runs, min(at, end), all_flags, len(runs) + together)

    def _one(self, data: bytes, start: int, end: int) -> Run:
        destination, body = self.decode(data, start, end)
        return body, (destination,)

    def _decode_row(self, cut: Cut, row: Row, data: bytes, payload: int) -> list[Run]:
        """Decode a row, the first payload of which is at ``payload``."""
        begin, ends, destinations = row
        seen, size, stride = self._seen[cut.family], cut.size, HEADER_SIZE + cut.size
        together, later = by_key(row)
        bodies: dict[bytes, RouteBody] = {}
        for end in together:
            body = seen.get(begin + end)
            if body is None:
                start = payload + ends.index(end) * stride
                _, body = self._decode(cut, data, start, start + size)
                if begin + end not in seen:
                    break
            bodies[end] = body
        else:
            runs = [(bodies[end], these) for end, these in together.items() if these]
            return runs + [(bodies[end], (destination,)) for end, destination in later]
        # A message of another shape is among them, or of another family than the first.
        starts = range(payload, payload + len(destinations) * stride, stride)
        return [self._one(data, start, start + size) for start in starts]

    def _kind_of(self, data: bytes, at: int, first: bytes) -> _Kind | None:
        """Read a header not met before in this datagram; None if its message is not for this batch."""
        payload = at + HEADER_SIZE
        if payload > len(data):
            raise NetlinkDecodeError(f"{len(data) - at} bytes are left, too few for a header", at)
        length, type, flags, _, _ = HEADER.unpack_from(data, at)
        if length < HEADER_SIZE or at + length > len(data):
            raise NetlinkDecodeError(f"a message claims {length} bytes of {len(data) - at}", at)
        if type != _NEWROUTE or data[at + 8 : at + 16] != first:
            return None
        if length < HEADER_SIZE + ROUTE_HEADER.size:
            raise NetlinkDecodeError("a route is cut off", payload)
        family, size = data[payload], length - HEADER_SIZE
        return _Kind(size, align(length), family, self._cut_for(family, size), flags)

    def _decode(self, cut: Cut | None, data: Buffer, start: int, end: int) -> tuple[int, RouteBody]:
        if cut is None:
            return self._walk(data, start, end)
        key, destination = cut.one(data, start)
        seen = self._seen[cut.family]
        body = seen.get(key)
        if body is None:
            destination, body = self._walk(data, start, end)
            if has_shape(cut.family, data, start, end):
                if len(seen) >= self._most_keys:
                    seen.clear()
                seen[key] = body
        return destination, body

    def _walk(self, data: Buffer, start: int, end: int) -> tuple[int, RouteBody]:
        message = decode_route(data, start, end)
        return message.destination, self.intern(message.body)

    def _cut_for(self, family: int, size: int) -> Cut | None:
        try:
            return self._cuts[family, size]
        except KeyError:
            pass
        cut = cut_for(family, size)
        if cut is not None:  # of which there are few; of the others anybody may send many
            self._cuts[family, size] = cut
        return cut


class _Kind(NamedTuple):
    """What messages with the same header and family have in common."""

    size: int  # of the payload
    stride: int  # from one such message to the next
    family: int
    cut: Cut | None
    flags: int
