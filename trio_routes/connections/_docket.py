"""The docket: which connections are to be judged again, and when which falls due.

The doorbell is a memory channel of one slot: ringing never blocks, and rings that come while
the task is busy are one ring.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Collection
from heapq import heappop, heappush
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from ._connection import Connection

# When a network is back after 30 ms, all that were suspect meanwhile come up a second later, and are not due. To pass
# over a hundred thousand entries in one go would stop the loop for a quarter of a second.
_PUT_RIGHT_AT_ONCE = 16


class Docket:
    """What the reassessment task has before it."""

    def __init__(self) -> None:
        self.dirty: dict[Connection, str] = {}
        """To be judged again, with the cause."""
        self._deadlines: list[tuple[float, int, Connection]] = []
        self._marks: deque[tuple[float, Connection]] = deque()
        self._entries = 0
        self._bell, self._rung = trio.open_memory_channel[None](1)

    def mark(self, connections: Collection[Connection], cause: str) -> None:
        """Have connections judged again. The latest cause counts.

        Ten thousand take half a millisecond where they are a dict and nobody is marked yet, as when a default route
        goes, and four times as long otherwise.
        """
        marked = dict.fromkeys(connections, cause)
        if self.dirty:
            self.dirty.update(marked)
        else:
            self.dirty = marked

    def pop_dirty(self) -> tuple[Connection, str]:
        """Take out one connection to be judged, the latest first.

        A dict gives its last item at once, and its first only after walking over all that were taken before. Nobody
        starves: the task sleeps only when all are judged, and who is looked at is judged at once.
        """
        return self.dirty.popitem()

    def watch(self, connection: Connection) -> None:
        """Take note of a connection's deadline after it was set or moved; inf is none.

        A connection has one entry. Where that is to come up earlier it stays, and is put back when it does: those that
        become suspect and good again all the time leave nothing behind, and nothing has to be searched for.
        """
        due = connection.record.stand.due
        if due < connection.record.entry:
            self._enter(connection, due)
            if self._deadlines[0][2] is connection:
                self.ring()  # the task's timer is set too late for it

    def _enter(self, connection: Connection, due: float) -> None:
        connection.record.entry = due
        self._entries += 1  # the serial number, so that connections are never compared
        heappush(self._deadlines, (due, self._entries, connection))

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
        """When the next connection falls due, or earlier where many deadlines were moved; inf for never."""
        for _ in range(_PUT_RIGHT_AT_ONCE):
            if not self._deadlines or self._is_right():
                break
        return self._deadlines[0][0] if self._deadlines else math.inf

    def pop_due(self, t: float) -> Connection | None:
        """Take out one connection whose deadline has passed at `t`, if `next_deadline` has found one."""
        if self.next_deadline > t or not self._is_right():
            return None
        _, _, connection = heappop(self._deadlines)
        connection.record.entry = math.inf
        return connection

    def _is_right(self) -> bool:
        """Whether the first entry's connection is due then; if not, the entry is put where it belongs."""
        at, _, connection = self._deadlines[0]
        record = connection.record
        if at != record.entry:
            heappop(self._deadlines)  # its deadline was moved to an earlier time, at which it came up
            return False
        # One that was left, suspect as it was, is nobody's affair any more: its socket may well live on.
        due = record.stand.due if record.references > 0 else math.inf
        if due <= at:
            return True
        heappop(self._deadlines)
        record.entry = math.inf
        if due < math.inf:
            self._enter(connection, due)
        return False

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
