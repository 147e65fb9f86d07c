"""Policy rules: which a flow meets, by each selector, and where gotos lead (net/core/fib_rules.c)."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from trio_routes.netlink import (
    AF_INET,
    AF_INET6,
    FIB_RULE_IIF_DETACHED,
    FR_ACT_BLACKHOLE,
    FR_ACT_GOTO,
    FR_ACT_NOP,
    FR_ACT_PROHIBIT,
    FR_ACT_UNREACHABLE,
    RuleMessage,
)
from trio_routes.routing import Outcome

from ._build import ETH0, ETH1, Host, hop

VIA_MAIN, VIA_100 = (ETH0, None), (ETH1, None)


@pytest.fixture
def host() -> Host:
    host = Host()
    host.address(ETH0, "10.0.0.1/24")
    for default in ("0.0.0.0/0", "::/0"):
        for table, first, second in ((254, ETH0, ETH1), (100, ETH1, ETH0)):
            host.add(default, hop(first), table=table, priority=1)
            host.add(default, hop(second), table=table, priority=2)
    return host


def rule(**selectors: object) -> RuleMessage:
    return RuleMessage(**({"family": AF_INET, "priority": 1000, "table": 100} | selectors))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("selectors", "matching", "other"),
    [
        ({"source": int(ip_address("10.0.0.0")), "source_length": 24}, {"source": "10.0.0.1"}, {}),
        ({"destination": int(ip_address("8.8.8.8")), "destination_length": 32}, {}, None),
        ({"mark": 7, "mask": 0xFF}, {"mark": 0x107}, {"mark": 8}),
        ({"mark": 0, "mask": 0xFF}, {"mark": 0x100}, {"mark": 1}),
        ({"oif": "eth1"}, {"oif": ETH1}, {"oif": ETH0}),
        ({"iif": "lo"}, {}, {"iif": ETH0}),
        ({"iif": "eth0"}, {"iif": ETH0}, {}),
        ({"uid_range": (1000, 1999)}, {"uid": 1500}, {"uid": 2000}),
        ({"tos": 0x10}, {"tos": 0x11}, {"tos": 0x20}),
        ({"dscp": 4}, {"tos": 0x13}, {"tos": 0x20}),
        ({"dscp": 0, "dscp_mask": 0x30}, {"tos": 0x0C << 2}, {"tos": 0x10 << 2}),
        ({"ip_proto": 6}, {"ip_proto": 6}, {"ip_proto": 17}),
        ({"dport": (53, 80)}, {"dport": 80}, {"dport": 443}),
        ({"sport": (1, 1023)}, {"sport": 1}, {}),
        ({"dport": (0x50, 0x50), "dport_mask": 0xF0}, {"dport": 0x5F}, {"dport": 0x60}),
    ],
)
def test_a_selector_decides(
    host: Host, selectors: dict[str, object], matching: dict[str, object], other: dict[str, object] | None
) -> None:
    def meets(options: dict[str, object]) -> bool:
        destination = "8.8.8.8" if other is not None or options is matching else "8.8.4.4"
        met = host.lookup(destination, **options).rule
        return met is not None and met.priority == 1000

    host.rule(rule(**selectors))
    assert meets(matching) and not meets(other or {})
    host.rule(rule(**selectors), gone=True)
    host.rule(rule(**selectors, invert=True))
    assert not meets(matching) and meets(other or {})


def test_what_a_query_cannot_say_does_not_match(host: Host) -> None:
    host.rule(rule(tun_id=5))
    host.rule(rule(family=AF_INET6, flow_label=5))
    assert host.way("8.8.8.8") == host.way("2001:db8::1") == VIA_MAIN


def test_ipv6_rules_are_rules_of_their_own(host: Host) -> None:
    host.rule(rule(family=AF_INET6, destination=0x20010DB8 << 96, destination_length=32))
    assert host.way("2001:db8::1") == VIA_100
    assert host.way("2001:db9::1") == VIA_MAIN
    assert host.way("8.8.8.8") == VIA_MAIN


def test_a_goto_leads_forward_to_the_first_rule_of_that_priority_and_a_nop_nowhere(host: Host) -> None:
    host.rule(rule(priority=10, action=FR_ACT_NOP, table=0))
    host.rule(rule(priority=20, action=FR_ACT_GOTO, goto=40, table=0))
    host.rule(rule(priority=30, action=FR_ACT_PROHIBIT, table=0))
    assert host.way("8.8.8.8") == "prohibited"  # nothing is at 40: the goto does nothing
    host.rule(rule(priority=40))
    assert host.way("8.8.8.8") == VIA_100


@pytest.mark.parametrize(
    ("action", "outcome", "errno"),
    [
        (FR_ACT_BLACKHOLE, Outcome.BLACKHOLE, 22),
        (FR_ACT_UNREACHABLE, Outcome.UNREACHABLE, 113),
        (FR_ACT_PROHIBIT, Outcome.PROHIBITED, 13),
    ],
)
def test_a_rule_can_reject(host: Host, action: int, outcome: Outcome, errno: int) -> None:
    host.rule(rule(action=action, table=0))
    found = host.lookup("8.8.8.8")
    assert found.outcome is outcome and found.outcome.errno == errno and found.outcome.rejects
    assert found.rule is not None and found.rule.priority == 1000 and found.route is None


def test_a_suppressed_answer_sends_the_lookup_to_the_next_rule(host: Host) -> None:
    host.add("192.0.2.0/24", hop(ETH1), table=100)
    host.rule(rule(suppress_prefixlength=0))
    assert host.way("192.0.2.1") == VIA_100
    assert host.way("8.8.8.8") == VIA_MAIN


def test_a_link_group_is_suppressed(host: Host) -> None:
    host.rule(rule(suppress_ifgroup=5))
    assert host.way("8.8.8.8") == VIA_100
    host.link(ETH1, 0x10041, group=5)
    assert host.way("8.8.8.8") == VIA_MAIN


def test_a_reject_is_never_suppressed(host: Host) -> None:
    host.add("0.0.0.0/1", table=100, type=7)
    host.rule(rule(suppress_prefixlength=32))
    assert host.way("8.8.8.8") == "unreachable"


def test_without_any_rule_there_is_no_route(host: Host) -> None:
    for known in list(host.cache.rules(AF_INET)):
        host.rule(known, gone=True)
    assert host.way("8.8.8.8") == "no route"
    assert host.way("2001:db8::1") == VIA_MAIN


def test_a_rule_is_the_same_whether_its_device_is_there_or_not(host: Host) -> None:
    host.rule(rule(iif="eth9"))
    host.cache.take_changes()
    host.rule(rule(iif="eth9", flags=FIB_RULE_IIF_DETACHED))
    assert not host.cache.take_changes()
    host.rule(rule(iif="eth9", flags=FIB_RULE_IIF_DETACHED), gone=True)
    (change,) = host.cache.take_changes().rules
    assert change.old is not None and change.new is None
