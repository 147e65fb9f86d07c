"""trio-websocket's client and server over guarded streams.

The library swallows what ended a connection, and raises a ConnectionClosed that has no cause. To a
client the loss is told here: a guard block cancels the body, and a ConnectionClosed that came of
the loss is raised again as `RouteLostError`, which `keep_connected` knows. A server's handler sees
ConnectionClosed, as for any client that went without a goodbye.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Iterable
from contextlib import asynccontextmanager, contextmanager
from typing import NoReturn, TypedDict, Unpack, cast, final
from urllib.parse import urlsplit

import trio
from trio_websocket import (
    ConnectionClosed,
    ConnectionTimeout,
    DisconnectionTimeout,
    Endpoint,
    HandshakeError,
    WebSocketConnection,
    WebSocketRequest,
    WebSocketServer,
    wrap_client_stream,
)

from .._errors import RouteLostError
from .._pt import Pt
from ..connections import ConnectOptions, GuardedListener, GuardedStream, Policy

# Seconds; the library's own, for the opening and for the closing handshake.
_TIMEOUT = 60.0


class WebSocketOptions(TypedDict, total=False):
    """Options that the library has for connections of both sides, with the same meanings and defaults.

    Attributes:
      message_queue_size: How many messages are buffered.
      max_message_size: Of an incoming message, in bytes.
      receive_buffer_size: How many bytes are read at once; None lets Trio choose.
    """

    message_queue_size: int
    max_message_size: int
    receive_buffer_size: int | None


@asynccontextmanager
async def open_websocket_url(
    pt: Pt,
    url: str,
    *,
    stream: GuardedStream | None = None,
    ssl_context: ssl.SSLContext | None = None,
    subprotocols: Iterable[str] | None = None,
    extra_headers: list[tuple[bytes, bytes]] | None = None,
    connect_timeout: float = _TIMEOUT,
    disconnect_timeout: float = _TIMEOUT,
    connect: ConnectOptions | None = None,
    **options: Unpack[WebSocketOptions],
) -> AsyncGenerator[WebSocketConnection]:
    """Open a WebSocket over a guarded stream, as `trio_websocket.open_websocket_url` does.

    When the route is lost the body is cancelled, and one bare `RouteLostError` leaves the block.

    Args:
      pt: The worker's context.
      url: ws:// or wss://.
      stream: A stream that is connected already, without TLS: that of a `keep_connected` handler.
      ssl_context: For a wss:// URL.
      subprotocols: In order of preference.
      extra_headers: Of the handshake's request.
      connect_timeout: Seconds for connecting and the handshakes.
      disconnect_timeout: Seconds for the closing handshake; after a loss none is tried.
      connect: How to connect, and how the connection is judged.
      **options: See `WebSocketOptions`.

    Raises:
      RouteLostError: The route was lost.
      HandshakeError: The library's: the connection failed; with a `NoRouteError` as its cause there is no way.
      ConnectionTimeout: The library's: it took too long.
      ValueError: The URL is no WebSocket's.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("ws", "wss") or parts.hostname is None:
        raise ValueError(f"not the URL of a WebSocket: {url!r}")
    secure = parts.scheme == "wss"
    port = parts.port or (443 if secure else 80)
    guarded = stream
    try:
        if guarded is None:
            with _timeout(connect_timeout, ConnectionTimeout):
                guarded = await pt.open_tcp_stream(parts.hostname, port, **(connect or {}))
    except OSError as error:
        raise HandshakeError from error
    resource = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    try:
        with pt.guard(guarded):
            transport: trio.abc.Stream = guarded
            if secure:
                context = ssl.create_default_context() if ssl_context is None else ssl_context
                transport = trio.SSLStream(guarded, context, server_hostname=parts.hostname, https_compatible=True)
            async with trio.open_nursery() as nursery:
                with _timeout(connect_timeout, ConnectionTimeout):
                    websocket = await wrap_client_stream(
                        nursery,
                        cast("trio.SocketStream", transport),  # any stream will do, says its docstring
                        parts.netloc.rpartition("@")[2],  # with the brackets of an IPv6 address, and the port
                        resource,
                        subprotocols=subprotocols,
                        extra_headers=extra_headers,
                        **options,
                    )
                try:
                    yield websocket
                except ConnectionClosed as error:
                    loss = guarded.connection.loss
                    if loss is None:
                        raise
                    raise RouteLostError(guarded.connection, loss) from error
                finally:
                    # After a loss it does not wait for an answer: the library knows of it by then, or is cancelled.
                    with _timeout(disconnect_timeout, DisconnectionTimeout):
                        await websocket.aclose()  # cancelled, it closes forcefully
    except BaseExceptionGroup as group:
        _raise_bare(group)
        raise
    finally:
        await trio.aclose_forcefully(guarded)


@contextmanager
def _timeout(seconds: float, error: type[HandshakeError]) -> Generator[None]:
    """`trio.fail_after` with the library's errors."""
    try:
        with trio.fail_after(seconds):
            yield
    except trio.TooSlowError:
        raise error from None


def _raise_bare(group: BaseExceptionGroup[BaseException]) -> None:
    """Raise a nursery's only error as it was, context included, as the library's own functions do."""
    if len(group.exceptions) != 1:
        return
    error = group.exceptions[0]
    context = error.__context__
    try:
        raise error
    finally:
        error.__context__ = context
        del error, context, group  # the traceback holds this frame: no circles


@final
class GuardedWebSocketServer(WebSocketServer):
    """The library's server, which for want of a SocketListener would not know where it listens."""

    @property
    def listeners(self) -> list[Endpoint | str]:
        """Where it listens."""
        guarded = cast("list[GuardedListener]", self._listeners)
        return [self._endpoint(listener) for listener in guarded]

    @staticmethod
    def _endpoint(listener: GuardedListener) -> Endpoint:
        inner: object = listener.inner
        secure = isinstance(inner, trio.SSLListener)
        if isinstance(inner, trio.SSLListener):
            inner = cast("trio.SSLListener[trio.abc.Stream]", inner).transport_listener
        assert isinstance(inner, trio.SocketListener)
        address, port, *_ = inner.socket.getsockname()
        return Endpoint(address, port, secure)


async def serve_websocket(
    pt: Pt,
    handler: Callable[[WebSocketRequest], Awaitable[None]],
    host: str | None,
    port: int,
    ssl_context: ssl.SSLContext | None,
    *,
    handler_nursery: trio.Nursery | None = None,
    connect_timeout: float = _TIMEOUT,
    disconnect_timeout: float = _TIMEOUT,
    policy: Policy | None = None,
    task_status: trio.TaskStatus[WebSocketServer] = trio.TASK_STATUS_IGNORED,
    **options: Unpack[WebSocketOptions],
) -> NoReturn:
    """Serve WebSockets over guarded streams, as `trio_websocket.serve_websocket` does.

    A handler is not cancelled by a loss: what it calls raises the library's `ConnectionClosed`. As with any other end,
    a handler that lets that out ends the server.

    Args:
      pt: The worker's context.
      handler: Called with each request.
      host: The address or name to listen on, in the caller's namespace; None is every address of both families.
      port: The port; 0 lets the kernel choose.
      ssl_context: For TLS; None is without.
      handler_nursery: Where the handlers run; None is a nursery of the server's own.
      connect_timeout: Seconds for the handshakes.
      disconnect_timeout: Seconds for the closing handshake.
      policy: Seconds from SUSPECT to LOST, instead of the pt's.
      task_status: For `nursery.start`, which then returns the library's server.
      **options: See `WebSocketOptions`.

    Raises:
      OSError: Listening failed.
    """
    listeners = await trio.open_tcp_listeners(port, host=host)
    # The guard outside: the library takes it for granted that TLS is on a SocketListener.
    guarded = [
        pt.guard_listener(
            listener if ssl_context is None else trio.SSLListener(listener, ssl_context, https_compatible=True),
            policy=policy,
        )
        for listener in listeners
    ]
    server = GuardedWebSocketServer(
        handler,
        cast("list[trio.SocketListener]", guarded),
        handler_nursery=handler_nursery,
        connect_timeout=connect_timeout,
        disconnect_timeout=disconnect_timeout,
        **options,
    )
    await server.run(task_status=task_status)
