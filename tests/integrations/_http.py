"""An HTTP server for any Trio stream, by h11 and h2 alone, and both generations of httpx under one type.

Its paths: `/hang` never answers, `/half` answers with half of a body and no more, `/upload` swallows the first bytes of
a body and reads no more; every other answers with the path.
"""

from __future__ import annotations

import ssl
from typing import TypeAlias, cast

import attrs
import h2.config
import h2.connection
import h2.events
import h11
import httpcore
import httpcore2
import httpx  # noqa: ASYNC127 -- both generations are tested
import httpx2
import trio
import trustme

from trio_routes.integrations import (
    httpcore as ours_core,
    httpcore2 as ours_core2,
    httpx as ours,
    httpx2 as ours2,
)

AnyStream: TypeAlias = trio.abc.Stream


class HttpServer:
    """The server, and what it was asked.

    Attributes:
      connections: How many there were.
      requests: The paths, in order.
      ended: How many connections have ended.
      holding: Answer no request that comes while it is set.
    """

    def __init__(self) -> None:
        self.connections = 0
        self.ended = 0
        self.holding = False
        self.requests: list[str] = []
        self._changed = trio.Event()

    async def wait_requests(self, number: int) -> None:
        """Wait until there were so many."""
        while len(self.requests) < number:
            await self._changed.wait()

    async def wait_ended(self, number: int) -> None:
        """Wait until so many connections have ended."""
        while self.ended < number:
            await self._changed.wait()

    async def serve(self, stream: AnyStream) -> None:
        """Serve one connection without TLS: HTTP/1.1."""
        await self._serve(stream, h2_spoken=False)

    async def serve_h2(self, stream: AnyStream) -> None:
        """Serve one connection without TLS: HTTP/2 with prior knowledge."""
        await self._serve(stream, h2_spoken=True)

    async def serve_tls(self, context: ssl.SSLContext, stream: AnyStream) -> None:
        """Serve one connection with TLS, in the protocol that ALPN chose."""
        secure = trio.SSLStream(stream, context, server_side=True, https_compatible=True)
        await secure.do_handshake()
        await self._serve(secure, h2_spoken=secure.selected_alpn_protocol() == "h2")

    async def _serve(self, stream: AnyStream, *, h2_spoken: bool) -> None:
        self.connections += 1
        try:
            await (self._speak_h2(stream) if h2_spoken else self._speak_h11(stream))
        except trio.BrokenResourceError:
            pass
        finally:
            self.ended += 1
            self._ring()
            await trio.aclose_forcefully(stream)

    def _ring(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    def _note(self, path: str) -> None:
        self.requests.append(path)
        self._ring()

    async def _speak_h11(self, stream: AnyStream) -> None:
        state = h11.Connection(h11.SERVER)
        path = ""
        while True:  # noqa: ASYNC913 -- each turn that waits for nothing takes an event off a finite list
            event = state.next_event()
            if event is h11.NEED_DATA:
                state.receive_data(bytes(await stream.receive_some(65536)))
            elif isinstance(event, h11.Request):
                path = event.target.decode()
                self._note(path)
                if path == "/upload":
                    await trio.sleep_forever()
            elif isinstance(event, h11.EndOfMessage):
                if path == "/hang" or self.holding:
                    await self._read_to_the_end(stream)
                    return
                body = path.encode()
                headers = [("content-length", str(len(body) * (2 if path == "/half" else 1)))]
                data = state.send(h11.Response(status_code=200, headers=headers)) or b""
                await stream.send_all(data + (state.send(h11.Data(data=body)) or b""))
                if path == "/half":
                    await self._read_to_the_end(stream)
                    return
                state.send(h11.EndOfMessage())
                state.start_next_cycle()
            elif isinstance(event, h11.ConnectionClosed):
                return

    async def _speak_h2(self, stream: AnyStream) -> None:
        state = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding="utf-8"))
        state.initiate_connection()
        await stream.send_all(state.data_to_send())
        while data := await stream.receive_some(65536):
            for event in state.receive_data(bytes(data)):
                if isinstance(event, h2.events.RequestReceived):
                    assert event.stream_id is not None
                    headers = dict(cast("list[tuple[str, str]]", event.headers))
                    self._answer_h2(state, event.stream_id, headers[":path"])
            await stream.send_all(state.data_to_send())

    def _answer_h2(self, state: h2.connection.H2Connection, stream_id: int, path: str) -> None:
        self._note(path)
        if path in ("/hang", "/upload") or self.holding:
            return
        state.send_headers(stream_id, [(":status", "200")])
        state.send_data(stream_id, path.encode(), end_stream=path != "/half")

    async def _read_to_the_end(self, stream: AnyStream) -> None:
        while await stream.receive_some():
            pass


def certify(name: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """TLS contexts for a client that trusts nobody else, and for a server of that name that speaks HTTP/2 or 1.1."""
    authority = trustme.CA()
    client, server = ssl.create_default_context(), ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.configure_trust(client)  # pyright: ignore[reportUnknownMemberType] -- trustme speaks of pyOpenSSL's, too
    authority.issue_cert(name).configure_cert(server)  # pyright: ignore[reportUnknownMemberType] -- likewise
    server.set_alpn_protocols(["h2", "http/1.1"])
    return client, server


@attrs.frozen
class Generation:
    """httpx or httpx2, with httpcore or httpcore2 and our adapters for it; both under the types of the first."""

    name: str
    client: type[httpx.AsyncClient]
    transport: type[ours.GuardedTransport]
    pool: type[ours_core.GuardedConnectionPool]
    plain_pool: type[httpcore.AsyncConnectionPool]
    backend: type[ours_core.GuardedBackend]
    limits: type[httpx.Limits]
    timeout: type[httpx.Timeout]
    read_error: type[httpx.ReadError]
    write_error: type[httpx.WriteError]
    connect_error: type[httpx.ConnectError]
    connect_timeout: type[httpx.ConnectTimeout]
    read_timeout: type[httpx.ReadTimeout]
    write_timeout: type[httpx.WriteTimeout]
    pool_timeout: type[httpx.PoolTimeout]
    core_read_error: type[httpcore.ReadError]
    core_connect_error: type[httpcore.ConnectError]
    core_lost_reading: type[ours_core.RouteLostReadError]


FIRST = Generation(
    "httpx",
    httpx.AsyncClient,
    ours.GuardedTransport,
    ours_core.GuardedConnectionPool,
    httpcore.AsyncConnectionPool,
    ours_core.GuardedBackend,
    httpx.Limits,
    httpx.Timeout,
    httpx.ReadError,
    httpx.WriteError,
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.ReadTimeout,
    httpx.WriteTimeout,
    httpx.PoolTimeout,
    httpcore.ReadError,
    httpcore.ConnectError,
    ours_core.RouteLostReadError,
)

SECOND = Generation(
    "httpx2",
    cast("type[httpx.AsyncClient]", httpx2.AsyncClient),
    cast("type[ours.GuardedTransport]", ours2.GuardedTransport),
    cast("type[ours_core.GuardedConnectionPool]", ours_core2.GuardedConnectionPool),
    cast("type[httpcore.AsyncConnectionPool]", httpcore2.AsyncConnectionPool),
    cast("type[ours_core.GuardedBackend]", ours_core2.GuardedBackend),
    cast("type[httpx.Limits]", httpx2.Limits),
    cast("type[httpx.Timeout]", httpx2.Timeout),
    cast("type[httpx.ReadError]", httpx2.ReadError),
    cast("type[httpx.WriteError]", httpx2.WriteError),
    cast("type[httpx.ConnectError]", httpx2.ConnectError),
    cast("type[httpx.ConnectTimeout]", httpx2.ConnectTimeout),
    cast("type[httpx.ReadTimeout]", httpx2.ReadTimeout),
    cast("type[httpx.WriteTimeout]", httpx2.WriteTimeout),
    cast("type[httpx.PoolTimeout]", httpx2.PoolTimeout),
    cast("type[httpcore.ReadError]", httpcore2.ReadError),
    cast("type[httpcore.ConnectError]", httpcore2.ConnectError),
    cast("type[ours_core.RouteLostReadError]", ours_core2.RouteLostReadError),
)
