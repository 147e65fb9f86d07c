"""A WebSocket subscriber that subscribes again when the network is back. It brings the network with it: just run it.

    python examples/websocket_client.py

In network namespaces of its own it has a laptop with Wi-Fi and LTE, and a WebSocket server behind both, which sends
numbers to whoever says where to begin. After the third the Wi-Fi's default route goes: a second later, the default
policy's wait, the subscriber says "lost:" and why (until then numbers come in: only the way out is gone). Half a second
later there is a route by LTE: it is subscribed again within milliseconds, from the last number that it has seen. None of
ten is missing. Lines begin with the seconds since the start. Needs `pip install 'trio-routes[websockets]'`.
"""

from __future__ import annotations

import itertools
from contextlib import suppress
from functools import partial

import attrs
import trio
from websockets.exceptions import ConnectionClosed
from websockets.trio.client import connect
from websockets.trio.server import ServerConnection, serve

import trio_routes
from trio_routes import testing

NUMBERS = 10


@attrs.define
class Subscriber:
    """The client: what outlives a connection."""

    network: testing.TwoUplinks
    nursery: trio.Nursery
    seen: int = 0
    began: float = attrs.field(factory=trio.current_time)

    async def subscribe(self, stream: trio_routes.GuardedStream) -> None:
        """Subscribe over one connection; called again with a new one after a loss."""
        try:
            async with connect(f"ws://{self.network.server_addresses[4]}/", stream=stream) as websocket:
                self._say(f"subscribed: after {self.seen}, {stream.connection.now}")
                await websocket.send(str(self.seen))
                while self.seen < NUMBERS:
                    self.seen = int(await websocket.recv())
                    self._say(f"number: {self.seen}")
                    if self.seen == 3:
                        self.network.device.delete_route("default", via=self.network.wifi_gateways[4])
        except ConnectionClosed as error:
            self._say(f"lost: {error.__cause__}")
            self.nursery.start_soon(come_by_lte, self.network)
            raise  # for which keep_connected() goes round again: it finds the loss in it

    def _say(self, what: str) -> None:
        print(f"{trio.current_time() - self.began:.2f} s {what}")


async def come_by_lte(network: testing.TwoUplinks) -> None:
    await trio.sleep(0.5)
    network.device.add_route("default", via=network.lte_gateways[4])


async def send_numbers(websocket: ServerConnection) -> None:
    with suppress(ConnectionClosed):
        for number in itertools.count(int(await websocket.recv()) + 1):
            await websocket.send(str(number))
            await trio.sleep(0.1)


async def main() -> None:
    testing.become_lab_root()
    async with testing.Lab() as lab, trio.open_nursery() as nursery:
        network = lab.two_uplinks()
        await nursery.start(partial(serve, send_numbers, listeners=network.server.listen(80)))
        async with trio_routes.open_pt(netns=network.device.netns) as pt:
            await pt.keep_connected(Subscriber(network, nursery).subscribe, network.server_addresses[4], 80)
        nursery.cancel_scope.cancel()
    print("done")


if __name__ == "__main__":
    trio.run(main)
