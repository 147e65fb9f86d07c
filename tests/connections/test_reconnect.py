"""Staying connected: what is a reason to go round again, when, and what is not."""

from __future__ import annotations

import errno
import math
import socket
import ssl
from collections.abc import Awaitable, Callable
from functools import partial

import pytest
import trio
import trio.testing
from hypothesis import given, strategies as st

from tests.connections._world import LOCAL, OTHER_PEER, PEER, World, accepts
from trio_routes._errors import RouteLostError
from trio_routes.connections._budget import Budget
from trio_routes.connections._guard import guard
from trio_routes.connections._reconnect import Backoff, keep_connected
from trio_routes.connections._stream import GuardedStream, guard_stream
from trio_routes.netlink import AF_INET, AF_INET6
from trio_routes.testing._fake_stream import FakeStream

NAME = "db.example"
STEADY = Backoff(first=1.0, factor=2.0, limit=10.0, jitter=0.0)

Clock = trio.testing.MockClock


async def resets(stream: FakeStream) -> None:
    """A listener whose connections are reset as soon as they are there."""
    stream.abort()


async def test_what_the_handler_returns_is_returned_and_its_stream_closed(world: World) -> None:
    """R38, R1."""
    world.kernel.listeners[PEER] = accepts
    streams: list[GuardedStream] = []

    async def handler(stream: GuardedStream) -> str:
        streams.append(stream)
        return "done"

    assert await keep_connected(world.ground, handler, PEER, 5432) == "done"
    with pytest.raises(trio.ClosedResourceError):
        await streams[0].receive_some()
    assert list(world.registry) == []


async def test_it_waits_until_there_is_a_route(world: World, autojump_clock: Clock) -> None:
    """R38."""
    world.kernel.listeners[PEER] = accepts
    world.remove_default()
    async with trio.open_nursery() as nursery:

        async def connect() -> None:
            assert await keep_connected(world.ground, hello, PEER, 5432) == b"hello"

        async def hello(stream: GuardedStream) -> bytes:
            return b"hello"

        nursery.start_soon(connect)
        await trio.sleep(100)
        assert world.kernel.attempts == []
        world.add_default()
        back = trio.current_time()
    assert [when for when, _ in world.kernel.attempts] == [back]


async def test_cancelling_it_cancels_the_handler(world: World) -> None:
    """R38: it starts no task; the stream is closed."""
    world.kernel.listeners[PEER] = accepts
    with trio.CancelScope() as scope:

        async def handler(stream: GuardedStream) -> None:
            scope.cancel()
            await trio.sleep_forever()

        await keep_connected(world.ground, handler, PEER, 5432)
    assert scope.cancelled_caught
    assert list(world.registry) == []


async def test_after_a_loss_it_connects_as_soon_as_the_route_is_back(world: World, autojump_clock: Clock) -> None:
    """R40: not after a back-off."""
    world.kernel.listeners[PEER] = accepts
    slow = Backoff(first=1000.0, limit=1000.0, jitter=0.0)
    connected: list[float] = []

    async def handler(stream: GuardedStream) -> str:
        connected.append(trio.current_time())
        if len(connected) < 3:
            await stream.receive_some()
        return "done"

    async with trio.open_nursery() as nursery:

        async def run() -> None:
            assert await keep_connected(world.ground, handler, PEER, 5432, backoff=slow) == "done"

        nursery.start_soon(run)
        returns: list[float] = []
        for _ in range(2):
            await trio.sleep(10)
            world.remove_default()
            await trio.sleep(2)
            world.add_default()
            returns.append(trio.current_time())
    assert connected[1:] == returns


def own_break(world: World, stream: GuardedStream) -> Awaitable[object]:
    return stream.receive_some()


async def own_loss(world: World, stream: GuardedStream) -> None:
    world.lose(stream.connection)
    await stream.receive_some()


async def own_break_under_a_librarys_error(world: World, stream: GuardedStream) -> None:
    try:
        await stream.receive_some()
    except trio.BrokenResourceError as error:
        raise RuntimeError("a library's own error") from error


async def own_break_in_a_group(world: World, stream: GuardedStream) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(own_break_under_a_librarys_error, world, stream)
        with trio.CancelScope(shield=True):
            await stream.send_all(b"x")


async def loss_out_of_a_guard(world: World, stream: GuardedStream) -> None:
    with guard(world.ground, stream) as connection:
        world.lose(connection)
        await trio.sleep_forever()


async def afterword_of_tls(world: World, stream: GuardedStream) -> None:
    tls = trio.SSLStream(stream, ssl.create_default_context(), server_hostname=NAME)
    world.lose(stream.connection)
    with pytest.raises(RouteLostError):
        await tls.send_all(b"more")
    await tls.send_all(b"goodbye")  # a plain BrokenResourceError


@pytest.mark.parametrize(
    "ending",
    [
        own_break,
        own_loss,
        own_break_under_a_librarys_error,
        own_break_in_a_group,
        loss_out_of_a_guard,
        afterword_of_tls,
    ],
)
async def test_it_goes_round_again_for_errors_out_of_its_own_stream(
    world: World, autojump_clock: Clock, ending: Callable[[World, GuardedStream], Awaitable[object]]
) -> None:
    """R39: found directly, in a cause chain, in every leaf of a group; and raised by a guard of it."""
    lost_here = ending in (own_loss, loss_out_of_a_guard, afterword_of_tls)
    world.kernel.listeners[PEER] = accepts if lost_here else resets
    tries = 0

    async def handler(stream: GuardedStream) -> str:
        nonlocal tries
        tries += 1
        if tries < 3:
            await ending(world, stream)
            raise AssertionError("the stream did not end")
        return "done"

    assert await keep_connected(world.ground, handler, PEER, 5432) == "done"
    assert tries == 3
    assert list(world.registry) == []


async def value_error(world: World, stream: GuardedStream) -> None:
    raise ValueError("the handler's")


async def file_not_found(world: World, stream: GuardedStream) -> None:
    raise FileNotFoundError(errno.ENOENT, "the handler's")


async def broken_resource_of_its_own(world: World, stream: GuardedStream) -> None:
    raise trio.BrokenResourceError("the handler's")


async def loss_of_another(world: World, stream: GuardedStream) -> None:
    other = guard_stream(world.ground, world.stream(OTHER_PEER)[0])
    world.lose(other.connection)
    await other.receive_some()


async def break_of_another(world: World, stream: GuardedStream) -> None:
    ours, theirs = world.stream(OTHER_PEER)
    theirs.abort()
    await guard_stream(world.ground, ours).receive_some()


async def bug_beside_its_own_break(world: World, stream: GuardedStream) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(value_error, world, stream)
        with trio.CancelScope(shield=True):
            await stream.receive_some()


@pytest.mark.parametrize(
    ("ending", "kind"),
    [
        (value_error, ValueError),
        (file_not_found, FileNotFoundError),
        (broken_resource_of_its_own, trio.BrokenResourceError),
        (loss_of_another, RouteLostError),
        (break_of_another, trio.BrokenResourceError),
        (bug_beside_its_own_break, ExceptionGroup),
    ],
)
async def test_everything_else_propagates(
    world: World, ending: Callable[[World, GuardedStream], Awaitable[object]], kind: type[Exception]
) -> None:
    """R39."""
    world.kernel.listeners[PEER] = resets
    with pytest.raises(kind):
        await keep_connected(world.ground, partial(ending, world), PEER, 5432)
    assert len(world.kernel.attempts) == 1


async def test_errors_that_the_caller_names_are_retried(world: World, autojump_clock: Clock) -> None:
    """R39: bare or in a group with its own."""
    world.kernel.listeners[PEER] = resets
    endings = [value_error, bug_beside_its_own_break]

    async def handler(stream: GuardedStream) -> str:
        if endings:
            await endings.pop()(world, stream)
        return "done"

    assert await keep_connected(world.ground, handler, PEER, 5432, retry_on=(ValueError,)) == "done"


async def test_a_cancellation_wins_over_a_loss_beside_it(world: World) -> None:
    """R38: it does not connect again, and no error comes out of the cancelled scope."""
    world.kernel.listeners[PEER] = accepts

    async def handler(stream: GuardedStream) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(shielded, stream)
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()
            world.lose(stream.connection)
            await trio.sleep_forever()

    async def shielded(stream: GuardedStream) -> None:
        with trio.CancelScope(shield=True):
            await stream.receive_some()

    with trio.CancelScope() as scope:
        await keep_connected(world.ground, handler, PEER, 5432)
    assert scope.cancelled_caught
    assert len(world.kernel.attempts) == 1


async def test_failed_connects_back_off(world: World, autojump_clock: Clock) -> None:
    """R40."""
    began = trio.current_time()
    with trio.move_on_after(50):
        await keep_connected(world.ground, never_reached, PEER, 5432, backoff=STEADY)
    assert [when - began for when, _ in world.kernel.attempts] == [0, 1, 3, 7, 15, 25, 35, 45]


async def never_reached(stream: GuardedStream) -> None:
    raise AssertionError("connected to what refuses")


async def test_the_back_off_starts_anew_after_a_handler_that_ran_longer_than_it(
    world: World, autojump_clock: Clock
) -> None:
    """R40: and not after one that did not."""
    world.kernel.listeners[PEER] = resets
    runs = iter([0.0, 0.0, 5.0, 0.0, 0.0])

    async def handler(stream: GuardedStream) -> str:
        for seconds in runs:
            await trio.sleep(seconds)
            await stream.receive_some()
        return "done"

    began = trio.current_time()
    await keep_connected(world.ground, handler, PEER, 5432, backoff=STEADY)
    #                                        after 1 and 2 s; it runs for 5 s, and then it is 1 s again
    assert [when - began for when, _ in world.kernel.attempts] == [0, 1, 3, 9, 11, 15]


async def test_a_name_that_does_not_resolve_without_a_route_is_waited_for_like_a_route(
    world: World, autojump_clock: Clock
) -> None:
    """R40: no back-off has grown when the network is back after hours."""
    world.remove_default()
    world.kernel.listeners[PEER] = accepts

    async def handler(stream: GuardedStream) -> str:
        return "done"

    async with trio.open_nursery() as nursery:

        async def run() -> None:
            assert await keep_connected(world.ground, handler, NAME, 5432) == "done"

        nursery.start_soon(run)
        await trio.sleep(10_000)
        world.kernel.names[NAME] = [PEER]
        world.add_default()
        back = trio.current_time()
    assert trio.current_time() == back


async def test_a_failed_connect_is_retried_at_once_when_the_tables_change(world: World, autojump_clock: Clock) -> None:
    """R40: what failed for want of a path is not made to wait for the back-off."""
    world.kernel.listeners[PEER] = accepts
    slow = Backoff(first=1000.0, limit=1000.0, jitter=0.0)
    world.kernel.names[NAME] = socket.gaierror(socket.EAI_NONAME, "captive resolver")

    async def handler(stream: GuardedStream) -> str:
        return "done"

    async with trio.open_nursery() as nursery:

        async def run() -> None:
            assert await keep_connected(world.ground, handler, NAME, 5432, backoff=slow) == "done"

        nursery.start_soon(run)
        await trio.sleep(10)
        world.kernel.names[NAME] = [PEER]
        world.remove_default(AF_INET)
        world.add_default(AF_INET)
        changed = trio.current_time()
    assert trio.current_time() == changed


async def test_a_connect_whose_route_went_is_retried_as_soon_as_it_is_back(world: World, autojump_clock: Clock) -> None:
    """R40: not after the back-off."""
    world.kernel.listeners[PEER] = None
    slow = Backoff(first=1000.0, limit=1000.0, jitter=0.0)

    async def handler(stream: GuardedStream) -> str:
        return "done"

    async with trio.open_nursery() as nursery:

        async def run() -> None:
            assert await keep_connected(world.ground, handler, PEER, 5432, backoff=slow) == "done"

        nursery.start_soon(run)
        await trio.sleep(10)
        world.remove_default(AF_INET)
        world.kernel.listeners[PEER] = accepts
        await trio.sleep(10)
        world.add_default(AF_INET)
        back = trio.current_time()
    assert trio.current_time() == back
    assert len(world.kernel.attempts) == 2


async def test_a_peer_that_refuses_is_not_asked_again_at_each_change(world: World, autojump_clock: Clock) -> None:
    """R40: its back-off stands, whatever the tables do; in a storm it would be asked a thousand times."""
    with trio.move_on_after(50):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(keep_connected, world.ground, never_reached, PEER, 5432, backoff=STEADY))
            while True:
                await trio.sleep(0.5)
                world.remove_default(AF_INET6)
                world.add_default(AF_INET6)
    assert len(world.kernel.attempts) == 8  # as without changes


async def test_it_waits_for_the_way_that_its_options_ask_for(
    world: World, autojump_clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """R38: and does not try, fail and back off meanwhile."""
    caplog.set_level("INFO", "trio_routes")
    with trio.move_on_after(1000):
        await keep_connected(
            world.ground, never_reached, PEER, 5432, local_address=LOCAL, device="absent", mark=5, backoff=STEADY
        )
    assert caplog.messages == ["waiting for a way to 198.51.100.7 from 10.0.0.2 by absent with mark 5"]


async def test_the_end_of_the_pt_ends_it(world: World) -> None:
    """R41."""
    world.remove_default()
    with pytest.raises(ExceptionGroup) as caught:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(keep_connected, world.ground, never_reached, PEER, 5432)
            await trio.testing.wait_all_tasks_blocked()
            world.pulse.close()
    assert caught.group_contains(trio.ClosedResourceError)


async def test_many_that_were_lost_together_come_back_at_a_pace(world: World, autojump_clock: Clock) -> None:
    """R40: 250 at a hundred a second after a first hundred."""
    world.kernel.listeners[PEER] = accepts
    lost = False

    async def handler(stream: GuardedStream) -> None:
        if not lost:
            await stream.receive_some()

    async with trio.open_nursery() as nursery:
        for _ in range(250):
            nursery.start_soon(partial(keep_connected, world.ground, handler, PEER, 5432))
        await trio.sleep(1)
        assert len(world.kernel.attempts) == 250
        world.kernel.attempts.clear()
        world.remove_default()
        await trio.sleep(10)
        lost = True
        world.add_default()
        back = trio.current_time()
    times = [when - back for when, _ in world.kernel.attempts]
    assert len(times) == 250
    assert sum(when <= 0.1 for when in times) <= 111
    assert 1.4 <= max(times) <= 1.6


async def test_few_that_were_lost_together_do_not_come_back_in_one_tick(world: World, autojump_clock: Clock) -> None:
    """R40: jittered, within what the budget gives at once; and all within a twentieth of a second."""
    world.kernel.listeners[PEER] = accepts
    lost = False

    async def handler(stream: GuardedStream) -> None:
        if not lost:
            await stream.receive_some()

    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(partial(keep_connected, world.ground, handler, PEER, 5432))
        await trio.sleep(1)
        world.kernel.attempts.clear()
        world.remove_default()
        await trio.sleep(10)
        lost = True
        world.add_default()
        back = trio.current_time()
    times = [when - back for when, _ in world.kernel.attempts]
    assert len(set(times)) == len(times) == 20
    assert max(times) <= 0.05 + 1e-9


async def test_the_budget_gives_a_burst_then_a_rate_and_recovers(autojump_clock: Clock) -> None:
    budget = Budget(rate=2.0, burst=3)
    began = trio.current_time()
    turns: list[float] = []
    for _ in range(6):
        await budget.take()
        turns.append(trio.current_time() - began)
    assert turns == pytest.approx([0, 0, 0, 0.5, 1.0, 1.5])
    await trio.sleep(100)
    for _ in range(3):
        await budget.take()
    assert trio.current_time() - began == pytest.approx(101.5)


@given(
    delays=st.lists(st.floats(0.001, 1e6), min_size=1, max_size=20),
    jitter=st.floats(0, 1),
    factor=st.floats(1, 1e6),
)
def test_a_jittered_delay_is_never_longer_and_never_negative(delays: list[float], jitter: float, factor: float) -> None:
    backoff = Backoff(first=0.001, factor=factor, limit=1e7, jitter=jitter)
    for delay in delays:
        assert delay * (1 - jitter) - 1e-9 <= backoff.jittered(delay) <= delay
        assert backoff.after(delay) <= 1e7


def test_a_back_off_that_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="first"):
        Backoff(first=0)
    with pytest.raises(ValueError, match="factor"):
        Backoff(factor=0.5)
    with pytest.raises(ValueError, match="jitter"):
        Backoff(jitter=math.nan)
