"""The reassessment task: judges what a change can touch, and decides what falls due.

The follow task calls `touch` after each batch, which writes the docket, and `take_turn`, which
judges the first chunk at once and rings for what is left. The task works in chunks and gives the
loop a turn between them, because a default route that goes can touch a hundred thousand connections,
and cancelling them in one go would stop the loop for seconds.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import trio

from ._asker import Asker
from ._deadlines import Deadlines

if TYPE_CHECKING:
    from ..routing import ChangeBatch
    from ._court import JudgedCache
    from ._registry import Registry

CHUNK = 50
"""The most connections that are judged between two checkpoints: cancelling costs 11 µs a scope."""

CHUNK_SECONDS = 0.001


class Reassessor:
    """Judges and decides, for one registry.

    Args:
      registry: The connections.
      cache: The routing cache.
      apply_pending: Applies what is readable on the netlink channel by now; may call `touch`. Nothing is decided
        at a deadline before (R10): timer and reader that wake in the same tick run in random order, and after a
        SIGSTOP every deadline has passed at once.
    """

    def __init__(self, registry: Registry, cache: JudgedCache, *, apply_pending: Callable[[], None]) -> None:
        self._registry = registry
        self._court = registry.court
        self._docket = registry.court.docket
        self._deadlines = Deadlines(registry.court, registry.clerk)
        self._cache = cache
        self._apply_pending = apply_pending
        # The task went to sleep while nobody could be judged, and whatever falls due.
        self._ignores_deadlines = False

    def touch(self, batch: ChangeBatch) -> None:
        """Mark the connections that a batch can touch. Not a checkpoint; call it after each applied batch."""
        self._registry.sweep()
        self._court.touch(batch)

    def take_turn(self) -> None:
        """Judge the first chunk of what was touched here and now, and ring for the rest. Not a checkpoint.

        The common change touches few connections, and a turn of the loop takes longer than judging them; so the task
        is woken only where something is left for it. Call it after `touch`.
        """
        docket, court = self._docket, self._court
        if docket.dirty and not court.adjourned:
            end = time.perf_counter() + CHUNK_SECONDS
            for _ in range(CHUNK):
                connection, cause = docket.pop_dirty()
                court.judge(connection, cause)
                if not docket.dirty or time.perf_counter() > end:
                    break
        if docket.dirty or self._ignores_deadlines:
            docket.ring()

    def woke(self, slept_seconds: float = 0.0) -> None:
        """The machine has slept: give every suspect connection time for the network to come back (rule J7)."""
        self._deadlines.woke(slept_seconds)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Judge and decide until cancelled."""
        async with trio.open_nursery() as nursery:
            asker = Asker(self._registry.clerk, nursery)
            nursery.start_soon(asker.run, name="trio_routes: asking")
            self._court.asker = asker
            task_status.started()
            try:
                while True:
                    # While nobody may be judged, a deadline that passes must not keep the task awake.
                    self._ignores_deadlines = self._court.adjourned
                    await self._docket.wait(math.inf if self._ignores_deadlines else self._docket.next_time)
                    self._ignores_deadlines = False
                    while self._work():  # noqa: ASYNC110 -- each turn does work, and nobody rings for it
                        await trio.lowlevel.checkpoint()
            finally:
                self._court.asker = None

    def _work(self) -> bool:
        """Do one chunk; True if there is more to do."""
        docket, court = self._docket, self._court
        if docket.next_deadline <= trio.current_time() and not court.adjourned:
            self._apply_pending()
        if court.adjourned:
            return False
        end = time.perf_counter() + CHUNK_SECONDS
        for _ in range(CHUNK):
            suspect = docket.pop_mark(trio.current_time())
            if suspect is not None:
                court.mark(suspect)
            elif docket.dirty:
                connection, cause = docket.pop_dirty()
                court.judge(connection, cause)
            elif docket.next_deadline <= trio.current_time():
                due = docket.pop_due(trio.current_time())
                if due is not None:
                    self._deadlines.due(due)
            else:
                return False
            if time.perf_counter() > end:
                break
        return bool(docket.dirty) or docket.next_time <= trio.current_time()
