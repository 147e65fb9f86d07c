"""Guarded streams: a stream whose own calls say that the route was lost. It cancels nobody.

There is no cancel scope around the calls (3.7 µs each) and no task behind them: the registry
ends a lost socket, the call that is pending on it fails with BrokenResourceError, and this
module's part is to say why. The same holds for streams without a socket that can be aborted.
"""

from __future__ import annotations

import ssl
import weakref
from typing import TYPE_CHECKING, NoReturn, final

import trio

from .._errors import RouteLostError
from ._blame import is_afterword_of_tls
from ._flow import socket_of
from ._verdict import Standing

if TYPE_CHECKING:
    from ._connection import Connection
    from ._flow import Flow
    from ._ground import Ground
    from ._policy import Policy, Probe
    from ._registry import Registry


@final
class GuardedStream(trio.abc.HalfCloseableStream):
    """A stream whose calls raise `RouteLostError` once its connection is lost.

    Everything else is the inner stream's: its errors, its end-of-file, its BusyResourceError.

    Attributes:
      connection: The registry's record.
      inner: The stream that does the work.
    """

    __slots__ = ("__weakref__", "_closed", "_raised", "_record", "_registry", "_released", "connection", "inner")

    def __init__(self, inner: trio.abc.Stream, connection: Connection, registry: Registry) -> None:
        self.inner: trio.abc.Stream = inner
        self.connection: Connection = connection
        # Read on every call. Not `connection.loss`: that judges, and a call is no reason to.
        self._record = connection.record
        self._registry = registry
        self._closed = False
        self._released = False
        # Errors of the peer's making that came out of this stream; who runs a handler for it asks. Most streams have
        # none ever, and an empty set is half of what a guarded stream would take.
        self._raised: weakref.WeakSet[trio.BrokenResourceError] | None = None

    @property
    def socket(self) -> trio.socket.SocketType:
        """The Trio socket underneath.

        Raises:
          AttributeError: There is none.
        """
        found = socket_of(self.inner)
        if not isinstance(found, trio.socket.SocketType):
            raise AttributeError(f"{type(self.inner).__name__} has no Trio socket underneath")
        return found

    def tells_of_loss(self, error: BaseException) -> bool:
        """Whether an error tells of the loss of its connection, if only by the TLS on top of it."""
        if isinstance(error, RouteLostError):
            return error.connection is self.connection
        return self._record.loss is not None and is_afterword_of_tls(error, self)

    def raised(self, error: BaseException) -> bool:
        """Whether this very error came out of this stream, or tells of the loss of its connection."""
        if self.tells_of_loss(error):
            return True
        return isinstance(error, trio.BrokenResourceError) and self._raised is not None and error in self._raised

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """Receive some data, as `trio.abc.ReceiveStream.receive_some`; b"" is the peer's end-of-file only.

        Raises:
          RouteLostError: The connection is lost; bytes that were still in the kernel's buffer are dropped.
        """
        if self._record.loss is not None and not self._closed:
            await self._refuse()
        try:
            data = await self.inner.receive_some(max_bytes)
        except trio.BrokenResourceError as error:
            raise self._explained(error)  # noqa: B904 -- it knows its cause
        # Where a socket could not be disconnected it was shut down, and that forges an end-of-file: half a
        # download would pass for a whole one.
        if not data and self._record.loss is not None:
            self._raise_loss()
        return data

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send all of it, as `trio.abc.SendStream.send_all`; how much went out before an error is unknown.

        Raises:
          RouteLostError: The connection is lost.
        """
        if self._record.loss is not None and not self._closed:
            await self._refuse()
        try:
            await self.inner.send_all(data)
        except trio.BrokenResourceError as error:
            raise self._explained(error)  # noqa: B904 -- it knows its cause

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until `send_all` might not block, as `trio.abc.SendStream` has it.

        Raises:
          RouteLostError: The connection is lost.
        """
        if self._record.loss is not None and not self._closed:
            await self._refuse()
        try:
            await self.inner.wait_send_all_might_not_block()
        except trio.BrokenResourceError as error:
            raise self._explained(error)  # noqa: B904 -- it knows its cause
        if self._record.loss is not None:  # a socket that was ended is writable
            self._raise_loss()

    async def send_eof(self) -> None:
        """Tell the peer that nothing more will come, as `trio.abc.HalfCloseableStream.send_eof`.

        Raises:
          RouteLostError: The connection is lost.
          NotImplementedError: The inner stream cannot be half-closed; TLS in Trio cannot.
        """
        if self._record.loss is not None and not self._closed:
            await self._refuse()
        if not isinstance(self.inner, trio.abc.HalfCloseableStream):
            raise NotImplementedError(f"{type(self.inner).__name__} cannot be half-closed")
        try:
            await self.inner.send_eof()
        except trio.BrokenResourceError as error:
            raise self._explained(error)  # noqa: B904 -- it knows its cause
        if self._record.loss is not None:  # Trio's socket streams return quietly from a second send_eof
            self._raise_loss()

    async def aclose(self) -> None:
        """Close the inner stream and leave the registry; a checkpoint, and no RouteLostError ever.

        After a loss, or when the loss comes during a goodbye, it closes at once: nobody would hear the rest.
        """
        self._closed = True
        connection = self.connection
        if self._released:
            await self.inner.aclose()
            return
        # The goodbye of a stream that has no socket is ended by nothing but this scope.
        scope = trio.CancelScope()
        try:
            with scope:
                connection.attach(scope)  # after the loss this cancels it
                await self.inner.aclose()
        except trio.BrokenResourceError:
            await trio.aclose_forcefully(self.inner)
            if connection.loss is None:
                raise
        finally:
            connection.detach(scope)
            self._release()

    def __del__(self) -> None:
        # Dropped without aclose(): one reference less, while the socket may well live on with another owner.
        if not self._released:
            self._released = True
            self._registry.drop(self.connection)

    def _release(self) -> None:
        if not self._released:
            self._released = True
            self._registry.release(self.connection)

    async def _refuse(self) -> NoReturn:
        """Answer a call that comes after the loss."""
        # First a checkpoint: a retry loop must not starve the others, and a cancellation wins.
        await trio.lowlevel.checkpoint()
        self._raise_loss()

    def _raise_loss(self) -> NoReturn:
        """Raise the loss: each time a new error, because tasks must not share tracebacks."""
        loss = self._record.loss
        assert loss is not None
        raise RouteLostError(self.connection, loss)

    def _explained(self, error: trio.BrokenResourceError) -> Exception:
        """What to raise for a call that failed with `error`: that itself, or what really ended the call."""
        better: Exception
        connection = self.connection
        if self._closed:
            better = trio.ClosedResourceError("this stream was closed")
        elif isinstance(error, RouteLostError):  # guarded further down
            return error
        else:
            # A reset that comes while the path is in doubt is how a NAT, a filter or the peer answers what arrives
            # by the new one. A TLS alert or a torn record is the peer's own affair.
            is_reset = not isinstance(error.__cause__, ssl.SSLError)
            if is_reset and connection.standing is Standing.SUSPECT:
                self._registry.lose(connection, evidence=f"reset while suspect: {error}")
            loss = self._record.loss
            if loss is None:
                if self._raised is None:
                    self._raised = weakref.WeakSet()
                self._raised.add(error)
                return error
            better = RouteLostError(connection, loss)
        better.__cause__ = error
        return better


def guard_stream(
    ground: Ground,
    stream: trio.abc.Stream,
    *,
    flow: Flow | None = None,
    policy: Policy | None = None,
    probe: Probe | None = None,
    label: str = "",
) -> GuardedStream:
    """Wrap a stream so that its calls raise `RouteLostError` when its route is lost. Not a checkpoint.

    Args:
      ground: The pt's parts.
      stream: A stream over a socket (TLS included), or one that can be aborted. It stays the caller's, but
        closing the wrapper closes it.
      flow: What decides the path, where there is no socket to read it from.
      policy: Seconds from SUSPECT to LOST, instead of the pt's.
      probe: The application's own check of an uncertain path, instead of the kernel's keepalive.
      label: For events and messages.

    Raises:
      TypeError: There is no socket in it, and no `flow`.
      ValueError: An unconnected stream socket, or a socket of another network namespace.
      trio.ClosedResourceError: The socket or the pt is closed.
      RouteLostError: The socket was lost before, and nobody has connected it again.
    """
    connection = ground.registry.register(stream, flow=flow, policy=policy, probe=probe, label=label)
    return GuardedStream(stream, connection, ground.registry)
