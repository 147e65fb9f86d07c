"""Borrowed options come back as the application had them, whoever else asks about the same socket."""

from __future__ import annotations

import itertools
import socket
import weakref
from collections.abc import AsyncGenerator

import pytest
import trio
from trio.testing import MockClock

from tests.connections._watch import Watch
from tests.connections._world import loopback_pair
from trio_routes.connections._connection import Record
from trio_routes.connections._keepalive import Line
from trio_routes.connections._loan import _loans

OPTIONS = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT),
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT),
)
ITS_OWN = {"plain": (0, 7200, 75, 9, 0), "own keepalive": (1, 120, 30, 5, 9000)}
ASKING = (1, 1, 1, 127, 0)


def options_of(sock: trio.socket.SocketType | socket.socket) -> tuple[int, ...]:
    return tuple(sock.getsockopt(*option) for option in OPTIONS)


@pytest.fixture
async def pair() -> AsyncGenerator[tuple[trio.SocketStream, trio.SocketStream], None]:
    ours, theirs = await loopback_pair()
    yield ours, theirs
    ours.socket.close()
    theirs.socket.close()
    assert _loans == {}, "nothing is borrowed for ever"


def configure(stream: trio.SocketStream, values: tuple[int, ...]) -> None:
    for option, value in zip(OPTIONS, values, strict=True):
        stream.socket.setsockopt(*option, value)


def line_on(stream: trio.SocketStream) -> Line:
    record = Record("key", sockets=(weakref.ref(stream.socket),))
    return Line(record)


@pytest.mark.parametrize("own", ITS_OWN)
async def test_one_that_asks_gives_back_what_it_borrowed(
    pair: tuple[trio.SocketStream, trio.SocketStream], own: str
) -> None:
    ours, _ = pair
    configure(ours, ITS_OWN[own])
    line = line_on(ours)
    assert line.begin() is not None
    assert options_of(ours.socket) == ASKING
    line.release()
    line.release()
    assert options_of(ours.socket) == ITS_OWN[own]


@pytest.mark.parametrize("own", ITS_OWN)
@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
async def test_of_several_that_ask_the_last_gives_back(
    pair: tuple[trio.SocketStream, trio.SocketStream], own: str, order: tuple[int, ...]
) -> None:
    ours, _ = pair
    configure(ours, ITS_OWN[own])
    lines = [line_on(ours) for _ in order]
    for line in lines:
        line.begin()
        assert options_of(ours.socket) == ASKING
    *first, last = order
    for number in first:
        lines[number].release()
        assert options_of(ours.socket) == ASKING
    lines[last].release()
    assert options_of(ours.socket) == ITS_OWN[own]


async def test_they_come_back_though_the_owner_closed_his_descriptor(
    pair: tuple[trio.SocketStream, trio.SocketStream],
) -> None:
    ours, _ = pair
    with ours.socket.dup() as other:  # another process's, or library's
        lines = [line_on(ours), line_on(ours)]
        for line in lines:
            line.begin()
        ours.socket.close()
        for line in lines:
            line.release()
        assert options_of(other) == ITS_OWN["plain"]


async def test_a_socket_that_is_closed_already_leaves_nothing_in_the_ledger(
    pair: tuple[trio.SocketStream, trio.SocketStream],
) -> None:
    ours, _ = pair
    line = Line(Record("key", sockets=(weakref.ref(ours.socket),)), may_duplicate=False)
    line.begin()
    ours.socket.close()
    line.release()


@pytest.mark.parametrize("own", ITS_OWN)
async def test_two_pts_that_guard_one_socket_leave_the_applications_own_options(
    pair: tuple[trio.SocketStream, trio.SocketStream], own: str, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    ours, _ = pair
    configure(ours, ITS_OWN[own])
    watches = [Watch(), Watch()]
    for watch in watches:
        await nursery.start(watch.reassessor.run)
        watch.registry.register(ours, flow=watch.site.flow())
    for watch in watches:
        watch.gateway_moves()
        await watch.change()
        await trio.sleep(0.7)
    await trio.sleep(1)
    assert options_of(ours.socket) == ASKING
    assert [watch.registry.statistics().asked for watch in watches] == [1, 1]
    for watch in watches:  # the first that asked is the first that needs no answer any more
        assert options_of(ours.socket) == ASKING
        watch.network.add_route(watch.site.default, via=watch.site.gw1, dev=2, metric=100, replace=True)
        await watch.change()
        await trio.sleep(0.1)
    await trio.sleep(5)
    assert options_of(ours.socket) == ITS_OWN[own]
