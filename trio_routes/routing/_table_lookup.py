"""Lookup in one table: longest prefix first, then the routes of that prefix, then their usable next hops.

Sources: fib_table_lookup (net/ipv4/fib_trie.c), fib_select_default (net/ipv4/fib_semantics.c);
fib6_table_lookup, find_rr_leaf, rt6_score_route (net/ipv6/route.c), fib6_node_lookup_1
(net/ipv6/ip6_fib.c). Held against RTM_GETROUTE on random configurations (docs/kernel.md).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from ipaddress import IPv6Address

import attrs

from ..netlink import (
    AF_INET,
    RT_SCOPE_HOST,
    RTN_BLACKHOLE,
    RTN_PROHIBIT,
    RTN_THROW,
    RTN_UNICAST,
    RTN_UNREACHABLE,
    RTPROT_RA,
    NextHop,
    RouteBody,
)
from ._nodes import bodies
from ._query import Query
from ._state import State
from ._values import Outcome

_REJECTS = {
    RTN_BLACKHOLE: Outcome.BLACKHOLE,
    RTN_UNREACHABLE: Outcome.UNREACHABLE,
    RTN_PROHIBIT: Outcome.PROHIBITED,
}


@attrs.frozen(slots=True)
class Answer:
    """What one table says: the route that decides, and its usable next hops or the reject."""

    body: RouteBody
    destination: int
    hops: tuple[NextHop, ...] = ()
    multipath: bool = False
    reject: Outcome | None = None


def look_in_table(state: State, family: int, table: int, destination: int, query: Query) -> Answer | None:
    """Search one table; None sends the lookup to the next rule."""
    tables = state.tables[family]
    found = (
        (prefix_length, destination >> (tables.width - prefix_length) << (tables.width - prefix_length), bodies(node))
        for prefix_length, node in tables.matching(table, destination)
    )
    answer = _search_ipv4(state, found, query) if family == AF_INET else _search_ipv6(state, found, query)
    return None if answer is None or answer.body.type == RTN_THROW else answer


# ---- IPv4 ----------------------------------------------------------------------------------------


def _search_ipv4(state: State, found: Iterable[tuple[int, int, tuple[RouteBody, ...]]], query: Query) -> Answer | None:
    leaf_left: int | None = None
    for _, prefix, routes in found:
        # A leaf of the trie holds the prefixes of all lengths that begin with the same address.
        if prefix == leaf_left:
            continue
        for at, body in enumerate(routes):
            if body.tos and body.tos != query.tos & 0xFC:
                continue
            if body.type in _REJECTS or body.type == RTN_THROW:
                return Answer(body, prefix, reject=_REJECTS.get(body.type))
            hops, blackhole = state.expand(body)
            if blackhole:
                return Answer(body, prefix, reject=Outcome.BLACKHOLE)
            usable = tuple(hop for hop in hops if _is_usable_ipv4(state, body, hop, query))
            if usable:
                if len(hops) == 1 and _may_stand_for_another(body, usable[0]):
                    usable += tuple(_other_defaults(state, body, routes[at + 1 :], query))
                return Answer(body, prefix, usable, multipath=len(hops) > 1 or len(usable) > 1)
            if body.nexthop_id:
                # fib_table_lookup() gives the leaf up where an object has no usable member.
                leaf_left = prefix
                break
    return None


def _is_usable_ipv4(state: State, body: RouteBody, hop: NextHop, query: Query) -> bool:
    if query.oif not in (0, hop.ifindex):
        return False
    # Routes to this host itself live as long as the address does, whatever its link says.
    return body.scope == RT_SCOPE_HOST or state.alive(body, hop)


def _may_stand_for_another(body: RouteBody, hop: NextHop) -> bool:
    return body.prefix_length == 0 and body.type == RTN_UNICAST and hop.gateway is not None


def _other_defaults(state: State, body: RouteBody, others: tuple[RouteBody, ...], query: Query) -> Iterator[NextHop]:
    """The gateways of further default routes of the same metric: the neighbours' states pick (fib_select_default)."""
    for other in others:
        if (other.tos, other.priority) != (body.tos, body.priority):
            return
        if other.scope != body.scope:
            continue
        hops, _ = state.expand(other)
        if hops and _may_stand_for_another(other, hops[0]) and _is_usable_ipv4(state, other, hops[0], query):
            yield hops[0]


# ---- IPv6 ----------------------------------------------------------------------------------------


def _search_ipv6(state: State, found: Iterable[tuple[int, int, tuple[RouteBody, ...]]], query: Query) -> Answer | None:
    descending = True
    for prefix_length, prefix, routes in found:
        sources = _sources(routes, query)
        if descending and prefix_length and sources == [(0, 0)] and any(body.source_length for body in routes):
            # On its way down the kernel looks at a prefix's source-specific routes first, and where none
            # covers the source it leaves the prefix, plain routes included. Coming back up, it sees them.
            continue
        descending = False
        for source in sources:
            routes_from = tuple(body for body in routes if (body.source_length, body.source) == source)
            answer = _select_ipv6(state, routes_from, prefix, query)
            if answer is not None:
                return answer
    return None


def _sources(routes: tuple[RouteBody, ...], query: Query) -> list[tuple[int, int]]:
    """The source prefixes of a node's routes that cover the query's source, longest first; (0, 0) is "any"."""
    covering = {(body.source_length, body.source) for body in routes if _covers_source(body, query)}
    return sorted(covering, reverse=True) or [(0, 0)]


def _covers_source(body: RouteBody, query: Query) -> bool:
    if not body.source_length:
        return True
    if query.source is None:
        return False
    shift = 128 - body.source_length
    return int(query.source) >> shift == body.source >> shift


def _select_ipv6(state: State, routes: tuple[RouteBody, ...], destination: int, query: Query) -> Answer | None:
    """Choose among routes in the order of their metrics: the first metric's, else by score among all others."""
    first = tuple(body for body in routes if body.priority == routes[0].priority)
    answer = _best_ipv6(state, first, destination, query)
    return answer if answer is not None else _best_ipv6(state, routes[len(first) :], destination, query)


def _best_ipv6(state: State, routes: tuple[RouteBody, ...], destination: int, query: Query) -> Answer | None:
    best: Answer | None = None
    best_score = -1
    for body in routes:
        hops, blackhole = state.expand(body)
        if blackhole:
            return Answer(body, destination, reject=Outcome.BLACKHOLE)
        usable = tuple(hop for hop in hops if _is_usable_ipv6(state, body, hop, query))
        # A reject has the loopback as its next hop, and is scored like the others.
        if not usable and (hops or (body.type not in _REJECTS and body.type != RTN_THROW)):
            continue
        score = _score(body, usable, query)
        if score > best_score:
            best_score = score
            reject = _REJECTS.get(body.type)
            best = Answer(body, destination, () if reject else usable, multipath=len(hops) > 1, reject=reject)
        elif score == best_score and best is not None and body.protocol == best.body.protocol == RTPROT_RA:
            # Routers of equal metric and preference are no ECMP, but the neighbour's state picks among them.
            best = attrs.evolve(best, hops=(*best.hops, *usable), multipath=True)
    return best


def _is_usable_ipv6(state: State, body: RouteBody, hop: NextHop, query: Query) -> bool:
    if not state.alive(body, hop):
        return False
    if not query.oif or hop.ifindex == query.oif:
        return True
    # Routes to the host itself are no exception: a socket bound to another link cannot reach them (ENETUNREACH).
    # A device is a condition for a bound socket, for destinations that mean something on a link only, and where
    # the source is not chosen yet; a preference otherwise (ip6_route_output_flags).
    return not (query.strict or query.source is None or _is_of_a_link(IPv6Address(int(query.destination))))


def _is_of_a_link(address: IPv6Address) -> bool:
    return address.is_link_local or address.is_multicast or address.is_loopback  # rt6_need_strict()


# RFC 4191 as the kernel encodes it (linux/icmpv6.h): 0 medium, 1 high, 3 low; 2 is invalid and counts as medium.
_PREFERENCE = {3: 0, 0: 1, 2: 1, 1: 2}


def _score(body: RouteBody, usable: tuple[NextHop, ...], query: Query) -> int:
    on_device = not query.oif or any(hop.ifindex == query.oif for hop in usable)
    return 2 * on_device + 4 * _PREFERENCE.get(body.preference, 1)
