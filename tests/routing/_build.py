"""Small tables by hand: the messages of a host, with everything left out that a test does not speak of."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

import attrs

from trio_routes.netlink import (
    AF_INET,
    AF_INET6,
    AddressMessage,
    IPAddress,
    LinkMessage,
    NextHop,
    RouteBody,
    RuleMessage,
)
from trio_routes.routing import Cache, Resolution

UP, CARRIER = 0x1, 0x10040  # IFF_UP; IFF_LOWER_UP and IFF_RUNNING
LO, ETH0, ETH1, ETH2 = 1, 2, 3, 4
NAMES = {LO: "lo", ETH0: "eth0", ETH1: "eth1", ETH2: "eth2"}
LOOPBACK = 0x8


def family_of(prefix: IPv4Network | IPv6Network) -> int:
    return AF_INET if prefix.version == 4 else AF_INET6


def hop(ifindex: int, gateway: str | None = None) -> NextHop:
    return NextHop(ifindex, None if gateway is None else ip_address(gateway))


def body(prefix: str, *hops: NextHop, **fields: object) -> tuple[int, RouteBody]:
    """A route as (destination, body)."""
    network = ip_network(prefix)
    made = RouteBody(family_of(network), 254, network.prefixlen, nexthops=hops, multipath=len(hops) > 1)
    return int(network.network_address), attrs.evolve(made, **fields)  # type: ignore[arg-type]  # names of RouteBody


def wide_body(length: int, *hops: NextHop, priority: int = 0) -> RouteBody:
    """An IPv6 route of some prefix length, to wherever."""
    return RouteBody(AF_INET6, 254, length, nexthops=hops, priority=priority, multipath=len(hops) > 1)


class Host:
    """A cache fed by hand: `lo` and three links up, the two usual rules of each family."""

    def __init__(self) -> None:
        self.cache = Cache()
        for family in (AF_INET, AF_INET6):
            for priority, table in ((0, 255), (32766, 254)):
                self.rule(RuleMessage(family, priority, table))
        self.cache.apply_link(LinkMessage(LO, "lo", UP | CARRIER | LOOPBACK), gone=False)
        for ifindex in (ETH0, ETH1, ETH2):
            self.link(ifindex, UP | CARRIER)
        self.cache.start_recording()

    def link(self, ifindex: int, flags: int, group: int = 0) -> None:
        self.cache.apply_link(LinkMessage(ifindex, NAMES[ifindex], flags, group=group), gone=False)

    def remove_link(self, ifindex: int) -> None:
        self.cache.apply_link(LinkMessage(ifindex, NAMES[ifindex]), gone=True)

    def rule(self, rule: RuleMessage, gone: bool = False) -> None:
        self.cache.apply_rule(rule, gone)

    def address(self, ifindex: int, address: str, gone: bool = False, flags: int = 0) -> None:
        of, length = address.split("/")
        ip = ip_address(of)
        family = AF_INET if ip.version == 4 else AF_INET6
        self.cache.apply_address(AddressMessage(family, ifindex, ip, int(length), flags=flags), gone)

    def add(self, prefix: str, *hops: NextHop, flags: int = 0, **fields: object) -> RouteBody:
        destination, made = body(prefix, *hops, **fields)
        self.cache.add_route(destination, made, flags)
        return made

    def remove(self, prefix: str, *hops: NextHop, **fields: object) -> None:
        self.cache.remove_route(*body(prefix, *hops, **fields))

    def routes(self, prefix: str, table: int = 254) -> list[RouteBody]:
        network = ip_network(prefix)
        return [route.body for route in self.cache.routes() if route.destination == network and route.table == table]

    def lookup(self, destination: str, source: object = None, **options: object) -> Resolution:
        return self.cache.lookup(
            ip_address(destination),
            source=None if source is None else ip_address(str(source)),
            **options,  # type: ignore[arg-type]  # names of Cache.lookup
        )

    def way(self, destination: str, source: str | None = None, **options: object) -> tuple[int, str | None] | str:
        """The one next hop of an answer as (ifindex, gateway), or its outcome in words."""
        found = self.lookup(destination, source, **options)
        if not found.hops:
            return found.outcome.value
        (only,) = found.hops
        return only.ifindex, None if only.gateway is None else str(only.gateway)


def addresses(*texts: str) -> set[IPAddress]:
    return {ip_address(text) for text in texts}
