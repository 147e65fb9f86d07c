"""What a pt needs of a kernel: the joint between trio_routes and Linux, or a test's fake of it.

`LinuxKernel` is the real one, in the caller's or in a named network namespace;
`trio_routes.testing.FakeKernel` is the other. A pt talks to nothing else: it opens one netlink
socket here, resolves names here and connects here, so a whole application can run against a
fake without a socket and without wall time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol, runtime_checkable

import trio

from ._attributes import IPAddress


class NetlinkSocket(Protocol):
    """A non-blocking rtnetlink socket, subscribed to nothing until `join` is called."""

    @property
    def port(self) -> int:
        """Our port id, as the kernel assigned it; never 0."""
        ...

    @property
    def netns_cookie(self) -> int | None:
        """SO_NETNS_COOKIE of the socket's network namespace; None where the kernel has none (before 5.14)."""
        ...

    @property
    def receive_buffer(self) -> int:
        """Bytes of receive buffer that were granted (SO_RCVBUF as the kernel reports it)."""
        ...

    def join(self, group: int) -> None:
        """Subscribe to one multicast group (an RTNLGRP_* number). Raises OSError where the kernel refuses."""
        ...

    def send(self, data: bytes) -> None:
        """Send one request. Raises OSError."""
        ...

    def receive_into(self, buffer: bytearray) -> tuple[int, bool, int]:
        """Read one datagram: (length in bytes, whether it was truncated, the sender's port id; 0 is the kernel).

        Raises:
          BlockingIOError: Nothing is waiting.
          OSError: ENOBUFS when the kernel had to drop notifications.
        """
        ...

    async def wait_readable(self) -> None:
        """Return once something may be waiting. A checkpoint."""
        ...

    def close(self) -> None:
        """Close the socket; later calls do nothing."""
        ...


class BulkRead(NamedTuple):
    """What a read of many datagrams brought.

    Attributes:
      datagrams: In their order.
      odd: Those that are not whole or not from the kernel, by their place in the list: (whether it was truncated, the
        sender's port id; 0 is the kernel). Mostly there are none.
      error: Why there are no more: EAGAIN, nothing was waiting after them; 0, there was no room for more; or another.
    """

    datagrams: list[bytes]
    odd: dict[int, tuple[bool, int]]
    error: int


class BulkReader(Protocol):
    """Reads many datagrams at once, in the loop or elsewhere; never in both at a time."""

    def read(self) -> BulkRead:
        """Read what is waiting, up to some hundreds; never blocks. Raises OSError where there is no memory for it."""
        ...

    def start(self, done: Callable[[], None]) -> None:
        """Begin a read that the loop need not wait for, while none is under way; `done` is called in the loop once it has ended.

        Raises:
          RuntimeError: There is no thread to be had.
          OSError: There is no memory for it.
        """
        ...

    def finish(self) -> BulkRead:
        """Return what the read brought. Blocks the loop if it is under way still. May be called before `done` is."""
        ...

    def rest(self) -> None:
        """Give back what only a read needs, for some time."""
        ...

    def close(self) -> None:
        """Begin no more reads; one that is under way ends by itself."""
        ...


@runtime_checkable
class BulkSocket(Protocol):
    """A `NetlinkSocket` that can be read in bulk, too; others need not."""

    def open_bulk(self, size: int) -> BulkReader | None:
        """Return a reader for datagrams of up to ``size`` bytes; None where there can be none."""
        ...


class Kernel(Protocol):
    """Where a pt gets its netlink socket, its names and its connections from."""

    def open_netlink(self) -> NetlinkSocket:
        """Open a netlink socket. Raises OSError where there is none or it is refused."""
        ...

    async def resolve(self, host: str, port: int) -> list[IPAddress]:
        """Look a name up, preferred addresses first (RFC 6724). A checkpoint. Raises OSError (socket.gaierror)."""
        ...

    async def connect_tcp(
        self,
        address: IPAddress,
        port: int,
        *,
        local_address: IPAddress | None = None,
        device: str | None = None,
        mark: int = 0,
    ) -> trio.abc.HalfCloseableStream:
        """Make one TCP connection from this kernel's namespace. A checkpoint; cancelling closes the socket.

        Raises:
          OSError: The connection failed. PermissionError for `mark` without CAP_NET_ADMIN or CAP_NET_RAW.
        """
        ...

    async def listen_tcp(
        self, port: int, *, host: str | None = None, backlog: int | None = None, share_port: bool = False
    ) -> list[trio.SocketListener]:
        """Listen on a port in this kernel's namespace, as `trio.open_tcp_listeners` does. A checkpoint.

        With `share_port`, other sockets that are opened so may listen on the same port, and the kernel spreads the
        connections over them (SO_REUSEPORT, socket(7)).
        """
        ...
