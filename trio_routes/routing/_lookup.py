"""Lookup: which way a flow goes, by policy rules and longest prefix, as the kernel decides it.

    rules in order ──▶ a table (`_table_lookup.py`): longest prefix, routes in order, usable next hops
         ▲                │
         └── nothing, throw, or a suppressed answer: the next rule

A rule or route that rejects ends the lookup. What IPv4 does before the rules and after them is in
`_output_ipv4.py`. Sources: fib_rules_lookup (net/core/fib_rules.c), net/ipv4/fib_rules.c,
net/ipv6/fib6_rules.c. The answers are meant to equal RTM_GETROUTE's; where a socket's own lookup
differs is said at `Query`. Not modelled: exceptions for one destination (path MTU, redirects),
flow labels, tunnel ids; one detail of IPv4 cannot be known (see `_by_rules`).

With a `Trace` the same walk says what it came to (`_explain.py`).
"""

from __future__ import annotations

from ..netlink import (
    AF_INET,
    AF_INET6,
    FIB_RULE_FIND_SADDR,
    FR_ACT_GOTO,
    FR_ACT_NOP,
    FR_ACT_PROHIBIT,
    FR_ACT_TO_TBL,
    FR_ACT_UNREACHABLE,
    RTN_ANYCAST,
    RTN_BROADCAST,
    RTN_LOCAL,
    RTN_MULTICAST,
    RTN_THROW,
    NextHop,
)
from ._explain import Explanation, Trace, Why
from ._output_ipv4 import after_tables, before_tables, is_special, on_link
from ._query import Query
from ._rules import Step, steps_of, table_of, unmet, vrf_of
from ._source import select_ipv6, source_of_ipv4
from ._state import State
from ._table_lookup import Answer, search_ipv4, search_ipv6
from ._values import Kind, Outcome, Resolution, Route, Rule

_RULE_REJECTS = {FR_ACT_UNREACHABLE: Outcome.UNREACHABLE, FR_ACT_PROHIBIT: Outcome.PROHIBITED}
_KINDS = {
    RTN_LOCAL: Kind.LOCAL,
    RTN_ANYCAST: Kind.LOCAL,
    RTN_BROADCAST: Kind.BROADCAST,
    RTN_MULTICAST: Kind.MULTICAST,
}

# An enum's member is found by a call into Python, twice as slow as a global, and this one is needed by every lookup.
_ROUTED = Outcome.ROUTED
_UNICAST = Kind.UNICAST


def explain(state: State, query: Query, generation: int = 0) -> Explanation:
    """Answer a query, and say how the answer came about. Pure: no clock, no socket."""
    trace = Trace(state)
    resolution = resolve(state, query, generation, trace)
    return Explanation(query.destination, resolution, tuple(trace.steps))


def resolve(state: State, query: Query, generation: int = 0, trace: Trace | None = None) -> Resolution:
    """Answer a query from the tables. Pure: no clock, no socket."""
    if query.oif or query.iif:
        _enter_vrf(state, query)
        query.uid = 0 if query.iif else query.uid  # who forwards is nobody
    if query.family == AF_INET6 or query.iif:
        return _by_rules(state, query, generation, trace)
    special = is_special(query)
    found = None
    if special or query.oif or query.source_address:
        found = before_tables(state, query, special, generation, trace)
    if found is None:
        found = _by_rules(state, query, generation, trace)
        if query.oif and query.onlink_fallback and found.outcome is not _ROUTED and not query.vrf:
            # The kernel takes the tables for wrong then, rejects included, and the destination for being on that link.
            found = on_link(state, query, query.oif, generation, trace)
    return after_tables(state, query, found) if special else found


def _enter_vrf(state: State, query: Query) -> None:
    """Do what l3mdev_update_flow() does: a VRF's device leads to its table and is no device to leave by. Not run."""
    query.vrf = vrf_of(state, query.oif) or vrf_of(state, query.iif)
    if query.vrf and query.vrf == query.oif:
        query.oif = 0


def _by_rules(state: State, query: Query, generation: int, trace: Trace | None) -> Resolution:
    # One thing cannot be known: until an IPv4 rule was ever added or deleted, even if it is not there any more, the
    # tables 255 and 254 are one to the kernel, and a longer prefix of 254 wins over a `local` one (fib_unmerge).
    steps = steps_of(state, query.family)
    search = search_ipv4 if query.family == AF_INET else search_ipv6
    at = 0
    while at < len(steps):
        step = steps[at]
        at += 1
        if step.only_leads and trace is None:
            answer = search(state, step.rule.table, query)
            if answer is not None and not answer.leads_nowhere:
                return _resolution(state, query, answer, step.rule, generation)
            continue
        if step.conditional and not _applies(state, step, query, trace):
            continue
        rule = step.rule
        if rule.action == FR_ACT_TO_TBL:
            answer = _in_table(state, step, query, trace)
            if answer is not None:
                return _resolution(state, query, answer, rule, generation)
        elif rule.action == FR_ACT_GOTO:
            _note(trace, rule, Why.UNRESOLVED if step.target is None else Why.GOTO)
            at = at if step.target is None else step.target
        elif rule.action == FR_ACT_NOP:
            _note(trace, rule, Why.NOP)
        else:
            _note(trace, rule, Why.REJECTS)
            # Any other action is a blackhole to the kernel too.
            outcome = _RULE_REJECTS.get(rule.action, Outcome.BLACKHOLE)
            return Resolution(outcome, rule=rule, source=query.source, generation=generation)
    return Resolution(Outcome.NO_ROUTE, source=query.source, generation=generation)


def _note(trace: Trace | None, rule: Rule, why: Why, detail: str = "") -> None:
    if trace is not None:
        trace.rule(rule, why, detail)


def _applies(state: State, step: Step, query: Query, trace: Trace | None) -> bool:
    """Whether a rule's selectors match, `invert` considered."""
    selector = unmet(state, step, query)
    if (selector is None) != step.rule.invert:
        return True
    if trace is None:
        return False
    if selector is None:
        trace.rule(step.rule, Why.INVERTED)
    else:
        trace.rule(step.rule, Why.SELECTOR, f"{selector.text(step.rule)}: {selector.flow(state, query)}")
    return False


def _in_table(state: State, step: Step, query: Query, trace: Trace | None) -> Answer | None:
    """What a rule's table answers, if the rule lets it pass."""
    rule = step.rule
    if trace is not None:
        trace.enters(rule)
    table = table_of(state, rule, query) if rule.l3mdev else rule.table
    search = search_ipv4 if query.family == AF_INET else search_ipv6
    answer = search(state, table, query, trace)
    # Errors are never suppressed: fib_rules_lookup() asks for it only on success.
    if answer is not None and step.filters and answer.reject is None and not answer.leads_nowhere:
        answer = _filtered(state, rule, query, answer, trace)
    elif answer is None and trace is not None:
        trace.leaves(rule, Why.EMPTY)
    if answer is None:
        return None
    if trace is not None:
        _note_answer(trace, rule, answer)
    return None if answer.leads_nowhere else answer


def _note_answer(trace: Trace, rule: Rule, answer: Answer) -> None:
    if not answer.leads_nowhere:
        why = Why.REJECTS if answer.reject else Why.ANSWERS
        trace.route(answer.body, answer.prefix, why)
        trace.leaves(rule, why)
    elif answer.body.type == RTN_THROW:
        trace.route(answer.body, answer.prefix, Why.THROW)
        trace.leaves(rule, Why.EMPTY)
    else:  # what is wrong with its next hops was noted already
        trace.leaves(rule, Why.NONE_ANSWERS)


def _filtered(state: State, rule: Rule, query: Query, answer: Answer, trace: Trace | None) -> Answer | None:
    """What a rule lets pass of an answer; None if nothing."""
    left = _unsuppressed(state, rule, answer)
    if left is not None and _has_source_within(state, rule, query, left):
        return left
    if trace is not None:
        trace.route(answer.body, answer.prefix, Why.WOULD_ANSWER)
        if left is None:
            trace.leaves(rule, Why.SUPPRESSED, _suppressor_text(rule, answer))
        else:
            trace.leaves(rule, Why.SOURCE_OUTSIDE)
    return None


def _unsuppressed(state: State, rule: Rule, answer: Answer) -> Answer | None:
    """What a rule's suppressors leave of an answer; None if nothing."""
    if rule.suppress_prefixlength is not None and answer.body.prefix_length <= rule.suppress_prefixlength:
        return None
    if rule.suppress_ifgroup is None:
        return answer
    if answer.body.family == AF_INET:
        # fib4_rule_suppress() comes before the hash and looks at the first usable member.
        return None if _is_in_group(state, answer.hops[0], rule.suppress_ifgroup) else answer
    # IPv6 asks after the hash has chosen: where it chose such a member, the next rule is tried. The others are certain.
    left = tuple(hop for hop in answer.hops if not _is_in_group(state, hop, rule.suppress_ifgroup))
    return answer._replace(hops=left) if left else None


def _is_in_group(state: State, hop: NextHop, group: int) -> bool:
    link = state.links.get(hop.ifindex)
    return link is not None and link.group == group


def _suppressor_text(rule: Rule, answer: Answer) -> str:
    if rule.suppress_prefixlength is not None and answer.body.prefix_length <= rule.suppress_prefixlength:
        return f"suppress_prefixlength {rule.suppress_prefixlength}"
    return f"suppress_ifgroup {rule.suppress_ifgroup}"


def _has_source_within(state: State, rule: Rule, query: Query, answer: Answer) -> bool:
    """fib6_rule_saddr(): a `from` that was passed over while there was no source is made good for afterwards."""
    needs_one = query.family == AF_INET6 and bool(rule.flags & FIB_RULE_FIND_SADDR)
    if not needs_one or query.source is not None or not rule.source_length:
        return True
    source = select_ipv6(state, query.address, answer.hops[0].ifindex)
    return source is not None and not (int(source) ^ rule.source) >> 128 - rule.source_length


def _resolution(state: State, query: Query, answer: Answer, rule: Rule, generation: int) -> Resolution:
    body, prefix, hops, multipath, reject = answer
    if reject is not None:
        return Resolution(reject, route=Route(body, prefix), rule=rule, source=query.source, generation=generation)
    source = query.source or body.prefsrc
    if source is None:
        if query.family == AF_INET6:
            source = select_ipv6(state, query.address, hops[0].ifindex)
        elif body.type == RTN_LOCAL:
            source = query.destination
        else:
            source = source_of_ipv4(state, body, hops[0])
    kind = _KINDS.get(body.type, _UNICAST)
    return Resolution(_ROUTED, kind, Route(body, prefix), rule, hops, multipath, source, generation)
