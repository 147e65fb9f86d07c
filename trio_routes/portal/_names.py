"""Looking names up at a link's own resolvers, by that link alone: dnspython over sockets bound to it.

The machine's resolver is no substitute. It asks whom it likes by whichever way it likes, and behind one Wi-Fi's portal
another link's answers prove nothing; nor can a bound socket reach a stub on 127.0.0.53 (measured: it times out).

    limit        value   why
    -----------  ------  ----------------------------------------------------------------------------
    each server  1 s     then the next one; a lost datagram is asked again
    in all       3 s     the probe's time to its first answer (`_probe`); dnspython itself overruns by up to 0.4 s
"""

from __future__ import annotations

import socket
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from ipaddress import IPv6Address, ip_address
from typing import Protocol, TypeAlias, cast

import trio
from dns import asyncresolver, exception, rdatatype, resolver

# Documented as dns.asyncbackend's, which does not mark its re-exports: strict type checkers would take them for Any.
from dns._asyncbackend import Backend, DatagramSocket, StreamSocket
from dns.rdtypes.IN.A import A
from dns.rdtypes.IN.AAAA import AAAA

from ..netlink import IPAddress
from ._way import CannotBindError, NameFailedError, NameSilentError

_EACH_SECONDS = 1.0
_ALL_SECONDS = 3.0
_PORT = 53

_LowLevel: TypeAlias = tuple[str, int] | tuple[str, int, int, int]


class SocketMaker(Protocol):
    """Makes sockets bound to the link; `Way` is one."""

    def open_socket(self, family: int, kind: int) -> trio.socket.SocketType:
        """Make an unconnected socket bound to the link. Raises OSError."""
        ...


async def look_up(
    name: str, family: int, resolvers: Sequence[IPAddress], link: SocketMaker, ifindex: int, *, port: int = _PORT
) -> tuple[list[IPAddress], IPAddress | None]:
    """Ask a link's resolvers for a name's addresses of one family. A checkpoint; at most 3 s.

    Args:
      name: Taken as absolute: no search domain is tried.
      family: 4 or 6, of the addresses wanted.
      resolvers: Of either family, tried in their order.
      link: Makes the sockets.
      ifindex: The link's, for link-local resolvers.
      port: Where they listen.

    Returns:
      The addresses, none if the name has none of this family; and the resolver that said so.

    Raises:
      NameSilentError: Nobody answered in time.
      NameFailedError: The answer was that there is no such name, or an error; or nothing could be sent.
      CannotBindError: The link cannot be bound to.
    """
    asking = asyncresolver.Resolver(configure=False)
    asking.nameservers = [str(address).partition("%")[0] for address in resolvers]
    asking.port = port
    asking.timeout = _EACH_SECONDS
    asking.lifetime = _ALL_SECONDS
    asking.cache = None
    backend = _Backend(link, ifindex)
    answer: resolver.Answer | None = None
    with trio.move_on_after(_ALL_SECONDS):
        await trio.lowlevel.checkpoint()
        try:
            answer = await asking.resolve(
                name.removesuffix(".") + ".",
                rdatatype.A if family == 4 else rdatatype.AAAA,
                backend=backend,
                raise_on_no_answer=False,
                search=False,
            )
        except exception.Timeout:
            pass
        except exception.DNSException as error:  # no such name; SERVFAIL from all; local errors, only in its text
            if backend.cannot_bind is not None:
                raise backend.cannot_bind from None
            raise NameFailedError(_sentence(error)) from error
    if answer is None:
        raise NameSilentError("no answer from the link's resolvers")
    records = cast(Iterable[object], answer.rrset or ())
    addresses = [ip_address(record.address) for record in records if isinstance(record, A | AAAA)]
    said_by = answer.nameserver
    return list(dict.fromkeys(addresses)), None if said_by is None else ip_address(said_by)


def _sentence(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


class _Backend(Backend):
    """Sockets for dnspython, each bound to the link before it is connected. The signatures are dnspython's."""

    def __init__(self, link: SocketMaker, ifindex: int) -> None:
        self._link = link
        self._ifindex = ifindex
        self.cannot_bind: CannotBindError | None = None  # dnspython keeps of an error only its text

    def name(self) -> str:
        return "trio_routes"

    async def make_socket(  # noqa: PLR0917 -- dnspython's
        self,
        af: int,
        socktype: int,
        proto: int = 0,
        source: object = None,
        destination: _LowLevel | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 -- dnspython's
        ssl_context: object = None,
        server_hostname: object = None,
    ) -> _Datagrams | _Stream:
        assert source is None, "the link's own choice"
        await trio.lowlevel.checkpoint()
        assert ssl_context is None, "nobody asked for DNS over TLS"
        try:
            sock = self._link.open_socket(af, socktype)
        except CannotBindError as error:
            self.cannot_bind = error
            raise
        try:
            if destination is not None:
                with _no_longer_than(timeout):
                    await sock.connect(_sockaddr(destination, self._ifindex))
        except BaseException:  # a cancellation too
            sock.close()
            raise
        if socktype == socket.SOCK_DGRAM:
            return _Datagrams(sock, self._ifindex)
        return _Stream(sock)

    async def sleep(self, interval: float) -> None:
        await trio.sleep(interval)


@contextmanager
def _no_longer_than(timeout: float | None) -> Generator[None]:
    """`trio.move_on_after` whose end is dnspython's Timeout; None is no limit."""
    with trio.CancelScope() if timeout is None else trio.move_on_after(max(timeout, 0.0)) as scope:
        yield
    if scope.cancelled_caught:
        raise exception.Timeout(timeout=timeout)  # type: ignore[no-untyped-call]  # dnspython's own is not annotated


def _sockaddr(destination: _LowLevel, ifindex: int) -> _LowLevel:
    host, port = destination[:2]
    address = ip_address(host)
    if isinstance(address, IPv6Address):
        return host, port, 0, ifindex if address.is_link_local else 0
    return host, port


class _Datagrams(DatagramSocket):
    def __init__(self, sock: trio.socket.SocketType, ifindex: int) -> None:
        super().__init__(sock.family, socket.SOCK_DGRAM)
        self._socket = sock
        self._ifindex = ifindex

    async def sendto(self, what: bytes, destination: _LowLevel | None, timeout: float | None) -> int:  # noqa: ASYNC109 -- dnspython's
        with _no_longer_than(timeout):
            if destination is None:
                return await self._socket.send(what)
            return await self._socket.sendto(what, _sockaddr(destination, self._ifindex))

    async def recvfrom(self, size: int, timeout: float | None) -> tuple[bytes, _LowLevel]:  # noqa: ASYNC109 -- dnspython's
        with _no_longer_than(timeout):
            data, sender = await self._socket.recvfrom(size)
        # In the form, and without the scope, in which dnspython compares it with the server it asked.
        host, port = str(sender[0]).partition("%")[0], int(sender[1])
        return data, (host, port) if self._socket.family == socket.AF_INET else (host, port, 0, 0)

    async def close(self) -> None:
        self._socket.close()
        await trio.lowlevel.checkpoint()

    async def getpeername(self) -> object:
        await trio.lowlevel.checkpoint()
        return self._socket.getpeername()

    async def getsockname(self) -> object:
        await trio.lowlevel.checkpoint()
        return self._socket.getsockname()

    async def getpeercert(self, timeout: float | None) -> object:  # noqa: ASYNC109 -- dnspython's
        raise NotImplementedError


class _Stream(StreamSocket):
    def __init__(self, sock: trio.socket.SocketType) -> None:
        super().__init__(sock.family, socket.SOCK_STREAM)
        self._stream = trio.SocketStream(sock)

    async def sendall(self, what: bytes, timeout: float | None) -> None:  # noqa: ASYNC109 -- dnspython's
        with _no_longer_than(timeout):
            await self._stream.send_all(what)

    async def recv(self, size: int, timeout: float | None) -> bytes:  # noqa: ASYNC109 -- dnspython's
        with _no_longer_than(timeout):
            return bytes(await self._stream.receive_some(size))

    async def close(self) -> None:
        self._stream.socket.close()
        await trio.lowlevel.checkpoint()

    async def getpeername(self) -> object:
        await trio.lowlevel.checkpoint()
        return self._stream.socket.getpeername()

    async def getsockname(self) -> object:
        await trio.lowlevel.checkpoint()
        return self._stream.socket.getsockname()

    async def getpeercert(self, timeout: float | None) -> object:  # noqa: ASYNC109 -- dnspython's
        raise NotImplementedError
