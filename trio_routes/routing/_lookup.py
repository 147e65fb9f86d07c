"""Lookup: which way a flow goes, by policy rules and longest prefix, as the kernel decides it.

    rules in order ──▶ a table ──▶ longest prefix first ──▶ routes in order ──▶ usable next hops
         ▲                │            nothing usable: the next route, the next shorter prefix
         └── nothing, throw, or a suppressed answer: the next rule

A rule or route that rejects ends the lookup. Sources: net/core/fib_rules.c,
net/ipv4/fib_rules.c, fib_trie.c (fib_table_lookup), net/ipv6/route.c (fib6_table_lookup,
rt6_score_route). What is meant to equal what RTM_GETROUTE answers, and where a socket's own
lookup differs, is said at `Query`.
"""

from __future__ import annotations

import attrs

from ..netlink import (
    AF_INET,
    FR_ACT_BLACKHOLE,
    FR_ACT_PROHIBIT,
    FR_ACT_TO_TBL,
    FR_ACT_UNREACHABLE,
    RT_SCOPE_HOST,
    RT_SCOPE_LINK,
    RT_SCOPE_UNIVERSE,
    RT_TABLE_LOCAL,
    RTN_ANYCAST,
    RTN_BLACKHOLE,
    RTN_BROADCAST,
    RTN_LOCAL,
    RTN_MULTICAST,
    RTN_PROHIBIT,
    RTN_THROW,
    RTN_UNREACHABLE,
    RTPROT_RA,
    IPAddress,
    NextHop,
    RouteBody,
)
from ._nodes import bodies
from ._query import Query
from ._rules import rules_that_match
from ._source import select_source
from ._state import State, bare, family_of
from ._values import Kind, Outcome, Resolution, Route, Rule

_REJECTS = {
    RTN_BLACKHOLE: Outcome.BLACKHOLE,
    RTN_UNREACHABLE: Outcome.UNREACHABLE,
    RTN_PROHIBIT: Outcome.PROHIBITED,
}
_RULE_REJECTS = {
    FR_ACT_BLACKHOLE: Outcome.BLACKHOLE,
    FR_ACT_UNREACHABLE: Outcome.UNREACHABLE,
    FR_ACT_PROHIBIT: Outcome.PROHIBITED,
}
_KINDS = {
    RTN_LOCAL: Kind.LOCAL,
    RTN_ANYCAST: Kind.LOCAL,
    RTN_BROADCAST: Kind.BROADCAST,
    RTN_MULTICAST: Kind.MULTICAST,
}


@attrs.frozen(slots=True)
class Answer:
    """What one table says: the route that decides, and its usable next hops or the reject."""

    body: RouteBody
    destination: int
    hops: tuple[NextHop, ...] = ()
    multipath: bool = False
    reject: Outcome | None = None


def resolve(state: State, query: Query, generation: int = 0) -> Resolution:
    """Answer a query from the tables. Pure: no clock, no socket."""
    destination = bare(query.destination)
    family = family_of(destination)
    source = None if query.source is None else bare(query.source)
    if family == AF_INET and source is not None and not query.any_source and not _is_own_ipv4(state, source):
        # ip_route_output_key_hash_rcu(): EINVAL, and connect() could not have chosen it either.
        return Resolution(Outcome.NO_ROUTE, source=None, generation=generation)
    for rule in rules_that_match(state, family, query):
        reject = _RULE_REJECTS.get(rule.action)
        if reject is not None:
            return Resolution(reject, rule=rule, source=source, generation=generation)
        if rule.action != FR_ACT_TO_TBL:
            continue
        answer = look_in_table(state, family, rule.table, int(destination), query)
        if answer is None:
            continue
        if answer.reject is not None:
            route = Route(answer.body, answer.destination)
            return Resolution(answer.reject, route=route, rule=rule, source=source, generation=generation)
        if _suppressed(state, rule, answer):
            continue
        return _routed(state, query, destination, answer, rule, generation)
    if query.oif and family == AF_INET and query.onlink_fallback:
        # The kernel takes the tables for wrong then, and the destination for being on that link (net/ipv4/route.c).
        hop = NextHop(query.oif)
        source = source or select_source(state, destination, hop, RT_SCOPE_LINK)
        return Resolution(Outcome.ROUTED, hops=(hop,), source=source, generation=generation)
    return Resolution(Outcome.NO_ROUTE, source=source, generation=generation)


def _is_own_ipv4(state: State, source: IPAddress) -> bool:
    """__ip_dev_find(): an address of any link, or one that a `local` route of table 255 covers."""
    return bool(state.addresses.of(source)) or local_route(state, source) is not None


def local_route(state: State, address: IPAddress) -> Route | None:
    """The `local` route of table 255 that covers an address (AnyIP); None if there is none."""
    value = int(bare(address))
    for prefix_length, node in state.tables[family_of(address)].matching(RT_TABLE_LOCAL, value):
        for body in bodies(node):
            if body.type in (RTN_LOCAL, RTN_ANYCAST):
                shift = state.tables[body.family].width - prefix_length
                return Route(body, value >> shift << shift)
    return None


def look_in_table(state: State, family: int, table: int, destination: int, query: Query) -> Answer | None:
    """Search one table; None sends the lookup to the next rule."""
    width = state.tables[family].width
    choose = _choose_ipv4 if family == AF_INET else _choose_ipv6
    for prefix_length, node in state.tables[family].matching(table, destination):
        shift = width - prefix_length
        answer = choose(state, bodies(node), destination >> shift << shift, query)
        if answer is not None:
            return None if answer.body.type == RTN_THROW else answer
    return None


def _choose_ipv4(state: State, routes: tuple[RouteBody, ...], destination: int, query: Query) -> Answer | None:
    for body in routes:
        if body.tos and body.tos != query.tos & 0xFC:
            continue
        if body.type in _REJECTS or body.type == RTN_THROW:
            return Answer(body, destination, reject=_REJECTS.get(body.type))
        hops, blackhole = expand(state, body)
        if blackhole:
            return Answer(body, destination, reject=Outcome.BLACKHOLE)
        usable = tuple(
            hop
            for hop in hops
            # Routes to this host itself live as long as the address does, whatever its link says.
            if (body.scope == RT_SCOPE_HOST or state.alive(AF_INET, hop)) and query.oif in (0, hop.ifindex)
        )
        if usable:
            return Answer(body, destination, usable, multipath=len(hops) > 1)
    return None


def _choose_ipv6(state: State, routes: tuple[RouteBody, ...], destination: int, query: Query) -> Answer | None:
    strict = bool(query.oif) and (query.strict or query.source is None)
    best: Answer | None = None
    best_score = -1
    for body in routes:
        if best is not None and (body.source_length, body.priority) != (best.body.source_length, best.body.priority):
            break  # rt6_select looks at the lowest metric that has a usable route
        if not _covers_source(body, query):
            continue
        if body.type in _REJECTS or body.type == RTN_THROW:
            if best is None:
                return Answer(body, destination, reject=_REJECTS.get(body.type))
            continue
        hops, blackhole = expand(state, body)
        if blackhole:
            if best is None:
                return Answer(body, destination, reject=Outcome.BLACKHOLE)
            continue
        local = body.type in (RTN_LOCAL, RTN_ANYCAST)
        usable = tuple(
            hop for hop in hops if state.alive(body.family, hop) and (local or not strict or hop.ifindex == query.oif)
        )
        if not usable:
            continue
        on_device = bool(query.oif) and any(hop.ifindex == query.oif for hop in usable)
        score = 2 * on_device + 4 * _PREFERENCE.get(body.preference, 1)
        if score > best_score:
            best, best_score = Answer(body, destination, usable, multipath=len(hops) > 1), score
        elif score == best_score and best is not None and body.protocol == best.body.protocol == RTPROT_RA:
            # Routers of equal metric and preference are no ECMP, but the neighbour's state picks among them.
            best = attrs.evolve(best, hops=(*best.hops, *usable), multipath=True)
    return best


# RFC 4191 as the kernel encodes it (linux/icmpv6.h): 0 medium, 1 high, 3 low; 2 is invalid and counts as medium.
_PREFERENCE = {3: 0, 0: 1, 2: 1, 1: 2}


def _covers_source(body: RouteBody, query: Query) -> bool:
    if not body.source_length:
        return True
    if query.source is None:
        return False
    shift = 128 - body.source_length
    return int(bare(query.source)) >> shift == body.source >> shift


def expand(state: State, body: RouteBody) -> tuple[tuple[NextHop, ...], bool]:
    """The next hops of a route, through its nexthop object where it names one; and whether that is a blackhole."""
    if body.nexthop_id:
        members = state.members(body.nexthop_id)
        if members is not None:
            return members
    return body.nexthops, False


def _suppressed(state: State, rule: Rule, answer: Answer) -> bool:
    if rule.suppress_prefixlength is not None and answer.body.prefix_length <= rule.suppress_prefixlength:
        return True
    if rule.suppress_ifgroup is None:
        return False
    links = [state.links.get(hop.ifindex) for hop in answer.hops]
    return any(link is not None and link.group == rule.suppress_ifgroup for link in links)


def _routed(
    state: State, query: Query, destination: IPAddress, answer: Answer, rule: Rule, generation: int
) -> Resolution:
    source = query.source or answer.body.prefsrc
    if source is None and answer.body.type == RTN_LOCAL and answer.body.family != AF_INET:
        source = destination
    if source is None:
        scope = answer.body.scope if answer.body.family == AF_INET else RT_SCOPE_UNIVERSE
        source = select_source(state, destination, answer.hops[0], scope)
    return Resolution(
        outcome=Outcome.ROUTED,
        kind=_KINDS.get(answer.body.type, Kind.UNICAST),
        route=Route(answer.body, answer.destination),
        rule=rule,
        hops=answer.hops,
        multipath=answer.multipath,
        source=source,
        generation=generation,
    )
