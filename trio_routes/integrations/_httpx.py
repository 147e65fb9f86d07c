"""A transport for httpx's AsyncClient, over guarded streams.

Errors on their way up, for a route that is lost while a response is read:

    RouteLostError            the guarded stream
    ..httpcore.ReadError      subclass of both, by the network backend; the pool strips its cause
    ..httpx.ReadError         subclass of both, here; its cause is the one before

_httpx2.py is this file with the other generation's names; a test holds the two against each other.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Iterable
from typing import TypedDict, Unpack, final

import httpcore
import httpx  # noqa: ASYNC127 -- for those who have not moved to httpx2 yet

from .._errors import RouteLostError
from .._pt import Pt
from ..connections import ConnectOptions
from ._httpcore import GuardedBackend, GuardedConnectionPool
from ._network import SocketOption


class RouteLostReadError(httpx.ReadError, RouteLostError):
    """The route was lost while a response was awaited or read; `loss` says how."""

    def __init__(self, error: RouteLostError, request: httpx.Request) -> None:
        RouteLostError.__init__(self, error.connection, error.loss)
        self.request = request


class RouteLostWriteError(httpx.WriteError, RouteLostError):
    """The route was lost while a request was sent; `loss` says how."""

    def __init__(self, error: RouteLostError, request: httpx.Request) -> None:
        RouteLostError.__init__(self, error.connection, error.loss)
        self.request = request


class RouteLostConnectError(httpx.ConnectError, RouteLostError):
    """The route was lost during the TLS handshake; `loss` says how."""

    def __init__(self, error: RouteLostError, request: httpx.Request) -> None:
        RouteLostError.__init__(self, error.connection, error.loss)
        self.request = request


class TransportOptions(TypedDict, total=False):
    """Options of `httpx.AsyncHTTPTransport`, with the same meanings and defaults.

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
    limits: httpx.Limits
    proxy: httpx.Proxy | httpx.URL | str | None
    uds: str | None
    local_address: str | None
    retries: int
    socket_options: Iterable[SocketOption] | None


@final
class GuardedTransport(httpx.AsyncHTTPTransport):
    """A transport whose connections are guarded; for `transport=` of `httpx.AsyncClient`.

    A request in flight fails at once when its route is lost, with an error that is both httpx's and a
    `RouteLostError`. Pooled connections whose path is in doubt or gone are not used again, HTTP/2 or not, and the
    next request connects anew. Where there is no way, requests fail with `httpx.ConnectError`, at once.
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
        limits = options.get("limits", httpx.Limits(max_connections=100, max_keepalive_connections=20))
        # Not super().__init__(): all it does is make a pool, and it takes neither a pool nor a network backend.
        self._pool = GuardedConnectionPool(
            ssl_context=httpx.create_ssl_context(
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

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request, for the client. A checkpoint.

        Raises:
          RouteLostReadError: The route was lost; RouteLostWriteError and RouteLostConnectError likewise.
          httpx.TransportError: Something else failed, as `httpx.AsyncHTTPTransport` has it.
        """
        try:
            response = await super().handle_async_request(request)
        except httpx.NetworkError as error:
            raise _told(error, request) from error.__cause__
        assert isinstance(response.stream, httpx.AsyncByteStream)
        response.stream = _Body(response.stream, request)
        return response


@final
class _Body(httpx.AsyncByteStream):
    """A response's body, whose loss is told as that of the headers is."""

    def __init__(self, inner: httpx.AsyncByteStream, request: httpx.Request) -> None:
        self._inner = inner
        self._request = request

    async def __aiter__(self) -> AsyncIterator[bytes]:  # noqa: ASYNC900 -- as httpx has it; it closes by aclose()
        try:
            async for part in self._inner:
                yield part
        except httpx.NetworkError as error:
            raise _told(error, self._request) from error.__cause__

    async def aclose(self) -> None:
        await self._inner.aclose()


def _told(error: httpx.NetworkError, request: httpx.Request) -> httpx.NetworkError:
    """The error to raise in the place of httpx's own: one that tells of the loss, where it was that."""
    lost = error.__cause__
    if not isinstance(lost, RouteLostError):
        return error
    if isinstance(error, httpx.ReadError):
        return RouteLostReadError(lost, request)
    if isinstance(error, httpx.WriteError):
        return RouteLostWriteError(lost, request)
    return RouteLostConnectError(lost, request)


def _proxy(given: httpx.Proxy | httpx.URL | str | None) -> httpcore.Proxy | None:
    """The proxy in httpcore's words."""
    if given is None:
        return None
    proxy = given if isinstance(given, httpx.Proxy) else httpx.Proxy(given)
    url = httpcore.URL(
        scheme=proxy.url.raw_scheme, host=proxy.url.raw_host, port=proxy.url.port, target=proxy.url.raw_path
    )
    return httpcore.Proxy(url, auth=proxy.raw_auth, headers=proxy.headers.raw, ssl_context=proxy.ssl_context)
