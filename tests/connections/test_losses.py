"""A loss, a timeout or a cancellation at every moment, and many at once; what is left behind is nothing."""

from __future__ import annotations

import itertools
import os
import socket
from collections.abc import Awaitable, Callable, Collection
from contextlib import AbstractContextManager, ExitStack
from functools import partial

import pytest
import trio
import trio.testing
import trustme

from tests.connections._world import (
    OTHER_PEER,
    PEER,
    V6_PEER,
    World,
    accepts,
    certify,
    flow_to,
    loopback_pair,
    standing_of,
)
from trio_routes._errors import RouteLostError
from trio_routes._events import ConnectionLost
from trio_routes.connections._connect import open_ssl_over_tcp_stream, open_tcp_stream
from trio_routes.connections._guard import guard
from trio_routes.connections._reconnect import keep_connected, wait_routable
from trio_routes.connections._stream import GuardedStream, guard_stream
from trio_routes.connections._verdict import Standing
from trio_routes.testing._fake_stream import FakeStream


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


# ---- cancelled at every checkpoint --------------------------------------------------------------


async def connect_and_talk(world: World) -> None:
    async with await open_tcp_stream(world.ground, "db.example", 5432, happy_eyeballs_delay=0) as stream:
        with guard(world.ground, stream):
            await stream.send_all(b"question")
            assert await stream.receive_some() == b"answer"


async def stay_connected(world: World) -> None:
    rounds = 0

    async def handler(stream: GuardedStream) -> None:
        nonlocal rounds
        rounds += 1
        if rounds == 1:
            world.lose(stream.connection)
        await stream.receive_some()

    await keep_connected(world.ground, handler, "db.example", 5432)


async def wait(world: World) -> None:
    await wait_routable(world.ground, "db.example")


async def lose_in_two_tasks(world: World) -> None:
    ours, _ = world.stream()
    async with guard_stream(world.ground, ours) as stream:
        with pytest.raises(RouteLostError), guard(world.ground, stream):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(stream.receive_some)
                nursery.start_soon(stream.send_all, b"x" * 1_000_000)
                await trio.lowlevel.checkpoint()
                world.lose(stream.connection)


@pytest.mark.parametrize("operation", [connect_and_talk, stay_connected, wait, lose_in_two_tasks])
async def test_a_cancellation_at_any_turn_of_the_loop_leaves_nothing_behind(
    world: World, autojump_clock: trio.testing.MockClock, operation: Callable[[World], Awaitable[None]]
) -> None:
    """Each operation is cancelled after 0, 1, 2 ... turns, until it is faster than its cancellation."""
    far_ends: list[FakeStream] = []

    async def answer(stream: FakeStream) -> None:
        far_ends.append(stream)
        await stream.send_all(b"answer")

    world.kernel.names["db.example"] = [PEER, OTHER_PEER, V6_PEER]
    world.kernel.listeners = {PEER: None, OTHER_PEER: answer, V6_PEER: answer}
    for turns in range(200):
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:

                async def run(nursery: trio.Nursery = nursery) -> None:
                    await operation(world)
                    nursery.cancel_scope.cancel()

                nursery.start_soon(run)
                for _ in range(turns):
                    await trio.lowlevel.cancel_shielded_checkpoint()
                    autojump_clock.jump(0.01)  # time passes, too: there are delays to be cancelled in
                scope.cancel()
        assert world.registry._records == {}
        for far_end in far_ends:  # no stream was left open
            with trio.fail_after(1):
                try:
                    while await far_end.receive_some():
                        pass
                except trio.BrokenResourceError:
                    pass
        far_ends.clear()
        if not scope.cancelled_caught:
            assert turns > 0
            return
    raise AssertionError("it never came to its end")


# ---- timeouts and nested guards -----------------------------------------------------------------

LAYERS = ("timeout", "a", "b")


@pytest.mark.parametrize("events", [c for n in (1, 2, 3) for c in itertools.combinations(LAYERS, n)], ids="+".join)
@pytest.mark.parametrize("layers", list(itertools.permutations(LAYERS)), ids=">".join)
async def test_of_all_that_ends_a_body_the_outermost_wins(
    world: World, layers: tuple[str, ...], events: Collection[str]
) -> None:
    """R17, R21, R22: a timeout swallows what is inside it, a guard raises its own loss, whatever came first."""
    a, b = world.stream()
    scope = trio.CancelScope()
    blocks: dict[str, AbstractContextManager[object, bool | None]] = {
        "timeout": scope,
        "a": guard(world.ground, a),
        "b": guard(world.ground, b),
    }
    connections = {"a": world.registry.find(a), "b": world.registry.find(b)}

    async def body() -> None:
        with ExitStack() as stack:
            for layer in layers:
                stack.enter_context(blocks[layer])
            for event in events:
                connection = connections.get(event)
                if connection is None:
                    scope.cancel()
                else:
                    world.lose(connection)
            async with trio.open_nursery() as nursery:  # what is cancelled is a nursery of many
                for _ in range(3):
                    nursery.start_soon(trio.sleep_forever)

    outermost = next(layer for layer in layers if layer in events)
    if outermost == "timeout":
        await body()
        assert scope.cancelled_caught
    else:
        with pytest.raises(RouteLostError) as caught:
            await body()
        assert caught.value.connection is connections[outermost]
        assert caught.value.__cause__ is None
    for name, connection in connections.items():
        assert connection is not None and (connection.loss is not None) == (name in events)
    assert list(world.registry) == []


async def test_r22_guards_of_one_stream_in_two_tasks_raise_one_error_each(world: World) -> None:
    ours, _ = world.stream()
    errors: list[RouteLostError] = []

    async def use() -> None:
        with pytest.raises(RouteLostError) as caught, guard(world.ground, ours):
            await trio.sleep_forever()
        errors.append(caught.value)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(use)
        nursery.start_soon(use)
        await trio.testing.wait_all_tasks_blocked()
        connection = world.registry.find(ours)
        assert connection is not None
        world.lose(connection)
    assert len(errors) == 2 and errors[0] is not errors[1]
    assert errors[0].loss is errors[1].loss
    assert [type(event) for event in world.events] == [ConnectionLost]  # R4: one loss is one event


# ---- whatever it is ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind", ["stream", "socket", "standard socket", "guarded stream", "TLS", "TLS over TLS", "stapled", "connection"]
)
async def test_r6_whatever_holds_a_socket_can_be_guarded_and_is_the_same_connection(
    world: World, authority: trustme.CA, kind: str
) -> None:
    ours, _ = certify(authority, "peer.example")
    near, far = await loopback_pair()
    guarded = guard_stream(world.ground, near, flow=flow_to())
    connection = guarded.connection
    tls = trio.SSLStream[trio.abc.Stream](near, ours, server_hostname="peer.example")
    with socket.socket(fileno=os.dup(near.socket.fileno())) as duplicate:
        things: dict[str, object] = {
            "stream": near,
            "socket": near.socket,
            "standard socket": duplicate,
            "guarded stream": guarded,
            "TLS": tls,
            "TLS over TLS": trio.SSLStream[trio.abc.Stream](tls, ours, server_hostname="peer.example"),
            "stapled": trio.StapledStream(near, near),
            "connection": connection,
        }
        with pytest.raises(RouteLostError) as caught, guard(world.ground, things[kind]) as same:
            assert same is connection
            world.lose(same)
            await trio.sleep_forever()
    assert caught.value.connection is connection
    await guarded.aclose()
    await far.aclose()


async def test_r6_what_cannot_be_guarded_says_why_before_any_scope_is_entered(world: World) -> None:
    near, far = await loopback_pair()
    with trio.socket.socket() as unconnected, pytest.raises(ValueError, match="not connected"):
        guard(world.ground, unconnected)
    await near.aclose()
    with pytest.raises(trio.ClosedResourceError, match="closed"):
        guard(world.ground, near)
    with pytest.raises(TypeError, match="flow="):
        guard(world.ground, trio.testing.memory_stream_pair()[0])
    with pytest.raises(TypeError, match="neither a socket nor a flow"):
        guard(world.ground, None)
    assert list(world.registry) == []
    await far.aclose()


# ---- at a moment that is easily forgotten -------------------------------------------------------


@pytest.mark.parametrize("server", [False, True])
async def test_r33_a_loss_during_a_tls_handshake_ends_it(world: World, authority: trustme.CA, server: bool) -> None:
    ours, theirs = certify(authority, "peer.example")
    near, far = await loopback_pair()
    guarded = guard_stream(world.ground, near, flow=flow_to())
    if server:
        tls = trio.SSLStream(guarded, theirs, server_side=True)
    else:
        tls = trio.SSLStream(guarded, ours, server_hostname="peer.example")

    async def shake_hands() -> None:
        with pytest.raises(RouteLostError):
            await tls.do_handshake()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(shake_hands)
        await trio.testing.wait_all_tasks_blocked()  # the far end says nothing
        world.lose(guarded.connection)
    with trio.fail_after(1):
        await tls.aclose()
    await far.aclose()


async def test_r34_a_loss_before_the_handshake_of_open_ssl_over_tcp_stream_is_the_first_calls_error(
    world: World, authority: trustme.CA
) -> None:
    """Trio leaves the handshake to the first call, and so the error comes from there."""
    ours, _ = certify(authority, "db.example")
    world.kernel.names["db.example"] = [PEER]
    world.kernel.listeners[PEER] = accepts
    tls = await open_ssl_over_tcp_stream(world.ground, "db.example", 5432, ssl_context=ours)
    world.lose(tls.transport_stream.connection)
    with pytest.raises(RouteLostError):
        await tls.send_all(b"GET /")
    await tls.aclose()


async def test_r31_a_loss_during_the_tls_goodbye_closes_at_once(world: World, authority: trustme.CA) -> None:
    ours, theirs = certify(authority, "peer.example")
    near, far = world.stream()
    guarded = guard_stream(world.ground, near)
    tls = trio.SSLStream(guarded, ours, server_hostname="peer.example")
    peer = trio.SSLStream(far, theirs, server_side=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(tls.do_handshake)
        nursery.start_soon(peer.do_handshake)
    with trio.move_on_after(0.01):
        await near.send_all(b"x" * 1_000_000)  # no room for a goodbye
    async with trio.open_nursery() as nursery:
        nursery.start_soon(tls.aclose)
        await trio.testing.wait_all_tasks_blocked()
        world.lose(guarded.connection)
    assert list(world.registry) == []
    await trio.aclose_forcefully(peer)


async def test_r38_a_handler_that_swallows_its_loss_has_finished(world: World) -> None:
    """`keep_connected` goes round again for errors; what the handler returns is an answer."""
    world.kernel.listeners[PEER] = accepts

    async def handler(stream: GuardedStream) -> str:
        world.lose(stream.connection)
        try:
            await stream.receive_some()
        except RouteLostError as error:
            return f"gave up: {error.verdict.value}"
        return "unreachable"

    assert await keep_connected(world.ground, handler, PEER, 5432) == "gave up: no route"
    assert len(world.kernel.attempts) == 1


# ---- a pool (API of pools: the interface's last chapter) ----------------------------------------


class Pool:
    """Lends what is good, keeps what is suspect, drops what is lost."""

    def __init__(self, open_one: Callable[[], Awaitable[GuardedStream]]) -> None:
        self.open_one = open_one
        self.idle: list[GuardedStream] = []

    async def lend(self) -> GuardedStream:
        for stream in list(self.idle):
            match stream.connection.standing:
                case Standing.GOOD:
                    self.idle.remove(stream)
                    return stream
                case Standing.LOST:
                    self.idle.remove(stream)
                    await stream.aclose()
                case Standing.SUSPECT:
                    pass  # it may recover
        return await self.open_one()


async def test_a_pool_lends_no_suspect_keeps_it_and_lends_it_again_when_it_has_recovered(
    world: World, autojump_clock: trio.testing.MockClock
) -> None:
    world.kernel.listeners = {PEER: accepts, V6_PEER: accepts}
    pool = Pool(partial(open_tcp_stream, world.ground, V6_PEER, 5432))
    idle = await open_tcp_stream(world.ground, PEER, 5432)
    pool.idle.append(idle)
    world.remove_default(2)  # IPv4
    assert standing_of(idle.connection) is Standing.SUSPECT
    other = await pool.lend()
    assert other is not idle and pool.idle == [idle]  # set aside, not closed
    world.add_default(2)
    assert await pool.lend() is idle
    pool.idle.append(idle)
    world.remove_default(2)
    await trio.sleep(2)  # the policy's wait is 1 s
    assert standing_of(idle.connection) is Standing.LOST
    another = await pool.lend()
    assert another is not idle and pool.idle == []
    assert list(world.registry) == [other.connection, another.connection]
    for stream in (other, another):
        await stream.aclose()


# ---- many ---------------------------------------------------------------------------------------


class Turns(trio.abc.Instrument):
    """Counts how often the loop has looked for input."""

    count = 0

    def after_io_wait(self, timeout: float) -> None:
        self.count += 1


@pytest.mark.slow  # ten thousand tasks; some 4 s
@pytest.mark.parametrize("by", ["stream", "block"])
async def test_ten_thousand_losses_at_once_are_told_once_each_and_the_loop_turns_meanwhile(
    world: World, autojump_clock: trio.testing.MockClock, by: str
) -> None:
    """R4, R11."""
    count = 10_000
    pairs = [world.stream() for _ in range(count)]
    told: list[RouteLostError] = []
    turns = Turns()
    told_in = set[int]()

    async def use(ours: FakeStream) -> None:
        try:
            if by == "stream":
                async with guard_stream(world.ground, ours) as stream:
                    await stream.receive_some()
            else:
                with guard(world.ground, ours):
                    await trio.sleep_forever()
        except RouteLostError as error:
            told.append(error)
            told_in.add(turns.count)

    async with trio.open_nursery() as nursery:
        for ours, _ in pairs:
            nursery.start_soon(use, ours)
        await trio.testing.wait_all_tasks_blocked()
        assert len(world.registry) == count
        trio.lowlevel.add_instrument(turns)
        world.remove_default()
    trio.lowlevel.remove_instrument(turns)
    assert len({id(error.connection) for error in told}) == count == len(told)
    assert sum(isinstance(event, ConnectionLost) for event in world.events) == count
    assert len(told_in) >= count / 50
    assert list(world.registry) == []
