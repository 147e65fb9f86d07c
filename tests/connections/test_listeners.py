"""Servers with guarded streams: their handlers are not cancelled, and end quietly by their own loss only."""

from __future__ import annotations

import socket
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio
import trio.testing
import trustme

from tests.connections._world import OTHER_PEER, World, certify
from trio_routes._errors import RouteLostError
from trio_routes.connections._guard import guard
from trio_routes.connections._listeners import GuardedListener, guard_listener, serve_ssl_over_tcp, serve_tcp
from trio_routes.connections._stream import GuardedStream, guard_stream


@asynccontextmanager
async def serving(
    world: World, handler: Callable[[GuardedStream], Awaitable[object]]
) -> AsyncGenerator[Callable[[], Awaitable[trio.SocketStream]], None]:
    """A server on loopback; gives what connects to it."""
    async with trio.open_nursery() as nursery:
        listeners: list[GuardedListener] = await nursery.start(
            partial(serve_tcp, world.ground, handler, 0, host="127.0.0.1")
        )
        yield partial(trio.open_tcp_stream, *listeners[0].socket.getsockname())
        nursery.cancel_scope.cancel()


async def test_a_handler_is_not_cancelled_and_can_save_its_state(world: World) -> None:
    """R35."""
    saved: list[bytes | bytearray] = []
    done = trio.Event()

    async def handler(stream: GuardedStream) -> None:
        data = await stream.receive_some()
        try:
            world.lose(stream.connection)
            await stream.receive_some()
        except RouteLostError:
            await trio.lowlevel.checkpoint()  # would raise, were the task cancelled
            saved.append(data)
            done.set()

    async with serving(world, handler) as connect, await connect() as client:
        await client.send_all(b"state")
        await done.wait()
    assert saved == [b"state"]


async def plainly(world: World, stream: GuardedStream) -> None:
    world.lose(stream.connection)
    await stream.receive_some()


async def under_a_librarys_error(world: World, stream: GuardedStream) -> None:
    try:
        await plainly(world, stream)
    except RouteLostError as error:
        raise RuntimeError("a library's own error") from error


async def from_two_tasks(world: World, stream: GuardedStream) -> None:
    async with trio.open_nursery() as outer, trio.open_nursery() as inner:
        outer.start_soon(under_a_librarys_error, world, stream)
        inner.start_soon(plainly, world, stream)


async def out_of_a_guard(world: World, stream: GuardedStream) -> None:
    with guard(world.ground, stream) as connection:
        world.lose(connection)
        await trio.sleep_forever()


@pytest.mark.parametrize("ending", [plainly, under_a_librarys_error, from_two_tasks, out_of_a_guard])
async def test_a_handler_that_ends_by_its_own_loss_ends_quietly(
    world: World, ending: Callable[[World, GuardedStream], Awaitable[None]]
) -> None:
    """R36: bare, as a cause, in a group, from a guard; the server serves on."""
    served = 0

    async def handler(stream: GuardedStream) -> None:
        nonlocal served
        served += 1
        if served == 1:
            await ending(world, stream)
        await stream.send_all(b"served")

    async with serving(world, handler) as connect:
        async with await connect() as first:
            with pytest.raises(trio.BrokenResourceError):
                while await first.receive_some():
                    pass
                raise trio.BrokenResourceError("ended")
        async with await connect() as second:
            assert await second.receive_some() == b"served"
    assert list(world.registry) == []


async def a_bug(world: World, stream: GuardedStream) -> None:
    world.lose(stream.connection)
    raise KeyError("a bug")


async def a_bug_beside_the_loss(world: World, stream: GuardedStream) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(a_bug, world, stream)
        with trio.CancelScope(shield=True):
            await plainly(world, stream)


async def the_loss_of_another(world: World, stream: GuardedStream) -> None:
    other = guard_stream(world.ground, world.stream(OTHER_PEER)[0])
    world.lose(other.connection)
    await other.receive_some()


async def a_bug_with_the_loss_as_context_only(world: World, stream: GuardedStream) -> None:
    try:
        await plainly(world, stream)
    except RouteLostError:
        raise KeyError("a bug in the cleanup")  # noqa: B904 -- the context is what this is about


async def under_an_error_that_a_bug_caused_too(world: World, stream: GuardedStream) -> None:
    try:
        await a_bug_beside_the_loss(world, stream)
    except ExceptionGroup as group:
        raise RuntimeError("a library's own error") from group


@pytest.mark.parametrize(
    ("ending", "kind"),
    [
        (under_an_error_that_a_bug_caused_too, RuntimeError),
        (a_bug, KeyError),
        (a_bug_beside_the_loss, KeyError),
        (the_loss_of_another, RouteLostError),
        (a_bug_with_the_loss_as_context_only, KeyError),
    ],
)
async def test_anything_else_ends_the_server(
    world: World, ending: Callable[[World, GuardedStream], Awaitable[None]], kind: type[Exception]
) -> None:
    """R36: as in Trio."""

    async def handler(stream: GuardedStream) -> None:
        await ending(world, stream)

    with pytest.raises(ExceptionGroup) as caught:
        async with serving(world, handler) as connect, await connect():
            await trio.sleep_forever()
    assert caught.group_contains(kind)


async def test_a_loss_does_not_come_out_of_a_server_that_is_cancelled(world: World) -> None:
    """R36: a handler's group of Cancelled and its own loss goes on as Cancelled."""
    ready = trio.Event()

    async def handler(stream: GuardedStream) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(shielded, stream)
            ready.set()
            await trio.sleep_forever()

    async def shielded(stream: GuardedStream) -> None:
        with trio.CancelScope(shield=True):
            await stream.receive_some()

    with trio.CancelScope() as scope:
        async with serving(world, handler) as connect, await connect():
            await ready.wait()
            await trio.testing.wait_all_tasks_blocked()
            [connection] = world.registry
            scope.cancel()
            world.lose(connection)
            await trio.sleep_forever()
    assert scope.cancelled_caught


async def test_the_server_closes_what_a_handler_leaves_open(world: World) -> None:
    """R1."""

    async def handler(stream: GuardedStream) -> None:
        await stream.send_all(b"bye")

    async with serving(world, handler) as connect:
        async with await connect() as client:
            assert await client.receive_some() == b"bye"
            assert await client.receive_some() == b""
        await trio.testing.wait_all_tasks_blocked()
        assert list(world.registry) == []


async def test_a_connection_that_is_reset_before_it_is_accepted_is_passed_over(world: World) -> None:
    [inner] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    listener = guard_listener(world.ground, inner)
    address = listener.socket.getsockname()
    async with listener:
        with socket.create_connection(address) as hasty:
            hasty.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        patient = await trio.open_tcp_stream(*address)
        with trio.fail_after(5):
            stream = await listener.accept()
        assert stream.connection.flow.peer_port == patient.socket.getsockname()[1]
        await stream.aclose()
        await patient.aclose()


async def test_a_listener_of_a_closed_pt_closes_what_it_accepts(world: World) -> None:
    """R6."""
    [inner] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with guard_listener(world.ground, inner) as listener:
        world.registry.close()
        client = await trio.open_tcp_stream(*listener.socket.getsockname())
        with pytest.raises(trio.ClosedResourceError):
            await listener.accept()
        assert await client.receive_some() == b""
        await client.aclose()


async def test_tls_is_served_on_guarded_streams_and_its_own_loss_is_quiet(world: World) -> None:
    """R36."""
    ours, theirs = certify(trustme.CA(), "localhost")

    async def handler(stream: trio.SSLStream[GuardedStream]) -> None:
        await stream.send_all(b"hello")
        world.lose(stream.transport_stream.connection)
        await stream.receive_some()

    async with trio.open_nursery() as nursery:
        listeners: list[trio.SSLListener[GuardedStream]] = await nursery.start(
            partial(serve_ssl_over_tcp, world.ground, handler, 0, theirs, host="127.0.0.1")
        )
        transport = listeners[0].transport_listener
        assert isinstance(transport, GuardedListener)
        for _ in range(2):  # the second shows that the first did not end the server
            raw = await trio.open_tcp_stream(*transport.socket.getsockname())
            client = trio.SSLStream(raw, ours, server_hostname="localhost")
            assert await client.receive_some() == b"hello"
            await trio.aclose_forcefully(client)
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("of_another", [False, True])
async def test_what_tls_says_long_after_its_loss_is_that_loss_and_of_another_is_not(
    world: World, of_another: bool
) -> None:
    """R36: trio.SSLStream lets RouteLostError pass once; its later BrokenResourceErrors name no reason."""
    ours, theirs = certify(trustme.CA(), "localhost")

    async def handler(stream: trio.SSLStream[GuardedStream]) -> None:
        await stream.send_all(b"hello")
        world.lose(stream.transport_stream.connection)
        with pytest.raises(RouteLostError):
            await stream.send_all(b"more")
        if of_another:
            other = guard_stream(world.ground, world.stream(OTHER_PEER)[0])
            world.lose(other.connection)
            stream = trio.SSLStream(other, ours, server_hostname="localhost")
            with pytest.raises(RouteLostError):
                await stream.send_all(b"more")
        await stream.send_all(b"goodbye")

    async def serve_two() -> None:
        async with trio.open_nursery() as nursery:
            [listener] = await nursery.start(
                partial(serve_ssl_over_tcp, world.ground, handler, 0, theirs, host="127.0.0.1")
            )
            for _ in range(2):
                raw = await trio.open_tcp_stream(*listener.transport_listener.socket.getsockname())
                client = trio.SSLStream(raw, ours, server_hostname="localhost")
                assert await client.receive_some() == b"hello"
                with pytest.raises(trio.BrokenResourceError):
                    await client.receive_some()
                await trio.aclose_forcefully(client)
            nursery.cancel_scope.cancel()

    if not of_another:
        return await serve_two()
    with pytest.raises(ExceptionGroup) as caught:
        await serve_two()
    assert caught.group_contains(trio.BrokenResourceError)
    assert not caught.group_contains(RouteLostError)
    return None
