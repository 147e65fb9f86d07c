"""The world of the tests on the real kernel: a device with two uplinks, its pt, its connections and their far ends.

It is `Lab.two_uplinks()` with one thing more: the server has a second address that the device reaches over LTE, so
that a connection over the other uplink is at hand as a control in every test.

    FAR        server, by a route of its own over wwan0: what happens to the Wi-Fi is none of its business
    PUBLIC     server, by the default route: an address that is global (those for documentation are not)
"""

from __future__ import annotations

import itertools
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from ipaddress import ip_address
from typing import Self, TypedDict, TypeVar, Unpack

import attrs
import pytest
import trio

from tests._uplinks import Family, Uplinks
from trio_routes import (
    ConnectionLost,
    Event,
    GuardedStream,
    Policy,
    PortalConfig,
    Pt,
    RouteAdded,
    RouteLostError,
    Standing,
    open_pt,
)
from trio_routes.testing import Host, Lab, TwoUplinks

FAR = {4: "203.0.113.7", 6: "2001:db8:e::7"}
_FAR_PREFIX = {4: "203.0.113.0/24", 6: "2001:db8:e::/64"}
_FAR_ROUTER = {4: "203.0.113.2", 6: "2001:db8:e::2"}
_FAR_LENGTH = {4: 24, 6: 64}
PUBLIC = {4: "9.9.9.9", 6: "2620:fe::9"}
LOOPBACK = {4: "127.0.0.1", 6: "::1"}
HOST_LENGTH = {4: 32, 6: 128}

# Every bound on what must happen at once. It takes milliseconds; the rest is for a machine that is busy otherwise.
SOON = 5.0

_MARKERS = 4242  # a table that no rule leads to
_E = TypeVar("_E", bound=Event)


class ConnectOptions(TypedDict, total=False):
    """What `World.connect` hands on to `Pt.open_tcp_stream`."""

    local_address: str | None
    device: str | None
    mark: int | None
    policy: Policy | None


@attrs.define(eq=False)
class Pair:
    """Both ends of a TCP connection: the near one guarded by the pt, the far one nobody's but the test's."""

    near: GuardedStream
    far: trio.SocketStream

    async def exchange(self) -> None:
        """Send a byte each way. Raises TooSlowError where one does not arrive."""
        with trio.fail_after(SOON):
            await self.near.send_all(b">")
            assert await self.far.receive_some(1) == b">"
            await self.far.send_all(b"<")
            assert await self.near.receive_some(1) == b"<"

    async def lost(self, *, within: float = SOON) -> RouteLostError:
        """Wait in a receive until it tells of the loss, and return what it raised."""
        with trio.fail_after(within), pytest.raises(RouteLostError) as caught:
            await self.near.receive_some()
        assert caught.value.connection is self.near.connection
        assert self.standing is Standing.LOST
        return caught.value

    @property
    def standing(self) -> Standing:
        """How it stands with what the pt has heard so far."""
        return self.near.connection.standing

    async def aclose(self) -> None:
        """Close both ends."""
        await trio.aclose_forcefully(self.near)
        await trio.aclose_forcefully(self.far)


@attrs.define(eq=False)
class World(Uplinks):
    """A scene with an open pt in its device.

    Attributes:
      healthy: Connections that nothing in the test may touch.
    """

    lab: Lab
    net: TwoUplinks
    pt: Pt
    family: Family
    healthy: list[Pair] = attrs.field(factory=list[Pair])
    _pairs: list[Pair] = attrs.field(factory=list[Pair])
    _marker: itertools.count[int] = attrs.field(factory=lambda: itertools.count(1))

    @property
    def zeros(self) -> str:
        """The family's "default", where nothing else says which family."""
        return {4: "0.0.0.0/0", 6: "::/0"}[self.family]

    async def connect(
        self,
        address: str | None = None,
        host: Host | None = None,
        *,
        pt: Pt | None = None,
        **options: Unpack[ConnectOptions],
    ) -> Pair:
        """Connect to an address (the server's) of a host (the server), by the pt."""
        address = address or self.server
        (listener,) = (host or self.net.server).listen(0, address)
        async with listener:
            with trio.fail_after(SOON):
                port: int = listener.socket.getsockname()[1]
                near = await (pt or self.pt).open_tcp_stream(address, port, **options)
                pair = Pair(near, await listener.accept())
        self._pairs.append(pair)
        return pair

    async def add_healthy(self, *, far: bool = True) -> None:
        """Open the controls: an on-link neighbour, loopback, and (`far`) a server over the other uplink."""
        self.healthy.append(await self.connect(self.net.neighbour_addresses[self.family], self.net.neighbour))
        self.healthy.append(await self.connect(LOOPBACK[self.family], self.device))
        if far:
            self.healthy.append(await self.connect(FAR[self.family]))

    async def applied(self) -> None:
        """Return once the pt has applied everything that the kernel has said so far.

        A route that matters to nobody is added, and its notification waited for: one socket, one order.
        """
        route = ip_address("192.0.2.0") + next(self._marker)
        with trio.fail_after(SOON), self.pt.subscribe(RouteAdded, buffer=100_000) as events:
            self.device.add_route(str(route), type="blackhole", table=_MARKERS)
            async for event in events:
                if isinstance(event, RouteAdded) and event.route.destination.network_address == route:
                    return

    async def the_healthy_live(self, *others: Pair, lost: int) -> None:
        """Check that the controls, and `others`, are good and carry a byte each way; `lost` is how many are not.

        Judged only after everything was applied: a wrong verdict must have had its chance.
        """
        await self.applied()
        assert self.healthy
        for pair in (*self.healthy, *others):
            assert pair.standing is Standing.GOOD, pair.near.connection
            await pair.exchange()
        assert self.pt.statistics().lost == lost

    async def aclose(self) -> None:
        """Close all connections."""
        for pair in self._pairs:
            await pair.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


@asynccontextmanager
async def scene(
    lab: Lab, family: int, *, nat: bool = True, lte_metric: int | None = None, spare_gateway: bool = False
) -> AsyncGenerator[TwoUplinks]:
    """Build the hosts, without a pt."""
    net = lab.two_uplinks(nat=nat, lte_metric=lte_metric, spare_gateway=spare_gateway)
    eth0 = net.server.links["eth0"]
    eth0.add_address(f"{FAR[family]}/{_FAR_LENGTH[family]}")
    net.lte_router.links["core0"].add_address(f"{_FAR_ROUTER[family]}/{_FAR_LENGTH[family]}")
    net.device.add_route(_FAR_PREFIX[family], via=net.lte_gateways[family])
    eth0.add_address(f"{PUBLIC[family]}/{HOST_LENGTH[family]}")
    for router in (net.wifi_router, net.lte_router, net.spare_router):
        if router is not None:
            router.add_route(PUBLIC[family], via=net.server_addresses[family])
    yield net


@asynccontextmanager
async def open_world(
    lab: Lab,
    family: int,
    policy: Policy | None = None,
    *,
    nat: bool = True,
    lte_metric: int | None = None,
    spare_gateway: bool = False,
    portal: PortalConfig | None = None,
    prepare: Callable[[TwoUplinks], object] | None = None,
) -> AsyncGenerator[World]:
    """Build the hosts and open a pt in the device; `policy` is `Policy.immediate()` unless given.

    `prepare` changes the hosts before the pt opens.
    """
    async with scene(lab, family, nat=nat, lte_metric=lte_metric, spare_gateway=spare_gateway) as net:
        if prepare is not None:
            prepare(net)
        async with (
            open_pt(netns=net.device.netns, policy=policy or Policy.immediate(), portal=portal) as pt,
            World(lab, net, pt, 6 if family == 6 else 4) as world,
        ):
            yield world


async def next_of(
    events: trio.abc.ReceiveChannel[Event], kind: type[_E], wanted: Callable[[_E], bool] | None = None
) -> _E:
    """Receive events until there is one of a kind that is wanted."""
    with trio.fail_after(SOON):
        async for event in events:
            if isinstance(event, kind) and (wanted is None or wanted(event)):
                return event
    raise AssertionError("the pt closed")


async def no_more(events: trio.abc.ReceiveChannel[Event]) -> None:
    """Check that nothing is left to receive: what has been published is there at once, and cancels no receive.

    With a deadline that is over already, `receive` would see nothing whatever there is: it is a cancellation point.
    """
    with trio.move_on_after(0.05):
        raise AssertionError(await events.receive())


async def losses(events: trio.abc.ReceiveChannel[Event], count: int) -> list[ConnectionLost]:
    """Receive a number of losses."""
    return [await next_of(events, ConnectionLost) for _ in range(count)]
