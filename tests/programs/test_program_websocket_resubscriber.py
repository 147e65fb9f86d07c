"""WebSocket subscribers as a user would write them, in the lab, through a loss and a return, by either library."""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeAlias

import attrs
import pytest
import trio
from websockets.trio.client import connect

from tests.integrations._http import certify
from tests.integrations._websocket import NumberServer
from trio_routes import ConnectionLost, GuardedStream, Policy, Pt, open_pt
from trio_routes.integrations.trio_websocket import open_websocket_url
from trio_routes.testing import Lab

ADDRESS = "198.51.100.7"
CLIENT_TLS, SERVER_TLS = certify(ADDRESS)

# Seconds for all of it, most of them for a machine that is busy otherwise.
BOUND = 20


@attrs.define
class Subscriber:
    """The program: it wants each message once, in order, and says to each new connection where it stands.

    Attributes:
      wanted: How many messages.
      enough: Set once it has some.
    """

    pt: Pt
    uri: str
    tls: ssl.SSLContext | None
    wanted: int
    seen: list[str] = attrs.field(factory=list[str])
    enough: trio.Event = attrs.field(factory=trio.Event)

    async def by_websockets(self, stream: GuardedStream) -> None:
        async with connect(self.uri, stream=stream, ssl=self.tls) as websocket:
            await websocket.send(f"after {len(self.seen)}")
            while len(self.seen) < self.wanted:
                self.take(await websocket.recv())

    async def by_trio_websocket(self, stream: GuardedStream) -> None:
        async with open_websocket_url(self.pt, self.uri, stream=stream, ssl_context=self.tls) as websocket:
            await websocket.send_message(f"after {len(self.seen)}")
            while len(self.seen) < self.wanted:
                self.take(await websocket.get_message())

    def take(self, message: str | bytes) -> None:
        self.seen.append(str(message))
        if len(self.seen) == 5:
            self.enough.set()


Subscription: TypeAlias = Callable[[Subscriber, GuardedStream], Awaitable[None]]


@pytest.mark.parametrize("subscription", [Subscriber.by_websockets, Subscriber.by_trio_websocket])
@pytest.mark.parametrize("tls", [False, True], ids=["TCP", "TLS"])
async def test_a_subscriber_gets_every_message_once_over_as_many_connections_as_it_takes(
    lab: Lab, nursery: trio.Nursery, subscription: Subscription, tls: bool
) -> None:
    net = lab.two_uplinks(nat=True)
    server = NumberServer()

    async def serve(stream: trio.SocketStream) -> None:
        try:
            await (server.serve_tls(SERVER_TLS, stream) if tls else server.serve(stream))
        except* trio.BrokenResourceError:
            pass  # a client that was lost

    nursery.start_soon(trio.serve_listeners, serve, net.server.listen(443 if tls else 80))
    with trio.fail_after(BOUND):
        async with open_pt(netns=net.device.netns, policy=Policy(no_route=0.2)) as pt:
            uri = f"{'wss' if tls else 'ws'}://{ADDRESS}/"
            subscriber = Subscriber(pt, uri, CLIENT_TLS if tls else None, 30)
            async with trio.open_nursery() as tasks:
                handler = partial(subscription, subscriber)
                tasks.start_soon(pt.keep_connected, handler, ADDRESS, 443 if tls else 80)
                await subscriber.enough.wait()
                with pt.subscribe(ConnectionLost) as losses:
                    net.device.delete_route("default", via=net.wifi_gateways[4])
                    await losses.receive()
                net.device.add_route("default", via=net.lte_gateways[4])
    assert subscriber.seen == [str(number) for number in range(1, 31)]
    assert len(server.subscriptions) == 2
    first, second = server.subscriptions
    assert first == "after 0"
    assert 5 <= int(second.removeprefix("after ")) < 30
