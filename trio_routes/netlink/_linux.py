"""This machine's kernel: a real netlink socket and real connections, in one network namespace."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
from collections.abc import Iterable
from ipaddress import IPv6Address, ip_address

import trio

from ._attributes import IPAddress
from ._bulk import ManyReader, many_reader
from ._netns import entered, open_netns

# Names that the socket module lacks or has only from a later Python on; linux/netlink.h, asm-generic/socket.h.
_SOL_NETLINK = 270
_NETLINK_ADD_MEMBERSHIP = 1
_NETLINK_EXT_ACK = 11
_NETLINK_GET_STRICT_CHK = 12
_SO_RCVBUFFORCE = 33
_SO_NETNS_COOKIE = 71
# A plain integer: to and it with a member of an enum takes as long as the system call before.
_MSG_TRUNC = int(socket.MSG_TRUNC)

# Holds 80 000 notifications (each is charged 832 bytes, and the kernel doubles what is asked for). With a quarter of
# it, which is what NetworkManager asks for, most storms of 200 000 overflowed: they come in bursts that are as fast as
# notifications can be read. It is a limit: nothing of it is taken before there is something to hold.
RECEIVE_BUFFER = 32 * 1024 * 1024


class LinuxNetlinkSocket:
    """A non-blocking NETLINK_ROUTE socket with strict checking and extended errors."""

    def __init__(self) -> None:
        # Port id 0 lets the kernel pick one: any number of sockets in a process.
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE
        )
        try:
            # Both options are hints to kernels that have them (4.12, 4.20); without them dumps are merely wider.
            for option in (_NETLINK_EXT_ACK, _NETLINK_GET_STRICT_CHK):
                with contextlib.suppress(OSError):
                    self._socket.setsockopt(_SOL_NETLINK, option, 1)
            self._grow_buffer()
            self._socket.bind((0, 0))
        except BaseException:
            self._socket.close()
            raise
        self._port: int = self._socket.getsockname()[0]
        # The kernel doubles what is asked for and reports the double. Kept, because a pt's statistics outlive it.
        self._receive_buffer: int = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)

    def _grow_buffer(self) -> None:
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, RECEIVE_BUFFER)
        except PermissionError:  # without CAP_NET_ADMIN the cap net.core.rmem_max holds
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)

    @property
    def port(self) -> int:
        """Our port id, as the kernel assigned it."""
        return self._port

    @property
    def netns_cookie(self) -> int | None:
        """The namespace's cookie, or None on kernels before 5.14."""
        return netns_cookie(self._socket)

    @property
    def receive_buffer(self) -> int:
        """Bytes granted; also after the socket was closed."""
        return self._receive_buffer

    def fileno(self) -> int:
        """The socket's descriptor, for whoever waits in other ways than Trio's."""
        return self._socket.fileno()

    def join(self, group: int) -> None:
        """Subscribe to one multicast group."""
        self._socket.setsockopt(_SOL_NETLINK, _NETLINK_ADD_MEMBERSHIP, group)

    def send(self, data: bytes) -> None:
        """Send one request to the kernel (port id 0)."""
        self._socket.sendto(data, (0, 0))

    def receive_into(self, buffer: bytearray) -> tuple[int, bool, int]:
        """Read one datagram; see `NetlinkSocket.receive_into`."""
        length, _, flags, sender = self._socket.recvmsg_into((buffer,))
        return length, bool(flags & _MSG_TRUNC), sender[0]

    def open_bulk(self, size: int) -> ManyReader | None:
        """Return what reads this socket many datagrams at a time; see `BulkSocket`."""
        return many_reader(self._socket.fileno(), size)

    async def wait_readable(self) -> None:
        """Return once something may be waiting. A checkpoint."""
        await trio.lowlevel.wait_readable(self._socket)

    def close(self) -> None:
        """Close the socket."""
        if self._socket.fileno() >= 0:
            trio.lowlevel.notify_closing(self._socket)
            self._socket.close()


def netns_cookie(sock: socket.socket) -> int | None:
    """Return the cookie of the namespace that a socket belongs to; None on kernels before 5.14."""
    try:
        raw = sock.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8)
    except OSError:
        return None
    return int(struct.unpack("=Q", raw)[0])


class LinuxKernel:
    """The running kernel, seen from one network namespace.

    Args:
      netns: A name, a path or a descriptor; None is the calling thread's own.

    Raises:
      FileNotFoundError: There is no such namespace.
      OSError: It is no network namespace, or may not be entered.
    """

    def __init__(self, netns: str | int | None = None) -> None:
        self._netns = None if netns is None else open_netns(netns)
        try:
            # Now: later it would pass for a kernel that refuses netlink, and nothing would be monitored.
            with entered(self._netns):
                pass
        except BaseException:
            self.close()
            raise

    @property
    def own_namespace(self) -> bool:
        """Whether this is the calling thread's own namespace, which was not named."""
        return self._netns is None

    def close(self) -> None:
        """Let go of the namespace; sockets made in it live on."""
        if self._netns is not None:
            os.close(self._netns)
            self._netns = None

    def open_netlink(self) -> LinuxNetlinkSocket:
        """Open a netlink socket in the namespace. Raises OSError where netlink is missing or refused."""
        if not hasattr(socket, "AF_NETLINK"):
            raise OSError(errno.EAFNOSUPPORT, "this system has no netlink")
        with entered(self._netns):
            return LinuxNetlinkSocket()

    async def resolve(self, host: str, port: int) -> list[IPAddress]:
        """Look a name up from inside the namespace. A checkpoint."""
        netns = self._netns
        if netns is None:
            answers = await trio.socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            found = [answer[4] for answer in answers]
        else:
            await trio.lowlevel.checkpoint()
            # Its own: a cancelled look-up goes on in its thread, and the pt may close the namespace meanwhile. With a
            # limiter of its own, too, nothing can come between this line and the thread that closes it.
            own = os.dup(netns)

            def there() -> list[_SockAddr]:
                try:
                    with entered(own):
                        return [answer[4] for answer in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
                finally:
                    os.close(own)

            limiter = trio.CapacityLimiter(1)
            found = await trio.to_thread.run_sync(there, abandon_on_cancel=True, limiter=limiter)
        return list(dict.fromkeys(_addresses(found)))

    async def connect_tcp(
        self,
        address: IPAddress,
        port: int,
        *,
        local_address: IPAddress | None = None,
        device: str | None = None,
        mark: int = 0,
    ) -> trio.SocketStream:
        """Make one TCP connection; see `Kernel.connect_tcp`. A checkpoint."""
        family = socket.AF_INET if address.version == 4 else socket.AF_INET6
        with entered(self._netns):
            target = _sockaddr(address, port)
            bind_to = None if local_address is None else _sockaddr(local_address, 0)
        sock = self.open_socket(family, socket.SOCK_STREAM, device=device)
        try:
            if mark:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
            if bind_to is not None:
                await sock.bind(bind_to)
            await sock.connect(target)
            return trio.SocketStream(sock)
        except BaseException:
            sock.close()
            raise

    def open_socket(self, family: int, kind: int, *, device: str | None = None) -> trio.socket.SocketType:
        """Make an unconnected socket in the namespace, bound to a link (SO_BINDTODEVICE) if one is given.

        Raises:
          OSError: ENODEV for a link that is not there; EPERM on kernels before 5.7 without CAP_NET_RAW.
        """
        with entered(self._netns):
            sock = trio.socket.socket(family, kind)
        try:
            if device is not None:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode() + b"\0")
        except BaseException:
            sock.close()
            raise
        return sock

    async def listen_tcp(
        self, port: int, *, host: str | None = None, backlog: int | None = None, share_port: bool = False
    ) -> list[trio.SocketListener]:
        """Listen in the namespace, on every address of `host` (None: all, both families). A checkpoint."""
        await trio.lowlevel.checkpoint()
        if self._netns is None and not share_port:
            return await trio.open_tcp_listeners(port, host=host, backlog=backlog)
        addresses = [ip_address("0.0.0.0"), ip_address("::")] if host is None else await self.resolve(host, port)
        listeners: list[trio.SocketListener] = []
        try:
            for address in addresses:
                try:
                    sock = await self._listening(address, port, backlog, share_port)
                except OSError as error:  # a system without one of the families, as in Trio
                    if error.errno != errno.EAFNOSUPPORT or not (listeners or address != addresses[-1]):
                        raise
                    continue
                listeners.append(trio.SocketListener(sock))
        except BaseException:
            for listener in listeners:
                listener.socket.close()
            raise
        return listeners

    async def _listening(
        self, address: IPAddress, port: int, backlog: int | None, share_port: bool
    ) -> trio.socket.SocketType:
        family = socket.AF_INET if address.version == 4 else socket.AF_INET6
        with entered(self._netns):
            here = _sockaddr(address, port)
            sock = trio.socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if share_port:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            await sock.bind(here)
            sock.listen(0xFFFF if backlog is None else backlog)  # the kernel clamps it to net.core.somaxconn
            return sock
        except BaseException:
            sock.close()
            raise


_SockAddr = tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes]


def _addresses(found: Iterable[_SockAddr]) -> Iterable[IPAddress]:
    for sockaddr in found:
        text = sockaddr[0]
        if isinstance(text, str):
            scope = sockaddr[3] if len(sockaddr) == 4 else 0
            yield ip_address(f"{text}%{scope}" if scope and "%" not in text else text)


def _sockaddr(address: IPAddress, port: int) -> tuple[str, int] | tuple[str, int, int, int]:
    """Build what connect() and bind() take; a scope is a link's number or its name in the current namespace."""
    if not isinstance(address, IPv6Address):
        return str(address), port
    scope = address.scope_id
    bare = str(address).partition("%")[0]
    if scope is None:
        return bare, port, 0, 0
    return bare, port, 0, int(scope) if scope.isdigit() else socket.if_nametoindex(scope)
