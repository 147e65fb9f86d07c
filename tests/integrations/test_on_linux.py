"""The adapters on the real kernel, while the default route goes and comes: how soon, and whose descriptors."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial

import httpx  # noqa: ASYNC127 -- the type of both generations
import pytest
import trio
import trio.testing
from websockets.trio.client import connect

from tests.integrations._http import FIRST, SECOND, Generation, HttpServer, certify
from tests.integrations._websocket import EchoServer
from trio_routes import Connection, ConnectionLost, Policy, Pt, RouteLostError, Standing, open_pt
from trio_routes.testing import Lab, TwoUplinks

# Seconds. It takes a millisecond or two; the rest is for a machine that is busy otherwise.
SOON = 1.0

ADDRESS = "198.51.100.7"
CLIENT_TLS, SERVER_TLS = certify(ADDRESS)


class Scene:
    """A device whose pt closes at once, and servers behind the router."""

    def __init__(self, net: TwoUplinks, pt: Pt, server: HttpServer) -> None:
        self.net = net
        self.pt = pt
        self.server = server

    def lose_route(self) -> float:
        """Take the default route away; returns the time at which it was gone, on the clock of `time.monotonic`."""
        self.net.device.delete_route("default", via=self.net.wifi_gateways[4])
        return time.monotonic()

    def restore_route(self) -> None:
        self.net.device.add_route("default", via=self.net.wifi_gateways[4], metric=100)


@asynccontextmanager
async def open_scene(lab: Lab) -> AsyncGenerator[Scene, None]:
    net = lab.two_uplinks(nat=True)
    server, echo = HttpServer(), EchoServer()
    async with trio.open_nursery() as nursery:
        services: dict[int, Callable[[trio.SocketStream], Awaitable[None]]] = {
            80: server.serve,
            443: partial(server.serve_tls, SERVER_TLS),
            8080: quietly(echo.serve),
            8443: quietly(partial(echo.serve_tls, SERVER_TLS)),
        }
        for port, serve in services.items():
            nursery.start_soon(trio.serve_listeners, serve, net.server.listen(port))
        async with open_pt(netns=net.device.netns, policy=Policy.immediate()) as pt:
            yield Scene(net, pt, server)
        nursery.cancel_scope.cancel()


def quietly(serve: Callable[[trio.abc.Stream], Awaitable[None]]) -> Callable[[trio.abc.Stream], Awaitable[None]]:
    """A server's handler that takes a reset of its connection for an end."""

    async def serve_one(stream: trio.abc.Stream) -> None:
        try:
            await serve(stream)
        except* trio.BrokenResourceError:
            pass

    return serve_one


def connection_of(response: httpx.Response) -> Connection:
    connection = response.extensions["network_stream"].get_extra_info("connection")
    assert isinstance(connection, Connection)
    return connection


def standing_of(connection: Connection) -> Standing:
    """A call, because type checkers take a property to keep its value."""
    return connection.standing


@pytest.mark.parametrize("library", [FIRST, SECOND], ids=lambda library: library.name)
@pytest.mark.parametrize("version", ["HTTP/1.1", "HTTP/1.1 over TLS", "HTTP/2"])
async def test_a_request_in_flight_fails_at_once_and_the_next_connects_anew(
    lab: Lab, library: Generation, version: str
) -> None:
    async with open_scene(lab) as scene:
        transport = library.transport(scene.pt, verify=CLIENT_TLS, http2=version == "HTTP/2")
        scheme = "http" if version == "HTTP/1.1" else "https"
        async with library.client(transport=transport, base_url=f"{scheme}://{ADDRESS}") as client:
            assert (await client.get("/")).http_version == version.split(maxsplit=1)[0]
            lost_at: list[float] = []

            async def lose_when_asked() -> None:
                await scene.server.wait_requests(2)
                lost_at.append(scene.lose_route())

            async with trio.open_nursery() as nursery:
                nursery.start_soon(lose_when_asked)
                with pytest.raises(library.read_error) as caught:
                    await client.get("/hang")
                seconds = time.monotonic() - lost_at[0]
            assert isinstance(caught.value, RouteLostError)
            assert seconds < SOON
            scene.restore_route()
            assert (await client.get("/again")).text == "/again"
            assert scene.server.connections == 2


@pytest.mark.parametrize("library", [FIRST, SECOND], ids=lambda library: library.name)
@pytest.mark.parametrize("version", ["HTTP/1.1", "HTTP/2"])
async def test_a_lost_idle_connection_is_closed_by_its_pool_and_by_nobody_else(
    lab: Lab, library: Generation, version: str
) -> None:
    async with open_scene(lab) as scene:
        transport = library.transport(scene.pt, verify=CLIENT_TLS, http2=version == "HTTP/2")
        scheme = "http" if version == "HTTP/1.1" else "https"
        async with library.client(transport=transport, base_url=f"{scheme}://{ADDRESS}") as client:
            response = await client.get("/")
            sock = response.extensions["network_stream"].get_extra_info("socket")
            descriptor = sock.fileno()
            inode = os.fstat(descriptor).st_ino
            with scene.pt.subscribe(ConnectionLost) as losses:
                scene.lose_route()
                with trio.fail_after(SOON):
                    await losses.receive()
            assert standing_of(connection_of(response)) is Standing.LOST
            assert sock.fileno() == descriptor
            assert os.fstat(descriptor).st_ino == inode
            scene.restore_route()
            assert (await client.get("/again")).text == "/again"
            assert sock.fileno() == -1
            assert scene.server.connections == 2


@pytest.mark.parametrize("tls", [False, True], ids=["TCP", "TLS"])
@pytest.mark.parametrize("inside", [False, True], ids=["around", "inside"])
async def test_a_guard_block_with_websockets_ends_bare_and_at_once(lab: Lab, tls: bool, inside: bool) -> None:
    """Rule R26."""
    async with open_scene(lab) as scene:
        seconds = await seconds_until_bare(scene, tls=tls, inside=inside)
        assert seconds < SOON


async def seconds_until_bare(scene: Scene, *, tls: bool, inside: bool) -> float:
    """From the route's end until the block has been left."""
    stream = await scene.pt.open_tcp_stream(ADDRESS, 8443 if tls else 8080)
    uri = f"{'wss' if tls else 'ws'}://{ADDRESS}/"
    lost_at: list[float] = []

    async def lose_when_waiting() -> None:
        await trio.testing.wait_all_tasks_blocked()
        lost_at.append(scene.lose_route())

    async with trio.open_nursery() as nursery:
        with pytest.raises(RouteLostError) as caught:
            if inside:
                async with connect(uri, stream=stream, ssl=CLIENT_TLS if tls else None) as websocket:
                    await websocket.recv()
                    with scene.pt.guard(stream):
                        nursery.start_soon(lose_when_waiting)
                        await websocket.recv()
            else:
                with scene.pt.guard(stream):
                    async with connect(uri, stream=stream, ssl=CLIENT_TLS if tls else None) as websocket:
                        await websocket.recv()
                        nursery.start_soon(lose_when_waiting)
                        await websocket.recv()
        seconds = time.monotonic() - lost_at[0]
    assert caught.value.__cause__ is None
    return seconds
