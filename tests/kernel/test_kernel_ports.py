"""Policy rules that select by port (``ip rule ... dport``), before there is a connection: what is known of it is asked."""

from __future__ import annotations

import errno

import pytest
import trio
import trio.testing

from tests.kernel._world import SOON, World, open_world
from trio_routes import NoRouteError, Outcome, Standing
from trio_routes.testing import Lab

pytestmark = pytest.mark.netns

REFUSED = 81


async def add_rule(world: World, *words: str) -> None:
    await world.device.run(["ip", f"-{world.family}", "rule", "add", "pref", "100", *words])
    await world.applied()


async def test_a_connection_to_a_port_that_a_rule_prohibits_is_not_tried(lab: Lab, family: int) -> None:
    async with open_world(lab, family) as world:
        await add_rule(world, "ipproto", "tcp", "dport", str(REFUSED), "prohibit")
        with pytest.raises(NoRouteError) as caught, trio.fail_after(SOON):
            await world.pt.open_tcp_stream(world.server, REFUSED)
        assert caught.value.errno == errno.EACCES
        assert caught.value.resolution.outcome is Outcome.PROHIBITED
        await (await world.connect()).exchange()  # to any other port


async def test_a_connection_by_a_rule_for_its_port_begins_with_that_rules_way_and_stays_good(
    lab: Lab, family: int
) -> None:
    async with open_world(lab, family) as world:
        world.device.add_route("default", via=world.lte, table=100)
        await add_rule(world, "dport", "1024-65534", "lookup", "100")
        pair = await world.connect()
        await pair.exchange()
        assert pair.standing is Standing.GOOD
        assert [str(gateway) for gateway in pair.near.connection.before.gateways] == [world.lte]
        # The rule's route is what it lives by: the default route of the main table may go.
        world.device.delete_route("default", via=world.wifi)
        await world.applied()
        assert pair.standing is Standing.GOOD
        await pair.exchange()


async def test_wait_routable_with_a_port_waits_until_no_rule_refuses_it(lab: Lab, family: int) -> None:
    async with open_world(lab, family) as world:
        await add_rule(world, "dport", str(REFUSED), "unreachable")
        assert (await world.pt.wait_routable(world.server)).outcome is Outcome.ROUTED
        outcomes: list[Outcome] = []

        async def wait() -> None:
            outcomes.append((await world.pt.wait_routable(world.server, port=REFUSED)).outcome)

        with trio.fail_after(SOON):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(wait)
                await trio.testing.wait_all_tasks_blocked()
                await world.applied()
                assert outcomes == []
                await world.device.run(["ip", f"-{family}", "rule", "delete", "pref", "100"])
        assert outcomes == [Outcome.ROUTED]


async def test_wait_routable_refuses_what_can_be_no_port(lab: Lab) -> None:
    async with open_world(lab, 4) as world:
        with pytest.raises(ValueError, match="a port is a number from 0 to 65535, not 65536"):
            await world.pt.wait_routable(world.server, port=65536)
