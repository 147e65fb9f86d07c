"""httpcore2's names for `_network` and `_pooled`."""

from __future__ import annotations

import ssl
from typing import ClassVar, final

import httpcore2

from .._errors import NoRouteError, RouteLostError
from ..connections import GuardedStream
from ._network import Errors, NetworkBackend, NetworkStream
from ._pooled import GuardedConnection


class RouteLostReadError(httpcore2.ReadError, RouteLostError):
    """The route was lost while a response was awaited or read; `loss` says how."""


class RouteLostWriteError(httpcore2.WriteError, RouteLostError):
    """The route was lost while a request was sent; `loss` says how."""


class RouteLostConnectError(httpcore2.ConnectError, RouteLostError):
    """The route was lost during the TLS handshake; `loss` says how."""


class NoRouteConnectError(httpcore2.ConnectError, NoRouteError):
    """There is no way to the host; `resolution` says what the routing tables answered."""


_ERRORS = Errors(
    read=httpcore2.ReadError,
    write=httpcore2.WriteError,
    connect=httpcore2.ConnectError,
    read_timeout=httpcore2.ReadTimeout,
    write_timeout=httpcore2.WriteTimeout,
    connect_timeout=httpcore2.ConnectTimeout,
    lost_reading=RouteLostReadError,
    lost_writing=RouteLostWriteError,
    lost_connecting=RouteLostConnectError,
    no_route=lambda error: NoRouteConnectError(error.errno or 0, error.strerror or "", error.resolution),
)


@final
class _Stream(NetworkStream, httpcore2.AsyncNetworkStream):
    errors: ClassVar[Errors] = _ERRORS

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 -- httpcore2's
    ) -> _Stream:
        return _Stream(self.guarded, await self.secured(ssl_context, server_hostname, timeout))


@final
class GuardedBackend(NetworkBackend[_Stream], httpcore2.AsyncNetworkBackend):
    """A network backend of httpcore2 whose connections are guarded; for `network_backend=` of a pool.

    A request in flight fails at once with `RouteLostReadError` when its route is lost. An idle HTTP/1.1 connection
    that is SUSPECT or LOST is closed by its pool rather than lent; for HTTP/2, see `GuardedConnectionPool`.
    """

    errors: ClassVar[Errors] = _ERRORS

    def stream_over(self, guarded: GuardedStream) -> _Stream:
        """Make a network stream of a guarded one."""
        return _Stream(guarded)


@final
class _Connection(
    GuardedConnection[httpcore2.Request, httpcore2.Response, httpcore2.Origin], httpcore2.AsyncConnectionInterface
):
    def __init__(self, inner: httpcore2.AsyncConnectionInterface) -> None:
        super().__init__(inner)
        self._inner = inner

    def is_connected(self) -> bool:
        return self._inner.is_connected()

    def can_multiplex(self) -> bool:
        return self._inner.can_multiplex()


class GuardedConnectionPool(httpcore2.AsyncConnectionPool):
    """A pool of httpcore2 that does not lend connections whose path is in doubt or gone, HTTP/2 or not.

    It takes the arguments of `httpcore2.AsyncConnectionPool`; give it a `GuardedBackend`. The pool alone would know no
    better of HTTP/2 connections, which it does not look at before it lends them.
    """

    def create_connection(self, origin: httpcore2.Origin) -> httpcore2.AsyncConnectionInterface:
        """Make a connection, for the pool."""
        return _Connection(super().create_connection(origin))
