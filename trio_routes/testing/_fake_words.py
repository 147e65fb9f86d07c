"""Routes and rules as a test writes them, to the bodies and messages that netlink carries."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final, Literal, TypeAlias, TypedDict

from ..netlink import (
    AF_INET,
    AF_INET6,
    RT_SCOPE_HOST,
    RT_SCOPE_LINK,
    RT_SCOPE_UNIVERSE,
    RT_TABLE_MAIN,
    RTN_BLACKHOLE,
    RTN_LOCAL,
    RTN_PROHIBIT,
    RTN_THROW,
    RTN_UNICAST,
    RTN_UNREACHABLE,
    RTPROT_STATIC,
    IPAddress,
    NextHop,
    RouteBody,
    RuleMessage,
)
from ._fake_links import FakeLink, LinkState
from ._fake_network import LOOPBACK_IFINDEX, FakeNetwork
from ._fake_notices import family_of
from ._fake_routes import refuse

RouteType: TypeAlias = Literal["unicast", "local", "blackhole", "unreachable", "prohibit", "throw"]
FakeHop: TypeAlias = str | tuple[str | None, "FakeLink | str"]
"""A gateway, or a gateway (None: on the link) and the device."""

ROUTE_TYPES: Final[dict[RouteType, int]] = {
    "unicast": RTN_UNICAST,
    "local": RTN_LOCAL,
    "blackhole": RTN_BLACKHOLE,
    "unreachable": RTN_UNREACHABLE,
    "prohibit": RTN_PROHIBIT,
    "throw": RTN_THROW,
}
_WITHOUT_HOPS = (RTN_BLACKHOLE, RTN_UNREACHABLE, RTN_PROHIBIT, RTN_THROW)
_IPV6_METRIC = 1024  # what the kernel gives a route that comes without one (IP6_RT_PRIO_USER)


class FakeRouteOptions(TypedDict, total=False):
    """How to write a route.

    Attributes:
      via: The gateway; must be on a link, or `device` must say on which.
      device: The link, or its name; without one it is the link that leads to the gateway.
      metric: The priority, lower first; by default 0, for IPv6 1024.
      table: The table's number; main (254) by default.
      type: What the route does, "unicast" by default.
      nexthops: Several ways instead of one: gateways, or (gateway or None, device).
      source: The preferred source address.
      protocol: RTPROT_*, who installed it; static (4) by default.
      family: AF_INET or AF_INET6, for "default" where no gateway tells; IPv4 by default.
    """

    via: str | IPAddress | None
    device: FakeLink | str | None
    metric: int | None
    table: int
    type: RouteType
    nexthops: Sequence[FakeHop]
    source: str | IPAddress | None
    protocol: int
    family: int


def as_address(value: str | IPAddress) -> IPAddress:
    """Take an address as text or as an object, without its scope: tables know none. Raises ValueError."""
    address = ip_address(value) if isinstance(value, str) else value
    return IPv6Address(int(address)) if isinstance(address, IPv6Address) else address


def parse_destination(text: str, options: FakeRouteOptions) -> IPv4Network | IPv6Network:
    """Read "192.0.2.0/24", "192.0.2.7" or "default", whose family the options tell.

    Raises:
      ValueError: Not a prefix, or one with bits set beyond its length, which a kernel refuses as well.
    """
    if text != "default":
        return ip_network(text)
    hops = [options.get("via"), *(hop if isinstance(hop, str) else hop[0] for hop in options.get("nexthops", ()))]
    families = {family_of(as_address(hop)) for hop in hops if hop is not None}
    return ip_network("::/0" if AF_INET6 in families or options.get("family") == AF_INET6 else "0.0.0.0/0")


def find_link(network: FakeNetwork, device: FakeLink | str | None) -> LinkState | None:
    """Return the link that is meant. Raises OSError (ENODEV) if there is none of that name."""
    if device is None:
        return None
    name = device if isinstance(device, str) else device.name
    link = network.named(name)
    if link is None:
        raise refuse(errno.ENODEV, f"there is no link {name}")
    return link


def route_body(network: FakeNetwork, destination: IPv4Network | IPv6Network, options: FakeRouteOptions) -> RouteBody:
    """Build what a route is apart from its destination's address.

    Raises:
      OSError: ENETUNREACH for a gateway on no link, ENETDOWN for a link that is down, ENODEV for none.
    """
    family = family_of(destination.network_address)
    kind = ROUTE_TYPES[options.get("type", "unicast")]
    hops = _next_hops(network, family, kind, options)
    metric, source = options.get("metric"), options.get("source")
    if metric is None:
        metric = 0 if family == AF_INET else _IPV6_METRIC
    return RouteBody(
        family,
        options.get("table", RT_TABLE_MAIN),
        destination.prefixlen,
        type=kind,
        protocol=options.get("protocol", RTPROT_STATIC),
        scope=_scope(family, kind, hops),
        priority=metric,
        nexthops=hops,
        multipath=len(hops) > 1,
        prefsrc=None if source is None else as_address(source),
    )


def _next_hops(network: FakeNetwork, family: int, kind: int, options: FakeRouteOptions) -> tuple[NextHop, ...]:
    if kind in _WITHOUT_HOPS:
        # IPv6 has no route without a device; these get the loopback's.
        return () if family == AF_INET else (NextHop(LOOPBACK_IFINDEX),)
    ways: Sequence[FakeHop | tuple[str | IPAddress | None, FakeLink | str | None]] = options.get("nexthops", ())
    if not ways:
        ways = [(options.get("via"), options.get("device"))]
    hops: list[NextHop] = []
    for way in ways:
        via, device = (way, None) if isinstance(way, str) else way
        hops.append(network.hop(None if via is None else as_address(via), find_link(network, device), family))
    return tuple(hops)


def _scope(family: int, kind: int, hops: tuple[NextHop, ...]) -> int:
    """The scope that `ip route` asks for; IPv6 has none."""
    if family == AF_INET6 or kind in _WITHOUT_HOPS:
        return RT_SCOPE_UNIVERSE
    if kind == RTN_LOCAL:
        return RT_SCOPE_HOST
    return RT_SCOPE_UNIVERSE if any(hop.gateway is not None for hop in hops) else RT_SCOPE_LINK


def rule_message(
    *,
    source: str | None,
    destination: str | None,
    mark: int,
    mask: int | None,
    iif: str,
    oif: str,
    table: int,
    priority: int,
    family: int | None,
    protocol: int,
) -> RuleMessage:
    """Build a rule; its family is that of its prefixes, or given."""
    prefixes = [ip_network(each) if each is not None else None for each in (source, destination)]
    families = {family_of(each.network_address) for each in prefixes if each is not None}
    if family is not None:
        families.add(family)
    if len(families) > 1:
        raise ValueError("a rule is of one family")
    from_, to = prefixes
    if mask is None:
        mask = 0xFFFFFFFF if mark else 0
    return RuleMessage(
        families.pop() if families else AF_INET,
        priority,
        table,
        source=0 if from_ is None else int(from_.network_address),
        source_length=0 if from_ is None else from_.prefixlen,
        destination=0 if to is None else int(to.network_address),
        destination_length=0 if to is None else to.prefixlen,
        iif=iif,
        oif=oif,
        mark=mark,
        mask=mask,
        protocol=protocol,
    )
