"""Listeners and the addresses that they are bound to (R37), with tables that the test writes."""

from __future__ import annotations

import gc
import logging
from ipaddress import IPv4Address, IPv6Address

import pytest
import trio
import trio.testing

from tests.connections._world import World
from trio_routes import ListenerDown, ListenerUp
from trio_routes.connections._bindings import Binding
from trio_routes.connections._listeners import GuardedListener, guard_listener
from trio_routes.netlink import (
    AF_INET,
    AF_INET6,
    RT_SCOPE_HOST,
    RTN_LOCAL,
    AddressMessage,
    LinkMessage,
    NextHop,
    RouteBody,
)

LO = 1
HERE = {
    4: AddressMessage(AF_INET, LO, IPv4Address("127.0.0.1"), 8),
    6: AddressMessage(AF_INET6, LO, IPv6Address("::1"), 128),
}
TENTATIVE, DADFAILED, OPTIMISTIC = 0x40, 0x08, 0x04


def with_loopback(world: World, family: int, flags: int = 0) -> None:
    """Give lo its address, as the tables have it."""
    world.cache.apply_link(LinkMessage(LO, "lo", 0x1 | 0x8 | 0x40 | 0x10000), gone=False)
    known = HERE[family]
    message = AddressMessage(known.family, LO, known.address, known.prefix_length, flags=flags)
    world.cache.apply_address(message, gone=False)
    world.apply()


def without_loopback(world: World, family: int) -> None:
    world.cache.apply_address(HERE[family], gone=True)
    world.apply()


async def listening(world: World, family: int) -> GuardedListener:
    [inner] = await trio.open_tcp_listeners(0, host=str(HERE[family].address))
    return guard_listener(world.ground, inner)


async def test_what_goes_and_comes_is_told_once_each_with_address_and_port(
    world: World, family: int, caplog: pytest.LogCaptureFixture
) -> None:
    with_loopback(world, family)
    async with await listening(world, family) as listener:
        port: int = listener.socket.getsockname()[1]
        with caplog.at_level(logging.INFO):
            for _ in range(2):  # the second change is another one, and says nothing new
                without_loopback(world, family)
                world.remove_default()
                world.add_default()
        [down] = world.events
        assert isinstance(down, ListenerDown)
        assert (down.address, down.port) == (HERE[family].address, port)
        with_loopback(world, family)
        assert isinstance(world.events[-1], ListenerUp) and len(world.events) == 2
    assert [record.levelname for record in caplog.records if "nobody can connect" in record.message] == ["WARNING"]


@pytest.mark.parametrize(
    ("flags", "there"),
    [
        (TENTATIVE, False),
        (TENTATIVE | OPTIMISTIC, True),
        (DADFAILED, False),
        (TENTATIVE | DADFAILED | OPTIMISTIC, False),
    ],
)
async def test_an_address_is_there_once_its_duplicate_detection_says_so(world: World, flags: int, there: bool) -> None:
    with_loopback(world, 6)
    async with await listening(world, 6):
        without_loopback(world, 6)
        with_loopback(world, 6, flags)
        assert [type(event) for event in world.events] == [ListenerDown] + [ListenerUp] * there
        with_loopback(world, 6)
        assert [type(event) for event in world.events] == [ListenerDown, ListenerUp]


async def test_an_address_out_of_a_local_prefix_is_there(world: World) -> None:
    """`ip route add local 127.0.0.0/8 dev lo`: every address in it can be bound to and connected to."""
    body = RouteBody(AF_INET, 255, 8, type=RTN_LOCAL, scope=RT_SCOPE_HOST, nexthops=(NextHop(LO),))
    world.cache.add_route(127 << 24, body, 0)
    world.apply()
    async with await listening(world, 4):
        world.cache.remove_route(127 << 24, body)
        world.apply()
        assert [type(event) for event in world.events] == [ListenerDown]


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
async def test_a_wildcard_has_nothing_that_could_go(world: World, host: str) -> None:
    [inner] = await trio.open_tcp_listeners(0, host=host)
    async with inner:
        assert world.bindings.watch(inner.socket) is None


async def test_a_closed_or_dropped_listener_is_not_told_of(world: World) -> None:
    with_loopback(world, 4)
    closed, dropped = await listening(world, 4), await listening(world, 4)
    await closed.aclose()
    dropped.socket.close()
    del dropped
    gc.collect()
    without_loopback(world, 4)
    assert world.events == []


async def test_an_address_that_was_not_there_to_begin_with_has_not_gone(world: World) -> None:
    """IP_FREEBIND: the listener is there before its address."""
    async with await listening(world, 4):
        world.remove_default()
        assert world.events == []
        with_loopback(world, 4)
        assert [type(event) for event in world.events] == [ListenerUp]


async def test_binding_again_is_tried_at_every_change_until_it_succeeds(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    with_loopback(world, 4)
    tries = 0

    async def rebind(binding: Binding) -> trio.SocketListener:
        nonlocal tries
        tries += 1
        await trio.lowlevel.checkpoint()
        if tries == 1:
            raise OSError("somebody else has the port")
        [listener] = await trio.open_tcp_listeners(0, host=str(binding.address))
        return listener

    [inner] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    listener = GuardedListener(world.ground, inner, rebind=rebind)

    async def accept() -> None:
        await (await listener.accept()).aclose()

    async with listener, trio.open_nursery() as nursery:
        nursery.start_soon(accept)
        await trio.testing.wait_all_tasks_blocked()
        binding = listener._binding
        assert binding is not None and binding.accepting is not None
        binding.moved = True
        binding.accepting.cancel(reason="said the test")
        await trio.testing.wait_all_tasks_blocked()
        assert tries == 1 and listener.inner is inner
        assert "somebody else has the port" in caplog.text
        world.remove_default()
        await trio.testing.wait_all_tasks_blocked()
        assert tries == 2 and listener.inner is not inner
        assert inner.socket.fileno() == -1
        assert isinstance(world.events[-1], ListenerUp)
        client = await trio.open_tcp_stream(*listener.socket.getsockname())  # accepted, which ends the nursery
    await client.aclose()
