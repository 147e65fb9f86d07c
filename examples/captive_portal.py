"""A laptop behind a captive portal, which opens after a login. It brings the network with it: just run it.

    python examples/captive_portal.py

In network namespaces of its own a laptop has Wi-Fi and LTE. The Wi-Fi's router answers every HTTP request with a redirect
to its login page until somebody asks for /login. It says "portal:" and where to log in, with the time since the pt was
opened; what is behind each link; "login:"; and "online:" when the next recheck, a second after the first answer, finds the
gate open. Nothing else is sent: then all is quiet.
"""

from __future__ import annotations

from contextlib import suppress
from functools import partial

import attrs
import trio

import trio_routes
from trio_routes import testing

# An endpoint's address; each router takes it for its own, so that the link alone decides who answers.
ENDPOINT = "198.18.0.7"


@attrs.define
class Router:
    """Answers HTTP: 204 as the endpoint would, or a redirect where the gate is closed."""

    gate_is_open: bool

    async def serve(self, stream: trio.SocketStream) -> None:
        """Answer one request."""
        with suppress(trio.BrokenResourceError):
            self.gate_is_open |= (await stream.receive_some()).startswith(b"GET /login")
            answer = b"204 No Content" if self.gate_is_open else b"302 Found\r\nLocation: /login\r\nContent-Length: 0"
            await stream.send_all(b"HTTP/1.1 " + answer + b"\r\n\r\n")


async def log_in(host: testing.Host) -> None:
    """What a person would do in a browser."""
    async with await host.open_tcp_stream(ENDPOINT, 80) as stream:
        await stream.send_all(b"GET /login HTTP/1.1\r\nHost: portal\r\n\r\n")
        await stream.receive_some()


async def watch(pt: trio_routes.Pt, laptop: testing.Host) -> None:
    """Print what is behind the default path, and log in at its portal."""
    start = trio.current_time()
    with pt.subscribe(trio_routes.PortalChanged) as events:
        while pt.portal.state.kind is not trio_routes.PortalKind.ONLINE:
            await events.receive()
            state, seconds = pt.portal.state, trio.current_time() - start
            print(f"{state.kind.value}: after {seconds:.3f} s{f', at {state.url}' if state.url else ''}")
            if state.kind is trio_routes.PortalKind.PORTAL:
                for link in pt.portal.links.values():
                    print(f"link: {link.name} {link.state.kind.value}")
                await log_in(laptop)
                print("login: done")


async def main() -> None:
    testing.become_lab_root()
    config = trio_routes.PortalConfig(endpoints=[trio_routes.Endpoint(f"http://{ENDPOINT}/generate_204")])
    async with testing.Lab() as lab, trio.open_nursery() as nursery:
        network = lab.two_uplinks(lte_metric=200)
        for host, gate_is_open in ((network.wifi_router, False), (network.lte_router, True)):
            host.links["core0"].add_address(f"{ENDPOINT}/32")
            nursery.start_soon(partial(trio.serve_listeners, Router(gate_is_open).serve, host.listen(80)))
        async with trio_routes.open_pt(netns=network.device.netns, portal=config) as pt:
            await watch(pt, network.device)
        nursery.cancel_scope.cancel()
    print("done")


if __name__ == "__main__":
    trio.run(main)
