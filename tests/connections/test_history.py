"""`pt.connections.history`: of each ending what was, what is, what happened, and what the far side said."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from tests.connections._watch import FAR, Watch, register
from tests.connections._world import OTHER_PEER, UPLINK, World
from tests.connections.network import C2
from trio_routes.connections import Connection, Connections, Loss, Policy, Verdict
from trio_routes.netlink import AF_INET, LinkMessage
from trio_routes.routing import Outcome


@pytest.fixture
async def watch(nursery: trio.Nursery) -> Watch:
    watch = Watch(4)
    await nursery.start(watch.reassessor.run)
    return watch


def last(watch: Watch) -> Loss:
    loss = watch.registry.history[-1].loss
    assert loss is not None
    return loss


async def test_the_kernels_message_the_path_before_and_after_and_when(watch: Watch, autojump_clock: MockClock) -> None:
    connection = watch.register()
    began, path = trio.current_time(), connection.now
    watch.route_goes()
    await watch.change()
    await trio.sleep(2)
    assert watch.registry.history == (connection,)
    loss = last(watch)
    assert (loss.verdict, loss.cause, loss.evidence) == (Verdict.NO_ROUTE, "RTM_DELROUTE", "")
    assert loss.before == path
    assert loss.after.outcome is Outcome.NO_ROUTE
    assert loss.generation == watch.network.generation
    assert loss.time == began + 1.0


async def test_where_the_kernel_is_silent_the_derived_cause(world: World, autojump_clock: MockClock) -> None:
    """The routes of a link that is set down go without a message; it is the link that is said to be the cause."""
    stream, _ = world.stream(OTHER_PEER)
    connection = world.registry.register(stream)
    world.cache.apply_link(LinkMessage(UPLINK, "uplink", 0), gone=False)
    world.apply()
    await trio.sleep(7)
    (ended,) = Connections(world.registry, world.cache).history
    assert ended is connection
    loss = ended.loss
    assert loss is not None
    assert (loss.verdict, loss.cause) == (Verdict.NO_ROUTE, "link uplink was set down")
    assert loss.generation == world.cache.generation


async def test_the_cause_is_that_of_the_verdict_that_ended_it(watch: Watch, autojump_clock: MockClock) -> None:
    watch.register(watch.site.flow(peer=FAR))
    watch.gateway_moves()
    await watch.change()
    await trio.sleep(0.5)
    watch.network.delete_address(watch.site.s1, 2)
    await watch.change()
    await trio.sleep(2)
    loss = last(watch)
    assert (loss.verdict, loss.cause) == (Verdict.SOURCE_GONE, "RTM_DELADDR")


async def test_silence_when_it_was_asked(watch: Watch, autojump_clock: MockClock) -> None:
    register(watch, "silence")
    watch.gateway_moves()
    await watch.change()
    await trio.sleep(6)
    loss = last(watch)
    assert (loss.verdict, loss.cause) == (Verdict.GATEWAY_CHANGED, "RTM_NEWROUTE")
    assert loss.evidence == "no answer when it was asked"
    assert [str(gateway) for gateway in loss.after.gateways] == [watch.site.gw1b]


async def test_a_reset_when_it_was_asked(watch: Watch, autojump_clock: MockClock) -> None:
    register(watch, "reset")
    watch.network.add_route(watch.site.default, via=watch.site.gw2, dev=C2, metric=50)
    await watch.change()
    await trio.sleep(6)
    loss = last(watch)
    assert loss.verdict is Verdict.EGRESS_CHANGED
    assert loss.evidence.startswith("reset within ")
    assert loss.evidence.endswith(" of being asked by keepalive")


async def test_the_applications_own_probe_that_said_no(watch: Watch, autojump_clock: MockClock) -> None:
    async def no(connection: Connection) -> bool:
        await trio.lowlevel.checkpoint()
        return False

    watch.register(probe=no)
    watch.gateway_moves()
    await watch.change()
    await trio.sleep(2)
    assert last(watch).evidence == "its probe said no"


async def test_a_long_sleep(watch: Watch, autojump_clock: MockClock) -> None:
    register(watch, "silence")
    watch.reassessor.woke(3600)
    await trio.sleep(30)
    loss = last(watch)
    assert (loss.verdict, loss.cause) == (Verdict.EGRESS_CHANGED, "the machine slept for 3600 s")
    assert loss.before == loss.after


async def test_the_last_256_endings_are_remembered_in_their_order(watch: Watch, autojump_clock: MockClock) -> None:
    connections = [watch.register(policy=Policy.immediate()) for _ in range(300)]
    watch.route_goes()
    await watch.change()
    history = watch.registry.history
    assert len(history) == 256
    assert set(history) < set(connections)
    watch.route_returns()
    await watch.change()
    latest = watch.register(policy=Policy.immediate())
    watch.route_goes()
    await watch.change()
    assert watch.registry.history == (*history[1:], latest)


async def test_who_left_or_recovered_is_not_in_it(watch: Watch, autojump_clock: MockClock) -> None:
    stays, leaves = watch.register(), watch.register()
    watch.route_goes()
    await watch.change()
    watch.registry.release(leaves)
    watch.route_returns()
    await watch.change()
    await trio.sleep(5)
    assert watch.registry.history == ()
    assert stays.loss is None


async def test_an_ended_connection_says_it_all_in_one_line(world: World, autojump_clock: MockClock) -> None:
    stream, _ = world.stream(OTHER_PEER)
    connection = world.registry.register(stream, label="feed")
    world.remove_default(AF_INET)
    await trio.sleep(2)
    assert connection.sentence() == (
        "tcp 10.0.0.2:40000 -> 203.0.113.9:5432 (feed): no route, before: unicast via 10.0.0.1 on link 2 (RTM_DELROUTE)"
    )
