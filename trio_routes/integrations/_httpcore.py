"""httpcore's names for `_network` and `_pooled`."""

from __future__ import annotations

import ssl
from typing import ClassVar, final

import httpcore

from .._errors import NoRouteError, RouteLostError
from ..connections import GuardedStream
from ._network import Errors, NetworkBackend, NetworkStream
from ._pooled import GuardedConnection


class RouteLostReadError(httpcore.ReadError, RouteLostError):
    """The route was lost while a response was awaited or read; `loss` says how."""


class RouteLostWriteError(httpcore.WriteError, RouteLostError):
    """The route was lost while a request was sent; `loss` says how."""


class RouteLostConnectError(httpcore.ConnectError, RouteLostError):
    """The route was lost during the TLS handshake; `loss` says how."""


class NoRouteConnectError(httpcore.ConnectError, NoRouteError):
    """There is no way to the host; `resolution` says what the routing tables answered."""


_ERRORS = Errors(
    read=httpcore.ReadError,
    write=httpcore.WriteError,
    connect=httpcore.ConnectError,
    read_timeout=httpcore.ReadTimeout,
    write_timeout=httpcore.WriteTimeout,
    connect_timeout=httpcore.ConnectTimeout,
    lost_reading=RouteLostReadError,
    lost_writing=RouteLostWriteError,
    lost_connecting=RouteLostConnectError,
    no_route=lambda error: NoRouteConnectError(error.errno or 0, error.strerror or "", error.resolution),
)


@final
class _Stream(NetworkStream, httpcore.AsyncNetworkStream):
    errors: ClassVar[Errors] = _ERRORS

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 -- httpcore's
    ) -> _Stream:
        return _Stream(self.guarded, await self.secured(ssl_context, server_hostname, timeout))


@final
class GuardedBackend(NetworkBackend[_Stream], httpcore.AsyncNetworkBackend):
    """A network backend of httpcore whose connections are guarded; for `network_backend=` of a pool.

    A request in flight fails at once with `RouteLostReadError` when its route is lost. An idle HTTP/1.1 connection
    that is SUSPECT or LOST is closed by its pool rather than lent; for HTTP/2, see `GuardedConnectionPool`.
    """

    errors: ClassVar[Errors] = _ERRORS

    def stream_over(self, guarded: GuardedStream) -> _Stream:
        """Make a network stream of a guarded one."""
        return _Stream(guarded)


@final
class _Connection(
    GuardedConnection[httpcore.Request, httpcore.Response, httpcore.Origin], httpcore.AsyncConnectionInterface
):
    """Has all its methods from the first; the second says what it is."""


class GuardedConnectionPool(httpcore.AsyncConnectionPool):
    """A pool of httpcore that does not lend connections whose path is in doubt or gone, HTTP/2 or not.

    It takes the arguments of `httpcore.AsyncConnectionPool`; give it a `GuardedBackend`. The pool alone would know no
    better of HTTP/2 connections, which it does not look at before it lends them.
    """

    def create_connection(self, origin: httpcore.Origin) -> httpcore.AsyncConnectionInterface:
        """Make a connection, for the pool."""
        return _Connection(super().create_connection(origin))
