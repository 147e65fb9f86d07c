"""One run: steps on a ground, and after each of them the cache is held against a dump and lookups against the kernel."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from random import Random

import attrs

from ._changes import Step
from ._ground import Ground
from ._known import explain_routes
from ._questions import Asker
from ._twins import DeadKey, RouteKey, Twin, picture

# What comes late (addresses after their detection's worker, a carrier) is there within this many seconds.
LATE = 1.5


@attrs.define
class Count:
    """What was done, and what was explained."""

    operations: int = 0
    lookups: int = 0
    dumps: int = 0
    asked_again: int = 0
    known: Counter[str] = attrs.field(factory=Counter[str])

    def add(self, other: Count) -> None:
        self.operations += other.operations
        self.lookups += other.lookups
        self.dumps += other.dumps
        self.asked_again += other.asked_again
        self.known += other.known


class Mismatch(AssertionError):  # noqa: N818  # what a test found, as pytest's own
    """The cache, or a lookup in it, is not what the kernel says, and nothing explains it.

    Attributes:
      steps: All steps up to the one after which it was seen.
      kind: What it was about, in a word or two: failures of one kind are likely to be the same.
    """

    def __init__(self, steps: Iterable[Step], what: Sequence[str]) -> None:
        super().__init__("\n".join(what))
        self.steps = tuple(steps)
        self.kind = what[0].splitlines()[0].partition(", key=")[0]


def run(
    next_step: Callable[[], Step | None],
    *,
    seed: int = 0,
    lookups: int = 4,
    count: Count | None = None,
    late: float = LATE,
    only_the_end: bool = False,
) -> Count:
    """Do steps until there is none; returns what was done.

    Args:
      next_step: Returns the next step, or None to end.
      seed: Chooses the lookups.
      lookups: How many after each step.
      count: Where to count.
      late: Seconds that what comes late is waited for.
      only_the_end: Whether only the state after the last step counts.

    Raises:
      Mismatch: After a step.
    """
    count = Count() if count is None else count
    done: list[Step] = []
    with Ground() as ground:
        runner = _Runner(ground, count)
        try:
            while (step := next_step()) is not None:
                done.append(step)
                runner.do(step)
                if not only_the_end:
                    runner.check(done, seed, lookups, late)
            if only_the_end and done:
                runner.check(done, seed, lookups, late)
        finally:
            runner.close()
    return count


def replay(*steps: Step, lookups: int = 100) -> Count:
    """Do these steps; for regression tests.

    Raises:
      Mismatch: As `run`.
    """
    waiting = iter(steps)
    return run(lambda: next(waiting, None), lookups=lookups)


class _Runner:
    def __init__(self, ground: Ground, count: Count) -> None:
        self._ground = ground
        self._count = count
        self._followed = Twin(ground, follows=True)
        self._fresh = Twin(ground, follows=False)
        self._asker = Asker(ground)

    def do(self, step: Step) -> None:
        between = False
        for line in step:
            if line in ("audit", "lose"):
                between = True
                if line == "audit":
                    self._followed.begin_audit()
                else:
                    self._followed.lose()
            else:
                self._count.operations += 1
                self._ground.do(line)
            if between:
                self._followed.step()
        if any(line.startswith(("link set", "sysctl")) for line in step):
            self._ground.await_carrier()
        self._count.asked_again += self._followed.catch_up()

    def check(self, done: Sequence[Step], seed: int, lookups: int, late: float) -> None:
        """Raise `Mismatch` if the cache, or one of some lookups, is not what the kernel says."""
        left = self.compare(late)
        if left:
            raise Mismatch(done, left)
        # The same questions after the same step, whatever was left out before it.
        wrong = self.ask(Random(f"{seed} {done[-1]}"), lookups, late)
        if wrong:
            raise Mismatch(done, wrong)

    def compare(self, late: float) -> list[str]:
        """Say where the cache differs from a dump and goes on doing so."""
        until = time.monotonic() + late
        while True:
            left, known = self._differences()
            if not left or time.monotonic() > until:
                self._count.known += known
                return left
            time.sleep(0.002)
            self._count.asked_again += self._followed.catch_up()

    def _differences(self) -> tuple[list[str], Counter[str]]:
        self._count.dumps += 1
        theirs = picture(self._fresh.dump().state)
        self._count.asked_again += self._followed.catch_up()
        mine = picture(self._followed.cache.state)
        left: list[str] = []
        known: Counter[str] = Counter()
        if mine == theirs:
            return left, known
        explained: set[object] = set()
        # Routes come before their dead ways in a picture.
        for key in {**mine, **theirs}:
            one, other = mine.get(key), theirs.get(key)
            if one == other:
                continue
            why = None
            if isinstance(key, RouteKey):
                why = explain_routes(key.family, one or (), other or ())  # type: ignore[arg-type]  # as in `picture`
                if why is not None:
                    explained.add(key)
            elif isinstance(key, DeadKey) and key.route in explained:
                continue  # a route that the dump does not show has no ways in it
            if why is not None:
                known[why] += 1
            else:
                left.append(f"{key}:\n    followed {one}\n    dumped   {other}")
        return left, known

    def ask(self, random: Random, times: int, late: float) -> list[str]:
        """Ask the cache and the kernel the same; say where they answer differently and go on doing so."""
        wrong: list[str] = []
        cache = self._followed.cache
        for _ in range(times):
            self._count.lookups += 1
            question = self._asker.choose(random, cache)
            answer = self._asker.ask(question, cache)
            until = time.monotonic() + late
            while answer.wrong and time.monotonic() < until:
                # The kernel makes an IPv6 address's routes one after the other, from its work queue.
                time.sleep(0.002)
                self._count.asked_again += self._followed.catch_up()
                answer = self._asker.ask(question, cache)
            if answer.known:
                self._count.known[answer.known] += 1
            elif answer.wrong:
                wrong.append(answer.wrong)
        return wrong

    def close(self) -> None:
        self._followed.close()
        self._fresh.close()
        self._asker.close()
