"""An HTTP poller as a user would write it, in the lab, through the loss of its network and the return of another."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import attrs
import httpx2
import pytest
import trio

from tests.integrations._http import HttpServer, certify
from trio_routes import NoRouteError, Policy, Pt, RouteLostError, open_pt
from trio_routes.integrations.httpx2 import GuardedTransport
from trio_routes.testing import Lab, TwoUplinks

ADDRESS = "198.51.100.7"
CLIENT_TLS, SERVER_TLS = certify(ADDRESS)

# Shorter waits than the default ones, for the tests' sake.
POLICY = Policy(no_route=0.2, source_gone=0.2, egress_changed=0.2, carrier_lost=0.5, link_cause=0.5)

# Seconds for all of it, most of them for a machine that is busy otherwise.
BOUND = 20


@attrs.define
class Poller:
    """The program: it wants each answer once, in order, whatever happens to the network."""

    pt: Pt
    client: httpx2.AsyncClient
    answers: list[str] = attrs.field(factory=list[str])
    losses: list[RouteLostError] = attrs.field(factory=list[RouteLostError])
    lost: trio.Event = attrs.field(factory=trio.Event)

    async def run(self, polls: int) -> None:
        while len(self.answers) < polls:
            try:
                response = await self.client.get(f"/{len(self.answers)}")
                self.answers.append(response.text)
                await trio.sleep(0.01)
            except RouteLostError as error:
                self.losses.append(error)
                self.lost.set()
            except httpx2.ConnectError as error:
                if not isinstance(error.__cause__, NoRouteError):
                    raise
                await self.pt.wait_routable(ADDRESS)


def delete_route(net: TwoUplinks) -> None:
    net.device.delete_route("default", via=net.wifi_gateways[4])


def take_link_down(net: TwoUplinks) -> None:
    net.wlan0.down()


def delete_address(net: TwoUplinks) -> None:
    net.wlan0.delete_address(f"{net.wlan0_addresses[4]}/24")


def find_a_better_one(net: TwoUplinks) -> None:
    """The path moves, and the other router's NAT knows nothing of the connection: the far side is asked, in vain."""
    net.device.add_route("default", via=net.lte_gateways[4], metric=50)


@pytest.mark.parametrize(
    ("version", "lose"),
    [
        ("HTTP/1.1", delete_route),
        ("HTTP/1.1 over TLS", delete_route),
        ("HTTP/2", delete_route),
        ("HTTP/2", take_link_down),
        ("HTTP/2", delete_address),
        pytest.param("HTTP/2", find_a_better_one, marks=pytest.mark.slow),  # 3 s of silence end it
    ],
)
async def test_a_poller_gets_every_answer_once_and_never_hangs(
    lab: Lab, nursery: trio.Nursery, version: str, lose: Callable[[TwoUplinks], None]
) -> None:
    net = lab.two_uplinks(nat=True)
    server = HttpServer()
    nursery.start_soon(trio.serve_listeners, server.serve, net.server.listen(80))
    nursery.start_soon(trio.serve_listeners, partial(server.serve_tls, SERVER_TLS), net.server.listen(443))
    scheme = "http" if version == "HTTP/1.1" else "https"
    with trio.fail_after(BOUND):
        async with open_pt(netns=net.device.netns, policy=POLICY) as pt:
            transport = GuardedTransport(pt, verify=CLIENT_TLS, http2=version == "HTTP/2")
            async with (
                # No timeout of its own: if a request hung, the test would.
                httpx2.AsyncClient(transport=transport, base_url=f"{scheme}://{ADDRESS}", timeout=None) as client,
                trio.open_nursery() as tasks,
            ):
                poller = Poller(pt, client)
                tasks.start_soon(poller.run, 20)
                await server.wait_requests(5)
                server.holding = True
                await server.wait_requests(len(server.requests) + 1)
                lose(net)
                await poller.lost.wait()
                server.holding = False
                if lose is not find_a_better_one:
                    net.device.add_route("default", via=net.lte_gateways[4])
        assert poller.answers == [f"/{number}" for number in range(20)]
        assert len(poller.losses) == 1
        assert server.connections == 2
