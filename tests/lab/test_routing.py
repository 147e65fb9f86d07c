"""Routes and rules: what ip(8) says of what the lab made."""

from __future__ import annotations

import errno

import pytest
import trio

from trio_routes import testing
from trio_routes._errors import KernelRefusedError
from trio_routes.testing import Hop


@pytest.fixture
async def host(lab: testing.Lab) -> testing.Host:
    host = lab.host("device")
    host.plug(lab.network("wifi"), name="wlan0", addresses=["10.0.1.2/24", "2001:db8:1::2/64"])
    host.plug(lab.network("lte"), name="wwan0", addresses=["10.0.2.2/24", "2001:db8:2::2/64"])
    await trio.lowlevel.checkpoint()
    return host


async def routes(host: testing.Host, family: int, *filters: str) -> list[str]:
    listed = await host.run(["ip", "-details", f"-{family}", "route", "show", *filters])
    return [" ".join(line.split()) for line in listed.splitlines()]


async def test_a_default_route_is_added_replaced_and_deleted(host: testing.Host, family: int) -> None:
    first, second = {4: ("10.0.1.1", "10.0.1.9"), 6: ("2001:db8:1::1", "2001:db8:1::9")}[family]
    host.add_route("default", via=first, device="wlan0", metric=100)
    (line,) = await routes(host, family, "default")
    assert f"default via {first} dev wlan0" in line and "metric 100" in line and "proto static" in line
    host.replace_route("default", via=second, device=host.links["wlan0"], metric=100)
    (line,) = await routes(host, family, "default")
    assert f"via {second} " in line
    host.delete_route("default", via=second)
    assert await routes(host, family, "default") == []
    with pytest.raises(KernelRefusedError, match="route") as caught:
        host.delete_route("default", via=second)
    assert caught.value.errno == errno.ESRCH


async def test_options_reach_the_kernel(host: testing.Host) -> None:
    host.add_route("192.0.2.0/24", via="10.0.1.1", table=1000, source="10.0.2.2", protocol=16, metric=7)
    (line,) = await routes(host, 4, "table", "1000")
    assert "192.0.2.0/24 via 10.0.1.1 dev wlan0" in line
    assert "proto dhcp" in line and "src 10.0.2.2" in line and "metric 7" in line


@pytest.mark.parametrize("kind", ["blackhole", "unreachable", "prohibit", "throw"])
async def test_routes_that_answer(host: testing.Host, family: int, kind: testing.RouteType) -> None:
    prefix = {4: "192.0.2.0/24", 6: "2001:db8:ff::/48"}[family]
    host.add_route(prefix, type=kind)
    assert any(line.startswith(f"{kind} {prefix}") for line in await routes(host, family))
    host.delete_route(prefix, type=kind)
    assert not any(prefix in line for line in await routes(host, family))


async def test_a_multipath_route(host: testing.Host, family: int) -> None:
    prefix, one, two = {
        4: ("192.0.2.0/24", "10.0.1.1", "10.0.2.1"),
        6: ("2001:db8:ff::/48", "2001:db8:1::1", "2001:db8:2::1"),
    }[family]
    host.add_route(prefix, nexthops=[Hop(via=one, device="wlan0"), Hop(via=two, weight=5)])
    listed = " ".join(await routes(host, family, prefix))
    assert f"nexthop via {one} dev wlan0 weight 1" in listed
    assert f"nexthop via {two} dev wwan0 weight 5" in listed


async def test_an_ipv4_route_by_an_ipv6_gateway(host: testing.Host) -> None:
    host.add_route("192.0.2.0/24", via="2001:db8:1::1", device="wlan0")
    assert "via inet6 2001:db8:1::1 dev wlan0" in " ".join(await routes(host, 4, "192.0.2.0/24"))


async def test_an_on_link_route_has_link_scope(host: testing.Host) -> None:
    host.add_route("192.0.2.0/24", device="wwan0")
    assert "dev wwan0 proto static scope link" in " ".join(await routes(host, 4, "192.0.2.0/24"))


async def test_rules_are_added_and_deleted(host: testing.Host, family: int) -> None:
    prefix = {4: "10.0.1.0/24", 6: "2001:db8:1::/64"}[family]
    host.add_rule(50, source=prefix, table=1000, mark=0x80000001)
    host.add_rule(51, incoming="wlan0", action="blackhole", family=6 if family == 6 else 4)
    listed = await host.run(["ip", f"-{family}", "rule"])
    assert f"50:\tfrom {prefix} fwmark 0x80000001 lookup 1000" in listed
    assert "51:\tfrom all iif wlan0 blackhole" in listed
    host.delete_rule(50, source=prefix, table=1000, mark=0x80000001)
    host.delete_rule(51, incoming="wlan0", action="blackhole", family=6 if family == 6 else 4)
    assert len((await host.run(["ip", f"-{family}", "rule"])).splitlines()) == {4: 3, 6: 2}[family]
    with pytest.raises(KernelRefusedError) as caught:
        host.delete_rule(50, source=prefix, table=1000, mark=0x80000001)
    assert caught.value.errno == errno.ENOENT


async def test_what_cannot_be_is_refused_before_the_kernel_is_asked(host: testing.Host) -> None:
    with pytest.raises(ValueError, match="family=4 or family=6"):
        host.add_route("default", device="wlan0")
    with pytest.raises(ValueError, match="family=4 or family=6"):
        host.add_rule(10, incoming="wlan0")
    with pytest.raises(ValueError, match=r"'10\.0\.1' is not an IPv4 or IPv6 address"):
        host.add_route("default", via="10.0.1")
    with pytest.raises(ValueError, match="host bits"):
        host.add_route("10.0.5.1/24", via="10.0.1.1")
    with pytest.raises(ValueError, match="nexthops"):
        host.add_route("default", via="10.0.1.1", nexthops=[Hop(via="10.0.1.1")])
    with pytest.raises(ValueError, match="has no table"):
        host.add_rule(10, table=5, action="prohibit", family=4)
    with pytest.raises(OSError, match="there is no link 'eth9'"):
        host.add_route("default", via="10.0.1.1", device="eth9")
    with pytest.raises(ValueError, match="weight"):
        Hop(weight=0)


async def test_a_gateway_on_no_link_is_the_kernels_refusal(host: testing.Host) -> None:
    with pytest.raises(KernelRefusedError) as caught:
        host.add_route("default", via="10.9.9.9")
    assert caught.value.errno == errno.ENETUNREACH


async def test_another_thread_cannot_change_the_wrong_namespace(host: testing.Host) -> None:
    # pyroute2 would open a second socket where that thread is: as root, in the machine's own network.
    def add() -> None:
        host.add_route("203.0.113.0/24", via="10.0.1.1")

    with pytest.raises(RuntimeError, match=r"route .* than that which opened the lab"):
        await trio.to_thread.run_sync(add)
    assert not any("203.0.113.0" in line for line in await routes(host, 4, "table", "all"))
    at_home = await trio.run_process(["ip", "route", "show", "table", "all"], capture_stdout=True)
    assert b"203.0.113.0" not in at_home.stdout
