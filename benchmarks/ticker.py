"""How long a Trio loop was not there for others: a task that wants to run every half millisecond, and notes when it could not."""

from __future__ import annotations

import gc
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
      longest_uncollected: The same without the garbage collector's passes, which are as long as the program is big.
    """

    longest: float = 0.0
    longest_own: float = 0.0
    longest_uncollected: float = 0.0
    _collecting: float = 0.0
    _collected: float = 0.0
    _reset: bool = False

    async def run(self) -> None:
        """Tick until cancelled."""
        gc.callbacks.append(self._note_collection)
        try:
            await self._tick()
        finally:
            gc.callbacks.remove(self._note_collection)

    def _note_collection(self, phase: str, _: object) -> None:
        now = time.thread_time()
        self._collected += now - self._collecting if phase == "stop" else 0.0
        self._collecting = now

    async def _tick(self) -> None:
        while True:
            clock, own, collected = time.perf_counter(), time.thread_time(), self._collected
            await trio.sleep(_PERIOD)
            if self._reset:
                self._reset = False  # this interval began before
                continue
            self.longest = max(self.longest, time.perf_counter() - clock - _PERIOD)
            own = time.thread_time() - own
            self.longest_own = max(self.longest_own, own)
            self.longest_uncollected = max(self.longest_uncollected, own - (self._collected - collected))

    def rows(self) -> list[Row]:
        """What was noted, for the table."""
        return [
            Row("by the clock", self.longest),
            Row("its own CPU time", self.longest_own),
            Row("its own CPU time, less the garbage collector's", self.longest_uncollected),
        ]

    def reset(self) -> None:
        """Begin anew, at the next tick."""
        self.longest = self.longest_own = self.longest_uncollected = 0.0
        self._reset = True
