"""What must not close anything: unrelated changes, refreshes, containers, and clients that take all away and put it back."""

from __future__ import annotations

import math

import pytest
import trio

from tests.kernel._world import SOON, World, next_of, no_more, open_world
from trio_routes import (
    AddressAdded,
    AddressRemoved,
    ConnectionLost,
    ConnectionRecovered,
    ConnectionSuspect,
    LinkUp,
    Policy,
    RouteAdded,
    Standing,
    Verdict,
)
from trio_routes.testing import Lab

pytestmark = pytest.mark.netns

_UNRELATED = {4: "10.99.0.0/16", 6: "2001:db8:99::/48"}


async def test_an_unrelated_route_that_comes_and_goes_closes_nothing_and_nobody_is_looked_at(
    lab: Lab, family: int
) -> None:
    async with open_world(lab, family, lte_metric=600) as world:
        await world.add_healthy()
        pair = await world.connect()
        judged = world.pt.connections.statistics().judged
        world.device.add_route(_UNRELATED[family], via=world.lte)
        world.device.replace_route(_UNRELATED[family], via=world.wifi)
        world.device.delete_route(_UNRELATED[family])
        await world.the_healthy_live(pair, lost=0)
        assert world.pt.connections.statistics().judged == judged


async def test_a_default_route_that_is_no_better_closes_nothing(lab: Lab, family: int) -> None:
    async with open_world(lab, family) as world:
        await world.add_healthy()
        pair = await world.connect()
        world.device.add_route("default", via=world.lte, metric=600)
        world.device.delete_route("default", via=world.lte, metric=600)
        await world.the_healthy_live(pair, lost=0)
        assert world.pt.connections.statistics().suspected == 0


async def test_loopback_and_on_link_connections_do_not_depend_on_any_default_route(lab: Lab, family: int) -> None:
    async with open_world(lab, family) as world:
        await world.add_healthy(far=False)
        world.device.delete_route("default", via=world.wifi)
        await world.the_healthy_live(lost=0)
        world.net.wlan0.delete()
        await world.the_healthy_live(lost=0)
        assert world.pt.connections.statistics().suspected == 0


async def test_the_first_snapshot_is_no_change(lab: Lab, family: int) -> None:
    async with open_world(lab, family) as world:
        with world.pt.subscribe() as events:
            world.device.add_route(_UNRELATED[family], via=world.lte)
            with trio.fail_after(SOON):
                first = await events.receive()
        assert isinstance(first, RouteAdded) and str(first.route.destination) == _UNRELATED[family]


async def test_a_change_that_does_not_matter_becomes_the_new_baseline(lab: Lab, family: int) -> None:
    # Another metric and protocol, the same way: then the first of the two routes can go without anybody's noticing.
    async with open_world(lab, family) as world:
        await world.add_healthy()
        pair = await world.connect()
        world.device.add_route("default", via=world.wifi, metric=50, protocol=16)
        await world.the_healthy_live(pair, lost=0)
        now = pair.near.connection.before.route
        assert now is not None and now.metric == 50
        world.device.delete_route("default", via=world.wifi, metric=100)
        await world.the_healthy_live(pair, lost=0)
        assert world.pt.connections.statistics().suspected == 0
        world.device.delete_route("default", via=world.wifi, metric=50)
        assert (await pair.lost()).verdict is Verdict.NO_ROUTE
        await world.the_healthy_live(lost=1)


async def test_hundreds_of_container_links_wake_no_connection(lab: Lab, family: int) -> None:
    bridge = {4: "172.17.0.1/16", 6: "fd00:17::1/64"}[family]
    containers = 40
    async with open_world(lab, family) as world:
        await world.add_healthy()
        pair = await world.connect()
        before = world.pt.connections.statistics()
        heard = world.pt.statistics().datagrams
        commands = ["link add docker0 type bridge", f"addr add {bridge} dev docker0", "link set docker0 up"]
        for number in range(containers):
            name = f"veth{number}"
            commands += [
                f"link add {name} type veth peer name inside{number}",
                f"link set {name} master docker0 group 17",
                f"link set {name} up",
                f"link set inside{number} up",
            ]
        commands += ["link set group 17 down", "link del group 17", "link del docker0"]
        with trio.fail_after(20):
            await world.device.run(["ip", "-batch", "-"], stdin="\n".join(commands).encode())
        await world.the_healthy_live(pair, lost=0)
        assert world.pt.statistics().datagrams - heard > 10 * containers  # they were told of, all
        after = world.pt.connections.statistics()
        assert after.judged == before.judged
        assert after.suspected == 0


async def set_lifetimes(world: World, *, valid: int, preferred: int) -> None:
    """Say anew for how many seconds the Wi-Fi's address is good, as DHCP and router advertisements do."""
    address = str(world.net.wlan0.addresses[world.family == 6])
    lifetimes = ["valid_lft", str(valid), "preferred_lft", str(preferred)]
    await world.device.run(["ip", "addr", "change", address, "dev", "wlan0", *lifetimes])


async def test_a_refreshed_lifetime_is_no_change(lab: Lab, family: int) -> None:
    async with open_world(lab, family) as world:
        await world.add_healthy()
        pair = await world.connect()
        await set_lifetimes(world, valid=3600, preferred=1800)  # from now on it is not permanent, which is another flag
        await world.the_healthy_live(pair, lost=0)
        heard, judged = world.pt.statistics().datagrams, world.pt.connections.statistics().judged
        with world.pt.subscribe(AddressAdded, AddressRemoved) as events:
            for seconds in (7200, 3600):
                await set_lifetimes(world, valid=seconds, preferred=seconds // 2)
            await world.the_healthy_live(pair, lost=0)
            assert world.pt.statistics().datagrams >= heard + 3  # the refreshes were told of
            statistics = world.pt.connections.statistics()
            assert (statistics.judged, statistics.suspected) == (judged, 0)
            await no_more(events)


async def test_a_deprecated_address_works_until_it_is_deleted(lab: Lab) -> None:
    async with open_world(lab, 6) as world:
        await world.add_healthy()
        pair = await world.connect()
        await set_lifetimes(world, valid=3600, preferred=0)
        await world.the_healthy_live(pair, lost=0)
        (address,) = [item for item in world.pt.routes.addresses if item.address == pair.near.connection.flow.local]
        assert address.flags & 0x20  # IFA_F_DEPRECATED
        assert world.pt.connections.statistics().suspected == 0
        world.net.wlan0.delete_address(world.net.wlan0.addresses[1])
        assert (await pair.lost()).verdict is Verdict.SOURCE_GONE
        await world.the_healthy_live(lost=1)


async def away_and_back(world: World, seconds: float) -> None:
    """Take the Wi-Fi's address away, with all that depends on it, and put it back: as DHCP clients renew.

    The order is NetworkManager's, of a recorded `nmcli device reapply`.
    """
    device, wlan0 = world.device, world.net.wlan0
    interface = wlan0.addresses[world.family == 6]
    if world.family == 6:
        device.delete_route("default", via=world.wifi)
    wlan0.delete_address(interface)
    await trio.sleep(seconds)
    if world.family == 6:
        # The multicast route of the link is deleted and added, too.
        await device.run(["ip", "-6", "route", "del", "table", "local", "multicast", "ff00::/8", "dev", "wlan0"])
        await device.run(["ip", "-6", "route", "add", "table", "local", "multicast", "ff00::/8", "dev", "wlan0"])
    wlan0.add_address(interface)
    device.add_route("default", via=world.wifi, metric=100)


async def test_an_address_and_its_routes_that_are_back_within_30_milliseconds_close_nothing(
    lab: Lab, family: int
) -> None:
    async with open_world(lab, family, Policy()) as world:
        await world.add_healthy()
        pairs = [await world.connect() for _ in range(3)]
        with world.pt.subscribe(ConnectionSuspect, ConnectionRecovered, ConnectionLost) as events:
            await away_and_back(world, 0.027)
            suspects = [await next_of(events, ConnectionSuspect) for _ in pairs]
            recovered = [await next_of(events, ConnectionRecovered) for _ in pairs]
        # Suspect at once, so that a pool can set them aside; good again as soon as they are.
        assert {event.connection for event in suspects} == {pair.near.connection for pair in pairs}
        assert {event.verdict for event in suspects} == {Verdict.SOURCE_GONE}
        assert {event.connection for event in recovered} == {pair.near.connection for pair in pairs}
        await world.the_healthy_live(*pairs, lost=0)
        # No deadline is left that could close one later.
        assert {pair.near.connection.deadline for pair in pairs} == {math.inf}


async def test_the_same_closes_all_under_the_immediate_policy(lab: Lab, family: int) -> None:
    async with open_world(lab, family) as world:
        await world.add_healthy()
        pair = await world.connect()
        await away_and_back(world, 0.027)
        error = await pair.lost()
        assert error.verdict is Verdict.SOURCE_GONE
        again = await world.connect()
        await world.the_healthy_live(again, lost=1)


async def test_a_link_that_only_flaps_its_route_is_judged_by_how_things_are_and_not_by_what_happened(
    lab: Lab, family: int
) -> None:
    # Away and back in one batch, before the pt looks: not even the immediate policy has a reason.
    async with open_world(lab, family) as world:
        await world.add_healthy()
        pair = await world.connect()
        with world.pt.subscribe(LinkUp, RouteAdded) as events:
            world.device.delete_route("default", via=world.wifi)  # no checkpoint between
            world.device.add_route("default", via=world.wifi, metric=100)
            await next_of(events, RouteAdded)
        await world.the_healthy_live(pair, lost=0)
        assert pair.standing is Standing.GOOD
