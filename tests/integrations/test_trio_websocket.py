"""trio-websocket over guarded streams: the client by the test's own clock, the server on loopback."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import cast

import pytest
import trio
from trio.testing import MockClock
from trio_websocket import (
    ConnectionClosed,
    ConnectionRejected,
    ConnectionTimeout,
    Endpoint,
    HandshakeError,
    WebSocketConnection,
    WebSocketRequest,
    WebSocketServer,
    wrap_server_stream,
)

from tests.integrations._http import certify
from tests.integrations._websocket import CLIENT_TLS, NAME, EchoServer, each_transport, world_with
from tests.integrations._world import SERVER, World, open_world
from trio_routes import Connection, GuardedStream, NoRouteError, RouteLostError, Verdict, open_pt, testing
from trio_routes.integrations.trio_websocket import open_websocket_url, serve_websocket


def client(world: World, *, tls: bool) -> AbstractAsyncContextManager[WebSocketConnection]:
    scheme = "wss" if tls else "ws"
    return open_websocket_url(world.pt, f"{scheme}://{NAME}/path?query", ssl_context=CLIENT_TLS if tls else None)


@each_transport
async def test_a_message_goes_there_and_back(tls: bool, autojump_clock: MockClock) -> None:
    async with world_with(EchoServer()) as world:
        async with client(world, tls=tls) as websocket:
            assert await websocket.get_message() == "hello"
            await websocket.send_message("again")
            assert await websocket.get_message() == "again"
            assert websocket.path == "/path?query"
        assert len(list(world.pt.connections)) == 0


@each_transport
async def test_a_loss_cancels_the_body_and_leaves_one_bare_error(
    tls: bool, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    async with world_with(EchoServer()) as world:
        began = trio.current_time()
        with pytest.raises(RouteLostError) as caught:
            async with client(world, tls=tls) as websocket:
                await websocket.get_message()
                nursery.start_soon(world.lose_route_soon)
                await websocket.get_message()
        assert trio.current_time() - began == 1.0
        assert caught.value.verdict is Verdict.NO_ROUTE
        assert len(list(world.pt.connections)) == 0


async def test_what_the_library_raises_because_of_a_loss_is_raised_as_the_loss(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """In a shielded scope the cancellation does not reach the body, and the library's error comes first."""
    async with world_with(EchoServer()) as world:
        with pytest.raises(RouteLostError) as caught:
            async with client(world, tls=False) as websocket:
                await websocket.get_message()
                nursery.start_soon(world.lose_route_soon)
                with trio.CancelScope(shield=True):
                    await websocket.get_message()
        assert caught.value.verdict is Verdict.NO_ROUTE


@each_transport
async def test_the_body_s_own_error_leaves_bare(tls: bool, autojump_clock: MockClock) -> None:
    async with world_with(EchoServer()) as world:
        error = LookupError("mine")
        with pytest.raises(LookupError) as caught:
            async with client(world, tls=tls):
                raise error
        assert caught.value is error
        assert error.__context__ is None


async def test_a_server_that_goes_without_a_loss_is_the_library_s_error(autojump_clock: MockClock) -> None:
    async def short(stream: trio.abc.Stream) -> None:
        async with trio.open_nursery() as nursery:
            request = await wrap_server_stream(nursery, stream)
            await request.accept()
            await stream.aclose()
            nursery.cancel_scope.cancel()

    async with open_world() as world:
        world.kernel.listen(SERVER, 80, short, name=NAME)
        with pytest.raises(ConnectionClosed):
            async with client(world, tls=False) as websocket:
                await websocket.get_message()


async def test_a_rejection_is_the_library_s_error(autojump_clock: MockClock) -> None:
    async def rejecting(stream: trio.abc.Stream) -> None:
        async with trio.open_nursery() as nursery:
            request = await wrap_server_stream(nursery, stream)
            await request.reject(403)
            nursery.cancel_scope.cancel()

    async with open_world() as world:
        world.kernel.listen(SERVER, 80, rejecting, name=NAME)
        with pytest.raises(ConnectionRejected):
            async with client(world, tls=False):
                pass


async def test_without_a_route_it_is_the_library_s_error_caused_by_ours(autojump_clock: MockClock) -> None:
    async with world_with(EchoServer()) as world:
        await world.lose_route()
        with pytest.raises(HandshakeError) as caught:
            async with client(world, tls=False):
                pass
        assert isinstance(caught.value.__cause__, NoRouteError)


async def test_connecting_and_the_handshake_have_their_time(autojump_clock: MockClock) -> None:
    async def silent(stream: trio.abc.Stream) -> None:
        while await stream.receive_some():
            pass

    async with open_world() as world:
        world.kernel.listen(SERVER, 80, silent, name=NAME)
        began = trio.current_time()
        with pytest.raises(ConnectionTimeout):
            async with open_websocket_url(world.pt, f"ws://{NAME}", connect_timeout=3):
                pass
        assert trio.current_time() - began == 3
        world.kernel.silence(SERVER)
        with pytest.raises(ConnectionTimeout):
            async with open_websocket_url(world.pt, f"ws://{NAME}", connect_timeout=3):
                pass
        assert trio.current_time() - began == 6


async def test_keep_connected_goes_round_again_after_a_loss(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    server = EchoServer()
    async with world_with(server) as world:

        async def feed(stream: GuardedStream) -> str | bytes:
            async with open_websocket_url(world.pt, f"ws://{NAME}/", stream=stream) as websocket:
                message = await websocket.get_message()
                if server.connections == 1:
                    nursery.start_soon(lose_and_restore)
                    await websocket.get_message()
                return message

        async def lose_and_restore() -> None:
            await world.lose_route_soon()
            await trio.sleep(5)
            await world.restore_route()

        assert await world.pt.keep_connected(feed, NAME, 80) == "hello"
        assert server.connections == 2


@pytest.mark.parametrize("url", ["http://feed.example/", "ws:///path"])
async def test_other_urls_are_refused(url: str) -> None:
    async with open_pt() as pt:
        with pytest.raises(ValueError, match="not the URL of a WebSocket"):
            async with open_websocket_url(pt, url):
                pass


@each_transport
async def test_a_server_s_handler_sees_its_connection_closed_and_the_others_go_on(tls: bool) -> None:
    closed = trio.Event()

    async def handler(request: WebSocketRequest) -> None:
        websocket = await request.accept()
        try:
            while True:
                await websocket.send_message(await websocket.get_message())
        except ConnectionClosed as error:
            if error.reason is not None and error.reason.code == 1006:  # as for anybody who goes without a goodbye
                closed.set()

    ours, theirs = certify("127.0.0.1")
    async with open_pt() as pt, trio.open_nursery() as nursery:
        server = await nursery.start(partial(serve_websocket, pt, handler, "127.0.0.1", 0, theirs if tls else None))
        [endpoint] = server.listeners
        assert isinstance(endpoint, Endpoint)
        assert endpoint.is_ssl is tls
        assert server.port == endpoint.port

        def dial() -> AbstractAsyncContextManager[WebSocketConnection]:
            # Ours: the library's own would leave the socket that was reset to the garbage collector.
            return open_websocket_url(pt, endpoint.url, ssl_context=ours if tls else None)

        def accepted() -> set[Connection]:
            return {each for each in pt.connections if each.flow.local_port == endpoint.port}

        async with dial() as other:
            await other.send_message("there?")
            assert await other.get_message() == "there?"
            others = accepted()
            async with dial() as one:
                await one.send_message("there?")
                assert await one.get_message() == "there?"
                [lost] = accepted() - others
                testing.lose(lost)
                with pytest.raises(ConnectionClosed):
                    await one.get_message()
                await closed.wait()
            await other.send_message("still there?")
            assert await other.get_message() == "still there?"
        nursery.cancel_scope.cancel()


async def test_an_ipv6_address_is_connected_to_and_named_as_in_the_url() -> None:
    requests: list[bytes] = []

    async def refuse(stream: trio.SocketStream) -> None:
        requests.append(bytes(await stream.receive_some()))
        await stream.send_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")

    async with open_pt() as pt, trio.open_nursery() as nursery:
        [listener] = await trio.open_tcp_listeners(0, host="::1")
        port = listener.socket.getsockname()[1]
        nursery.start_soon(trio.serve_listeners, refuse, [listener])
        with pytest.raises(ConnectionRejected):
            async with open_websocket_url(pt, f"ws://user@[::1]:{port}/"):
                pass
        assert b"Host: [::1]:%d\r\n" % port in requests[0]
        nursery.cancel_scope.cancel()


async def test_the_library_s_own_server_takes_guarded_listeners() -> None:
    """What an application does that has a server of its own already: no adapter."""
    closed = trio.Event()

    async def handler(request: WebSocketRequest) -> None:
        websocket = await request.accept()
        with pytest.raises(ConnectionClosed):
            await websocket.get_message()
        closed.set()

    async with open_pt() as pt, trio.open_nursery() as nursery:
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        port = listener.socket.getsockname()[1]
        guarded = cast("list[trio.SocketListener]", [pt.guard_listener(listener)])
        nursery.start_soon(WebSocketServer(handler, guarded).run)
        async with open_websocket_url(pt, f"ws://127.0.0.1:{port}/") as websocket:
            [accepted] = [each for each in pt.connections if each.flow.local_port == port]
            testing.lose(accepted)
            with pytest.raises(ConnectionClosed):
                await websocket.get_message()
            await closed.wait()
        nursery.cancel_scope.cancel()
