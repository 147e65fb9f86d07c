"""The registry's record of one socket: what users see of it, and what the registry keeps for itself."""

from __future__ import annotations

import math
import weakref
from typing import TYPE_CHECKING, Protocol

import attrs
import trio

from ..routing import Outcome, Resolution
from ._clock import STEADY, Returns, Stand, good
from ._evidence import Mark
from ._flow import AnySocket, Flow
from ._policy import Policy, Probe
from ._verdict import Standing, Verdict

if TYPE_CHECKING:
    from ._index import Bundle
    from ._judge import Hops

UNKNOWN = Resolution(Outcome.NO_ROUTE)
"""The resolution of what is not looked up: connections that are not judged, or not yet."""


NOT_JUDGED = good(Verdict.UNJUDGED)


@attrs.frozen
class Loss:
    """What happened to a connection that was ended.

    Attributes:
      verdict: What the change did to it.
      before: The path under which it was last good.
      after: What a lookup for the same flow answered when it was ended.
      generation: The cache's generation then.
      time: `trio.current_time()` then.
      cause: The kernel's message, or what else it was.
      evidence: What asking the far side brought; "" where nobody was asked.
    """

    verdict: Verdict
    before: Resolution
    after: Resolution
    generation: int
    time: float
    cause: str
    evidence: str = ""

    def describe(self) -> str:
        """The loss in one line, the same in errors, cancellation reasons and logs."""
        verdict, after = self.verdict.value, str(self.after)
        after = "" if after == verdict else f": {after}"
        reasons = f"{self.cause}; {self.evidence}" if self.evidence else self.cause
        return f"{verdict}{after}, before: {self.before} ({reasons})"

    def __str__(self) -> str:
        return self.describe()


@attrs.frozen
class Acquittal:
    """A state of things that evidence showed to be harmless (rules J4, J6); it holds until that changes.

    Attributes:
      verdict: What the judge said.
      hops: The path then.
      ipv6_generation: The generation of the last IPv6 route change, for sockets that may still use an older route
        and move at the next such change; -1 for all others.
      by: What showed it, in words.
    """

    verdict: Verdict
    hops: Hops
    ipv6_generation: int = -1
    by: str = ""


class AttemptKey:
    """The key of an attempt to connect; there is no socket yet, and each attempt is its own.

    That it is one is told by its key rather than by a field, which every record would have to carry.
    """

    __slots__ = ()


@attrs.define(eq=False, weakref_slot=False)
class Record:
    """What the registry keeps of a connection for itself. It does not refer to the connection: no circles.

    Attributes:
      key: The key in the registry: the socket's cookie, or what stands for it.
      sockets: The objects that the owner has for the socket, weakly: normally one.
      references: Guards and wrappers in use.
      stand: How it stands.
      before: The resolution under which it was last good.
      now: The resolution when it was last judged.
      known: The next hops known to carry it, the latest first.
      hops: The next hops when it was last judged.
      cause: What made it suspect, in the kernel's words.
      probe: The application's own check.
      loss: How it ended.
      scopes: To be cancelled at the loss.
      acquittal: A verdict that evidence overruled, while nothing changes.
      judged: Whether it ever was.
      born_broken: There was no working path when it was registered, and none was seen since.
      unfit: It lives though the model says that it cannot: not judged any more.
      onlink: Its path is IPv4's "on the link that it is bound to" for want of a route.
      asking: Ends the task of the application's own probe.
      mark: How far it had got half a second after the last change; None while it is good, or that is to come.
      doubted: The machine slept so long that its path says nothing.
      returns: When its path came back, of late.
      was_reset: It was lost by a reset, of which its tasks may know.
      bundle: Where the index has it; None while it is not filed.
      place: Its key among the peers in the index.
      entry: When its entry in the docket comes up; inf while it has none.
    """

    key: object
    sockets: tuple[weakref.ref[object], ...] = ()
    references: int = 1
    stand: Stand = NOT_JUDGED
    before: Resolution = UNKNOWN
    now: Resolution = UNKNOWN
    known: Hops = ()
    hops: Hops = ()
    cause: str = ""
    probe: Probe | None = None
    loss: Loss | None = None
    scopes: tuple[trio.CancelScope, ...] = ()
    acquittal: Acquittal | None = None
    judged: bool = False
    born_broken: bool = False
    unfit: bool = False
    onlink: bool = False
    asking: trio.CancelScope | None = None
    mark: Mark | None = None
    doubted: bool = False
    returns: Returns = STEADY
    was_reset: bool = False
    bundle: Bundle | None = None
    place: int = 0
    entry: float = math.inf

    @property
    def attempt(self) -> bool:
        """Whether it is still being made: judged like any other, and nothing that anybody is told of."""
        return isinstance(self.key, AttemptKey)


def owned_socket(record: Record) -> AnySocket | None:
    """A socket by which its owner still has a connection open; None if there is none."""
    for reference in record.sockets:
        item = reference()
        if isinstance(item, AnySocket) and item.fileno() != -1:
            return item
    return None


def is_closed_by_owner(record: Record) -> bool:
    """Whether the owner has closed the socket without telling: nobody wants to hear of it any more."""
    for reference in record.sockets:
        item = reference()
        if item is not None and not (isinstance(item, AnySocket) and item.fileno() == -1):
            return False
    return bool(record.sockets)


class Settler(Protocol):
    """Who judges a connection whose turn has not come."""

    @property
    def blind(self) -> bool:
        """Whether the kernel is not followed."""
        ...

    def settle(self, connection: Connection) -> None:
        """Judge the connection now if a change may have touched it, and act on what comes of it."""
        ...


@attrs.define(eq=False)
class Connection:
    """One socket and how it stands with the network. Read-only for users; every guard and wrapper shares it.

    Reading `standing`, `verdict`, `loss`, `suspect_since` or `deadline` judges the connection there and then if
    a change of the tables may have touched it and its turn has not come: nobody sees a stale GOOD.

    Attributes:
      label: The application's name for it.
      flow: What decides its path.
      policy: How long it may stay suspect.
      opened_at: `trio.current_time()` of its registration.
      record: The registry's own notes; of no use to anybody else.
    """

    label: str
    flow: Flow
    policy: Policy
    opened_at: float
    record: Record = attrs.field(repr=False)
    _settler: Settler = attrs.field(repr=False, alias="settler")

    @property
    def standing(self) -> Standing:
        """GOOD, SUSPECT until the deadline, or LOST."""
        self._settler.settle(self)
        return self.record.stand.standing

    @property
    def verdict(self) -> Verdict:
        """What the judge says of its path; UNJUDGED while the kernel is not followed."""
        self._settler.settle(self)
        stand = self.record.stand
        if stand.standing is not Standing.LOST and self._settler.blind:
            return Verdict.UNJUDGED
        return stand.verdict

    @property
    def suspect_since(self) -> float | None:
        """`trio.current_time()` at which it became suspect; None while it is not."""
        self._settler.settle(self)
        return self.record.stand.since

    @property
    def deadline(self) -> float:
        """`trio.current_time()` at which it will be decided about; inf when nothing will end it."""
        self._settler.settle(self)
        return self.record.stand.deadline

    @property
    def loss(self) -> Loss | None:
        """How it was lost; None while it is not."""
        self._settler.settle(self)
        return self.record.loss

    @property
    def before(self) -> Resolution:
        """The path under which it was last good."""
        return self.record.before

    @property
    def now(self) -> Resolution:
        """The path as it was when the connection was last judged."""
        return self.record.now

    def describe(self) -> str:
        """`tcp 10.0.1.2:40000 -> 198.51.100.7:5432 (label)`."""
        return f"{self.flow} ({self.label})" if self.label else str(self.flow)

    def attach(self, scope: trio.CancelScope) -> None:
        """Have a scope cancelled at the loss, with its reason; at once if it is lost already."""
        record = self.record
        if self.loss is not None:
            scope.cancel(reason=self.sentence())
        else:
            record.scopes = (*record.scopes, scope)

    def detach(self, scope: trio.CancelScope) -> None:
        """Leave a scope alone from now on; one that is not attached is left alone anyway."""
        self.record.scopes = tuple(other for other in self.record.scopes if other is not scope)

    def sentence(self) -> str:
        """What RouteLostError and the cancellation's reason say."""
        loss = self.record.loss
        return f"{self.describe()}: {loss.describe()}" if loss is not None else self.describe()

    def __str__(self) -> str:
        return self.describe()
