"""A forecast: what would become of the connections if something went, by the same judge on an overlay of the tables.

It asks and writes nothing: no event, no standing, no socket, and no generation is any different after it.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol

import attrs
import trio

from ..netlink import AF_INET6
from . import _clock as clock
from ._account import path_text
from ._decide import Circumstances, decide
from ._finding import find
from ._judge import has_slow_cause, judge
from ._suppose import Change, suppose
from ._verdict import Standing, Verdict

if TYPE_CHECKING:
    from ..routing import Overlay, Resolution
    from ._connection import Connection
    from ._court import Court
    from ._judge import Finding, Hops


class Fate(enum.Enum):
    """What would become of a connection."""

    KEPT = "kept"
    """Its path would be another one, and that would not matter."""
    SUSPECT = "suspect"
    """It would be SUSPECT for as long as that lasts, and not ended for it."""
    ASKED = "asked"
    """After the wait it would be asked about; the answer, which nobody knows, would decide."""
    ENDED = "ended"
    """It would be LOST once the wait is over."""


@attrs.frozen
class Prospect:
    """What would become of one connection.

    Attributes:
      connection: Which.
      fate: What would become of it.
      verdict: What the judge would say.
      after: The path that its packets would take.
      wait: Seconds until it would be ended or asked about; inf where that would not happen.
      path: `after` in words.
    """

    connection: Connection
    fate: Fate
    verdict: Verdict
    after: Resolution
    wait: float
    path: str

    def __str__(self) -> str:
        wait = f" after {self.wait:g} s" if math.isfinite(self.wait) else ""
        return f"{self.connection}: {self.fate.value}{wait}: {self.verdict.value}; path {self.path}"


@attrs.frozen
class Forecast:
    """What would become of a pt's connections; those that would stand as they do now are not in it.

    Attributes:
      changes: What was supposed, in words.
      prospects: What would become of each connection whose path or verdict would be another, the ended ones first.
    """

    changes: tuple[str, ...]
    prospects: tuple[Prospect, ...]

    @property
    def ended(self) -> tuple[Connection, ...]:
        """The connections that would be lost for certain."""
        return self._of(Fate.ENDED)

    @property
    def asked(self) -> tuple[Connection, ...]:
        """Those about which the far side, or their own probe, would be asked."""
        return self._of(Fate.ASKED)

    @property
    def suspect(self) -> tuple[Connection, ...]:
        """Those that would stay suspect."""
        return self._of(Fate.SUSPECT)

    @property
    def kept(self) -> tuple[Connection, ...]:
        """Those that would go on by another path."""
        return self._of(Fate.KEPT)

    def _of(self, fate: Fate) -> tuple[Connection, ...]:
        return tuple(prospect.connection for prospect in self.prospects if prospect.fate is fate)

    def __str__(self) -> str:
        counts = ", ".join(f"{len(self._of(fate))} {fate.value}" for fate in reversed(Fate))
        lines = [f"if {' and '.join(self.changes)}: {counts}"]
        return "\n".join(lines + [f"  {prospect}" for prospect in self.prospects])


class Overlaying(Protocol):
    """A routing cache that can be overlaid."""

    def overlay(self) -> Overlay:
        """A view to take things away from."""
        ...


_ORDER = (Fate.ENDED, Fate.ASKED, Fate.SUSPECT, Fate.KEPT)


def forecast(court: Court, cache: Overlaying, changes: tuple[Change, ...]) -> Forecast:
    """Say what would become of the connections if all of these changes happened at once. Not a checkpoint.

    Raises:
      ValueError: A change names nothing that is there, or is said in words that are not known.
      TypeError: A change is no such thing.
    """
    overlay = cache.overlay()
    words = tuple(suppose(overlay, change) for change in changes)
    if court.adjourned:
        return Forecast(words, ())  # nobody would be judged
    prospects = list(_prospects(court, overlay))
    prospects.sort(key=lambda prospect: _ORDER.index(prospect.fate))
    return Forecast(words, tuple(prospects))


def _prospects(court: Court, overlay: Overlay) -> Iterator[Prospect]:
    batch = overlay.batch
    touched: dict[Connection, None] = {}
    for connections, _ in court.index.touched_by(batch):
        touched.update(dict.fromkeys(connections))
    moves_ipv6 = any(change.old is not None and change.old.family == AF_INET6 for change in batch.routes)
    for connection in touched:
        record = connection.record
        if record.stand.standing is Standing.LOST or record.unfit or record.references <= 0 or record.attempt:
            continue
        finding = find(connection, overlay)
        if finding.verdict is Verdict.REROUTED:
            # It would go on by that path, and be judged against it: there may be no carrier, for one.
            by_then = judge(connection.flow, finding.hops, overlay, onlink=record.onlink)
            finding = finding if by_then.verdict.keeps else by_then
        verdict, hops = _as_it_is(connection, court)
        same = finding.hops == hops and (finding.verdict is verdict or (finding.verdict.keeps and verdict.keeps))
        # The socket of one that was acquitted may follow its old route until any IPv6 route changes (rule J6).
        stale = record.acquittal is not None and record.acquittal.ipv6_generation >= 0
        if not same or (stale and moves_ipv6):
            yield _prospect(connection, finding, court, overlay)


def _as_it_is(connection: Connection, court: Court) -> tuple[Verdict, Hops]:
    """What the judge says of a connection and its next hops now."""
    record = connection.record
    if connection not in court.docket.dirty:
        return record.stand.verdict, record.hops
    finding = find(connection, court.cache)  # its turn has not come, so what is written of it is old
    return finding.verdict, finding.hops


def _prospect(connection: Connection, finding: Finding, court: Court, overlay: Overlay) -> Prospect:
    record, policy, verdict = connection.record, connection.policy, finding.verdict
    path = path_text(finding.resolution, overlay)
    wait = policy.wait(verdict, slow=has_slow_cause(record.before, overlay))
    wait = None if wait is None else clock.damped(wait, record.returns, trio.current_time())
    if verdict.keeps or wait is None:
        return Prospect(connection, Fate.KEPT, verdict, finding.resolution, math.inf, path)
    if math.isinf(wait):
        return Prospect(connection, Fate.SUSPECT, verdict, finding.resolution, math.inf, path)
    of = Circumstances(
        flow=connection.flow,
        policy=policy,
        stand=clock.Stand(Standing.SUSPECT, verdict),
        before=record.before,
        now=finding.resolution,
        hops=finding.hops,
        born_broken=record.born_broken,
    )
    fate = _FATES[decide(of, overlay, can_ask=court.can_ask(connection))]
    return Prospect(connection, fate, verdict, finding.resolution, math.inf if fate is Fate.SUSPECT else wait, path)


_FATES = {
    clock.Decision.CLOSE: Fate.ENDED,
    clock.Decision.ASK: Fate.ASKED,
    clock.Decision.LEAVE: Fate.SUSPECT,
}
