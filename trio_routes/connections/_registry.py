"""The registry: one record per socket, shared by all guards and wrappers, found by the kernel's cookie.

It keeps no socket alive: records hold the owner's objects weakly, and one that is collected takes
its record with it. The callbacks of references, and the finalisers of guards and streams, only note
what was collected, because they run wherever the collector does: in the middle of anything, in any
thread. The next call sweeps up.
"""

from __future__ import annotations

import itertools
import logging
import weakref
from collections import deque
from collections.abc import Callable, Hashable, Iterator
from typing import Protocol

import attrs
import trio

from .._errors import RouteLostError
from .._events import Event
from ..netlink import IPAddress
from ..routing import Resolution
from ._clerk import Clerk
from ._connection import AttemptKey, Connection, Record
from ._court import Court, JudgedCache
from ._flow import (
    AnySocket,
    Flow,
    Peer,
    abortable_of,
    cookie_of,
    flow_of,
    is_connected,
    is_peer,
    layers,
    socket_of,
)
from ._judge import hops_of
from ._policy import Policy, Probe
from ._verdict import Standing, Verdict

_logger = logging.getLogger(__name__)


@attrs.frozen(kw_only=True)
class RegistryStatistics:
    """Numbers of a registry, at one moment.

    Attributes:
      registered: Connections in use.
      unjudged: Those among them that are never judged.
      suspect: Those that are SUSPECT now.
      waiting: Those that a change may have touched and whose turn has not come.
      judged: How often any was judged, ever.
      suspected: How often one became SUSPECT.
      asked: How often somebody was asked about one.
      damped: How often one was given a longer wait, because its path came and went several times within a minute.
      recovered: How often one became good again.
      rerouted: How often a path changed that does not matter.
      lost: How many were lost.
    """

    registered: int
    unjudged: int
    suspect: int
    waiting: int
    judged: int
    suspected: int
    asked: int
    damped: int
    recovered: int
    rerouted: int
    lost: int


class Newcomers(Protocol):
    """Sockets of which nobody tells that they are connected, or closed."""

    def take_in(self) -> None:
        """Register those that have connected meanwhile."""
        ...

    def let_go(self) -> None:
        """Release those that were closed."""
        ...


class _Reference(weakref.ref[object]):
    """A weak reference that knows under which key its object is registered."""

    __slots__ = ("key",)
    key: Hashable


class Registry:
    """The connections of one pt.

    Args:
      cache: The routing cache.
      policy: For connections that bring none.
      publish: Takes the events; never blocks.
      monitoring: Whether the kernel is followed.
      netns_cookie: SO_NETNS_COOKIE of the namespace that is followed; None if it is not known.
    """

    def __init__(
        self,
        cache: JudgedCache,
        *,
        policy: Policy,
        publish: Callable[[Event], None],
        monitoring: Callable[[], bool],
        netns_cookie: int | None,
    ) -> None:
        self.court: Court = Court(cache, publish=publish, monitoring=monitoring, ended=self._ended)
        self.clerk: Clerk = Clerk(self.court)
        self._cache = cache
        self._policy = policy
        self._netns_cookie = netns_cookie
        self._records: dict[Hashable, Connection] = {}
        self._lost: dict[Hashable, Connection] = {}
        self._collected: deque[Hashable] = deque()
        self._dropped: deque[Connection] = deque()
        self._on_collected = self._note_collected
        self._serial = itertools.count(1)
        self._closed = False
        self.newcomers: Newcomers | None = None
        """Those whom nobody registers by hand; None while nobody asks for them."""

    # ---- registering -----------------------------------------------------------------------

    def register(
        self,
        what: object,
        *,
        peer: tuple[str | IPAddress, int] | None = None,
        flow: Flow | None = None,
        policy: Policy | None = None,
        probe: Probe | None = None,
        label: str = "",
        before: Resolution | None = None,
        attempt: bool = False,
    ) -> Connection:
        """Find or make the one record of a socket, and refer to it once more. Not a checkpoint.

        A policy, probe or label that is given replaces what an earlier registration of the same socket gave.

        Args:
          what: A stream, a Trio or stdlib socket, an `Abortable`, a `Connection`; None for a flow alone (an attempt
            to connect).
          peer: The peer of a datagram socket that is not connected: (address, port).
          flow: Instead of reading it off the socket.
          policy: Instead of the pt's.
          probe: The application's own check of a path that moved.
          label: For events and messages.
          before: The path before the socket was connected, to be compared with the path now (R8).
          attempt: It is still being made: its scopes are cancelled like any other's, and nobody is told of it.

        Raises:
          TypeError: There is no socket in it, and no `flow`.
          ValueError: A stream socket that is not connected, a socket of another network namespace, or one that is
            registered with another `peer`.
          trio.ClosedResourceError: The socket or the pt is closed.
          RouteLostError: The socket was lost before, and its owner has not connected it again.
        """
        self.check_open()
        self.sweep()
        connection = self._find(what)
        if connection is not None:
            self._check_same_peer(connection, peer)
            connection.record.references += 1
            connection.policy = policy or connection.policy
            connection.label = label or connection.label
            connection.record.probe = probe or connection.record.probe
            self._hold(connection, socket_of(what))
            return connection
        item, key = self._identify(what, flow)
        if flow is None:
            flow = self._flow_of(item, peer)
        connection = Connection(
            label=label,
            flow=flow,
            policy=policy or self._policy,
            opened_at=trio.current_time(),
            record=Record(AttemptKey() if attempt else key, probe=probe),
            settler=self.court,
        )
        self._hold(connection, item)
        if before is not None and not flow.unjudged:
            connection.record.before = connection.record.now = before
            connection.record.known = hops_of(before, flow, self._cache)
        self._records[connection.record.key] = connection
        self.court.open(connection)
        return connection

    def check_open(self) -> None:
        """Raise trio.ClosedResourceError once the pt is closed."""
        if self._closed:
            raise trio.ClosedResourceError("the pt is closed")

    def _flow_of(self, item: object, peer: Peer | None) -> Flow:
        if isinstance(item, AnySocket):
            return flow_of(item, peer=peer, netns_cookie=self._netns_cookie)
        abortable = abortable_of(item)
        if abortable is None:
            raise TypeError(f"there is no socket in {item!r}: its flow has to be given with flow=")
        return abortable.flow

    def _identify(self, what: object, flow: Flow | None) -> tuple[object, Hashable]:
        """What stands for a connection, and the key for it. Raises as `register`."""
        if isinstance(what, Connection):
            # Its last guard was left, or it was lost: begin again with its socket, if that is still there.
            what = next((item for item in _items(what.record) if item is not None), None)
            if what is None:
                raise trio.ClosedResourceError("nobody uses the connection any more")
        item: object = socket_of(what) or abortable_of(what) or what
        if item is None:
            if flow is None:
                raise TypeError("there is nothing to guard: neither a socket nor a flow")
            return None, ("flow", next(self._serial))
        key = cookie_of(item) if isinstance(item, AnySocket) else ("object", id(item))
        lost = self._lost.get(key)
        if lost is not None and lost.record.loss is not None:
            if not isinstance(item, AnySocket) or not is_connected(item):
                raise RouteLostError(lost, lost.record.loss)
            del self._lost[key]  # its owner has connected it again: a new connection
        return item, key

    def _hold(self, connection: Connection, item: object) -> None:
        """Refer weakly to an object that an owner has for the socket."""
        record = connection.record
        if item is None or any(held is item for held in _items(record)):
            return
        try:
            reference = _Reference(item, self._on_collected)
        except TypeError as error:
            raise TypeError(
                f"{type(item).__name__} objects cannot be registered: they have no weak references"
            ) from error
        reference.key = record.key
        record.sockets = (*record.sockets, reference)

    def _check_same_peer(self, connection: Connection, peer: Peer | None) -> None:
        if peer is not None and not is_peer(connection.flow, peer):
            raise ValueError("the socket is registered with another peer: it can be judged for one only")

    def release(self, connection: Connection) -> None:
        """Give one reference back; with the last the record ends."""
        record = connection.record
        record.references -= 1
        if record.references <= 0 and self._records.get(record.key) is connection:
            del self._records[record.key]
            self.court.close(connection)

    def drop(self, connection: Connection) -> None:
        """Note a reference that nobody gave back. For finalisers; does nothing but that."""
        self._dropped.append(connection)

    def lose(
        self, connection: Connection, verdict: Verdict | None = None, cause: str = "", *, evidence: str = ""
    ) -> None:
        """End a connection now, as if the judge had said so: for a reset that comes while SUSPECT, and for tests.

        Args:
          connection: The one to end; nothing happens if it is lost already, or nobody uses it any more.
          verdict: Why; by default what the judge said last.
          cause: What told, in words; by default the change that made it suspect.
          evidence: What else there is to say for it, in words.
        """
        record = connection.record
        if record.stand.standing is Standing.LOST or self._records.get(record.key) is not connection:
            return
        self.court.end(connection, verdict or record.stand.verdict, cause or record.cause, evidence=evidence)

    def lose_if_reset(self, connection: Connection) -> None:
        """End a connection that is SUSPECT and of which the kernel has none any more (rule J5)."""
        if self._records.get(connection.record.key) is connection:
            self.clerk.heard_of_reset(connection)

    # ---- looking ---------------------------------------------------------------------------

    def find(self, what: object) -> Connection | None:
        """The connection of a stream or socket; None if it is not registered, or was lost. Not a checkpoint."""
        self.sweep()
        try:
            return self._find(what)
        except trio.ClosedResourceError:
            return None

    def _find(self, what: object) -> Connection | None:
        for layer in layers(what):
            key: Hashable = None
            if isinstance(layer, AnySocket):
                key = cookie_of(layer)
            elif isinstance(layer, Connection):
                key = layer.record.key
            elif layer is not None:
                key = ("object", id(layer))
            found = self._records.get(key)
            if found is not None:
                return found
        return None

    def __iter__(self) -> Iterator[Connection]:
        """The connections in use, in the order of their registration; the lost ones are in `history`.

        Attempts to connect are none.
        """
        return iter(self._in_use())

    def __len__(self) -> int:
        return len(self._in_use())

    def _in_use(self) -> list[Connection]:
        self.sweep()
        if self.newcomers is not None:
            self.newcomers.let_go()
        return [connection for connection in self._records.values() if not connection.record.attempt]

    @property
    def history(self) -> tuple[Connection, ...]:
        """The connections that were lost, the latest last; the last 256 are remembered."""
        return tuple(self.court.history)

    def statistics(self) -> RegistryStatistics:
        """Count. Walks through all connections: not for hot paths."""
        connections = list(self)
        counters = self.court.counters
        return RegistryStatistics(
            registered=len(connections),
            unjudged=sum(1 for item in connections if item.flow.unjudged or item.record.unfit),
            suspect=sum(1 for item in connections if item.record.stand.suspect),
            waiting=len(self.court.docket.dirty),
            judged=counters.judged,
            suspected=counters.suspected,
            asked=counters.asked,
            damped=counters.damped,
            recovered=counters.recovered,
            rerouted=counters.rerouted,
            lost=counters.lost,
        )

    # ---- ending ----------------------------------------------------------------------------

    def close(self) -> None:
        """End with the pt: standings stay what they were, nothing is cancelled any more (R15)."""
        if self._closed:
            return
        self._closed = True
        guarded = sum(1 for connection in self if connection.record.scopes)
        if guarded:
            were, them = ("connection was", "it") if guarded == 1 else ("connections were", "them")
            _logger.warning("the pt was left while %d %s still guarded; nobody watches %s now", guarded, were, them)
        for connection in self._records.values():
            self.court.close(connection)
        self._records.clear()
        self._lost.clear()

    def _ended(self, connection: Connection) -> None:
        """Remember a lost connection for as long as its socket's objects live (R12)."""
        key = connection.record.key
        self._records.pop(key, None)
        if not _is_collected(connection.record):
            self._lost[key] = connection

    def _note_collected(self, reference: weakref.ref[object]) -> None:
        if isinstance(reference, _Reference):
            self._collected.append(reference.key)

    def take_in(self) -> None:
        """Register what has connected by the paths that are still known; before anything is applied to the tables."""
        if self.newcomers is not None:
            self.newcomers.take_in()

    def sweep(self) -> None:
        """Take in newcomers, give back what was dropped, and drop the records of sockets that were collected."""
        self.take_in()
        while self._dropped:
            self.release(self._dropped.popleft())
        while self._collected:
            key = self._collected.popleft()
            lost = self._lost.get(key)
            if lost is not None and _is_collected(lost.record):
                del self._lost[key]
            connection = self._records.get(key)
            if connection is not None and _is_collected(connection.record):
                del self._records[key]
                self.court.close(connection)


def _items(record: Record) -> Iterator[object]:
    return (reference() for reference in record.sockets)


def _is_collected(record: Record) -> bool:
    for reference in record.sockets:  # noqa: SIM110 -- a generator would take longer than all else
        if reference() is not None:
            return False
    return True
