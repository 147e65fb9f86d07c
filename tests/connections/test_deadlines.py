"""What a deadline brings, and what becomes of connections that wait without one: on a real socket, in no wall time."""

from __future__ import annotations

import socket
import time
from collections.abc import AsyncGenerator

import pytest
import trio
from trio.testing import MockClock

from tests.connections._watch import Watch, standing
from tests.connections._world import loopback_pair
from trio_routes import ConnectionLost, ConnectionRecovered, ConnectionSuspect
from trio_routes.connections import Connection, Policy, Standing, Verdict
from trio_routes.connections._clock import MOST_LOOK_SECONDS, Mode
from trio_routes.connections._tcp_info import read_tcp_info

UNASKED = Policy(ask_kernel=False)


class Pair:
    """A connection over loopback that is judged as if it went from the first link to a far peer."""

    def __init__(self, watch: Watch, ours: trio.SocketStream, theirs: trio.SocketStream, policy: Policy) -> None:
        self.ours, self.theirs = ours, theirs
        self.connection: Connection = watch.registry.register(ours, flow=watch.site.flow(), policy=policy)

    async def exchange(self) -> None:
        """Send a byte, and wait for the kernel's word that it was acknowledged."""
        before = self._acked()
        await self.ours.send_all(b"x")
        end = time.monotonic() + 5
        while self._acked() == before:
            assert time.monotonic() < end
            await trio.lowlevel.checkpoint()

    def _acked(self) -> int:
        info = read_tcp_info(self.ours.socket)
        assert info is not None
        return info.bytes_acked


class Bench(Watch):
    """A registry with its reassessment, and sockets that are closed in the end."""

    def __init__(self, family: int) -> None:
        super().__init__(family)
        self.pairs: list[Pair] = []

    async def pair(self, policy: Policy) -> Pair:
        self.pairs.append(Pair(self, *await loopback_pair(), policy))
        return self.pairs[-1]


@pytest.fixture
async def watch(family: int, nursery: trio.Nursery) -> AsyncGenerator[Bench, None]:
    watch = Bench(family)
    await nursery.start(watch.reassessor.run)
    yield watch
    for pair in watch.pairs:
        pair.ours.socket.close()
        pair.theirs.socket.close()


async def left(watch: Bench) -> Pair:
    """A connection whose path moved and about which nobody can be asked, after it was decided to leave it."""
    found = await watch.pair(UNASKED)
    watch.gateway_moves()
    await watch.change()
    await trio.sleep(1.1)
    assert found.connection.record.stand.mode is Mode.LEFT
    return found


async def test_what_was_left_is_acquitted_by_evidence_that_comes_later(watch: Bench, autojump_clock: MockClock) -> None:
    found = await left(watch)
    connection = found.connection
    await trio.sleep(30)
    assert standing(connection) is Standing.SUSPECT
    await found.exchange()
    await trio.sleep(MOST_LOOK_SECONDS)
    assert (standing(connection), connection.verdict) == (Standing.GOOD, Verdict.UNCHANGED)
    assert watch.told == [ConnectionSuspect, ConnectionRecovered]
    assert connection.now.gateways == connection.before.gateways, "the path that was proven is its own now"


async def test_what_was_left_is_lost_when_it_is_reset_later(watch: Bench, autojump_clock: MockClock) -> None:
    found = await left(watch)
    found.theirs.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    found.theirs.socket.close()  # a reset
    await trio.sleep(MOST_LOOK_SECONDS)
    loss = found.connection.loss
    assert loss is not None
    assert (loss.verdict, loss.evidence) == (Verdict.GATEWAY_CHANGED, "reset while suspect")
    assert watch.told == [ConnectionSuspect, ConnectionLost]


async def test_what_was_left_says_nothing_when_its_owner_closes_it(watch: Bench, autojump_clock: MockClock) -> None:
    found = await left(watch)
    found.ours.socket.close()
    await trio.sleep(2 * MOST_LOOK_SECONDS)
    assert watch.told == [ConnectionSuspect]
    assert len(watch.registry.court.index) == 0


async def test_a_wait_for_ever_ends_with_evidence_too(watch: Bench, autojump_clock: MockClock) -> None:
    """As where nftables sets marks that no lookup sees: the model says that there is no way, and data passes."""
    found = await watch.pair(Policy(no_route=float("inf")))
    watch.route_goes()
    await watch.change()
    await trio.sleep(10)
    await found.exchange()
    await trio.sleep(MOST_LOOK_SECONDS)
    assert (standing(found.connection), found.connection.verdict) == (Standing.GOOD, Verdict.NO_ROUTE)


async def test_looks_are_further_and_further_apart_and_stop_with_the_suspicion(
    watch: Bench, autojump_clock: MockClock
) -> None:
    found = await left(watch)
    docket, looks = watch.registry.court.docket, 0
    began = trio.current_time()
    while trio.current_time() - began < 600:
        looks += 1
        await trio.sleep_until(min(docket.next_time, began + 600) + 0.001)
    assert 10 <= looks <= 20
    watch.network.add_route(watch.site.default, via=watch.site.gw1, dev=2, metric=100, replace=True)
    await watch.change()
    assert standing(found.connection) is Standing.GOOD
    assert docket.next_time == float("inf")


async def test_a_connection_without_a_socket_is_looked_at_once(watch: Bench, autojump_clock: MockClock) -> None:
    connection = watch.register(policy=UNASKED)
    watch.gateway_moves()
    await watch.change()
    await trio.sleep(3)
    assert standing(connection) is Standing.SUSPECT
    assert watch.registry.court.docket.next_time == float("inf")
