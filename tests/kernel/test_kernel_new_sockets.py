"""`guard_new_sockets` with libraries that know nothing of it, on the real kernel."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable

import anyio
import httpx  # noqa: ASYNC127 -- what most applications still have
import pytest
import trio
import trio.testing

from tests.kernel._world import SOON, losses, open_world
from trio_routes import ConnectionLost, Verdict
from trio_routes.testing import Host, Lab

pytestmark = pytest.mark.netns


class InHost(trio.abc.SocketFactory):
    """Has the libraries of the test's own process live in a host of the lab."""

    def __init__(self, host: Host) -> None:
        self.host = host

    def socket(
        self, family: int = socket.AF_INET, type: int = socket.SOCK_STREAM, proto: int = 0
    ) -> trio.socket.SocketType:
        return self.host.socket(family, type, proto)


async def with_trio(address: str, port: int) -> None:
    async with await trio.open_tcp_stream(address, port) as stream:
        try:
            await stream.receive_some()
        except trio.BrokenResourceError as error:
            raise ConnectionResetError from error


async def with_anyio(address: str, port: int) -> None:
    async with await anyio.connect_tcp(address, port) as stream:
        try:
            await stream.receive()
        except anyio.BrokenResourceError as error:
            raise ConnectionResetError from error


async def with_httpx(address: str, port: int) -> None:
    url = f"http://[{address}]:{port}/" if ":" in address else f"http://{address}:{port}/"
    async with httpx.AsyncClient(trust_env=False, timeout=60) as client:
        try:
            await client.get(url)
        except httpx.ReadError as error:
            raise ConnectionResetError from error


@pytest.mark.parametrize("library", [with_trio, with_anyio, with_httpx])
async def test_whatever_connects_is_ended_when_its_route_goes(
    lab: Lab, family: int, library: Callable[[str, int], Awaitable[None]]
) -> None:
    async with open_world(lab, family) as world:
        await world.add_healthy()
        (listener,) = world.net.server.listen(0, world.server)
        port: int = listener.socket.getsockname()[1]
        trio.socket.set_custom_socket_factory(InHost(world.device))

        async def use() -> None:
            with pytest.raises(ConnectionResetError):
                await library(world.server, port)

        try:
            with world.pt.guard_new_sockets(), world.pt.subscribe(ConnectionLost) as events:
                with trio.fail_after(SOON):
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(use)
                        far = await listener.accept()
                        await trio.testing.wait_all_tasks_blocked()
                        # Nobody has looked at the new connection: it is taken in with the path that is being deleted.
                        world.device.delete_route("default", via=world.wifi)
                        [event] = await losses(events, 1)
                assert event.loss.verdict is Verdict.NO_ROUTE
                assert [str(gateway) for gateway in event.loss.before.gateways] == [world.wifi]
                assert event.connection.flow.peer_port == port
        finally:
            trio.socket.set_custom_socket_factory(None)
        await trio.aclose_forcefully(far)
        await listener.aclose()
        await world.the_healthy_live(lost=1)


async def test_a_socket_of_another_namespace_is_left_alone(lab: Lab) -> None:
    async with open_world(lab, 4) as world:
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        registered = len(world.pt.connections)
        with world.pt.guard_new_sockets():
            async with listener, await trio.open_tcp_stream(*listener.socket.getsockname()):
                assert len(world.pt.connections) == registered
