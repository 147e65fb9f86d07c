"""websockets' Trio client and server over guarded streams.

The library reads in a task of its own, keeps what ended that, and makes it the cause of the
ConnectionClosedError that it raises to those who use the connection. So a loss needs no error of
ours: `keep_connected` and `serve_tcp` find RouteLostError in the chain of causes.
"""

from __future__ import annotations

import ssl as ssl_module
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, TypedDict, Unpack, cast, final

import trio
from websockets.client import process_exception
from websockets.proxy import get_proxy
from websockets.trio import client, connection, server

from .._pt import Pt
from ..connections import Connection, ConnectOptions, GuardedStream, Policy

if TYPE_CHECKING:
    from websockets.datastructures import HeadersLike
    from websockets.extensions.base import ClientExtensionFactory, ServerExtensionFactory
    from websockets.http11 import Request, Response
    from websockets.typing import LoggerLike, Origin, Subprotocol


class ClientOptions(TypedDict, total=False):
    """Options of `websockets.trio.client.connect`, with the same meanings and defaults.

    Attributes:
      stream: A stream that is connected already.
      host: Where to connect to, instead of the URI's host.
      port: Likewise.
      ssl: TLS context for a wss:// URI.
      server_hostname: Name for the TLS handshake.
      origin: The Origin header.
      extensions: Extensions to negotiate.
      subprotocols: In order of decreasing preference.
      compression: "deflate", or None.
      additional_headers: Of the handshake's request.
      user_agent_header: Likewise.
      proxy: True is what the environment says; it is the path to the proxy that counts then.
      open_timeout: Seconds for connecting and the handshakes.
      ping_interval: Seconds between keepalive pings.
      ping_timeout: Seconds to wait for the answer to one.
      close_timeout: Seconds for the closing handshake.
      max_size: Of an incoming message, in bytes.
      max_queue: How many frames are buffered.
      logger: The library's.
    """

    stream: trio.abc.Stream | None
    host: str
    port: int
    ssl: ssl_module.SSLContext | None
    server_hostname: str | None
    origin: Origin | None
    extensions: Sequence[ClientExtensionFactory] | None
    subprotocols: Sequence[Subprotocol] | None
    compression: str | None
    additional_headers: HeadersLike | None
    user_agent_header: str | None
    proxy: str | None
    open_timeout: float | None
    ping_interval: float | None
    ping_timeout: float | None
    close_timeout: float | None
    max_size: int | None
    max_queue: int | None
    logger: LoggerLike | None


class ServerOptions(TypedDict, total=False):
    """Options of `websockets.trio.server.serve`, with the same meanings and defaults.

    Attributes:
      ssl: TLS context.
      origins: Acceptable Origin headers.
      extensions: Extensions to negotiate.
      subprotocols: In order of decreasing preference.
      compression: "deflate", or None.
      process_request: Called with the handshake's request; may answer it.
      server_header: Of the handshake's response.
      open_timeout: Seconds for the handshakes.
      ping_interval: Seconds between keepalive pings.
      ping_timeout: Seconds to wait for the answer to one.
      close_timeout: Seconds for the closing handshake.
      max_size: Of an incoming message, in bytes.
      max_queue: How many frames are buffered.
      logger: The library's.
    """

    ssl: ssl_module.SSLContext | None
    origins: Sequence[Origin | None] | None
    extensions: Sequence[ServerExtensionFactory] | None
    subprotocols: Sequence[Subprotocol] | None
    compression: str | None
    process_request: Callable[[server.ServerConnection, Request], Awaitable[Response | None] | Response | None] | None
    server_header: str | None
    open_timeout: float | None
    ping_interval: float | None
    ping_timeout: float | None
    close_timeout: float | None
    max_size: int | None
    max_queue: int | None
    logger: LoggerLike | None


class _Guarded(connection.Connection):
    @property
    def route(self) -> Connection:
        """The registry's record of it."""
        return _route_of(self.stream)

    @property
    def local_address(self) -> tuple[str, int]:
        """Its own address; the library's looks for a bare SocketStream."""
        flow = self.route.flow
        return str(flow.local), flow.local_port

    @property
    def remote_address(self) -> tuple[str, int]:
        """The peer's address; a proxy's, where it goes through one."""
        flow = self.route.flow
        return str(flow.peer), flow.peer_port


class GuardedClientConnection(_Guarded, client.ClientConnection):
    """A client's connection over a guarded stream."""


class GuardedServerConnection(_Guarded, server.ServerConnection):
    """A server's connection over a guarded stream."""


@final
class connect(client.connect):  # noqa: N801 -- as the library's
    """Connect to a WebSocket server over a guarded stream; used as `websockets.trio.client.connect` is.

    A loss ends what waits for the connection with `websockets.ConnectionClosedError`, whose cause is the
    `RouteLostError`; a goodbye is not waited for then. As an infinite iterator it connects again, with the library's
    own delays; `Pt.keep_connected` is quicker, because it waits for the route.
    """

    def __init__(
        self,
        pt: Pt,
        uri: str,
        *,
        wait_for_route: bool = False,
        connect: ConnectOptions | None = None,
        **options: Unpack[ClientOptions],
    ) -> None:
        """Take what to connect with; nothing is connected yet.

        Args:
          pt: The worker's context.
          uri: ws:// or wss://.
          wait_for_route: Where there is no way to the host, wait for one until `open_timeout`, rather than fail at
            once.
          connect: How to connect, and how the connection is judged.
          **options: See `ClientOptions`.
        """
        super().__init__(
            uri, create_connection=GuardedClientConnection, process_exception=_process_exception, **options
        )
        self._pt = pt
        self._wait_for_route = wait_for_route
        self._connect: ConnectOptions = connect or {}

    async def open_tcp_stream(self) -> trio.abc.Stream:
        """Connect, for the library. A checkpoint."""
        proxy = get_proxy(self.ws_uri) if self.proxy is True else self.proxy
        if proxy is not None:
            return self._pt.guard_stream(await super().open_tcp_stream())
        host = cast("str", self.open_tcp_stream_kwargs.get("host", self.ws_uri.host))
        port = cast("int", self.open_tcp_stream_kwargs.get("port", self.ws_uri.port))
        if self._wait_for_route:
            await self._pt.wait_routable(
                host,
                port=port,
                source=self._connect.get("local_address"),
                device=self._connect.get("device"),
                mark=self._connect.get("mark") or 0,
            )
        return await self._pt.open_tcp_stream(host, port, **self._connect)


async def serve(
    pt: Pt,
    handler: Callable[[GuardedServerConnection], Awaitable[None]],
    port: int | None = None,
    *,
    host: str | None = None,
    backlog: int | None = None,
    listeners: Sequence[trio.SocketListener] | None = None,
    policy: Policy | None = None,
    task_status: trio.TaskStatus[server.Server] = trio.TASK_STATUS_IGNORED,
    **options: Unpack[ServerOptions],
) -> None:
    """Serve WebSocket connections over guarded streams, as `websockets.trio.server.serve` does.

    A handler is not cancelled by a loss: what it calls raises `websockets.ConnectionClosedError`, whose cause is the
    `RouteLostError`.

    Args:
      pt: The worker's context.
      handler: Called with each connection.
      port: Where to listen, in the caller's namespace; 0 lets the kernel choose.
      host: The address or name to listen on; None is every address of both families.
      backlog: The listen backlog.
      listeners: Listeners to use instead.
      policy: Seconds from SUSPECT to LOST, instead of the pt's.
      task_status: For `nursery.start`, which then returns the library's server.
      **options: See `ServerOptions`.

    Raises:
      ValueError: Neither a port nor listeners, or both.
      OSError: Listening failed.
    """
    if (port is None) == (listeners is None):
        raise ValueError("give either a port or listeners")
    if listeners is None:
        assert port is not None
        listeners = await trio.open_tcp_listeners(port, host=host, backlog=backlog)
    guarded = [pt.guard_listener(listener, policy=policy) for listener in listeners]
    await server.serve(
        cast("Callable[[server.ServerConnection], Awaitable[None]]", handler),  # of what create_connection makes
        listeners=cast("list[trio.SocketListener]", guarded),  # all that is asked of them is accept() and socket
        create_connection=GuardedServerConnection,
        task_status=task_status,
        **options,
    )


def _route_of(stream: trio.abc.Stream) -> Connection:
    layer: object = stream
    while isinstance(layer, trio.SSLStream):
        layer = cast("trio.SSLStream[trio.abc.Stream]", layer).transport_stream
    if not isinstance(layer, GuardedStream):
        raise TypeError(f"{type(layer).__name__} is not guarded: make it by pt.open_tcp_stream() or pt.guard_stream()")
    return layer.connection


def _process_exception(error: Exception) -> Exception | None:
    """Which errors of connecting are worth another try: the library's choice, and a loss during the TLS handshake."""
    return None if isinstance(error, trio.BrokenResourceError) else process_exception(error)
