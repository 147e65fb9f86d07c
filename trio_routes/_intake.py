"""From datagrams into the cache: notifications are applied to it, the parts of a dump are staged beside it.

Options of router advertisements come in the same stream and belong to no table: they are handed on.
"""

from __future__ import annotations

from collections.abc import Callable

import attrs

from .netlink import (
    HEADER_SIZE,
    NLM_F_DUMP_INTR,
    RTM_F_CLONED,
    DumpDecoder,
    ErrorMessage,
    MessageType,
    NdUserOption,
    RouteDecoder,
    decode_address,
    decode_done,
    decode_error,
    decode_link,
    decode_nd_user_option,
    decode_neighbour,
    decode_netconf,
    decode_nexthop,
    decode_rule,
    iter_messages,
    lone_message,
)
from .routing import Cache, Home, Staging

# To look a member of an enumeration up takes longer than to look a route up (CPython 3.11), and these come by the
# hundred thousand.
_NEWROUTE = int(MessageType.RTM_NEWROUTE)
_ROUTES = frozenset({_NEWROUTE, int(MessageType.RTM_DELROUTE)})


@attrs.define(slots=True)
class DumpEnd:
    """What a datagram said of a dump as a whole.

    Attributes:
      torn: The kernel says that the table changed under the dump.
      result: How the dump ended, if it did.
      routes: How many routes there were in it.
      rest: What is left of the datagram, to be taken in another turn of the loop.
    """

    torn: bool = False
    result: ErrorMessage | None = None
    routes: int = 0
    rest: bytes = b""


class Intake:
    """Decodes what a channel received, into one cache.

    Args:
      cache: Where to.
      on_option: Takes options of router advertisements; None drops them.
    """

    def __init__(self, cache: Cache, on_option: Callable[[NdUserOption], None] | None = None) -> None:
        self._cache = cache
        self._on_option = on_option
        self._routes = RouteDecoder()
        self._dump: tuple[Staging, DumpDecoder[Home]] | None = None

    def apply(self, data: bytes) -> bool:
        """Apply a datagram of notifications; False where the kernel says in it that some are missing.

        Raises:
          NetlinkDecodeError: A message breaks its framing; those before it were applied.
        """
        lone = lone_message(data)
        if lone is not None:
            kind, flags = lone
            return self._apply_message(kind, flags, data, HEADER_SIZE, len(data))
        complete = True
        for header, start, end in iter_messages(data):
            complete &= self._apply_message(header.type, header.flags, data, start, end)
        return complete

    def _apply_message(self, kind: int, flags: int, data: bytes, start: int, end: int) -> bool:
        """Apply one message; False where it says that others are missing."""
        if kind not in _ROUTES:
            return self._apply_other(kind, data, start, end)
        destination, body = self._routes.decode(data, start, end)
        if body.flags & RTM_F_CLONED:
            pass  # an answer to somebody's question
        elif kind == _NEWROUTE:
            self._cache.add_route(destination, body, flags)
        else:
            self._cache.remove_route(destination, body)
        return True

    def _apply_other(self, kind: int, data: bytes, start: int, end: int) -> bool:
        cache = self._cache
        match kind:
            case MessageType.RTM_NEWLINK | MessageType.RTM_DELLINK:
                cache.apply_link(decode_link(data, start, end), kind == MessageType.RTM_DELLINK)
            case MessageType.RTM_NEWADDR | MessageType.RTM_DELADDR:
                cache.apply_address(decode_address(data, start, end), kind == MessageType.RTM_DELADDR)
            case MessageType.RTM_NEWNEIGH | MessageType.RTM_DELNEIGH:
                cache.apply_neighbour(decode_neighbour(data, start, end), kind == MessageType.RTM_DELNEIGH)
            case MessageType.RTM_NEWRULE | MessageType.RTM_DELRULE:
                cache.apply_rule(decode_rule(data, start, end), kind == MessageType.RTM_DELRULE)
            case MessageType.RTM_NEWNEXTHOP | MessageType.RTM_DELNEXTHOP:
                cache.apply_nexthop(decode_nexthop(data, start, end), kind == MessageType.RTM_DELNEXTHOP)
            case MessageType.RTM_NEWNETCONF | MessageType.RTM_DELNETCONF:
                cache.apply_switches(decode_netconf(data, start, end), kind == MessageType.RTM_DELNETCONF)
            case MessageType.RTM_NEWNDUSEROPT:
                if self._on_option is not None:
                    self._on_option(decode_nd_user_option(data, start, end))
            case MessageType.OVERRUN:
                return False
            case _:
                pass  # newer kernels may say more in these groups; nothing of it is a route
        return True

    def stage(self, staging: Staging, data: bytes) -> DumpEnd:
        """Take a datagram of a dump in, or a portion of it.

        Raises:
          NetlinkDecodeError: A message breaks its framing; what follows it in the datagram is lost.
        """
        said, taken = DumpEnd(), 0
        if staging.holds_routes:
            batch = self._decoder_of(staging).decode(data)
            staging.take_routes(batch.values, batch.destinations)
            said.torn, said.routes, taken = bool(batch.flags & NLM_F_DUMP_INTR), len(batch.values), batch.end
            if batch.is_portion:
                said.rest = data[taken:]
                return said
        for header, start, end in iter_messages(data, taken):
            said.torn |= bool(header.flags & NLM_F_DUMP_INTR)
            match header.type:
                case MessageType.DONE:
                    said.result = decode_done(data, start, end)
                case MessageType.ERROR:
                    said.result = decode_error(data, start, end)
                case _:
                    self._stage_message(staging, header.type, data, start, end)
        if said.result is not None:
            self._dump = None
        return said

    def _decoder_of(self, staging: Staging) -> DumpDecoder[Home]:
        """What decodes the dump that is staged: one at a time comes in, and each is staged anew."""
        if self._dump is None or self._dump[0] is not staging:
            self._dump = staging, DumpDecoder(self._routes, staging.family, staging.home_of)
        return self._dump[1]

    def _stage_message(self, staging: Staging, kind: int, data: bytes, start: int, end: int) -> None:
        match kind:
            case MessageType.RTM_NEWROUTE:
                destination, body = self._routes.decode(data, start, end)
                staging.take_route(destination, body)
            case MessageType.RTM_NEWLINK:
                staging.take_link(decode_link(data, start, end))
            case MessageType.RTM_NEWADDR:
                staging.take_address(decode_address(data, start, end))
            case MessageType.RTM_NEWRULE:
                staging.take_rule(decode_rule(data, start, end))
            case MessageType.RTM_NEWNEXTHOP:
                staging.take_nexthop(decode_nexthop(data, start, end))
            case MessageType.RTM_NEWNETCONF:
                staging.take_switches(decode_netconf(data, start, end))
            case MessageType.RTM_NEWNEIGH:
                staging.take_neighbour(decode_neighbour(data, start, end))
            case _:
                pass
