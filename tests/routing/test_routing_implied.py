"""What the kernel does without saying so, and what a batch of changes says of it (docs/kernel.md)."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from trio_routes.netlink import (
    AF_BRIDGE,
    AF_INET,
    NLM_F_REPLACE,
    NUD_FAILED,
    NUD_REACHABLE,
    RT_SCOPE_HOST,
    RTN_LOCAL,
    RTN_MULTICAST,
    RTNH_F_DEAD,
    RTNH_F_LINKDOWN,
    LinkMessage,
    NeighbourMessage,
    NetconfMessage,
    NextHop,
    NexthopMessage,
)
from trio_routes.routing import ChangeBatch, Part

from ._build import CARRIER, ETH0, ETH1, ETH2, UP, Host, hop


@pytest.fixture
def host() -> Host:
    host = Host()
    host.address(ETH0, "10.0.0.5/24")
    host.address(ETH1, "10.0.1.5/24")
    host.cache.take_changes()
    return host


def taken(host: Host) -> ChangeBatch:
    return host.cache.take_changes()


def both(host: Host, prefix: str = "0.0.0.0/0") -> None:
    ways = ("10.0.0.1", "10.0.1.1") if "." in prefix else ("fe80::1", "fe80::2")
    host.add(prefix, hop(ETH0, ways[0]), hop(ETH1, ways[1]))


@pytest.mark.parametrize("prefix", ["192.0.2.0/24", "2001:db8::/32"])
def test_a_link_that_goes_down_takes_its_routes_with_it_in_every_table(host: Host, prefix: str) -> None:
    for table in (254, 100):
        host.add(prefix, hop(ETH0), table=table)
    host.add(prefix, hop(ETH1), priority=9999)
    taken(host)
    host.link(ETH0, 0)
    batch = taken(host)
    gone = [(change.old.table if change.old else 0, change.new, change.cause) for change in batch.routes]
    assert sorted(gone) == [(100, None, "link eth0 was set down"), (254, None, "link eth0 was set down")]
    assert len(host.routes(prefix)) == 1
    host.link(ETH0, UP | CARRIER)
    assert len(host.routes(prefix)) == 1  # static routes do not return


def test_local_ipv4_routes_outlive_their_link(host: Host) -> None:
    host.add("10.0.0.5/32", hop(ETH0), table=255, type=RTN_LOCAL, scope=RT_SCOPE_HOST)
    host.link(ETH0, 0)
    assert host.routes("10.0.0.5/32", 255)
    assert host.cache.has_address(ip_address("10.0.0.5"), ETH0)


def test_a_multipath_route_goes_with_its_last_way(host: Host) -> None:
    both(host)
    both(host, "::/0")
    taken(host)
    host.link(ETH0, 0)
    assert not taken(host).routes
    assert host.way("8.8.8.8") == (ETH1, "10.0.1.1") and host.way("2001:db8::1") == (ETH1, "fe80::2")
    host.link(ETH1, UP)  # without carrier it lives
    assert not taken(host).routes
    host.link(ETH1, 0)
    assert len(taken(host).routes) == 2
    assert host.way("8.8.8.8") == host.way("2001:db8::1") == "no route"


def test_ipv4_ways_revive_with_the_link_and_ipv6_ways_with_its_multicast_route(host: Host) -> None:
    both(host)
    both(host, "::/0")
    host.link(ETH0, 0)
    taken(host)
    host.link(ETH0, UP | CARRIER)
    assert taken(host).revived
    assert len(host.lookup("8.8.8.8").hops) == 2 and len(host.lookup("2001:db8::1").hops) == 1
    host.add("ff00::/8", hop(ETH0), table=255, type=RTN_MULTICAST)
    assert len(host.lookup("2001:db8::1").hops) == 2
    assert taken(host).revived
    host.remove("ff00::/8", hop(ETH0), table=255, type=RTN_MULTICAST)  # IPv6 was turned off there
    assert len(host.lookup("2001:db8::1").hops) == 1


def test_a_removed_link_takes_whole_ipv4_routes_and_only_its_ways_of_ipv6_groups(host: Host) -> None:
    both(host)
    both(host, "::/0")
    host.add("2001:db8::/32", hop(ETH0))
    taken(host)
    host.remove_link(ETH0)
    batch = taken(host)
    assert host.way("8.8.8.8") == "no route"
    assert host.way("2001:db8::1") == (ETH1, "fe80::2")
    assert not host.cache.addresses_of(ip_address("10.0.0.5")) and host.cache.link(ETH0) is None
    assert [change.new for change in batch.addresses] == [None]
    assert {change.cause for change in batch.routes} == {"link eth0 was removed"}
    (replaced,) = [change for change in batch.routes if change.new is not None]
    assert replaced.new is not None and not replaced.new.multipath


def test_a_port_that_leaves_its_bridge_is_no_link_that_goes(host: Host) -> None:
    host.cache.apply_link(LinkMessage(ETH0, "eth0", UP | CARRIER, family=AF_BRIDGE), gone=True)
    assert host.cache.link(ETH0) is not None and not taken(host)


def test_the_last_ipv4_address_takes_ipv4_off_the_link(host: Host) -> None:
    host.add("192.0.2.0/24", hop(ETH0), table=100)
    both(host)
    host.add("2001:db8::/32", hop(ETH0))
    host.address(ETH0, "10.0.0.6/24")
    taken(host)
    host.address(ETH0, "10.0.0.6/24", gone=True)
    assert not taken(host).routes
    host.address(ETH0, "10.0.0.5/24", gone=True)
    (change,) = taken(host).routes
    assert change.cause == "the last IPv4 address of link eth0 was removed"
    assert host.way("8.8.8.8") == (ETH1, "10.0.1.1") and host.routes("2001:db8::/32")
    host.add("192.0.2.0/24", hop(ETH0))  # what is added afterwards lives
    assert host.way("192.0.2.1") == (ETH0, None)
    host.address(ETH0, "10.0.0.7/24")
    assert len(host.lookup("8.8.8.8").hops) == 2 and taken(host).revived


def test_a_way_is_as_dead_as_the_kernel_says_when_it_speaks_of_it(host: Host) -> None:
    ways = hop(ETH0, "10.0.0.1"), hop(ETH1, "10.0.1.1")
    dead = NextHop(ETH0, ip_address("10.0.0.1"), flags=RTNH_F_DEAD | RTNH_F_LINKDOWN)
    host.add("0.0.0.0/0", dead, ways[1])
    assert host.way("8.8.8.8") == (ETH1, "10.0.1.1")
    assert host.routes("0.0.0.0/0")[0].nexthops == ways  # the flags are no part of the route
    host.remove("0.0.0.0/0", *ways)
    host.add("0.0.0.0/0", *ways)
    assert len(host.lookup("8.8.8.8").hops) == 2


def test_what_is_shown_dead_for_want_of_carrier_lives_again_with_it(host: Host) -> None:
    host.cache.apply_switches(NetconfMessage(AF_INET, ETH0, ignore_routes_with_linkdown=1), gone=False)
    host.link(ETH0, UP)
    host.add("0.0.0.0/0", NextHop(ETH0, ip_address("10.0.0.1"), flags=RTNH_F_DEAD | RTNH_F_LINKDOWN), hop(ETH1))
    assert len(host.lookup("8.8.8.8").hops) == 1
    host.link(ETH0, UP | CARRIER)
    assert len(host.lookup("8.8.8.8").hops) == 2


@pytest.mark.parametrize("how", ["deleted", "replaced", "its other link removed"])
def test_of_a_route_that_went_it_is_forgotten_which_of_its_ways_were_dead(host: Host, how: str) -> None:
    dead = NextHop(ETH0, ip_address("10.0.0.1"), flags=RTNH_F_DEAD | RTNH_F_LINKDOWN)
    host.add("192.0.2.0/24", dead, hop(ETH1, "10.0.1.1"))
    match how:
        case "deleted":
            host.remove("192.0.2.0/24", hop(ETH0, "10.0.0.1"), hop(ETH1, "10.0.1.1"))
        case "replaced":
            host.add("192.0.2.0/24", hop(ETH2), flags=NLM_F_REPLACE)
        case _:
            host.remove_link(ETH1)
    assert not host.cache.state.dead_ways
    # It comes back on a link without carrier, with flags that do not tell whether the way is dead for more than that.
    host.link(ETH1, UP | CARRIER)
    host.cache.apply_switches(NetconfMessage(AF_INET, ETH0, ignore_routes_with_linkdown=1), gone=False)
    host.link(ETH0, UP)
    host.add("192.0.2.0/24", dead, hop(ETH1, "10.0.1.1"), flags=NLM_F_REPLACE)
    host.link(ETH0, UP | CARRIER)
    assert len(host.lookup("192.0.2.1").hops) == 2


def test_which_ways_are_dead_is_known_as_long_as_any_route_is_like_that(host: Host) -> None:
    dead = NextHop(ETH0, ip_address("10.0.0.1"), flags=RTNH_F_DEAD)
    for prefix in ("192.0.2.0/24", "198.51.100.0/24"):
        host.add(prefix, dead, hop(ETH1, "10.0.1.1"))
    host.remove("192.0.2.0/24", hop(ETH0, "10.0.0.1"), hop(ETH1, "10.0.1.1"))
    assert host.way("198.51.100.1") == (ETH1, "10.0.1.1")
    host.remove("198.51.100.0/24", hop(ETH0, "10.0.0.1"), hop(ETH1, "10.0.1.1"))
    assert not host.cache.state.dead_ways


def test_a_route_of_one_way_leaves_no_dead_way_behind(host: Host) -> None:
    host.add("192.0.2.0/24", NextHop(ETH0, ip_address("10.0.0.1"), flags=RTNH_F_DEAD))
    assert host.cache.state.dead_ways
    host.remove("192.0.2.0/24", hop(ETH0, "10.0.0.1"))
    assert not host.cache.state.dead_ways


@pytest.mark.parametrize("flags", [0, UP], ids=["down", "no carrier"])
def test_nexthop_objects_go_with_their_links_carrier(host: Host, flags: int) -> None:
    host.cache.apply_nexthop(NexthopMessage(1, AF_INET, ifindex=ETH0), gone=False)
    host.cache.apply_nexthop(NexthopMessage(2, AF_INET, ifindex=ETH1), gone=False)
    host.cache.apply_nexthop(NexthopMessage(3, group=((1, 1), (2, 1))), gone=False)
    host.add("192.0.2.0/24", nexthop_id=1)
    host.add("0.0.0.0/0", nexthop_id=3)
    taken(host)
    host.link(ETH0, flags)
    batch = taken(host)
    assert batch.everything and len(batch.routes) == 1
    assert host.way("192.0.2.1") == host.way("8.8.8.8") == (ETH1, None)
    assert set(host.cache.state.nexthops) == {2, 3}


def test_refreshed_lifetimes_flags_that_do_not_count_and_known_routes_are_no_change(host: Host) -> None:
    host.add("0.0.0.0/0", hop(ETH0, "10.0.0.1"))
    taken(host)
    host.address(ETH0, "10.0.0.5/24")
    host.link(ETH0, UP | CARRIER)
    host.add("0.0.0.0/0", NextHop(ETH0, ip_address("10.0.0.1"), flags=RTNH_F_LINKDOWN))
    host.remove("198.51.100.0/24", hop(ETH0))
    host.cache.apply_switches(NetconfMessage(AF_INET, ETH0, forwarding=1), gone=False)
    before = host.cache.generation
    assert not taken(host) and host.cache.generation == before


def test_only_a_neighbours_failure_and_its_end_are_changes(host: Host) -> None:
    address = ip_address("10.0.0.1")
    for state, failed in ((NUD_REACHABLE, False), (NUD_FAILED, True), (NUD_FAILED, True), (NUD_REACHABLE, False)):
        host.cache.apply_neighbour(NeighbourMessage(AF_INET, ETH0, address, state), gone=False)
        assert host.cache.neighbour_failed(ETH0, address) is failed
    assert [change.failed for change in taken(host).neighbours] == [True, False]


def test_what_no_message_will_tell_is_suspected(host: Host) -> None:
    host.address(ETH0, "2001:db8::5/64")
    host.add("::/0", hop(ETH1), prefsrc=ip_address("2001:db8::5"))
    assert not host.cache.suspect
    host.address(ETH0, "2001:db8::5/64", gone=True)
    assert host.cache.suspect == {Part.IPV6_ROUTES}


def test_a_group_of_siblings_that_shrinks_is_suspected(host: Host) -> None:
    both(host, "::/0")
    host.remove("::/0", hop(ETH0, "fe80::1"))
    assert host.cache.suspect == {Part.IPV6_ROUTES}


# ---- gateways --------------------------------------------------------------------------------------


def gateways(host: Host) -> list[tuple[int, int, set[str], set[str]]]:
    return [
        (
            change.family,
            change.table,
            {str(way.gateway) for way in change.before},
            {str(way.gateway) for way in change.after},
        )
        for change in taken(host).gateways
    ]


def test_gateway_changes_are_those_of_the_set_first_and_last_included(host: Host) -> None:
    host.add("0.0.0.0/0", hop(ETH0, "10.0.0.1"), priority=10)
    assert gateways(host) == [(AF_INET, 254, set(), {"10.0.0.1"})]
    host.add("0.0.0.0/0", hop(ETH0, "10.0.0.1"), priority=20)  # another metric, the same set
    host.remove("0.0.0.0/0", hop(ETH0, "10.0.0.1"), priority=10)
    assert gateways(host) == []
    host.add("0.0.0.0/0", hop(ETH1, "10.0.1.1"), table=100)
    host.add("8.8.8.0/24", hop(ETH1, "10.0.1.9"))
    assert gateways(host) == [(AF_INET, 100, set(), {"10.0.1.1"})]
    host.add("0.0.0.0/0", hop(ETH1, "10.0.1.1"), priority=30)
    host.remove("0.0.0.0/0", hop(ETH1, "10.0.1.1"), priority=30)
    # There and back within one batch: it may have been another network.
    assert gateways(host) == [(AF_INET, 254, {"10.0.0.1"}, {"10.0.0.1"})]
    host.link(ETH0, 0)
    assert gateways(host) == [(AF_INET, 254, {"10.0.0.1"}, set())]


def test_a_gateway_that_changes_inside_a_nexthop_object_is_a_change(host: Host) -> None:
    host.cache.apply_nexthop(NexthopMessage(1, AF_INET, ifindex=ETH0, gateway=ip_address("10.0.0.1")), gone=False)
    host.add("0.0.0.0/0", nexthop_id=1)
    taken(host)
    host.cache.apply_nexthop(NexthopMessage(1, AF_INET, ifindex=ETH0, gateway=ip_address("10.0.0.2")), gone=False)
    assert gateways(host) == [(AF_INET, 254, {"10.0.0.1"}, {"10.0.0.2"})]
    host.cache.apply_nexthop(NexthopMessage(1), gone=True)
    assert gateways(host) == [(AF_INET, 254, {"10.0.0.2"}, set())]


def test_a_device_default_has_no_gateway(host: Host) -> None:
    host.add("0.0.0.0/0", hop(ETH2))
    assert gateways(host) == []
