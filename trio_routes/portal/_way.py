"""One path to ask by: a family by a link, with sockets bound to it, or whatever the machine's tables say.

What binds a socket to a link (measured, unprivileged, IPv4 and IPv6):

    SO_BINDTODEVICE     TCP and UDP leave by that link, or not at all
    a source address    leaves by the default route's link with that address, and nobody answers
    IP_UNICAST_IF       no effect on TCP

So it is SO_BINDTODEVICE or no probe. It needs no right on an unbound socket since Linux 5.7; EPERM (before) and ENODEV (the
link went) become `CannotBindError`, which is told in the evidence.
"""

from __future__ import annotations

import errno
import ssl
from collections.abc import Awaitable, Callable
from importlib import import_module
from typing import Protocol, runtime_checkable

import attrs
import trio

from ..netlink import IPAddress


class Network(Protocol):
    """The part of a `Kernel` that a probe uses."""

    async def resolve(self, host: str, port: int) -> list[IPAddress]:
        """As `Kernel.resolve`."""
        ...

    async def connect_tcp(
        self, address: IPAddress, port: int, *, device: str | None = None
    ) -> trio.abc.HalfCloseableStream:
        """As `Kernel.connect_tcp`."""
        ...


@runtime_checkable
class BindingNetwork(Protocol):
    """A network that also makes sockets, so that names can be looked up by one link. A fake kernel does not."""

    def open_socket(self, family: int, kind: int, *, device: str | None = None) -> trio.socket.SocketType:
        """As `LinuxKernel.open_socket`."""
        ...


class CannotBindError(OSError):
    """The link cannot be bound to."""


class NameSilentError(OSError):
    """None of the link's resolvers answered in time."""


class NameFailedError(OSError):
    """A resolver of the link's answered that there is no such name, or that it cannot tell."""


@attrs.frozen
class Addresses:
    """What a name resolved to.

    Attributes:
      addresses: Those of the way's family, or of both in the resolver's order; may be empty.
      resolver: The link's own resolver that said so; None for the machine's.
    """

    addresses: tuple[IPAddress, ...]
    resolver: IPAddress | None = None


@attrs.frozen(eq=False, kw_only=True)
class Way:
    """One path to ask by. What is made here leaves by that link, or fails.

    Attributes:
      device: The link's name; None is whichever way the machine's tables say.
      ifindex: Its number; 0 likewise.
      family: 4 or 6; 0 is either.
      resolvers: The link's own name servers, loopback ones left out; without any, the machine's resolver is asked.
    """

    _network: Network = attrs.field(alias="network")
    _tls: Callable[[], Awaitable[ssl.SSLContext]] = attrs.field(alias="tls")
    device: str | None = None
    ifindex: int = 0
    family: int = 0
    resolvers: tuple[IPAddress, ...] = ()

    @property
    def resolves_by_link(self) -> bool:
        """Whether names are looked up by this link alone, and not by the machine's resolver."""
        return bool(self.resolvers and self.family) and isinstance(self._network, BindingNetwork)

    async def resolve(self, name: str, port: int = 0) -> Addresses:
        """Look a name up, by this link where its own resolvers are known. A checkpoint.

        Raises:
          OSError: It has no address, or nobody answered.
          CannotBindError: The link cannot be bound to.
        """
        if self.resolves_by_link:
            # It takes 0.2 s of processor time to import dnspython's resolver; the loop does not wait for it.
            names = await trio.to_thread.run_sync(import_module, "trio_routes.portal._names", abandon_on_cancel=True)
            addresses, resolver = await names.look_up(name, self.family, self.resolvers, self, self.ifindex)
            return Addresses(tuple(addresses), resolver)
        found = await self._network.resolve(name, port)
        return Addresses(tuple(address for address in found if self.family in (0, address.version)))

    async def connect(self, address: IPAddress, port: int) -> trio.abc.HalfCloseableStream:
        """Connect over TCP. A checkpoint; cancelling closes the socket.

        Raises:
          CannotBindError: The link cannot be bound to; nothing was sent.
          OSError: The connection failed.
        """
        try:
            return await self._network.connect_tcp(address, port, device=self.device)
        except OSError as error:
            raise self._cannot_bind(error) or error from None

    async def start_tls(self, stream: trio.abc.Stream, name: str) -> trio.SSLStream[trio.abc.Stream]:
        """Shake hands over a stream. A checkpoint.

        Args:
          stream: Connected; the TLS stream owns it then.
          name: Whose certificate it must be: a name or an address.

        Raises:
          trio.BrokenResourceError: It failed; its cause is the `ssl.SSLError`.
        """
        context = await self._tls()
        # Else a server that just closes gives an error, and aclose() before the handshake hangs on a mute server.
        secure = trio.SSLStream(stream, context, server_hostname=name, https_compatible=True)
        await secure.do_handshake()
        return secure

    def open_socket(self, family: int, kind: int) -> trio.socket.SocketType:
        """Make an unconnected socket (`socket.AF_*`, `socket.SOCK_*`) that is bound to the link.

        Raises:
          CannotBindError: The link cannot be bound to, or this kernel makes no sockets.
          OSError: No socket could be made.
        """
        if not isinstance(self._network, BindingNetwork):
            raise CannotBindError(errno.EOPNOTSUPP, "this kernel makes no sockets")
        try:
            return self._network.open_socket(family, kind, device=self.device)
        except OSError as error:
            raise self._cannot_bind(error) or error from None

    def _cannot_bind(self, error: OSError) -> CannotBindError | None:
        if self.device is not None and error.errno in (errno.EPERM, errno.ENODEV):
            return CannotBindError(error.errno, f"no socket can be bound to {self.device}: {error.strerror}")
        return None


class TlsContext:
    """One verifying context, made when it is first wanted, in a thread: that takes 18 ms (measured).

    Args:
      given: The application's own; None for the system's authorities.
    """

    def __init__(self, given: ssl.SSLContext | None) -> None:
        self._context = given
        self._making = trio.Lock()

    async def get(self) -> ssl.SSLContext:
        """Return the context. A checkpoint."""
        async with self._making:
            if self._context is None:
                self._context = await trio.to_thread.run_sync(ssl.create_default_context)
            return self._context
