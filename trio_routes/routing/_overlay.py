"""The cache as it would be if something went: a view to ask, laid over the living tables, which it leaves alone.

    what goes          what goes with it
    ----------------   -------------------------------------------------------------------------------------
    a route            nothing
    carrier            nexthop objects on the link, and the routes that use them
    a link (down)      besides, routes with no way left; its IPv6 addresses with their `local` routes
    a link (removed)   besides, IPv4 multipath routes with any way there, that way of IPv6 ones, all its addresses
    an address         its `local` route; its prefix route, unless another address of the link is in the prefix;
                       of IPv4, routes that prefer it, and with a link's last address every route by the link

The last column is what the kernel does, said (a message each) or unsaid (`_implied.py`); here it has
to be done in either case. It assumes what no message tells: that secondary addresses are promoted
(promote_secondaries=1), and that addresses go with their link (keep_addr_on_down=0).

Links, addresses and the rest are copied, as there are few of them; routes are not (`_overlaid_tables.py`).
An overlay holds for as long as the cache does not change.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_network

import attrs

from ..netlink import (
    AF_INET,
    AF_INET6,
    RT_SCOPE_HOST,
    RT_TABLE_LOCAL,
    RTN_LOCAL,
    RTPROT_KERNEL,
    NextHop,
    RouteBody,
)
from ._changes import AddressChange, ChangeBatch, LinkChange, RouteChange
from ._overlaid_tables import OverlaidTables
from ._questions import Questions
from ._state import Addresses, State, family_of, way_of
from ._values import Address, IPNetwork, Link, Route

_CARRIER = Link.IFF_LOWER_UP | Link.IFF_RUNNING


class Overlay(Questions):
    """A view of the tables from which something went. Pure; the tables below are only read.

    Attributes:
      batch: What went, as a batch of changes would say it, for whoever is to find out whom that can touch.
    """

    def __init__(self, below: State, generation: int = 0) -> None:
        self.batch: ChangeBatch = ChangeBatch(generation=generation)
        self._tables = {family: OverlaidTables(tables) for family, tables in below.tables.items()}
        state = State(
            tables=dict(self._tables),
            rules=dict(below.rules),
            links=dict(below.links),
            addresses=_copy_of(below.addresses),
            nexthops=dict(below.nexthops),
            ignoring_linkdown=set(below.ignoring_linkdown),
            failed=set(below.failed),
            dead_ways=set(below.dead_ways),
            unruled=set(below.unruled),
            prepared_rules=dict(below.prepared_rules),
        )
        super().__init__(state, generation)

    # ---- questions beside those to `Cache` ------------------------------------------------------

    def routes_of(self, prefix: IPNetwork) -> Iterator[Route]:
        """The routes of one prefix that would be there, of every table."""
        tables = self._tables[AF_INET if prefix.version == 4 else AF_INET6]
        destination = int(prefix.network_address)
        for table in sorted({body.table for body in tables.bodies() if body.prefix_length == prefix.prefixlen}):
            for body in tables.at((table, prefix.prefixlen, destination)):
                yield Route(body, destination)

    def ways_of(self, route: Route) -> tuple[NextHop, ...]:
        """A route's next hops, those of its nexthop object where it names one."""
        return self.state.expand(route.body)[0]

    # ---- what goes -----------------------------------------------------------------------------

    def remove_route(self, route: Route, cause: str) -> None:
        """Take one route away."""
        body = route.body
        tables, key = self._tables[body.family], (body.table, body.prefix_length, route.address)
        tables.put(key, tuple(other for other in tables.at(key) if other != body))
        self.batch.routes.append(RouteChange(route.address, body, None, cause))

    def lose_carrier(self, ifindex: int, cause: str) -> None:
        """Take a link's carrier away."""
        link = self.state.links[ifindex]
        self._set_link(ifindex, attrs.evolve(link, flags=link.flags & ~_CARRIER), cause)

    def set_down(self, ifindex: int, cause: str) -> None:
        """Set a link down."""
        link = self.state.links[ifindex]
        self._set_link(ifindex, attrs.evolve(link, flags=link.flags & ~(_CARRIER | Link.IFF_UP)), cause)
        for address in list(self.state.addresses.on_link(ifindex, AF_INET6)):
            self.remove_address(address, cause)
        self._drop_dead(AF_INET, ifindex, local_stays=True)
        self._drop_dead(AF_INET6, ifindex, local_stays=False)

    def remove_link(self, ifindex: int, cause: str) -> None:
        """Take a link away."""
        for family in (AF_INET, AF_INET6):
            for address in list(self.state.addresses.on_link(ifindex, family)):
                self.remove_address(address, cause)
            for body in list(self._tables[family].bodies_by(ifindex)):
                if not body.nexthop_id:
                    self._tables[family].swap(body, _without(body, ifindex))
        self._set_link(ifindex, None, cause)

    def remove_address(self, address: Address, cause: str) -> None:
        """Take an address away."""
        state, ifindex, gone = self.state, address.ifindex, address.address
        state.addresses.put(Addresses.key(address), None)
        self.batch.addresses.append(AddressChange(address, None, cause))
        family = family_of(gone)
        tables = self._tables[family]
        held = bool(state.addresses.of(gone))
        same_prefix = self._has_in_prefix(address)
        for route in self._made_for(address):
            if not (same_prefix and route.body.table != RT_TABLE_LOCAL):
                self.remove_route(route, cause)
        if family == AF_INET6:
            return
        if not held:
            for body in [body for body in tables.bodies() if body.prefsrc == gone]:
                if not (same_prefix and (_is_prefix_route(body, ifindex) or _is_host_route(body, ifindex))):
                    self._drop(tables, body, cause)
        if not any(True for _ in state.addresses.on_link(ifindex, AF_INET)):
            self._touch_link(ifindex, cause)
            self._drop_dead(AF_INET, ifindex, local_stays=False)

    # ---- what goes with it ---------------------------------------------------------------------

    def _made_for(self, address: Address) -> list[Route]:
        """The `local` route and the prefix route that the kernel made for an address."""
        tables, value = self._tables[family_of(address.address)], int(address.address)
        length, shift = address.prefix_length, tables.width - address.prefix_length
        keys = ((RT_TABLE_LOCAL, tables.width, value), (_MAIN, length, value >> shift << shift))
        return [
            Route(body, key[2])
            for key in keys
            for body in tables.at(key)
            if any(hop.ifindex == address.ifindex for hop in body.nexthops)
            and (body.type == RTN_LOCAL if key[0] == RT_TABLE_LOCAL else _is_prefix_route(body, address.ifindex))
        ]

    def _has_in_prefix(self, address: Address) -> bool:
        """Whether the link has another address in the same prefix."""
        prefix = ip_network((int(address.address), address.prefix_length), strict=False)
        others = self.state.addresses.on_link(address.ifindex, family_of(address.address))
        return any(other.address in prefix and other.prefix_length == address.prefix_length for other in others)

    def _set_link(self, ifindex: int, new: Link | None, cause: str) -> None:
        links = self.state.links
        self.batch.links.append(LinkChange(links[ifindex], new, cause))
        if new is None:
            del links[ifindex]
        else:
            links[ifindex] = new
        self._drop_nexthops({number for number, known in self.state.nexthops.items() if known.ifindex == ifindex})

    def _touch_link(self, ifindex: int, cause: str) -> None:
        """Say that who uses a link can be touched, though the link stays as it is."""
        link = self.state.links.get(ifindex)
        if link is not None:
            self.batch.links.append(LinkChange(link, link, cause))

    def _drop_nexthops(self, gone: set[int]) -> None:
        known = self.state.nexthops
        if not gone:
            return
        for number in gone:
            del known[number]
        for number, message in list(known.items()):
            left = tuple(member for member in message.group if member[0] not in gone)
            if message.group and not left:
                del known[number]
                gone.add(number)
            elif left != message.group:
                known[number] = attrs.evolve(message, group=left)
        for tables in self._tables.values():
            for body in tables.bodies():
                if body.nexthop_id in gone:
                    tables.swap(body)
        self.batch.everything = True

    def _drop_dead(self, family: int, ifindex: int, *, local_stays: bool) -> None:
        """Take away the routes whose last living way was by a link; others only lose that way."""
        tables, state = self._tables[family], self.state
        for body in list(tables.bodies_by(ifindex)):
            if body.nexthop_id or (local_stays and body.scope == RT_SCOPE_HOST):
                continue
            if all(hop.ifindex == ifindex or state.dead(body, hop) for hop in body.nexthops):
                tables.swap(body)
            else:
                state.dead_ways.update(way_of(body, hop) for hop in body.nexthops if hop.ifindex == ifindex)

    def _drop(self, tables: OverlaidTables, body: RouteBody, cause: str) -> None:
        tables.swap(body)
        for hop in body.nexthops:
            self._touch_link(hop.ifindex, cause)


_MAIN = 254


def _is_prefix_route(body: RouteBody, ifindex: int) -> bool:
    """Whether the kernel made a route for the prefix of an address of a link."""
    made = body.protocol == RTPROT_KERNEL and body.type != RTN_LOCAL and body.table != RT_TABLE_LOCAL
    return made and any(hop.ifindex == ifindex and hop.gateway is None for hop in body.nexthops)


def _is_host_route(body: RouteBody, ifindex: int) -> bool:
    """Whether the kernel made a route for an address, or a broadcast one, of a link: a secondary's prefers the primary."""
    made = body.protocol == RTPROT_KERNEL and body.table == RT_TABLE_LOCAL
    return made and any(hop.ifindex == ifindex for hop in body.nexthops)


def _without(body: RouteBody, ifindex: int) -> RouteBody | None:
    """What is left of a route when a link is removed: of IPv4 nothing, of IPv6 the ways by other links."""
    left = tuple(hop for hop in body.nexthops if hop.ifindex != ifindex)
    if body.family == AF_INET or not left:
        return None
    return attrs.evolve(body, nexthops=left, multipath=len(left) > 1)


def _copy_of(addresses: Addresses) -> Addresses:
    copy = Addresses()
    for key, address in addresses.by_key().items():
        copy.put(key, address)
    return copy
