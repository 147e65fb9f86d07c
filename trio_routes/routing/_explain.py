"""Why a lookup answers as it does: every rule, table and route that it came to, and what became of each.

There is one walk (`_lookup.py`). Given a `Trace` it notes each step; given None, as for every lookup
that judges a connection, it tests for that at the places where something does *not* answer, and
pays nothing else.
"""

from __future__ import annotations

import enum
from ipaddress import IPv4Address, IPv6Address

import attrs

from ..netlink import (
    AF_INET,
    FR_ACT_BLACKHOLE,
    FR_ACT_GOTO,
    FR_ACT_NOP,
    FR_ACT_PROHIBIT,
    FR_ACT_TO_TBL,
    FR_ACT_UNREACHABLE,
    RTN_ANYCAST,
    RTN_BLACKHOLE,
    RTN_BROADCAST,
    RTN_LOCAL,
    RTN_MULTICAST,
    RTN_PROHIBIT,
    RTN_THROW,
    RTN_UNREACHABLE,
    IPAddress,
    RouteBody,
)
from ._rules import SELECTORS
from ._state import State
from ._values import Resolution, Route, Rule


class Why(enum.Enum):
    """What became of a rule, a table or a route that a lookup came to."""

    # before any rule
    REFUSED = "the kernel refuses the question"
    ON_LINK = "counts as on the link that was asked for"
    TO_ITSELF = "is this host itself"

    # a rule
    SELECTOR = "does not match"
    INVERTED = "all its selectors match, and it applies where they do not"
    NOP = "does nothing"
    GOTO = "jumps"
    UNRESOLVED = "there is no rule to jump to"
    EMPTY = "its table has no route there"
    NONE_ANSWERS = "no route of its table answers"
    SOURCE_OUTSIDE = "the source that would be chosen is outside of its prefix"
    SUPPRESSED = "its answer is suppressed"

    # a route
    TOS = "serves another TOS"
    LINK_DOWN = "its link is down"
    DEAD = "its next hop is dead"
    NO_CARRIER = "its link has no carrier, and such routes are ignored"
    NO_IPV6 = "its link has too small an MTU for IPv6"
    OTHER_DEVICE = "leads to another device than the one asked for"
    UNKNOWN_NEXTHOP = "its nexthop object is not there"
    NEXTHOP_LEAF = "a longer prefix of the same address has a nexthop object without a usable member"
    SOURCE_PREFIX = "serves other sources"
    HIDDEN = "is hidden by routes of its prefix for certain sources"
    THROW = "sends the lookup to the next rule"
    WOULD_ANSWER = "would answer"
    NOT_PREFERRED = "a route of its prefix is preferred"

    # both
    REJECTS = "rejects"
    ANSWERS = "answers"


@attrs.frozen(slots=True)
class Step:
    """One thing that a lookup came to.

    Attributes:
      why: What became of it.
      rule: The rule that was tried, or under which the route was.
      route: The route that was tried; None where the step is about a rule.
      detail: What `why` does not say: the selector, the link, the suppressor; "" if nothing.
      subject: What was tried, in words.
    """

    why: Why
    rule: Rule | None = None
    route: Route | None = None
    detail: str = ""
    subject: str = ""

    def __str__(self) -> str:
        detail = f" ({self.detail})" if self.detail else ""
        return f"{self.subject}: {self.why.value}{detail}"


@attrs.frozen(slots=True)
class Explanation:
    """A resolution, and how the lookup came to it.

    Attributes:
      destination: The destination asked for.
      resolution: The answer; the same that `lookup` gives.
      steps: What was tried, in the order in which it was.
    """

    destination: IPAddress
    resolution: Resolution
    steps: tuple[Step, ...]

    def __str__(self) -> str:
        """Several lines: the answer, and under it the steps."""
        return "\n".join([f"{self.destination}: {self.resolution}", self.steps_text()])

    def steps_text(self) -> str:
        """The steps, a line each; the routes of a rule's table are indented under it."""
        return "\n".join(f"{'    ' if step.route is not None else '  '}{step}" for step in self.steps)


class Trace:
    """Collects the steps of one lookup."""

    def __init__(self, state: State) -> None:
        self.steps: list[Step] = []
        self._state = state
        self._rule: Rule | None = None
        self._entered_at = 0

    def question(self, why: Why, detail: str) -> None:
        """Note what is decided without any rule."""
        self.steps.append(Step(why, detail=detail, subject="the destination"))

    def rule(self, rule: Rule, why: Why, detail: str = "") -> None:
        """Note what became of a rule without a look into its table."""
        self.steps.append(Step(why, rule, detail=detail, subject=rule_text(rule)))

    def enters(self, rule: Rule) -> None:
        """From here on routes are those of this rule's table."""
        self._rule, self._entered_at = rule, len(self.steps)

    def leaves(self, rule: Rule, why: Why, detail: str = "") -> None:
        """Note what became of a rule whose table was searched: before the routes, which came under it."""
        if why is Why.EMPTY and len(self.steps) > self._entered_at:
            why = Why.NONE_ANSWERS
        self.steps.insert(self._entered_at, Step(why, rule, detail=detail, subject=rule_text(rule)))

    def route(self, body: RouteBody, prefix: int, why: Why, detail: str = "") -> None:
        """Note what became of a route."""
        subject = self._route_text(body, prefix)
        self.steps.append(Step(why, self._rule, Route(body, prefix), detail, subject))

    def link_name(self, ifindex: int) -> str:
        """A link's name, or its number where it is not known."""
        link = self._state.links.get(ifindex)
        return f"if{ifindex}" if link is None else link.name

    def _route_text(self, body: RouteBody, prefix: int) -> str:
        words = [_TYPES[body.type]] if body.type in _TYPES else []
        words.append(_prefix_text(body.family, prefix, body.prefix_length))
        if body.source_length:
            words.append(f"from {_prefix_text(body.family, body.source, body.source_length)}")
        if body.tos:
            words.append(f"tos {body.tos:#04x}")
        if body.nexthop_id:
            words.append(f"nhid {body.nexthop_id}")
        if body.type not in _REJECTS:
            ways = [
                (f"via {hop.gateway} " if hop.gateway else "") + f"dev {self.link_name(hop.ifindex)}"
                for hop in self._state.expand(body)[0]
            ]
            words.append(" or ".join(ways) or "nowhere")
        if body.priority:
            words.append(f"metric {body.priority}")
        return " ".join(words)


_TYPES = {
    RTN_LOCAL: "local",
    RTN_BROADCAST: "broadcast",
    RTN_ANYCAST: "anycast",
    RTN_MULTICAST: "multicast",
    RTN_BLACKHOLE: "blackhole",
    RTN_UNREACHABLE: "unreachable",
    RTN_PROHIBIT: "prohibit",
    RTN_THROW: "throw",
}
_REJECTS = frozenset({RTN_BLACKHOLE, RTN_UNREACHABLE, RTN_PROHIBIT, RTN_THROW})
_ACTIONS = {
    FR_ACT_NOP: "nop",
    FR_ACT_BLACKHOLE: "blackhole",
    FR_ACT_UNREACHABLE: "unreachable",
    FR_ACT_PROHIBIT: "prohibit",
}
_TABLES = {253: "default", 254: "main", 255: "local"}


def rule_text(rule: Rule) -> str:
    """A rule as iproute2 writes it: "rule 1000 from 10.0.0.0/8 lookup 100"."""
    conditions = [selector.text(rule) for selector in SELECTORS if selector.name != "l3mdev" and selector.given(rule)]
    if rule.action == FR_ACT_TO_TBL:
        action = "lookup [l3mdev-table]" if rule.l3mdev else f"lookup {_TABLES.get(rule.table, rule.table)}"
    elif rule.action == FR_ACT_GOTO:
        action = f"goto {rule.goto}"
    else:
        action = _ACTIONS.get(rule.action, f"action {rule.action}")
    return " ".join([f"rule {rule.priority}", *(["not"] if rule.invert else []), *conditions, action])


def _prefix_text(family: int, address: int, length: int) -> str:
    if not length:
        return "default"
    return f"{IPv4Address(address) if family == AF_INET else IPv6Address(address)}/{length}"
