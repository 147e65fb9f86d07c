"""The docket: which connections are to be judged again, and when which falls due.

The doorbell is a memory channel of one slot: ringing never blocks, and rings that come while
the task is busy are one ring.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from ._connection import Connection

# A deadline that moved leaves its old entry in the heap until it comes up. Connections that become suspect and
# good again all the time, under a patient policy, would pile them up: over this many the heap is built anew.
_SPARE_ENTRIES = 1024


class Docket:
    """What the reassessment task has before it."""

    def __init__(self) -> None:
        self.dirty: dict[Connection, str] = {}
        """To be judged again, with the cause."""
        self._deadlines: list[tuple[float, int, Connection]] = []
        self._marks: deque[tuple[float, Connection]] = deque()
        self._entries = 0
        self._compact_at = _SPARE_ENTRIES
        self._bell, self._rung = trio.open_memory_channel[None](1)

    def mark(self, connections: Iterable[Connection], cause: str) -> None:
        """Have connections judged again. The latest cause counts."""
        self.dirty.update(dict.fromkeys(connections, cause))

    def pop_dirty(self) -> tuple[Connection, str]:
        """Take out one connection to be judged, the latest first.

        A dict gives its last item at once, and its first only after walking over all that were taken before. Nobody
        starves: the task sleeps only when all are judged, and who is looked at is judged at once.
        """
        return self.dirty.popitem()

    def watch(self, connection: Connection) -> None:
        """Take note of when a connection falls due after that was set or moved; inf is never."""
        deadline = connection.record.stand.due
        if math.isinf(deadline):
            return
        self._entries += 1  # the serial number, so that connections are never compared
        heappush(self._deadlines, (deadline, self._entries, connection))
        if len(self._deadlines) > self._compact_at:
            self._deadlines = [entry for entry in self._deadlines if _is_valid(entry)]
            heapify(self._deadlines)
            self._compact_at = 2 * len(self._deadlines) + _SPARE_ENTRIES
        if self._deadlines[0][2] is connection:
            self.ring()  # the task's timer is set too late for it

    def mark_at(self, t: float, connection: Connection) -> None:
        """Have a connection's progress noted at `t`; for each call a later time than for the one before."""
        self._marks.append((t, connection))
        if len(self._marks) == 1:
            self.ring()

    def pop_mark(self, t: float) -> Connection | None:
        """Take out one connection whose progress was to be noted by `t`."""
        return self._marks.popleft()[1] if self._marks and self._marks[0][0] <= t else None

    @property
    def next_time(self) -> float:
        """When there is anything to do, though nothing changes; inf for never."""
        deadline = self.next_deadline
        return min(deadline, self._marks[0][0]) if self._marks else deadline

    def forget(self, connection: Connection) -> None:
        """Drop a connection that ended. Its deadline goes by itself."""
        self.dirty.pop(connection, None)

    @property
    def next_deadline(self) -> float:
        """When the next connection falls due; inf for never."""
        while self._deadlines and not _is_valid(self._deadlines[0]):
            heappop(self._deadlines)
        return self._deadlines[0][0] if self._deadlines else math.inf

    def pop_due(self, t: float) -> Connection | None:
        """Take out one connection whose deadline has passed at `t`."""
        return heappop(self._deadlines)[2] if self.next_deadline <= t else None

    def ring(self) -> None:
        """Wake the task."""
        try:
            self._bell.send_nowait(None)
        except trio.WouldBlock:
            pass  # it is rung already

    async def wait(self, until: float) -> None:
        """Return when it is rung, or at `until` (`trio.current_time()`; inf for no limit)."""
        with trio.move_on_at(until):
            await self._rung.receive()


def _is_valid(entry: tuple[float, int, Connection]) -> bool:
    deadline, _, connection = entry
    # One that was left, suspect as it was, is nobody's affair any more: its socket may well live on.
    return connection.record.stand.due == deadline and connection.record.references > 0
