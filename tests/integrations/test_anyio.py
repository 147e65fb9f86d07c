"""anyio's socket streams over guarded ones: the client by the test's own clock, the server on loopback."""

from __future__ import annotations

import socket
from functools import partial

import anyio
import pytest
import trio
from anyio.abc import SocketAttribute, SocketStream
from anyio.streams.tls import TLSStream
from trio.testing import MockClock

from tests.integrations._http import certify
from tests.integrations._world import SERVER, open_world
from trio_routes import NoRouteError, RouteLostError, Verdict, open_pt, testing
from trio_routes.integrations.anyio import GuardedSocketStream, RouteLostResourceError, connect_tcp, serve_tcp

NAME = "db.example"


async def echo(stream: trio.abc.Stream) -> None:
    async for data in stream:
        await stream.send_all(data)


async def test_bytes_go_there_and_back_until_the_end(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        world.kernel.listen(SERVER, 5432, echo, name=NAME)
        async with await connect_tcp(world.pt, NAME, 5432) as stream:
            assert isinstance(stream, SocketStream)
            await stream.send(b"hello")
            assert await stream.receive(3) == b"hel"
            assert await stream.receive() == b"lo"
            await stream.send_eof()
            with pytest.raises(anyio.EndOfStream):
                await stream.receive()
        with pytest.raises(anyio.ClosedResourceError):
            await stream.receive()
        with pytest.raises(anyio.ClosedResourceError):
            await stream.send(b"too late")


async def test_a_loss_is_anyio_s_error_and_trio_s(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    async with open_world() as world:
        world.kernel.listen(SERVER, 5432, echo, name=NAME)
        async with await connect_tcp(world.pt, NAME, 5432) as stream:
            began = trio.current_time()
            nursery.start_soon(world.lose_route_soon)
            with pytest.raises(RouteLostResourceError) as caught:
                await stream.receive()
            assert trio.current_time() - began == 1.0
            assert issubclass(RouteLostResourceError, anyio.BrokenResourceError)
            assert issubclass(RouteLostResourceError, RouteLostError)
            assert caught.value.verdict is Verdict.NO_ROUTE
            for call in (stream.receive, partial(stream.send, b"x"), stream.send_eof):
                with pytest.raises(RouteLostResourceError):
                    await call()


async def test_a_loss_passes_through_anyio_s_tls(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    ours, theirs = certify(NAME)

    async def echo_tls(stream: trio.abc.Stream) -> None:
        await echo(trio.SSLStream(stream, theirs, server_side=True))

    async with open_world() as world:
        world.kernel.listen(SERVER, 5432, echo_tls, name=NAME)
        plain = await connect_tcp(world.pt, NAME, 5432)
        stream = await TLSStream.wrap(plain, hostname=NAME, ssl_context=ours, standard_compatible=False)
        await stream.send(b"hello")
        assert await stream.receive() == b"hello"
        nursery.start_soon(world.lose_route_soon)
        with pytest.raises(RouteLostResourceError):
            await stream.receive()
        await stream.aclose()


async def test_other_errors_are_anyio_s_alone(autojump_clock: MockClock) -> None:
    async def reset(stream: trio.abc.Stream) -> None:
        raise trio.BrokenResourceError

    async with open_world() as world:
        world.kernel.listen(SERVER, 5432, reset, name=NAME)
        async with await connect_tcp(world.pt, NAME, 5432) as stream:
            await world.kernel.settle()
            with pytest.raises(anyio.BrokenResourceError) as caught:
                await stream.send(b"x")
            assert not isinstance(caught.value, RouteLostError)


async def test_two_tasks_on_one_side_are_told(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    async with open_world() as world:
        world.kernel.listen(SERVER, 5432, echo, name=NAME)
        async with await connect_tcp(world.pt, NAME, 5432) as stream:
            nursery.start_soon(stream.receive)
            await world.kernel.settle()
            with pytest.raises(anyio.BusyResourceError, match="reading from"):
                await stream.receive()
            await stream.send(b"and now it ends")
            await world.kernel.settle()


async def test_without_a_route_connecting_fails_at_once(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        world.kernel.listen(SERVER, 5432, echo, name=NAME)
        await world.lose_route()
        with pytest.raises(NoRouteError):
            await connect_tcp(world.pt, NAME, 5432)


async def test_in_memory_it_tells_its_addresses(autojump_clock: MockClock) -> None:
    async with open_world() as world:
        world.kernel.listen(SERVER, 5432, echo, name=NAME)
        async with await connect_tcp(world.pt, NAME, 5432) as stream:
            assert stream.extra(SocketAttribute.remote_address) == (SERVER, 5432)
            assert stream.extra(SocketAttribute.remote_port) == 5432
            assert stream.extra(SocketAttribute.local_address)[0] == "192.0.2.2"
            assert stream.extra(SocketAttribute.local_port) == stream.connection.flow.local_port
            assert stream.extra(SocketAttribute.family) == socket.AF_INET
            with pytest.raises(anyio.TypedAttributeLookupError):
                stream.extra(SocketAttribute.raw_socket)


async def test_on_loopback_it_has_all_of_anyio_s_attributes_and_a_server_goes_on_after_a_loss() -> None:
    async def handler(stream: GuardedSocketStream) -> None:
        if await stream.receive() == b"lose me":
            testing.lose(stream.connection)
        await stream.send(b"fine")

    async with open_pt() as pt, trio.open_nursery() as nursery:
        [listener] = await nursery.start(partial(serve_tcp, pt, handler, 0, host="127.0.0.1"))
        port = listener.socket.getsockname()[1]
        async with await connect_tcp(pt, "127.0.0.1", port) as stream:
            assert stream.extra(SocketAttribute.remote_address) == ("127.0.0.1", port)
            assert stream.extra(SocketAttribute.raw_socket).fileno() == stream.guarded.socket.fileno()
            await stream.send(b"lose me")
            with pytest.raises(anyio.BrokenResourceError):
                await stream.receive()
        async with await connect_tcp(pt, "127.0.0.1", port) as stream:
            await stream.send(b"let me be")
            assert await stream.receive() == b"fine"
        nursery.cancel_scope.cancel()
