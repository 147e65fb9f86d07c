"""What a fake kernel says to the multicast groups: each change of its state as one message."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from ..netlink import (
    AF_INET,
    AF_INET6,
    RTN_UNICAST,
    RTNLGRP_IPV4_IFADDR,
    RTNLGRP_IPV4_NETCONF,
    RTNLGRP_IPV4_ROUTE,
    RTNLGRP_IPV4_RULE,
    RTNLGRP_IPV6_IFADDR,
    RTNLGRP_IPV6_NETCONF,
    RTNLGRP_IPV6_ROUTE,
    RTNLGRP_IPV6_RULE,
    RTNLGRP_LINK,
    RTNLGRP_NEIGH,
    AddressMessage,
    IPAddress,
    MessageType,
    NeighbourMessage,
    NetconfMessage,
    RouteMessage,
    RuleMessage,
    encode_address,
    encode_link,
    encode_neighbour,
    encode_netconf,
    encode_route,
    encode_rule,
)
from ._fake_links import LinkState

Announce: TypeAlias = Callable[[int, MessageType, int, bytes], None]
"""Called with each notification: multicast group, message type, flags, payload."""


class Notices:
    """Encodes what happened, and picks the group that is to hear of it."""

    def __init__(self, announce: Announce) -> None:
        self._announce = announce

    def link(self, kind: MessageType, link: LinkState, *, running: bool | None = None) -> None:
        """Tell of a link; `running` as for `LinkState.message`."""
        self._announce(RTNLGRP_LINK, kind, 0, encode_link(link.message(running=running)))

    def address(self, kind: MessageType, address: AddressMessage) -> None:
        """Tell of an address."""
        group = _of_family(address.family, RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV6_IFADDR)
        self._announce(group, kind, 0, encode_address(address))

    def route(self, kind: MessageType, flags: int, route: RouteMessage) -> None:
        """Tell of a route; the flags say whether it was added or took another's place."""
        group = _of_family(route.body.family, RTNLGRP_IPV4_ROUTE, RTNLGRP_IPV6_ROUTE)
        self._announce(group, kind, flags, encode_route(route))

    def rule(self, kind: MessageType, rule: RuleMessage) -> None:
        """Tell of a rule."""
        group = _of_family(rule.family, RTNLGRP_IPV4_RULE, RTNLGRP_IPV6_RULE)
        self._announce(group, kind, 0, encode_rule(rule))

    def netconf(self, kind: MessageType, family: int, ifindex: int) -> None:
        """Tell of a link's switches."""
        group = _of_family(family, RTNLGRP_IPV4_NETCONF, RTNLGRP_IPV6_NETCONF)
        self._announce(group, kind, 0, encode_netconf(netconf_message(family, ifindex)))

    def neighbour(self, kind: MessageType, link: LinkState, address: IPAddress, state: int) -> None:
        """Tell of a neighbour."""
        self._announce(RTNLGRP_NEIGH, kind, 0, encode_neighbour(neighbour_message(link, address, state)))


def neighbour_message(link: LinkState, address: IPAddress, state: int) -> NeighbourMessage:
    """Describe a neighbour as a NEWNEIGH does; `state` is NUD_*."""
    return NeighbourMessage(family_of(address), link.ifindex, address, state, type=RTN_UNICAST)


def netconf_message(family: int, ifindex: int) -> NetconfMessage:
    """Describe a link's switches, all off: a fake kernel has no others."""
    return NetconfMessage(
        family,
        ifindex,
        forwarding=0,
        rp_filter=0 if family == AF_INET else None,
        mc_forwarding=0,
        proxy_neigh=0,
        ignore_routes_with_linkdown=0,
    )


def family_of(address: IPAddress) -> int:
    """AF_INET or AF_INET6."""
    return AF_INET if address.version == 4 else AF_INET6


def _of_family(family: int, ipv4: int, ipv6: int) -> int:
    return ipv4 if family == AF_INET else ipv6
