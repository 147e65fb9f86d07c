"""Where a row is played: a device with two uplinks, its pt, and the row's connections, each with a twin nobody guards.

    .---------- device ----------.
    | wlan0 10.0.1.2  ---- wifi  .1 [wifi router] ---.
    |                            .254 [spare router] |--- core --- [server] 198.51.100.7
    | wwan0 10.0.2.2  ---- lte   .1 [lte router]  ---'
    | eth0  192.168.7.2 -- wired .9 [neighbour]      |
    '----------------------------'

All routers and the server know the way back to both of the device's networks, with NAT and without: so resets find back
through a foreign NAT, and the server can open connections to the device. The neighbour is the controls' peer.
"""

from __future__ import annotations

import socket
from collections.abc import AsyncGenerator, Callable
from contextlib import ExitStack, asynccontextmanager
from ipaddress import ip_address
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal, TypeAlias

import attrs
import trio

from tests._uplinks import Family, Uplinks
from tests.lab.waiting import until
from trio_routes import GuardedStream, Policy, Pt, RouteAdded, Standing, Verdict, open_pt
from trio_routes.testing import Host, Lab, TwoUplinks

Side: TypeAlias = Literal["client", "server"]
Configure: TypeAlias = Callable[[trio.socket.SocketType], None]
Life: TypeAlias = Literal["alive", "reset", "silent"]

SOON = 10.0  # bounds what takes milliseconds, for a machine that is busy otherwise
DEAD_SECONDS = 2.5
"""A connection over which a byte does not arrive by then is dead."""

LENGTH = {4: 24, 6: 64}
HOST_LENGTH = {4: 32, 6: 128}
LOOPBACK = {4: "127.0.0.1", 6: "::1"}
SERVICE = {4: "192.0.2.1", 6: "2001:db8:5::1"}
SERVICE_PREFIX = {4: "192.0.2.0/24", 6: "2001:db8:5::/64"}

_MARKERS = 4242  # a table that no rule leads to


class MachineBusyError(Exception):
    """What takes a moment took so long that the row shows nothing; the runner plays it again."""


@attrs.define(eq=False)
class Seen:
    """What the pt thought of a connection, each time that it changed its mind.

    Attributes:
      verdicts: While the connection was SUSPECT, in order. The first is an event's, those that follow it are none.
    """

    verdicts: list[Verdict] = attrs.field(factory=list[Verdict])

    def take(self, verdict: Verdict) -> None:
        """Take in a verdict that makes suspect."""
        if verdict not in self.verdicts[-1:]:
            self.verdicts.append(verdict)


@attrs.define(eq=False)
class Ends:
    """Both ends of a TCP connection.

    Attributes:
      near: The device's.
      far: The peer's; nobody's but the test's.
    """

    near: GuardedStream | trio.SocketStream
    far: trio.SocketStream

    async def exchange(self, seconds: float) -> Life:
        """Send a byte each way, at once, and say what became of them within so many seconds."""
        outcome: Life = "silent"

        async def there(sender: trio.abc.Stream, receiver: trio.abc.Stream, byte: bytes) -> None:
            await sender.send_all(byte)
            data: bytes | bytearray = b""
            while byte not in data:  # what the row itself sent comes first
                data = await receiver.receive_some()
                if not data:
                    raise trio.BrokenResourceError("ended")

        with trio.move_on_after(seconds):
            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(there, self.near, self.far, b">")
                    nursery.start_soon(there, self.far, self.near, b"<")
                outcome = "alive"
            except* (trio.BrokenResourceError, OSError):
                outcome = "reset"
        return outcome

    async def aclose(self) -> None:
        """Close both."""
        await trio.aclose_forcefully(self.near)
        await trio.aclose_forcefully(self.far)


@attrs.define(eq=False)
class Guarded:
    """A connection of the row.

    Attributes:
      ends: Guarded by the pt.
      near: Its near end.
      twin: Opened in the same way, guarded by nobody: what the kernel makes of it.
      seen: What the pt thought of it.
    """

    ends: Ends
    near: GuardedStream
    twin: Ends
    seen: Seen = attrs.field(factory=Seen)


@attrs.define(eq=False)
class Stage(Uplinks):
    """The hosts of one row, and its connections.

    Attributes:
      net: The hosts.
      pt: Of the device.
      family: 4 or 6.
      sides: Which connections are wanted.
      scratch: A folder for the files of the row's programs.
      guarded: The connections.
      controls: Connections that nothing may touch.
      since: When the change that counts was about to happen.
      patience: Seconds within which a byte each way must arrive over a living connection.
    """

    lab: Lab
    net: TwoUplinks
    pt: Pt
    family: Family
    sides: tuple[Side, ...]
    nursery: trio.Nursery
    scratch: Path
    guarded: dict[Side, Guarded] = attrs.field(factory=dict[Side, Guarded])
    controls: list[Ends] = attrs.field(factory=list[Ends])
    since: float = 0.0
    patience: float = SOON
    _twins: list[Ends] = attrs.field(factory=list[Ends])
    _chattering: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    _markers: int = 0

    # ---- who is where -----------------------------------------------------------------------

    @property
    def wlan0(self) -> str:
        """The device's address on the Wi-Fi."""
        return self.net.wlan0_addresses[self.family]

    @property
    def wwan0(self) -> str:
        return self.net.wwan0_addresses[self.family]

    @property
    def service(self) -> str:
        """An address that is on no link until the row puts it there; the routers know it is behind this device."""
        return SERVICE[self.family]

    @property
    def length(self) -> int:
        """Of the networks' prefixes."""
        return LENGTH[self.family]

    @property
    def host_length(self) -> int:
        """Of a prefix of one address."""
        return HOST_LENGTH[self.family]

    def beside(self, address: str, offset: int) -> str:
        """Another address of the same network."""
        return str(ip_address(address) + offset)

    # ---- what rows do -----------------------------------------------------------------------

    async def ip(self, *words: str, host: Host | None = None) -> None:
        """Have iproute2 do it, of this family."""
        await (host or self.device).run(["ip", f"-{self.family}", *words])

    def now(self) -> None:
        """Say that the change that counts is about to happen."""
        self.since = trio.current_time()

    def busy_after(self, seconds: float) -> None:
        """Give up if more has passed since the change: programs were to undo it much faster."""
        took = trio.current_time() - self.since
        if took > seconds:
            raise MachineBusyError(f"undoing it took {took:.2f} s")

    def move_to_lte(self) -> None:
        """A better default route, by the other uplink."""
        self.device.add_route("default", via=self.lte, metric=50)

    def move_back(self) -> None:
        self.device.delete_route("default", via=self.lte, metric=50)

    def refuse_at_lte(self) -> None:
        """Have the router there check sources, as with a strict rp_filter, or BCP 38: the stage's tunnel, too."""
        router = self.net.lte_router
        router.refuse_foreign_sources(router.links["lan0"])

    def know_the_service(self) -> None:
        """Have the others know the way to the service's prefix: through the Wi-Fi, and from the LTE router itself."""
        prefix = SERVICE_PREFIX[self.family]
        core = {4: "198.51.100.1", 6: "2001:db8:f::1"}[self.family]
        self.net.wifi_router.add_route(prefix, via=self.wlan0)
        self.net.lte_router.add_route(prefix, via=self.wwan0)
        self.net.server.add_route(prefix, via=core)

    async def suspect(self) -> None:
        """Wait until all connections are SUSPECT."""
        connections = [pair.near.connection for pair in self.guarded.values()]
        await until(lambda: all(connection.standing is Standing.SUSPECT for connection in connections), seconds=SOON)

    async def applied(self) -> None:
        """Wait until the pt has applied all that the kernel has said so far."""
        self._markers += 1
        route = ip_address("203.0.113.0") + self._markers
        with trio.fail_after(SOON), self.pt.subscribe(RouteAdded, buffer=100_000) as events:
            self.device.add_route(str(route), type="blackhole", table=_MARKERS)
            async for event in events:
                if isinstance(event, RouteAdded) and event.route.destination.network_address == route:
                    return

    def chatter(self) -> None:
        """Have the near ends send a byte each 50 ms from now on."""

        async def send(stream: trio.abc.Stream) -> None:
            try:
                while True:
                    await stream.send_all(b".")
                    await trio.sleep(0.05)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                pass  # the row's own checks say whether it should have been lost

        async def send_all() -> None:
            with self._chattering:
                async with trio.open_nursery() as nursery:
                    for pair in self.guarded.values():
                        nursery.start_soon(send, pair.near.inner)

        self.nursery.start_soon(send_all)

    def quiet(self) -> None:
        """No more of that."""
        self._chattering.cancel()

    # ---- connecting -------------------------------------------------------------------------

    async def connect(
        self,
        *,
        peer: str | None = None,
        host: Host | None = None,
        local: str | None = None,
        configure: Configure | None = None,
        scopes: tuple[int, int] = (0, 0),
        mapped: bool = False,
        protocol: int = 0,
        policy: Policy | None = None,
        guard_after: Callable[[], None] | None = None,
    ) -> None:
        """Open the row's connections, their twins, and the controls.

        Args:
          peer: The far end's address; the server's.
          host: The far end's host; the server.
          local: The near end's address; that on the Wi-Fi.
          configure: Called with each socket of the near end before it is bound.
          scopes: The link indexes of the near and of the far end's link-local address.
          mapped: Whether the near sockets are of IPv6 with IPv4-mapped addresses.
          protocol: Of the sockets; MPTCP falls back to TCP where only one side speaks it.
          policy: For these connections.
          guard_after: Called when the connections are there, and before they are guarded.
        """
        opener = _Opener(self, host or self.net.server, peer or self.server, local or self.wlan0, scopes)
        opener.configure, opener.mapped, opener.protocol = configure, mapped, protocol
        await self.applied()  # what the row has prepared is nothing that happens to its connections
        bare: dict[Side, tuple[trio.SocketStream, trio.SocketStream]] = {}
        for side in self.sides:
            self._twins.append(Ends(*await opener.open(side)))
            bare[side] = await opener.open(side)
        await self._add_controls()
        if guard_after is not None:
            guard_after()
            await self.applied()
        for side, (near, far) in bare.items():
            guarded = self.pt.guard_stream(near, policy=policy)
            self.guarded[side] = Guarded(Ends(guarded, far), guarded, self._twins[len(self.guarded)])
        self.now()

    async def _add_controls(self) -> None:
        peers = ((self.net.neighbour_addresses[self.family], self.net.neighbour), (LOOPBACK[self.family], self.device))
        for address, host in peers:
            (listener,) = host.listen(0, address)
            async with listener:
                port: int = listener.socket.getsockname()[1]
                with trio.fail_after(SOON):
                    self.controls.append(Ends(await self.pt.open_tcp_stream(address, port), await listener.accept()))

    async def watch(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Note what the pt thinks of the row's connections, until cancelled."""
        task_status.started()
        while True:
            for pair in self.guarded.values():
                if pair.near.connection.standing is Standing.SUSPECT:
                    pair.seen.take(pair.near.connection.verdict)
            await trio.sleep(0.02)

    async def aclose(self) -> None:
        """Close all connections."""
        for ends in (*(pair.ends for pair in self.guarded.values()), *self._twins, *self.controls):
            await ends.aclose()


@attrs.define(eq=False)
class _Opener:
    """Opens connections between the device and one peer, from either side."""

    stage: Stage
    host: Host
    peer: str
    local: str
    scopes: tuple[int, int]
    configure: Configure | None = None
    mapped: bool = False
    protocol: int = 0

    async def open(self, side: Side) -> tuple[trio.SocketStream, trio.SocketStream]:
        """The near and the far end of a new connection."""
        near, far = self._near_socket(), self.host.socket(self._family(near=False), socket.SOCK_STREAM, self.protocol)
        listening, connecting = (far, near) if side == "client" else (near, far)
        with trio.fail_after(SOON), listening, ExitStack() as on_failure:
            on_failure.callback(connecting.close)
            await near.bind(self._near(self.local, 0, self.scopes[0]))
            listening.listen()
            port: int = listening.getsockname()[1]
            if side == "client":
                await connecting.connect(self._near(self.peer, port, self.scopes[0]))
            else:
                await connecting.bind(self._far(self.peer, 0, self.scopes[1]))
                await connecting.connect(self._far(self.local, port, self.scopes[1]))
            accepted, _ = await listening.accept()
            on_failure.pop_all()
            ends = trio.SocketStream(accepted), trio.SocketStream(connecting)
            return (ends[1], ends[0]) if side == "client" else ends

    def _near_socket(self) -> trio.socket.SocketType:
        made = self.stage.device.socket(self._family(near=True), socket.SOCK_STREAM, self.protocol)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if self.mapped:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        if self.configure is not None:
            self.configure(made)
        return made

    def _family(self, *, near: bool) -> int:
        return socket.AF_INET6 if self.stage.family == 6 or (near and self.mapped) else socket.AF_INET

    def _near(self, address: str, port: int, scope: int) -> tuple[str, int] | tuple[str, int, int, int]:
        if self.mapped:
            return f"::ffff:{address}", port, 0, 0
        return self._far(address, port, scope)

    def _far(self, address: str, port: int, scope: int) -> tuple[str, int] | tuple[str, int, int, int]:
        return (address, port) if self.stage.family == 4 else (address, port, 0, scope)


@asynccontextmanager
async def open_stage(
    lab: Lab,
    family: Family,
    sides: tuple[Side, ...],
    *,
    nat: bool,
    spare_gateway: bool,
    lte_metric: int | None,
) -> AsyncGenerator[Stage]:
    """Build the hosts and open a pt in the device, under the default policy."""
    net = lab.two_uplinks(nat=nat, spare_gateway=spare_gateway, lte_metric=lte_metric)
    if nat:
        _add_routes_back(net)
    with TemporaryDirectory(prefix="verdicts-", ignore_cleanup_errors=True) as scratch:
        async with open_pt(netns=net.device.netns) as pt, trio.open_nursery() as nursery:
            stage = Stage(lab, net, pt, family, sides, nursery, Path(scratch))
            try:
                await nursery.start(stage.watch)
                yield stage
            finally:
                nursery.cancel_scope.cancel()
                with trio.CancelScope(shield=True):  # closing one is a checkpoint, and there are more
                    await stage.aclose()


def _add_routes_back(net: TwoUplinks) -> None:
    behind_lte = [host for host in (net.server, net.wifi_router, net.spare_router) if host is not None]
    wifi, lte = ("10.0.1.0/24", "2001:db8:1::/64"), ("10.0.2.0/24", "2001:db8:2::/64")
    for which, (core1, core2) in enumerate((("198.51.100.1", "198.51.100.2"), ("2001:db8:f::1", "2001:db8:f::2"))):
        for host in (net.server, net.lte_router):
            host.add_route(wifi[which], via=core1)
        for host in behind_lte:
            host.add_route(lte[which], via=core2)
