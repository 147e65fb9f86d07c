"""What happens when a connection falls due: once more the judge, then evidence, then the decision.

    the judge once more ............. things may have changed in what was read meanwhile
    what its socket says ............ bytes acknowledged acquit; a reset or an end of its own settle it
    the decision (`_decide.py`) ..... CLOSE, ASK or LEAVE

One that waits without a deadline, because it was left or its policy never ends it, is looked at
too: its socket may prove later that it lives, or end. Those looks are further and further apart.
After the machine slept all deadlines are moved, and that is here, too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from . import _clock as clock
from ._connection import is_closed_by_owner, owned_socket
from ._hearing import Word, hear

if TYPE_CHECKING:
    from ._clerk import Clerk
    from ._connection import Connection
    from ._court import Court


class Deadlines:
    """Decides about connections, for one court.

    Args:
      court: Carries out what is decided.
      clerk: Takes what the connections' sockets say.
    """

    def __init__(self, court: Court, clerk: Clerk) -> None:
        self._court = court
        self._clerk = clerk

    def due(self, connection: Connection) -> None:
        """Judge a connection that is due once more, and decide about it if nothing changed that. Not a checkpoint."""
        court, record = self._court, connection.record
        if record.stand.is_to_be_looked_at:
            self._look_again(connection)
            return
        court.judge(connection, court.docket.dirty.pop(connection, record.cause))
        if is_closed_by_owner(record):
            court.close(connection)
            return
        if self._is_due(connection):
            self._hear(connection)
        if not self._is_due(connection):
            return
        asked = record.stand.mode is clock.Mode.ASKING
        decision = court.decision(connection)
        if decision is clock.Decision.CLOSE:
            note = f"no answer{' but one' if record.stand.note else ''} when it was asked" if asked else ""
            court.end(connection, record.stand.verdict, record.cause, evidence=note)
        elif decision is clock.Decision.LEAVE:
            record.stand = clock.left(record.stand, trio.current_time())
            court.docket.watch(connection)
        else:
            court.begin_asking(connection)

    def _is_due(self, connection: Connection) -> bool:
        stand = connection.record.stand
        return stand.suspect and stand.deadline <= trio.current_time()

    def _hear(self, connection: Connection) -> None:
        """Let evidence speak before a deadline does."""
        if connection.record.stand.mode is not clock.Mode.ASKING:
            self._take(connection, hear(connection.record))
        elif self._court.asker is not None:
            self._court.asker.look(connection)

    def _take(self, connection: Connection, word: Word) -> None:
        match word:
            case Word.ACKNOWLEDGED:
                self._clerk.acquit(connection, word.value)
            case Word.RESET:
                self._clerk.was_reset(connection)
            case Word.FINISHED:
                self._clerk.finished(connection)
            case Word.NOTHING:
                pass

    def _look_again(self, connection: Connection) -> None:
        """Look whether the socket of one that waits without a deadline says something by now."""
        court, record = self._court, connection.record
        court.settle(connection)
        if is_closed_by_owner(record):
            court.close(connection)
            return
        if not record.stand.is_to_be_looked_at or record.stand.due > trio.current_time():
            return
        self._take(connection, hear(record))
        if record.stand.is_to_be_looked_at:
            # Without a socket there is nothing that could ever speak for it.
            has_socket = owned_socket(record) is not None and connection.flow.protocol == "tcp"
            record.stand = clock.looked_at(record.stand, trio.current_time(), again=has_socket)
            court.docket.watch(connection)

    def woke(self, slept_seconds: float) -> None:
        """The machine has slept: give the network time to come back (rule J7).

        After a long sleep, those that can be asked about are: who translates has forgotten idle connections by then.
        """
        court, t = self._court, trio.current_time()
        court.awake_at = t + clock.WAKING_SECONDS
        for connection in list(court.index):
            record = connection.record
            moved = clock.woken(record.stand, t)
            if moved is not record.stand:
                record.stand = moved
                court.mark_later(connection)
                court.docket.watch(connection)
            if slept_seconds >= clock.LONG_SLEEP_SECONDS and court.can_ask(connection):
                record.doubted, record.acquittal = True, None
                court.docket.mark([connection], f"the machine slept for {slept_seconds:.0f} s")
        court.docket.ring()
