"""Waiting until a destination is routable: what is looked at, when, and what is said meanwhile."""

from __future__ import annotations

import socket
from functools import partial

import pytest
import trio
import trio.testing

from tests.connections._world import LOCAL, PEER, V6_PEER, World
from trio_routes.connections._reconnect import wait_routable
from trio_routes.netlink import AF_INET, AF_INET6
from trio_routes.routing import Outcome

NAME = "db.example"

Clock = trio.testing.MockClock


async def test_waiting_for_what_is_routable_is_a_checkpoint(world: World) -> None:
    """R41."""
    with trio.testing.assert_checkpoints():
        path = await wait_routable(world.ground, PEER)
    assert path.outcome is Outcome.ROUTED
    assert path.generation == world.cache.generation


async def test_the_answer_is_true_when_given(world: World) -> None:
    """R41: the route goes while the task has not run yet."""
    world.remove_default()
    answered = trio.Event()
    async with trio.open_nursery() as nursery:

        async def wait() -> None:
            path = await wait_routable(world.ground, PEER)
            assert path.generation == world.cache.generation
            answered.set()

        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        world.add_default()
        world.remove_default()
        await trio.testing.wait_all_tasks_blocked()
        assert not answered.is_set()
        world.add_default()


async def test_a_name_is_resolved_anew_at_each_change_and_every_half_minute(
    world: World, autojump_clock: Clock
) -> None:
    """R41."""
    world.remove_default()
    world.kernel.names[NAME] = [PEER]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait_routable, world.ground, NAME)
        await trio.sleep(1)
        assert len(world.kernel.resolved) == 1
        world.add_default(AF_INET)
        world.remove_default(AF_INET)
        await trio.testing.wait_all_tasks_blocked()
        assert len(world.kernel.resolved) == 2
        await trio.sleep(65)
        assert len(world.kernel.resolved) == 4
        nursery.cancel_scope.cancel()


async def test_a_burst_of_changes_asks_the_resolver_twice_and_misses_nothing(
    world: World, autojump_clock: Clock
) -> None:
    """R41: at once for the first change, and once more for all that came with it."""
    world.kernel.names["db.example"] = [PEER]
    world.remove_default()
    began = trio.current_time()
    async with trio.open_nursery() as nursery:

        async def wait() -> None:
            await wait_routable(world.ground, "db.example")
            nursery.cancel_scope.cancel()

        nursery.start_soon(wait)
        await trio.sleep(10)
        assert len(world.kernel.resolved) == 1
        for _ in range(50):
            world.set_carrier(True)
            world.set_carrier(False)
            world.apply()
            await trio.lowlevel.checkpoint()
            await trio.lowlevel.checkpoint()
        world.set_carrier(True)
        world.add_default()
        await trio.sleep(60)
    assert len(world.kernel.resolved) == 3
    assert trio.current_time() - began == pytest.approx(10.1)


async def test_an_operator_reads_once_what_is_waited_for_and_once_that_it_is_there(
    world: World, autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "trio_routes")
    await wait_routable(world.ground, PEER, source=LOCAL)
    assert caplog.messages == []
    world.remove_default()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(wait_routable, world.ground, PEER, source=LOCAL))
        await trio.sleep(100)
        world.add_default(AF_INET6)  # not his, and waited for on
        await trio.sleep(100)
        assert caplog.messages == ["waiting for a way to 198.51.100.7 from 10.0.0.2"]
        world.add_default(AF_INET)
    [_, there] = caplog.messages
    assert there == "there is a way to 198.51.100.7 from 10.0.0.2: unicast via 10.0.0.1 on link 2"


async def test_any_address_of_a_name_will_do(world: World) -> None:
    """R41."""
    world.remove_default(AF_INET)
    world.kernel.names[NAME] = [PEER, V6_PEER]
    path = await wait_routable(world.ground, NAME)
    assert [hop.gateway for hop in path.hops] == [ip for ip in path.gateways if ip.version == 6]


@pytest.mark.parametrize("with_route", [True, False])
async def test_a_name_that_does_not_exist_is_an_error_where_the_resolver_could_be_asked(
    world: World, autojump_clock: Clock, with_route: bool
) -> None:
    """R41, R40."""
    if not with_route:
        world.remove_default()
    with trio.move_on_after(100) as patience:
        with pytest.raises(socket.gaierror):
            await wait_routable(world.ground, "absent.example")
    assert patience.cancelled_caught is not with_route


async def test_a_resolver_that_does_not_answer_is_asked_again(world: World, autojump_clock: Clock) -> None:
    """R41: as right after a gateway came, before resolv.conf has."""
    world.kernel.names[NAME] = socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait_routable, world.ground, NAME)
        await trio.sleep(1)
        world.kernel.names[NAME] = [PEER]
    assert len(world.kernel.resolved) == 2


async def test_a_link_without_carrier_is_no_way(world: World) -> None:
    """R41: its routes are still there."""
    world.set_carrier(False)
    world.apply()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait_routable, world.ground, PEER)
        await trio.testing.wait_all_tasks_blocked()
        assert nursery.child_tasks
        world.set_carrier(True)
        world.apply()


async def test_ones_own_address_is_reached_without_carrier(world: World) -> None:
    """R41: nothing leaves the host."""
    world.set_carrier(False)
    world.apply()
    with trio.fail_after(1):
        assert (await wait_routable(world.ground, LOCAL)).outcome is Outcome.ROUTED


async def test_a_device_that_is_not_there_is_waited_for(world: World) -> None:
    """R41."""
    with trio.move_on_after(0.05) as patience:
        await wait_routable(world.ground, PEER, device="absent")
    assert patience.cancelled_caught
    assert (await wait_routable(world.ground, PEER, device="uplink")).outcome is Outcome.ROUTED


async def test_unmonitored_it_returns_at_once(world: World) -> None:
    """R41: nobody could tell it when to."""
    world.remove_default()
    world.monitoring = False
    with trio.testing.assert_checkpoints():
        path = await wait_routable(world.ground, "absent.example")
    assert path.route is None
    assert world.kernel.resolved == []


async def test_when_its_pt_closes_the_waiter_is_told(world: World) -> None:
    """R41."""
    world.remove_default()
    with pytest.raises(ExceptionGroup) as caught:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait_routable, world.ground, PEER)
            await trio.testing.wait_all_tasks_blocked()
            world.pulse.close()
    assert caught.group_contains(trio.ClosedResourceError)
