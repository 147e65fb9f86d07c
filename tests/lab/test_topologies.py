"""The device with two uplinks, and what a router does to a connection that moves."""

from __future__ import annotations

from typing import Self

import pytest
import trio

from trio_routes import testing


@pytest.mark.parametrize("nat", [True, False], ids=["NAT", "routed"])
async def test_the_server_is_reached_by_wifi(lab: testing.Lab, family: int, nat: bool) -> None:
    scene = lab.two_uplinks(nat=nat)
    peer = await peer_seen_by_server(scene, family)
    assert peer == ({4: "198.51.100.1", 6: "2001:db8:f::1"}[family] if nat else scene.wlan0_addresses[family])


@pytest.mark.parametrize("nat", [True, False], ids=["NAT", "routed"])
async def test_the_server_is_reached_by_lte_once_the_wifi_route_is_gone(
    lab: testing.Lab, family: int, nat: bool
) -> None:
    scene = lab.two_uplinks(nat=nat, lte_metric=600)
    scene.device.delete_route("default", via=scene.wifi_gateways[family])
    peer = await peer_seen_by_server(scene, family)
    assert peer == ({4: "198.51.100.2", 6: "2001:db8:f::2"}[family] if nat else scene.wwan0_addresses[family])


async def test_the_spare_router_works_as_well(lab: testing.Lab, family: int) -> None:
    scene = lab.two_uplinks(spare_gateway=True)
    scene.device.replace_route("default", via=scene.spare_gateways[family], metric=100)
    assert await peer_seen_by_server(scene, family) == {4: "198.51.100.3", 6: "2001:db8:f::3"}[family]


async def test_without_lte_metric_there_is_one_default_route(lab: testing.Lab, family: int) -> None:
    scene = lab.two_uplinks()
    listed = await scene.device.run(["ip", f"-{family}", "route", "show", "default"])
    assert listed.count("default") == 1 and "metric 100" in listed
    assert (scene.spare_router, scene.spare_gateways) == (None, {})


async def test_the_neighbour_needs_no_route(lab: testing.Lab, family: int) -> None:
    scene = lab.two_uplinks()
    scene.device.delete_route("default", via=scene.wifi_gateways[family])
    (listener,) = scene.neighbour.listen(80, scene.neighbour_addresses[family])
    async with listener, await scene.device.open_tcp_stream(scene.neighbour_addresses[family], 80) as stream:
        assert stream.socket.getsockname()[0] == scene.eth0_addresses[family]


async def test_a_connection_that_moves_dies_behind_nat_and_lives_where_it_is_routed(
    lab: testing.Lab, family: int
) -> None:
    scene = lab.two_uplinks(nat=False, lte_metric=600)
    async with await connected(scene, family) as pair:
        scene.device.delete_route("default", via=scene.wifi_gateways[family])
        assert await pair.arrives()
    async with testing.Lab() as other:
        scene = other.two_uplinks(nat=True, lte_metric=600)
        async with await connected(scene, family) as pair:
            scene.device.delete_route("default", via=scene.wifi_gateways[family])
            assert not await pair.arrives()


async def test_a_router_that_refuses_foreign_sources_ends_what_moves_and_lets_the_new_through(
    lab: testing.Lab, family: int
) -> None:
    scene = lab.two_uplinks(nat=False, lte_metric=600)
    scene.lte_router.refuse_foreign_sources(scene.lte_router.links["lan0"])
    async with await connected(scene, family) as pair:
        scene.device.delete_route("default", via=scene.wifi_gateways[family])
        assert not await pair.arrives()
    assert await peer_seen_by_server(scene, family) == scene.wwan0_addresses[family]


async def test_masquerade_changes_only_what_leaves_by_its_link(lab: testing.Lab) -> None:
    scene = lab.two_uplinks(nat=True)
    # From the server into the device's network: forwarded by the same router, out of its other link.
    scene.server.add_route("10.0.1.0/24", via="198.51.100.1")
    (listener,) = scene.device.listen(80, scene.wlan0_addresses[4])
    async with listener, await scene.server.open_tcp_stream(scene.wlan0_addresses[4], 80):
        accepted = await listener.accept()
        assert accepted.socket.getpeername()[0] == scene.server_addresses[4]
        await accepted.aclose()


class Pair:
    """The two ends of a connection from the device to the server."""

    def __init__(self, near: trio.SocketStream, far: trio.SocketStream) -> None:
        self.near, self.far = near, far

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.near.aclose()
        await self.far.aclose()

    async def arrives(self) -> bool:
        """Say whether a byte reaches the server within 0.5 s or the connection fails."""
        with trio.move_on_after(0.5):
            try:
                await self.near.send_all(b"x")
                return await self.far.receive_some() == b"x"
            except trio.BrokenResourceError:
                return False
        return False


async def connected(scene: testing.TwoUplinks, family: int) -> Pair:
    (listener,) = scene.server.listen(80, scene.server_addresses[family])
    async with listener:
        with trio.fail_after(5):
            near = await scene.device.open_tcp_stream(scene.server_addresses[family], 80)
            return Pair(near, await listener.accept())


async def peer_seen_by_server(scene: testing.TwoUplinks, family: int) -> str:
    async with await connected(scene, family) as pair:
        peer: str = pair.far.socket.getpeername()[0]
        return peer
