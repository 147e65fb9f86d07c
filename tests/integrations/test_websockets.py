"""websockets over guarded streams: the client by the test's own clock, the server on loopback."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import partial
from typing import cast

import pytest
import trio
from trio.testing import MockClock
from websockets.exceptions import ConnectionClosedError
from websockets.trio.client import ClientConnection, connect as plain_connect
from websockets.trio.server import ServerConnection, serve as plain_serve

from tests.integrations._websocket import CLIENT_TLS, NAME, SERVER_TLS, EchoServer, each_transport, world_with
from tests.integrations._world import SERVER, World
from trio_routes import NoRouteError, RouteLostError, Standing, Verdict, open_pt, testing
from trio_routes.integrations.websockets import (
    GuardedClientConnection,
    GuardedServerConnection,
    connect,
    serve,
)


def client(world: World, *, tls: bool) -> connect:
    return connect(world.pt, f"wss://{NAME}/", ssl=CLIENT_TLS) if tls else connect(world.pt, f"ws://{NAME}/")


@each_transport
async def test_a_message_goes_there_and_back(tls: bool, autojump_clock: MockClock) -> None:
    async with world_with(EchoServer()) as world, client(world, tls=tls) as websocket:
        assert await websocket.recv() == "hello"
        await websocket.send("again")
        assert await websocket.recv() == "again"
    assert len(list(world.pt.connections)) == 0


@each_transport
async def test_a_loss_ends_the_connection_with_the_library_s_error_caused_by_ours(
    tls: bool, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    async with world_with(EchoServer()) as world:
        began = trio.current_time()
        with pytest.raises(ConnectionClosedError) as caught:
            async with client(world, tls=tls) as websocket:
                await websocket.recv()
                nursery.start_soon(world.lose_route_soon)
                await websocket.recv()
        assert trio.current_time() - began == 1.0  # and no closing handshake, which nobody would hear
        assert isinstance(caught.value.__cause__, RouteLostError)
        assert caught.value.__cause__.verdict is Verdict.NO_ROUTE


@each_transport
async def test_what_is_sent_after_a_loss_raises_the_same(tls: bool, autojump_clock: MockClock) -> None:
    async with world_with(EchoServer()) as world:
        with pytest.raises(ConnectionClosedError) as caught:
            async with client(world, tls=tls) as websocket:
                await websocket.recv()
                await world.lose_route()
                await trio.sleep(2)
                await websocket.send("nobody hears this")
        assert isinstance(caught.value.__cause__, RouteLostError)


@each_transport
async def test_a_guard_block_around_the_client_ends_bare(
    tls: bool, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """Rule R26, with the library's own connect()."""
    async with world_with(EchoServer()) as world:
        stream = await world.pt.open_tcp_stream(NAME, 443 if tls else 80)
        began = trio.current_time()
        with pytest.raises(RouteLostError) as caught, world.pt.guard(stream):
            async with own_connect(stream, tls=tls) as websocket:
                await websocket.recv()
                nursery.start_soon(world.lose_route_soon)
                await websocket.recv()
        assert trio.current_time() - began == 1.0
        assert caught.value.__cause__ is None


@each_transport
async def test_a_guard_block_inside_the_client_ends_bare(
    tls: bool, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """Rule R26, with the library's own connect()."""
    async with world_with(EchoServer()) as world:
        stream = await world.pt.open_tcp_stream(NAME, 443 if tls else 80)
        began = trio.current_time()
        with pytest.raises(RouteLostError) as caught:
            async with own_connect(stream, tls=tls) as websocket:
                with world.pt.guard(stream):
                    await websocket.recv()
                    nursery.start_soon(world.lose_route_soon)
                    await websocket.recv()
        assert trio.current_time() - began == 1.0
        assert caught.value.__cause__ is None


def own_connect(stream: trio.abc.Stream, *, tls: bool) -> plain_connect:
    if tls:
        return plain_connect(f"wss://{NAME}/", stream=stream, ssl=CLIENT_TLS)
    return plain_connect(f"ws://{NAME}/", stream=stream)


async def test_without_a_route_the_client_says_so_at_once(autojump_clock: MockClock) -> None:
    async with world_with(EchoServer()) as world:
        await world.lose_route()
        began = trio.current_time()
        with pytest.raises(NoRouteError):
            async with client(world, tls=False):
                pass
        assert trio.current_time() == began


async def test_the_client_may_wait_for_the_route(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    async with world_with(EchoServer()) as world:
        await world.lose_route()

        async def restore() -> None:
            await trio.sleep(7)
            await world.restore_route()

        nursery.start_soon(restore)
        began = trio.current_time()
        async with connect(world.pt, f"ws://{NAME}/", wait_for_route=True):
            assert trio.current_time() - began == 7


async def test_as_an_iterator_the_client_connects_again(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    async with world_with(EchoServer()) as world:
        ends: list[BaseException | None] = []
        async with aclosing(cast("AsyncGenerator[ClientConnection]", aiter(client(world, tls=False)))) as connections:
            async for websocket in connections:
                assert await websocket.recv() == "hello"
                if ends:
                    break
                try:
                    nursery.start_soon(world.lose_route_soon)
                    await websocket.recv()
                except ConnectionClosedError as error:
                    ends.append(error.__cause__)
                    await world.restore_route()
        assert [type(end) for end in ends] == [RouteLostError]


async def test_a_loss_during_the_tls_handshake_is_worth_another_try(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    server = EchoServer()
    async with world_with(server) as world:
        attempts: list[trio.abc.Stream] = []

        async def silent_at_first(stream: trio.abc.Stream) -> None:
            attempts.append(stream)
            if len(attempts) > 1:
                await server.serve_tls(SERVER_TLS, stream)
            while len(attempts) == 1 and await stream.receive_some():
                pass

        async def lose_for_a_while() -> None:
            await world.lose_route_soon()
            await trio.sleep(2)
            await world.restore_route()

        world.kernel.listen(SERVER, 443, silent_at_first)
        nursery.start_soon(lose_for_a_while)
        async with aclosing(cast("AsyncGenerator[ClientConnection]", aiter(client(world, tls=True)))) as connections:
            async for websocket in connections:
                assert await websocket.recv() == "hello"
                break
        assert len(attempts) > 1


@each_transport
async def test_a_connection_tells_its_addresses_and_its_standing(tls: bool, autojump_clock: MockClock) -> None:
    async with world_with(EchoServer()) as world, client(world, tls=tls) as websocket:
        assert isinstance(websocket, GuardedClientConnection)
        assert websocket.local_address[0] == "192.0.2.2"
        assert websocket.remote_address == (SERVER, 443 if tls else 80)
        assert websocket.route.standing is Standing.GOOD
        await world.lose_route()
        assert websocket.route.deadline == trio.current_time() + 1
        await world.restore_route()


async def test_a_proxy_is_connected_to_and_guarded(autojump_clock: MockClock) -> None:
    """On loopback: the library makes the connection to a proxy by itself."""

    async def proxy(stream: trio.SocketStream) -> None:
        request = b""
        while b"\r\n\r\n" not in request:
            request += await stream.receive_some(1)
        assert request.startswith(b"CONNECT feed.example:80 ")
        await stream.send_all(b"HTTP/1.1 200 OK\r\n\r\n")
        await EchoServer().serve(stream)

    async with open_pt() as pt, trio.open_nursery() as nursery:
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, proxy, [listener])
        port = listener.socket.getsockname()[1]
        async with connect(pt, f"ws://{NAME}/", proxy=f"http://127.0.0.1:{port}") as websocket:
            assert await websocket.recv() == "hello"
            assert isinstance(websocket, GuardedClientConnection)
            assert websocket.remote_address == ("127.0.0.1", port)
            testing.lose(websocket.route)
            with pytest.raises(ConnectionClosedError):
                await websocket.recv()
        nursery.cancel_scope.cancel()


@each_transport
async def test_a_server_s_handler_learns_of_its_loss_and_the_others_go_on(tls: bool) -> None:
    lost: list[BaseException | None] = []
    done = trio.Event()

    async def handler(websocket: GuardedServerConnection) -> None:
        assert websocket.local_address[0] == websocket.remote_address[0] == "127.0.0.1"
        try:
            while True:
                message = await websocket.recv()
                if message == "lose":
                    testing.lose(websocket.route)
                await websocket.send(message)
        except ConnectionClosedError as error:
            lost.append(error.__cause__)
            done.set()

    async with open_pt() as pt, trio.open_nursery() as nursery:
        server = await nursery.start(partial(serve, pt, handler, 0, host="127.0.0.1", ssl=SERVER_TLS if tls else None))
        port = server.listeners[0].socket.getsockname()[1]
        scheme = "wss" if tls else "ws"

        def dial() -> plain_connect:
            return plain_connect(f"{scheme}://{NAME}/", ssl=CLIENT_TLS if tls else None, host="127.0.0.1", port=port)

        async with dial() as other, dial() as one:
            with pytest.raises(ConnectionClosedError):
                await one.send("lose")
                await one.recv()
            await done.wait()
            await other.send("still there?")
            assert await other.recv() == "still there?"
        nursery.cancel_scope.cancel()
    assert [type(error) for error in lost] == [RouteLostError]


async def test_the_library_s_own_server_takes_guarded_listeners() -> None:
    """What an application does that has a server of its own already: no adapter."""
    causes: list[BaseException | None] = []
    closed = trio.Event()

    async def handler(websocket: ServerConnection) -> None:
        with pytest.raises(ConnectionClosedError) as caught:
            await websocket.recv()
        causes.append(caught.value.__cause__)
        closed.set()

    async with open_pt() as pt, trio.open_nursery() as nursery:
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        port = listener.socket.getsockname()[1]
        guarded = cast("list[trio.SocketListener]", [pt.guard_listener(listener)])
        await nursery.start(partial(plain_serve, handler, listeners=guarded))
        async with connect(pt, f"ws://127.0.0.1:{port}/") as websocket:
            [accepted] = [each for each in pt.connections if each.flow.local_port == port]
            testing.lose(accepted)
            with pytest.raises(ConnectionClosedError) as caught:
                await websocket.recv()
            assert not isinstance(caught.value.__cause__, RouteLostError)  # the peer's affair
            await closed.wait()
        nursery.cancel_scope.cancel()
    assert [type(cause) for cause in causes] == [RouteLostError]


async def test_a_server_needs_a_port_or_listeners() -> None:
    async def handler(websocket: GuardedServerConnection) -> None:
        pass

    async with open_pt() as pt:
        with pytest.raises(ValueError, match="either a port or listeners"):
            await serve(pt, handler)


async def test_a_connection_over_a_bare_stream_has_no_route_to_tell(autojump_clock: MockClock) -> None:
    async with world_with(EchoServer()) as world:
        stream = await world.kernel.connect_tcp((await world.kernel.resolve(NAME, 80))[0], 80)
        async with connect(world.pt, f"ws://{NAME}/", stream=stream) as websocket:
            assert isinstance(websocket, ClientConnection)
            assert isinstance(websocket, GuardedClientConnection)
            with pytest.raises(TypeError, match="not guarded"):
                print(websocket.route)
