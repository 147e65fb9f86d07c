"""Routes that go, are replaced, or reject: who is closed, and who is left alone.

Each test shows something that libwebsockets, where the idea comes from, promises and its code does not do.
"""

from __future__ import annotations

import math

import pytest

from tests.kernel._world import PUBLIC, World, next_of, open_world
from tests.lab.waiting import until
from trio_routes import (
    ConnectionLost,
    ConnectionSuspect,
    GatewayChanged,
    Outcome,
    Policy,
    Standing,
    Verdict,
)
from trio_routes.testing import Hop, Lab, RouteType, TwoUplinks

pytestmark = pytest.mark.netns

WIFI_PREFIX = {4: "10.0.1.0/24", 6: "2001:db8:1::/64"}
WIRED_PREFIX = {4: "192.168.7.0/24", 6: "2001:db8:7::/64"}


async def test_a_deleted_default_route_closes_its_users_on_the_deletion_itself(lab: Lab, family: int) -> None:
    async with open_world(lab, family) as world:
        await world.add_healthy()
        pair = await world.connect()
        await pair.exchange()
        await world.applied()
        generation = world.pt.generation
        world.device.delete_route("default", via=world.wifi)
        error = await pair.lost()
        assert (error.verdict, error.loss.cause) == (Verdict.NO_ROUTE, "RTM_DELROUTE")
        assert str(error.before.gateways[0]) == world.wifi
        assert error.after.outcome is Outcome.NO_ROUTE
        assert error.generation == generation + 1  # no later event had to help
        await world.the_healthy_live(lost=1)


async def test_the_default_policy_gives_a_deleted_route_a_second_to_return(lab: Lab, family: int) -> None:
    async with open_world(lab, family, Policy()) as world:
        await world.add_healthy()
        pair = await world.connect()
        with world.pt.subscribe(ConnectionSuspect) as events:
            world.device.delete_route("default", via=world.wifi)
            suspect = await next_of(events, ConnectionSuspect)
        error = await pair.lost()
        assert error.verdict is Verdict.NO_ROUTE
        assert 1.0 <= error.loss.time - suspect.time < 2.0
        await world.the_healthy_live(lost=1)


async def test_a_link_set_down_closes_its_users(lab: Lab, family: int) -> None:
    async with open_world(lab, family) as world:
        await world.add_healthy()
        pair = await world.connect()
        world.net.wlan0.down()
        error = await pair.lost()
        # IPv4 keeps the addresses of a link that is down, IPv6 does not.
        assert error.verdict is {4: Verdict.NO_ROUTE, 6: Verdict.SOURCE_GONE}[family]
        assert error.loss.cause == "link wlan0 was set down"
        await world.the_healthy_live(lost=1)


async def test_a_link_without_ipv6_that_is_set_down_closes_its_users(lab: Lab) -> None:
    # Its routes go without a word, and without IPv6 there is no other message by which to notice.
    def without_ipv6(net: TwoUplinks) -> None:
        net.device.sysctl("net/ipv6/conf/wlan0/disable_ipv6", 1)

    async with open_world(lab, 4, prepare=without_ipv6) as world:
        await world.add_healthy()
        pair = await world.connect()
        world.net.wlan0.down()
        error = await pair.lost()
        assert (error.verdict, error.loss.cause) == (Verdict.NO_ROUTE, "link wlan0 was set down")
        await world.the_healthy_live(lost=1)


async def test_a_replaced_gateway_closes_its_users_at_once_under_the_immediate_policy(lab: Lab, family: int) -> None:
    async with open_world(lab, family, spare_gateway=True) as world:
        await world.add_healthy()
        pair = await world.connect()
        world.device.replace_route("default", via=world.spare, metric=100)
        error = await pair.lost()
        assert (error.verdict, error.loss.cause) == (Verdict.GATEWAY_CHANGED, "RTM_NEWROUTE")
        assert [str(gateway) for gateway in (*error.before.gateways, *error.after.gateways)] == [
            world.wifi,
            world.spare,
        ]
        again = await world.connect()
        assert [str(gateway) for gateway in again.near.connection.now.gateways] == [world.spare]
        await world.the_healthy_live(again, lost=1)


async def test_behind_another_gateway_what_must_have_been_translated_closes_once_it_has_settled(
    lab: Lab, family: int
) -> None:
    # Nobody is asked (rule J8). A private address reaches a global one only by translation, so the connection is dead;
    # between addresses that need none, as always in IPv6, no local fact says so, and it stays suspect.
    settling = 0.2
    policy = Policy(gateway_changed=settling, ask_kernel=False)
    async with open_world(lab, family, policy, spare_gateway=True) as world:
        await world.add_healthy()
        translated, unsure = await world.connect(PUBLIC[family]), await world.connect()
        with world.pt.subscribe(ConnectionSuspect, ConnectionLost) as events:
            world.device.replace_route("default", via=world.spare, metric=100)
            suspects = [await next_of(events, ConnectionSuspect) for _ in range(2)]
            assert {event.verdict for event in suspects} == {Verdict.GATEWAY_CHANGED}
            # Decided about, both: nothing is due any more.
            await until(lambda: {pair.near.connection.deadline for pair in (translated, unsure)} == {math.inf})
        if family == 4:
            error = await translated.lost()
            assert error.verdict is Verdict.GATEWAY_CHANGED
            assert settling <= error.loss.time - suspects[0].time < settling + 1
        else:
            assert translated.standing is Standing.SUSPECT
        assert (unsure.standing, unsure.near.connection.verdict) == (Standing.SUSPECT, Verdict.GATEWAY_CHANGED)
        await world.the_healthy_live(lost=1 if family == 4 else 0)


async def test_deleting_one_prefix_leaves_the_users_of_its_siblings_alone(lab: Lab, family: int) -> None:
    length, prefix, all_of_them = {
        4: (24, "198.18.{}.", "198.18.0.0/16"),
        6: (64, "2001:db8:18:{}::", "2001:db8:18::/48"),
    }[family]
    zero = "0" if family == 4 else ""

    def siblings(net: TwoUplinks) -> None:
        net.wifi_router.add_route(all_of_them, via=net.server_addresses[family])
        net.device.delete_route("default", via=net.wifi_gateways[family])
        for number in range(4):
            net.server.links["eth0"].add_address(f"{prefix.format(number)}7/{32 if family == 4 else 128}")
            net.device.add_route(f"{prefix.format(number)}{zero}/{length}", via=net.wifi_gateways[family])

    async with open_world(lab, family, prepare=siblings) as world:
        await world.add_healthy()
        pairs = [await world.connect(f"{prefix.format(number)}7") for number in range(4)]
        for number, pair in enumerate(pairs):
            judged = world.pt.connections.statistics().judged
            world.device.delete_route(f"{prefix.format(number)}{zero}/{length}")
            error = await pair.lost()
            assert (error.verdict, error.loss.cause) == (Verdict.NO_ROUTE, "RTM_DELROUTE")
            await world.the_healthy_live(*pairs[number + 1 :], lost=number + 1)
            assert world.pt.connections.statistics().judged == judged + 1  # nobody else was even looked at


async def test_a_copy_of_the_route_in_a_table_that_no_rule_selects_may_come_and_go(lab: Lab, family: int) -> None:
    async with open_world(lab, family) as world:
        await world.add_healthy()
        pair = await world.connect()
        world.device.add_route("default", via=world.wifi, metric=100, table=100)  # the very same but for the table
        await world.applied()
        world.device.delete_route("default", via=world.wifi, table=100)
        await world.the_healthy_live(pair, lost=0)
        assert world.pt.connections.statistics().suspected == 0


async def test_a_rule_by_source_decides_whose_table_it_was(lab: Lab, family: int) -> None:
    def by_source(net: TwoUplinks) -> None:
        net.device.add_route("default", via=net.wifi_gateways[family], table=100)
        net.device.add_rule(100, source=WIFI_PREFIX[family], table=100)
        net.wifi_router.add_route(WIRED_PREFIX[family], via=net.wlan0_addresses[family])

    async with open_world(lab, family, prepare=by_source) as world:
        await world.add_healthy()
        ruled = await world.connect(local_address=world.net.wlan0_addresses[world.family])
        unruled = await world.connect(local_address=world.net.eth0_addresses[world.family])
        world.device.delete_route("default", via=world.wifi, table=254)
        assert (await unruled.lost()).verdict is Verdict.NO_ROUTE
        await world.the_healthy_live(ruled, lost=1)
        world.device.delete_route("default", via=world.wifi, table=100)
        assert (await ruled.lost()).verdict is Verdict.NO_ROUTE
        await world.the_healthy_live(lost=2)


async def test_a_rule_by_mark_decides_whose_table_it_was(lab: Lab, family: int) -> None:
    def by_mark(net: TwoUplinks) -> None:
        net.device.add_route("default", via=net.lte_gateways[family], table=100)
        net.device.add_rule(100, mark=7, table=100, family=6 if family == 6 else 4)

    async with open_world(lab, family, prepare=by_mark) as world:
        await world.add_healthy()
        marked, unmarked = await world.connect(mark=7), await world.connect()
        assert str(marked.near.connection.flow.local) == world.net.wwan0_addresses[family]
        world.device.delete_route("default", via=world.lte, table=100)
        error = await marked.lost()
        assert error.verdict is Verdict.EGRESS_CHANGED  # the main table has a way, by the other uplink
        await world.the_healthy_live(unmarked, lost=1)


async def multipath(world: World) -> None:
    """Have the default route lead by both uplinks, and check that both gateways are known as such."""
    with world.pt.subscribe(GatewayChanged) as events:
        world.device.delete_route("default", via=world.wifi)
        world.device.add_route(world.zeros, nexthops=[Hop(via=world.wifi), Hop(via=world.lte)])
        changed = await next_of(events, GatewayChanged, lambda event: bool(event.after))
    assert {str(hop.gateway) for hop in changed.after} == {world.wifi, world.lte}


async def test_a_multipath_default_is_a_gateway_as_long_as_the_own_member_lives(lab: Lab, family: int) -> None:
    # Routed, not translated: for a source that a member has, IPv4 takes that member. IPv6 takes whichever the hash of
    # the addresses says (measured on 6.18), and when that one goes moves to another: whether it did has to be asked.
    async with open_world(lab, family, nat=False) as world:
        await multipath(world)
        await world.add_healthy(far=False)
        asking = Policy() if family == 6 else None
        by_wifi = await world.connect(local_address=world.net.wlan0_addresses[family], policy=asking)
        by_lte = await world.connect(local_address=world.net.wwan0_addresses[family])
        assert by_wifi.near.connection.now.multipath

        world.net.wwan0.down()  # the kernel says nothing of a member that dies
        error = await by_lte.lost()
        assert error.verdict is {4: Verdict.EGRESS_CHANGED, 6: Verdict.SOURCE_GONE}[family]
        await world.applied()
        assert by_wifi.standing is (Standing.SUSPECT if family == 6 else Standing.GOOD)
        await until(lambda: by_wifi.standing is not Standing.SUSPECT, seconds=10)  # 6 s of settling: a link went
        await world.the_healthy_live(by_wifi, lost=1)

        world.net.wlan0.down()
        error = await by_wifi.lost(within=10)
        assert error.verdict is {4: Verdict.NO_ROUTE, 6: Verdict.SOURCE_GONE}[family]
        await world.the_healthy_live(lost=2)


async def test_a_multipath_default_that_is_deleted_closes_the_users_of_all_members(lab: Lab, family: int) -> None:
    async with open_world(lab, family, nat=False) as world:
        await multipath(world)
        await world.add_healthy()
        pairs = [
            await world.connect(local_address=world.net.wlan0_addresses[family]),
            await world.connect(local_address=world.net.wwan0_addresses[family]),
        ]
        world.device.delete_route(world.zeros)
        for pair in pairs:
            assert (await pair.lost()).verdict is Verdict.NO_ROUTE
        await world.the_healthy_live(lost=2)


@pytest.mark.parametrize(
    ("kind", "outcome"),
    [
        ("blackhole", Outcome.BLACKHOLE),
        ("unreachable", Outcome.UNREACHABLE),
        ("prohibit", Outcome.PROHIBITED),
    ],
)
async def test_a_route_that_rejects_closes_those_whom_it_rejects(
    lab: Lab, family: int, kind: RouteType, outcome: Outcome
) -> None:
    async with open_world(lab, family) as world:
        await world.add_healthy()
        rejected, unrejected = await world.connect(), await world.connect(PUBLIC[family])
        world.device.add_route(world.server, type=kind)
        error = await rejected.lost()
        assert (error.verdict, error.after.outcome) == (Verdict.REJECTED, outcome)
        await world.the_healthy_live(unrejected, lost=1)
