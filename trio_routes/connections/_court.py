"""The court: judges connections and acts on it: suspects, acquits, ends, and files them for next time.

    after a change ............................ `judge`, here: the judge's finding, then the clock
    when one falls due, or the machine woke ... `_deadlines.py`
    when evidence comes in .................... `_clerk.py`

Both the registry (at registration, and when somebody reads a connection whose turn has not come)
and the reassessment task go through here, so a connection is treated alike whoever comes first.
Everything is synchronous: between two checkpoints of anybody a connection is wholly judged or not at all.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Protocol

import trio

from .._events import Event
from ..netlink import AF_INET6
from . import _clock as clock
from ._connection import Connection, Loss, is_closed_by_owner
from ._decide import circumstances_of, decide
from ._disconnect import cut
from ._docket import Docket
from ._evidence import SETTLED_SECONDS
from ._finding import find, find_first, is_as_filed, learn, still_holds
from ._hearing import take_mark
from ._herald import Counters, Herald
from ._index import Index, needs_of
from ._judge import View, has_slow_cause
from ._verdict import Standing, Verdict, VerdictClass

if TYPE_CHECKING:
    from ..routing import ChangeBatch, RouteChange


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
        self.herald: Herald = Herald(publish, lambda: cache.generation)
        self.counters: Counters = self.herald.counters
        self._monitoring = monitoring
        self._ended = ended
        self.ipv6_generation: int = 0
        """The generation of the last change of an IPv6 route."""
        self.awake_at: float = -math.inf
        """Until when the network is given time to come back after the machine slept."""

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
        if batch.resynced or _has_ipv6(batch.routes):
            self.ipv6_generation = batch.generation
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
        self.stop_asking(connection)

    # ---- judging ---------------------------------------------------------------------------

    def judge(self, connection: Connection, cause: str) -> None:
        """Judge a connection after a change, and act."""
        record = connection.record
        if record.stand.standing is Standing.LOST or record.unfit or connection.flow.unjudged:
            return
        self.counters.judged += 1
        first = not record.judged
        finding = find_first(connection, self.cache) if first else find(connection, self.cache)
        if is_as_filed(connection, finding, self.cache):
            return
        moved = finding.hops != record.hops
        record.now, record.hops = finding.resolution, finding.hops
        if record.acquittal is not None and not still_holds(record.acquittal, finding, self.ipv6_generation):
            record.acquittal = None
        if record.acquittal is None:
            self._take_in(connection, finding.verdict, cause, moved=moved, first=first)
            if finding.verdict is not Verdict.UNCHANGED and record.stand.standing is Standing.GOOD:
                self._judge_new_baseline(connection, cause)
        self.file(connection)

    def _judge_new_baseline(self, connection: Connection, cause: str) -> None:
        """Judge one that goes on by another path, or whose policy ignores that, against the path that it has now.

        Else what is wrong there, such as no carrier, would be found at the next change only, whatever that is about.
        """
        finding = find(connection, self.cache)
        if not finding.verdict.keeps:
            self._take_in(connection, finding.verdict, cause, moved=False, first=False)

    def mark(self, connection: Connection) -> None:
        """Note how far a suspect connection has got, half a second after the change (rule J4)."""
        if connection.record.stand.suspect:
            take_mark(connection.record)

    def mark_later(self, connection: Connection) -> None:
        """What was first sent by the path of now is evidence; what was sent until it settles is not."""
        connection.record.mark = None
        if connection.flow.protocol == "tcp":
            self.docket.mark_at(trio.current_time() + SETTLED_SECONDS, connection)

    def _take_in(self, connection: Connection, verdict: Verdict, cause: str, *, moved: bool, first: bool) -> None:
        """Let the clock have the verdict, and do what follows."""
        record, old, t = connection.record, connection.record.stand, trio.current_time()
        if not record.known:
            record.known = record.hops  # no baseline yet: the first path that there is
        slow = not verdict.keeps and has_slow_cause(record.before, self.cache)
        wait = self._wait(connection, verdict, slow=slow)
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
            self.stop_asking(connection)
        if wait == 0 and not first and self.decision(connection) is clock.Decision.CLOSE:
            # No wait was asked for: not even for what else may be readable by now.
            self.end(connection, verdict, cause)
            return
        if not old.suspect:
            self.herald.suspect(connection)
        if not old.suspect or verdict is not old.verdict or moved:
            self.mark_later(connection)
        if stand.due != old.due:
            self.docket.watch(connection)

    def _wait(self, connection: Connection, verdict: Verdict, *, slow: bool) -> float | None:
        """How long to wait for a verdict: as the policy says, and longer after waking and for a path that flaps."""
        wait, record, t = connection.policy.wait(verdict, slow=slow), connection.record, trio.current_time()
        if not wait:
            return wait
        damped = clock.damped(wait, record.returns, t)
        if damped > wait and not record.stand.suspect:
            self.counters.damped += 1
        return max(damped, self.awake_at - t)

    def _keep(self, connection: Connection, stand: clock.Stand) -> None:
        """The verdict keeps the connection, or is one that its policy ignores."""
        record, before, was_suspect = connection.record, connection.record.before, connection.record.stand.suspect
        verdict = stand.verdict
        record.stand = stand
        record.cause = ""
        record.doubted = False
        self.stop_asking(connection)
        if verdict.keeps or verdict.cls is VerdictClass.UNCERTAIN:
            record.born_broken = False
            record.before = record.now
            if verdict is not Verdict.UNCHANGED:
                learn(record)
        if was_suspect:
            if verdict.keeps:
                record.returns = clock.returned(record.returns, trio.current_time())
            self.herald.recovered(connection, "its path is back" if verdict.keeps else "its policy")
        if verdict is Verdict.REROUTED:
            self.herald.rerouted(connection, before)

    def file(self, connection: Connection) -> None:
        """Put a connection where the next change that matters to it will find it."""
        record, local = connection.record, connection.flow.local
        if record.stand.standing is Standing.LOST or record.unfit or is_closed_by_owner(record):
            return
        holders = (address.ifindex for address in self.cache.addresses_of(local)) if local is not None else ()
        stale = record.acquittal is not None and record.acquittal.ipv6_generation >= 0
        self.index.file(connection, needs_of(record.now, record.known, holders, local, ipv6_routes=stale))

    # ---- deciding, asking --------------------------------------------------------------------

    def decision(self, connection: Connection) -> clock.Decision:
        """What a suspect connection's deadline would bring if it had come, as things are."""
        return decide(circumstances_of(connection), self.cache, can_ask=self.can_ask(connection))

    def can_ask(self, connection: Connection) -> bool:
        """Whether there is anybody to ask about a connection."""
        return self.asker is not None and self.asker.can_ask(connection)

    def begin_asking(self, connection: Connection) -> None:
        """Have somebody asked about a connection; `_clerk.py` takes the answer."""
        assert self.asker is not None
        record = connection.record
        self.counters.asked += 1
        record.stand = clock.asking(record.stand, self.asker.ask(connection))
        self.docket.watch(connection)

    def stop_asking(self, connection: Connection) -> None:
        """Ask no more about a connection, if anybody does."""
        if self.asker is not None:
            self.asker.stop(connection)

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
        self.herald.lost(connection, loss)
        scopes, record.scopes = record.scopes, ()
        if scopes:
            reason = connection.sentence()
            for scope in scopes:
                scope.cancel(reason=reason)
        for reference in record.sockets:
            if cut(reference(), connection.flow):
                break
        self._ended(connection)


def _has_ipv6(changes: Iterable[RouteChange]) -> bool:
    for change in changes:
        body = change.new or change.old
        if body is not None and body.family == AF_INET6:
            return True
    return False
