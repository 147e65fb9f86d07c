"""An HTTP poller that hangs in no dead connection. It brings the network with it: just run it.

    python examples/http_client.py

In network namespaces of its own it has a laptop with Wi-Fi and LTE, and an HTTP server behind both. The laptop polls the
server every 0.2 s. While the fourth answer is awaited the Wi-Fi's default route goes: a second later, the default
policy's wait, the request fails ("lost:"), and the next one at once ("no route:"). Half a second later there is a
route by LTE: the poller goes on within milliseconds ("back:"), over a new connection, because its pool lends none that
has lost its path. Each line has the seconds since the start. Needs `pip install 'trio-routes[httpx2]'`.
"""

from __future__ import annotations

from contextlib import suppress
from functools import partial

import httpx2
import trio

import trio_routes
from trio_routes import testing
from trio_routes.integrations.httpx2 import GuardedTransport


async def poll(pt: trio_routes.Pt, address: str, answers: int) -> None:
    began = trio.current_time()

    def say(what: str) -> None:
        print(f"{trio.current_time() - began:.2f} s {what}")

    async with httpx2.AsyncClient(transport=GuardedTransport(pt)) as client:
        while answers:
            try:
                response = await client.get(f"http://{address}/")
                say(f"answer: {response.text}")
                answers -= 1
                await trio.sleep(0.2)
            except trio_routes.RouteLostError as error:  # an httpx2.ReadError, too
                say(f"lost: {error}")
            except httpx2.ConnectError as error:
                if not isinstance(error.__cause__, trio_routes.NoRouteError):
                    raise
                say(f"no route: {error}")
                await pt.wait_routable(address)  # for the network, not for a timer
                say("back:")


async def serve(
    pt: trio_routes.Pt, network: testing.TwoUplinks, requests: list[bytes], stream: trio.SocketStream
) -> None:
    with suppress(trio.BrokenResourceError):
        async for request in stream:  # in one piece, which will do here
            requests.append(bytes(request))
            if len(requests) == 4:
                with pt.subscribe(trio_routes.ConnectionLost) as losses:
                    network.device.delete_route("default", via=network.wifi_gateways[4])
                    await losses.receive()
                await trio.sleep(0.5)
                network.device.add_route("default", via=network.lte_gateways[4])
                return
            body = b"number %d" % len(requests)
            await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))


async def main() -> None:
    testing.become_lab_root()
    async with testing.Lab() as lab, trio.open_nursery() as nursery:
        network = lab.two_uplinks()
        async with trio_routes.open_pt(netns=network.device.netns) as pt:
            handler = partial(serve, pt, network, list[bytes]())
            nursery.start_soon(partial(trio.serve_listeners, handler, network.server.listen(80)))
            await poll(pt, network.server_addresses[4], answers=6)
        nursery.cancel_scope.cancel()
    print("done")


if __name__ == "__main__":
    trio.run(main)
