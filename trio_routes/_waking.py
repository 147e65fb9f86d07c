"""Noticing that the machine slept: CLOCK_BOOTTIME goes on meanwhile, CLOCK_MONOTONIC does not (clock_gettime(2)).

Trio's own clock is the latter, so no deadline passes while asleep; but one that was begun before falls due right after
waking, when Wi-Fi and DHCP are not back yet. So this looks before every deadline that is acted on and
with every batch of changes, and now and then besides, for those who want to hear of it on a quiet machine.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

import trio

LEAST_SECONDS: Final = 20.0
"""A shorter sleep is not told: addresses and routes outlive it, and so does every translation."""

_LOOK_SECONDS: Final = 10.0


def suspended_seconds() -> float:
    """How long this machine has slept since it was started."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) - time.clock_gettime(time.CLOCK_MONOTONIC)


class Waking:
    """Compares the clocks.

    Args:
      woke: Called with the seconds slept.
      read: How long the machine has slept in all, by now.
    """

    def __init__(self, woke: Callable[[float], None], read: Callable[[], float] = suspended_seconds) -> None:
        self._woke = woke
        self._read = read
        self._known = read()

    def look(self) -> None:
        """Tell if the machine has slept since the last look. Not a checkpoint; costs a microsecond."""
        now = self._read()
        slept, self._known = now - self._known, now
        if slept > LEAST_SECONDS:
            self._woke(slept)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Look now and then until cancelled."""
        task_status.started()
        while True:
            await trio.sleep(_LOOK_SECONDS)
            self.look()
