"""Policy rules: their order, and which of them a flow meets (net/core/fib_rules.c, fib_rule_match).

What a rule selects by is a table, `SELECTORS`: how to see that a rule has the selector, whether a flow
meets it, and how to say it. A family's rules are prepared once (`steps_of`), each with just the
selectors that it has, so that the three rules of a plain host cost a lookup no test at all.

VRFs (l3mdev) are modelled from the kernel's source (net/l3mdev/l3mdev.c) and were never run: the machines
that this was tried on have none.
"""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address

import attrs

from ..netlink import (
    AF_INET,
    AF_INET6,
    FIB_RULE_FIND_SADDR,
    FIB_RULE_IIF_DETACHED,
    FIB_RULE_OIF_DETACHED,
    FIB_RULE_UNRESOLVED,
    FR_ACT_GOTO,
    FR_ACT_TO_TBL,
    RTPROT_KERNEL,
)
from ._query import Query
from ._state import State
from ._values import Rule

# Flags that follow a device's or another rule's coming and going without a notification: derived, never stored.
_STATE_FLAGS = FIB_RULE_IIF_DETACHED | FIB_RULE_OIF_DETACHED | FIB_RULE_UNRESOLVED
_LOOPBACK = "lo"
# What the kernel makes at first, of which IPv4's third only leads to table 253, and where it looks without any rule.
_USUAL: dict[int, tuple[Rule, ...]] = {
    AF_INET: tuple(
        Rule(AF_INET, priority, table, protocol=RTPROT_KERNEL)
        for priority, table in ((0, 255), (32766, 254), (32767, 253))
    ),
    AF_INET6: tuple(
        Rule(AF_INET6, priority, table, protocol=RTPROT_KERNEL) for priority, table in ((0, 255), (32766, 254))
    ),
}


def without_state(rule: Rule) -> Rule:
    """The rule without the flags that say whether its device or its goto's target is there at the moment."""
    return attrs.evolve(rule, flags=rule.flags & ~_STATE_FLAGS) if rule.flags & _STATE_FLAGS else rule


def in_order(rules: tuple[Rule, ...]) -> tuple[Rule, ...]:
    """Rules as they are tried: by priority; a later one after its equals."""
    return tuple(sorted(rules, key=lambda rule: rule.priority))


def are_usual(rules: tuple[Rule, ...]) -> bool:
    """Whether there is none but those that the kernel makes at first."""
    return all(any(rule == usual for usual in _USUAL[rule.family]) for rule in rules)


# ---- the rules of a family, prepared --------------------------------------------------------------


@attrs.frozen(slots=True, eq=False)
class Selector:
    """One kind of condition that a rule can have.

    Attributes:
      name: As iproute2 calls it.
      given: Whether a rule has it.
      meets: Whether a flow meets it.
      text: The condition, as iproute2 writes it.
      flow: What a flow has there, in words, for whoever wonders why the rule does not match.
    """

    name: str
    given: Callable[[Rule], bool]
    meets: Callable[[State, Rule, Query], bool]
    text: Callable[[Rule], str]
    flow: Callable[[State, Query], str]


@attrs.frozen(slots=True, eq=False)
class Step:
    """A rule, ready to be tried.

    Attributes:
      rule: The rule.
      selectors: The selectors that it has.
      conditional: Whether there is anything to test before the rule applies.
      filters: Whether it may pass over what its table answers.
      target: For a goto, the index of the step that it leads to; None where no rule has that priority.
      only_leads: Whether all there is to it is the table that it leads to, as of the rules that a host begins with.
    """

    rule: Rule
    selectors: tuple[Selector, ...]
    conditional: bool
    filters: bool
    target: int | None
    only_leads: bool


def steps_of(state: State, family: int) -> tuple[Step, ...]:
    """The rules of a family in order. Prepared anew when the rules have changed."""
    rules = state.rules[family]
    if family in state.unruled:
        rules = _USUAL[family]
    known = state.prepared_rules.get(family)
    if known is None or known[0] is not rules:  # every change of the rules makes a new tuple of them
        known = state.prepared_rules[family] = rules, tuple(_prepare(rules))
    return known[1]


def _prepare(rules: tuple[Rule, ...]) -> list[Step]:
    steps: list[Step] = []
    for at, rule in enumerate(rules):
        target = None
        if rule.action == FR_ACT_GOTO:
            # Only ever forward, to the first rule of that priority.
            target = next((i for i in range(at + 1, len(rules)) if rules[i].priority == rule.goto), None)
        selectors = tuple(selector for selector in SELECTORS if selector.given(rule))
        conditional, filters = bool(selectors) or rule.invert, _filters(rule)
        only_leads = rule.action == FR_ACT_TO_TBL and not (conditional or filters or rule.l3mdev)
        steps.append(Step(rule, selectors, conditional, filters, target, only_leads))
    return steps


def _filters(rule: Rule) -> bool:
    suppresses = rule.suppress_prefixlength is not None or rule.suppress_ifgroup is not None
    return suppresses or bool(rule.flags & FIB_RULE_FIND_SADDR)


def unmet(state: State, step: Step, query: Query) -> Selector | None:
    """The first selector of a rule that a flow does not meet, before `invert`; None if it meets them all."""
    for selector in step.selectors:
        if not selector.meets(state, step.rule, query):
            return selector
    return None


# ---- selectors ------------------------------------------------------------------------------------


def _meets_iif(state: State, rule: Rule, query: Query) -> bool:
    if not query.iif:
        return rule.iif == _LOOPBACK
    return _is_link(state, query.iif, rule.iif, query)


def _meets_oif(state: State, rule: Rule, query: Query) -> bool:
    return _is_link(state, query.oif, rule.oif, query)


def _is_link(state: State, ifindex: int, name: str, query: Query) -> bool:
    link = state.links.get(ifindex)
    if link is not None and link.name == name:
        return True
    # A rule that names a VRF's device means all links of the VRF (l3mdev_fib_rule_iif_match).
    vrf = state.links.get(query.vrf)
    return vrf is not None and vrf.name == name


def vrf_of(state: State, ifindex: int) -> int:
    """The ifindex of the VRF that a link is or belongs to; 0 if none (l3mdev_master_ifindex_rcu). Not run."""
    link = state.links.get(ifindex)
    if link is None:
        return 0
    if link.kind == "vrf":
        return ifindex
    master = state.links.get(link.master)
    return link.master if master is not None and master.kind == "vrf" else 0


def _meets_l3mdev(state: State, _: Rule, query: Query) -> bool:
    return query.vrf in state.links


def table_of(state: State, rule: Rule, query: Query) -> int:
    """The table that a rule leads to: with `l3mdev` that of the flow's VRF."""
    if not rule.l3mdev:
        return rule.table
    vrf = state.links.get(query.vrf)
    return 0 if vrf is None else vrf.vrf_table


def _width(rule: Rule) -> int:
    return 32 if rule.family == AF_INET else 128


def _meets_source(_: State, rule: Rule, query: Query) -> bool:
    if query.source is None and rule.family == AF_INET6:
        # The source is not chosen: fib6_rule_match() passes, and fib6_rule_saddr() looks at the choice afterwards.
        return bool(rule.flags & FIB_RULE_FIND_SADDR)
    return not (query.source_address ^ rule.source) >> _width(rule) - rule.source_length


def _meets_destination(_: State, rule: Rule, query: Query) -> bool:
    return not (query.address ^ rule.destination) >> _width(rule) - rule.destination_length


def _meets_mark(_: State, rule: Rule, query: Query) -> bool:
    return not (rule.mark ^ query.mark) & rule.mask


def _meets_uid(_: State, rule: Rule, query: Query) -> bool:
    return rule.uid_range is not None and rule.uid_range[0] <= query.uid <= rule.uid_range[1]


def _meets_ip_proto(_: State, rule: Rule, query: Query) -> bool:
    return rule.ip_proto == query.ip_proto


def _meets_sport(_: State, rule: Rule, query: Query) -> bool:
    return _is_port(rule.sport, rule.sport_mask, query.sport)


def _meets_dport(_: State, rule: Rule, query: Query) -> bool:
    return _is_port(rule.dport, rule.dport_mask, query.dport)


def _is_port(wanted: tuple[int, int] | None, mask: int | None, port: int) -> bool:
    if wanted is None:
        return True
    return not (wanted[0] ^ port) & mask if mask else wanted[0] <= port <= wanted[1]


def is_tos(wanted: int, tos: int, family: int) -> bool:
    """Whether a flow's TOS byte is the one that an IPv4 route or a rule of either family serves.

    IPv4 compares the bits of RFC 1349's TOS alone, which are not the whole DSCP (fib_dscp_masked_match);
    IPv6 all but the two ECN bits.
    """
    return wanted == tos & (0x1C if family == AF_INET else 0xFC)


def _meets_tos(_: State, rule: Rule, query: Query) -> bool:
    return is_tos(rule.tos, query.tos, rule.family)


def _meets_dscp(_: State, rule: Rule, query: Query) -> bool:
    mask = 0x3F if rule.dscp_mask is None else rule.dscp_mask
    return not ((rule.dscp or 0) ^ query.tos >> 2) & mask


def _never(_state: State, _rule: Rule, _query: Query) -> bool:
    return False  # tunnel ids and flow labels are no part of a query


def _prefix_text(rule: Rule, address: int, length: int) -> str:
    return f"{IPv4Address(address) if rule.family == AF_INET else IPv6Address(address)}/{length}"


def _range_text(span: tuple[int, int] | None, mask: int | None = None) -> str:
    first, last = span or (0, 0)
    if mask and mask != 0xFFFF:
        return f"{first:#x}/{mask:#x}"
    return str(first) if first == last else f"{first}-{last}"


def _link_text(state: State, ifindex: int) -> str:
    link = state.links.get(ifindex)
    return f"link {ifindex}" if link is None else link.name


def _given_text(value: int, text: str) -> str:
    return f"it is {text}" if value else "none is given"


_PROTOCOLS = {1: "icmp", 6: "tcp", 17: "udp", 58: "ipv6-icmp", 132: "sctp"}


def _protocol_text(number: int) -> str:
    return _PROTOCOLS.get(number, str(number))


def _not_known(_state: State, _query: Query) -> str:
    return "it is not known here"


# In fib_rule_match()'s own order, so that an explanation names the one that the kernel stopped at.
SELECTORS = (
    Selector(
        "iif",
        lambda rule: bool(rule.iif),
        _meets_iif,
        lambda rule: f"iif {rule.iif}",
        lambda state, query: f"it came by {_link_text(state, query.iif)}" if query.iif else "this host sends it",
    ),
    Selector(
        "oif",
        lambda rule: bool(rule.oif),
        _meets_oif,
        lambda rule: f"oif {rule.oif}",
        lambda state, query: f"it is bound to {_link_text(state, query.oif)}" if query.oif else "it is bound to none",
    ),
    Selector(
        "fwmark",
        lambda rule: bool(rule.mask),
        _meets_mark,
        lambda rule: f"fwmark {rule.mark:#x}" + (f"/{rule.mask:#x}" if rule.mask != 0xFFFFFFFF else ""),
        lambda _, query: f"it is {query.mark:#x}",
    ),
    Selector("tun_id", lambda rule: bool(rule.tun_id), _never, lambda rule: f"tun_id {rule.tun_id}", _not_known),
    Selector(
        "l3mdev", lambda rule: rule.l3mdev, _meets_l3mdev, lambda rule: "l3mdev", lambda _, query: "it is of no VRF"
    ),
    Selector(
        "uidrange",
        lambda rule: rule.uid_range is not None,
        _meets_uid,
        lambda rule: "uidrange {}-{}".format(*(rule.uid_range or (0, 0))),
        lambda _, query: f"it is {query.uid}",
    ),
    Selector(
        "from",
        lambda rule: bool(rule.source_length),
        _meets_source,
        lambda rule: f"from {_prefix_text(rule, rule.source, rule.source_length)}",
        lambda _, query: "none is chosen yet" if query.source is None else f"it is {query.source}",
    ),
    Selector(
        "to",
        lambda rule: bool(rule.destination_length),
        _meets_destination,
        lambda rule: f"to {_prefix_text(rule, rule.destination, rule.destination_length)}",
        lambda _, query: f"it is {query.destination}",
    ),
    Selector(
        "tos",
        lambda rule: bool(rule.tos),
        _meets_tos,
        lambda rule: f"tos {rule.tos:#04x}",
        lambda _, query: f"it is {query.tos:#04x}",
    ),
    Selector(
        "dscp",
        lambda rule: rule.dscp is not None,
        _meets_dscp,
        lambda rule: f"dscp {rule.dscp:#04x}" + ("" if rule.dscp_mask is None else f"/{rule.dscp_mask:#04x}"),
        lambda _, query: f"it is {query.tos >> 2:#04x}",
    ),
    Selector(
        "flowlabel",
        lambda rule: rule.flow_label is not None,
        _never,
        lambda rule: f"flowlabel {rule.flow_label:#x}",
        _not_known,
    ),
    Selector(
        "ipproto",
        lambda rule: bool(rule.ip_proto),
        _meets_ip_proto,
        lambda rule: f"ipproto {_protocol_text(rule.ip_proto)}",
        lambda _, query: _given_text(query.ip_proto, _protocol_text(query.ip_proto)),
    ),
    Selector(
        "sport",
        lambda rule: rule.sport is not None,
        _meets_sport,
        lambda rule: f"sport {_range_text(rule.sport, rule.sport_mask)}",
        lambda _, query: _given_text(query.sport, str(query.sport)),
    ),
    Selector(
        "dport",
        lambda rule: rule.dport is not None,
        _meets_dport,
        lambda rule: f"dport {_range_text(rule.dport, rule.dport_mask)}",
        lambda _, query: _given_text(query.dport, str(query.dport)),
    ),
)
