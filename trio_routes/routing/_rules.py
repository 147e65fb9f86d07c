"""Policy rules: their order, and which of them a flow meets (net/core/fib_rules.c, fib_rule_match)."""

from __future__ import annotations

from collections.abc import Iterator

import attrs

from ..netlink import (
    AF_INET,
    FIB_RULE_IIF_DETACHED,
    FIB_RULE_OIF_DETACHED,
    FIB_RULE_UNRESOLVED,
    FR_ACT_GOTO,
    FR_ACT_NOP,
    IPAddress,
)
from ._query import Query
from ._state import State
from ._values import Rule

# Flags that follow a device's or another rule's coming and going without a notification: derived, never stored.
_STATE_FLAGS = FIB_RULE_IIF_DETACHED | FIB_RULE_OIF_DETACHED | FIB_RULE_UNRESOLVED
_LOOPBACK = "lo"


def without_state(rule: Rule) -> Rule:
    """The rule without the flags that say whether its device or its goto's target is there at the moment."""
    return attrs.evolve(rule, flags=rule.flags & ~_STATE_FLAGS) if rule.flags & _STATE_FLAGS else rule


def in_order(rules: tuple[Rule, ...]) -> tuple[Rule, ...]:
    """Rules as they are tried: by priority; a later one after its equals."""
    return tuple(sorted(rules, key=lambda rule: rule.priority))


def rules_that_match(state: State, family: int, query: Query) -> Iterator[Rule]:
    """Yield the rules that a flow meets, with gotos followed and nops passed over."""
    rules = state.rules[family]
    at = 0
    while at < len(rules):
        rule = rules[at]
        at += 1
        if matches(state, rule, query) == rule.invert:
            continue
        if rule.action == FR_ACT_GOTO:
            # Only ever forward, to the first rule of that priority; with none there the rule does nothing.
            target = next((i for i in range(at, len(rules)) if rules[i].priority == rule.goto), None)
            at = at if target is None else target
        elif rule.action != FR_ACT_NOP:
            yield rule


def matches(state: State, rule: Rule, query: Query) -> bool:
    """Whether all selectors of a rule match, before `invert`.

    Tunnel ids and flow labels are no part of a `Query`: a rule that selects by them does not match, nor does one
    that selects by protocol or port where the query does not say them.
    """
    if rule.oif and not _is_link(state, query.oif, rule.oif):
        return False
    if rule.iif and not (rule.iif == _LOOPBACK if not query.iif else _is_link(state, query.iif, rule.iif)):
        return False
    if (rule.mark ^ query.mark) & rule.mask:
        return False
    if rule.uid_range is not None and not rule.uid_range[0] <= query.uid <= rule.uid_range[1]:
        return False
    if rule.tun_id or rule.flow_label is not None or (rule.ip_proto and rule.ip_proto != query.protocol):
        return False
    if not _has_port(rule.sport, rule.sport_mask, query.sport) or not _has_port(
        rule.dport, rule.dport_mask, query.dport
    ):
        return False
    # The two bits below the DSCP are for congestion (ECN) and no part of it.
    if rule.tos and rule.tos != query.tos & 0xFC:
        return False
    if rule.dscp is not None and (rule.dscp ^ query.tos >> 2) & (0x3F if rule.dscp_mask is None else rule.dscp_mask):
        return False
    width = 32 if rule.family == AF_INET else 128
    if not _is_in(query.destination, rule.destination, width - rule.destination_length):
        return False
    if not rule.source_length:
        return True
    # `from` does not match while the source is not chosen.
    return query.source is not None and _is_in(query.source, rule.source, width - rule.source_length)


def _is_in(address: IPAddress, prefix: int, host_bits: int) -> bool:
    return int(address) >> host_bits == prefix >> host_bits


def _has_port(wanted: tuple[int, int] | None, mask: int | None, port: int) -> bool:
    if wanted is None:
        return True
    if mask:
        return not (wanted[0] ^ port) & mask
    return wanted[0] <= port <= wanted[1]


def _is_link(state: State, ifindex: int, name: str) -> bool:
    link = state.links.get(ifindex)
    return link is not None and link.name == name
