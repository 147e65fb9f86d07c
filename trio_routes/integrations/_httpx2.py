"""A transport for httpx2's AsyncClient, over guarded streams.

Errors on their way up, for a route that is lost while a response is read:

    RouteLostError            the guarded stream
    ..httpcore2.ReadError      subclass of both, by the network backend; the pool strips its cause
    ..httpx2.ReadError         subclass of both, here; its cause is the one before

_httpx.py is this file with the other generation's names; a test holds the two against each other.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Iterable
from typing import TypedDict, Unpack, final

import httpcore2
import httpx2

from .._errors import RouteLostError
from .._pt import Pt
from ..connections import ConnectOptions
from ._httpcore2 import GuardedBackend, GuardedConnectionPool
from ._network import SocketOption


class RouteLostReadError(httpx2.ReadError, RouteLostError):
    """The route was lost while a response was awaited or read; `loss` says how."""

    def __init__(self, error: RouteLostError, request: httpx2.Request) -> None:
        RouteLostError.__init__(self, error.connection, error.loss)
        self.request = request


class RouteLostWriteError(httpx2.WriteError, RouteLostError):
    """The route was lost while a request was sent; `loss` says how."""

    def __init__(self, error: RouteLostError, request: httpx2.Request) -> None:
        RouteLostError.__init__(self, error.connection, error.loss)
        self.request = request


class RouteLostConnectError(httpx2.ConnectError, RouteLostError):
    """The route was lost during the TLS handshake; `loss` says how."""

    def __init__(self, error: RouteLostError, request: httpx2.Request) -> None:
        RouteLostError.__init__(self, error.connection, error.loss)
        self.request = request


class TransportOptions(TypedDict, total=False):
    """Options of `httpx2.AsyncHTTPTransport`, with the same meanings and defaults.

    Attributes:
      verify: A TLS context, or whether to verify certificates.
      cert: A client's certificate.
      trust_env: Whether SSL_CERT_FILE and SSL_CERT_DIR count.
      http1: Offer HTTP/1.1.
      http2: Offer HTTP/2.
      limits: The pool's size, and how long idle connections are kept.
      proxy: A proxy; it is the path to it that counts then.
      uds: Path of a Unix socket to connect to instead.
      local_address: The source address; it comes before that of `connect`.
      retries: How often to try again to connect.
      socket_options: Options to set on connected sockets; see `GuardedBackend.connect_tcp`.
    """

    verify: ssl.SSLContext | bool
    cert: str | tuple[str, str] | tuple[str, str, str] | None
    trust_env: bool
    http1: bool
    http2: bool
    limits: httpx2.Limits
    proxy: httpx2.Proxy | httpx2.URL | str | None
    uds: str | None
    local_address: str | None
    retries: int
    socket_options: Iterable[SocketOption] | None


@final
class GuardedTransport(httpx2.AsyncHTTPTransport):
    """A transport whose connections are guarded; for `transport=` of `httpx2.AsyncClient`.

    A request in flight fails at once when its route is lost, with an error that is both httpx2's and a
    `RouteLostError`. Pooled connections whose path is in doubt or gone are not used again, HTTP/2 or not, and the
    next request connects anew. Where there is no way, requests fail with `httpx2.ConnectError`, at once.
    """

    def __init__(
        self,
        pt: Pt,
        *,
        wait_for_route: bool = False,
        connect: ConnectOptions | None = None,
        **options: Unpack[TransportOptions],
    ) -> None:
        """Make the pool; nothing is connected yet.

        Args:
          pt: The worker's context.
          wait_for_route: Where there is no way to the host, wait for one until the connect timeout, rather than fail
            at once.
          connect: How to connect, and how connections are judged.
          **options: See `TransportOptions`.

        Raises:
          TypeError: There is no such option.
        """
        unknown = options.keys() - TransportOptions.__annotations__.keys()
        if unknown:  # or they would be ignored: nothing below has to know of them
            raise TypeError(f"GuardedTransport() has no option {', '.join(sorted(unknown))}")
        limits = options.get("limits", httpx2.Limits(max_connections=100, max_keepalive_connections=20))
        # Not super().__init__(): all it does is make a pool, and it takes neither a pool nor a network backend.
        self._pool = GuardedConnectionPool(
            ssl_context=httpx2.create_ssl_context(
                options.get("verify", True), options.get("cert"), options.get("trust_env", True)
            ),
            proxy=_proxy(options.get("proxy")),
            max_connections=limits.max_connections,
            max_keepalive_connections=limits.max_keepalive_connections,
            keepalive_expiry=limits.keepalive_expiry,
            http1=options.get("http1", True),
            http2=options.get("http2", False),
            retries=options.get("retries", 0),
            uds=options.get("uds"),
            local_address=options.get("local_address"),
            network_backend=GuardedBackend(pt, wait_for_route=wait_for_route, **(connect or {})),
            socket_options=options.get("socket_options"),
        )

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request, for the client. A checkpoint.

        Raises:
          RouteLostReadError: The route was lost; RouteLostWriteError and RouteLostConnectError likewise.
          httpx2.TransportError: Something else failed, as `httpx2.AsyncHTTPTransport` has it.
        """
        try:
            response = await super().handle_async_request(request)
        except httpx2.NetworkError as error:
            raise _told(error, request) from error.__cause__
        assert isinstance(response.stream, httpx2.AsyncByteStream)
        response.stream = _Body(response.stream, request)
        return response


@final
class _Body(httpx2.AsyncByteStream):
    """A response's body, whose loss is told as that of the headers is."""

    def __init__(self, inner: httpx2.AsyncByteStream, request: httpx2.Request) -> None:
        self._inner = inner
        self._request = request

    async def __aiter__(self) -> AsyncIterator[bytes]:  # noqa: ASYNC900 -- as httpx has it; it closes by aclose()
        try:
            async for part in self._inner:
                yield part
        except httpx2.NetworkError as error:
            raise _told(error, self._request) from error.__cause__

    async def aclose(self) -> None:
        await self._inner.aclose()


def _told(error: httpx2.NetworkError, request: httpx2.Request) -> httpx2.NetworkError:
    """The error to raise in the place of httpx2's own: one that tells of the loss, where it was that."""
    lost = error.__cause__
    if not isinstance(lost, RouteLostError):
        return error
    if isinstance(error, httpx2.ReadError):
        return RouteLostReadError(lost, request)
    if isinstance(error, httpx2.WriteError):
        return RouteLostWriteError(lost, request)
    return RouteLostConnectError(lost, request)


def _proxy(given: httpx2.Proxy | httpx2.URL | str | None) -> httpcore2.Proxy | None:
    """The proxy in httpcore2's words."""
    if given is None:
        return None
    proxy = given if isinstance(given, httpx2.Proxy) else httpx2.Proxy(given)
    url = httpcore2.URL(
        scheme=proxy.url.raw_scheme, host=proxy.url.raw_host, port=proxy.url.port, target=proxy.url.raw_path
    )
    return httpcore2.Proxy(url, auth=proxy.raw_auth, headers=proxy.headers.raw, ssl_context=proxy.ssl_context)
