"""The clerk: takes what comes in about connections from outside the tables, and has the court act on it.

an answer of whoever was asked ........ acquits, or ends
a reset while it is suspect ........... ends it, as the loss of the route that it is (rule J5)
its socket has ended of itself ........ nothing is lost; it is judged no more

What comes in is only taken while it is about the state of things that was asked about.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from . import _clock as clock
from ._connection import Acquittal, is_closed_by_owner
from ._decide import circumstances_of, closes_unasked
from ._finding import find, learn
from ._hearing import has_ended
from ._judge import may_be_stale
from ._verdict import Standing, Verdict, VerdictClass

if TYPE_CHECKING:
    from ._connection import Connection
    from ._court import Court


class Clerk:
    """Takes answers for one court."""

    def __init__(self, court: Court) -> None:
        self._court = court

    def answered(self, connection: Connection, *, accepted: bool, by: str, reset: bool = False) -> None:
        """Take the answer of whoever was asked about a connection.

        Args:
          connection: The one that was asked about; nothing happens if things have changed since.
          accepted: Whether the far side takes the connection as it comes now.
          by: Who or what answered, for events and losses.
          reset: The answer was a reset: there is no connection any more, whatever is judged.
        """
        court, record = self._court, connection.record
        if not reset:
            court.settle(connection)
        if record.stand.mode is not clock.Mode.ASKING or not record.stand.suspect:
            return
        if accepted:
            court.stop_asking(connection)
            self.acquit(connection, by)
        elif reset or not court.adjourned:  # else its deadline ends it, once somebody can be judged again
            evidence = by if reset else f"{by} said no"
            court.end(connection, record.stand.verdict, record.cause, evidence=evidence, reset=reset)

    def prolong(self, connection: Connection, until: float, note: str) -> None:
        """Whoever asks about a connection takes its silence for an answer at `until` only."""
        record = connection.record
        if record.stand.suspect and record.stand.mode is clock.Mode.ASKING:
            record.stand = clock.asking(record.stand, until, note)
            self._court.docket.watch(connection)

    def unanswered(self, connection: Connection) -> None:
        """A connection that was to be asked about has ended of itself, or cannot be asked after all."""
        court, record = self._court, connection.record
        if has_ended(record) or is_closed_by_owner(record):
            self.finished(connection)
        elif record.stand.suspect and not court.adjourned:
            record.stand = clock.left(record.stand, trio.current_time())
            court.docket.watch(connection)
            if closes_unasked(circumstances_of(connection), court.cache):
                court.end(connection, record.stand.verdict, record.cause)

    def heard_of_reset(self, connection: Connection) -> None:
        """One of its tasks had an error that may be a reset: so it is, if it is suspect and has no peer any more."""
        self._court.settle(connection)
        if connection.record.stand.suspect and has_ended(connection.record):
            self.was_reset(connection)

    def was_reset(self, connection: Connection) -> None:
        """A suspect connection has no peer any more."""
        record = connection.record
        self._court.end(connection, record.stand.verdict, record.cause, evidence="reset while suspect", reset=True)

    def finished(self, connection: Connection) -> None:
        """Both sides, or its owner, have ended it: there is nothing to be lost."""
        record = connection.record
        if record.stand.standing is not Standing.LOST:
            record.unfit = True
            record.stand = clock.good(Verdict.UNJUDGED)
        self._court.close(connection)

    def acquit(self, connection: Connection, by: str) -> None:
        """Let evidence overrule the model (rules J1, J4, J6); `by` says what showed it."""
        court, record = self._court, connection.record
        verdict = record.stand.verdict
        record.doubted = False
        if record.born_broken and verdict.cls is VerdictClass.CERTAIN:
            record.unfit = True
            record.stand = clock.good(Verdict.UNJUDGED)
            court.close(connection)
        else:
            stale = may_be_stale(connection.flow, record.before, record.now, court.cache)
            if verdict.cls is VerdictClass.UNCERTAIN and not stale:
                learn(record)
                record.before = record.now
                # By the path that was proven another thing may be wrong, such as no carrier: that is overruled as well.
                verdict = Verdict.UNCHANGED if court.adjourned else find(connection, court.cache).verdict
            if verdict.keeps:
                record.stand = clock.good()
            else:
                record.acquittal = Acquittal(verdict, record.hops, court.ipv6_generation if stale else -1, by)
                record.stand = clock.good(verdict)
            court.file(connection)
        court.herald.recovered(connection, by)
