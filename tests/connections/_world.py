"""A pt's ground without a pt: tables that the test writes, connections in memory or on loopback.

The world has one link, `uplink`, with 10.0.0.2/24 and fd00::2/64 and default routes over it;
what the test changes is applied and judged as the follow task would have it done.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Awaitable, Callable
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TypeAlias

import trio
import trustme

from trio_routes._broadcast import Pulse
from trio_routes._events import Event
from trio_routes.connections._bindings import Bindings
from trio_routes.connections._connection import Connection, Loss
from trio_routes.connections._flow import Flow
from trio_routes.connections._ground import Ground
from trio_routes.connections._policy import Policy
from trio_routes.connections._reassess import Reassessor
from trio_routes.connections._registry import Registry
from trio_routes.connections._verdict import Standing, Verdict
from trio_routes.netlink import (
    AF_INET,
    AF_INET6,
    RT_SCOPE_HOST,
    RTN_LOCAL,
    AddressMessage,
    IPAddress,
    Kernel,
    LinkMessage,
    NetlinkSocket,
    NextHop,
    RouteBody,
    RuleMessage,
)
from trio_routes.routing import Cache
from trio_routes.testing._fake_stream import FakeStream, fake_connection

UPLINK = 2
GATEWAY: dict[int, IPAddress] = {AF_INET: IPv4Address("10.0.0.1"), AF_INET6: IPv6Address("fd00::1")}
LOCAL = IPv4Address("10.0.0.2")
PEER = IPv4Address("198.51.100.7")
OTHER_PEER = IPv4Address("203.0.113.9")
V6_PEER = IPv6Address("2001:db8:7::7")

UP = 0x1 | 0x40 | 0x10000  # IFF_UP, IFF_RUNNING, IFF_LOWER_UP

Answer: TypeAlias = Callable[[FakeStream], Awaitable[None]]
"""What a listener does with its end of a connection; it is awaited while the client still connects."""


def flow_to(peer: IPAddress = PEER, port: int = 5432) -> Flow:
    return Flow(peer=peer, peer_port=port, local=LOCAL, local_port=40000)


class World:
    """The ground, and the means to shake it.

    Attributes:
      events: Everything that was published.
      monitoring: What the pt would say.
    """

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.monitoring = True
        self.cache = Cache()
        self.pulse = Pulse()
        self.kernel = MemoryKernel()
        self._set_up()
        self.registry = Registry(
            self.cache,
            policy=Policy(),
            publish=self.events.append,
            monitoring=lambda: self.monitoring,
            netns_cookie=None,
        )
        self.bindings = Bindings(self.cache, self.events.append)
        self.reassessor = Reassessor(self.registry, self.cache, apply_pending=lambda: None)
        self.ground = self.ground_on(self.kernel)

    def _set_up(self) -> None:
        for family in (AF_INET, AF_INET6):
            for priority, table in ((0, 255), (32766, 254)):
                self.cache.apply_rule(RuleMessage(family=family, priority=priority, table=table), gone=False)
        self.set_carrier(True)
        for address, length in ((LOCAL, 24), (IPv6Address("fd00::2"), 64)):
            family = AF_INET if address.version == 4 else AF_INET6
            self.cache.apply_address(AddressMessage(family, UPLINK, address, length), gone=False)
            whole = 32 if family == AF_INET else 128
            hop = (NextHop(UPLINK),)
            body = RouteBody(family, 255, whole, type=RTN_LOCAL, scope=RT_SCOPE_HOST, nexthops=hop)
            self.cache.add_route(int(address), body, 0)
            network = int(address) >> (whole - length) << (whole - length)
            self.cache.add_route(network, RouteBody(family, 254, length, nexthops=hop), 0)
            self.cache.add_route(0, self.default(family), 0)
        self.cache.take_changes()

    def default(self, family: int) -> RouteBody:
        return RouteBody(family, 254, 0, nexthops=(NextHop(UPLINK, GATEWAY[family]),))

    def apply(self) -> None:
        """Have what was changed noticed, as after a batch of notifications."""
        batch = self.cache.take_changes()
        self.reassessor.touch(batch)
        self.reassessor.take_turn()
        self.bindings.touch()
        self.pulse.beat(batch.generation)

    def remove_default(self, *families: int) -> None:
        for family in families or (AF_INET, AF_INET6):
            self.cache.remove_route(0, self.default(family))
        self.apply()

    def add_default(self, *families: int) -> None:
        for family in families or (AF_INET, AF_INET6):
            self.cache.add_route(0, self.default(family), 0)
        self.apply()

    def set_carrier(self, there: bool) -> None:
        flags = UP if there else 0x1
        self.cache.apply_link(LinkMessage(UPLINK, "uplink", flags), gone=False)

    def ground_on(self, kernel: Kernel) -> Ground:
        """The same ground, on another kernel."""
        return Ground(kernel, self.cache, self.registry, self.pulse, lambda: self.monitoring, self.bindings)

    def lose(self, connection: Connection) -> Loss:
        """Have a connection lost here and now, as if the judge had said so."""
        self.registry.lose(connection, Verdict.NO_ROUTE, "said the test")
        assert connection.record.loss is not None
        return connection.record.loss

    def stream(self, peer: IPAddress = PEER) -> tuple[FakeStream, FakeStream]:
        """A connection in memory, both ends."""
        ours = flow_to(peer)
        theirs = Flow(peer=LOCAL, peer_port=40000, local=peer, local_port=5432)
        return fake_connection(ours, theirs)


class MemoryKernel:
    """Names and connections in memory.

    Attributes:
      names: What names resolve to; an error is raised instead. Each look-up takes the first of several answers.
      listeners: By address, what becomes of a connection: served, refused (an OSError), or silence (None).
      attempts: (time, address, port, device, mark) of each connect.
      resolved: Every name that was looked up.
    """

    def __init__(self) -> None:
        self.names: dict[str, list[IPAddress] | OSError] = {}
        self.listeners: dict[IPAddress, Answer | OSError | None] = {}
        self.attempts: list[tuple[float, IPAddress]] = []
        self.egress: list[tuple[IPAddress | None, str | None, int]] = []
        self.resolved: list[str] = []
        self.on_connect: Callable[[], None] = lambda: None

    def open_netlink(self) -> NetlinkSocket:
        raise OSError("there is no netlink in memory")

    async def resolve(self, host: str, port: int) -> list[IPAddress]:
        self.resolved.append(host)
        await trio.lowlevel.checkpoint()
        answer = self.names.get(host, socket.gaierror(socket.EAI_NONAME, "Name or service not known"))
        if isinstance(answer, OSError):
            raise answer
        return list(answer)

    async def connect_tcp(
        self,
        address: IPAddress,
        port: int,
        *,
        local_address: IPAddress | None = None,
        device: str | None = None,
        mark: int = 0,
    ) -> trio.abc.HalfCloseableStream:
        self.attempts.append((trio.current_time(), address))
        self.egress.append((local_address, device, mark))
        await trio.lowlevel.checkpoint()
        answer = self.listeners.get(address, ConnectionRefusedError(111, "Connection refused"))
        if isinstance(answer, OSError):
            raise answer
        if answer is None:
            await trio.sleep_forever()
            raise AssertionError
        local = LOCAL if address.version == 4 else ip_address("fd00::2")
        ours = Flow(peer=address, peer_port=port, local=local, local_port=40000)
        client, server = fake_connection(ours, Flow(peer=local, peer_port=40000, local=address, local_port=port))
        try:
            await answer(server)
        except BaseException:  # cancelled while connecting
            client.close()
            raise
        self.on_connect()
        return client

    async def listen_tcp(
        self, port: int, *, host: str | None = None, backlog: int | None = None, share_port: bool = False
    ) -> list[trio.SocketListener]:
        return await trio.open_tcp_listeners(port, host=host, backlog=backlog)


async def accepts(stream: FakeStream) -> None:
    """A listener that lets the connection come about and says nothing."""
    await trio.lowlevel.checkpoint()


def certify(authority: trustme.CA, name: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """TLS contexts for a client that trusts the authority, and for a server of that name."""
    ours, theirs = ssl.create_default_context(), ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.configure_trust(ours)  # pyright: ignore[reportUnknownMemberType] -- trustme speaks of pyOpenSSL's, too
    authority.issue_cert(name).configure_cert(theirs)  # pyright: ignore[reportUnknownMemberType] -- likewise
    return ours, theirs


def standing_of(connection: Connection) -> Standing:
    """How it stands now; a call, because to a type checker an attribute stays what it was."""
    return connection.standing


async def loopback_pair() -> tuple[trio.SocketStream, trio.SocketStream]:
    """A real TCP connection on loopback: the client's end, the server's."""
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        client = await trio.open_tcp_stream("127.0.0.1", listener.socket.getsockname()[1])
        return client, await listener.accept()
