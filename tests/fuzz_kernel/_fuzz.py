"""A run of random steps, and a short one that fails alike."""

from __future__ import annotations

import time
from collections.abc import Sequence
from random import Random

from ._changes import Changes, Step
from ._run import Count, Mismatch, run
from ._shrink import shrink

STEPS_A_RUN = 250
LOOKUPS = 10
_SHRINK_SECONDS = 40.0


def fuzz(
    seed: int, *, steps: int = STEPS_A_RUN, until: float = float("inf"), count: Count, lookups: int = LOOKUPS
) -> None:
    """Do one run of random steps; the same for the same seed.

    Raises:
      Mismatch: As `run`.
    """
    changes = Changes(Random(seed))
    left = steps

    def next_step() -> Step | None:
        nonlocal left
        left -= 1
        return None if left < 0 or time.monotonic() > until else changes.step()

    run(next_step, lookups=lookups, count=count)


def shrunk(mismatch: Mismatch, seconds: float = _SHRINK_SECONDS) -> tuple[tuple[Step, ...], Mismatch]:
    """A short sequence that fails alike, and how it fails."""
    last = mismatch

    def fails(steps: Sequence[Step]) -> bool:
        nonlocal last
        waiting = iter(steps)
        try:
            run(
                lambda: next(waiting, None),
                lookups=100 if "lookup" in mismatch.kind else 0,
                late=0.4,
                only_the_end=True,
            )
        except Mismatch as found:
            if found.kind == mismatch.kind:
                last = found
                return True
        return False

    return shrink(mismatch.steps, fails, seconds), last
