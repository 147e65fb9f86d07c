"""HTTP over guarded streams: what httpcore and httpcore2 ask of a network backend, without either.

Both generations have the same interface and classes of their own for it and for its errors. The
work is done here; `_httpcore` and `_httpcore2` add the base classes and say which error is which.

An error of ours is a subclass of the library's *and* of trio_routes' own. The cause alone would
not do: the pools raise again `from None`, and what they let out of `raise ReadError from RouteLostError`
has no cause any more. As it is, httpx's `ReadError.__cause__` is a `RouteLostError`.
"""

from __future__ import annotations

import math
import ssl
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from typing import ClassVar, Generic, Protocol, TypeAlias, TypeVar, Unpack

import attrs
import trio

from .._errors import NoRouteError
from .._pt import Pt
from ..connections import Connection, ConnectOptions, GuardedStream, Loss, Standing

_S = TypeVar("_S", bound="NetworkStream")

SocketOption: TypeAlias = tuple[int, int, int] | tuple[int, int, bytes | bytearray] | tuple[int, int, None, int]


class Opener(Protocol):
    """A pooled connection that is about to connect."""

    def opened(self, connection: Connection) -> None:
        """Learn by which connection it will live."""
        ...


# Who connects in this task. A pool hands its backend on to connections of its own making, and tells neither which
# stream is whose; but they connect in the task that carries the request.
opener: ContextVar[Opener | None] = ContextVar("trio_routes_http_opener", default=None)


@attrs.frozen
class Errors:
    """A library's errors, by what went wrong.

    Attributes:
      read: Reading failed.
      write: Writing failed.
      connect: Connecting, or the TLS handshake, failed.
      read_timeout: Reading took too long.
      write_timeout: Writing took too long.
      connect_timeout: Connecting, or the TLS handshake, took too long.
      lost_reading: The route was lost while reading.
      lost_writing: The route was lost while writing.
      lost_connecting: The route was lost during the TLS handshake.
      no_route: There was no way to connect.
    """

    read: type[Exception]
    write: type[Exception]
    connect: type[Exception]
    read_timeout: type[Exception]
    write_timeout: type[Exception]
    connect_timeout: type[Exception]
    lost_reading: Callable[[Connection, Loss], Exception]
    lost_writing: Callable[[Connection, Loss], Exception]
    lost_connecting: Callable[[Connection, Loss], Exception]
    no_route: Callable[[NoRouteError], Exception]


class NetworkStream:
    """A guarded stream with the methods of httpcore's `AsyncNetworkStream`.

    Attributes:
      errors: The library's.
      guarded: The stream, without the TLS that may be on it.
      connection: The registry's record of it.
    """

    errors: ClassVar[Errors]

    def __init__(self, guarded: GuardedStream, tls: trio.SSLStream[trio.abc.Stream] | None = None) -> None:
        self.guarded: GuardedStream = guarded
        self._tls = tls
        self._stream: trio.abc.Stream = guarded if tls is None else tls
        self.connection: Connection = guarded.connection

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109 -- httpcore's
        """Read up to `max_bytes` bytes; b"" is the peer's end-of-file only. A checkpoint."""
        try:
            with trio.fail_after(_seconds(timeout)):
                return bytes(await self._stream.receive_some(max_bytes))
        except trio.TooSlowError as error:
            raise self.errors.read_timeout(error) from error
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise self._broken(error, self.errors.read, self.errors.lost_reading) from error

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109 -- httpcore's
        """Write all of `buffer`; a checkpoint unless it is empty."""
        if not buffer:
            return  # noqa: ASYNC910 -- as httpcore's own backends have it: HTTP/2 often has nothing to say
        try:
            with trio.fail_after(_seconds(timeout)):
                await self._stream.send_all(buffer)
        except trio.TooSlowError as error:
            raise self.errors.write_timeout(error) from error
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise self._broken(error, self.errors.write, self.errors.lost_writing) from error

    async def aclose(self) -> None:
        """Close it, for its owner, the pool; at once after a loss. A checkpoint."""
        await self._stream.aclose()

    async def secured(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None,
        timeout: float | None,  # noqa: ASYNC109 -- likewise
    ) -> trio.SSLStream[trio.abc.Stream]:
        """Put TLS on top, of what TLS there is (an HTTPS proxy's tunnel), and shake hands. A checkpoint.

        The stream is closed if that fails: the pool has nothing in hand yet that it could close.
        """
        secure = trio.SSLStream(self._stream, ssl_context, server_hostname=server_hostname, https_compatible=True)
        try:
            with trio.fail_after(_seconds(timeout)):
                await secure.do_handshake()
        except trio.TooSlowError as error:
            await trio.aclose_forcefully(self._stream)
            raise self.errors.connect_timeout(error) from error
        except trio.BrokenResourceError as error:
            await trio.aclose_forcefully(self._stream)
            raise self._broken(error, self.errors.connect, self.errors.lost_connecting) from error
        except BaseException:
            await trio.aclose_forcefully(self._stream)
            raise
        return secure

    def get_extra_info(self, info: str) -> object:
        """What httpcore's own Trio stream answers, and "connection": the registry's record.

        "is_readable" is how a pool asks of an idle HTTP/1.1 connection whether the server has ended it. One whose
        path is in doubt or gone answers as if: the pool then closes it rather than lend it.
        """
        match info:
            case "connection":
                return self.connection
            case "ssl_object" if self._tls is not None:
                return self._tls._ssl_object  # noqa: SLF001  # pyright: ignore[reportPrivateUsage] -- Trio has no other name for it
            case "socket":
                return self._socket()
            case "client_addr" | "server_addr":
                return self._address(info)
            case "is_readable":
                sock = self._socket()
                return self.connection.standing is not Standing.GOOD or (sock is not None and sock.is_readable())
            case _:
                return None

    def _socket(self) -> trio.socket.SocketType | None:
        try:
            return self.guarded.socket
        except AttributeError:  # a fake kernel's stream
            return None

    def _address(self, info: str) -> object:
        sock, flow = self._socket(), self.connection.flow
        try:
            if sock is not None:
                return sock.getsockname() if info == "client_addr" else sock.getpeername()
        except OSError:  # disconnected: it was lost
            pass
        return (str(flow.local), flow.local_port) if info == "client_addr" else (str(flow.peer), flow.peer_port)

    def _broken(
        self, error: Exception, ordinary: type[Exception], lost: Callable[[Connection, Loss], Exception]
    ) -> Exception:
        # Not by the error's type: TLS lets RouteLostError pass once, and from then on is just broken.
        loss = self.connection.loss
        if loss is None or not isinstance(error, trio.BrokenResourceError):
            return ordinary(error)
        return lost(self.connection, loss)


class NetworkBackend(ABC, Generic[_S]):
    """Connects by a pt; it has the methods of httpcore's `AsyncNetworkBackend`.

    Attributes:
      errors: The library's.
    """

    errors: ClassVar[Errors]

    def __init__(self, pt: Pt, *, wait_for_route: bool = False, **options: Unpack[ConnectOptions]) -> None:
        """Take what every connection is to be opened with.

        Args:
          pt: The worker's context.
          wait_for_route: Where there is no way to the host, wait for one until the connect timeout, rather than fail
            at once.
          **options: See `ConnectOptions`. A `local_address` that the pool gives comes before the one here.
        """
        self._pt = pt
        self._wait_for_route = wait_for_route
        self._options: ConnectOptions = options

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 -- httpcore's
        local_address: str | None = None,
        socket_options: Iterable[SocketOption] | None = None,
    ) -> _S:
        """Connect over TCP. A checkpoint.

        `socket_options` are set once it is connected, as httpcore does it. Those that choose the way (SO_MARK,
        SO_BINDTODEVICE) come too late then, for the kernel and for us: give `mark` and `device` to the backend.
        """
        options: ConnectOptions = {**self._options}
        if local_address is not None:
            options["local_address"] = local_address
        try:
            with trio.fail_after(_seconds(timeout)):
                if self._wait_for_route:
                    await self._wait(host, port, options)
                guarded = await self._pt.open_tcp_stream(host, port, **options)
        except trio.TooSlowError as error:
            raise self.errors.connect_timeout(error) from error
        except NoRouteError as error:
            raise self.errors.no_route(error) from error
        except OSError as error:
            raise self.errors.connect(error) from error
        return await self._made(guarded, socket_options)

    async def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,  # noqa: ASYNC109 -- httpcore's
        socket_options: Iterable[SocketOption] | None = None,
    ) -> _S:
        """Connect over a Unix socket, which no route can take away. A checkpoint."""
        try:
            with trio.fail_after(_seconds(timeout)):
                plain = await trio.open_unix_socket(path)
        except trio.TooSlowError as error:
            raise self.errors.connect_timeout(error) from error
        except OSError as error:
            raise self.errors.connect(error) from error
        return await self._made(self._pt.guard_stream(plain, label=path), socket_options)

    @abstractmethod
    def stream_over(self, guarded: GuardedStream) -> _S:
        """Make a network stream of a guarded one."""

    async def sleep(self, seconds: float) -> None:
        """Wait, for the pool's retries. A checkpoint."""
        await trio.sleep(seconds)

    async def _wait(self, host: str, port: int, options: ConnectOptions) -> None:
        await self._pt.wait_routable(
            host,
            port=port,
            source=options.get("local_address"),
            device=options.get("device"),
            mark=options.get("mark") or 0,
        )

    async def _made(self, guarded: GuardedStream, socket_options: Iterable[SocketOption] | None) -> _S:
        """Set the options, and tell the pooled connection by what it lives. A checkpoint if that fails."""
        try:
            for option in socket_options or ():
                if len(option) == 4:
                    guarded.socket.setsockopt(option[0], option[1], None, option[3])
                else:
                    guarded.socket.setsockopt(option[0], option[1], option[2])
        except OSError as error:  # the kernel refuses one; to httpcore that belongs to connecting
            await trio.aclose_forcefully(guarded)
            raise self.errors.connect(error) from error
        except BaseException:
            await trio.aclose_forcefully(guarded)
            raise
        waiting = opener.get()
        if waiting is not None:
            waiting.opened(guarded.connection)
        return self.stream_over(guarded)  # noqa: ASYNC910 -- the last step of one who has had his checkpoint


def _seconds(timeout: float | None) -> float:
    return math.inf if timeout is None else timeout
