"""What `what_if` says of a change is what the judge says once the kernel has made it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import trio

from tests.connections._watch import UNASKED
from tests.lab.waiting import until
from trio_routes import Connection, Standing, Verdict, open_pt
from trio_routes.testing import Lab, TwoUplinks

pytestmark = pytest.mark.netns


def defaults_go(net: TwoUplinks) -> None:
    for gateway in net.wifi_gateways.values():
        net.device.delete_route("default", via=gateway)


CHANGES: dict[str, Callable[[TwoUplinks], None]] = {
    "link wlan0 down": lambda net: net.wlan0.down(),
    "link wlan0 without carrier": lambda net: net.wlan0.carrier(False),
    "link wlan0 gone": lambda net: net.wlan0.delete(),
    "link eth0 gone": lambda net: net.eth0.delete(),
    "address 10.0.1.2 gone": lambda net: net.wlan0.delete_address(f"{net.wlan0_addresses[4]}/24"),
    "address 2001:db8:1::2 gone": lambda net: net.wlan0.delete_address(f"{net.wlan0_addresses[6]}/64"),
    "route default dev wlan0 gone": defaults_go,
    "route default via 10.0.1.1 gone": lambda net: net.device.delete_route("default", via=net.wifi_gateways[4]),
}


@pytest.mark.parametrize("lte", [True, False], ids=["another uplink", "no other uplink"])
@pytest.mark.parametrize("words", CHANGES)
async def test_what_it_says_is_what_the_kernel_makes_of_it(
    lab: Lab, nursery: trio.Nursery, words: str, lte: bool
) -> None:
    net = lab.two_uplinks(nat=False, lte_metric=900 if lte else None)
    streams: list[trio.SocketStream] = []
    async with open_pt(netns=net.device.netns, policy=UNASKED) as pt:
        connections: list[Connection] = []
        for host, addresses in ((net.server, net.server_addresses), (net.neighbour, net.neighbour_addresses)):
            for family in (4, 6):
                (listener,) = host.listen(0, addresses[family])
                port: int = listener.socket.getsockname()[1]
                stream = await pt.open_tcp_stream(addresses[family], port)
                streams.append(await listener.accept())
                await listener.aclose()
                nursery.start_soon(stay, stream)
                connections.append(stream.connection)
        forecast = pt.connections.what_if(words)
        said = {prospect.connection: prospect for prospect in forecast.prospects}
        assert said
        generation = pt.generation
        CHANGES[words](net)

        def as_said() -> bool:
            return all(
                (connection.verdict, connection.now) == (prospect.verdict, prospect.after)
                for connection, prospect in said.items()
            )

        await until(as_said)
        assert pt.generation > generation
        for connection in connections:
            if connection not in said:
                assert (connection.verdict, connection.standing) == (Verdict.UNCHANGED, Standing.GOOD)
        nursery.cancel_scope.cancel()
    for server in streams:
        server.socket.close()


async def stay(stream: trio.abc.AsyncResource) -> None:
    """Hold a stream until cancelled."""
    async with stream:
        await trio.sleep_forever()
