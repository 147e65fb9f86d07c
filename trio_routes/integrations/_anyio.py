"""anyio's socket streams over guarded streams, for libraries and applications that are written against anyio.

anyio has its own BrokenResourceError, which is not Trio's. What is raised here is both that and
`RouteLostError`. TLS goes on top by anyio's own `TLSStream.wrap`, which lets our errors pass.
"""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, NoReturn, Unpack, final

import anyio.abc
import trio

from .._errors import RouteLostError
from .._pt import Pt
from ..connections import Connection, ConnectOptions, GuardedListener, GuardedStream, Policy
from ..netlink import IPAddress

if TYPE_CHECKING:
    # What anyio itself says of them; the values' types depend on the keys.
    from typing import Any


class RouteLostResourceError(anyio.BrokenResourceError, RouteLostError):
    """The route was lost; anyio's error and Trio's, and `loss` says how."""


@final
class GuardedSocketStream(anyio.abc.SocketStream):
    """An anyio socket stream over a guarded stream; closing it closes that.

    Attributes:
      guarded: The stream.
    """

    def __init__(self, guarded: GuardedStream) -> None:
        self.guarded: GuardedStream = guarded

    @property
    def connection(self) -> Connection:
        """The registry's record of it."""
        return self.guarded.connection

    async def receive(self, max_bytes: int = 65536) -> bytes:
        """Receive some data. A checkpoint.

        Raises:
          anyio.EndOfStream: The peer ended its side.
          RouteLostResourceError: The route is lost.
          anyio.BrokenResourceError: The connection broke otherwise.
          anyio.ClosedResourceError: It was closed.
          anyio.BusyResourceError: Another task receives.
          ValueError: `max_bytes` is under 1.
        """
        try:
            data = await self.guarded.receive_some(max_bytes)
        except (trio.BrokenResourceError, trio.ClosedResourceError, trio.BusyResourceError) as error:
            raise _as_anyio(error, "reading from") from error
        if not data:
            raise anyio.EndOfStream
        return bytes(data)

    async def send(self, item: bytes) -> None:
        """Send all of it; errors as of `receive`. A checkpoint."""
        try:
            await self.guarded.send_all(item)
        except (trio.BrokenResourceError, trio.ClosedResourceError, trio.BusyResourceError) as error:
            raise _as_anyio(error, "writing to") from error

    async def send_eof(self) -> None:
        """End this side; errors as of `receive`. A checkpoint."""
        try:
            await self.guarded.send_eof()
        except (trio.BrokenResourceError, trio.ClosedResourceError, trio.BusyResourceError) as error:
            raise _as_anyio(error, "writing to") from error

    async def aclose(self) -> None:
        """Close it; at once after a loss. A checkpoint."""
        await self.guarded.aclose()

    @property
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        """Anyio's typed attributes: those of `anyio.abc.SocketAttribute`, as far as there is a socket."""
        if self._trio_socket is not None:
            return super().extra_attributes
        flow = self.connection.flow
        attribute = anyio.abc.SocketAttribute
        return {
            attribute.family: lambda: flow.family,
            attribute.local_address: lambda: (str(flow.local), flow.local_port),
            attribute.local_port: lambda: flow.local_port,
            attribute.remote_address: lambda: (str(flow.peer), flow.peer_port),
            attribute.remote_port: lambda: flow.peer_port,
        }

    @property
    def _trio_socket(self) -> trio.socket.SocketType | None:
        try:
            return self.guarded.socket
        except AttributeError:  # a fake kernel's stream
            return None

    @property
    def _raw_socket(self) -> socket.socket:
        # The stdlib's socket in Trio's: what anyio asks for, and where it takes it itself.
        inside: object = getattr(self.guarded.socket, "_sock", None)
        assert isinstance(inside, socket.socket)
        return inside


async def connect_tcp(
    pt: Pt, host: str | IPAddress, port: int, **options: Unpack[ConnectOptions]
) -> GuardedSocketStream:
    """Connect over TCP as `Pt.open_tcp_stream` does, for anyio. A checkpoint.

    Args:
      pt: The worker's context.
      host: A name or an address.
      port: The port.
      **options: See `ConnectOptions`.

    Raises:
      NoRouteError: An OSError: there is no route, or it went while connecting.
      OSError: The connection failed otherwise.
    """
    return GuardedSocketStream(await pt.open_tcp_stream(host, port, **options))


async def serve_tcp(
    pt: Pt,
    handler: Callable[[GuardedSocketStream], Awaitable[object]],
    port: int,
    *,
    host: str | None = None,
    backlog: int | None = None,
    policy: Policy | None = None,
    task_status: trio.TaskStatus[list[GuardedListener]] = trio.TASK_STATUS_IGNORED,
) -> NoReturn:
    """Serve TCP as `Pt.serve_tcp` does, with anyio streams. Returns only by being cancelled.

    Args:
      pt: The worker's context.
      handler: Called with each connection, which is closed when it ends. It is not cancelled by a loss; one that ends
        by the loss of its own stream ends quietly.
      port: The port; 0 lets the kernel choose.
      host: The address or name to listen on; None is every address of both families.
      backlog: The listen backlog.
      policy: Seconds from SUSPECT to LOST, instead of the pt's.
      task_status: For `nursery.start`, which then returns the listeners.

    Raises:
      OSError: Listening or accepting failed.
    """

    async def handle(stream: GuardedStream) -> None:
        await handler(GuardedSocketStream(stream))

    await pt.serve_tcp(handle, port, host=host, backlog=backlog, policy=policy, task_status=task_status)


def _as_anyio(error: Exception, action: str) -> Exception:
    if isinstance(error, RouteLostError):
        return RouteLostResourceError(error.connection, error.loss)
    if isinstance(error, trio.ClosedResourceError):
        return anyio.ClosedResourceError()
    if isinstance(error, trio.BusyResourceError):
        return anyio.BusyResourceError(action)
    return anyio.BrokenResourceError()
