"""Connecting: Happy Eyeballs over the addresses that the routing cache has a way to.

The race is Trio's own (RFC 6555, one attempt every 250 ms or as soon as one fails), with four
differences: an address without a route is skipped at once, with the reason; an attempt under
way fails as soon as its route goes, not after the SYN retries (two minutes); one whose route
moved begins anew by the new way, because its socket would go on to speak from the old one's
address; and the path that the winner is judged by is the one that was there *before* its
connect(), so that a change in between is noticed.
"""

from __future__ import annotations

import errno
import os
import socket
import ssl
from collections.abc import Sequence
from ipaddress import IPv6Address, ip_address
from typing import TYPE_CHECKING, Unpack, final

import attrs
import trio

from .._errors import NoRouteError
from ..netlink import IPAddress
from ..routing import Outcome, Resolution
from ._connection import Connection
from ._flow import Flow, is_connected, socket_of
from ._policy import Policy
from ._stream import GuardedStream

if TYPE_CHECKING:
    from ..netlink import Kernel
    from ..routing import Cache
    from ._ground import Ground
    from ._hints import TcpHints
    from ._options import ConnectOptions
    from ._policy import Probe

# Seconds; Trio's, where its reasons are given.
DEFAULT_DELAY = 0.25


@attrs.frozen
class Egress:
    """What a caller may fix about the way out, for a lookup and for the socket alike.

    Attributes:
      local_address: Source address; a wildcard only fixes the family.
      device: Name of the interface to bind to (SO_BINDTODEVICE).
      mark: The packets' mark (SO_MARK).
    """

    local_address: IPAddress | None = None
    device: str | None = None
    mark: int = 0

    @classmethod
    def of(cls, local_address: str | IPAddress | None, device: str | None, mark: int | None) -> Egress:
        """Take what users give. Raises ValueError for what is no address."""
        return cls(None if local_address is None else as_address(local_address), device, mark or 0)

    def __str__(self) -> str:
        """Say what is fixed, to go after the destination: " from 10.0.0.2 by wlan0"; nothing where nothing is."""
        ways = (("from", self.local_address), ("by", self.device), ("with mark", self.mark))
        return "".join(f" {word} {what}" for word, what in ways if what)

    def suits(self, address: IPAddress) -> bool:
        """Whether the source address is of the destination's family."""
        return self.local_address is None or self.local_address.version == address.version

    def flow_to(self, address: IPAddress, port: int, cache: Cache) -> Flow:
        """The flow that a socket connecting to an address will have, as far as it is known before.

        The source that the kernel will choose is not guessed: a wrong guess would be an address that is not there.
        """
        return Flow(
            peer=_unscoped(address),
            peer_port=port,
            local=self._source,
            device=self._ifindex(address, cache),
            mark=self.mark,
            uid=os.geteuid(),
        )

    def lookup(self, address: IPAddress, cache: Cache, port: int | None = None) -> Resolution:
        """Which way a TCP connection to an address and port would go now; without a port, any packet.

        The connection's own port is not known before: the kernel chooses it. Where a rule selects by it, the judge's
        first look at the connection is the first to see that.
        """
        device = self._ifindex(address, cache)
        if device is None and self.device is not None:
            return Resolution(Outcome.NO_ROUTE, generation=cache.generation)  # a device that is not there
        return cache.lookup(
            _unscoped(address),
            source=self._source,
            oif=device,
            mark=self.mark,
            uid=os.geteuid(),
            ip_proto=0 if port is None else socket.IPPROTO_TCP,
            dport=port or 0,
            strict=device is not None,  # as a socket's own lookups are
        )

    @property
    def _source(self) -> IPAddress | None:
        source = self.local_address
        return None if source is None or source.is_unspecified else source

    def _ifindex(self, address: IPAddress, cache: Cache) -> int | None:
        """The device's number, or that of a link-local destination's scope; None where neither is given or there."""
        name = self.device
        if name is None and isinstance(address, IPv6Address):
            name = address.scope_id
        if name is None:
            return None
        if name.isdecimal():
            return int(name)
        return next((index for index, link in cache.links.items() if link.name == name), None)


def _unscoped(address: IPAddress) -> IPAddress:
    """Strip the scope of a link-local address; routing tables know none."""
    return IPv6Address(int(address)) if isinstance(address, IPv6Address) and address.scope_id else address


def as_address(value: str | IPAddress) -> IPAddress:
    """Take an address as users may give it. Raises ValueError where it is none."""
    return ip_address(value) if isinstance(value, str) else value


def check_port(port: int) -> None:
    """Raise ValueError for what can be no port."""
    if not 0 <= port <= 0xFFFF:
        raise ValueError(f"a port is a number from 0 to 65535, not {port}")


async def addresses_of(kernel: Kernel, host: str | IPAddress, port: int) -> Sequence[IPAddress]:
    """Resolve a name; a literal address is its own answer. Always a checkpoint.

    Raises:
      OSError: The name cannot be resolved (socket.gaierror).
    """
    try:
        literal = as_address(host)
    except ValueError:
        return await kernel.resolve(str(host), port)
    await trio.lowlevel.checkpoint()
    return [literal]


def in_order_of_attempts(addresses: Sequence[IPAddress]) -> list[IPAddress]:
    """Put an address of the other family second, as RFC 6555 section 5.4 asks: one broken family costs one delay."""
    ordered = list(addresses)
    other = next((i for i, address in enumerate(ordered) if address.version != ordered[0].version), None)
    if other is not None:
        ordered.insert(1, ordered.pop(other))
    return ordered


@final
@attrs.define(eq=False)
class _Race:
    """One Happy Eyeballs race.

    Attributes:
      winner: The first stream that came about, and the path to its peer from before it was begun.
      errors: Why the others did not, in the order in which they failed.
      closed: The pt closed meanwhile.
    """

    ground: Ground
    target: str
    port: int
    egress: Egress
    winner: tuple[trio.abc.HalfCloseableStream, Resolution] | None = None
    errors: list[OSError] = attrs.field(factory=list[OSError])
    closed: trio.ClosedResourceError | None = None

    async def run(
        self, addresses: Sequence[IPAddress], delay: float
    ) -> tuple[trio.abc.HalfCloseableStream, Resolution]:
        """Try the addresses until one answers.

        Raises:
          NoRouteError: None had a route, or kept it.
          OSError: All failed; the reasons are in the group that is its `__cause__`.
          trio.ClosedResourceError: The pt is closed.
        """
        try:
            async with trio.open_nursery() as nursery:
                for address in addresses:
                    before = self.egress.lookup(address, self.ground.cache, self.port)
                    refusal = self._refusal(address, before)
                    if refusal is not None:
                        self.errors.append(refusal)
                        continue
                    failed = trio.Event()
                    nursery.start_soon(self._attempt, address, nursery.cancel_scope, failed)
                    with trio.move_on_after(delay):
                        await failed.wait()
        except BaseException:
            if self.winner is not None:
                await trio.aclose_forcefully(self.winner[0])
            raise
        if self.winner is None and self.closed is not None:
            raise self.closed
        if self.winner is None:
            what = f"all attempts to connect to {self.target} failed"
            raise self._failure(what) from ExceptionGroup(what, self.errors)
        return self.winner

    def _refusal(self, address: IPAddress, before: Resolution) -> OSError | None:
        """Why an address need not be tried at all."""
        if not self.egress.suits(address):
            return OSError(errno.EAFNOSUPPORT, f"{self.egress.local_address} cannot reach {address}: another family")
        if before.outcome is Outcome.ROUTED or not self.ground.informed:
            return None
        return no_route(before, f"{address}{self.egress}: {before}")

    async def _attempt(self, address: IPAddress, race: trio.CancelScope, failed: trio.Event) -> None:
        try:
            stream, before = await self._connect(address)
        except OSError as error:
            self.errors.append(error)
            failed.set()
            return  # noqa: ASYNC910 -- the end of a task
        except trio.ClosedResourceError as error:  # raised here it would be wrapped in the nursery's group
            self.closed = error
            race.cancel(reason="the pt is closed")
            return  # noqa: ASYNC910 -- likewise
        if self.winner is not None:  # both in one tick
            await trio.aclose_forcefully(stream)
            return
        self.winner = stream, before
        race.cancel(reason=f"{address} answered first")

    async def _connect(self, address: IPAddress) -> tuple[trio.abc.HalfCloseableStream, Resolution]:
        """Connect by the way that there is, as often as another takes its place; returns the way, too.

        Raises:
          OSError: The connection failed; NoRouteError where there is no way any more.
        """
        while True:
            before = self.egress.lookup(address, self.ground.cache, self.port)
            connected = await self._connect_by_one_way(address)
            if not isinstance(connected, Connection):
                return connected, before
            loss, now = connected.loss, self.egress.lookup(address, self.ground.cache, self.port)
            assert loss is not None
            if now.outcome is not Outcome.ROUTED or (now.hops, now.source) == (before.hops, before.source):
                raise no_route(loss.after, f"lost while connecting: {connected.sentence()}")

    async def _connect_by_one_way(self, address: IPAddress) -> trio.abc.HalfCloseableStream | Connection:
        """Connect until the route goes; then what was lost. A socket in SYN_SENT would wait for its retries."""
        registry = self.ground.registry
        flow = self.egress.flow_to(address, self.port, self.ground.cache)
        connection = registry.register(None, flow=flow, policy=Policy.immediate(), label=self.target, attempt=True)
        scope = trio.CancelScope()
        try:
            with scope:
                connection.attach(scope)
                return await self.ground.kernel.connect_tcp(
                    address,
                    self.port,
                    local_address=self.egress.local_address,
                    device=self.egress.device,
                    mark=self.egress.mark,
                )
        finally:
            connection.detach(scope)
            registry.release(connection)
        return connection  # nothing else cancels the scope

    def _failure(self, what: str) -> OSError:
        """One error for all: of the kind that all were of, where they were of one."""
        last = self.errors[-1]
        if all(isinstance(error, NoRouteError) for error in self.errors) and isinstance(last, NoRouteError):
            return no_route(last.resolution, f"{what}: {last.strerror}")
        codes = {error.errno for error in self.errors}
        code = codes.pop()
        if codes or code is None:
            return OSError(what)
        return OSError(code, f"{what}: {os.strerror(code)}")  # Python makes it a PermissionError and so on


def no_route(resolution: Resolution, message: str) -> NoRouteError:
    """Make the error with the number that connect() would give.

    A path that is routed and lost all the same (its device, its source address) has no number; it is reported as
    ENETUNREACH.
    """
    return NoRouteError(resolution.errno or errno.ENETUNREACH, message, resolution)


async def open_tcp_stream(
    ground: Ground,
    host: str | IPAddress,
    port: int,
    *,
    local_address: str | IPAddress | None = None,
    happy_eyeballs_delay: float | None = DEFAULT_DELAY,
    device: str | None = None,
    mark: int | None = None,
    tcp_hints: TcpHints | None = None,
    policy: Policy | None = None,
    probe: Probe | None = None,
    label: str = "",
) -> GuardedStream:
    """Connect over TCP, as `trio.open_tcp_stream`, and guard the stream. A checkpoint.

    Args:
      ground: The pt's parts.
      host: A name or an address.
      port: The peer's port.
      local_address: The source address; a wildcard chooses the family only.
      happy_eyeballs_delay: Seconds that each address has before the next is tried beside it; None is the default.
      device: Name of the interface to bind to.
      mark: The packets' mark; needs CAP_NET_ADMIN or CAP_NET_RAW.
      tcp_hints: Keepalive and timeout settings for the socket.
      policy: Seconds from SUSPECT to LOST, instead of the pt's.
      probe: The application's own check of an uncertain path, instead of the kernel's keepalive.
      label: For events and messages; the host and port where it is empty.

    Raises:
      NoRouteError: No address has a route, or the route went while connecting.
      OSError: The name does not resolve, or no address answered.
      ValueError: A port, mark or delay that cannot be.
      trio.ClosedResourceError: The pt is closed.
    """
    # Here, and not in the attempts: a mistake of the caller's is no reason why an address failed.
    check_port(port)
    if mark is not None and not 0 <= mark <= 0xFFFFFFFF:
        raise ValueError(f"a mark is a number of 32 bits, not {mark}")
    if happy_eyeballs_delay is not None and not happy_eyeballs_delay >= 0:
        raise ValueError(f"happy_eyeballs_delay must be 0 or more seconds, not {happy_eyeballs_delay}")
    target = f"[{host}]:{port}" if ":" in str(host) else f"{host}:{port}"
    addresses = in_order_of_attempts(await addresses_of(ground.kernel, host, port))
    if not addresses:
        raise OSError(f"no results found for hostname lookup: {target}")
    egress = Egress.of(local_address, device, mark)
    delay = DEFAULT_DELAY if happy_eyeballs_delay is None else happy_eyeballs_delay
    stream, before = await _Race(ground, target, port, egress).run(addresses, delay)
    try:
        sock = socket_of(stream)
        if tcp_hints is not None and sock is not None:
            tcp_hints.apply_to(sock)
        return adopt(ground, stream, before, policy=policy, probe=probe, label=label or target)
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise


def adopt(
    ground: Ground,
    stream: trio.abc.Stream,
    before: Resolution | None,
    *,
    policy: Policy | None,
    probe: Probe | None,
    label: str,
) -> GuardedStream:
    """Guard a stream that has just come about.

    Raises:
      ConnectionResetError: The peer has closed it already.
      trio.ClosedResourceError: The pt is closed.
    """
    try:
        connection = ground.registry.register(stream, policy=policy, probe=probe, label=label, before=before)
    except ValueError as error:
        sock = socket_of(stream)
        if sock is None or is_connected(sock):
            raise
        raise ConnectionResetError(errno.ECONNRESET, "the peer reset it at once") from error
    return GuardedStream(stream, connection, ground.registry)


async def open_ssl_over_tcp_stream(
    ground: Ground,
    host: str | IPAddress,
    port: int,
    *,
    ssl_context: ssl.SSLContext | None = None,
    https_compatible: bool = False,
    **options: Unpack[ConnectOptions],
) -> trio.SSLStream[GuardedStream]:
    """Connect over TCP and put TLS on top, as `trio.open_ssl_over_tcp_stream`. A checkpoint.

    The handshake is left to the first call. Arguments and errors are those of `open_tcp_stream`, and of
    `trio.SSLStream`.
    """
    stream = await open_tcp_stream(ground, host, port, **options)
    if ssl_context is None:
        ssl_context = ssl.create_default_context()
        # As Trio does: with this option a cut connection would read as a clean end.
        ssl_context.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF
    return trio.SSLStream(stream, ssl_context, server_hostname=str(host), https_compatible=https_compatible)
