"""Lookup: which way a flow goes, by policy rules and longest prefix, as the kernel decides it.

    rules in order ──▶ a table (`_table_lookup.py`): longest prefix, routes in order, usable next hops
         ▲                │
         └── nothing, throw, or a suppressed answer: the next rule

A rule or route that rejects ends the lookup. Sources: net/core/fib_rules.c, net/ipv4/fib_rules.c,
net/ipv4/route.c (ip_route_output_key_hash_rcu). The answers are meant to equal RTM_GETROUTE's; where
a socket's own lookup differs is said at `Query`.
"""

from __future__ import annotations

import attrs

from ..netlink import (
    AF_INET,
    AF_INET6,
    FR_ACT_BLACKHOLE,
    FR_ACT_PROHIBIT,
    FR_ACT_TO_TBL,
    FR_ACT_UNREACHABLE,
    RT_SCOPE_LINK,
    RT_SCOPE_UNIVERSE,
    RT_TABLE_LOCAL,
    RTN_ANYCAST,
    RTN_BROADCAST,
    RTN_LOCAL,
    RTN_MULTICAST,
    IPAddress,
    NextHop,
)
from ._nodes import bodies
from ._query import Query
from ._rules import rules_that_match
from ._source import select_source
from ._state import State, bare, family_of
from ._table_lookup import Answer, look_in_table
from ._values import Kind, Outcome, Resolution, Route, Rule

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


def resolve(state: State, query: Query, generation: int = 0) -> Resolution:
    """Answer a query from the tables. Pure: no clock, no socket."""
    if query.destination.version == 6:
        query = attrs.evolve(
            query,
            destination=bare(query.destination),
            source=None if query.source is None else bare(query.source),
        )
        return _by_rules(state, query, AF_INET6, generation)
    source = query.source
    if source is not None and not query.any_source and not _is_own_ipv4(state, source):
        # ip_route_output_key_hash_rcu(): EINVAL, and connect() could not have chosen it either.
        return Resolution(Outcome.NO_ROUTE, source=None, generation=generation)
    if not query.oif:
        return _by_rules(state, query, AF_INET, generation)
    link = state.links.get(query.oif)
    if link is not None and not link.up:
        return Resolution(Outcome.NO_ROUTE, source=source, generation=generation)
    found = _by_rules(state, query, AF_INET, generation)
    if found.outcome is Outcome.ROUTED or not query.onlink_fallback:
        return found
    # The kernel takes the tables for wrong then, rejects included, and the destination for being on that link.
    hop = NextHop(query.oif)
    source = source or select_source(state, query.destination, hop, RT_SCOPE_LINK)
    return Resolution(Outcome.ROUTED, hops=(hop,), source=source, generation=generation)


def _by_rules(state: State, query: Query, family: int, generation: int) -> Resolution:
    source = query.source
    for rule in rules_that_match(state, family, query):
        reject = _RULE_REJECTS.get(rule.action)
        if reject is not None:
            return Resolution(reject, rule=rule, source=source, generation=generation)
        if rule.action != FR_ACT_TO_TBL:
            continue
        answer = look_in_table(state, family, rule.table, int(query.destination), query)
        if answer is None:
            continue
        if answer.reject is not None:
            route = Route(answer.body, answer.destination)
            return Resolution(answer.reject, route=route, rule=rule, source=source, generation=generation)
        if not _suppressed(state, rule, answer):
            return _routed(state, query, answer, rule, generation)
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


def _suppressed(state: State, rule: Rule, answer: Answer) -> bool:
    if rule.suppress_prefixlength is not None and answer.body.prefix_length <= rule.suppress_prefixlength:
        return True
    if rule.suppress_ifgroup is None:
        return False
    links = [state.links.get(hop.ifindex) for hop in answer.hops]
    return any(link is not None and link.group == rule.suppress_ifgroup for link in links)


def _routed(state: State, query: Query, answer: Answer, rule: Rule, generation: int) -> Resolution:
    return Resolution(
        outcome=Outcome.ROUTED,
        kind=_KINDS.get(answer.body.type, Kind.UNICAST),
        route=Route(answer.body, answer.destination),
        rule=rule,
        hops=answer.hops,
        multipath=answer.multipath,
        source=query.source or answer.body.prefsrc or _source(state, query.destination, answer),
        generation=generation,
    )


def _source(state: State, destination: IPAddress, answer: Answer) -> IPAddress | None:
    if answer.body.family != AF_INET:
        return select_source(state, destination, answer.hops[0], RT_SCOPE_UNIVERSE)
    if answer.body.type == RTN_LOCAL:
        return destination
    return select_source(state, destination, answer.hops[0], answer.body.scope)
