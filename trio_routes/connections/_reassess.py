"""The reassessment task: judges what a change can touch, and decides what falls due.

The follow task calls `touch` after each batch, which writes the docket and rings, and `take_turn`,
which judges the first chunk at once. The task works in chunks and gives the loop a turn between
them, because a default route that goes can touch a hundred thousand connections, and cancelling
them in one go would stop the loop for seconds.
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

CHUNK_SECONDS = 0.002


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

    def touch(self, batch: ChangeBatch) -> None:
        """Have the connections judged that a batch can touch. Not a checkpoint; call it after each applied batch."""
        self._registry.sweep()
        self._court.touch(batch)
        if self._docket.dirty or self._docket.next_deadline <= trio.current_time():
            self._docket.ring()

    def take_turn(self) -> None:
        """Judge the first chunk of what was touched here and now, without waiting for the task's turn.

        The common change touches few connections, and a turn of the loop takes longer than judging them. What is
        left over, and every deadline, is the task's.
        """
        end = time.perf_counter() + CHUNK_SECONDS
        for _ in range(CHUNK):
            if not self._docket.dirty or self._court.adjourned or time.perf_counter() > end:
                return
            connection, cause = self._docket.pop_dirty()
            self._court.judge(connection, cause)

    def woke(self, slept_seconds: float = 0.0) -> None:
        """The machine has slept: give every suspect connection time for the network to come back (rule J7)."""
        self._court.woke(slept_seconds)

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
                    adjourned = self._court.adjourned
                    await self._docket.wait(math.inf if adjourned else self._docket.next_time)
                    while self._work():  # noqa: ASYNC110 -- each turn does work, and nobody rings for it
                        await trio.lowlevel.checkpoint()
            finally:
                self._court.asker = None

    def _work(self) -> bool:
        """Do one chunk; True if there is more to do."""
        docket, court = self._docket, self._court
        if docket.next_deadline <= trio.current_time() and not court.adjourned:
            self._apply_pending()
        end = time.perf_counter() + CHUNK_SECONDS
        for _ in range(CHUNK):
            if court.adjourned:
                return False
            suspect = docket.pop_mark(trio.current_time())
            if suspect is not None:
                court.mark(suspect)
            elif docket.dirty:
                connection, cause = docket.pop_dirty()
                court.judge(connection, cause)
            else:
                due = docket.pop_due(trio.current_time())
                if due is None:
                    return False
                self._deadlines.due(due)
            if time.perf_counter() > end:
                break
        return bool(docket.dirty) or docket.next_time <= trio.current_time()
