"""How long a Trio loop was not there for others: a task that wants to run every half millisecond, and notes when it could not."""

from __future__ import annotations

import time

import attrs
import trio

from benchmarks.table import Row

_PERIOD = 0.0005


@attrs.define
class Ticker:
    """The longest times between two ticks, in seconds, less the period.

    Attributes:
      longest: By the clock: what another task of the loop feels. On a busy machine it holds the times at which
        another process had the core.
      longest_own: By the thread's CPU time: what the loop's own work took, without those.
    """

    longest: float = 0.0
    longest_own: float = 0.0

    async def run(self) -> None:
        """Tick until cancelled."""
        while True:
            clock, own = time.perf_counter(), time.thread_time()
            await trio.sleep(_PERIOD)
            self.longest = max(self.longest, time.perf_counter() - clock - _PERIOD)
            self.longest_own = max(self.longest_own, time.thread_time() - own)

    def rows(self) -> list[Row]:
        """What was noted, for the table."""
        return [Row("by the clock", self.longest), Row("its own CPU time", self.longest_own)]

    def reset(self) -> None:
        """Begin anew."""
        self.longest = self.longest_own = 0.0
