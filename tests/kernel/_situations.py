"""Situations on the real kernel, each in a lab of its own, all of them side by side.

A situation waits for seconds: for things to settle, for probes. One after the other they would take minutes; so the first
test of a module that asks for an outcome plays all that were selected at once, in one Trio run. All labs are built before
anything happens in any, because building one keeps the loop for some hundred milliseconds.

They rely on times down to half a second. On a machine that stands still meanwhile (a container that is paused, a neighbour
that takes the processor) a path that was to be back in time is not. So the loop's lateness is measured, and what fails while
it was late is played once more; what fails then, or while the loop turned, has failed.
"""

from __future__ import annotations

import socket
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Literal, TypeAlias

import attrs
import pytest
import trio

from tests._uplinks import Family
from tests.kernel._world import Pair, World, open_world
from tests.lab.waiting import until
from trio_routes import ConnectionRecovered, Event, Policy, RouteLostError, Standing, Verdict
from trio_routes.testing import Lab, TwoUplinks

OPTIONS = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT),
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT),
)
PROBING = [1, 1, 1, 127, 0]
"""What they are meanwhile."""

# Building the labs, and the slowest of the waits (settling 6 s, asking 13 s), on a machine that is busy otherwise.
_MOST_SECONDS = 90.0

STALL_SECONDS = 0.3
"""How late the loop may be before a failure is doubted."""


def options_of(pair: Pair) -> list[int]:
    """The options that asking borrows."""
    return [pair.near.socket.getsockopt(*option) for option in OPTIONS]


@attrs.define(eq=False)
class Play:
    """One situation's world, with what its connections were told.

    Attributes:
      world: The hosts and the pt.
      events: Everything that the pt has published.
    """

    world: World
    events: list[Event] = attrs.field(factory=list[Event])

    @property
    def net(self) -> TwoUplinks:
        """The hosts."""
        return self.world.net

    @property
    def family(self) -> Family:
        """4 or 6."""
        return self.world.family

    @property
    def asked(self) -> int:
        """How often the kernel, or a probe, was asked."""
        return self.world.pt.connections.statistics().asked

    def acquitted_by(self, pair: Pair) -> list[str]:
        """What each recovery of a connection was due to."""
        return [
            event.acquitted_by
            for event in self.events
            if isinstance(event, ConnectionRecovered) and event.connection is pair.near.connection
        ]

    async def suspect(self, pair: Pair, verdict: Verdict) -> None:
        """Wait until a connection is suspect, of a verdict."""
        await until(lambda: pair.standing is not Standing.GOOD)
        assert (pair.standing, pair.near.connection.verdict) == (Standing.SUSPECT, verdict)

    async def asking(self, pair: Pair) -> None:
        """Wait until the kernel is being asked about a connection."""
        await until(lambda: options_of(pair) == PROBING, seconds=15)

    async def recovers(self, pair: Pair, *, within: float, since: float) -> float:
        """Wait until a connection is good again, and return how long after `since` that was."""
        await until(lambda: pair.standing is not Standing.SUSPECT, seconds=since + within - trio.current_time())
        took = trio.current_time() - since
        assert pair.standing is Standing.GOOD, pair.near.connection.loss
        await until(lambda: bool(self.acquitted_by(pair)))  # the event is a turn of the loop behind
        return took

    async def loses(self, pair: Pair, verdict: Verdict, *, after: float, within: float, since: float) -> RouteLostError:
        """Wait for a loss, and check that it comes with a verdict, between `after` and `within` seconds after `since`."""
        error = await pair.lost(within=within - (trio.current_time() - since))
        took = trio.current_time() - since
        assert after <= took, f"lost after {took:.3f} s already: {error}"
        assert error.verdict is verdict
        return error


Playing: TypeAlias = Callable[[Play], Awaitable[None]]
Opening: TypeAlias = Callable[[Lab, int], AbstractAsyncContextManager[World]]


@attrs.frozen
class Situation:
    """What is played.

    Attributes:
      name: The row in docs/verdicts.md and what happens, in words.
      open: Builds its world.
      play: What happens, and what has to come of it.
      families: Of which it is true.
    """

    name: str
    open: Opening
    play: Playing
    families: tuple[int, ...]


def two_uplinks(
    *, nat: bool, spare_gateway: bool = False, policy: Policy | None = None, lte_metric: int | None = None
) -> Opening:
    """The usual network, under the default policy."""

    def opening(lab: Lab, family: int) -> AbstractAsyncContextManager[World]:
        return open_world(lab, family, policy or Policy(), nat=nat, spare_gateway=spare_gateway, lte_metric=lte_metric)

    return opening


@attrs.define(eq=False)
class Situations:
    """The situations of one test module."""

    all: list[Situation] = attrs.field(factory=list[Situation])

    def situation(
        self, name: str, opening: Opening, *, families: tuple[Literal[4, 6], ...] = (4, 6)
    ) -> Callable[[Playing], Playing]:
        """Add the decorated function."""

        def add(play: Playing) -> Playing:
            self.all.append(Situation(name, opening, play, families))
            return play

        return add

    @property
    def cases(self) -> list[tuple[str, int]]:
        """Every situation with every family, for `parametrize`."""
        return [(situation.name, family) for situation in self.all for family in situation.families]

    def play(self, selected: Sequence[tuple[str, int]]) -> dict[tuple[str, int], BaseException | None]:
        """Play those that were selected, side by side. What each ended with, None if it went well."""
        outcomes, late = self._play_once(selected)
        doubted = [case for case, error in outcomes.items() if error is not None]
        if doubted and late > STALL_SECONDS:
            outcomes |= self._play_once(doubted)[0]
        return outcomes

    def _play_once(
        self, selected: Sequence[tuple[str, int]]
    ) -> tuple[dict[tuple[str, int], BaseException | None], float]:
        """Play them; the outcomes, and by how many seconds the loop was late at worst."""
        by_name = {situation.name: situation for situation in self.all}
        outcomes: dict[tuple[str, int], BaseException | None] = {}
        late = 0.0

        async def main() -> None:
            ready = trio.Event()
            built = 0

            async def one(name: str, family: int) -> None:
                nonlocal built
                situation = by_name[name]
                counted = False
                try:
                    async with Lab() as lab, situation.open(lab, family) as world, _listening(world) as play:
                        await world.add_healthy()
                        built, counted = built + 1, True
                        if built == len(selected):
                            ready.set()
                        await ready.wait()
                        with trio.fail_after(_MOST_SECONDS / 3):
                            await situation.play(play)
                except (Exception, pytest.fail.Exception, BaseExceptionGroup) as error:
                    if isinstance(error, BaseExceptionGroup) and error.subgroup((trio.Cancelled, KeyboardInterrupt)):
                        raise
                    # The situation's own test will tell.
                    outcomes[name, family] = error
                else:
                    outcomes[name, family] = None
                if not counted:
                    built += 1
                    if built == len(selected):
                        ready.set()

            async def measure() -> None:
                nonlocal late
                await ready.wait()
                while True:
                    due = trio.current_time() + 0.05
                    await trio.sleep_until(due)
                    late = max(late, trio.current_time() - due)

            with trio.fail_after(_MOST_SECONDS):
                async with trio.open_nursery() as measuring:
                    measuring.start_soon(measure)
                    async with trio.open_nursery() as nursery:
                        for name, family in selected:
                            nursery.start_soon(one, name, family)
                    measuring.cancel_scope.cancel()

        trio.run(main)
        return outcomes, late


@asynccontextmanager
async def _listening(world: World) -> AsyncGenerator[Play]:
    play = Play(world)

    async def listen(*, task_status: trio.TaskStatus[None]) -> None:
        with world.pt.subscribe() as events:
            task_status.started()
            async for event in events:
                play.events.append(event)

    async with trio.open_nursery() as nursery:
        await nursery.start(listen)
        yield play
        nursery.cancel_scope.cancel()
