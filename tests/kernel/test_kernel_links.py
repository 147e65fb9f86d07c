"""Links, addresses and peers that go: what each is called, how long it may take, and what acquits."""

from __future__ import annotations

import math

import pytest
import trio

from tests.kernel._world import HOST_LENGTH, PUBLIC, SOON, next_of, open_world
from tests.lab.waiting import until
from trio_routes import (
    AddressAdded,
    ConnectionLost,
    ConnectionRecovered,
    ConnectionRerouted,
    ConnectionSuspect,
    Outcome,
    Policy,
    RouteAdded,
    RouteLostError,
    Standing,
    Verdict,
)
from trio_routes.testing import Lab, TwoUplinks

pytestmark = [pytest.mark.netns, pytest.mark.verdicts]


async def test_carrier_that_stays_away_closes_after_its_own_wait(lab: Lab, family: int) -> None:
    wait = 0.3
    async with open_world(lab, family, Policy(carrier_lost=wait)) as world:
        await world.add_healthy()
        pair = await world.connect()
        with world.pt.subscribe(ConnectionSuspect) as events:
            world.net.wlan0.carrier(False)
            suspect = await next_of(events, ConnectionSuspect)
        assert suspect.verdict is Verdict.CARRIER_LOST
        await pair.near.send_all(b"goes on into the kernel's buffer")
        error = await pair.lost()
        assert (error.verdict, error.loss.cause) == (Verdict.CARRIER_LOST, "link wlan0 lost its carrier")
        assert error.after.outcome is Outcome.ROUTED  # the kernel keeps the route of a link without carrier
        assert wait <= error.loss.time - suspect.time < wait + 1
        await world.the_healthy_live(lost=1)


async def test_carrier_that_returns_in_time_acquits_and_what_was_sent_meanwhile_arrives(lab: Lab, family: int) -> None:
    async with open_world(lab, family, Policy()) as world:
        await world.add_healthy()
        pair = await world.connect()
        with world.pt.subscribe(ConnectionSuspect, ConnectionRecovered, ConnectionLost) as events:
            world.net.wlan0.carrier(False)
            await next_of(events, ConnectionSuspect)
            assert pair.near.connection.deadline - trio.current_time() > 5  # six seconds: a roaming Wi-Fi
            await pair.near.send_all(b"!")
            world.net.wlan0.carrier(True)
            recovered = await next_of(events, ConnectionRecovered)
        assert recovered.connection is pair.near.connection and pair.near.connection.deadline == math.inf
        with trio.fail_after(SOON):
            assert await pair.far.receive_some(1) == b"!"
        await world.the_healthy_live(pair, lost=0)


async def test_a_deleted_address_closes_its_connections_and_no_others_of_the_link(lab: Lab, family: int) -> None:
    async with open_world(lab, family) as world:
        await world.add_healthy()
        other = {4: "10.0.1.77", 6: "2001:db8:1::77"}[family]
        with trio.fail_after(SOON), world.pt.subscribe(AddressAdded) as events:
            world.net.wlan0.add_address(f"{other}/{HOST_LENGTH[family]}")
            await events.receive()  # the kernel tells of an IPv6 address from a work queue, when it comes to that
        await world.applied()
        gone = await world.connect(local_address=other)
        stays = await world.connect(local_address=world.net.wlan0_addresses[family])
        world.net.wlan0.delete_address(f"{other}/{HOST_LENGTH[family]}")
        error = await gone.lost()
        assert (error.verdict, error.loss.cause) == (Verdict.SOURCE_GONE, "RTM_DELADDR")
        await world.the_healthy_live(stays, lost=1)


async def test_a_deleted_address_is_gone_even_where_another_uplink_has_a_way(lab: Lab, family: int) -> None:
    async with open_world(lab, family, lte_metric=600) as world:
        await world.add_healthy()
        pair = await world.connect()
        world.net.wlan0.delete_address(world.net.wlan0.addresses[family == 6])
        assert (await pair.lost()).verdict is Verdict.SOURCE_GONE
        await world.the_healthy_live(lost=1)


async def test_a_deleted_link_closes_its_connections_only(lab: Lab, family: int) -> None:
    async with open_world(lab, family, lte_metric=600) as world:
        await world.add_healthy()
        pair = await world.connect()
        world.net.wlan0.delete()
        assert (await pair.lost()).verdict is Verdict.SOURCE_GONE
        again = await world.connect()
        assert str(again.near.connection.flow.local) == world.net.wwan0_addresses[family]
        await world.the_healthy_live(again, lost=1)


async def test_a_link_that_goes_is_given_longer_than_a_route_that_is_deleted(lab: Lab, family: int) -> None:
    # A route is put back in milliseconds, a driver's reset or a VPN daemon's restart takes seconds.
    policy = Policy(no_route=0.1, source_gone=0.1, link_cause=0.6)
    async with open_world(lab, family, policy) as world:
        await world.add_healthy()
        pair = await world.connect()
        with world.pt.subscribe(ConnectionSuspect) as events:
            world.net.wlan0.down()
            suspect = await next_of(events, ConnectionSuspect)
        error = await pair.lost()
        assert 0.6 <= error.loss.time - suspect.time < 1.6
        await world.the_healthy_live(lost=1)


async def test_a_link_deleted_and_made_again_in_time_closes_nothing(lab: Lab, family: int) -> None:
    # Another ifindex, the same addresses: a VPN daemon's restart. Whether the far side minds is then asked, not guessed.
    async with open_world(lab, family, Policy(ask_kernel=False)) as world:
        await world.add_healthy()
        pair = await world.connect()
        addresses = [str(address) for address in world.net.wlan0.addresses]
        with world.pt.subscribe(ConnectionSuspect) as events:
            world.net.wlan0.delete()
            assert (await next_of(events, ConnectionSuspect)).verdict is Verdict.SOURCE_GONE
            world.device.plug(world.net.wlan0.network, name="wlan0", addresses=addresses)
            world.device.add_route("default", via=world.wifi, metric=100)
        await world.the_healthy_live(lost=0)
        await pair.exchange()
        assert pair.standing is Standing.SUSPECT
        assert pair.near.connection.verdict is Verdict.EGRESS_CHANGED


async def test_a_peer_whose_address_becomes_ours_has_moved(lab: Lab, family: int) -> None:
    # IPv6 adds the prefix's route first, and for a moment the peer is on another link: with no wait at all that
    # would be what ended the connection.
    async with open_world(lab, family, Policy(peer_moved=0.05, egress_changed=5)) as world:
        await world.add_healthy()
        pair = await world.connect()
        world.net.eth0.add_address(f"{world.server}/{HOST_LENGTH[family]}")
        assert (await pair.lost()).verdict is Verdict.PEER_MOVED
        await world.the_healthy_live(lost=1)


async def test_a_peer_on_this_host_whose_address_is_deleted_has_moved(lab: Lab, family: int) -> None:
    async with open_world(lab, family) as world:
        await world.add_healthy()
        virtual = {4: "10.0.2.99", 6: "2001:db8:2::99"}[family]
        with world.pt.subscribe(RouteAdded) as events:
            world.net.wwan0.add_address(f"{virtual}/{HOST_LENGTH[family]}")
            # IPv6 adds the address's own route a moment after the address, from a work queue; another of it, in the main
            # table, before.
            await next_of(
                events,
                RouteAdded,
                lambda event: (str(event.route.destination.network_address), event.route.table) == (virtual, 255),
            )
        ours = world.net.eth0_addresses[world.family]
        moved = await world.connect(virtual, world.device, local_address=ours)
        stays = await world.connect(ours, world.device)
        # Another link has nothing to do with it (IPv4: not even its own).
        world.net.wlan0.down()
        await world.the_healthy_live(moved, stays, lost=0)
        world.net.wwan0.delete_address(f"{virtual}/{HOST_LENGTH[family]}")
        assert (await moved.lost()).verdict is Verdict.PEER_MOVED
        await world.the_healthy_live(stays, lost=1)


async def test_an_address_on_no_uplink_may_be_rerouted_freely(lab: Lab, family: int) -> None:
    service = {4: "10.0.9.9", 6: "2001:db8:9::9"}[family]

    def routed_to_both(net: TwoUplinks) -> None:
        for router, via in ((net.wifi_router, net.wlan0_addresses), (net.lte_router, net.wwan0_addresses)):
            router.add_route(service, via=via[family])
        net.server.add_route(service, via={4: "198.51.100.2", 6: "2001:db8:f::2"}[family])
        net.lte_router.add_route({4: "10.0.1.0/25", 6: "2001:db8:1::/65"}[family], via=net.wwan0_addresses[family])

    # IPv4: of a prefix that is local by a route (AnyIP), and in no list of addresses. IPv6 does not bind to that.
    kind = {4: "route", 6: "address"}[family]
    words = {4: ["local", service, "dev", "lo", "table", "local"], 6: [service, "dev", "lo"]}[family]
    async with open_world(lab, family, nat=False, lte_metric=600, prepare=routed_to_both) as world:
        await world.device.run(["ip", kind, "add", *words])
        await world.add_healthy()
        pair = await world.connect(local_address=service)
        with world.pt.subscribe(ConnectionRerouted) as events:
            world.device.delete_route("default", via=world.wifi)
            rerouted = await next_of(events, ConnectionRerouted)
        assert rerouted.connection is pair.near.connection
        assert [str(hop) for hop in (*rerouted.before.gateways, *rerouted.after.gateways)] == [world.wifi, world.lte]
        await world.the_healthy_live(pair, lost=0)
        await world.device.run(["ip", kind, "del", *words])
        assert (await pair.lost()).verdict is Verdict.SOURCE_GONE
        await world.the_healthy_live(lost=1)


async def test_what_only_looks_like_a_change_of_path_is_none(lab: Lab, family: int) -> None:
    async with open_world(lab, family) as world:
        await world.add_healthy()
        pair = await world.connect()
        device, second = world.device, {4: "10.0.1.3", 6: "2001:db8:1::3"}[family]
        world.net.wlan0.add_address(f"{second}/{HOST_LENGTH[family]}")
        prefix = {4: "198.51.100.0/25", 6: "2001:db8:f::/65"}[family]

        device.add_route("default", via=world.wifi, metric=50)  # another metric
        device.delete_route("default", via=world.wifi, metric=100)
        device.replace_route("default", via=world.wifi, metric=50, source=second)  # another preferred source
        device.add_route(prefix, via=world.wifi)  # more specific, the same way
        device.delete_route(prefix, via=world.wifi)
        device.add_rule(50, destination=prefix, table=254)
        device.delete_rule(50, destination=prefix, table=254)
        await device.run(["ip", "link", "set", "wlan0", "name", "wifi"])  # while it is up
        await world.the_healthy_live(pair, lost=0)
        assert world.pt.connections.statistics().suspected == 0


async def test_a_more_specific_route_by_another_link_moves_its_destinations_only(lab: Lab, family: int) -> None:
    async with open_world(lab, family) as world:
        await world.add_healthy()
        moved, stays = await world.connect(), await world.connect(PUBLIC[family])
        world.device.add_route(world.server, via=world.lte)
        assert (await moved.lost()).verdict is Verdict.EGRESS_CHANGED
        await world.the_healthy_live(stays, lost=1)


async def test_a_policy_rule_moves_whom_it_selects(lab: Lab, family: int) -> None:
    def tables(net: TwoUplinks) -> None:
        net.device.add_route("default", via=net.lte_gateways[family], table=100)

    async with open_world(lab, family, prepare=tables) as world:
        await world.add_healthy()
        pair, stays = await world.connect(), await world.connect(PUBLIC[family])
        world.device.add_rule(100, destination=f"{world.server}/{HOST_LENGTH[family]}", table=100)
        error = await pair.lost()
        assert (error.verdict, error.loss.cause) == (Verdict.EGRESS_CHANGED, "RTM_NEWRULE")
        await world.the_healthy_live(stays, lost=1)


async def test_a_socket_bound_to_a_link_stays_with_it(lab: Lab, family: int) -> None:
    async with open_world(lab, family) as world:
        await world.add_healthy()
        bound = await world.connect(device="wlan0")
        world.device.add_route("default", via=world.lte, metric=10)  # better for everybody else
        await world.the_healthy_live(bound, lost=0)
        world.device.delete_route("default", via=world.wifi)
        # The other route is none for it.
        assert (await bound.lost()).verdict is Verdict.NO_ROUTE
        await world.the_healthy_live(lost=1)


async def test_a_link_local_address_is_gone_when_its_own_link_has_it_no_more(lab: Lab) -> None:
    address = "fe80::77"

    def on_both_links(net: TwoUplinks) -> None:
        for link in (net.eth0, net.wlan0):
            link.add_address(f"{address}/64")
        net.neighbour.links["eth0"].add_address("fe80::99/64")

    async with open_world(lab, 6, prepare=on_both_links) as world:
        await world.add_healthy()
        eth0 = world.net.eth0.ifindex
        (listener,) = world.net.neighbour.listen(0, "::")
        async with listener:
            port: int = listener.socket.getsockname()[1]
            near = await world.pt.open_tcp_stream(f"fe80::99%{eth0}", port, local_address=f"{address}%{eth0}")
            far = await listener.accept()
        assert near.connection.flow.device == eth0
        world.net.eth0.delete_address(f"{address}/64")
        with trio.fail_after(SOON), pytest.raises(RouteLostError) as caught:
            await near.receive_some()
        assert caught.value.verdict is Verdict.SOURCE_GONE
        await trio.aclose_forcefully(near)
        await trio.aclose_forcefully(far)
        await world.the_healthy_live(lost=1)


async def test_a_silent_gateway_makes_suspect_and_never_closes(lab: Lab, family: int) -> None:
    async with open_world(lab, family) as world:
        await world.add_healthy()
        pair = await world.connect()
        # What the kernel says after three questions that nobody answered.
        await world.device.run(["ip", "neigh", "replace", world.wifi, "dev", "wlan0", "nud", "failed"])
        await until(lambda: pair.standing is Standing.SUSPECT)
        connection = pair.near.connection
        assert (connection.verdict, connection.deadline) == (Verdict.GATEWAY_FAILED, math.inf)
        # The router answers again.
        await pair.exchange()
        await world.the_healthy_live(pair, lost=0)
