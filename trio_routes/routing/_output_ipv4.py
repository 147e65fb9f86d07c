"""What IPv4 does around the tables for a packet of this host's own (ip_route_output_key_hash_rcu, __mkroute_output).

    before   a source that is not ours, a device that is not there or down: no lookup at all
             0.0.0.0: this host itself, by way of `lo`
             224.0.0.0/24 and 255.255.255.255 with a device; any multicast and 255.255.255.255 with a source: on
             that link, or the source's link, whatever the tables say
    after    with a device and no route: on that link (a wrong table is no reason not to send)
             multicast by a route shorter than /4, 255.255.255.255 always: not to the gateway, on its link
             a source of 127.0.0.0/8 by a link other than `lo`: EINVAL

The last holds while net.ipv4.conf.*.route_localnet is off; no message tells whether it is. IPv6 has none of this: its
tables hold the multicast routes.
"""

from __future__ import annotations

import errno
from ipaddress import IPv4Address

import attrs

from ..netlink import (
    AF_INET,
    RT_SCOPE_HOST,
    RT_SCOPE_LINK,
    RT_SCOPE_UNIVERSE,
    RT_TABLE_LOCAL,
    RTN_ANYCAST,
    RTN_LOCAL,
    IPAddress,
    NextHop,
)
from ._explain import Trace, Why
from ._nodes import bodies
from ._query import Query
from ._source import select_ipv4
from ._state import State, bare, family_of
from ._values import Kind, Link, Outcome, Resolution, Route

_LIMITED_BROADCAST = 0xFFFFFFFF
_LOOPBACK = IPv4Address("127.0.0.1")


def is_special(query: Query) -> bool:
    """Whether a flow is one of the few for which `before_tables` and `after_tables` have rules of their own."""
    address = query.address
    return address >> 28 == 0xE or not address or address == _LIMITED_BROADCAST or query.source_address >> 24 == 127


def before_tables(state: State, query: Query, special: bool, generation: int, trace: Trace | None) -> Resolution | None:
    """Answer what needs no tables; None for all else. `special` is what `is_special` says."""
    refused, detail = 0, ""
    if query.source_address and not is_own_ipv4(state, query):
        refused, detail = _refuse_source(query)
    if not refused and query.oif:
        refused, detail = _refuse_device(state, query.oif)
    if refused:
        if trace is not None:
            trace.question(Why.REFUSED, detail)
        # ENETUNREACH is what NO_ROUTE means anyway.
        refused = 0 if refused == errno.ENETUNREACH else refused
        return Resolution(Outcome.NO_ROUTE, source=query.source, generation=generation, refused=refused)
    return _special_destination(state, query, generation, trace) if special else None


def _special_destination(state: State, query: Query, generation: int, trace: Trace | None) -> Resolution | None:
    address = query.address
    if not address:
        return _this_host(state, query, generation, trace)
    if not _is_multicast(address) and address != _LIMITED_BROADCAST:
        return None
    if query.oif:
        if address >> 8 == 0xE00000 or address == _LIMITED_BROADCAST:
            return on_link(state, query, query.oif, generation, trace)
        if query.source is None:
            query.source = select_ipv4(state, query.oif, RT_SCOPE_UNIVERSE)
            query.source_address = 0 if query.source is None else int(query.source)
    elif query.source is not None:
        return on_link(state, query, _link_of(state, query.source), generation, trace)
    return None


def _refuse_source(query: Query) -> tuple[int, str]:
    """The error for a source that is not our own, and why; (0, "") where it need not be."""
    value = query.source_address
    if _is_multicast(value) or value == _LIMITED_BROADCAST:
        return errno.EINVAL, f"{query.source} can be no source"
    multicast = _is_multicast(query.address) or query.address == _LIMITED_BROADCAST
    if query.any_source and (query.oif or not multicast):
        return 0, ""
    return errno.ENETUNREACH, f"{query.source} is no address of this host"


def _refuse_device(state: State, ifindex: int) -> tuple[int, str]:
    link = state.links.get(ifindex)
    if link is None:
        return errno.ENODEV, f"there is no device {ifindex}"
    return (0, "") if link.up else (errno.ENETUNREACH, f"{link.name} is down")


def _this_host(state: State, query: Query, generation: int, trace: Trace | None) -> Resolution:
    if trace is not None:
        trace.question(Why.TO_ITSELF, "0.0.0.0 means the host itself")
    source = query.source
    if source is None and query.oif:
        source = select_ipv4(state, query.oif, RT_SCOPE_HOST)
    loopback = next((link.ifindex for link in state.links.values() if link.flags & Link.IFF_LOOPBACK), 1)
    return Resolution(
        Outcome.ROUTED, Kind.LOCAL, hops=(NextHop(loopback),), source=source or _LOOPBACK, generation=generation
    )


def on_link(state: State, query: Query, ifindex: int, generation: int, trace: Trace | None) -> Resolution:
    """Answer that the destination is on a link, whatever the tables say."""
    if trace is not None:
        trace.question(Why.ON_LINK, trace.link_name(ifindex))
    source = query.source or select_ipv4(state, ifindex, RT_SCOPE_LINK)
    kind = _kind_of(query.address) or Kind.UNICAST
    return Resolution(Outcome.ROUTED, kind, hops=(NextHop(ifindex),), source=source, generation=generation)


def after_tables(state: State, query: Query, found: Resolution) -> Resolution:
    """Make of the tables' answer what leaves the host."""
    if found.outcome is not Outcome.ROUTED:
        return found
    address = query.address
    if query.source_address >> 24 == 127 and not _stays(state, found):
        return Resolution(Outcome.NO_ROUTE, source=query.source, generation=found.generation, refused=errno.EINVAL)
    kind = _kind_of(address)
    if kind is None or found.route is None:
        return found
    if kind is Kind.MULTICAST and found.route.body.prefix_length >= 4:
        return attrs.evolve(found, kind=kind)
    hops = tuple(NextHop(hop.ifindex) for hop in found.hops)
    return attrs.evolve(found, kind=kind, hops=tuple(dict.fromkeys(hops)))


def _stays(state: State, found: Resolution) -> bool:
    """Whether a packet does not leave the host: it goes to itself, or out by a loopback."""
    if found.kind is Kind.LOCAL:
        return True
    links = [state.links.get(hop.ifindex) for hop in found.hops]
    return all(link is not None and link.flags & Link.IFF_LOOPBACK for link in links)


def _kind_of(address: int) -> Kind | None:
    if address == _LIMITED_BROADCAST:
        return Kind.BROADCAST
    return Kind.MULTICAST if _is_multicast(address) else None


def _is_multicast(address: int) -> bool:
    return address >> 28 == 0xE


# ---- our own addresses -----------------------------------------------------------------------------


def is_own_ipv4(state: State, query: Query) -> bool:
    """__ip_dev_find(): an address of any link, or one that a `local` route of table 255 covers."""
    # The table first: it has a /32 for every address, and an integer is found faster than an address object.
    node = state.tables[AF_INET].finder(RT_TABLE_LOCAL)(query.source_address)
    if node is not None and (node if not isinstance(node, tuple) else node[0]).type == RTN_LOCAL:
        return True
    return query.source is not None and bool(state.addresses.of(query.source))


def _link_of(state: State, address: IPAddress) -> int:
    """The link that has an address of our own."""
    entries = state.addresses.of(address)
    if entries:
        return entries[0].ifindex
    route = local_route(state, address)
    return route.body.nexthops[0].ifindex if route is not None and route.body.nexthops else 0


def local_route(state: State, address: IPAddress) -> Route | None:
    """The `local` route of table 255 that covers an address (AnyIP); None if there is none."""
    tables = state.tables[family_of(address)]
    value = int(bare(address))
    for prefix_length, node in tables.matching(RT_TABLE_LOCAL, value):
        for body in bodies(node):
            if body.type in (RTN_LOCAL, RTN_ANYCAST):
                shift = tables.width - prefix_length
                return Route(body, value >> shift << shift)
    return None
