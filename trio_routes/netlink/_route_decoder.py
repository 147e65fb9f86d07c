"""Route messages, one at a time, to destinations and shared bodies. Of a dump all at once: `_route_dump.py`.

A kernel that tells of a hundred thousand routes sends a hundred thousand messages that differ in
little but the destination. So a message is cut into the destination and the rest
(`_route_columns.py`), and the rest, as bytes, is the key under which the decoded body lies.

Why this cannot confuse routes: the key holds every byte that was not cut out, the attributes'
headers among them, and a key is only learnt after the ordinary walk has decoded the message and
found the one RTA_DST (and RTA_CACHEINFO) exactly where the cut assumes them. A message of another
shape, such as a default route without RTA_DST, is never learnt and takes the walk each time.
"""

from __future__ import annotations

import weakref

from .._errors import NetlinkDecodeError
from ._attributes import AF_INET, AF_INET6, Buffer
from ._route import RouteBody, decode_route
from ._route_columns import Cut, cut_for, has_shape

# Learnt keys; at about 200 bytes each, 13 MB. A table of a million routes through a hundred
# gateways needs some thousands; only one with a metric per route gets near.
MOST_KEYS = 65_536


class RouteDecoder:
    """Decodes route messages into shared bodies: within one decoder, equal bodies are the same object.

    A body lives as long as somebody uses it, or as its key is among those learnt (the table of keys
    is emptied when it is full, and fills again), so memory is bounded by what the caller keeps.

    Not thread-safe; a pt has its own.
    """

    __slots__ = ("_bodies", "_cuts", "_most_keys", "_seen")

    def __init__(self, most_keys: int = MOST_KEYS) -> None:
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

    def walk(self, data: Buffer, start: int, end: int) -> tuple[int, RouteBody]:
        """Decode a payload as `decode` does, but learn nothing from it.

        Raises:
          NetlinkDecodeError: As for `decode_route`.
        """
        message = decode_route(data, start, end)
        return message.destination, self.intern(message.body)

    def intern(self, body: RouteBody) -> RouteBody:
        """Return the one object that stands for this body, which is ``body`` itself if there was none."""
        known = self._bodies.get(body)
        first = known() if known is not None else None
        if first is None:
            self._bodies[body] = weakref.ref(body)
            return body
        return first

    def _decode(self, cut: Cut | None, data: Buffer, start: int, end: int) -> tuple[int, RouteBody]:
        if cut is None:
            return self.walk(data, start, end)
        key, destination = cut.one(data, start)
        seen = self._seen[cut.family]
        body = seen.get(key)
        if body is None:
            destination, body = self.walk(data, start, end)
            if has_shape(cut.family, data, start, end):
                if len(seen) >= self._most_keys:
                    seen.clear()
                seen[key] = body
        return destination, body

    def _cut_for(self, family: int, size: int) -> Cut | None:
        try:
            return self._cuts[family, size]
        except KeyError:
            pass
        cut = cut_for(family, size)
        if cut is not None:  # of which there are few; of the others anybody may send many
            self._cuts[family, size] = cut
        return cut
