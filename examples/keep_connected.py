"""A client that stays connected while its network goes and comes. It brings the network with it: just run it.

    python examples/keep_connected.py

In network namespaces of its own it has a laptop with Wi-Fi and LTE, and an echo server behind both. The laptop's
client sends a number every 0.1 s. After the fifth echo the Wi-Fi's default route goes: a second later, the default
policy's wait, the client says "lost:" and why. Then there is one by LTE: it says "connected:" and goes on with the
first number that was not echoed. It ends when all ten have come back.
"""

from __future__ import annotations

from contextlib import suppress
from functools import partial

import attrs
import trio

import trio_routes
from trio_routes import testing

NUMBERS = 10


@attrs.define
class Counter:
    """The client: two tasks on one connection, and what outlives a connection."""

    pt: trio_routes.Pt
    network: testing.TwoUplinks
    echoed: int = 0

    async def talk(self, stream: trio_routes.GuardedStream) -> None:
        """Talk over one connection; called again with a new one after a loss."""
        print(f"connected: {stream.connection.now}")
        try:
            with self.pt.guard(stream):  # makes one bare error of what both tasks feel of a loss
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._send, stream)
                    await self._receive(stream)
                    nursery.cancel_scope.cancel()
        except trio_routes.RouteLostError as error:
            print(f"lost: {error}")
            self.network.device.add_route("default", via=self.network.lte_gateways[4])
            raise  # for which keep_connected() goes round again

    async def _send(self, stream: trio_routes.GuardedStream) -> None:
        for number in range(self.echoed, NUMBERS):
            await stream.send_all(bytes([number]))
            await trio.sleep(0.1)

    async def _receive(self, stream: trio_routes.GuardedStream) -> None:
        while self.echoed < NUMBERS:
            for number in await stream.receive_some():
                print(f"echo: {number}")
                self.echoed = number + 1
                if self.echoed == NUMBERS // 2:
                    self.network.device.delete_route("default", via=self.network.wifi_gateways[4])


async def echo(stream: trio.SocketStream) -> None:
    with suppress(trio.BrokenResourceError):
        async for data in stream:
            await stream.send_all(data)


async def main() -> None:
    testing.become_lab_root()
    async with testing.Lab() as lab, trio.open_nursery() as nursery:
        network = lab.two_uplinks()
        nursery.start_soon(partial(trio.serve_listeners, echo, network.server.listen(7)))
        async with trio_routes.open_pt(netns=network.device.netns) as pt:
            await pt.keep_connected(Counter(pt, network).talk, network.server_addresses[4], 7)
        nursery.cancel_scope.cancel()
    print("done")


if __name__ == "__main__":
    trio.run(main)
