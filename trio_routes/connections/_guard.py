"""Guard blocks: what `trio.fail_after` does with TooSlowError, a guard does with RouteLostError.

The registry cancels the guard's scope when it ends the connection. What leaves the block then:

    the body ended with                                   the guard raises
    ---------------------------------------------------   -----------------------------------------
    Cancelled of this scope, alone or a group of them     one bare RouteLostError
    nothing (it met no checkpoint after the loss)         nothing; `connection.loss` tells
    RouteLostErrors of this connection only               one bare RouteLostError
    errors of a socket that was reset while suspect       one bare RouteLostError, also where the body heard of it first
    Cancelled of an outer scope, RouteLostErrors or not   that Cancelled: the outer scope wins
    anything else, whatever is beside it                  that, as it is, with a note of the loss

`if scope.cancelled_caught: raise RouteLostError` in a `finally` would be shorter and wrong:
`CancelScope.__exit__` raises what remains of a group after Cancelled was taken out, *while*
`cancelled_caught` is True, and a real bug of the body's would be hidden behind the loss.
"""

from __future__ import annotations

import ssl
from contextlib import AbstractContextManager
from types import TracebackType
from typing import TYPE_CHECKING, cast, final

import trio

from .._errors import RouteLostError
from ._blame import remainder
from ._connection import owned_socket

if TYPE_CHECKING:
    from ..netlink import IPAddress
    from ._connection import Connection
    from ._flow import Flow
    from ._ground import Ground
    from ._hints import TcpHints
    from ._policy import Policy, Probe
    from ._registry import Registry


@final
class Guard(AbstractContextManager["Connection", bool]):
    """One use of one connection: registered by whoever makes it, left in `__exit__`.

    A class rather than `@contextmanager`: the generator's frames would not be protected from
    KeyboardInterrupt, and every error would pass through them.
    """

    __slots__ = ("_connection", "_entered", "_registry", "_released", "_scope")

    def __init__(self, registry: Registry, connection: Connection) -> None:
        self._registry = registry
        self._connection = connection
        self._scope = trio.CancelScope()
        self._entered = False
        self._released = False

    @trio.lowlevel.enable_ki_protection
    def __enter__(self) -> Connection:
        """Begin; not a checkpoint.

        Raises:
          RouteLostError: The connection is lost already.
          RuntimeError: The guard was entered before.
        """
        if self._entered:
            raise RuntimeError("a guard can be entered only once: call guard() again")
        self._entered = True
        connection = self._connection
        loss = connection.loss
        if loss is not None:
            self._release()
            raise RouteLostError(connection, loss)
        self._scope.__enter__()
        connection.attach(self._scope)
        return connection

    @trio.lowlevel.enable_ki_protection
    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        connection = self._connection
        if exc is not None and _tells_of_a_reset(exc):
            # The body of a bare stream hears of a reset from its socket. While the path is in doubt that is its loss.
            self._registry.lose_if_reset(connection)
        connection.detach(self._scope)
        self._release()
        remaining = exc
        try:
            if self._scope.__exit__(exc_type, exc, traceback):
                remaining = None
        except BaseException as error:  # noqa: BLE001, ASYNC103 -- it is raised again below
            remaining = error
        if self._scope.cancel_called:
            remaining = self._after_loss(exc, remaining)
        if remaining is None:
            return True
        if remaining is exc:
            return False
        context = remaining.__context__
        try:
            raise remaining
        finally:
            # `raise` has just made `exc` the context of what may be a part of it. And this frame, which the
            # traceback holds, must not hold the error in turn: a circle that only the collector could break.
            remaining.__context__ = context
            del remaining, exc, context

    def __del__(self) -> None:
        # A guard that was made and never entered: its reference would keep the record alive.
        if not self._released:
            self._released = True
            self._registry.drop(self._connection)

    def _release(self) -> None:
        if not self._released:
            self._released = True
            self._registry.release(self._connection)

    def _after_loss(self, exc: BaseException | None, remaining: BaseException | None) -> BaseException | None:
        """What is to leave the block, where the body ended with `exc` and its scope let `remaining` through."""
        connection, loss = self._connection, self._connection.record.loss
        if loss is None or (remaining is None and not self._scope.cancelled_caught):
            return remaining
        going_on = None if remaining is None else remainder(remaining, self._is_own_loss)
        if going_on is None:
            if isinstance(remaining, RouteLostError):
                return remaining
            error = RouteLostError(connection, loss)
            error.__cause__, error.__context__ = remaining, exc  # the context shows where the body was waiting
            return error
        # KeyboardInterrupt and its like are not the body's own, and leave as they came.
        note = f"meanwhile the connection was lost: {connection.sentence()}"
        if isinstance(going_on, Exception) and note not in getattr(going_on, "__notes__", ()):
            going_on.add_note(note)
        return going_on

    def _is_own_loss(self, error: BaseException) -> bool:
        if isinstance(error, RouteLostError):
            return error.connection is self._connection
        return self._connection.record.was_reset and _is_reset(error)


def _is_reset(error: BaseException) -> bool:
    """Whether an error may be a socket's or a bare stream's after a reset. A TLS alert is the peer's own affair."""
    if isinstance(error, RouteLostError):
        return False
    if isinstance(error, trio.BrokenResourceError):
        return not isinstance(error.__cause__, ssl.SSLError)
    return isinstance(error, (ConnectionError, TimeoutError))


def _tells_of_a_reset(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        parts = cast("BaseExceptionGroup[BaseException]", error).exceptions
        return any(map(_tells_of_a_reset, parts))
    return _is_reset(error)


def guard(
    ground: Ground,
    what: object,
    *,
    peer: tuple[str | IPAddress, int] | None = None,
    flow: Flow | None = None,
    policy: Policy | None = None,
    probe: Probe | None = None,
    tcp_hints: TcpHints | None = None,
    label: str = "",
) -> Guard:
    """Make a block whose body is cancelled when its connection is lost.

    The connection is registered here, not on entry, so that what is wrong with it is raised before any scope is
    entered. `with` gives its `Connection`.

    Args:
      ground: The pt's parts.
      what: A stream, a Trio or stdlib socket, or a `Connection`.
      peer: The peer of a datagram socket that is not connected: (address, port).
      flow: What decides the path, where there is no socket to read it from.
      policy: Seconds from SUSPECT to LOST, instead of the pt's.
      probe: The application's own check of an uncertain path, instead of the kernel's keepalive.
      tcp_hints: Keepalive and timeout settings for the socket, where there is one.
      label: For events and messages.

    Raises:
      TypeError: There is no socket in it, and no `flow`.
      ValueError: An unconnected stream socket, a socket of another network namespace, or `tcp_hints` for what is not
        TCP.
      trio.ClosedResourceError: The socket or the pt is closed.
      RouteLostError: The socket was lost before, and nobody has connected it again.
    """
    connection = ground.registry.register(what, peer=peer, flow=flow, policy=policy, probe=probe, label=label)
    if tcp_hints is not None:
        try:
            _hint(connection, tcp_hints)
        except BaseException:
            ground.registry.release(connection)
            raise
    return Guard(ground.registry, connection)


def _hint(connection: Connection, hints: TcpHints) -> None:
    """Set them on the connection's socket; in memory there is none, and nothing to set."""
    protocol = connection.flow.protocol
    if protocol not in ("tcp", "mptcp"):
        raise ValueError(f"tcp_hints are for TCP, not for {protocol}")
    sock = owned_socket(connection.record)  # not socket_of(what): that may be a Connection
    if sock is not None:
        hints.apply_to(sock)
