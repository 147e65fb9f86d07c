"""`open_pt()` and `Pt`: the public face of one worker's context.

Each method hands on to the part that does the work; `_engine.py` has the parts and their wiring.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractContextManager, asynccontextmanager
from typing import NoReturn, TypeVar, Unpack, overload

import trio

from . import connections
from ._engine import Engine
from ._events import Event, Lagged
from ._routes import Routes
from ._services import Services
from ._statistics import Statistics
from .connections import (
    Backoff,
    Connection,
    Connections,
    ConnectOptions,
    Flow,
    Ground,
    GuardedListener,
    GuardedStream,
    Policy,
    Probe,
    TcpHints,
)
from .netlink import IPAddress, Kernel, LinuxKernel
from .portal import PortalConfig, PortalView
from .routing import Resolution

_T = TypeVar("_T")
_E = TypeVar("_E", bound=Event)

_POLICY = Policy()


class Pt:
    """One worker's context: a live copy of the kernel's routing tables, and the connections that depend on it.

    Made by `open_pt` and passed explicitly. It belongs to the Trio run that opened it; its methods raise
    RuntimeError in another run or thread, and trio.ClosedResourceError once it is closed.

    Attributes:
      worker: Which of several workers this is; 0 for a pt that was opened by itself.
      routes: The routing tables as they are now.
      connections: The connections that are guarded now, and those that were lost.
      portal: What is behind the gateway. Always there; nothing is sent unless `open_pt(portal=...)` or `check()` asks.
    """

    def __init__(self, engine: Engine, worker: int = 0) -> None:
        self.worker = worker
        self.routes: Routes = Routes(engine.cache)
        self.connections: Connections = Connections(engine.registry, engine.cache)
        self.portal: PortalView = PortalView(engine.detector)
        self._engine = engine
        self._token = trio.lowlevel.current_trio_token()

    def _here(self) -> Ground:
        """The parts to work with, once it is sure that this is the right run."""
        if trio.lowlevel.current_trio_token() is not self._token:
            raise RuntimeError("this pt belongs to another Trio run; each worker uses its own")
        return self._engine.ground

    # ---- state -----------------------------------------------------------------------------

    @property
    def monitoring(self) -> bool:
        """Whether the kernel's tables are followed. If not, no connection is ever judged."""
        return self._engine.monitoring

    @property
    def generation(self) -> int:
        """The number of batches of changes applied so far."""
        return self._engine.cache.generation

    def statistics(self) -> Statistics:
        """Return the counters as they are now. Not a checkpoint."""
        return self._engine.statistics()

    # ---- guarding --------------------------------------------------------------------------

    def guard(
        self,
        what: object,
        *,
        peer: tuple[str | IPAddress, int] | None = None,
        flow: Flow | None = None,
        policy: Policy | None = None,
        probe: Probe | None = None,
        tcp_hints: TcpHints | None = None,
        label: str = "",
    ) -> AbstractContextManager[Connection]:
        """Make a block whose body is cancelled when its connection loses its route.

        What `trio.fail_after` does with TooSlowError, this does with RouteLostError; entering and leaving never
        block and are no checkpoints.

        Args:
          what: A stream over a socket (TLS included), a Trio or stdlib socket, or a `Connection`.
          peer: The peer of an unconnected UDP socket.
          flow: What decides the path, where there is no socket to read it from.
          policy: Seconds from SUSPECT to LOST, instead of the pt's.
          probe: The application's own check of an uncertain path.
          tcp_hints: Keepalive and TCP_USER_TIMEOUT to set, for losses that no local event shows.
          label: A name for logs and messages.

        Raises:
          RouteLostError: From the block: the connection was lost. From the call: it was lost before.
          TypeError: There is no socket in `what` and no `flow`.
          ValueError: A stream socket that is not connected, or a socket of another network namespace.
          trio.ClosedResourceError: The socket or the pt is closed.
        """
        return connections.guard(
            self._here(), what, peer=peer, flow=flow, policy=policy, probe=probe, tcp_hints=tcp_hints, label=label
        )

    def guard_stream(
        self,
        stream: trio.abc.Stream,
        *,
        flow: Flow | None = None,
        policy: Policy | None = None,
        probe: Probe | None = None,
        label: str = "",
    ) -> GuardedStream:
        """Wrap a stream so that its calls raise RouteLostError when its route is lost. Not a checkpoint.

        Arguments and errors are those of `guard`. The wrapper owns the stream: closing it closes the stream.
        """
        return connections.guard_stream(self._here(), stream, flow=flow, policy=policy, probe=probe, label=label)

    def guard_listener(
        self, listener: trio.abc.Listener[trio.abc.Stream], *, policy: Policy | None = None, probe: Probe | None = None
    ) -> GuardedListener:
        """Wrap a listener so that the streams it accepts are guarded. Not a checkpoint."""
        return connections.guard_listener(self._here(), listener, policy=policy, probe=probe)

    def guard_new_sockets(self, *, policy: Policy | None = None) -> AbstractContextManager[None]:
        """Guard every outgoing TCP socket that anything in this Trio run makes, for the length of a `with` block.

        For libraries that take neither a stream nor a transport. Their owner sees ECONNRESET at the loss. Not covered:
        connections that are still being made, accepted ones, sockets made outside Trio or before the block. It works
        by Trio's socket factory, so one pt of a run at a time can do it; leaving the block restores the former one
        and guards none of them any more.

        Args:
          policy: Seconds from SUSPECT to LOST, instead of the pt's.

        Raises:
          RuntimeError: On entry: the new sockets of this run are guarded already.
          trio.ClosedResourceError: The pt is closed.
        """
        return connections.guard_new_sockets(self._here(), policy=policy)

    # ---- connecting and serving ------------------------------------------------------------

    async def open_tcp_stream(
        self,
        host: str | IPAddress,
        port: int,
        **options: Unpack[ConnectOptions],
    ) -> GuardedStream:
        """Connect over TCP as `trio.open_tcp_stream` does, and guard the stream. A checkpoint.

        Addresses that cannot be routed are passed over at once; an attempt whose route goes while it is pending
        fails at once.

        Args:
          host: A name or an address.
          port: The port.
          **options: See `ConnectOptions`.

        Raises:
          NoRouteError: An OSError: there is no route, or it went while connecting.
          OSError: The connection failed otherwise.
        """
        return await connections.open_tcp_stream(
            self._here(),
            host,
            port,
            **options,
        )

    async def open_ssl_over_tcp_stream(
        self,
        host: str | IPAddress,
        port: int,
        *,
        ssl_context: ssl.SSLContext | None = None,
        https_compatible: bool = False,
        **options: Unpack[ConnectOptions],
    ) -> trio.SSLStream[GuardedStream]:
        """Connect as `open_tcp_stream` does, with TLS on top. A checkpoint.

        `ssl_context` and `https_compatible` are those of `trio.open_ssl_over_tcp_stream`; the handshake is left to
        the first call.
        """
        return await connections.open_ssl_over_tcp_stream(
            self._here(),
            host,
            port,
            ssl_context=ssl_context,
            https_compatible=https_compatible,
            **options,
        )

    async def serve_tcp(
        self,
        handler: Callable[[GuardedStream], Awaitable[object]],
        port: int,
        *,
        host: str | None = None,
        backlog: int | None = None,
        handler_nursery: trio.Nursery | None = None,
        policy: Policy | None = None,
        task_status: trio.TaskStatus[list[GuardedListener]] = trio.TASK_STATUS_IGNORED,
    ) -> NoReturn:
        """Serve TCP as `trio.serve_tcp` does, with guarded streams. Returns only by being cancelled.

        A handler is not cancelled by a loss: its stream's calls raise RouteLostError. A handler that ends by the
        loss of its own stream ends quietly; anything else that it lets out ends the server.
        """
        await connections.serve_tcp(
            self._here(),
            handler,
            port,
            host=host,
            backlog=backlog,
            handler_nursery=handler_nursery,
            policy=policy,
            task_status=task_status,
        )

    async def serve_ssl_over_tcp(
        self,
        handler: Callable[[trio.SSLStream[GuardedStream]], Awaitable[object]],
        port: int,
        ssl_context: ssl.SSLContext,
        *,
        host: str | None = None,
        https_compatible: bool = False,
        backlog: int | None = None,
        handler_nursery: trio.Nursery | None = None,
        policy: Policy | None = None,
        task_status: trio.TaskStatus[list[trio.SSLListener[GuardedStream]]] = trio.TASK_STATUS_IGNORED,
    ) -> NoReturn:
        """Serve TLS as `trio.serve_ssl_over_tcp` does, with guarded streams underneath; see `serve_tcp`."""
        await connections.serve_ssl_over_tcp(
            self._here(),
            handler,
            port,
            ssl_context,
            host=host,
            https_compatible=https_compatible,
            backlog=backlog,
            handler_nursery=handler_nursery,
            policy=policy,
            task_status=task_status,
        )

    async def keep_connected(
        self,
        handler: Callable[[GuardedStream], Awaitable[_T]],
        host: str | IPAddress,
        port: int,
        *,
        retry_on: tuple[type[Exception], ...] = (),
        backoff: Backoff = connections.DEFAULT_BACKOFF,
        **options: Unpack[ConnectOptions],
    ) -> _T:
        """Wait until the host is routable, connect, run `handler(stream)`, and again after a loss. A checkpoint.

        The handler's return value ends it and is returned. It goes round again for errors that came out of its own
        stream, for failed connects and for `retry_on`; anything else that the handler raises propagates.

        Args:
          handler: Called with each new stream, which is closed when it ends.
          host: A name or an address.
          port: The port.
          retry_on: Exception types of the handler's own that also mean "again".
          backoff: How long to wait after failures that a lost route does not explain.
          **options: See `ConnectOptions`.
        """
        return await connections.keep_connected(
            self._here(),
            handler,
            host,
            port,
            retry_on=retry_on,
            backoff=backoff,
            **options,
        )

    async def wait_routable(
        self,
        host: str | IPAddress,
        *,
        port: int | None = None,
        source: str | IPAddress | None = None,
        device: str | None = None,
        mark: int = 0,
    ) -> Resolution:
        """Wait until there is a way to a host; at once where there is, or where nothing is monitored. A checkpoint.

        The answer is advice, true when given. It is one for TCP to `port` if that is given, where policy rules may
        select by it (``ip rule ... dport``).

        Raises:
          ValueError: A port that cannot be.
          trio.ClosedResourceError: The pt closed meanwhile.
        """
        return await connections.wait_routable(self._here(), host, port=port, source=source, device=device, mark=mark)

    # ---- events ----------------------------------------------------------------------------

    @overload
    def subscribe(self, *, buffer: int = 256) -> AbstractContextManager[trio.abc.ReceiveChannel[Event]]: ...
    @overload
    def subscribe(
        self, *kinds: type[_E], buffer: int = 256
    ) -> AbstractContextManager[trio.abc.ReceiveChannel[_E | Lagged]]: ...
    def subscribe(
        self, *kinds: type[Event], buffer: int = 256
    ) -> AbstractContextManager[trio.abc.ReceiveChannel[Event]]:
        """Receive typed events, for the length of a `with` block.

        Publishing never blocks: a reader that is more than `buffer` events behind gets what is buffered, then one
        `Lagged(missed)`, then new events. Subscribe before reading a snapshot, without an `await` between, and
        nothing is missed.

        Args:
          *kinds: Event classes; none is all. `Lagged` comes in any case.
          buffer: How many unread events are kept, at least 1.

        Raises:
          ValueError: `buffer` is under 1.
          trio.ClosedResourceError: The pt is closed.
        """
        self._here()
        return self._engine.broadcast.subscribe(*kinds, buffer=buffer)


@asynccontextmanager
async def open_pt(
    *,
    policy: Policy = _POLICY,
    portal: PortalConfig | None = None,
    netns: str | int | None = None,
    kernel: Kernel | None = None,
) -> AsyncGenerator[Pt]:
    """Open one worker's context; the routing tables are complete when the body begins. A checkpoint.

    The body's exception leaves as it is. Leaving the block ends the pt's tasks; guards that are still open
    elsewhere keep their standing and are no longer judged.

    Args:
      policy: How long connections may stay SUSPECT, unless theirs says otherwise.
      portal: Turns captive-portal detection on. Without it nothing is ever sent.
      netns: The network namespace to live in: a name, a path, or a descriptor. None is the caller's own.
      kernel: Another kernel than this machine's: `trio_routes.testing.FakeKernel`.

    Raises:
      FileNotFoundError: There is no namespace `netns`.
      ValueError: Both `netns` and `kernel` are given.
      BaseExceptionGroup: A task of the pt itself failed.
    """
    if kernel is not None:
        if netns is not None:
            raise ValueError("netns= and kernel= exclude each other: a kernel has its own namespace")
        async with _opened(kernel, policy, portal) as pt:
            yield pt
        return
    linux = LinuxKernel(netns)
    try:
        async with _opened(linux, policy, portal) as pt:
            yield pt
    finally:
        linux.close()


@asynccontextmanager
async def _opened(kernel: Kernel, policy: Policy, portal: PortalConfig | None) -> AsyncGenerator[Pt]:
    engine = Engine(kernel, policy, portal)
    try:
        async with Services() as services:
            await engine.start(services)
            yield Pt(engine)
    finally:
        engine.close()
