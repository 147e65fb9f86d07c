"""A pt on a fake kernel, by the test's own clock: from netlink's bytes to the error in the application's hands."""

from __future__ import annotations

import errno
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from ipaddress import ip_address

import pytest
import trio
from trio.testing import MockClock

from trio_routes import (
    ConnectionLost,
    ConnectionRecovered,
    ConnectionSuspect,
    GuardedStream,
    LinkDown,
    NoRouteError,
    Policy,
    Pt,
    Resynced,
    RouteAdded,
    RouteLostError,
    RouteRemoved,
    Standing,
    Verdict,
    open_pt,
)
from trio_routes.netlink import build_message
from trio_routes.testing import FakeKernel, FakeLink, FakeStream, lose

PEER = ip_address("198.51.100.7")
PEER6 = ip_address("2001:db8:7::7")


async def echo(stream: FakeStream) -> None:
    async for data in stream:
        await stream.send_all(data)


@asynccontextmanager
async def world(policy: Policy | None = None) -> AsyncGenerator[tuple[FakeKernel, FakeLink, Pt], None]:
    async with FakeKernel() as kernel:
        wlan0 = kernel.add_link("wlan0")
        wlan0.add_address("192.0.2.2/24")
        wlan0.add_address("2001:db8::2/64")
        kernel.add_route("default", via="192.0.2.1")
        kernel.add_route("default", via="2001:db8::1")
        kernel.listen(PEER, 5432, echo, name="db.example")
        kernel.listen(PEER6, 5432, echo, name="db6.example")
        async with open_pt(kernel=kernel, policy=policy or Policy()) as pt:
            yield kernel, wlan0, pt


def standing_of(stream: GuardedStream) -> Standing:
    """A call, because type checkers take a property to keep its value."""
    return stream.connection.standing


async def seconds_until_lost(stream: GuardedStream) -> tuple[float, RouteLostError]:
    began = trio.current_time()
    with pytest.raises(RouteLostError) as caught:
        await stream.receive_some()
    return trio.current_time() - began, caught.value


async def test_a_deleted_route_ends_the_connection_after_exactly_one_second(autojump_clock: MockClock) -> None:
    async with world() as (kernel, _, pt):
        stream = await pt.open_tcp_stream("db.example", 5432)
        kernel.delete_route("default", via="192.0.2.1")
        seconds, error = await seconds_until_lost(stream)
        assert seconds == 1.0
        assert error.verdict is Verdict.NO_ROUTE
        await stream.aclose()


async def test_a_route_deleted_and_added_back_within_the_grace_closes_nothing(autojump_clock: MockClock) -> None:
    async with world() as (kernel, _, pt):
        stream = await pt.open_tcp_stream("db.example", 5432)
        with pt.subscribe(ConnectionSuspect, ConnectionRecovered, ConnectionLost) as events:
            kernel.delete_route("default", via="192.0.2.1")
            await trio.sleep(0.03)
            assert standing_of(stream) is Standing.SUSPECT
            kernel.add_route("default", via="192.0.2.1")
            await kernel.settle()
            assert standing_of(stream) is Standing.GOOD
            await trio.sleep(10)
            await stream.send_all(b"still here")
            assert await stream.receive_some() == b"still here"
            assert isinstance(await events.receive(), ConnectionSuspect)
            assert isinstance(await events.receive(), ConnectionRecovered)
            await stream.aclose()


async def test_settle_takes_no_time_and_leaves_deadlines_alone(autojump_clock: MockClock) -> None:
    async with world() as (kernel, _, pt):
        stream = await pt.open_tcp_stream("db.example", 5432)
        began, generation = trio.current_time(), pt.generation
        kernel.delete_route("default", via="192.0.2.1")
        assert pt.generation == generation
        await kernel.settle()
        assert pt.generation == generation + 1
        assert standing_of(stream) is Standing.SUSPECT
        assert stream.connection.deadline == began + 1
        assert trio.current_time() == began


async def test_a_link_that_goes_down_takes_the_ipv4_route_with_it_though_nobody_says_so(
    autojump_clock: MockClock,
) -> None:
    async with world() as (_, wlan0, pt):
        four = await pt.open_tcp_stream("db.example", 5432)
        six = await pt.open_tcp_stream("db6.example", 5432)
        with pt.subscribe(LinkDown, RouteRemoved) as events:
            wlan0.set_down()
            seconds, error = await seconds_until_lost(four)
            assert (seconds, error.verdict) == (6.0, Verdict.NO_ROUTE)
            assert six.connection.loss is not None  # its address went with the link
            assert isinstance(await events.receive(), LinkDown)
            assert isinstance(await events.receive(), RouteRemoved)


async def test_carrier_lost_for_five_seconds_is_forgiven_and_for_seven_is_not(autojump_clock: MockClock) -> None:
    async with world() as (kernel, wlan0, pt):
        stream = await pt.open_tcp_stream("db.example", 5432)
        for seconds, standing in ((5, Standing.GOOD), (7, Standing.LOST)):
            wlan0.set_carrier(False)
            await trio.sleep(seconds)
            wlan0.set_carrier(True)
            await kernel.settle()
            assert standing_of(stream) is standing
        assert stream.connection.verdict is Verdict.CARRIER_LOST


async def test_other_connections_and_unrelated_routes_are_left_alone(autojump_clock: MockClock) -> None:
    async with world() as (kernel, _, pt):
        kernel.listen("192.0.2.9", 80, echo)
        near = await pt.open_tcp_stream("192.0.2.9", 80)
        far = await pt.open_tcp_stream("db.example", 5432)
        kernel.add_route("203.0.113.0/24", via="192.0.2.1")
        kernel.delete_route("203.0.113.0/24")
        await kernel.settle()
        assert standing_of(far) is Standing.GOOD
        kernel.delete_route("default", via="192.0.2.1")
        await trio.sleep(2)
        assert standing_of(far) is Standing.LOST
        assert standing_of(near) is Standing.GOOD


async def test_a_guard_block_is_cancelled_with_one_bare_error(autojump_clock: MockClock) -> None:
    async with world() as (kernel, _, pt):
        stream = await kernel.connect_tcp(PEER, 5432)
        with pytest.raises(RouteLostError) as caught, pt.guard(stream):
            kernel.delete_route("default", via="192.0.2.1")
            await trio.sleep_forever()
        assert caught.value.__cause__ is None
        with pytest.raises(trio.BrokenResourceError):
            await stream.receive_some()


async def test_no_route_is_an_error_at_once(autojump_clock: MockClock) -> None:
    async with world() as (kernel, _, pt):
        kernel.delete_route("default", via="192.0.2.1")
        await kernel.settle()
        with pytest.raises(NoRouteError) as caught:
            await pt.open_tcp_stream("db.example", 5432)
        assert caught.value.errno == errno.ENETUNREACH


async def test_an_attempt_that_nobody_answers_fails_when_its_route_goes(autojump_clock: MockClock) -> None:
    async with world() as (kernel, _, pt):
        kernel.silence(PEER)
        async with trio.open_nursery() as nursery:

            async def connect() -> None:
                with pytest.raises(NoRouteError):
                    await pt.open_tcp_stream(PEER, 5432)
                assert trio.current_time() - began == 3

            began = trio.current_time()
            nursery.start_soon(connect)
            await trio.sleep(3)
            kernel.delete_route("default", via="192.0.2.1")


async def test_keep_connected_comes_back_with_the_route(autojump_clock: MockClock) -> None:
    visits: list[float] = []

    async def visit(stream: GuardedStream) -> str:
        visits.append(trio.current_time())
        if len(visits) == 2:
            return "done"
        await stream.receive_some()
        raise AssertionError("nobody sends")

    async with world() as (kernel, _, pt), trio.open_nursery() as nursery:

        async def flap() -> None:
            await trio.sleep(1)
            kernel.delete_route("default", via="192.0.2.1")
            await trio.sleep(100)
            kernel.add_route("default", via="192.0.2.1")

        nursery.start_soon(flap)
        began = trio.current_time()
        assert await pt.keep_connected(visit, "db.example", 5432) == "done"
        assert 101 <= visits[1] - began < 103


LOSSES: dict[str, Callable[[FakeKernel], None]] = {
    "overflow": lambda kernel: kernel.overflow(),
    "truncation": lambda kernel: kernel.send_raw(b"\0" * 64, truncated=True),
    "broken framing": lambda kernel: kernel.send_raw(b"\xff" * 7),
}


@pytest.mark.parametrize("spoil", LOSSES.values(), ids=LOSSES)
async def test_what_was_lost_is_found_by_reading_everything_anew(
    autojump_clock: MockClock, spoil: Callable[[FakeKernel], None]
) -> None:
    async with world() as (kernel, _, pt):
        stream = await pt.open_tcp_stream("db.example", 5432)
        with pt.subscribe(RouteRemoved, RouteAdded, Resynced) as events:
            spoil(kernel)
            kernel.delete_route("default", via="192.0.2.1")
            kernel.add_route("203.0.113.0/24", via="192.0.2.9")
            await kernel.settle()
            seen = {type(await events.receive()) for _ in range(3)}
            assert seen == {RouteRemoved, RouteAdded, Resynced}
            seconds, _ = await seconds_until_lost(stream)
            assert seconds == 1.0


async def test_a_resync_that_finds_everything_as_it_was_harms_nobody(autojump_clock: MockClock) -> None:
    async with world() as (kernel, _, pt):
        stream = await pt.open_tcp_stream("db.example", 5432)
        generation = pt.generation
        kernel.overflow()
        await kernel.settle()
        assert pt.statistics().resyncs == 1
        assert standing_of(stream) is Standing.GOOD
        assert pt.generation <= generation + 1


async def test_a_forged_message_is_counted_and_believed_by_nobody(autojump_clock: MockClock) -> None:
    async with world() as (kernel, _, pt):
        generation = pt.generation
        kernel.send_raw(build_message(17, 0, 0, bytes(16)), sender=4711)
        await kernel.settle()
        assert pt.statistics().forged == 1
        assert pt.generation == generation


async def test_without_netlink_nobody_is_judged(autojump_clock: MockClock, caplog: pytest.LogCaptureFixture) -> None:
    async with FakeKernel(netlink_error=errno.EPERM) as kernel:
        kernel.add_link("wlan0").add_address("192.0.2.2/24")
        kernel.add_route("default", via="192.0.2.1")
        kernel.listen(PEER, 5432, echo)
        with caplog.at_level(logging.WARNING):
            async with open_pt(kernel=kernel) as pt:
                assert not pt.monitoring
                stream = await pt.open_tcp_stream(PEER, 5432)
                kernel.delete_route("default", via="192.0.2.1")
                await trio.sleep(100)
                assert standing_of(stream) is Standing.GOOD
                await stream.aclose()
        assert len(caplog.records) == 1


USES: dict[str, Callable[[GuardedStream], object]] = {
    "the stream": lambda stream: stream,
    "its connection": lambda stream: stream.connection,
}


@pytest.mark.parametrize("what", USES.values(), ids=USES)
async def test_lose_acts_as_if_the_judge_had_said_so(
    autojump_clock: MockClock, what: Callable[[GuardedStream], object]
) -> None:
    async with world() as (_, _, pt):
        stream = await pt.open_tcp_stream("db.example", 5432)
        with pt.subscribe(ConnectionLost) as events:
            lose(what(stream), verdict=Verdict.GATEWAY_CHANGED)
            lose(what(stream))  # already lost
            seconds, error = await seconds_until_lost(stream)
            assert (seconds, error.verdict) == (0.0, Verdict.GATEWAY_CHANGED)
            event = await events.receive()
            assert isinstance(event, ConnectionLost)
            assert event.loss is error.loss


async def test_lose_wakes_a_pending_call_and_cancels_a_guard_block(autojump_clock: MockClock) -> None:
    async with world() as (_, _, pt):
        stream = await pt.open_tcp_stream("db.example", 5432)

        async def later(do: Callable[[], Awaitable[None]]) -> None:
            await trio.sleep(5)
            await do()

        async def act() -> None:
            await trio.lowlevel.checkpoint()
            lose(stream)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(later, act)
            seconds, _ = await seconds_until_lost(stream)
            assert seconds == 5
        bare = await pt.open_tcp_stream("db.example", 5432)
        with pytest.raises(RouteLostError), pt.guard(bare) as connection:
            lose(connection)
            await trio.sleep_forever()


async def test_lose_says_what_it_cannot_lose(autojump_clock: MockClock) -> None:
    async with world() as (kernel, _, pt):
        stream = await kernel.connect_tcp(PEER, 5432)
        with pytest.raises(TypeError, match="neither"):
            lose(stream)
        with pt.guard(stream) as connection:
            pass
        with pytest.raises(ValueError, match="nobody uses"):
            lose(connection)


async def test_the_clock_is_the_tests_own(autojump_clock: MockClock) -> None:
    async with world() as (kernel, _, pt):
        began = trio.current_time()
        await trio.sleep(7_200)
        assert trio.current_time() - began == 7_200
        await kernel.settle()
        assert pt.statistics().audits > 0
        assert pt.statistics().audit_differences == 0
        assert autojump_clock.autojump_threshold == 0
