"""What would become of connections if links, routes or addresses went: asked, not tried. It brings the network with it.

    python examples/what_if.py

In network namespaces of its own a device has Wi-Fi, LTE and a cable to a neighbour. It is connected to a server by the
Wi-Fi and to the neighbour by the cable. It prints how the first connection stands, then what would close if this or that
went, several things at once among them; at last that nothing has: both connections are as good as they were.
"""

from __future__ import annotations

import trio

import trio_routes
from trio_routes import testing

SUPPOSITIONS = (
    ("link wlan0 without carrier",),
    ("link wlan0 down",),
    ("link wlan0 gone",),
    ("address 10.0.1.2 gone",),
    ("route default dev wlan0 gone",),
    ("route default dev wlan0 gone", "route default dev wwan0 gone"),
    ("link eth0 gone",),
)


async def hold(stream: trio.SocketStream) -> None:
    """Be the peer of a connection until it ends."""
    async for _ in stream:
        pass


async def main() -> None:
    """Build the network, connect, and ask."""
    testing.become_lab_root()
    async with testing.Lab() as lab, trio.open_nursery() as nursery:
        net = lab.two_uplinks(lte_metric=200)
        for host in (net.server, net.neighbour):
            nursery.start_soon(trio.serve_listeners, hold, host.listen(7))
        async with (
            trio_routes.open_pt(netns=net.device.netns) as pt,
            await pt.open_tcp_stream(net.server_addresses[4], 7, label="server") as far,
            await pt.open_tcp_stream(net.neighbour_addresses[4], 7, label="neighbour") as near,
        ):
            print(pt.connections.explain(far.connection))
            for changes in SUPPOSITIONS:
                print(pt.connections.what_if(*changes))
            print(f"and yet: {far.connection.standing.value}, {near.connection.standing.value}")
        nursery.cancel_scope.cancel()
    print("done")


if __name__ == "__main__":
    trio.run(main)
