"""hypercorn's ASGI server over guarded streams.

hypercorn takes sockets and makes the listeners itself, so that nothing can be put between. What is
taken of it is what serves one connection (`TCPServer`, HTTP/1.1, HTTP/2 and WebSockets), and what
goes with the application's life (`Lifespan`); listening is `Pt.serve_tcp`'s.

A client whose route is lost is to the application one that went away: `http.disconnect`.
"""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable
from functools import partial
from random import randint
from typing import TYPE_CHECKING, TypeAlias, TypedDict, cast

import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config
from hypercorn.trio.lifespan import Lifespan
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ASGIFramework, ConnectionState, LifespanState

from .._pt import Pt
from ..connections import GuardedListener, GuardedStream, Policy

if TYPE_CHECKING:
    _Secure: TypeAlias = trio.SSLStream[GuardedStream]

# hypercorn's, where a bind gives no port.
_DEFAULT_PORT = 8000


class _Common(TypedDict):
    """What TCP and TLS take alike."""

    host: str
    backlog: int
    policy: Policy | None
    handler_nursery: trio.Nursery


async def serve(
    pt: Pt,
    app: ASGIFramework,
    config: Config,
    *,
    shutdown_trigger: Callable[[], Awaitable[object]] | None = None,
    policy: Policy | None = None,
    task_status: trio.TaskStatus[list[GuardedListener]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve an application over guarded streams, as `hypercorn.trio.serve` does.

    Args:
      pt: The worker's context; its namespace is where to listen.
      app: The application, of ASGI; `hypercorn.middleware` makes one of a WSGI application.
      config: hypercorn's; of its binds, those to hosts and ports.
      shutdown_trigger: Its return begins a graceful end; None serves until cancelled.
      policy: Seconds from SUSPECT to LOST, instead of the pt's.
      task_status: For `nursery.start`, which then returns the listeners.

    Raises:
      ValueError: A bind to a Unix socket, a descriptor, or for QUIC: no route can take the first away, and the others
        are not ours to guard.
      ExceptionGroup: As of `hypercorn.trio.serve`: of OSErrors if listening failed, or of hypercorn's own errors of an
        application that would not start or end.
    """
    binds = _binds_of(config)
    wrapped = ASGIWrapper(app)
    state: LifespanState = {}
    lifespan = Lifespan(wrapped, config, state)
    most = None if config.max_requests is None else config.max_requests + randint(0, config.max_requests_jitter)
    context = WorkerContext(most)

    async def handle(stream: GuardedStream | _Secure) -> None:
        connection = ConnectionState(state.copy())
        # It asks of a stream without TLS only what a guarded stream has, too.
        await TCPServer(wrapped, config, context, connection, cast("trio.SSLStream[trio.SocketStream]", stream)).run()

    async with trio.open_nursery() as life:
        await life.start(lifespan.handle_lifespan)
        await lifespan.wait_for_startup()
        async with trio.open_nursery() as handlers:
            async with trio.open_nursery() as listening:
                listeners: list[GuardedListener] = []
                for host, port, tls in binds:
                    common = _Common(host=host, backlog=config.backlog, policy=policy, handler_nursery=handlers)
                    if tls is None:
                        listeners += await listening.start(partial(pt.serve_tcp, handle, port, **common))
                    else:
                        secure = partial(pt.serve_ssl_over_tcp, handle, port, tls, https_compatible=True, **common)
                        listeners += [each.transport_listener for each in await listening.start(secure)]
                task_status.started(listeners)
                if shutdown_trigger is not None:
                    listening.start_soon(_cancel_after, listening.cancel_scope, shutdown_trigger)
                listening.start_soon(_cancel_after, listening.cancel_scope, context.terminate.wait)
            await context.terminated.set()
            handlers.cancel_scope.deadline = trio.current_time() + config.graceful_timeout
        await lifespan.wait_for_shutdown()
        life.cancel_scope.cancel()


async def _cancel_after(scope: trio.CancelScope, wait: Callable[[], Awaitable[object]]) -> None:
    await wait()
    scope.cancel(reason="shutting down")


def _binds_of(config: Config) -> list[tuple[str, int, ssl.SSLContext | None]]:
    """(host, port, TLS) of each bind, in hypercorn's order."""
    if config.quic_bind:
        raise ValueError("QUIC is not served here; leave quic_bind empty")
    tls = config.create_ssl_context()
    plain = config.bind if tls is None else config.insecure_bind
    secure = [] if tls is None else config.bind
    return [(*_parse(bind), tls) for bind in secure] + [(*_parse(bind), None) for bind in plain]


def _parse(bind: str) -> tuple[str, int]:
    if bind.startswith(("unix:", "fd://")):
        raise ValueError(f"not a host and a port: {bind!r}")
    host, separator, port = bind.rpartition(":")
    if not separator or not port.isdecimal():
        return bind.strip("[]"), _DEFAULT_PORT
    return host.strip("[]"), int(port)
