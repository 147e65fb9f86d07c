"""From a failing run to a short one: delta debugging over the steps, then over the lines of each step."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from ._changes import Step

_T = TypeVar("_T")


def shrink(steps: Sequence[Step], fails: Callable[[Sequence[Step]], bool], seconds: float) -> tuple[Step, ...]:
    """Find steps that still fail and of which none can be left out, as far as the time allows.

    Args:
      steps: Steps that fail.
      fails: Whether others do; tried in fresh namespaces.
      seconds: How long to try.
    """
    until = time.monotonic() + seconds
    # A burst that fails as single steps too is easier to read so, and to shrink.
    single = [(line,) for step in steps for line in step if line not in ("audit", "lose")]
    if fails(single):
        steps = single
    steps = _without(steps, fails, until)
    for at in range(len(steps)):
        before, after = tuple(steps[:at]), tuple(steps[at + 1 :])
        lines = _without(steps[at], lambda left, b=before, a=after: fails((*b, tuple(left), *a)), until)  # type: ignore[misc]  # the defaults bind the loop's values
        steps = (*before, tuple(lines), *after)
    return tuple(steps)


def _without(items: Sequence[_T], fails: Callable[[Sequence[_T]], bool], until: float) -> tuple[_T, ...]:
    left = tuple(items)
    size = max(1, len(left) // 2)
    while len(left) > 1:
        for at in reversed(range(0, len(left), size)):
            fewer = left[:at] + left[at + size :]
            if time.monotonic() > until:
                return left
            if fewer and fails(fewer):
                left = fewer
        if size == 1:
            return left
        size = max(1, size // 2)
    return left


def as_test(name: str, steps: Iterable[Step]) -> str:
    """The steps as a regression test, ready to paste."""
    lines = [f"async def test_{name}() -> None:", "    replay("]
    for step in steps:
        words = ", ".join(f'"{line}"' for line in step)
        lines.append(f"        ({words},),")
    return "\n".join([*lines, "    )"])
