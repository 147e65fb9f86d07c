"""Explanations: the same answer as a lookup's, and every rule and route on the way with its reason."""

from __future__ import annotations

import itertools
from ipaddress import ip_address

import attrs
import pytest

from trio_routes.netlink import (
    AF_INET,
    AF_INET6,
    FR_ACT_GOTO,
    FR_ACT_NOP,
    FR_ACT_PROHIBIT,
    RTN_THROW,
    LinkMessage,
    NetconfMessage,
    NexthopMessage,
    RuleMessage,
)
from trio_routes.routing import Explanation, Why

from ._build import CARRIER, ETH0, ETH1, ETH2, UP, Host, hop


@pytest.fixture
def host() -> Host:
    host = Host()
    host.address(ETH0, "10.0.0.5/24")
    host.add("0.0.0.0/0", hop(ETH0, "10.0.0.1"), priority=100)
    host.add("::/0", hop(ETH0, "fe80::1"), priority=1024)
    return host


def explain(host: Host, destination: str, source: str | None = None, **options: object) -> Explanation:
    asked = {**options, "source": None if source is None else ip_address(source)}
    explanation = host.cache.explain(ip_address(destination), **asked)  # type: ignore[arg-type]  # names of LookupOptions
    assert explanation.resolution == host.lookup(destination, source, **options)
    return explanation


def whys(explanation: Explanation) -> list[Why]:
    return [step.why for step in explanation.steps]


def test_a_plain_answer_names_the_rules_and_the_route(host: Host) -> None:
    assert str(explain(host, "8.8.8.8")) == (
        "8.8.8.8: unicast via 10.0.0.1 on link 2\n"
        "  rule 0 lookup local: its table has no route there\n"
        "  rule 32766 lookup main: answers\n"
        "    default via 10.0.0.1 dev eth0 metric 100: answers"
    )


def test_a_rule_that_does_not_match_names_the_selector(host: Host) -> None:
    selectors: list[dict[str, object]] = [
        {"mark": 7, "mask": 0xFFFFFFFF},
        {"source": 0x0A010000, "source_length": 16},
        {"destination": 0xC0000200, "destination_length": 24},
        {"oif": "eth1"},
        {"iif": "eth1"},
        {"tos": 0x10},
        {"dscp": 5},
        {"uid_range": (1, 5)},
        {"ip_proto": 6},
        {"sport": (5, 9)},
        {"dport": (80, 80), "ip_proto": 0},
        {"tun_id": 5},
        {"l3mdev": True},
    ]
    for priority, fields in enumerate(selectors, 1):
        host.rule(RuleMessage(AF_INET, priority, 100, **fields))  # type: ignore[arg-type]  # names of RuleMessage
    steps = explain(host, "8.8.8.8", "10.0.0.5").steps
    details = [step.detail for step in steps if step.why is Why.SELECTOR]
    assert details == [
        "fwmark 0x7: it is 0x0",
        "from 10.1.0.0/16: it is 10.0.0.5",
        "to 192.0.2.0/24: it is 8.8.8.8",
        "oif eth1: it is bound to none",
        "iif eth1: this host sends it",
        "tos 0x10: it is 0x00",
        "dscp 0x05: it is 0x00",
        "uidrange 1-5: it is 0",
        "ipproto tcp: none is given",
        "sport 5-9: none is given",
        "dport 80: none is given",
        "tun_id 5: it is not known here",
        "l3mdev: it is of no VRF",
    ]


def test_a_rule_that_does_not_match_tells_what_the_flow_has_in_its_place(host: Host) -> None:
    selectors: list[dict[str, object]] = [
        {"source": 0x0A010000, "source_length": 16},
        {"oif": "eth1"},
        {"ip_proto": 17},
        {"ip_proto": 99},
        {"sport": (5, 9)},
        {"dport": (25, 25), "dport_mask": 0xFFFF},
        {"dport": (16, 16), "dport_mask": 0xFFF0},
    ]
    for priority, fields in enumerate(selectors, 1):
        host.rule(RuleMessage(AF_INET, priority, 100, **fields))  # type: ignore[arg-type]  # names of RuleMessage
    steps = explain(host, "8.8.8.8", oif=ETH0, ip_proto=6, sport=4, dport=80).steps
    assert [step.detail for step in steps if step.why is Why.SELECTOR] == [
        "from 10.1.0.0/16: none is chosen yet",
        "oif eth1: it is bound to eth0",
        "ipproto udp: it is tcp",
        "ipproto 99: it is tcp",
        "sport 5-9: it is 4",
        "dport 25: it is 80",
        "dport 0x10/0xfff0: it is 80",
    ]


def test_jumps_and_refusals_are_steps_too(host: Host) -> None:
    host.rule(RuleMessage(AF_INET, 1, action=FR_ACT_NOP))
    host.rule(RuleMessage(AF_INET, 2, action=FR_ACT_GOTO, goto=9))
    host.rule(RuleMessage(AF_INET, 3, action=FR_ACT_GOTO, goto=5))
    host.rule(RuleMessage(AF_INET, 4, action=FR_ACT_PROHIBIT))
    host.rule(RuleMessage(AF_INET, 5, 254, invert=True))
    host.rule(RuleMessage(AF_INET, 6, action=FR_ACT_PROHIBIT))
    explanation = explain(host, "8.8.8.8")
    assert whys(explanation) == [Why.EMPTY, Why.NOP, Why.UNRESOLVED, Why.GOTO, Why.INVERTED, Why.REJECTS]
    assert str(explanation.steps[4]).startswith("rule 5 not lookup main: all its selectors match")
    refused = explain(host, "8.8.8.8", "10.9.9.9")
    assert (
        str(refused.steps[0])
        == "the destination: the kernel refuses the question (10.9.9.9 is no address of this host)"
    )


def test_each_route_that_does_not_answer_says_why(host: Host) -> None:
    host.cache.apply_switches(NetconfMessage(AF_INET, -1, ignore_routes_with_linkdown=1), gone=False)
    host.link(ETH2, UP)
    host.add("8.8.8.8/32", hop(ETH1), tos=0x10)
    host.add("8.8.8.8/32", hop(ETH2))
    host.add("8.8.8.8/31", hop(ETH1), hop(ETH2))
    host.cache.apply_nexthop(NexthopMessage(1, AF_INET, ifindex=ETH2), gone=False)
    host.add("8.8.8.8/30", type=RTN_THROW, table=100)
    host.add("0.0.0.0/1", hop(ETH1), table=101)
    host.rule(RuleMessage(AF_INET, 10, 100))
    host.rule(RuleMessage(AF_INET, 11, 101, suppress_prefixlength=1))
    host.rule(RuleMessage(AF_INET, 12, 101, mark=1, mask=1))
    host.link(ETH1, UP)
    assert str(explain(host, "8.8.8.8")) == (
        "8.8.8.8: unicast via 10.0.0.1 on link 2\n"
        "  rule 0 lookup local: its table has no route there\n"
        "  rule 10 lookup 100: no route of its table answers\n"
        "    throw 8.8.8.8/30: sends the lookup to the next rule\n"
        "  rule 11 lookup 101: no route of its table answers\n"
        "    0.0.0.0/1 dev eth1: its link has no carrier, and such routes are ignored (eth1)\n"
        "  rule 12 fwmark 0x1/0x1 lookup 101: does not match (fwmark 0x1/0x1: it is 0x0)\n"
        "  rule 32766 lookup main: answers\n"
        "    8.8.8.8/32 tos 0x10 dev eth1: serves another TOS\n"
        "    8.8.8.8/32 dev eth2: its link has no carrier, and such routes are ignored (eth2)\n"
        "    8.8.8.8/31 dev eth1 or dev eth2: its next hop is dead (eth1: its link has no carrier, and such routes are "
        "ignored, eth2: its link has no carrier, and such routes are ignored)\n"
        "    default via 10.0.0.1 dev eth0 metric 100: answers"
    )


def test_a_suppressed_answer_is_shown_with_its_suppressor(host: Host) -> None:
    host.add("0.0.0.0/0", hop(ETH1), table=101)
    host.rule(RuleMessage(AF_INET, 11, 101, suppress_prefixlength=0))
    host.rule(RuleMessage(AF_INET, 12, 101, suppress_ifgroup=0))
    steps = [str(step) for step in explain(host, "8.8.8.8").steps if step.why is Why.SUPPRESSED]
    assert steps == [
        "rule 11 lookup 101: its answer is suppressed (suppress_prefixlength 0)",
        "rule 12 lookup 101: its answer is suppressed (suppress_ifgroup 0)",
    ]
    held_back = [str(step) for step in explain(host, "8.8.8.8").steps if step.why is Why.WOULD_ANSWER]
    assert held_back == ["default dev eth1: would answer"] * 2


def test_a_bound_flow_sees_the_routes_of_other_devices_passed_over(host: Host) -> None:
    assert Why.OTHER_DEVICE in whys(explain(host, "2001:db8::1", oif=ETH1))
    found = explain(host, "8.8.8.8", oif=ETH1)
    assert whys(found)[-2:] == [Why.OTHER_DEVICE, Why.ON_LINK]
    assert str(found.steps[-1]) == "the destination: counts as on the link that was asked for (eth1)"


def test_ipv6_source_prefixes_and_preferences_are_told(host: Host) -> None:
    host.add("2001:db8::/32", hop(ETH1))
    host.add("2001:db8::/32", hop(ETH1), source=0xFD << 120, source_length=8)
    assert {Why.SOURCE_PREFIX, Why.HIDDEN} <= set(whys(explain(host, "2001:db8::1", "2001:db8::5")))
    host.add("2001:db9::/32", hop(ETH1), preference=3)
    host.add("2001:db9::/32", hop(ETH2), preference=1, flags=0x800)
    assert Why.NOT_PREFERRED in whys(explain(host, "2001:db9::1"))


def test_a_link_without_ipv6_is_told_from_one_without_carrier(host: Host) -> None:
    small = LinkMessage(ETH1, "eth1", UP | CARRIER, mtu=1000)
    host.cache.apply_link(small, gone=False)
    host.cache.apply_nexthop(NexthopMessage(1, AF_INET6, ifindex=ETH1), gone=False)
    host.add("2001:db8::/32", nexthop_id=1)
    assert Why.NO_IPV6 in whys(explain(host, "2001:db8::1"))
    host.cache.apply_link(attrs.evolve(small, mtu=1500, flags=UP), gone=False)
    host.cache.apply_switches(NetconfMessage(AF_INET6, ETH1, ignore_routes_with_linkdown=1), gone=False)
    host.cache.apply_nexthop(NexthopMessage(1, AF_INET6, ifindex=ETH1), gone=False)
    host.add("2001:db8::/32", nexthop_id=1)
    assert Why.NO_CARRIER in whys(explain(host, "2001:db8::1"))


def test_an_explanation_has_the_lookups_answer_whatever_is_asked(host: Host) -> None:
    host.rule(RuleMessage(AF_INET, 5, 100, mark=1, mask=1))
    host.rule(RuleMessage(AF_INET6, 5, 100, oif="eth1"))
    for destination, mark, oif, tos in itertools.product(
        ("8.8.8.8", "10.0.0.5", "224.0.0.1", "0.0.0.0", "2001:db8::1", "fe80::1", "ff02::1"),
        (0, 1),
        (0, ETH1, 99),
        (0, 16),
    ):
        assert explain(host, destination, mark=mark, oif=oif, tos=tos).steps
