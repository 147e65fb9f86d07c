"""More changes than the kernel can keep for a slow reader: all is read anew, and nothing is missed."""

from __future__ import annotations

import subprocess

import pytest

from tests.kernel._world import PUBLIC, World, next_of, open_world
from trio_routes import Resynced, Verdict, open_pt
from trio_routes.testing import Lab, TwoUplinks

pytestmark = pytest.mark.netns

# The ordinary buffer of 8 MiB (twice that as the kernel counts) holds some 20 000 notifications, of 832 bytes each.
_PREFIXES = 50_000


def flood(world: World, *last_words: str) -> None:
    """Have another process add and delete 50 000 routes while this run is too busy to listen, and say a last word."""
    if world.family == 4:
        prefixes = [f"10.{128 + n // 16_384}.{n // 64 % 256}.{n % 64 * 4}/30" for n in range(_PREFIXES)]
    else:
        prefixes = [f"2001:db8:{0x8000 + n // 65_536:x}:{n % 65_536:x}::/64" for n in range(_PREFIXES)]
    assert len(set(prefixes)) == _PREFIXES
    commands = [f"route {verb} {prefix} via {world.lte}" for verb in ("add", "del") for prefix in prefixes]
    script = "\n".join([*commands, *last_words, ""]).encode()
    with world.device.entered():
        subprocess.run(["ip", f"-{world.family}", "-batch", "-"], input=script, check=True, timeout=60)


@pytest.mark.slow  # 100 000 requests to the kernel, one by one
async def test_an_overrun_loses_no_loss_and_closes_nothing_healthy(lab: Lab, family: int) -> None:
    def a_route_of_its_own(net: TwoUplinks) -> None:
        net.device.add_route(net.server_addresses[family], via=net.wifi_gateways[family])

    async with open_world(lab, family, prepare=a_route_of_its_own) as world:
        await world.add_healthy()
        meanwhile, afterwards = await world.connect(PUBLIC[family]), await world.connect()
        await world.applied()
        with world.pt.subscribe(Resynced) as events:
            # The kernel drops everything from the overrun on: the last word is among what is never heard.
            flood(world, f"route del default via {world.wifi}", f"route add {PUBLIC[family]} dev lo table 77")
            resynced = await next_of(events, Resynced)
        # Of a hundred thousand changes only the two that are left were told of.
        assert (resynced.reason, resynced.differences) == ("the receive buffer overflowed", 2)
        statistics = world.pt.statistics()
        assert statistics.overruns >= 1 and statistics.resyncs == 1
        error = await meanwhile.lost()
        assert error.verdict is Verdict.NO_ROUTE
        await world.the_healthy_live(afterwards, lost=1)

        async with open_pt(netns=world.device.netns) as fresh:
            assert sorted(map(str, world.pt.routes)) == sorted(map(str, fresh.routes))

        world.device.delete_route(world.server)
        error = await afterwards.lost()
        assert (error.verdict, error.loss.cause) == (Verdict.NO_ROUTE, "RTM_DELROUTE")
        await world.the_healthy_live(lost=2)
