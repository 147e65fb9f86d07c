"""Listeners whose address goes and comes back (R37), and ports that several listeners share."""

from __future__ import annotations

import errno
import socket
from functools import partial

import pytest
import trio

from tests.kernel._world import SOON, World, next_of, open_world
from trio_routes import (
    ConnectionLost,
    GuardedListener,
    GuardedStream,
    ListenerDown,
    ListenerUp,
    RouteLostError,
    Verdict,
)
from trio_routes.netlink import LinuxKernel
from trio_routes.testing import Lab

pytestmark = pytest.mark.netns

LENGTH = {4: 24, 6: 64}


async def echo(stream: GuardedStream) -> None:
    async for data in stream:
        await stream.send_all(data)


async def said_again(stream: trio.SocketStream) -> None:
    with trio.fail_after(SOON):
        await stream.send_all(b"?")
        assert await stream.receive_some(1) == b"?"


async def test_r37_a_listener_whose_address_went_is_reported_and_serves_again_when_it_returns(
    lab: Lab, family: int
) -> None:
    async with open_world(lab, family) as world, trio.open_nursery() as nursery:
        await world.add_healthy()
        address = world.net.eth0_addresses[family]
        lost: list[RouteLostError] = []

        async def serve(stream: GuardedStream) -> None:
            try:
                await echo(stream)
            except RouteLostError as error:
                lost.append(error)
                raise

        listeners: list[GuardedListener] = await nursery.start(partial(world.pt.serve_tcp, serve, 0, host=address))
        (listener,) = listeners
        port: int = listener.socket.getsockname()[1]
        descriptor = listener.socket.fileno()
        before = await world.net.neighbour.open_tcp_stream(address, port)
        await said_again(before)
        with world.pt.subscribe(ListenerDown, ListenerUp, ConnectionLost) as events:
            world.net.eth0.delete_address(f"{address}/{LENGTH[family]}")
            down = await next_of(events, ListenerDown)
            assert (str(down.address), down.port) == (address, port)
            # The established connection is judged on its own: it has lost its source address.
            assert (await next_of(events, ConnectionLost)).loss.verdict is Verdict.SOURCE_GONE
            world.net.eth0.add_address(f"{address}/{LENGTH[family]}")
            up = await next_of(events, ListenerUp)
            assert (str(up.address), up.port) == (address, port)
        after = await world.net.neighbour.open_tcp_stream(address, port)
        await said_again(after)
        # The kernel keeps a listening socket: what waits in its backlog is not thrown away, nobody takes the port.
        assert listener.socket.fileno() == descriptor
        assert len(lost) == 1
        for stream in (before, after):
            await trio.aclose_forcefully(stream)
        nursery.cancel_scope.cancel()


async def by_link_local(world: World, address: str, port: int) -> trio.SocketStream:
    neighbour = world.net.neighbour
    sock = neighbour.socket(socket.AF_INET6)
    with trio.fail_after(SOON):
        await sock.connect((address, port, 0, neighbour.links["eth0"].ifindex))
    return trio.SocketStream(sock)


async def test_r37_a_listener_is_bound_again_when_its_link_was_made_anew(lab: Lab) -> None:
    """A link-local address is bound with its link's number, and the new link has another one."""
    address = "fe80::77"
    async with open_world(lab, 6) as world, trio.open_nursery() as nursery:
        wired = world.net.eth0.network
        world.net.eth0.add_address(f"{address}/64")
        await world.applied()
        listeners: list[GuardedListener] = await nursery.start(
            partial(world.pt.serve_tcp, echo, 0, host=f"{address}%eth0")
        )
        (listener,) = listeners
        port: int = listener.socket.getsockname()[1]
        before = await by_link_local(world, address, port)
        await said_again(before)
        with world.pt.subscribe(ListenerDown, ListenerUp) as events:
            world.net.eth0.delete()
            assert str((await next_of(events, ListenerDown)).address) == f"{address}%eth0"
            link = world.device.plug(wired, name="eth0", addresses=[f"{address}/64"])
            up = await next_of(events, ListenerUp)
        assert (str(up.address), up.port) == (f"{address}%eth0", port)
        assert listener.socket.getsockname()[3] == link.ifindex
        # Who spoke to the old link has its hardware address in mind, which is the neighbour's affair.
        await world.net.neighbour.run(["ip", "neigh", "flush", "dev", "eth0"])
        after = await by_link_local(world, address, port)
        await said_again(after)
        for stream in (before, after):
            await trio.aclose_forcefully(stream)
        nursery.cancel_scope.cancel()


async def test_several_listeners_share_a_port_only_where_they_ask_for_it(lab: Lab, family: int) -> None:
    device = lab.two_uplinks(nat=False).device
    here = {4: "127.0.0.1", 6: "::1"}[family]
    kernel = LinuxKernel(device.netns)
    try:
        (first,) = await kernel.listen_tcp(0, host=here, share_port=True)
        port: int = first.socket.getsockname()[1]
        (second,) = await kernel.listen_tcp(port, host=here, share_port=True)
        with pytest.raises(OSError, match="in use") as caught:
            await kernel.listen_tcp(port, host=here)
        assert caught.value.errno == errno.EADDRINUSE
        for listener in (first, second):
            await listener.aclose()
        both = await kernel.listen_tcp(0, share_port=True)
        assert [listener.socket.family for listener in both] == [socket.AF_INET, socket.AF_INET6]
        for listener in both:
            await listener.aclose()
    finally:
        kernel.close()
