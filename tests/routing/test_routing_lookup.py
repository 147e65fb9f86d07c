"""Lookup: longest prefix, usable next hops, rejects, and which source (net/ipv4/fib_trie.c, net/ipv6/route.c)."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from trio_routes.netlink import (
    AF_INET,
    AF_INET6,
    IFA_F_DEPRECATED,
    RT_SCOPE_HOST,
    RT_SCOPE_LINK,
    RTN_BLACKHOLE,
    RTN_LOCAL,
    RTN_PROHIBIT,
    RTN_THROW,
    RTN_UNREACHABLE,
    NetconfMessage,
    NexthopMessage,
    RuleMessage,
)
from trio_routes.routing import Kind, Outcome

from ._build import ETH0, ETH1, ETH2, LO, UP, Host, addresses, hop


@pytest.fixture
def host() -> Host:
    return Host()


def test_the_longest_prefix_wins_and_the_shorter_one_serves_when_its_link_is_down(host: Host) -> None:
    for prefix, ifindex in (("::/0", ETH0), ("2001:db8::/32", ETH1), ("0.0.0.0/0", ETH0), ("10.0.0.0/8", ETH1)):
        host.add(prefix, hop(ifindex))
    assert host.way("10.1.1.1") == host.way("2001:db8::1") == (ETH1, None)
    assert host.way("11.1.1.1") == host.way("2001:db9::1") == (ETH0, None)
    host.link(ETH1, 0)
    assert host.way("10.1.1.1") == host.way("2001:db8::1") == (ETH0, None)


def test_the_lower_metric_wins(host: Host) -> None:
    for family, prefix in ((4, "0.0.0.0/0"), (6, "::/0")):
        host.add(prefix, hop(ETH0), priority=20)
        host.add(prefix, hop(ETH1), priority=10)
        assert host.way("8.8.8.8" if family == 4 else "2001:db8::1") == (ETH1, None)


def test_no_route_is_enetunreach(host: Host) -> None:
    found = host.lookup("8.8.8.8")
    assert found.outcome is Outcome.NO_ROUTE and found.outcome.errno == 101 and not found.outcome.rejects


@pytest.mark.parametrize("prefix", ["203.0.113.0/24", "2001:db8:5::/48"])
@pytest.mark.parametrize(
    ("type", "outcome", "errno"),
    [
        (RTN_BLACKHOLE, Outcome.BLACKHOLE, 22),
        (RTN_UNREACHABLE, Outcome.UNREACHABLE, 113),
        (RTN_PROHIBIT, Outcome.PROHIBITED, 13),
    ],
)
def test_a_reject_ends_the_lookup(host: Host, prefix: str, type: int, outcome: Outcome, errno: int) -> None:
    host.add("0.0.0.0/0", hop(ETH0))
    host.add("::/0", hop(ETH0))
    ways = () if "." in prefix else (hop(LO),)  # IPv6's rejects lead to the loopback
    reject = host.add(prefix, *ways, type=type)
    found = host.lookup(prefix.partition("/")[0])
    assert (found.outcome, found.outcome.errno, found.hops) == (outcome, errno, ())
    assert found.route is not None and found.route.body == reject


@pytest.mark.parametrize(("prefix", "address"), [("198.51.100.0/24", "198.51.100.1"), ("2001:db8::/32", "2001:db8::1")])
def test_throw_goes_on_with_the_next_rule(host: Host, prefix: str, address: str) -> None:
    family = AF_INET if "." in prefix else AF_INET6
    default = "0.0.0.0/0" if family == AF_INET else "::/0"
    host.add(default, hop(ETH0))
    host.add(default, hop(ETH1), table=100)
    host.add(prefix, *(() if family == AF_INET else (hop(LO),)), table=100, type=RTN_THROW)
    host.rule(RuleMessage(family, 10, 100))
    assert host.way(address) == (ETH0, None)


def test_a_multipath_route_answers_with_its_usable_members(host: Host) -> None:
    host.add("0.0.0.0/0", hop(ETH0, "10.0.0.1"), hop(ETH1, "10.0.1.1"))
    found = host.lookup("8.8.8.8")
    assert found.multipath and set(found.gateways) == addresses("10.0.0.1", "10.0.1.1")
    host.link(ETH0, 0)
    assert host.lookup("8.8.8.8").gateways == (ip_address("10.0.1.1"),)


def test_a_route_without_carrier_is_used_unless_told_otherwise(host: Host) -> None:
    for prefix in ("0.0.0.0/0", "::/0"):
        host.add(prefix, hop(ETH0))
        host.add(prefix, hop(ETH1), priority=9)
    host.link(ETH0, UP)
    assert host.way("8.8.8.8") == (ETH0, None)
    host.cache.apply_switches(NetconfMessage(AF_INET, -1, ignore_routes_with_linkdown=1), gone=False)
    host.cache.apply_switches(NetconfMessage(AF_INET6, -1, ignore_routes_with_linkdown=1), gone=False)
    assert host.way("8.8.8.8") == (ETH1, None)
    assert host.way("2001:db8::1") == (ETH0, None)  # "all" counts for IPv4 only
    host.cache.apply_switches(NetconfMessage(AF_INET6, ETH0, ignore_routes_with_linkdown=1), gone=False)
    assert host.way("2001:db8::1") == (ETH1, None)


def test_a_tos_route_serves_its_tos_only(host: Host) -> None:
    host.add("0.0.0.0/0", hop(ETH0))
    host.add("0.0.0.0/0", hop(ETH1), tos=0x10)
    assert host.way("8.8.8.8", tos=0x12) == (ETH1, None)
    assert host.way("8.8.8.8", tos=0x20) == host.way("8.8.8.8") == (ETH0, None)


def test_default_routes_of_one_metric_stand_for_each_other(host: Host) -> None:
    # fib_select_default() picks among them by the state of the gateways' neighbours.
    host.add("0.0.0.0/0", hop(ETH0, "10.0.0.1"))
    host.add("0.0.0.0/0", hop(ETH1, "10.0.1.1"), flags=0x800)
    host.add("0.0.0.0/0", hop(ETH2, "10.0.2.1"), priority=5)
    found = host.lookup("8.8.8.8")
    assert found.multipath and found.gateways == (ip_address("10.0.0.1"), ip_address("10.0.1.1"))


def test_local_and_broadcast_destinations_are_told_apart(host: Host) -> None:
    host.add("10.0.0.1/32", hop(ETH0), table=255, type=RTN_LOCAL, scope=RT_SCOPE_HOST)
    host.add("10.0.0.255/32", hop(ETH0), table=255, type=3, scope=RT_SCOPE_LINK)
    assert host.lookup("10.0.0.1").kind is Kind.LOCAL
    assert host.lookup("10.0.0.1").source == ip_address("10.0.0.1")
    assert host.lookup("10.0.0.255").kind is Kind.BROADCAST
    host.link(ETH0, UP)
    assert host.lookup("10.0.0.1").kind is Kind.LOCAL  # lives as long as the address does


def test_nexthop_objects_are_resolved_at_the_lookup(host: Host) -> None:
    host.cache.apply_nexthop(NexthopMessage(1, AF_INET, ifindex=ETH0, gateway=ip_address("10.0.0.1")), gone=False)
    host.cache.apply_nexthop(NexthopMessage(2, AF_INET, ifindex=ETH1, gateway=ip_address("10.0.1.1")), gone=False)
    host.cache.apply_nexthop(NexthopMessage(3, group=((1, 1), (2, 5))), gone=False)
    host.cache.apply_nexthop(NexthopMessage(4, AF_INET, blackhole=True), gone=False)
    host.add("0.0.0.0/0", nexthop_id=3)
    host.add("192.0.2.0/24", nexthop_id=4)
    found = host.lookup("8.8.8.8")
    assert found.multipath and found.gateways == (ip_address("10.0.0.1"), ip_address("10.0.1.1"))
    assert [way.weight for way in found.hops] == [1, 5]
    assert host.way("192.0.2.1") == "blackhole"
    host.cache.apply_nexthop(NexthopMessage(2), gone=True)
    assert host.way("8.8.8.8") == (ETH0, "10.0.0.1")
    host.cache.apply_nexthop(NexthopMessage(1), gone=True)
    assert host.way("8.8.8.8") == "no route"


def test_an_object_without_usable_member_gives_its_whole_leaf_up(host: Host) -> None:
    # Prefixes that begin with the same address are one leaf of the trie, and fib_table_lookup() leaves it.
    host.cache.apply_nexthop(NexthopMessage(1, AF_INET, ifindex=ETH0), gone=False)
    host.cache.apply_switches(NetconfMessage(AF_INET, ETH0, ignore_routes_with_linkdown=1), gone=False)
    host.add("0.0.0.0/0", hop(ETH2))
    host.add("10.0.0.0/8", hop(ETH1))
    host.add("10.1.0.0/16", hop(ETH1))
    host.add("10.1.0.0/24", nexthop_id=1)
    host.add("10.0.0.0/24", nexthop_id=1)
    assert host.way("10.0.0.5") == (ETH0, None)
    host.cache.state.links[ETH0] = host.cache.links[ETH1].__class__(ETH0, "eth0", UP)  # the object outlived its carrier
    assert host.way("10.1.0.5") == (ETH1, None)  # by 10.0.0.0/8, another leaf
    assert host.way("10.0.0.5") == (ETH2, None)


# ---- bound devices ---------------------------------------------------------------------------------


def test_an_ipv4_destination_counts_as_on_the_link_that_is_asked_for(host: Host) -> None:
    host.address(ETH1, "10.0.1.5/24")
    host.add("0.0.0.0/0", hop(ETH0))
    host.add("203.0.113.0/24", type=RTN_BLACKHOLE)
    assert host.way("8.8.8.8", oif=ETH1) == (ETH1, None)
    assert host.way("203.0.113.1", oif=ETH1) == (ETH1, None)  # whatever the tables say
    assert host.lookup("8.8.8.8", oif=ETH1).source == ip_address("10.0.1.5")
    assert host.way("8.8.8.8", oif=ETH1, onlink_fallback=False) == "no route"
    assert host.way("203.0.113.1", oif=ETH1, onlink_fallback=False) == "blackhole"
    host.link(ETH1, 0)
    assert host.way("8.8.8.8", oif=ETH1) == "no route"


def test_an_ipv6_device_is_a_condition_or_a_preference(host: Host) -> None:
    host.address(ETH0, "2001:db8::5/64")
    host.add("::/0", hop(ETH0))
    assert host.way("2001:db9::1", oif=ETH1) == "no route"
    assert host.way("2001:db9::1", "2001:db8::5", oif=ETH1) == (ETH0, None)
    assert host.way("2001:db9::1", "2001:db8::5", oif=ETH1, strict=True) == "no route"
    host.add("::/0", hop(ETH1), flags=0x800)
    assert host.way("2001:db9::1", "2001:db8::5", oif=ETH1) == (ETH1, None)


def test_an_ipv6_link_local_destination_is_strict_about_its_link(host: Host) -> None:
    host.add("fe80::/64", hop(ETH0), priority=256)
    host.add("fe80::/64", hop(ETH1), priority=256, flags=0x800)
    assert host.way("fe80::1", oif=ETH1) == (ETH1, None)
    assert host.way("fe80::1", "fe80::5", oif=ETH2) == "no route"
    assert host.way("fe80::1%eth1", oif=ETH1) == (ETH1, None)


# ---- IPv6 ------------------------------------------------------------------------------------------


def test_an_ipv6_router_preference_decides_within_a_metric(host: Host) -> None:
    host.add("::/0", hop(ETH0, "fe80::1"), preference=3, protocol=9)
    host.add("::/0", hop(ETH1, "fe80::2"), preference=1, protocol=9, flags=0x800)
    assert host.way("2001:db8::1") == (ETH1, "fe80::2")


def test_routers_of_equal_preference_are_a_set(host: Host) -> None:
    host.add("::/0", hop(ETH0, "fe80::1"), protocol=9)
    host.add("::/0", hop(ETH0, "fe80::2"), protocol=9, flags=0x800)
    assert set(host.lookup("2001:db8::1").gateways) == addresses("fe80::1", "fe80::2")


def test_an_ipv6_reject_of_a_higher_metric_waits_its_turn(host: Host) -> None:
    host.add("::/0", hop(LO), type=RTN_UNREACHABLE, priority=4278198272)
    assert host.way("2001:db8::1") == "unreachable"
    host.add("::/0", hop(ETH0), priority=1024)
    assert host.way("2001:db8::1") == (ETH0, None)


def test_a_source_specific_route_hides_the_plain_one_of_its_prefix(host: Host) -> None:
    host.add("::/0", hop(ETH2))
    host.add("2001:db8::/32", hop(ETH0))
    host.add("2001:db8::/32", hop(ETH1), source=0xFD << 120, source_length=8)
    host.add("::/0", hop(ETH1), source=0xFD << 120, source_length=8)
    assert host.way("2001:db8::1", "fd00::1") == (ETH1, None)
    assert host.way("2001:db8::1", "2001:db9::1") == (ETH2, None)  # not ETH0
    assert host.way("2001:db9::1", "2001:db9::1") == (ETH2, None)  # ::/0 is never hidden
    host.link(ETH1, 0)
    assert host.way("2001:db8::1", "fd00::1") == (ETH0, None)


# ---- sources ---------------------------------------------------------------------------------------


def test_an_ipv4_source_is_the_routes_own_or_one_of_the_gateways_subnet(host: Host) -> None:
    host.address(ETH0, "10.0.0.5/24")
    host.address(ETH0, "10.0.9.5/24")
    host.add("0.0.0.0/0", hop(ETH0, "10.0.9.1"))
    host.add("192.0.2.0/24", hop(ETH0))
    host.add("198.51.100.0/24", hop(ETH0), prefsrc=ip_address("10.0.0.77"))
    host.add("203.0.113.0/24", hop(ETH1))
    for destination, source in (
        ("8.8.8.8", "10.0.9.5"),
        ("192.0.2.1", "10.0.0.5"),
        ("198.51.100.1", "10.0.0.77"),
        ("203.0.113.1", "10.0.0.5"),  # the link has none: another's
    ):
        assert host.lookup(destination).source == ip_address(source)


def test_an_ipv4_source_must_be_the_hosts_own(host: Host) -> None:
    host.add("0.0.0.0/0", hop(ETH0))
    host.add("198.18.0.0/15", hop(LO), table=255, type=RTN_LOCAL, scope=RT_SCOPE_HOST)
    assert host.way("8.8.8.8", "10.0.0.5") == "no route"
    assert host.way("8.8.8.8", "10.0.0.5", any_source=True) == (ETH0, None)
    assert host.way("8.8.8.8", "198.18.0.9") == (ETH0, None)  # covered by a local route
    host.address(ETH0, "10.0.0.5/24")
    assert host.way("8.8.8.8", "10.0.0.5") == (ETH0, None)


def test_an_ipv6_source_follows_rfc_6724(host: Host) -> None:
    host.add("::/0", hop(ETH0))
    host.address(ETH0, "fe80::5/64")
    assert host.lookup("2001:db8::1").source == ip_address("fe80::5")
    host.address(ETH1, "2001:db8:9::5/64")
    assert host.lookup("2001:db8::1").source == ip_address("2001:db8:9::5")  # scope before link
    host.address(ETH0, "2001:db9::5/64")
    assert host.lookup("2001:db8::1").source == ip_address("2001:db9::5")  # link before prefix
    host.address(ETH0, "2001:db8:1::5/64")
    assert host.lookup("2001:db8::1").source == ip_address("2001:db8:1::5")  # prefix
    host.address(ETH0, "2001:db8:1::5/64", flags=IFA_F_DEPRECATED)
    assert host.lookup("2001:db8::1").source == ip_address("2001:db9::5")
    host.address(ETH1, "fe80::7/64")
    assert host.lookup("fe80::1", oif=ETH0).source == ip_address("fe80::5")
