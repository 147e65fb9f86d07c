"""Lookup in one table: longest prefix first, then the routes of that prefix, then their usable next hops.

Sources: fib_table_lookup (net/ipv4/fib_trie.c), fib_select_path and fib_select_default
(net/ipv4/fib_semantics.c); fib6_table_lookup, find_rr_leaf, rt6_score_route, fib6_select_path
(net/ipv6/route.c), fib6_node_lookup_1 (net/ipv6/ip6_fib.c). Held against RTM_GETROUTE on random
flows (tests/routing/test_lookup_kernel.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from ..netlink import (
    AF_INET,
    AF_INET6,
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
from ._explain import Trace, Why
from ._places import BUCKET
from ._query import Query
from ._rules import is_tos
from ._state import State
from ._values import Link, Outcome

_REJECTS = {
    RTN_BLACKHOLE: Outcome.BLACKHOLE,
    RTN_UNREACHABLE: Outcome.UNREACHABLE,
    RTN_PROHIBIT: Outcome.PROHIBITED,
}


class Answer(NamedTuple):
    """What one table says: the route that decides, and its usable next hops or the reject.

    Attributes:
      body: The route.
      prefix: Its destination, as an integer.
      hops: Its usable next hops; () where it rejects, or leads nowhere: then the next rule is asked.
      multipath: Whether the kernel chooses among several.
      reject: How it rejects, if it does.
    """

    body: RouteBody
    prefix: int
    hops: tuple[NextHop, ...] = ()
    multipath: bool = False
    reject: Outcome | None = None

    @property
    def leads_nowhere(self) -> bool:
        """Whether it ends the search of this table, and no more: a throw, or see `_best_ipv6`."""
        return self.body.type == RTN_THROW or (not self.hops and self.reject is None)


# ---- IPv4 ----------------------------------------------------------------------------------------


def search_ipv4(state: State, table: int, query: Query, trace: Trace | None = None) -> Answer | None:
    """Search an IPv4 table; None where nothing in it answers. The answer may be a throw route."""
    if trace is None:
        # Nearly always the longest prefix answers, or there is none. Where it does not answer, all are gone through.
        address = query.address
        node = state.tables[AF_INET].finder(table)(address)
        if node is None:
            return None
        if not isinstance(node, tuple) and not node.tos and node.type < RTN_BLACKHOLE:
            shift = 32 - node.prefix_length
            answer = _by_ways_ipv4(state, node, address >> shift << shift, query, None)
            if answer is not None:
                return answer
    return _go_through_ipv4(state, table, query, trace)


def _go_through_ipv4(state: State, table: int, query: Query, trace: Trace | None) -> Answer | None:
    """Try one prefix after the other, the longest first."""
    address = query.address
    leaf_left: int | None = None
    shift, buckets, known = state.tables[AF_INET].search(table)
    for mask, nodes in buckets[address >> shift & BUCKET]:
        prefix = address & mask
        number = nodes.get(prefix)
        if number is None:
            continue
        node = known[number]
        routes = node if isinstance(node, tuple) else (node,)
        if prefix == leaf_left:
            # A leaf of the trie holds the prefixes of all lengths that begin with the same address.
            _note_all(trace, routes, prefix, Why.NEXTHOP_LEAF)
            continue
        for at, body in enumerate(routes):
            if body.tos and not is_tos(body.tos, query.tos, AF_INET):
                _note_all(trace, (body,), prefix, Why.TOS)
                continue
            if body.type >= RTN_BLACKHOLE:  # it and the numbers after it: unreachable, prohibit, throw
                return Answer(body, prefix, reject=_REJECTS.get(body.type))
            answer = _by_ways_ipv4(state, body, prefix, query, trace)
            if answer is not None:
                if len(routes) > 1 and not query.oif and not answer.multipath:
                    return _with_other_defaults(state, answer, routes[at + 1 :], query)
                return answer
            if body.nexthop_id:
                # fib_table_lookup() gives the leaf up where an object has no usable member.
                leaf_left = prefix
                break
    return None


def _by_ways_ipv4(state: State, body: RouteBody, prefix: int, query: Query, trace: Trace | None) -> Answer | None:
    hops, blackhole = state.expand(body) if body.nexthop_id else (body.nexthops, False)
    if blackhole:
        return Answer(body, prefix, reject=Outcome.BLACKHOLE)
    if len(hops) == 1:
        why = _unusable_ipv4(state, body, hops[0], query)
        if why is None:
            return Answer(body, prefix, hops)
        if trace is not None:
            trace.route(body, prefix, why, trace.link_name(hops[0].ifindex))
        return None
    usable = tuple(hop for hop in hops if _unusable_ipv4(state, body, hop, query) is None)
    if usable and query.oif:
        # With a device asked for, the first member that fits is taken without a hash (fib_select_path).
        return Answer(body, prefix, usable[:1])
    if usable:
        return Answer(body, prefix, usable, multipath=True)
    if trace is not None:
        trace.route(body, prefix, *_why_none(hops, [_unusable_ipv4(state, body, hop, query) for hop in hops], trace))
    return None


def _unusable_ipv4(state: State, body: RouteBody, hop: NextHop, query: Query) -> Why | None:
    """Why a next hop cannot be used, None if it can."""
    if query.oif and hop.ifindex != query.oif:
        return Why.OTHER_DEVICE
    # Routes to this host itself live as long as the address does, whatever its link says.
    if body.scope == RT_SCOPE_HOST or state.alive(body, hop):
        return None
    return _why_dead(state, body, hop)


def _with_other_defaults(state: State, answer: Answer, others: Sequence[RouteBody], query: Query) -> Answer:
    if not _may_stand_for_another(answer.body, answer.hops[0]):
        return answer
    more = tuple(_other_defaults(state, answer.body, others, query))
    return answer._replace(hops=answer.hops + more, multipath=True) if more else answer


def _may_stand_for_another(body: RouteBody, hop: NextHop) -> bool:
    return body.prefix_length == 0 and body.type == RTN_UNICAST and hop.gateway is not None


def _other_defaults(state: State, body: RouteBody, others: Sequence[RouteBody], query: Query) -> Iterator[NextHop]:
    """The gateways of further default routes of the same metric: the neighbours' states pick (fib_select_default)."""
    for other in others:
        if (other.tos, other.priority) != (body.tos, body.priority):
            return
        if other.scope != body.scope:
            continue
        hops, _ = state.expand(other)
        if hops and _may_stand_for_another(other, hops[0]) and _unusable_ipv4(state, other, hops[0], query) is None:
            yield hops[0]


# ---- IPv6 ----------------------------------------------------------------------------------------


def search_ipv6(state: State, table: int, query: Query, trace: Trace | None = None) -> Answer | None:
    """Search an IPv6 table; None where nothing in it answers. The answer may be a throw route."""
    if trace is None:  # as for IPv4
        address = query.address
        node = state.tables[AF_INET6].finder(table)(address)
        if node is None:
            return None
        if not isinstance(node, tuple) and not node.source_length:
            shift = 128 - node.prefix_length
            answer = _best_ipv6(state, (node,), address >> shift << shift, query, None)
            if answer is not None:
                return answer
    return _go_through_ipv6(state, table, query, trace)


def _go_through_ipv6(state: State, table: int, query: Query, trace: Trace | None) -> Answer | None:
    """Try one prefix after the other, the longest first."""
    address = query.address
    descending = True
    shift, buckets, known = state.tables[AF_INET6].search(table)
    for mask, nodes in buckets[address >> shift & BUCKET]:
        prefix = address & mask
        number = nodes.get(prefix)
        if number is None:
            continue
        node = known[number]
        if not isinstance(node, tuple) and not node.source_length:
            descending = False
            answer = _best_ipv6(state, (node,), prefix, query, trace)
            if answer is not None:
                return answer
            continue
        routes = node if isinstance(node, tuple) else (node,)
        sources = _sources(routes, query)
        _note_all(trace, [body for body in routes if not _covers_source(body, query)], prefix, Why.SOURCE_PREFIX)
        if descending and mask and sources == [(0, 0)] and any(body.source_length for body in routes):
            # On its way down the kernel looks at a prefix's source-specific routes first, and where none
            # covers the source it leaves the prefix, plain routes included. Coming back up, it sees them.
            _note_all(trace, [body for body in routes if not body.source_length], prefix, Why.HIDDEN)
            continue
        descending = False
        for source in sources:
            routes_from = tuple(body for body in routes if (body.source_length, body.source) == source)
            answer = _select_ipv6(state, routes_from, prefix, query, trace)
            if answer is not None:
                return answer
    return None


def _sources(routes: Sequence[RouteBody], query: Query) -> list[tuple[int, int]]:
    """The source prefixes of a node's routes that cover the query's source, longest first; (0, 0) is "any"."""
    covering = {(body.source_length, body.source) for body in routes if _covers_source(body, query)}
    return sorted(covering, reverse=True) or [(0, 0)]


def _covers_source(body: RouteBody, query: Query) -> bool:
    return not (query.source_address ^ body.source) >> (128 - body.source_length)


def _select_ipv6(
    state: State, routes: tuple[RouteBody, ...], prefix: int, query: Query, trace: Trace | None
) -> Answer | None:
    """Choose among routes in the order of their metrics: the first metric's, else by score among all others."""
    first = tuple(body for body in routes if body.priority == routes[0].priority)
    answer = _best_ipv6(state, first, prefix, query, trace)
    if answer is not None or len(first) == len(routes):
        return answer
    return _best_ipv6(state, routes[len(first) :], prefix, query, trace)


def _best_ipv6(
    state: State, routes: tuple[RouteBody, ...], prefix: int, query: Query, trace: Trace | None
) -> Answer | None:
    best: Answer | None = None
    best_score = -1
    for body in routes:
        hops, blackhole = state.expand(body) if body.nexthop_id else (body.nexthops, False)
        if blackhole:
            return Answer(body, prefix, reject=Outcome.BLACKHOLE)
        usable = hops
        for hop in hops:
            if _unusable_ipv6(state, body, hop, query) is not None:
                usable = tuple(hop for hop in hops if _unusable_ipv6(state, body, hop, query) is None)
                break
        reject = _REJECTS.get(body.type)
        # A reject has the loopback as its next hop, and is scored like the others.
        if not usable and (hops or (reject is None and body.type != RTN_THROW)):
            whys = [_unusable_ipv6(state, body, hop, query) for hop in hops]
            if trace is not None:
                trace.route(body, prefix, *_why_none(hops, whys, trace))
            if not body.nexthop_id or Why.NO_IPV6 not in whys:
                continue
            # The kernel chooses such a route as any other; then it finds no IPv6 on the link, and does not look for
            # another one in the table, but goes on with the next rule (__fib6_rule_action).
        score = _score(body, usable or hops, query)
        if score > best_score:
            _note_best(trace, best, prefix)
            best_score = score
            best = Answer(body, prefix, () if reject else _choice(state, body, hops, usable), len(hops) > 1, reject)
        elif score == best_score and best is not None and body.protocol == best.body.protocol == RTPROT_RA:
            # Routers of equal metric and preference are no ECMP, but the neighbour's state picks among them.
            best = best._replace(hops=(*best.hops, *usable), multipath=True)
        else:
            _note_all(trace, (body,), prefix, Why.NOT_PREFERRED)
    return best


def _choice(
    state: State, body: RouteBody, hops: tuple[NextHop, ...], usable: tuple[NextHop, ...]
) -> tuple[NextHop, ...]:
    """The next hops among which the hash chooses, once one of them is usable."""
    if not body.nexthop_id or len(hops) == 1:
        return usable
    # A group is entered by any member that fits, and then the hash takes no heed of the device (fib6_select_path).
    return tuple(hop for hop in hops if state.alive(body, hop))


def _unusable_ipv6(state: State, body: RouteBody, hop: NextHop, query: Query) -> Why | None:
    """Why a next hop cannot be used, None if it can."""
    wanted = query.oif or query.iif
    if wanted and hop.ifindex != wanted and _is_strict(query):
        # Routes to the host itself are no exception: a socket bound to another link cannot reach them (ENETUNREACH).
        return Why.OTHER_DEVICE
    return None if state.alive(body, hop) else _why_dead(state, body, hop)


def _is_strict(query: Query) -> bool:
    """Whether a device is a condition (RT6_LOOKUP_F_IFACE), not a preference.

    It is for a bound socket, for destinations that mean something on a link only, and where the source is not
    chosen yet (ip6_route_output_flags). Of the device that a forwarded packet came in by, only for such destinations.
    """
    if _is_of_a_link(query.address):
        return True
    return bool(query.oif) and (query.strict or query.source is None)


def _is_of_a_link(address: int) -> bool:
    return address >> 118 == 0x3FA or address >> 120 == 0xFF or address == 1  # rt6_need_strict()


# RFC 4191 as the kernel encodes it (linux/icmpv6.h): 0 medium, 1 high, 3 low; 2 is invalid and counts as medium.
_PREFERENCE = {3: 0, 0: 1, 2: 1, 1: 2}


def _score(body: RouteBody, usable: tuple[NextHop, ...], query: Query) -> int:
    wanted = query.oif or query.iif  # of a forwarded packet: ip6_pol_route_input() prefers the way that it came by
    on_device = not wanted or any(hop.ifindex == wanted for hop in usable)
    return 2 * on_device + 4 * _PREFERENCE.get(body.preference, 1)


# ---- both ----------------------------------------------------------------------------------------


def _why_dead(state: State, body: RouteBody, hop: NextHop) -> Why:
    """Why a next hop that is not `State.alive` is not."""
    link = state.links.get(hop.ifindex)
    if link is not None and not link.up:
        return Why.LINK_DOWN
    if state.dead(body, hop):
        return Why.DEAD
    return Why.NO_IPV6 if link is not None and link.flags & Link.IFF_LOWER_UP else Why.NO_CARRIER


def _why_none(hops: tuple[NextHop, ...], whys: list[Why | None], trace: Trace) -> tuple[Why, str]:
    """Why none of a route's next hops could be used: of a single one its reason, of several all in words."""
    reasons = [(hop, why) for hop, why in zip(hops, whys, strict=True) if why is not None]
    if not reasons:
        return Why.UNKNOWN_NEXTHOP, ""
    if len(reasons) == 1:
        return reasons[0][1], trace.link_name(reasons[0][0].ifindex)
    return Why.DEAD, ", ".join(f"{trace.link_name(hop.ifindex)}: {why.value}" for hop, why in reasons)


def _note_all(trace: Trace | None, routes: Sequence[RouteBody], prefix: int, why: Why) -> None:
    if trace is not None:
        for body in routes:
            trace.route(body, prefix, why)


def _note_best(trace: Trace | None, beaten: Answer | None, prefix: int) -> None:
    if beaten is not None:
        _note_all(trace, (beaten.body,), prefix, Why.NOT_PREFERRED)
