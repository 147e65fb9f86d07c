"""A small network by hand, for the judge, the registry and the reassessment: what the routing cache would say of it.

Enough of the kernel's rules to tell the situations apart: tables in order, longest prefix, metric, links that are down
or gone, own addresses, IPv4's source check and on-link fallback. Deliberately not the routing cache: a mistake there
must not hide one in the judge.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address, ip_network
from socket import AF_INET, AF_INET6

import attrs

from trio_routes.connections import Flow
from trio_routes.netlink import (
    RTN_BLACKHOLE,
    RTN_LOCAL,
    RTN_PROHIBIT,
    RTN_THROW,
    RTN_UNICAST,
    RTN_UNREACHABLE,
    IPAddress,
    NextHop,
    RouteBody,
)
from trio_routes.routing import (
    Address,
    AddressChange,
    ChangeBatch,
    Kind,
    Link,
    LinkChange,
    NeighbourChange,
    Outcome,
    Resolution,
    Route,
    RouteChange,
)

LO, C1, C2, C3 = 1, 2, 3, 4
NO_CARRIER = Link.IFF_UP
UP = Link.IFF_UP | Link.IFF_RUNNING | Link.IFF_LOWER_UP
MAIN, LOCAL = 254, 255
REJECTS = {
    RTN_BLACKHOLE: Outcome.BLACKHOLE,
    RTN_UNREACHABLE: Outcome.UNREACHABLE,
    RTN_PROHIBIT: Outcome.PROHIBITED,
}


class Network:
    """Links, addresses, routes, and the batch of what changed since `take`."""

    def __init__(self) -> None:
        self.generation = 0
        self.resyncing = False
        self.links: dict[int, Link] = {}
        self.held: list[Address] = []
        self.routes: list[Route] = []
        self.failed: set[tuple[int, IPAddress]] = set()
        self.tables: list[tuple[IPAddress | None, int]] = [(None, LOCAL), (None, MAIN)]
        self.ignore_linkdown = False
        self.lookups = 0
        self._batch = ChangeBatch()
        self.link_is(LO, UP | Link.IFF_LOOPBACK)

    def take(self) -> ChangeBatch:
        """What changed since the last call, as one batch."""
        self.generation += 1
        batch, self._batch = self._batch, ChangeBatch()
        batch.generation = self.generation
        return batch

    # ---- changing it -----------------------------------------------------------------------

    def link_is(self, ifindex: int, flags: int | None = UP, cause: str = "RTM_NEWLINK") -> None:
        """Set a link's flags; None deletes it. What goes with it has to be taken away separately."""
        old = self.links.pop(ifindex, None)
        new = None if flags is None else Link(ifindex, f"link{ifindex}", flags)
        if new is not None:
            self.links[ifindex] = new
        self._batch.links.append(LinkChange(old, new, cause))
        if new is not None and (old is None or old.dead):
            for route in self.routes:
                if any(hop.ifindex == ifindex for hop in route.nexthops):
                    self._batch.revived.append((route.body.family, route.address, route.body.prefix_length))

    def add_address(self, address: str, ifindex: int, prefix_length: int | None = None, flags: int = 0) -> None:
        """Give a link an address and the local route that comes with it."""
        parsed = ip_address(address)
        full = parsed.max_prefixlen
        new = Address(ifindex, parsed, full if prefix_length is None else prefix_length, flags)
        self.held.append(new)
        self._batch.addresses.append(AddressChange(None, new, "RTM_NEWADDR"))
        self.add_route(f"{address}/{full}", dev=ifindex, table=LOCAL, kind=RTN_LOCAL)

    def delete_address(self, address: str, ifindex: int) -> None:
        """Take an address and its local route away."""
        parsed = ip_address(address)
        old = next(held for held in self.held if (held.address, held.ifindex) == (parsed, ifindex))
        self.held.remove(old)
        self._batch.addresses.append(AddressChange(old, None, "RTM_DELADDR"))
        self.delete_route(f"{address}/{parsed.max_prefixlen}", table=LOCAL, dev=ifindex)

    def add_route(
        self,
        prefix: str,
        *,
        via: str | None = None,
        dev: int | None = None,
        hops: tuple[tuple[str | None, int], ...] = (),
        table: int = MAIN,
        metric: int = 0,
        kind: int = RTN_UNICAST,
        protocol: int = 3,
        prefsrc: str | None = None,
        replace: bool = False,
    ) -> Route:
        """Add a route; with `replace`, in place of the one of that prefix, table and metric."""
        net = ip_network(prefix)
        pairs = hops or (((via, dev),) if dev is not None else ())
        body = RouteBody(
            family=AF_INET if net.version == 4 else AF_INET6,
            table=table,
            prefix_length=net.prefixlen,
            type=kind,
            protocol=protocol,
            priority=metric,
            nexthops=tuple(NextHop(ifindex, ip_address(gateway) if gateway else None) for gateway, ifindex in pairs),
            multipath=len(pairs) > 1,
            prefsrc=ip_address(prefsrc) if prefsrc else None,
        )
        new = Route(body, int(net.network_address))
        old = (
            next((route for route in self._routes(prefix, table) if route.metric == metric), None) if replace else None
        )
        if old is not None:
            self.routes.remove(old)
        self.routes.append(new)
        self._batch.routes.append(RouteChange(new.address, old.body if old else None, body, "RTM_NEWROUTE"))
        return new

    def delete_route(
        self, prefix: str, *, table: int = MAIN, metric: int | None = None, dev: int | None = None
    ) -> None:
        """Delete the first route of a prefix in a table (of a metric, by a link)."""
        for route in self._routes(prefix, table):
            if metric in (None, route.metric) and (dev is None or any(hop.ifindex == dev for hop in route.nexthops)):
                self.routes.remove(route)
                self._batch.routes.append(RouteChange(route.address, route.body, None, "RTM_DELROUTE"))
                return
        raise LookupError(prefix)

    def neighbour_is(self, ifindex: int, address: str, *, failed: bool) -> None:
        """Make a neighbour fail or answer."""
        key = (ifindex, ip_address(address))
        (self.failed.add if failed else self.failed.discard)(key)
        self._batch.neighbours.append(NeighbourChange(ifindex, key[1], failed))

    def put_rule(self, table: int, source: str | None = None) -> None:
        """Add a rule ahead of main."""
        self.tables.insert(1, (ip_address(source) if source else None, table))
        self._batch.everything = True

    def drop_rule(self, table: int) -> None:
        """Delete the rules for a table."""
        self.tables = [rule for rule in self.tables if rule[1] != table]
        self._batch.everything = True

    # ---- what the routing cache answers ------------------------------------------------------

    def link(self, ifindex: int) -> Link | None:
        return self.links.get(ifindex)

    def has_address(self, address: IPAddress, ifindex: int) -> bool:
        return any((held.address, held.ifindex) == (address, ifindex) for held in self.held)

    def addresses_of(self, address: IPAddress) -> tuple[Address, ...]:
        return tuple(held for held in self.held if held.address == address)

    def local_route(self, address: IPAddress) -> Route | None:
        covering = [route for route in self._matching(LOCAL, address) if route.body.type == RTN_LOCAL]
        return covering[0] if covering else None

    def has_route(self, route: Route) -> bool:
        return route in self.routes

    def neighbour_failed(self, ifindex: int, address: IPAddress) -> bool:
        return (ifindex, address) in self.failed

    def lookup(
        self,
        destination: IPAddress,
        *,
        source: IPAddress | None = None,
        mark: int = 0,
        oif: int | None = None,
        iif: int | None = None,
        tos: int = 0,
        uid: int | None = None,
        ip_proto: int = 0,
        sport: int = 0,
        dport: int = 0,
        strict: bool = False,
        any_source: bool = False,
        onlink_fallback: bool = True,
    ) -> Resolution:
        self.lookups += 1
        ipv4 = destination.version == 4
        if ipv4 and source and not any_source and not self.addresses_of(source) and not self.local_route(source):
            return Resolution(Outcome.NO_ROUTE, generation=self.generation)
        for rule_source, table in self.tables:
            if rule_source is not None and rule_source != source:
                continue
            for route in self._matching(table, destination):
                if route.body.type == RTN_THROW:
                    break
                if route.body.type in REJECTS:
                    return Resolution(REJECTS[route.body.type], route=route, generation=self.generation)
                hops = tuple(hop for hop in route.nexthops if self._usable(hop, route) and oif in (None, hop.ifindex))
                if hops:
                    return Resolution(
                        Outcome.ROUTED,
                        Kind.LOCAL if route.body.type == RTN_LOCAL else Kind.UNICAST,
                        route,
                        hops=hops,
                        multipath=len(route.nexthops) > 1,
                        source=source or route.body.prefsrc or self._source_on(hops[0].ifindex, destination.version),
                        generation=self.generation,
                    )
        if oif is not None and ipv4 and onlink_fallback:
            return Resolution(Outcome.ROUTED, hops=(NextHop(oif),), source=source, generation=self.generation)
        return Resolution(Outcome.NO_ROUTE, generation=self.generation)

    def _routes(self, prefix: str, table: int) -> Iterator[Route]:
        net = ip_network(prefix)
        yield from [route for route in self.routes if (route.destination, route.table) == (net, table)]

    def _matching(self, table: int, destination: IPAddress) -> list[Route]:
        found = [
            route
            for route in self.routes
            if route.table == table
            and route.destination.version == destination.version
            and destination in route.destination
        ]
        return sorted(found, key=lambda route: (-route.body.prefix_length, route.metric))

    def _usable(self, hop: NextHop, route: Route) -> bool:
        link = self.links.get(hop.ifindex)
        if link is None:
            return False
        if route.body.type == RTN_LOCAL and route.body.family == AF_INET:
            return True
        return link.up and (link.carrier or not self.ignore_linkdown)

    def _source_on(self, ifindex: int, version: int) -> IPAddress | None:
        return next((a.address for a in self.held if a.ifindex == ifindex and a.address.version == version), None)


@attrs.define
class Site:
    """A host with two links, each with a router, and a connection out by the first; in either family."""

    family: int
    network: Network = attrs.field(factory=Network)

    def __attrs_post_init__(self) -> None:
        ipv4 = self.family == 4
        self.s1, self.s2 = ("10.0.1.2", "10.0.2.2") if ipv4 else ("2001:db8:1::2", "2001:db8:2::2")
        self.gw1, self.gw1b = ("10.0.1.1", "10.0.1.254") if ipv4 else ("fe80::1", "fe80::fe")
        self.gw2 = "10.0.2.1" if ipv4 else "fe80::2"
        self.lan1, self.lan2 = ("10.0.1.0/24", "10.0.2.0/24") if ipv4 else ("2001:db8:1::/64", "2001:db8:2::/64")
        self.peer, self.neighbour = ("198.51.100.7", "10.0.1.9") if ipv4 else ("2001:db8:ff::7", "2001:db8:1::9")
        self.near_peer, self.elsewhere = (
            ("198.51.100.0/24", "203.0.113.0/24") if ipv4 else ("2001:db8:ff::/48", "2001:db8:ee::/48")
        )
        self.default = "0.0.0.0/0" if ipv4 else "::/0"
        self.halves = ("0.0.0.0/1", "128.0.0.0/1") if ipv4 else ("::/1", "8000::/1")
        self.host = 32 if ipv4 else 128
        network = self.network
        for ifindex, address, lan in ((C1, self.s1, self.lan1), (C2, self.s2, self.lan2)):
            network.link_is(ifindex)
            network.add_address(address, ifindex)
            network.add_route(lan, dev=ifindex, protocol=2)
        network.add_route(self.default, via=self.gw1, dev=C1, metric=100)
        network.take()

    s1: str = attrs.field(init=False)
    s2: str = attrs.field(init=False)
    gw1: str = attrs.field(init=False)
    gw1b: str = attrs.field(init=False)
    gw2: str = attrs.field(init=False)
    lan1: str = attrs.field(init=False)
    lan2: str = attrs.field(init=False)
    peer: str = attrs.field(init=False)
    neighbour: str = attrs.field(init=False)
    near_peer: str = attrs.field(init=False)
    elsewhere: str = attrs.field(init=False)
    default: str = attrs.field(init=False)
    halves: tuple[str, str] = attrs.field(init=False)
    host: int = attrs.field(init=False)

    def flow(
        self,
        local: str | None = None,
        peer: str | None = None,
        *,
        protocol: str = "tcp",
        device: int | None = None,
        transparent: bool = False,
    ) -> Flow:
        """The flow of a connection from the first link's address to a far peer, unless told otherwise."""
        return Flow(
            peer=ip_address(peer or self.peer),
            peer_port=443,
            local=ip_address(local or self.s1),
            local_port=40000,
            protocol=protocol,
            device=device,
            transparent=transparent,
        )
