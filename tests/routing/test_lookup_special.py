"""What a lookup does besides tables: addresses that mean something of their own, refusals, errors, VRFs, sources."""

from __future__ import annotations

import errno
from ipaddress import ip_address

import attrs
import pytest

from trio_routes.netlink import (
    AF_INET,
    AF_INET6,
    FIB_RULE_FIND_SADDR,
    FR_ACT_UNREACHABLE,
    IFA_F_TEMPORARY,
    RT_SCOPE_HOST,
    RT_SCOPE_LINK,
    RTN_LOCAL,
    RTN_MULTICAST,
    RTN_UNREACHABLE,
    LinkMessage,
    NexthopMessage,
    RuleMessage,
)
from trio_routes.routing import Kind, Outcome

from ._build import CARRIER, ETH0, ETH1, ETH2, LO, UP, Host, addresses, hop


@pytest.fixture
def host() -> Host:
    host = Host()
    for ifindex, address in ((LO, "127.0.0.1"), (ETH0, "10.0.0.5"), (ETH1, "10.0.1.5")):
        host.address(ifindex, f"{address}/{8 if ifindex == LO else 24}")
        host.add(f"{address}/32", hop(ifindex), table=255, type=RTN_LOCAL, scope=RT_SCOPE_HOST)
    host.add("127.0.0.0/8", hop(LO), table=255, type=RTN_LOCAL, scope=RT_SCOPE_HOST)
    host.add("0.0.0.0/0", hop(ETH0, "10.0.0.1"))
    return host


# ---- IPv4 destinations with a meaning of their own --------------------------------------------------


def test_the_unspecified_destination_is_this_host(host: Host) -> None:
    found = host.lookup("0.0.0.0")
    assert found.kind is Kind.LOCAL and host.way("0.0.0.0") == (LO, None) and found.source == ip_address("127.0.0.1")
    assert host.lookup("0.0.0.0", oif=ETH1).source == ip_address("10.0.1.5")
    assert host.lookup("0.0.0.0", "10.0.0.5").source == ip_address("10.0.0.5")


@pytest.mark.parametrize(
    ("destination", "kind"),
    [("224.0.0.5", Kind.MULTICAST), ("239.9.9.9", Kind.MULTICAST), ("255.255.255.255", Kind.BROADCAST)],
)
def test_what_is_for_many_goes_to_no_gateway(host: Host, destination: str, kind: Kind) -> None:
    assert host.lookup(destination).kind is kind
    assert host.way(destination) == (ETH0, None)  # by the default route's link
    assert host.way(destination, "10.0.1.5") == (ETH1, None)  # by the source's link, whatever the tables say
    assert host.way(destination, oif=ETH1) == (ETH1, None)
    assert host.lookup(destination, oif=ETH1).source == ip_address("10.0.1.5")


def test_a_group_with_a_route_of_its_own_goes_by_its_gateway(host: Host) -> None:
    host.add("239.1.0.0/16", hop(ETH1, "10.0.1.1"))
    assert host.way("239.1.2.3") == (ETH1, "10.0.1.1")
    assert host.lookup("239.1.2.3").kind is Kind.MULTICAST
    assert host.way("239.1.2.3", "10.0.0.5") == (ETH0, None)


def test_an_ipv6_group_is_a_matter_of_its_links_routes(host: Host) -> None:
    for ifindex in (ETH0, ETH1):
        host.add("ff00::/8", hop(ifindex), table=255, type=RTN_MULTICAST, priority=256, flags=0x800)
        host.address(ifindex, f"fe80::{ifindex}/64")
    host.address(ETH0, "2001:db8::5/64")
    assert host.way("ff02::1", oif=ETH1) == (ETH1, None)
    assert host.way("ff02::1", "fe80::3", oif=ETH1) == (ETH1, None)  # a condition, with a source too
    found = host.lookup("ff0e::1", oif=ETH1)
    assert (found.kind, found.source) == (
        Kind.MULTICAST,
        ip_address("fe80::3"),
    )  # only the link's own come into question


# ---- refusals and errors ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "oif", "error"),
    [
        ("224.0.0.9", 0, errno.EINVAL),
        ("255.255.255.255", 0, errno.EINVAL),
        ("127.0.0.1", 0, errno.EINVAL),  # from the loopback to another host
        ("127.0.0.1", ETH1, errno.EINVAL),
        ("10.99.9.9", 0, errno.ENETUNREACH),
        ("10.0.0.5", 99, errno.ENODEV),
        (None, 99, errno.ENODEV),
        (None, ETH2, errno.ENETUNREACH),  # it is down
    ],
)
def test_what_the_kernel_refuses_to_look_up(host: Host, source: str | None, oif: int, error: int) -> None:
    host.link(ETH2, 0)
    found = host.lookup("8.8.8.8", source, oif=oif)
    assert (found.outcome, found.errno) == (Outcome.NO_ROUTE, error)


def test_the_loopback_can_be_the_source_to_the_host_itself(host: Host) -> None:
    assert host.lookup("10.0.0.5", "127.0.0.1").kind is Kind.LOCAL
    assert host.way("8.8.8.8", "127.0.0.1", oif=LO) == (LO, None)


def test_an_unreachable_rule_and_an_unreachable_route_are_different_errors(host: Host) -> None:
    host.add("203.0.113.0/24", type=RTN_UNREACHABLE)
    host.rule(RuleMessage(AF_INET, 5, action=FR_ACT_UNREACHABLE, mark=1, mask=1))
    by_route, by_rule = host.lookup("203.0.113.1"), host.lookup("203.0.113.1", mark=1)
    assert by_route.outcome is by_rule.outcome is Outcome.UNREACHABLE
    assert (by_route.errno, by_rule.errno) == (errno.EHOSTUNREACH, errno.ENETUNREACH)
    assert host.lookup("8.8.8.8").errno == 0


def test_a_forwarded_packet_needs_no_source_of_ours_and_has_no_user(host: Host) -> None:
    host.add("0.0.0.0/0", hop(ETH1, "10.0.1.1"), table=100)
    host.rule(RuleMessage(AF_INET, 5, table=100, iif="eth0"))
    host.rule(RuleMessage(AF_INET, 4, table=100, uid_range=(1000, 1000)))
    assert host.way("8.8.8.8", "198.51.100.9", iif=ETH0) == (ETH1, "10.0.1.1")
    assert host.way("8.8.8.8", "198.51.100.9", iif=ETH1, uid=1000) == (ETH0, "10.0.0.1")
    assert host.way("8.8.8.8", uid=1000) == (ETH1, "10.0.1.1")


def test_a_forwarded_ipv6_packet_prefers_the_link_that_it_came_in_by(host: Host) -> None:
    host.add("::/0", hop(ETH0))
    host.add("::/0", hop(ETH1), flags=0x800)
    assert host.way("2001:db9::1", "2001:db9::2", iif=ETH1) == (ETH1, None)


# ---- next hops and tos ------------------------------------------------------------------------------


def test_a_bound_ipv4_flow_takes_the_first_member_of_its_device(host: Host) -> None:
    host.add("198.51.100.0/24", hop(ETH1, "10.0.1.1"), hop(ETH1, "10.0.1.2"), hop(ETH0, "10.0.0.2"))
    assert host.way("198.51.100.1", oif=ETH1) == (ETH1, "10.0.1.1")
    assert len(host.lookup("198.51.100.1").hops) == 3


def test_an_ipv6_group_object_is_entered_by_a_device_and_left_by_any(host: Host) -> None:
    for number, ifindex in ((1, ETH0), (2, ETH1)):
        host.cache.apply_nexthop(NexthopMessage(number, AF_INET6, ifindex=ifindex), gone=False)
    host.cache.apply_nexthop(NexthopMessage(3, group=((1, 1), (2, 1))), gone=False)
    host.add("2001:db8::/32", nexthop_id=3)
    found = host.lookup("2001:db8::1", oif=ETH1)
    assert found.multipath and {way.ifindex for way in found.hops} == {ETH0, ETH1}
    assert host.way("2001:db8::1", oif=ETH2) == "no route"


def test_ipv4_compares_the_four_old_bits_of_the_tos_only(host: Host) -> None:
    host.add("198.51.100.0/24", hop(ETH1), tos=0x10)
    for tos, device in ((0x10, ETH1), (0x33, ETH1), (0xB0, ETH1), (0x08, ETH0), (0x18, ETH0)):
        assert host.lookup("198.51.100.1", tos=tos).hops[0].ifindex == device
    host.add("::/0", hop(ETH0))
    host.add("::/0", hop(ETH1), table=100)
    host.rule(RuleMessage(AF_INET6, 5, 100, tos=0x10))
    assert host.way("2001:db8::1", tos=0x13) == (ETH1, None)
    assert host.way("2001:db8::1", tos=0x30) == (ETH0, None)


# ---- rules ------------------------------------------------------------------------------------------


def test_a_rule_that_finds_its_source_afterwards_looks_whether_it_is_within(host: Host) -> None:
    host.address(ETH0, "2001:db8::5/64")
    host.address(ETH1, "2001:db9::5/64")
    host.add("::/0", hop(ETH0))
    host.add("::/0", hop(ETH1), table=100)
    prefix = int(ip_address("2001:db9::"))
    asks = RuleMessage(AF_INET6, 5, 100, source=prefix, source_length=32, flags=FIB_RULE_FIND_SADDR)
    host.rule(asks)
    assert host.way("2001:4860::1") == (ETH1, None)  # the source would be 2001:db9::5
    assert host.way("2001:4860::1", "2001:db8::5") == (ETH0, None)
    host.rule(asks, gone=True)
    host.rule(attrs.evolve(asks, source=int(ip_address("2001:dbb::"))))
    assert host.way("2001:4860::1") == (ETH0, None)


def test_a_group_member_is_suppressed_by_its_link(host: Host) -> None:
    host.add("198.51.100.0/24", hop(ETH1), hop(ETH2), table=100)
    host.add("2001:db8::/32", hop(ETH1, "fe80::1"), hop(ETH2, "fe80::2"), table=100)
    host.rule(RuleMessage(AF_INET, 5, 100, suppress_ifgroup=7))
    host.rule(RuleMessage(AF_INET6, 5, 100, suppress_ifgroup=7))
    host.link(ETH1, UP | CARRIER, group=7)
    assert host.way("198.51.100.1") == (ETH0, "10.0.0.1")  # IPv4 looks at the first member
    assert host.lookup("2001:db8::1").gateways == (ip_address("fe80::2"),)


def test_a_vrf_has_a_table_of_its_own(host: Host) -> None:
    # Modelled from the kernel's source; not run.
    vrf = 9
    host.cache.apply_link(LinkMessage(vrf, "red", UP | CARRIER, kind="vrf", vrf_table=10), gone=False)
    host.cache.apply_link(LinkMessage(ETH1, "eth1", UP | CARRIER, master=vrf), gone=False)
    host.rule(RuleMessage(AF_INET, 1000, l3mdev=True))
    host.add("0.0.0.0/0", hop(ETH1, "10.0.1.1"), table=10)
    assert host.way("8.8.8.8") == (ETH0, "10.0.0.1")
    assert host.way("8.8.8.8", oif=vrf) == host.way("8.8.8.8", oif=ETH1) == (ETH1, "10.0.1.1")
    assert host.way("8.8.8.8", "198.51.100.9", iif=ETH1) == (ETH1, "10.0.1.1")
    host.rule(RuleMessage(AF_INET, 999, action=FR_ACT_UNREACHABLE, iif="red"))
    assert host.way("8.8.8.8", "198.51.100.9", iif=ETH1) == "unreachable"


# ---- sources ----------------------------------------------------------------------------------------


def test_ipv4_sources_of_narrow_scope_serve_narrow_routes_only(host: Host) -> None:
    host.cache.state.addresses.put(
        (ETH0, ip_address("10.0.0.9"), 32),
        attrs.evolve(
            host.cache.addresses_of(ip_address("10.0.0.5"))[0], address=ip_address("10.0.0.9"), scope=RT_SCOPE_LINK
        ),
    )
    host.add("198.51.100.0/24", hop(ETH0), scope=RT_SCOPE_LINK)
    assert host.lookup("8.8.8.8").source == ip_address("10.0.0.5")
    assert host.lookup("198.51.100.1").source == ip_address("10.0.0.9")


def test_ipv6_sources_follow_the_label_table_and_temporary_addresses(host: Host) -> None:
    host.add("::/0", hop(ETH0))
    for address in ("2001:db8::5/64", "2002:a00::5/64", "fd00::5/64"):
        host.address(ETH0, address)
    for destination, source in (("2002:b00::1", "2002:a00::5"), ("fdff::1", "fd00::5"), ("3000::1", "2001:db8::5")):
        assert host.lookup(destination).source == ip_address(source)
    host.address(ETH0, "2001:db8::77/64", flags=IFA_F_TEMPORARY)
    assert host.lookup("3000::1").source == ip_address("2001:db8::77")


def test_routers_are_a_set_but_a_worse_one_is_not_of_it(host: Host) -> None:
    for at, preference in ((1, 1), (2, 0), (3, 1)):
        host.add("::/0", hop(ETH0, f"fe80::{at}"), protocol=9, preference=preference, flags=0x800)
    assert set(host.lookup("2001:db8::1").gateways) == addresses("fe80::1", "fe80::3")
