"""httpx2's names for `_transport`: a transport for its AsyncClient, over guarded streams.

`_httpx` is this text with the other generation's names; a test holds the two against each other.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Callable, Iterable
from typing import TypedDict, Unpack, final

import httpcore2
import httpx2

from .._errors import RouteLostError
from .._pt import Pt
from ..connections import ConnectOptions
from ._httpcore2 import GuardedBackend, GuardedConnectionPool
from ._network import SocketOption
from ._transport import refuse_unknown, told


class _LossError(httpx2.RequestError, RouteLostError):
    def __init__(self, error: RouteLostError, request: httpx2.Request) -> None:
        RouteLostError.__init__(self, error.connection, error.loss)
        self.request = request


class RouteLostReadError(_LossError, httpx2.ReadError):
    """The route was lost while a response was awaited or read; `loss` says how."""


class RouteLostWriteError(_LossError, httpx2.WriteError):
    """The route was lost while a request was sent; `loss` says how."""


class RouteLostConnectError(_LossError, httpx2.ConnectError):
    """The route was lost during the TLS handshake; `loss` says how."""


_ERRORS: dict[type[httpx2.NetworkError], Callable[[RouteLostError, httpx2.Request], httpx2.NetworkError]] = {
    httpx2.ReadError: RouteLostReadError,
    httpx2.WriteError: RouteLostWriteError,
    httpx2.ConnectError: RouteLostConnectError,
}


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
        refuse_unknown(options, TransportOptions.__annotations__)
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
            raise told(error, request, _ERRORS) from error.__cause__
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
            raise told(error, self._request, _ERRORS) from error.__cause__

    async def aclose(self) -> None:
        await self._inner.aclose()


def _proxy(given: httpx2.Proxy | httpx2.URL | str | None) -> httpcore2.Proxy | None:
    """The proxy in httpcore2's words."""
    if given is None:
        return None
    proxy = given if isinstance(given, httpx2.Proxy) else httpx2.Proxy(given)
    url = httpcore2.URL(
        scheme=proxy.url.raw_scheme, host=proxy.url.raw_host, port=proxy.url.port, target=proxy.url.raw_path
    )
    return httpcore2.Proxy(url, auth=proxy.raw_auth, headers=proxy.headers.raw, ssl_context=proxy.ssl_context)
