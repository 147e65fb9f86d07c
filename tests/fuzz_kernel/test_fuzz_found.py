"""What fuzz runs found, shortened: each of these sequences once left the cache, or a lookup, other than the kernel."""

from __future__ import annotations

import pytest

from ._run import replay

pytestmark = pytest.mark.netns


def _ways(*ways: str) -> str:
    return " ".join(f"nexthop via 2001:db8:{way}" for way in ways)


async def test_a_promoted_address_goes_behind_the_other_primary_ones() -> None:
    replay(
        ("sysctl net.ipv4.conf.d0.promote_secondaries=1",),
        ("addr add 10.0.0.11/24 dev d0",),
        ("addr add 10.0.0.13/25 dev d0",),
        ("addr del 10.0.0.10/24 dev d0",),
    )


async def test_the_switch_of_links_to_come_is_no_link_s() -> None:
    replay(("sysctl net.ipv6.conf.all.ignore_routes_with_linkdown=1",))


async def test_an_ipv6_route_s_own_mtu_follows_its_link_s() -> None:
    replay(
        ("-6 route prepend default table main mtu 1400 via 2001:db8:0::1 dev d0",),
        ("link set d0 mtu 1300",),
        ("link set d0 mtu 1500",),
    )


async def test_an_appended_sibling_s_attributes_are_its_own() -> None:
    replay(
        (f"-6 route prepend 2001:db8:f::7/128 table main metric 10 {_ways('1::1 dev d1', '1::2 dev d1')}",),
        ("-6 route append 2001:db8:f::7/128 table main metric 10 src 2001:db8:2::10 via 2001:db8:2::1 dev d2",),
        ("-6 route append 2001:db8:f::7/128 table main metric 10 pref high via 2001:db8:0::1 dev d0 onlink",),
    )


async def test_a_way_that_a_dump_shows_dead_lives_if_its_link_came_up_meanwhile() -> None:
    replay(
        (f"-6 route add 2001:db8:1::/64 metric 20 {_ways('0::1 dev d0', '1::2 dev d1', '2::1 dev d2')}",),
        ("link set d1 down",),
        (
            "audit",
            *(f"-4 route add 192.0.2.{last}/32 dev d0" for last in range(8)),
            "link set d1 up",
            "addr add 10.0.0.12/24 dev d0",
        ),
        lookups=0,
    )


async def test_ipv6_ways_come_alive_with_the_carrier_and_not_with_an_address() -> None:
    replay(
        (f"-6 route add 2001:db8:f::/48 {_ways('0::2 dev d0', '2::1 dev d2')}",),
        ("far link set p2 down",),
        ("link set d2 down",),
        ("link set d2 up",),
        ("-6 addr add 2001:db8:2::13/64 dev d2 nodad",),
        ("far link set p2 up",),
    )


async def test_a_way_on_a_link_that_is_down_is_dead_wherever_carriers_count() -> None:
    replay(
        (f"-6 route append 2001:db8:f:1::/64 table 1000 {_ways('0::2 dev d0', '1::1 dev d1')}",),
        (f"-6 route append 2001:db8:f:1::/64 table main {_ways('0::1 dev d0', '1::1 dev d1')}",),
        ("sysctl net.ipv6.conf.all.ignore_routes_with_linkdown=1",),
        ("link set d0 down",),
        ("sysctl net.ipv6.conf.d0.disable_ipv6=1",),
        ("-6 route del 2001:db8:f:1::/64 table main",),  # has the tables dumped
        ("link set d0 up",),
    )


async def test_no_ipv6_route_leads_over_a_link_of_too_small_an_mtu() -> None:
    replay(
        ("-6 nexthop replace id 4 via 2001:db8:2::1 dev d2",),
        ("-6 rule add pref 100 ipproto tcp dport 443 lookup 100",),
        ("link set d2 mtu 1200",),
        ("-6 route add 2001:db8:f::/48 metric 20 nhid 4",),
    )


async def test_a_route_over_a_link_of_too_small_an_mtu_hides_the_rest_of_its_table() -> None:
    replay(
        ("-6 nexthop add id 8 via 2001:db8:0::1 dev d0",),
        ("-6 rule add pref 300 to 2001:db8:f::/48 lookup 1000",),
        ("-6 route append 2001:db8:1::/64 table main metric 20 nhid 8",),  # preferred to the link's own, by d1
        ("link set d0 mtu 1200",),
        ("-6 rule add pref 40000 lookup 1000", "-6 route add 2001:db8:1::/64 table 1000 via 2001:db8:2::1 dev d2"),
    )


async def test_the_host_s_own_ipv6_addresses_are_there_without_carrier() -> None:
    replay(
        ("-6 rule add pref 100 blackhole",),
        ("sysctl net.ipv6.conf.d0.ignore_routes_with_linkdown=1", "far link set p0 down"),
    )


async def test_an_address_of_a_link_that_is_down_can_be_a_source() -> None:
    replay(
        ("-4 route add default dev d1",),
        ("addr del 10.0.1.10/24 dev d1", "addr del 10.0.2.10/24 dev d2"),
        ("-4 route add default dev d1",),
        ("link set d0 down",),
    )


_NO_MULTICAST = ("-6 route del multicast ff00::/8 dev d0 table local",)


async def test_ipv6_is_switched_off_on_a_link_whose_multicast_route_was_never_seen() -> None:
    replay(
        _NO_MULTICAST,
        ("lose",),  # the tables are dumped anew, without that route
        (f"-6 route add 2001:db8:f::/48 {_ways('0::2 dev d0', '2::1 dev d2')}",),
        ("sysctl net.ipv6.conf.d0.disable_ipv6=1",),  # only addresses are said to go
        ("sysctl net.ipv6.conf.d0.disable_ipv6=0",),
    )


async def test_a_link_s_multicast_route_that_is_deleted_by_hand_switches_nothing_off() -> None:
    replay(
        (f"-6 route add 2001:db8:f::/48 {_ways('0::2 dev d0', '2::1 dev d2')}",),
        ("-6 addr del 2001:db8:0::10/64 dev d0",),
        ("-6 addr flush dev d0",),
        _NO_MULTICAST,
    )


async def test_a_dead_way_of_an_ipv6_group_stays_dead_when_a_sibling_with_other_attributes_joins() -> None:
    replay(
        (f"-6 route add default metric 20 expires 1000 {_ways('0::2 dev d0', '2::2 dev d2')}",),
        ("link set d2 down",),
        ("-6 route append default metric 20 via 2001:db8:0::1 dev d0",),
        ("far link set p2 down",),
        ("link set d2 up",),
    )


async def test_of_two_ways_by_one_link_one_can_be_dead() -> None:
    replay(
        (f"-6 route add default metric 20 {_ways('0::2 dev d0', '2::2 dev d2')}",),
        ("link set d2 down",),
        ("far link set p2 down",),
        ("link set d2 up",),
        ("-6 addr add 2001:db8:2::10/64 dev d2 nodad",),
        ("-6 route append default metric 20 via 2001:db8:2::1 dev d2",),
        ("far link set p2 up",),
    )


async def test_ipv6_rules_are_taken_notice_of_only_once_one_was_added() -> None:
    replay(
        ("-6 route add default via 2001:db8:0::1 dev d0",),
        ("-6 rule flush",),
        ("-6 rule add pref 100 fwmark 99 lookup 100",),
        ("-6 rule del pref 100",),
        ("-6 rule add pref 32766 lookup main",),
    )


async def test_a_follower_that_comes_when_ipv6_rules_are_in_use_knows_it() -> None:
    replay(
        ("-6 rule add pref 100 fwmark 99 lookup 100", "-6 rule del pref 32766", "lose"),
        ("-6 route add default via 2001:db8:0::1 dev d0",),
    )


async def test_ipv6_is_switched_off_without_a_word_where_routes_go_so() -> None:
    replay(
        ("sysctl net.ipv6.route.skip_notify_on_dev_down=1",),
        ("-6 route add default via 2001:db8:0::1 dev d0",),
        ("sysctl net.ipv6.conf.d0.disable_ipv6=1",),
        ("link set d1 down",),
        ("link set d2 mtu 1200",),
        ("-6 addr add 2001:db8:1::11/64 dev d1 nodad",),
        ("sysctl net.ipv6.conf.all.disable_ipv6=1",),
    )


async def test_ipv6_rejects_though_the_loopback_is_down() -> None:
    replay(
        ("-6 route add default via 2001:db8:0::1 dev d0",),
        ("link set lo down",),
        ("-6 route add blackhole 2001:db8:f::7/128",),
        ("-6 route add throw 2001:db8:f::/48",),
        ("link set lo up",),
        ("link set lo down",),
    )


async def test_no_ipv6_route_of_a_link_of_too_small_an_mtu_stays_where_routes_go_without_a_word() -> None:
    replay(
        ("-6 addr flush dev d1",),
        ("sysctl net.ipv6.route.skip_notify_on_dev_down=1",),
        ("link set d1 mtu 1200",),
    )
