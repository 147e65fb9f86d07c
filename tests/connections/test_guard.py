"""Guard blocks: what `trio.fail_after` does with TooSlowError, a guard does with RouteLostError."""

# ruff: noqa: SIM117 -- how guards are nested is what these tests are about

from __future__ import annotations

import gc
import signal
import socket
import weakref
from collections.abc import Callable

import pytest
import trio
import trio.testing

from tests.connections._world import OTHER_PEER, World, loopback_pair
from trio_routes._errors import RouteLostError
from trio_routes._events import ConnectionLost
from trio_routes.connections._connection import Connection
from trio_routes.connections._guard import guard
from trio_routes.connections._hints import TcpHints
from trio_routes.connections._stream import guard_stream
from trio_routes.connections._verdict import Standing


async def lose_soon(world: World, connection: Connection) -> None:
    await trio.testing.wait_all_tasks_blocked()
    world.lose(connection)


async def test_a_body_that_waits_ends_with_one_bare_error(world: World) -> None:
    """R17."""
    stream, _ = world.stream()
    with pytest.raises(RouteLostError) as caught, guard(world.ground, stream) as connection:
        world.lose(connection)
        await trio.sleep_forever()
    assert caught.value.__cause__ is None
    assert caught.value.connection is connection
    assert caught.value.loss is connection.loss


async def test_the_tables_themselves_cancel_the_body(world: World, autojump_clock: trio.testing.MockClock) -> None:
    """R16, R17: no call of a test's in between, the default route goes and the policy's wait passes."""
    stream, _ = world.stream()
    began = trio.current_time()
    with pytest.raises(RouteLostError, match="no route"), guard(world.ground, stream) as connection:
        world.remove_default()
        assert connection.standing is Standing.SUSPECT
        await trio.sleep_forever()
    assert trio.current_time() - began == pytest.approx(1.0)


async def test_a_body_of_many_tasks_ends_with_one_bare_error(
    world: World, autojump_clock: trio.testing.MockClock
) -> None:
    """R17."""
    stream, _ = world.stream()
    with pytest.raises(RouteLostError) as caught, guard(world.ground, stream) as connection:
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(trio.sleep_forever)
            await lose_soon(world, connection)
    assert caught.value.__cause__ is None


async def test_the_context_shows_where_the_body_was_waiting(world: World) -> None:
    """R17: the reason stands in the Cancelled, as with TooSlowError."""
    stream, _ = world.stream()
    with pytest.raises(RouteLostError) as caught, guard(world.ground, stream) as connection:
        world.lose(connection)
        await trio.sleep_forever()
    context = caught.value.__context__
    assert isinstance(context, trio.Cancelled)
    assert context.reason == connection.sentence()


async def test_a_body_without_a_checkpoint_after_the_loss_has_finished(world: World) -> None:
    """R18."""
    stream, _ = world.stream()
    with guard(world.ground, stream) as connection:
        world.lose(connection)
    assert connection.loss is not None


async def test_the_body_s_own_exception_wins_with_a_note(world: World) -> None:
    """R19."""
    stream, _ = world.stream()
    mine = ValueError("mine")
    with pytest.raises(ValueError, match="mine") as caught, guard(world.ground, stream) as connection:
        world.lose(connection)
        raise mine
    assert caught.value is mine
    assert caught.value.__context__ is None
    assert caught.value.__notes__ == [f"meanwhile the connection was lost: {connection.sentence()}"]


async def test_what_remains_of_a_group_wins(world: World) -> None:
    """R19: Trio raises it out of the scope while `cancelled_caught` is True."""
    stream, _ = world.stream()

    async def has_a_bug() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise KeyError("a real bug")

    with pytest.raises(ExceptionGroup) as caught, guard(world.ground, stream) as connection:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(has_a_bug)
            nursery.start_soon(trio.sleep_forever)
            await lose_soon(world, connection)
    assert caught.group_contains(KeyError, match="a real bug")
    assert not caught.group_contains(RouteLostError)
    assert "meanwhile the connection was lost" in caught.value.__notes__[0]


async def test_a_bug_beside_the_loss_is_not_hidden_by_it(world: World) -> None:
    """R19, R20: the group goes on as it is."""
    stream, _ = world.stream()
    with pytest.raises(ExceptionGroup) as caught, guard(world.ground, stream) as connection:
        loss = world.lose(connection)
        raise ExceptionGroup("mixed", [RouteLostError(connection, loss), ValueError("bug")])
    assert caught.group_contains(RouteLostError)
    assert caught.group_contains(ValueError)


async def test_a_body_without_a_loss_raises_and_returns_as_if_there_were_no_guard(world: World) -> None:
    """R16."""
    stream, _ = world.stream()
    mine = ValueError("mine")
    with pytest.raises(ValueError, match="mine") as caught, guard(world.ground, stream):
        raise mine
    assert caught.value is mine
    assert not hasattr(mine, "__notes__")
    with guard(world.ground, stream) as connection:
        await trio.lowlevel.checkpoint()
    assert connection.loss is None


async def test_losses_reached_by_the_wrapper_first_become_one(world: World) -> None:
    """R20."""
    stream, _ = world.stream()
    guarded = guard_stream(world.ground, stream)

    async def reads_under_a_shield() -> None:
        with trio.CancelScope(shield=True):
            await guarded.receive_some()

    with pytest.raises(RouteLostError) as caught, guard(world.ground, guarded) as connection:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(reads_under_a_shield)
            nursery.start_soon(reads_under_a_shield_once_more, guarded)
            await lose_soon(world, connection)
    assert isinstance(caught.value.__cause__, ExceptionGroup)


async def reads_under_a_shield_once_more(stream: trio.abc.Stream) -> None:
    with trio.CancelScope(shield=True):
        await stream.send_all(b"x" * 1_000_000)


async def test_the_bodys_own_route_lost_error_leaves_as_the_same_object(world: World) -> None:
    """R20."""
    stream, _ = world.stream()
    mine: list[RouteLostError] = []
    with pytest.raises(RouteLostError) as caught, guard(world.ground, stream) as connection:
        mine.append(RouteLostError(connection, world.lose(connection)))
        raise mine[0]
    assert caught.value is mine[0]


async def test_another_connections_loss_in_the_group_is_not_touched(world: World) -> None:
    """R20."""
    stream, _ = world.stream()
    other_stream, _ = world.stream(OTHER_PEER)
    other = guard_stream(world.ground, other_stream)
    world.lose(other.connection)
    with pytest.raises(ExceptionGroup) as caught, guard(world.ground, stream) as connection:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            world.lose(connection)
            raise other_loss_of(other.connection)
    [leaf] = caught.value.exceptions
    assert isinstance(leaf, RouteLostError)
    assert leaf.connection is other.connection


def other_loss_of(connection: Connection) -> RouteLostError:
    assert connection.loss is not None
    return RouteLostError(connection, connection.loss)


async def test_an_outer_cancellation_wins(world: World) -> None:
    """R21."""
    stream, _ = world.stream()
    with trio.CancelScope() as outer, guard(world.ground, stream) as connection:
        outer.cancel()
        world.lose(connection)
        await trio.sleep_forever()
    assert outer.cancelled_caught
    assert connection.loss is not None


async def test_an_outer_cancellation_wins_over_a_loss_that_the_wrapper_reached(world: World) -> None:
    """R21: what is left for the outer scope is nothing but Cancelled."""
    stream, _ = world.stream()
    guarded = guard_stream(world.ground, stream)

    async def reads_under_a_shield() -> None:
        with trio.CancelScope(shield=True):
            await guarded.receive_some()

    with trio.CancelScope() as outer, guard(world.ground, guarded) as connection:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(reads_under_a_shield)
            nursery.start_soon(trio.sleep_forever)
            await trio.testing.wait_all_tasks_blocked()
            outer.cancel()
            world.lose(connection)
    assert outer.cancelled_caught


async def test_a_timeout_inside_is_its_own_affair(world: World, autojump_clock: trio.testing.MockClock) -> None:
    """R21."""
    stream, _ = world.stream()
    with pytest.raises(trio.TooSlowError), guard(world.ground, stream) as connection, trio.fail_after(1):
        await trio.sleep_forever()
    assert connection.loss is None


async def test_of_two_guards_of_one_connection_the_outermost_raises(world: World) -> None:
    """R22: `except` clauses between them do not run, `finally` do."""
    stream, _ = world.stream()
    ran: list[str] = []
    with pytest.raises(RouteLostError) as caught, guard(world.ground, stream) as outer:
        try:
            with guard(world.ground, stream) as inner:
                assert inner is outer
                world.lose(outer)
                await trio.sleep_forever()
        except RouteLostError:
            ran.append("except")
        finally:
            ran.append("finally")
    assert ran == ["finally"]
    assert caught.value.__cause__ is None
    assert sum(isinstance(event, ConnectionLost) for event in world.events) == 1


async def test_of_two_connections_only_the_lost_ones_guard_raises(world: World) -> None:
    """R22."""
    outer_stream, _ = world.stream()
    inner_stream, _ = world.stream(OTHER_PEER)
    raised: list[RouteLostError] = []
    with guard(world.ground, outer_stream) as outer:
        inner = guard(world.ground, inner_stream)
        try:
            with inner as connection:
                world.lose(connection)
                await trio.sleep_forever()
        except RouteLostError as error:
            raised.append(error)
        await trio.lowlevel.checkpoint()
    assert [error.connection.flow.peer for error in raised] == [OTHER_PEER]
    assert outer.loss is None


async def test_the_outer_ones_loss_passes_through_the_inner_guard(world: World) -> None:
    """R22."""
    outer_stream, _ = world.stream()
    inner_stream, _ = world.stream(OTHER_PEER)
    with pytest.raises(RouteLostError) as caught, guard(world.ground, outer_stream) as outer:
        with guard(world.ground, inner_stream):
            world.lose(outer)
            await trio.sleep_forever()
    assert caught.value.connection is outer


async def test_shielded_cleanup_on_the_lost_socket_ends_at_once_and_the_reason_survives_it(world: World) -> None:
    """R23."""
    client, server = await loopback_pair()
    async with client, server:
        with pytest.raises(RouteLostError) as caught, guard(world.ground, client) as connection:
            try:
                world.lose(connection)
                await trio.sleep_forever()
            finally:
                with trio.fail_after(5) as patience, pytest.raises(trio.BrokenResourceError):
                    patience.shield = True
                    await client.receive_some()
        assert caught.value.__cause__ is None


@pytest.mark.parametrize("passing", [KeyboardInterrupt, SystemExit])
async def test_keyboard_interrupt_and_system_exit_pass_unchanged(world: World, passing: type[BaseException]) -> None:
    """R24."""
    stream, _ = world.stream()
    mine = passing("from outside")
    with pytest.raises(passing) as caught, guard(world.ground, stream) as connection:
        world.lose(connection)
        raise mine
    assert caught.value is mine
    assert not hasattr(mine, "__notes__")


def test_a_keyboard_interrupt_in_a_lost_group_is_not_swallowed() -> None:
    """R24: a real SIGINT, into a body that is being cancelled."""
    outcome: list[str] = []

    async def main() -> None:
        world = World()
        stream, _ = world.stream()
        with guard(world.ground, stream) as connection:
            world.lose(connection)
            try:
                await trio.sleep_forever()
            finally:
                signal.raise_signal(signal.SIGINT)
                outcome.append("not reached")

    with pytest.raises(KeyboardInterrupt):
        trio.run(main)
    assert outcome == []


async def test_tasks_outside_the_block_get_a_plain_broken_resource_error(world: World) -> None:
    """R25: on the bare stream."""
    client, server = await loopback_pair()
    seen: list[type[BaseException]] = []

    async def reads() -> None:
        try:
            await client.receive_some()
        except trio.BrokenResourceError as error:
            seen.append(type(error))

    async with client, server, trio.open_nursery() as nursery:
        nursery.start_soon(reads)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(RouteLostError), guard(world.ground, client) as connection:
            world.lose(connection)
            await trio.sleep_forever()
    assert seen == [trio.BrokenResourceError]


async def test_tasks_outside_the_block_on_a_guarded_stream_are_told_of_the_loss(world: World) -> None:
    """R25."""
    client, server = await loopback_pair()
    guarded = guard_stream(world.ground, client)
    seen: list[type[BaseException]] = []

    async def reads() -> None:
        try:
            await guarded.receive_some()
        except trio.BrokenResourceError as error:
            seen.append(type(error))

    async with guarded, server, trio.open_nursery() as nursery:
        nursery.start_soon(reads)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(RouteLostError), guard(world.ground, client) as connection:
            world.lose(connection)
            await trio.sleep_forever()
    assert seen == [RouteLostError]


async def test_a_lost_socket_is_refused_at_entry_until_it_is_connected_again(world: World) -> None:
    """R12."""
    client, server = await loopback_pair()
    with trio.socket.socket() as listening:
        await listening.bind(("127.0.0.1", 0))
        listening.listen()
        with pytest.raises(RouteLostError), guard(world.ground, client) as first:
            world.lose(first)
            await trio.sleep_forever()
        with pytest.raises(RouteLostError), guard(world.ground, client):
            pytest.fail("entered a guard of a lost socket")
        await client.socket.connect(listening.getsockname())
        with guard(world.ground, client) as second:
            assert second is not first
            assert second.loss is None
    await server.aclose()
    await client.aclose()


async def test_a_connection_that_is_lost_between_call_and_entry_is_refused_at_entry(world: World) -> None:
    """R12."""
    stream, _ = world.stream()
    guarded = guard_stream(world.ground, stream)
    made = guard(world.ground, guarded)
    world.lose(guarded.connection)
    with pytest.raises(RouteLostError), made:
        pytest.fail("entered")


async def test_a_guard_left_while_suspect_forgets_it(world: World) -> None:
    """R13: the later one registers afresh, and finds the path broken (R7)."""
    stream, _ = world.stream()
    made = guard(world.ground, stream)
    with made as first:
        world.remove_default()
        assert first.standing is Standing.SUSPECT
    assert list(world.registry) == []
    with guard(world.ground, stream) as second:
        assert second is not first
        assert second.standing is Standing.SUSPECT


async def test_one_record_serves_guard_and_wrapper_and_ends_with_the_last(world: World) -> None:
    """R4, R32."""
    client, server = await loopback_pair()
    guarded = guard_stream(world.ground, client)
    with guard(world.ground, guarded) as connection, guard(world.ground, connection) as again:
        assert connection is again is guarded.connection
        assert list(world.registry) == [connection]
    assert list(world.registry) == [connection]
    await guarded.aclose()
    assert list(world.registry) == []
    await server.aclose()


async def test_what_is_wrong_with_it_is_raised_by_the_call_itself(world: World) -> None:
    """R6."""
    with pytest.raises(TypeError):
        guard(world.ground, trio.testing.memory_stream_pair()[0])
    with trio.socket.socket() as unconnected:
        with pytest.raises(ValueError, match="not connected"):
            guard(world.ground, unconnected)
    with pytest.raises(trio.ClosedResourceError):
        guard(world.ground, unconnected)


async def test_a_guard_that_is_never_entered_leaves_nothing_behind(world: World) -> None:
    """R5."""
    stream, _ = world.stream()
    guard(world.ground, stream)
    assert list(world.registry) == []


async def test_a_guard_is_entered_once(world: World) -> None:
    """R16."""
    stream, _ = world.stream()
    made = guard(world.ground, stream)
    with made:
        pass
    with pytest.raises(RuntimeError, match="only once"), made:
        pytest.fail("entered twice")


async def test_entering_and_leaving_are_no_checkpoints(world: World) -> None:
    """R16."""
    stream, _ = world.stream()
    with trio.testing.assert_no_checkpoints(), guard(world.ground, stream):
        pass


def test_entering_and_leaving_are_protected_from_keyboard_interrupts() -> None:
    """R16: seen from inside, through the scope and the registry that they call."""
    seen: list[bool] = []

    async def main() -> None:
        world = World()
        stream, _ = world.stream()
        made = guard(world.ground, stream)
        for name in ("attach", "detach"):
            spy_on(Connection, name, seen)
        with made:
            assert not trio.lowlevel.currently_ki_protected()

    originals = {name: getattr(Connection, name) for name in ("attach", "detach")}
    try:
        trio.run(main)
    finally:
        for name, original in originals.items():
            setattr(Connection, name, original)
    assert seen == [True, True]


def spy_on(cls: type[Connection], name: str, seen: list[bool]) -> None:
    original: Callable[[Connection, trio.CancelScope], None] = getattr(cls, name)

    def spy(self: Connection, scope: trio.CancelScope) -> None:
        seen.append(trio.lowlevel.currently_ki_protected())
        original(self, scope)

    setattr(cls, name, spy)


async def test_the_error_leaves_no_circle_behind(world: World) -> None:
    """As Trio's own scopes: what was lost is freed without the collector."""

    async def lose_one() -> weakref.ref[BaseException]:
        stream, _ = world.stream()
        try:
            with guard(world.ground, stream) as connection:
                world.lose(connection)
                await trio.sleep_forever()
        except RouteLostError as error:
            return weakref.ref(error)
        raise AssertionError

    gc.collect()
    gc.disable()
    try:
        assert (await lose_one())() is None
    finally:
        gc.enable()


async def test_hints_are_set_on_the_socket(world: World) -> None:
    client, server = await loopback_pair()
    async with client, server:
        with guard(world.ground, client, tcp_hints=TcpHints(keepalive_idle=7, user_timeout=12.5)):
            assert client.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
            assert client.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 7
            assert client.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL) == 15
            assert client.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 12_500


async def test_hints_are_set_by_the_connection_too_and_only_on_tcp(world: World) -> None:
    client, server = await loopback_pair()
    async with client, server:
        with guard(world.ground, client) as connection, guard(world.ground, connection, tcp_hints=TcpHints()):
            assert client.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
    with trio.socket.socket(type=trio.socket.SOCK_DGRAM) as datagrams:
        await datagrams.connect(("127.0.0.1", 9))
        with pytest.raises(ValueError, match="for TCP, not for udp") as caught:
            guard(world.ground, datagrams, tcp_hints=TcpHints())
        assert list(world.registry) == [], caught.value  # it holds the frames, and nothing is registered by them
        assert datagrams.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 0


async def test_leaving_after_the_pt_has_closed_is_quiet(world: World) -> None:
    """R15."""
    stream, _ = world.stream()
    with guard(world.ground, stream) as connection:
        world.registry.close()
    assert connection.loss is None
