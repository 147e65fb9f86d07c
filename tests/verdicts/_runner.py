"""Plays rows side by side, and says what became of each: in truth, and in our opinion.

A row waits for the kernel, for up to 20 s; one after the other they would take an hour. So some dozens are played at once
in one Trio run, each in a lab of its own, and as one ends the next begins. Those that take longest come first.

Building a lab keeps the loop for some 50 ms, and the machine may be busy otherwise; then a second is not what it was: a path
that should have been back after half of one is back after two. So the loop's own lateness is measured. A row that fails
while the loop stood still, or says itself that programs were slow, is played once more, with few others, and while that is
so again, alone; what it does then counts, and the table says "again". A row that fails while the loop turned has failed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from contextlib import AsyncExitStack, suppress
from typing import TypeAlias, cast

import attrs
import pytest
import trio

from tests._uplinks import Family
from tests.lab.waiting import until
from tests.verdicts._row import LATEST, Acquitted, Case, Closed, Expected, Kept, LeftSuspect, Row
from tests.verdicts._stage import DEAD_SECONDS, Guarded, Life, MachineBusyError, Side, Stage, open_stage
from trio_routes import ConnectionRecovered, ConnectionSuspect, Event, RouteLostError, Standing, Verdict
from trio_routes.testing import Lab

AT_ONCE = 48
"""Labs side by side: some 300 namespaces."""

AT_ONCE_AGAIN = (4, 1, 1)
"""The same for each time that what is doubted is played once more."""

STALL_SECONDS = 0.3
"""How late the loop may be before a failure is doubted: the shortest time that a row relies on is half a second."""

_MOST_SECONDS = 30.0  # for what a row waits for
_MOST_SECONDS_OF_ALL = 600.0

_KEPT_SECONDS = 2.5
"""How long what is never SUSPECT is watched: a connection that falls under no verdict when all is applied has no deadline."""


@attrs.frozen
class Outcome:
    """What became of one connection.

    Attributes:
      truth: What the kernel made of it.
      ours: What the pt made of it, in words.
      seconds: From the change to the end or the acquittal; None where there was neither.
      problem: What is not as it has to be; "" if all is well.
      again: Whether this is not the first attempt.
    """

    truth: Life | None
    ours: str
    seconds: float | None
    problem: str
    again: bool = False


Outcomes: TypeAlias = dict[Case, Outcome]


@attrs.frozen
class Played:
    """What became of all cases that were selected.

    Attributes:
      outcomes: By case.
      worst: How late the loop was at worst, in seconds.
    """

    outcomes: Outcomes
    worst: float


def play(selected: Sequence[Case]) -> Played:
    """Play cases; those of one row and family share a lab."""
    first = _Run(AT_ONCE)
    trio.run(first.play, _labs(selected))
    outcomes, doubted = dict(first.outcomes), first.doubted
    for at_once in AT_ONCE_AGAIN if doubted else ():
        once_more = _Run(at_once)
        trio.run(once_more.play, _labs(doubted))
        outcomes |= {case: attrs.evolve(outcome, again=True) for case, outcome in once_more.outcomes.items()}
        doubted = once_more.doubted
        if not doubted:
            break
    return Played({case: outcomes[case] for case in selected}, first.worst)


_Lab: TypeAlias = tuple[Row, Family, tuple[Side, ...]]
_Labs: TypeAlias = list[_Lab]


def _labs(selected: Iterable[Case]) -> _Labs:
    by_lab: dict[tuple[str, Family], list[Case]] = {}
    for case in selected:
        by_lab.setdefault((case.row.name, case.family), []).append(case)
    labs: _Labs = [(found[0].row, found[0].family, tuple(case.side for case in found)) for found in by_lab.values()]
    return sorted(labs, key=lambda lab: _patience(lab[0].expected), reverse=True)


def _patience(expected: Expected) -> float:
    match expected:
        case Closed(after=after):
            return after + DEAD_SECONDS
        case Acquitted():
            return 7.0  # some take twice that
        case Kept() | LeftSuspect():
            return _KEPT_SECONDS


@attrs.define(eq=False)
class _Run:
    """One Trio run with many labs.

    Attributes:
      at_once: How many.
      outcomes: What became of each case.
      doubted: Cases that failed while the loop stood still.
      worst: By how many seconds a task ran later than it had asked for.
    """

    at_once: int
    outcomes: Outcomes = attrs.field(factory=dict[Case, Outcome])
    doubted: list[Case] = attrs.field(factory=list[Case])
    worst: float = 0.0
    _stalled_at: float = -math.inf
    _building: trio.Lock = attrs.field(factory=trio.Lock)

    async def play(self, labs: _Labs) -> None:
        """Play all."""
        limit = trio.CapacityLimiter(self.at_once)
        with trio.fail_after(_MOST_SECONDS_OF_ALL):
            async with trio.open_nursery() as measuring:
                measuring.start_soon(self._measure)
                async with trio.open_nursery() as nursery:
                    for lab in labs:
                        await limit.acquire_on_behalf_of(lab)
                        nursery.start_soon(self._one, lab, limit)
                measuring.cancel_scope.cancel()

    async def _measure(self) -> None:
        while True:
            due = trio.current_time() + 0.05
            await trio.sleep_until(due)
            late = trio.current_time() - due
            self.worst = max(self.worst, late)
            if late > STALL_SECONDS:
                self._stalled_at = trio.current_time()

    async def _one(self, lab: _Lab, limit: trio.CapacityLimiter) -> None:
        row, family, sides = lab
        found: dict[Side, Outcome] = {}
        started, busy = trio.current_time(), False
        try:
            async with AsyncExitStack() as stack:
                async with self._building:  # one after the other, and the loop turns in between
                    hosts = await stack.enter_async_context(Lab())
                    opening = open_stage(hosts, family, sides, **attrs.asdict(row.network))
                    stage = await stack.enter_async_context(opening)
                await _play_row(row, stage, found)
        except (Exception, pytest.fail.Exception, BaseExceptionGroup) as error:
            if isinstance(error, BaseExceptionGroup) and error.subgroup((trio.Cancelled, KeyboardInterrupt)):
                raise
            busy = isinstance(error, BaseExceptionGroup) and error.subgroup(MachineBusyError) is not None
            for side in sides:  # the case's own test will tell
                found[side] = _spoilt(found.get(side), _in_words(error))
        finally:
            limit.release_on_behalf_of(lab)
        for side, outcome in found.items():
            case = Case(row, family, side)
            self.outcomes[case] = outcome
            if outcome.problem and (busy or self._stalled_at > started):
                self.doubted.append(case)


def _spoilt(outcome: Outcome | None, words: str) -> Outcome:
    """What became of a connection on a stage where something else went wrong: a control died, an error came out."""
    if outcome is None:
        return Outcome(None, "", None, words)
    return attrs.evolve(outcome, problem=_joined([outcome.problem, words]))


def _in_words(error: BaseException) -> str:
    if isinstance(error, BaseExceptionGroup):
        group = cast("BaseExceptionGroup[BaseException]", error)
        return "; ".join(_in_words(inner) for inner in group.exceptions)
    notes = "".join(f" ({note})" for note in getattr(error, "__notes__", ()))
    return f"{type(error).__name__}: {error}{notes}"


async def _play_row(row: Row, stage: Stage, found: dict[Side, Outcome]) -> None:
    events: list[Event] = []

    async def listen(*, task_status: trio.TaskStatus[None]) -> None:
        with stage.pt.subscribe(buffer=100_000) as channel:
            task_status.started()
            async for event in channel:
                events.append(event)
                for pair in stage.guarded.values():
                    if isinstance(event, ConnectionSuspect) and event.connection is pair.near.connection:
                        pair.seen.take(event.verdict)

    await stage.nursery.start(listen)
    await row.play(stage)
    assert stage.guarded, "the row opened no connection"

    async def judge(side: Side, pair: Guarded) -> None:
        found[side] = await _judged(row.expected, stage, pair, events)

    async with trio.open_nursery() as nursery:
        for side, pair in stage.guarded.items():
            nursery.start_soon(judge, side, pair)
    await stage.applied()
    for control in stage.controls:
        life = await control.exchange(stage.patience)
        assert life == "alive", f"a control is {life}: {control.near}"


async def _judged(expected: Expected, stage: Stage, pair: Guarded, events: list[Event]) -> Outcome:
    match expected:
        case Kept():
            return await _judge_kept(expected, stage, pair)
        case Acquitted():
            return await _judge_acquitted(expected, stage, pair, events)
        case Closed():
            return await _judge_closed(expected, stage, pair)
        case LeftSuspect():
            return await _judge_suspect(expected, stage, pair)


async def _judge_kept(expected: Kept, stage: Stage, pair: Guarded) -> Outcome:
    await stage.applied()
    await trio.sleep(_KEPT_SECONDS)
    stage.quiet()
    verdict, seen = pair.near.connection.verdict, pair.seen.verdicts
    truth = await pair.ends.exchange(stage.patience)
    problems = [
        f"it is {truth}" if truth != "alive" else "",
        f"it was suspect: {_words(seen)}" if seen else "",
        f"the verdict is {verdict.value}" if verdict is not expected.verdict else "",
    ]
    return Outcome(truth, f"kept, {verdict.value}", None, _joined(problems))


async def _judge_acquitted(expected: Acquitted, stage: Stage, pair: Guarded, events: list[Event]) -> Outcome:
    connection = pair.near.connection

    def recoveries() -> list[str]:
        found = (event for event in events if isinstance(event, ConnectionRecovered))
        return [event.acquitted_by for event in found if event.connection is connection]

    # It may be good in between, of something else: where a link is replaced, each step is a change of its own.
    def decided() -> bool:
        return connection.loss is not None or (connection.standing is Standing.GOOD and expected.by in recoveries())

    with suppress(trio.TooSlowError):  # the checks below say what there was instead
        await until(decided, seconds=_MOST_SECONDS)
    took = trio.current_time() - stage.since
    ours = f"{connection.standing.value}, {_words(pair.seen.verdicts)}"
    by = recoveries()
    stage.quiet()
    truth = await pair.ends.exchange(stage.patience)
    problems = [
        f"it is {truth}" if truth != "alive" else "",
        f"it is {connection.standing.value}: {connection.loss or ''}"
        if connection.standing is not Standing.GOOD
        else "",
        f"it was never {expected.verdict.value}" if expected.verdict not in pair.seen.verdicts else "",
        f"it was acquitted by {by}" if expected.by not in by else "",
    ]
    return Outcome(truth, f"{ours}, acquitted", took, _joined(problems))


async def _judge_closed(expected: Closed, stage: Stage, pair: Guarded) -> Outcome:
    error: RouteLostError | None = None
    with trio.move_on_at(stage.since + expected.after + LATEST):
        try:
            while await pair.near.receive_some():
                pass
        except RouteLostError as caught:
            error = caught
    took = trio.current_time() - stage.since
    stage.quiet()
    twin = await pair.twin.exchange(DEAD_SECONDS)
    if error is None:
        return Outcome(twin, f"{pair.near.connection.standing.value}, {_words(pair.seen.verdicts)}", None, "not closed")
    problems = [
        "its twin is alive" if twin == "alive" else "",
        f"closed after {took:.3f} s" if took < expected.after else "",
        f"closed with {error.verdict.value}" if error.verdict is not expected.verdict else "",
    ]
    return Outcome(twin, f"closed, {error.verdict.value}", took, _joined(problems))


async def _judge_suspect(expected: LeftSuspect, stage: Stage, pair: Guarded) -> Outcome:
    connection = pair.near.connection
    with suppress(trio.TooSlowError):
        await until(lambda: connection.standing is not Standing.GOOD, seconds=_MOST_SECONDS)
    took = trio.current_time() - stage.since
    await trio.sleep(_KEPT_SECONDS)
    stage.quiet()
    twin = await pair.twin.exchange(DEAD_SECONDS)
    problems = [
        "its twin is alive" if twin == "alive" else "",
        f"it is {connection.standing.value}" if connection.standing is not Standing.SUSPECT else "",
        f"the verdict is {connection.verdict.value}" if connection.verdict is not expected.verdict else "",
        f"it has a deadline: {connection.deadline}" if connection.deadline != math.inf else "",
    ]
    return Outcome(twin, f"suspect, {connection.verdict.value}", took, _joined(problems))


def _words(verdicts: Sequence[Verdict]) -> str:
    return ", then ".join(verdict.value for verdict in verdicts) or "never suspect"


def _joined(problems: Sequence[str]) -> str:
    return "; ".join(problem for problem in problems if problem)
