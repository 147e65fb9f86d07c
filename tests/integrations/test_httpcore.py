"""httpcore and httpcore2 without httpx: their pools, the backend's other ways to connect, and socket options."""

from __future__ import annotations

import socket
from functools import partial
from pathlib import Path
from typing import cast

import httpcore
import pytest
import trio
from trio.testing import MockClock

from tests.integrations._http import FIRST, SECOND, Generation, HttpServer, certify
from tests.integrations._world import SERVER, open_world
from trio_routes import Connection, Policy, RouteLostError, open_pt, testing
from trio_routes.integrations._network import SocketOption

NAME = "www.example"
CLIENT_TLS, SERVER_TLS = certify(NAME)


@pytest.fixture(params=[FIRST, SECOND], ids=["httpcore", "httpcore2"])
def library(request: pytest.FixtureRequest) -> Generation:
    return cast("Generation", request.param)


def info_of(response: httpcore.Response, info: str) -> object:
    extensions = cast("dict[str, httpcore.AsyncNetworkStream]", response.extensions)  # pyright: ignore[reportUnknownMemberType] -- a bare dict
    return cast("object", extensions["network_stream"].get_extra_info(info))


async def test_a_loss_is_httpcore_s_error_and_ours(
    library: Generation, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    async with open_world() as world:
        world.kernel.listen(SERVER, 80, HttpServer().serve, name=NAME)
        async with library.pool(network_backend=library.backend(world.pt)) as pool:
            nursery.start_soon(world.lose_route_soon)
            with pytest.raises(library.core_read_error) as caught:
                await pool.request("GET", f"http://{NAME}/hang")
        assert isinstance(caught.value, library.core_lost_reading)
        assert isinstance(caught.value, RouteLostError)


async def test_the_backend_alone_lets_a_plain_pool_drop_idle_http_1_connections(
    library: Generation, autojump_clock: MockClock
) -> None:
    server = HttpServer()
    async with open_world() as world:
        world.kernel.listen(SERVER, 80, server.serve, name=NAME)
        async with library.plain_pool(network_backend=library.backend(world.pt)) as pool:
            await pool.request("GET", f"http://{NAME}/")
            world.kernel.replace_route("default", via="192.0.2.254")
            await world.kernel.settle()
            await pool.request("GET", f"http://{NAME}/")
        assert server.connections == 2


async def test_a_plain_pool_s_idle_http_2_connection_fails_the_first_request_after_a_loss(
    library: Generation, autojump_clock: MockClock
) -> None:
    """Why there is a pool of ours: httpcore's does not look at such a connection. When it does, ours can go."""
    async with open_world() as world:
        world.kernel.listen(SERVER, 443, partial(HttpServer().serve_tls, SERVER_TLS), name=NAME)
        backend = library.backend(world.pt)
        async with library.plain_pool(ssl_context=CLIENT_TLS, http2=True, network_backend=backend) as pool:
            await pool.request("GET", f"https://{NAME}/")
            await world.lose_route()
            await trio.sleep(2)
            await world.restore_route()
            with pytest.raises(Exception) as caught:  # noqa: PT011 -- which one differs, and does not matter
                await pool.request("GET", f"https://{NAME}/")
            assert isinstance(caught.value, RouteLostError)


async def test_a_pool_s_connections_say_how_their_paths_stand(library: Generation, autojump_clock: MockClock) -> None:
    async with open_world() as world:
        world.kernel.listen(SERVER, 80, HttpServer().serve, name=NAME)
        async with library.pool(network_backend=library.backend(world.pt, policy=Policy.patient())) as pool:
            await pool.request("GET", f"http://{NAME}/")
            [connection] = pool.connections
            assert connection.info().endswith("HTTP/1.1, IDLE, Request Count: 1, good")
            await world.lose_route()
            assert connection.info().endswith("suspect")
            assert "suspect" in repr(connection)
            assert connection.has_expired()
            await world.restore_route()
            assert not connection.has_expired()


async def test_over_a_unix_socket_there_is_no_route_to_lose(library: Generation, tmp_path: Path) -> None:
    server, path = HttpServer(), str(tmp_path / "socket")
    with trio.socket.socket(socket.AF_UNIX) as listening:
        await listening.bind(path)
        listening.listen()
        async with open_pt() as pt, trio.open_nursery() as nursery:
            nursery.start_soon(trio.serve_listeners, server.serve, [trio.SocketListener(listening)])
            async with library.pool(uds=path, network_backend=library.backend(pt)) as pool:
                response = await pool.request("GET", "http://localhost/")
                assert response.content == b"/"
                connection = info_of(response, "connection")
                assert isinstance(connection, Connection)
                assert connection.flow.unjudged
            with pytest.raises(library.core_connect_error):
                async with library.pool(uds=path + "?", network_backend=library.backend(pt)) as pool:
                    await pool.request("GET", "http://localhost/")
            nursery.cancel_scope.cancel()


async def test_on_loopback_options_are_set_and_the_socket_is_shown(library: Generation) -> None:
    server = HttpServer()
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]
    options: list[SocketOption] = [
        (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
        (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, (17).to_bytes(4, "little")),
        (socket.SOL_SOCKET, socket.SO_BINDTODEVICE, None, 0),  # a length without a value: bound to none
    ]
    async with open_pt() as pt, trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, server.serve, [listener])
        backend = library.backend(pt)
        async with library.pool(socket_options=options, local_address="127.0.0.2", network_backend=backend) as pool:
            response = await pool.request("GET", f"http://127.0.0.1:{port}/")
            sock = info_of(response, "socket")
            assert isinstance(sock, trio.socket.SocketType)
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 17
            assert info_of(response, "client_addr") == sock.getsockname()
            assert sock.getsockname()[0] == "127.0.0.2"
            assert info_of(response, "server_addr") == ("127.0.0.1", port)
            assert info_of(response, "is_readable") is False
            connection = info_of(response, "connection")
            assert isinstance(connection, Connection)
            here = sock.getsockname()
            testing.lose(connection)  # the socket knows no peer any more
            assert info_of(response, "server_addr") == ("127.0.0.1", port)
            assert info_of(response, "client_addr") == here
        nursery.cancel_scope.cancel()


async def test_an_option_that_cannot_be_set_is_a_connect_error_and_leaves_nothing_open(library: Generation) -> None:
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with open_pt() as pt, listener:
        backend = library.backend(pt)
        options = [(socket.SOL_SOCKET, 0x7FFF, 1)]
        async with library.pool(socket_options=options, network_backend=backend) as pool:
            with pytest.raises(library.core_connect_error, match="not available"):
                await pool.request("GET", f"http://127.0.0.1:{listener.socket.getsockname()[1]}/")
        assert len(list(pt.connections)) == 0
