"""What subscribers are told of the real kernel's changes, and in which words."""

from __future__ import annotations

from contextlib import ExitStack

import pytest
import trio

from tests.kernel._world import SOON, next_of, no_more, open_world
from tests.lab.waiting import until
from trio_routes import (
    AddressAdded,
    AddressRemoved,
    ConnectionLost,
    ConnectionRecovered,
    ConnectionSuspect,
    Event,
    GatewayChanged,
    Lagged,
    LinkDown,
    LinkUp,
    Policy,
    RouteAdded,
    RouteRemoved,
    RouteReplaced,
    RuleChanged,
    Standing,
    Verdict,
    open_pt,
)
from trio_routes.testing import Lab

pytestmark = pytest.mark.netns

_PREFIX = {4: "10.99.{}.0/24", 6: "2001:db8:99:{}::/64"}
_CPDCHECK = {"trigger": "cpdcheck", "src": "gw-change"}


async def take(events: trio.abc.ReceiveChannel[Event], count: int) -> list[Event]:
    """Receive the next events, whatever they are."""
    taken: list[Event] = []
    with trio.fail_after(SOON):
        while len(taken) < count:
            taken.append(await events.receive())
    return taken


async def test_routes_and_gateways_are_told_of_in_the_models_words(lab: Lab, family: int) -> None:
    async with open_world(lab, family, Policy(), spare_gateway=True) as world:
        prefix = _PREFIX[family].format(1)
        with world.pt.subscribe(RouteAdded, RouteRemoved, RouteReplaced, GatewayChanged) as events:
            world.device.add_route(prefix, via=world.wifi)
            (added,) = await take(events, 1)
            world.device.replace_route(prefix, via=world.lte)
            (replaced,) = await take(events, 1)
            world.device.delete_route(prefix)
            (removed,) = await take(events, 1)
            assert isinstance(added, RouteAdded) and isinstance(replaced, RouteReplaced)
            assert isinstance(removed, RouteRemoved)
            assert {str(event.route.destination) for event in (added, replaced, removed)} == {prefix}
            assert (added.route, removed.route) == (replaced.old, replaced.route)
            assert (added.cause, removed.cause) == ("RTM_NEWROUTE", "RTM_DELROUTE")
            assert [event.as_smd() for event in (added, replaced, removed)] == [
                {"rt": "add"},
                {"rt": "add"},
                {"rt": "del"},
            ]
            assert added.generation < replaced.generation < removed.generation == world.pt.generation
            assert added.time <= replaced.time <= removed.time <= trio.current_time()

            def gateways(event: Event) -> tuple[list[str], list[str]]:
                assert isinstance(event, GatewayChanged) and event.as_smd() == _CPDCHECK
                return [str(hop.gateway) for hop in event.before], [str(hop.gateway) for hop in event.after]

            world.device.replace_route("default", via=world.spare, metric=100)
            route, gateway = await take(events, 2)
            assert isinstance(route, RouteReplaced) and gateways(gateway) == ([world.wifi], [world.spare])
            assert route.generation == gateway.generation
            world.device.delete_route("default", via=world.spare)
            route, gateway = await take(events, 2)
            assert isinstance(route, RouteRemoved) and gateways(gateway) == ([world.spare], [])
            world.device.add_route("default", via=world.wifi, table=100)  # in any table, and the first one too
            route, gateway = await take(events, 2)
            assert isinstance(route, RouteAdded) and gateways(gateway) == ([], [world.wifi])
            assert isinstance(gateway, GatewayChanged) and gateway.table == 100


async def test_another_metric_of_the_same_gateway_is_no_change_of_gateways(lab: Lab, family: int) -> None:
    async with open_world(lab, family) as world:
        with world.pt.subscribe(GatewayChanged) as events:
            world.device.add_route("default", via=world.wifi, metric=50)
            world.device.delete_route("default", via=world.wifi, metric=100)
            world.device.delete_route("default", via=world.wifi, metric=50)
            changed = await next_of(events, GatewayChanged)
        assert not changed.after and len(changed.before) == 1


async def test_links_addresses_and_rules_are_told_of(lab: Lab, family: int) -> None:
    address = {4: "10.99.0.1", 6: "2001:db8:99::1"}[family]
    length = {4: 24, 6: 64}[family]
    async with open_world(lab, family, Policy()) as world:
        with world.pt.subscribe(LinkUp, LinkDown, AddressAdded, AddressRemoved, RuleChanged) as events:
            world.net.eth0.add_address(f"{address}/{length}")
            added = await next_of(events, AddressAdded)
            assert (str(added.address.address), added.address.prefix_length) == (address, length)
            world.net.eth0.delete_address(f"{address}/{length}")
            assert (await next_of(events, AddressRemoved)).address == added.address

            world.device.add_rule(77, table=100, family=world.family)
            rule = await next_of(events, RuleChanged)
            assert rule.old is None and rule.new is not None and rule.new.priority == 77
            world.device.delete_rule(77, table=100, family=world.family)
            assert (await next_of(events, RuleChanged)).old == rule.new

            world.net.eth0.carrier(False)
            down = await next_of(events, LinkDown)
            assert (down.link.name, down.link.up, down.cause) == ("eth0", True, "link eth0 lost its carrier")
            world.net.eth0.carrier(True)
            assert (await next_of(events, LinkUp)).link.name == "eth0"
            world.net.eth0.down()
            down = await next_of(events, LinkDown)
            assert (down.link.up, down.cause) == (False, "link eth0 was set down")
            assert down.as_smd() is None


async def test_a_route_that_goes_with_its_link_is_told_of_like_any_other(lab: Lab) -> None:
    # IPv4, where the kernel says nothing of it.
    async with open_world(lab, 4, Policy()) as world:
        with world.pt.subscribe(RouteRemoved) as events:
            world.net.wlan0.down()
            removed = await next_of(events, RouteRemoved, lambda event: str(event.route.destination) == "0.0.0.0/0")
        assert (removed.cause, removed.as_smd()) == ("link wlan0 was set down", {"rt": "del"})


async def test_a_connections_way_from_suspect_to_good_and_to_its_loss_is_told_of_once(lab: Lab, family: int) -> None:
    async with open_world(lab, family, Policy(no_route=0.2)) as world:
        await world.add_healthy()
        pair = await world.connect()
        with world.pt.guard(pair.near), world.pt.guard(pair.near.socket) as connection:  # one record for all
            assert connection is pair.near.connection
            with world.pt.subscribe(ConnectionSuspect, ConnectionRecovered, ConnectionLost) as events:
                world.device.delete_route("default", via=world.wifi)
                (suspect,) = await take(events, 1)
                assert isinstance(suspect, ConnectionSuspect) and suspect.verdict is Verdict.NO_ROUTE
                assert pair.near.connection.standing is Standing.SUSPECT
                world.device.add_route("default", via=world.wifi)
                (recovered,) = await take(events, 1)
                assert isinstance(recovered, ConnectionRecovered) and recovered.acquitted_by == "its path is back"
                assert connection.standing is Standing.GOOD
                world.device.delete_route("default", via=world.wifi)
                with trio.CancelScope(shield=True):  # the guards' bodies are cancelled by the loss
                    again, lost = await take(events, 2)
                    assert isinstance(again, ConnectionSuspect) and isinstance(lost, ConnectionLost)
                    assert lost.connection is connection and lost.loss == connection.loss
                    await world.the_healthy_live(lost=1)
                    await no_more(events)


async def test_a_slow_subscriber_is_told_how_much_it_missed_and_the_others_miss_nothing(lab: Lab, family: int) -> None:
    count, room = 10, 4
    async with open_world(lab, family) as world:
        await world.add_healthy()
        with (
            world.pt.subscribe(RouteAdded, buffer=room) as slow,
            world.pt.subscribe(RouteAdded) as quick,
        ):
            for number in range(1, count + 1):
                world.device.add_route(_PREFIX[family].format(number), via=world.wifi)
            heard = await take(quick, count)
            assert [str(event.route.destination) for event in heard if isinstance(event, RouteAdded)] == [
                _PREFIX[family].format(number) for number in range(1, count + 1)
            ]
            first = await take(slow, room + 1)
            assert first[:room] == heard[:room]
            lagged = first[room]
            assert isinstance(lagged, Lagged) and lagged.missed == count - room
            assert lagged.generation == heard[-1].generation  # a snapshot from here on is new enough
            # And then it hears again.
            world.device.add_route(_PREFIX[family].format(count + 1), via=world.wifi)
            assert await take(slow, 1) == await take(quick, 1)
        await world.the_healthy_live(lost=0)


async def test_subscribers_of_a_pt_that_ends_hear_the_rest_and_then_the_end(lab: Lab, family: int) -> None:
    prefix = _PREFIX[family].format(1)
    async with open_world(lab, family) as world:
        with ExitStack() as subscribed:
            async with open_pt(netns=world.device.netns) as pt:
                events = subscribed.enter_context(pt.subscribe(RouteAdded))
                world.device.add_route(prefix, via=world.wifi)
                await until(lambda: prefix in {str(route.destination) for route in pt.routes})
            (last,) = await take(events, 1)
            assert isinstance(last, RouteAdded) and str(last.route.destination) == prefix
            with pytest.raises(trio.EndOfChannel):
                await events.receive()
