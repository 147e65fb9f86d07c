"""Known limits (docs/kernel.md) that are no class of the fuzz runs: each as it is on the real kernel."""

from __future__ import annotations

import re
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path

import pytest
import trio

from trio_routes import testing
from trio_routes._selfcheck_answers import Answer, Question, exemption
from trio_routes.netlink import IFA_F_TENTATIVE

from ._kernel import Following, ask, following, ip

pytestmark = pytest.mark.netns

EXPIRING = "2001:db8:e::7"


@pytest.fixture
def host(lab: testing.Lab) -> testing.Host:
    host = lab.host("device")
    for at in range(2):
        host.plug(lab.network(f"n{at}"), name=f"d{at}", addresses=[f"2001:db8:{at}::10/64"])
    assert not ip(host, "-6 route add default via 2001:db8:0::1")
    return host


def gateways(it: Following) -> list[str]:
    return [str(gateway) for gateway in it.cache.lookup(ip_address(EXPIRING)).gateways]


async def until(what: Callable[[], bool]) -> None:
    """Wait for what the kernel or the follower tells nobody."""
    with trio.fail_after(10):
        while not what():  # noqa: ASYNC110
            await trio.sleep(0.05)


async def test_an_ipv6_route_whose_lifetime_is_over_answers_until_the_kernel_deletes_it(host: testing.Host) -> None:
    async with following(host) as it:
        assert not ip(host, "-6 route add 2001:db8:e::/48 via 2001:db8:1::1 expires 1")
        await until(lambda: ask(host, EXPIRING) == (0, (host.links["d0"].ifindex, "2001:db8::1")))
        it.follower.apply_pending()
        # The kernel has left it, without a word; nor would there be a word if the lifetime had been refreshed.
        mine = it.cache.lookup(ip_address(EXPIRING))
        assert gateways(it) == ["2001:db8:1::1"] and mine.route is not None and mine.route.body.expires
        # The self-check leaves it alone: to read the tables anew would show the route again.
        kernels = Answer(body=it.cache.lookup(ip_address("2001:db8:d::1")).route.body)  # type: ignore[union-attr]
        assert exemption(Question(ip_address(EXPIRING)), mine, kernels, it.cache) == "a route with a lifetime"
        # What has expired is collected, as it is every 30 s: when any link goes, too (ndisc_netdev_event). The file
        # net/ipv6/route/flush does it as well, but a user namespace's owner is not shown it.
        assert not ip(host, "link add other type veth peer name others")
        assert not ip(host, "link set other up") and not ip(host, "link set other down")
        await until(lambda: gateways(it) == ["2001:db8::1"])


async def test_a_lifetime_that_is_prolonged_without_a_word_costs_no_route(host: testing.Host) -> None:
    route = "2001:db8:e::/48 via 2001:db8:1::1"
    assert not ip(host, f"-6 route add {route} expires 1")
    async with following(host) as it:
        it.batches.clear()
        assert "File exists" in ip(host, f"-6 route append {route} expires 1000")  # and yet it has another lifetime
        left = re.compile("expires 99[0-7]sec")
        with trio.fail_after(10):
            while not left.search(await host.run(["ip", "-6", "route", "show", "2001:db8:e::/48"])):  # noqa: ASYNC110
                await trio.sleep(0.1)
        it.follower.apply_pending()
        assert not it.batches
        assert gateways(it) == ["2001:db8:1::1"]
        assert ask(host, EXPIRING) == (0, (host.links["d1"].ifindex, "2001:db8:1::1"))


async def test_the_group_of_a_link_that_is_down_is_told_when_it_is_up(host: testing.Host) -> None:
    async with following(host) as it:
        ifindex = host.links["d1"].ifindex
        assert not ip(host, "link set d1 down")
        assert not ip(host, "link set d1 group 7")  # netdev_state_change() speaks of links that are up
        it.follower.apply_pending()
        assert it.cache.links[ifindex].group == 0
        assert not ip(host, "link set d1 up")
        await until(lambda: it.cache.links[ifindex].group == 7)


async def test_a_way_that_was_dead_before_it_was_heard_of_counts_as_alive_with_the_carrier(host: testing.Host) -> None:
    def ways(it: Following) -> list[str]:
        return sorted(str(gateway) for gateway in it.cache.lookup(ip_address("192.0.2.7")).gateways)

    host.sysctl("net.ipv4.conf.d1.ignore_routes_with_linkdown", 1)
    for at in range(2):
        assert not ip(host, f"addr add 10.0.{at}.10/24 dev d{at}")
    assert not ip(host, "route add 192.0.2.0/24 nexthop via 10.0.0.1 dev d0 nexthop via 10.0.1.1 dev d1")
    assert not ip(host, "addr del 10.0.1.10/24 dev d1")  # by which the way dies, whatever its link does
    host.links["d1"].carrier(False)
    await host.run(["sh", "-ec", "until ip link show d1 | grep -q NO-CARRIER; do sleep 0.01; done"])
    async with following(host) as it:
        # A dump shows a way that is dead for its own sake like one that is passed over for want of carrier.
        assert ways(it) == ["10.0.0.1"]
        host.links["d1"].carrier(True)
        await until(lambda: it.cache.links[host.links["d1"].ifindex].carrier)
        assert ways(it) == ["10.0.0.1", "10.0.1.1"]
        async with following(host) as fresh:  # the next dump tells
            assert ways(fresh) == ["10.0.0.1"]


async def test_an_ipv6_address_that_its_link_keeps_when_set_down_is_told_tentative_by_a_dump_only(
    host: testing.Host,
) -> None:
    def flags(it: Following) -> int:
        (entry,) = it.cache.state.addresses.of(ip_address("2001:db8:1::77"))
        return entry.flags & IFA_F_TENTATIVE

    host.sysctl("net.ipv6.conf.d1.keep_addr_on_down", 1)
    host.sysctl("net.ipv6.conf.d1.accept_dad", 0)
    assert not ip(host, "-6 addr add 2001:db8:1::77/64 dev d1")
    async with following(host) as it:
        await until(lambda: not flags(it))
        assert not ip(host, "link set d1 down")  # addrconf_ifdown(): it will be examined anew when the link is up
        await until(lambda: not it.cache.links[host.links["d1"].ifindex].up)
        assert not flags(it)
        async with following(host) as fresh:
            assert flags(fresh)


async def test_of_ipv6_routes_that_are_alike_a_way_is_dead_of_all_or_of_none(host: testing.Host) -> None:
    ways = "nexthop via 2001:db8:0::1 dev d0 nexthop via 2001:db8:1::1 dev d1"
    early, late = ip_address("2001:db8:e::7"), ip_address("2001:db8:f::7")
    host.sysctl("net.ipv6.conf.d1.keep_addr_on_down", 1)
    async with following(host) as it:
        assert not ip(host, f"-6 route add 2001:db8:e::/48 {ways}")
        assert not ip(host, "link set d1 down")
        host.links["d1"].carrier(False)
        assert not ip(host, "link set d1 up")
        await until(lambda: it.cache.links[host.links["d1"].ifindex].up)
        it.follower.apply_pending()
        assert len(it.cache.lookup(early).gateways) == 1
        assert not ip(host, f"-6 route add 2001:db8:f::/48 {ways}")  # the same but for the destination, and alive
        await until(lambda: len(it.cache.lookup(late).gateways) == 2)
        assert len(it.cache.lookup(early).gateways) == 2
        assert "dead" in await host.run(["ip", "-6", "route", "show", "2001:db8:e::/48"])
        assert "dead" not in await host.run(["ip", "-6", "route", "show", "2001:db8:f::/48"])


async def test_ipv6_switched_off_without_a_word_on_a_link_without_an_address_is_found_by_a_dump_only(
    host: testing.Host,
) -> None:
    with host.entered():  # the owner of a user namespace is not shown the switch
        silent = Path("/proc/sys/net/ipv6/route/skip_notify_on_dev_down").exists()
    if silent:
        host.sysctl("net.ipv6.route.skip_notify_on_dev_down", 1)
    assert not ip(host, "-6 addr flush dev d1")
    assert not ip(host, "-6 route add 2001:db8:e::/48 dev d1")
    async with following(host) as it:
        host.sysctl("net.ipv6.conf.d1.disable_ipv6", 1)
        assert not ip(host, "route add 192.0.2.0/24 dev d0")  # said after all that there was to say
        await until(lambda: it.cache.lookup(ip_address("192.0.2.1")).route is not None)
        if not silent:
            await until(lambda: gateways(it) == ["2001:db8::1"])
            return
        way = it.cache.lookup(ip_address(EXPIRING))
        assert [hop.ifindex for hop in way.hops] == [host.links["d1"].ifindex]
        async with following(host) as fresh:
            assert gateways(fresh) == ["2001:db8::1"]
