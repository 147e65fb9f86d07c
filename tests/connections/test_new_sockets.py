"""Guarding the sockets that other libraries make: when they are taken in, and when they are let go."""

from __future__ import annotations

import gc
import socket

import pytest
import trio
import trio.testing

from tests.connections._world import World
from trio_routes._errors import RouteLostError
from trio_routes.connections._flow import socket_of
from trio_routes.connections._guard import guard
from trio_routes.connections._new_sockets import NewSockets, guard_new_sockets
from trio_routes.connections._policy import Policy


class Peer:
    """A listener on loopback."""

    def __init__(self, listener: trio.SocketListener) -> None:
        self.address: tuple[str, int] = listener.socket.getsockname()
        self.listener = listener

    async def connect(self) -> trio.SocketStream:
        """As a library would, that knows nothing of us."""
        return await trio.open_tcp_stream(*self.address)


@pytest.fixture
async def peer() -> Peer:
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    return Peer(listener)


def current_factory() -> trio.abc.SocketFactory | None:
    installed = trio.socket.set_custom_socket_factory(None)
    trio.socket.set_custom_socket_factory(installed)
    return installed


async def test_what_connects_inside_is_registered_when_somebody_looks(world: World, peer: Peer) -> None:
    async with await peer.connect() as before:
        with guard_new_sockets(world.ground, policy=Policy.patient()):
            async with await peer.connect() as inside:
                found = world.registry.find(inside)
                assert found is not None and found.policy == Policy.patient()
                assert list(world.registry) == [found]
                assert world.registry.find(before) is None
                assert world.registry.find(peer.listener.socket) is None
        async with await peer.connect() as after:
            assert world.registry.find(after) is None
    await peer.listener.aclose()


async def test_it_is_registered_before_a_change_is_applied(world: World, peer: Peer) -> None:
    with guard_new_sockets(world.ground):
        async with await peer.connect():
            assert world.registry._records == {}  # nobody has looked
            world.registry.take_in()  # as the follow task does before it applies what came in
            assert len(world.registry._records) == 1
    await peer.listener.aclose()


async def test_its_owner_sees_a_plain_reset(world: World, peer: Peer) -> None:
    with guard_new_sockets(world.ground):
        async with await peer.connect() as stream, trio.open_nursery() as nursery:

            async def receive() -> None:
                with pytest.raises(trio.BrokenResourceError) as caught:
                    await stream.receive_some()
                assert not isinstance(caught.value, RouteLostError)

            nursery.start_soon(receive)
            await trio.testing.wait_all_tasks_blocked()
            connection = world.registry.find(stream)
            assert connection is not None
            world.lose(connection)
    assert world.registry.history == (connection,)
    await peer.listener.aclose()


async def test_a_socket_that_is_not_connected_yet_is_no_connection_yet(world: World, peer: Peer) -> None:
    with guard_new_sockets(world.ground):
        with trio.socket.socket() as sock:
            assert world.registry.find(sock) is None and list(world.registry) == []
            await sock.connect(peer.address)
            assert world.registry.find(sock) is not None
        with trio.socket.socket(type=socket.SOCK_DGRAM) as datagrams:
            await datagrams.connect(peer.address)
            assert world.registry.find(datagrams) is None  # its owner would not be woken
    await peer.listener.aclose()


async def test_what_the_application_guards_itself_is_the_same_connection(world: World, peer: Peer) -> None:
    with guard_new_sockets(world.ground):
        async with await peer.connect() as stream:
            with guard(world.ground, stream, label="mine") as connection:
                assert list(world.registry) == [connection] and connection.label == "mine"
            assert list(world.registry) == [connection]
        assert list(world.registry) == []
    await peer.listener.aclose()


async def test_a_socket_that_is_collected_or_closed_is_let_go(world: World, peer: Peer) -> None:
    with guard_new_sockets(world.ground) as _:
        factory = current_factory()
        assert isinstance(factory, NewSockets)
        stream = await peer.connect()
        assert world.registry.find(stream) is not None
        await stream.aclose()
        del stream
        gc.collect()
        assert list(world.registry) == []
        kept: list[trio.SocketStream] = []  # as in a pool: the objects are still there
        for _ in range(3):
            more = [await peer.connect() for _ in range(40)]
            world.registry.take_in()
            kept += more
            for each in more:
                await each.aclose()
        assert len(factory._guarded) <= 80  # though nobody has looked
        assert list(world.registry) == [] and factory._guarded == []
    await peer.listener.aclose()


async def test_leaving_restores_the_former_factory_and_guards_nothing_any_more(world: World, peer: Peer) -> None:
    class Counting(trio.abc.SocketFactory):
        made = 0

        def socket(
            self, family: int = socket.AF_INET, type: int = socket.SOCK_STREAM, proto: int = 0
        ) -> trio.socket.SocketType:
            self.made += 1
            return trio.socket.from_stdlib_socket(socket.socket(family, type, proto))

    former = Counting()
    trio.socket.set_custom_socket_factory(former)
    try:
        with guard_new_sockets(world.ground):
            stream = await peer.connect()
            assert former.made == 1  # it still makes them
            assert world.registry.find(stream) is not None
        assert current_factory() is former
        assert world.registry.find(stream) is None
        assert socket_of(stream) is not None and stream.socket.fileno() != -1
        await stream.aclose()
        # Somebody who put his own on top of ours, and has not taken it away, keeps it.
        with guard_new_sockets(world.ground):
            on_top = Counting()
            trio.socket.set_custom_socket_factory(on_top)
        assert current_factory() is on_top
    finally:
        trio.socket.set_custom_socket_factory(None)
    await peer.listener.aclose()


async def test_only_one_at_a_time_can_do_it_and_each_once(world: World) -> None:
    block = guard_new_sockets(world.ground)
    with block:
        with pytest.raises(RuntimeError, match="guarded already"):
            guard_new_sockets(world.ground).__enter__()
        assert current_factory() is block
    with pytest.raises(RuntimeError, match="only once"):
        block.__enter__()
    assert current_factory() is None
    world.registry.close()
    with pytest.raises(trio.ClosedResourceError):
        guard_new_sockets(world.ground)


async def test_the_end_of_the_pt_inside_the_block_harms_nobody(world: World, peer: Peer) -> None:
    with guard_new_sockets(world.ground):
        async with await peer.connect() as stream:
            world.registry.close()
            assert world.registry.find(stream) is None
            await stream.send_all(b"x")
    await peer.listener.aclose()
