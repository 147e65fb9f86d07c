"""A kernel for tests: its tables are what the test says, and time is the test's own.

    async with FakeKernel() as kernel:
        wlan0 = kernel.add_link("wlan0")
        wlan0.add_address("192.0.2.2/24")
        kernel.add_route("default", via="192.0.2.1")
        kernel.listen("198.51.100.7", 5432, database, name="db.example")
        async with open_pt(kernel=kernel) as pt:
            stream = await pt.open_tcp_stream("db.example", 5432)
            kernel.delete_route("default", via="192.0.2.1")
            await kernel.settle()
            ...

It speaks netlink in bytes, so everything from the decoders up runs as it does on Linux. The
`async with` owns the nursery in which the peers' handlers run, and leaving it cancels them; a
test that connects to nobody may use a `FakeKernel()` without it.

Not played, and better tried in the namespace lab: packets (bytes of a connection pass whatever
the tables say, a handshake takes no time), names that cannot be resolved for want of a route,
listening sockets, and what `_fake_network.py` lists.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import socket
from collections.abc import Awaitable, Callable, Sequence
from ipaddress import IPv6Address, ip_address
from types import TracebackType
from typing import Final, NoReturn, Self, TypeAlias, Unpack, cast

import trio
import trio.testing

from ..connections import Flow, ProbeAnswer
from ..netlink import (
    AF_INET,
    RT_TABLE_MAIN,
    RTPROT_UNSPEC,
    IPAddress,
    MessageType,
    NextHop,
    RouteBody,
    RuleMessage,
    build_message,
)
from ._fake_links import FakeLink
from ._fake_lookup import Packet, find_way
from ._fake_netlink import Datagram, FakeNetlinkSocket
from ._fake_network import FakeNetwork
from ._fake_notices import family_of
from ._fake_routes import refuse
from ._fake_stream import FakeStream, fake_connection
from ._fake_words import FakeRouteOptions, as_address, find_link, parse_destination, route_body, rule_message

Handler: TypeAlias = Callable[[FakeStream], Awaitable[object]]

# Seconds until a connect() that nobody answers gives up: net.ipv4.tcp_syn_retries=6, 1 + 2 + 4 + ... + 64.
SYN_TIMEOUT: Final = 127
_FIRST_PORT = 32768  # net.ipv4.ip_local_port_range


def _holds_cancelled(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        parts = cast("BaseExceptionGroup[BaseException]", error).exceptions
        return any(map(_holds_cancelled, parts))
    return isinstance(error, trio.Cancelled)


class FakeKernel:
    """A kernel in memory; satisfies `trio_routes.Kernel`.

    It starts as a new network namespace does, but for a loopback link that is up already: 127.0.0.1 and ::1 with
    their routes, and the default rules.

    Args:
      netlink_error: With an errno, netlink is refused with it, as on systems without it or in strict sandboxes.

    Attributes:
      probe_answer: What peers do when a kernel would ask them by keepalive whether they take a connection by its new
        path: "ack" and the connection is good again, "reset" and it is lost at once, "silence" and it is lost after 3 s.
    """

    def __init__(self, *, netlink_error: int | None = None) -> None:
        self.probe_answer: ProbeAnswer = "silence"
        self._netlink_error = netlink_error
        self._sockets: list[FakeNetlinkSocket] = []
        self._network = FakeNetwork(self._announce)
        self._names: dict[str, list[IPAddress]] = {}
        self._handlers: dict[tuple[IPAddress, int], Handler] = {}
        self._silent: set[IPAddress] = set()
        self._ports = itertools.count(_FIRST_PORT)
        self._manager: contextlib.AbstractAsyncContextManager[trio.Nursery] | None = None
        self._nursery: trio.Nursery | None = None

    # ---- the peers' nursery ----------------------------------------------------------------

    async def __aenter__(self) -> Self:
        if self._nursery is not None:
            raise RuntimeError("a FakeKernel can be entered only once at a time")
        self._manager = trio.open_nursery()
        self._nursery = await self._manager.__aenter__()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        manager, nursery = self._manager, self._nursery
        assert manager is not None
        assert nursery is not None
        self._manager = self._nursery = None
        nursery.cancel_scope.cancel()
        if exc is None or _holds_cancelled(exc):  # it may be the nursery's own Cancelled, for a peer that failed
            return await manager.__aexit__(exc_type, exc, traceback)  # noqa: ASYNC102 -- all in it is cancelled
        # The body's own error leaves as it is: shown to the nursery, it would come out wrapped in a group. And an
        # outer cancellation has nothing to add to what is being cancelled.
        nursery.cancel_scope.shield = True
        try:
            await manager.__aexit__(None, None, None)  # noqa: ASYNC102 -- likewise
        except BaseExceptionGroup as group:
            raise BaseExceptionGroup("a test and its peers failed", [exc, *group.exceptions]) from None
        return False  # leaving a nursery is a checkpoint

    # ---- links and addresses ---------------------------------------------------------------

    def add_link(
        self, name: str, *, up: bool = True, carrier: bool = True, kind: str = "", mtu: int = 1500
    ) -> FakeLink:
        """Make a link.

        Args:
          name: 1 to 15 bytes.
          up: Whether it is set up at once.
          carrier: Whether the cable is in.
          kind: What `ip -d link` shows ("veth", "wireguard"); "" is hardware.
          mtu: Bytes.

        Raises:
          FileExistsError: The name is taken.
        """
        return self._network.add_link(name, up=up, carrier=carrier, kind=kind, mtu=mtu)

    # ---- routes and rules ------------------------------------------------------------------

    def add_route(self, destination: str, **options: Unpack[FakeRouteOptions]) -> None:
        """Add a route, as `ip route add` does.

        Args:
          destination: "192.0.2.0/24", "192.0.2.7", or "default".
          **options: See `FakeRouteOptions`.

        Raises:
          FileExistsError: There is a route of that metric.
          OSError: ENETUNREACH for a gateway on no link, ENETDOWN for a link that is down.
        """
        prefix = parse_destination(destination, options)
        body = route_body(self._network, prefix, options)
        self._network.routes[body.family].add(body, int(prefix.network_address))

    def replace_route(self, destination: str, **options: Unpack[FakeRouteOptions]) -> None:
        """Put a route in the place of the one of its metric, or add it, as `ip route replace` does; see `add_route`."""
        prefix = parse_destination(destination, options)
        body = route_body(self._network, prefix, options)
        self._network.routes[body.family].replace(body, int(prefix.network_address))

    def delete_route(self, destination: str, **options: Unpack[FakeRouteOptions]) -> None:
        """Remove the first route of a prefix that is as described, as `ip route del` does.

        With `via` or `device`, one sibling of an IPv6 multipath route can be removed alone.

        Args:
          destination: As for `add_route`.
          **options: Of those of `add_route`: `via`, `device`, `metric`, `table` and `family` count.

        Raises:
          ProcessLookupError: There is none (ESRCH, as the kernel says it).
        """
        prefix = parse_destination(destination, options)
        metric, via = options.get("metric"), options.get("via")
        gateway = None if via is None else as_address(via)
        link = find_link(self._network, options.get("device"))

        def is_hop(hop: NextHop) -> bool:
            return gateway in (None, hop.gateway) and (link is None or link.ifindex == hop.ifindex)

        def is_route(body: RouteBody) -> bool:
            if metric not in (None, body.priority):
                return False
            described = gateway is not None or link is not None
            return not described or (len(body.nexthops) == 1 and is_hop(body.nexthops[0]))

        routes = self._network.routes[family_of(prefix.network_address)]
        key = (options.get("table", RT_TABLE_MAIN), prefix.prefixlen, int(prefix.network_address))
        if not routes.delete(key, is_route) and not routes.delete_sibling(key, is_hop):
            raise refuse(errno.ESRCH, f"no such route to {destination}")

    def add_rule(
        self,
        *,
        source: str | None = None,
        destination: str | None = None,
        mark: int = 0,
        mask: int | None = None,
        iif: str = "",
        oif: str = "",
        table: int = RT_TABLE_MAIN,
        priority: int = 0,
        family: int | None = None,
        protocol: int = RTPROT_UNSPEC,
    ) -> RuleMessage:
        """Add a policy rule, as `ip rule add` does; give what is returned to `delete_rule`.

        Args:
          source: Packets from this prefix ("from").
          destination: Packets to this prefix ("to").
          mark: Packets with this mark ("fwmark").
          mask: Which of the mark's bits count; all by default.
          iif: Packets that came in by this device; "lo": sent by this host.
          oif: Packets of sockets bound to this device.
          table: Where to look.
          priority: Lower first; by default just before the family's second rule.
          family: AF_INET or AF_INET6, where no prefix tells it; IPv4 by default.
          protocol: RTPROT_*.
        """
        rule = rule_message(
            source=source,
            destination=destination,
            mark=mark,
            mask=mask,
            iif=iif,
            oif=oif,
            table=table,
            priority=priority,
            family=family,
            protocol=protocol,
        )
        return self._network.add_rule(rule)

    def delete_rule(self, rule: RuleMessage) -> None:
        """Remove a rule. Raises FileNotFoundError if it is not there."""
        self._network.delete_rule(rule)

    def rules(self, family: int = AF_INET) -> Sequence[RuleMessage]:
        """The rules of a family, the default ones among them, in the order in which they are tried."""
        return [rule for rule in self._network.rules if rule.family == family]

    # ---- what can go wrong on the netlink socket --------------------------------------------

    def overflow(self) -> None:
        """Let every netlink socket lose notifications: ENOBUFS once, and the later ones too, until it was drained."""
        for sock in self._sockets:
            sock.overflow()

    def send_raw(self, data: bytes, *, sender: int = 0, truncated: bool = False) -> None:
        """Put a datagram into every netlink socket's queue, as it is.

        Args:
          data: Any bytes.
          sender: The sender's port id: other than 0, it is not the kernel that speaks.
          truncated: Tell the reader that its buffer was too small.
        """
        for sock in self._sockets:
            sock.deliver(Datagram(data, sender, truncated))

    async def settle(self) -> None:
        """Return once all that was announced has been applied and judged. No time passes. A checkpoint.

        Deadlines are not waited for: a suspect connection is still suspect.
        """
        await trio.testing.wait_all_tasks_blocked()
        while any(sock.pending for sock in self._sockets):
            before = [sock.queued for sock in self._sockets]
            await trio.testing.wait_all_tasks_blocked()
            if [sock.queued for sock in self._sockets] == before:
                return  # nobody reads: a resync that waits for its next try, or a test with a socket of its own

    def _announce(self, group: int, kind: MessageType, flags: int, payload: bytes) -> None:
        message = build_message(kind, flags, 0, payload)
        for sock in self._sockets:
            sock.notify(group, message)

    # ---- peers -----------------------------------------------------------------------------

    def listen(self, address: str | IPAddress, port: int, handler: Handler, *, name: str | None = None) -> None:
        """Be a server: whoever connects to (address, port) talks to a `handler` of its own.

        Handlers run in the nursery of `async with FakeKernel()`. The stream is closed when its handler ends. One that
        ends with `trio.BrokenResourceError` ends quietly, because its client went; other errors end the test.

        Args:
          address: A host out there, or an address of this kernel's own.
          port: Its port.
          handler: Async, called with the server's end.
          name: A name that `resolve` gives this address for; a name may have several.
        """
        where = as_address(address)
        self._handlers[where, port] = handler
        self._silent.discard(where)
        if name is not None:
            self.add_name(name, where)

    def stop_listening(self, address: str | IPAddress, port: int) -> None:
        """Refuse connections from now on; those that are there go on."""
        del self._handlers[as_address(address), port]

    def silence(self, address: str | IPAddress) -> None:
        """Leave connection attempts to an address unanswered: they end after 127 s, with TimeoutError."""
        self._silent.add(as_address(address))

    def add_name(self, name: str, *addresses: str | IPAddress) -> None:
        """Let `resolve` know addresses of a name, after those it knows."""
        known = self._names.setdefault(name, [])
        known.extend(each for each in map(as_address, addresses) if each not in known)

    async def _serve(self, handler: Handler, stream: FakeStream) -> None:  # noqa: ASYNC910 -- a task, awaited by nobody
        try:
            await handler(stream)
        except* trio.BrokenResourceError:
            pass
        finally:
            stream.close()  # without a checkpoint, where Cancelled would take the place of a handler's error

    # ---- the Kernel protocol ---------------------------------------------------------------

    def open_netlink(self) -> FakeNetlinkSocket:
        """Open a netlink socket."""
        if self._netlink_error is not None:
            raise refuse(self._netlink_error, "this fake kernel has no netlink")
        sock = FakeNetlinkSocket(self._network, self._sockets.remove)
        self._sockets.append(sock)
        return sock

    async def resolve(self, host: str, port: int) -> list[IPAddress]:
        """Look a name up. A checkpoint. Raises socket.gaierror for a name that `add_name` and `listen` did not give."""
        await trio.lowlevel.checkpoint()
        with contextlib.suppress(ValueError):
            return [ip_address(host)]
        if host not in self._names:
            raise socket.gaierror(socket.EAI_NONAME, f"Name or service not known: {host}")
        return list(self._names[host])

    async def connect_tcp(
        self,
        address: IPAddress,
        port: int,
        *,
        local_address: IPAddress | None = None,
        device: str | None = None,
        mark: int = 0,
    ) -> FakeStream:
        """Connect to a `listen` handler; see `Kernel.connect_tcp`. A checkpoint.

        Raises:
          ConnectionRefusedError: Nobody listens there.
          TimeoutError: Nobody answered for 127 s: a silenced address, or a link without carrier.
          OSError: ENETUNREACH and its like, as the tables say; EADDRNOTAVAIL for a `local_address` that no link has.
        """
        await trio.lowlevel.checkpoint()
        if device is None and isinstance(address, IPv6Address):
            device = address.scope_id
        peer = as_address(address)
        link = find_link(self._network, device)
        source = None if local_address is None or local_address.is_unspecified else local_address
        if source is not None and not self._network.has_address(source):
            raise refuse(errno.EADDRNOTAVAIL, str(source))
        bound_to = 0 if link is None else link.ifindex
        way = find_way(self._network, Packet(peer, source, bound_to, mark))
        if peer in self._silent or not self._network.links[way.ifindex].carrier:
            await trio.sleep(SYN_TIMEOUT)
            raise TimeoutError(errno.ETIMEDOUT, f"{peer} did not answer")
        handler = self._handlers.get((peer, port))
        if handler is None:
            raise ConnectionRefusedError(errno.ECONNREFUSED, f"nobody listens on {peer} port {port}")
        if self._nursery is None:
            raise RuntimeError("handlers need a nursery to run in: use `async with FakeKernel() as kernel`")
        local_port = next(self._ports)
        client, server = fake_connection(
            Flow(
                peer=peer, peer_port=port, local=way.source, local_port=local_port, device=bound_to or None, mark=mark
            ),
            Flow(peer=way.source, peer_port=local_port, local=peer, local_port=port),
            lambda: self.probe_answer,
        )
        self._nursery.start_soon(self._serve, handler, server, name=f"{peer} port {port}")
        return client

    async def listen_tcp(
        self, port: int, *, host: str | None = None, backlog: int | None = None, share_port: bool = False
    ) -> NoReturn:
        """Not played: a listener is a real socket. Raises OSError (EOPNOTSUPP). A checkpoint."""
        await trio.lowlevel.checkpoint()
        raise refuse(errno.EOPNOTSUPP, "a FakeKernel has no listening sockets; test servers in the namespace lab")
