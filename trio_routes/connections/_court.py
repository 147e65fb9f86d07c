"""The court: judges connections and acts on it: suspects, acquits, ends, and files them for next time.

Both the registry (at registration, and when somebody reads a connection whose turn has not come)
and the reassessment task go through here, so a connection is treated alike whoever comes first.
Everything is synchronous: between two checkpoints of anybody a connection is wholly judged or not at all.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

import attrs
import trio

from .._events import Event
from ..netlink import AF_INET, AF_INET6
from . import _clock as clock
from ._connection import Acquittal, Connection, Loss, Record, is_closed_by_owner
from ._decide import closes_unasked, decide
from ._disconnect import cut
from ._docket import Docket
from ._evidence import SETTLED_SECONDS
from ._hearing import Word, has_ended, hear, take_mark
from ._herald import Counters, Herald
from ._index import Index, needs_of
from ._judge import (
    Finding,
    View,
    has_slow_cause,
    judge,
    may_be_stale,
)
from ._verdict import Standing, Verdict, VerdictClass

if TYPE_CHECKING:
    from ..routing import ChangeBatch, RouteChange

_UNCHANGED = clock.good()
MOST_KNOWN_HOPS = 4


class JudgedCache(View, Protocol):
    """The routing cache, as the court needs it."""

    @property
    def generation(self) -> int:
        """Counts the applied batches."""
        ...

    @property
    def resyncing(self) -> bool:
        """Whether the tables are being read anew: nobody is judged on half a table."""
        ...


class Asker(Protocol):
    """Whoever asks about connections."""

    def can_ask(self, connection: Connection) -> bool:
        """Whether there is anybody to ask."""
        ...

    def ask(self, connection: Connection) -> float:
        """Begin to ask; when silence will be an answer."""
        ...

    def stop(self, connection: Connection) -> None:
        """Ask no more."""
        ...

    def look(self, connection: Connection) -> None:
        """Hear what has been said by now, before silence counts."""
        ...


class Court:
    """Judges connections, and acts."""

    def __init__(
        self,
        cache: JudgedCache,
        *,
        publish: Callable[[Event], None],
        monitoring: Callable[[], bool],
        ended: Callable[[Connection], None],
    ) -> None:
        self.cache = cache
        self.index: Index = Index()
        self.docket: Docket = Docket()
        self.history: deque[Connection] = deque(maxlen=256)
        self.asker: Asker | None = None
        """Asks about connections; None while nobody can."""
        self._herald = Herald(publish, lambda: cache.generation)
        self.counters: Counters = self._herald.counters
        self._monitoring = monitoring
        self._ended = ended
        self._ipv6_generation = 0
        self._awake_at = -math.inf

    @property
    def blind(self) -> bool:
        """Whether the kernel is not followed."""
        return not self._monitoring()

    @property
    def adjourned(self) -> bool:
        """Whether nobody is judged now: the kernel is not followed, or its tables are being read anew."""
        return self.cache.resyncing or not self._monitoring()

    # ---- who is to be judged ---------------------------------------------------------------

    def open(self, connection: Connection) -> None:
        """Judge a connection for the first time; now if that is possible."""
        if connection.flow.unjudged:
            return
        if self.adjourned:
            self.docket.mark([connection], "registered while the tables were not known")
        else:
            self.judge(connection, "found so at registration")

    def touch(self, batch: ChangeBatch) -> None:
        """Put every connection on the docket that a batch can touch."""
        if batch.resynced or any(_is_ipv6(change) for change in batch.routes):
            self._ipv6_generation = batch.generation
        for connections, cause in self.index.touched_by(batch):
            self.docket.mark(connections, cause)

    def settle(self, connection: Connection) -> None:
        """Judge a connection whose turn has not come, if it has one coming (R11)."""
        cause = self.docket.dirty.get(connection)
        if cause is not None and not self.adjourned:
            del self.docket.dirty[connection]
            self.judge(connection, cause)

    def close(self, connection: Connection) -> None:
        """Forget a connection that nobody uses any more, or that was lost."""
        self.index.remove(connection)
        self.docket.forget(connection)
        self._stop_asking(connection)

    # ---- judging ---------------------------------------------------------------------------

    def judge(self, connection: Connection, cause: str) -> None:
        """Judge a connection after a change, and act."""
        record = connection.record
        if record.stand.standing is Standing.LOST or record.unfit or connection.flow.unjudged:
            return
        self.counters.judged += 1
        first = not record.judged
        finding = self._find_first(connection) if first else self._find(connection)
        if record.doubted and finding.verdict.keeps:
            # Its path is the same, and whoever translates beyond has had the time to forget it: nothing here tells.
            finding = attrs.evolve(finding, verdict=Verdict.EGRESS_CHANGED)
        if self._is_as_before(connection, finding):
            return
        moved = finding.hops != record.hops
        record.now, record.hops = finding.resolution, finding.hops
        if record.acquittal is not None and not self._still_holds(record.acquittal, finding):
            record.acquittal = None
        if record.acquittal is None:
            self._take_in(connection, finding.verdict, cause, moved=moved, first=first)
        self._file(connection)

    def _is_as_before(self, connection: Connection, finding: Finding) -> bool:
        """Whether a good connection was found exactly as it is filed: what most are, when a change touches many."""
        record = connection.record
        if (
            finding.verdict is not Verdict.UNCHANGED
            or record.stand is not _UNCHANGED
            or record.bundle is None
            or record.acquittal is not None
            or finding.resolution != record.now
        ):
            return False
        links = record.bundle.needs.links
        local = connection.flow.local
        return local is None or all(address.ifindex in links for address in self.cache.addresses_of(local))

    def due(self, connection: Connection) -> None:
        """Judge a connection whose deadline has passed once more, and decide about it if nothing changed that."""
        record = connection.record
        self.judge(connection, self.docket.dirty.pop(connection, record.cause))
        if is_closed_by_owner(record):
            self.close(connection)
            return
        self._hear(connection)
        if not record.stand.suspect or record.stand.deadline > trio.current_time():
            return
        asked = record.stand.mode is clock.Mode.ASKING
        decision = self._decide(connection)
        if decision is clock.Decision.CLOSE:
            note = f"no answer{' but one' if record.note else ''} when it was asked" if asked else ""
            self.end(connection, record.stand.verdict, record.cause, evidence=note)
        elif decision is clock.Decision.LEAVE:
            record.stand = clock.left(record.stand)
        else:
            assert self.asker is not None
            self.counters.asked += 1
            record.note = ""
            record.stand = clock.asking(record.stand, self.asker.ask(connection))
            self.docket.watch(connection)

    def _hear(self, connection: Connection) -> None:
        """Let evidence speak before a deadline does."""
        record = connection.record
        if not record.stand.suspect or record.stand.deadline > trio.current_time():
            return
        if record.stand.mode is clock.Mode.ASKING:
            if self.asker is not None:
                self.asker.look(connection)
            return
        match hear(record):
            case Word.ACKNOWLEDGED:
                self._acquit(connection, Word.ACKNOWLEDGED.value)
            case Word.RESET:
                self._end_reset(connection)
            case Word.FINISHED:
                self._finished(connection)
            case Word.NOTHING:
                pass

    def mark(self, connection: Connection) -> None:
        """Note how far a suspect connection has got, half a second after the change (rule J4)."""
        if connection.record.stand.suspect:
            take_mark(connection.record)

    def woke(self, slept_seconds: float) -> None:
        """The machine has slept: give the network time to come back (rule J7).

        After a long sleep, those that can be asked about are: who translates has forgotten idle connections by then.
        """
        t = trio.current_time()
        self._awake_at = t + clock.WAKING_SECONDS
        for connection in list(self.index):
            record = connection.record
            moved = clock.woken(record.stand, t)
            if moved is not record.stand:
                record.stand = moved
                self._mark_later(connection)
                self.docket.watch(connection)
            if slept_seconds >= clock.LONG_SLEEP_SECONDS and self.asker is not None and self.asker.can_ask(connection):
                record.doubted, record.acquittal = True, None
                self.docket.mark([connection], f"the machine slept for {slept_seconds:.0f} s")
        self.docket.ring()

    def _mark_later(self, connection: Connection) -> None:
        """What was first sent by the path of now is evidence; what was sent until it settles is not."""
        connection.record.mark = None
        if connection.flow.protocol == "tcp":
            self.docket.mark_at(trio.current_time() + SETTLED_SECONDS, connection)

    def _find(self, connection: Connection) -> Finding:
        record = connection.record
        return judge(connection.flow, record.known, self.cache, onlink=record.onlink, before=record.before)

    def _find_first(self, connection: Connection) -> Finding:
        record, flow = connection.record, connection.flow
        record.judged = True
        finding = self._find(connection)
        if finding.verdict is Verdict.NO_ROUTE and flow.device is not None and flow.family == AF_INET:
            # Bound to a link without a route: IPv4 takes the peer to be on the link. Where that was so from the
            # beginning it is the connection's path; later it only hides that the route is gone.
            on_link = judge(flow, record.known, self.cache, onlink=True)
            if on_link.verdict is not Verdict.NO_ROUTE:
                record.onlink, finding = True, on_link
        if flow.local is None and finding.resolution.source is not None:
            # Datagram sockets and connection attempts: the address that the kernel chooses here, from now on.
            connection.flow = attrs.evolve(flow, local=finding.resolution.source)
        record.born_broken = not record.known and finding.verdict.cls is VerdictClass.CERTAIN
        return finding

    def _take_in(self, connection: Connection, verdict: Verdict, cause: str, *, moved: bool, first: bool) -> None:
        """Let the clock have the verdict, and do what follows."""
        record, old, t = connection.record, connection.record.stand, trio.current_time()
        if not record.known:
            record.known = record.hops  # no baseline yet: the first path that there is
        slow = not verdict.keeps and has_slow_cause(record.before, self.cache)
        wait = connection.policy.wait(verdict, slow=slow)
        if wait:
            wait = max(wait, self._awake_at - t)
        stand = clock.on_verdict(old, verdict, t, wait=wait, slow=slow, moved=moved)
        if not stand.suspect:
            self._keep(connection, stand)
            return
        if is_closed_by_owner(record):
            self.close(connection)
            return
        if verdict is not old.verdict or not old.suspect:
            record.cause = cause
        record.stand = stand
        if stand.mode is not clock.Mode.ASKING:
            self._stop_asking(connection)
        if wait == 0 and not first and self._decide(connection) is clock.Decision.CLOSE:
            # No wait was asked for: not even for what else may be readable by now.
            self.end(connection, verdict, cause)
            return
        if not old.suspect:
            self._herald.suspect(connection)
        if not old.suspect or verdict is not old.verdict or moved:
            self._mark_later(connection)
        if stand.deadline != old.deadline:
            self.docket.watch(connection)

    def _keep(self, connection: Connection, stand: clock.Stand) -> None:
        """The verdict keeps the connection, or is one that its policy ignores."""
        record, before, was_suspect = connection.record, connection.record.before, connection.record.stand.suspect
        verdict = stand.verdict
        record.stand = stand
        record.cause = ""
        record.doubted = False
        self._stop_asking(connection)
        if verdict.keeps or verdict.cls is VerdictClass.UNCERTAIN:
            record.born_broken = False
            record.before = record.now
            if verdict is not Verdict.UNCHANGED:
                _learn(record)
        if was_suspect:
            self._herald.recovered(connection, "its path is back" if verdict.keeps else "its policy")
        if verdict is Verdict.REROUTED:
            self._herald.rerouted(connection, before)

    def _file(self, connection: Connection) -> None:
        """Put a connection where the next change that matters to it will find it."""
        record, local = connection.record, connection.flow.local
        if record.stand.standing is Standing.LOST or record.unfit or is_closed_by_owner(record):
            return
        holders = (address.ifindex for address in self.cache.addresses_of(local)) if local is not None else ()
        stale = record.acquittal is not None and record.acquittal.ipv6_generation >= 0
        self.index.file(connection, needs_of(record.now, record.known, holders, local, ipv6_routes=stale))

    # ---- deciding --------------------------------------------------------------------------

    def _decide(self, connection: Connection) -> clock.Decision:
        can_ask = self.asker is not None and self.asker.can_ask(connection)
        return decide(connection, self.cache, can_ask=can_ask)

    # ---- what asking brings ----------------------------------------------------------------

    def answered(self, connection: Connection, *, accepted: bool, by: str, reset: bool = False) -> None:
        """Take the answer of whoever was asked about a connection.

        Args:
          connection: The one that was asked about; nothing happens if things have changed since.
          accepted: Whether the far side takes the connection as it comes now.
          by: Who or what answered, for events and losses.
          reset: The answer was a reset: there is no connection any more, whatever is judged.
        """
        if not reset:
            self.settle(connection)
        record = connection.record
        if record.stand.mode is not clock.Mode.ASKING or not record.stand.suspect:
            return
        if accepted:
            self._stop_asking(connection)
            self._acquit(connection, by)
        elif reset or not self.adjourned:  # else its deadline ends it, once somebody can be judged again
            evidence = by if reset else f"{by} said no"
            self.end(connection, record.stand.verdict, record.cause, evidence=evidence, reset=reset)

    def prolong(self, connection: Connection, until: float, note: str) -> None:
        """Whoever asks about a connection takes its silence for an answer at `until` only."""
        record = connection.record
        if record.stand.suspect and record.stand.mode is clock.Mode.ASKING:
            record.note = note
            record.stand = clock.asking(record.stand, until)
            self.docket.watch(connection)

    def reset(self, connection: Connection) -> None:
        """One of its tasks had an error that may be a reset: so it is, if it is suspect and has no peer any more."""
        self.settle(connection)
        if connection.record.stand.suspect and has_ended(connection.record):
            self._end_reset(connection)

    def _end_reset(self, connection: Connection) -> None:
        record = connection.record
        self.end(connection, record.stand.verdict, record.cause, evidence="reset while suspect", reset=True)

    def unanswered(self, connection: Connection) -> None:
        """A connection that was to be asked about has ended of itself, or cannot be asked after all."""
        record = connection.record
        if has_ended(record) or is_closed_by_owner(record):
            self._finished(connection)
        elif record.stand.suspect and not self.adjourned:
            record.stand = clock.left(record.stand)
            if closes_unasked(connection, self.cache):
                self.end(connection, record.stand.verdict, record.cause)

    def _finished(self, connection: Connection) -> None:
        """Both sides, or its owner, have ended it: there is nothing to be lost."""
        record = connection.record
        if record.stand.standing is not Standing.LOST:
            record.unfit = True
            record.stand = clock.good(Verdict.UNJUDGED)
        self.close(connection)

    def _acquit(self, connection: Connection, by: str) -> None:
        """Evidence overrules the model (rules J1, J4, J6)."""
        record = connection.record
        verdict = record.stand.verdict
        record.doubted = False
        if record.born_broken and verdict.cls is VerdictClass.CERTAIN:
            record.unfit = True
            record.stand = clock.good(Verdict.UNJUDGED)
            self.close(connection)
        elif verdict.cls is VerdictClass.UNCERTAIN and not may_be_stale(connection.flow, record.before, record.now):
            _learn(record)
            record.before = record.now
            record.stand = clock.good()
            self._file(connection)
        else:
            stale = may_be_stale(connection.flow, record.before, record.now)
            record.acquittal = Acquittal(verdict, record.hops, self._ipv6_generation if stale else -1)
            record.stand = clock.good(verdict)
            self._file(connection)
        self._herald.recovered(connection, by)

    def _still_holds(self, acquittal: Acquittal, finding: Finding) -> bool:
        return (
            finding.verdict is acquittal.verdict
            and finding.hops == acquittal.hops
            and acquittal.ipv6_generation in (-1, self._ipv6_generation)
        )

    # ---- ending ----------------------------------------------------------------------------

    def end(
        self, connection: Connection, verdict: Verdict, cause: str, *, evidence: str = "", reset: bool = False
    ) -> None:
        """Lose a connection: LOST, the event, the scopes cancelled, the socket disconnected; in this order.

        The scopes come before the socket so that tasks in a guard's body get Cancelled, not an error.

        Args:
          connection: Which.
          verdict: Why.
          cause: What happened, in the kernel's words.
          evidence: What else there is to say for it: what asking brought.
          reset: Its socket was reset from outside: its tasks may know already.
        """
        record, t = connection.record, trio.current_time()
        loss = Loss(verdict, record.before, record.now, self.cache.generation, t, cause, evidence)
        record.stand, record.loss, record.was_reset = clock.lost(record.stand, verdict), loss, reset
        self.close(connection)
        if not record.attempt:
            self.history.append(connection)
        self._herald.lost(connection, loss)
        scopes, record.scopes = record.scopes, ()
        if scopes:
            reason = connection.sentence()
            for scope in scopes:
                scope.cancel(reason=reason)
        for reference in record.sockets:
            if cut(reference(), connection.flow):
                break
        self._ended(connection)

    def _stop_asking(self, connection: Connection) -> None:
        if self.asker is not None:
            self.asker.stop(connection)


def _is_ipv6(change: RouteChange) -> bool:
    body = change.new or change.old
    return body is not None and body.family == AF_INET6


def _learn(record: Record) -> None:
    """Let the path of now join the known ones, first; the oldest goes."""
    older = [hop for hop in record.known if hop not in record.hops]
    record.known = (*record.hops, *older)[:MOST_KNOWN_HOPS]
