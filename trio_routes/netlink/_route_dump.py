"""The hot path of a dump: a datagram of route messages to their destinations, and what the caller has for their bodies.

    datagram ---cut_datagram---> keys -----------> what stands for each body, learnt by its key
                                 destinations

The messages of a dump are looked up by all that is in them but the destination, their headers included
(`_route_columns.py`). Why this cannot take one message for another, although nothing is looked at before:

* a key is only learnt after the ordinary walk decoded the message and found the one RTA_DST (and RTA_CACHEINFO)
  exactly where the cut assumes them; so what is found is a route of this family and this dump, of the length that
  its header says, and the next message begins where it was cut;
* what is not found is walked: a route of another shape, such as a default route without RTA_DST, each time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

import attrs

from .._errors import NetlinkDecodeError
from ._framing import HEADER, HEADER_SIZE, MessageType
from ._route import ROUTE_HEADER, RouteBody
from ._route_columns import cut_datagram, has_shape, is_cut
from ._route_decoder import MOST_KEYS, RouteDecoder

_T = TypeVar("_T")
_NEWROUTE = int(MessageType.RTM_NEWROUTE)
PORTION = 32


@attrs.frozen(slots=True)
class RouteBatch(Generic[_T]):
    """The routes at the start of a datagram, in order.

    Attributes:
      values: What stands for the body of each.
      destinations: The destination of each; as many.
      end: Offset in bytes of the first message that is not one of them (a DONE, an ERROR, a message of another
        sequence number or family), or where the datagram ends, or where the next portion of it begins.
      is_portion: Whether there is another portion.
      flags: All nlmsg_flags of the dump so far, or-ed. NLM_F_DUMP_INTR here means that it is torn.
    """

    values: list[_T]
    destinations: list[int]
    end: int
    flags: int
    is_portion: bool = False


class DumpDecoder(Generic[_T]):
    """Decodes the routes of one dump of one family.

    Args:
      routes: Makes shared bodies of them.
      family: AF_INET or AF_INET6.
      meet: Asked what is to stand for a body, which may be a hundred thousand routes'; asked again of the same one
        where the messages differ nevertheless, or too many were learnt.
      most_keys: Keys that are learnt; then they are forgotten, and learning begins again.
      portion: Messages that are walked in one go. A walk takes 20 to 40 µs, and of the first datagrams of a table most
        messages are not known.
    """

    __slots__ = ("_family", "_first", "_flags", "_found", "_meet", "_most_keys", "_portion", "_routes")

    def __init__(
        self,
        routes: RouteDecoder,
        family: int,
        meet: Callable[[RouteBody], _T],
        *,
        most_keys: int = MOST_KEYS,
        portion: int = PORTION,
    ) -> None:
        self._routes = routes
        self._family = family
        self._meet = meet
        self._most_keys = most_keys
        self._portion = portion
        self._found: dict[bytes, _T] = {}
        self._flags = 0
        # The sequence number and port that the dump's messages have.
        self._first: bytes | None = None

    def decode(self, data: bytes) -> RouteBatch[_T]:
        """Decode the RTM_NEWROUTE messages at the start of a datagram, up to the first message that is none.

        All of them are of the family, and have the sequence number and port of the first message of the dump; one
        that has not ends the batch. An offset to go on from is returned, for `iter_messages`; or for this, where the
        batch is but a portion: what is left of the datagram is then to be decoded in another turn of the loop.

        Raises:
          NetlinkDecodeError: A message breaks its framing; the routes before it are lost with it.
        """
        columns = cut_datagram(self._family, data)
        values: list[_T] = []
        destinations, starts, walked = columns.destinations, list[int](), 0
        known = map(self._found.__getitem__, columns.keys)
        while True:
            try:
                values.extend(known)  # up to a key that is not known: those before it are kept
                break
            except KeyError:
                starts = starts or columns.starts()
            number = len(values)
            if walked == self._portion:
                del destinations[number:]
                return RouteBatch(values, destinations, starts[number], self._flags, is_portion=True)
            walked += 1
            route = self._walk(data, starts[number])
            if route is None:
                del destinations[number:]
                return RouteBatch(values, destinations, starts[number], self._flags)
            destinations[number] = route[0]
            values.append(route[1])
        if columns.end < len(data):
            # Not a route, or broken; or the last of all, and not padded.
            route = self._walk(data, columns.end)
            if route is None:
                return RouteBatch(values, destinations, columns.end, self._flags)
            destinations.append(route[0])
            values.append(route[1])
        return RouteBatch(values, destinations, len(data), self._flags)

    def _walk(self, data: bytes, at: int) -> tuple[int, _T] | None:
        """Decode a message that is not known, and learn it if it can be known; None if it is not for this batch."""
        start = at + HEADER_SIZE
        if start > len(data):
            raise NetlinkDecodeError(f"{len(data) - at} bytes are left, too few for a header", at)
        length, type, flags, _, _ = HEADER.unpack_from(data, at)
        end = at + length
        if length < HEADER_SIZE or end > len(data):
            raise NetlinkDecodeError(f"a message claims {length} bytes of {len(data) - at}", at)
        self._first = self._first or data[at + 8 : start]
        if type != _NEWROUTE or data[at + 8 : start] != self._first:
            return None
        if length < HEADER_SIZE + ROUTE_HEADER.size:
            raise NetlinkDecodeError("a route is cut off", start)
        family = data[start]
        if family != self._family:
            return None
        self._flags |= flags
        destination, body = self._routes.walk(data, start, end)
        value = self._meet(body)
        if is_cut(family, end - start) and has_shape(family, data, start, end):
            if len(self._found) >= self._most_keys:
                self._found.clear()
            (key,) = cut_datagram(family, data[at:end]).keys
            self._found[key] = value
        return destination, value
