"""The portal of a network that is left while it is being asked."""

from __future__ import annotations

from functools import partial

import attrs
import pytest
import trio

from tests.kernel._world import SOON, World, next_of, no_more, open_world
from trio_routes import Endpoint, GatewayChanged, PortalChanged, PortalConfig, PortalKind, open_pt
from trio_routes.testing import Lab, TwoUplinks

pytestmark = pytest.mark.netns

# Behind both gateways; each answers for it in its own way.
_CHECKED = {4: "198.18.0.7", 6: "2001:db8:18::7"}


@attrs.define(eq=False)
class Answering:
    """One network's idea of the endpoint: says `answer` once it is let, and counts who asked."""

    answer: bytes
    let: trio.Event = attrs.field(factory=trio.Event)
    asked: trio.Event = attrs.field(factory=trio.Event)
    answered: trio.Event = attrs.field(factory=trio.Event)
    count: int = 0

    async def serve(self, stream: trio.SocketStream) -> None:
        self.count += 1
        try:
            await stream.receive_some()
            self.asked.set()
            await self.let.wait()
            await stream.send_all(self.answer)
        except trio.BrokenResourceError:
            pass  # nobody waits for this answer any more
        finally:
            self.answered.set()


def portal() -> Answering:
    """A login page where the endpoint should be; it takes its time."""
    return Answering(b"HTTP/1.1 302 Found\r\nLocation: http://login.example/\r\nContent-Length: 0\r\n\r\n")


def internet() -> Answering:
    """The endpoint itself."""
    network = Answering(b"HTTP/1.1 204 No Content\r\n\r\n")
    network.let.set()
    return network


def the_endpoint_is_at_both_gateways(family: int, net: TwoUplinks) -> None:
    assert net.spare_router is not None
    for router in (net.wifi_router, net.spare_router):
        router.links["core0"].add_address(f"{_CHECKED[family]}/{32 if family == 4 else 128}")


def config(family: int) -> PortalConfig:
    host = _CHECKED[family] if family == 4 else f"[{_CHECKED[family]}]"
    return PortalConfig(endpoints=[Endpoint(f"http://{host}/generate_204")])


def known(world: World) -> PortalKind:
    return world.pt.portal.state.kind


async def serve(nursery: trio.Nursery, world: World, old: Answering, new: Answering) -> None:
    assert world.net.spare_router is not None
    for router, network in ((world.net.wifi_router, old), (world.net.spare_router, new)):
        await nursery.start(partial(trio.serve_listeners, network.serve, router.listen(80)))


async def test_the_old_gateways_answer_is_dropped_when_the_gateway_changes_while_it_is_asked(
    lab: Lab, family: int
) -> None:
    old, new = portal(), internet()
    async with (
        open_world(
            lab,
            family,
            spare_gateway=True,
            prepare=partial(the_endpoint_is_at_both_gateways, family),
            portal=config(family),
        ) as world,
        trio.open_nursery() as nursery,
    ):
        await serve(nursery, world, old, new)
        await world.add_healthy()
        with world.pt.subscribe(PortalChanged, GatewayChanged) as events:
            with trio.fail_after(SOON):
                await old.asked.wait()  # a run is under way
                world.device.replace_route("default", via=world.spare, metric=100)
                await next_of(events, GatewayChanged)
                assert known(world) is PortalKind.UNKNOWN  # of this network nothing is known yet
                old.let.set()
                await old.answered.wait()
            changed = await next_of(events, PortalChanged)
            assert (changed.state.kind, changed.as_smd()) == (PortalKind.ONLINE, {"type": "cpd", "result": "OK"})
            assert changed.state.generation >= 1
            # Told once: the old network's page never was the answer.
            assert known(world) is PortalKind.ONLINE
            await world.the_healthy_live(lost=0)
            await no_more(events)
        assert (old.count, new.count) == (1, 1)
        nursery.cancel_scope.cancel()


async def test_a_portal_behind_the_new_gateway_is_found_on_the_change_itself(lab: Lab, family: int) -> None:
    old, new = internet(), portal()
    new.let.set()
    async with (
        open_world(
            lab, family, spare_gateway=True, prepare=partial(the_endpoint_is_at_both_gateways, family)
        ) as unasked,
        trio.open_nursery() as nursery,
    ):
        await serve(nursery, unasked, old, new)
        assert (old.count, new.count) == (0, 0)  # without portal= nothing is ever sent
        async with open_pt(netns=unasked.device.netns, portal=config(family)) as pt:
            with trio.fail_after(SOON):
                await pt.portal.wait_online()
            with pt.subscribe(PortalChanged) as events:
                unasked.device.replace_route("default", via=unasked.spare, metric=100)
                changed = await next_of(events, PortalChanged)
            assert (changed.before.kind, changed.state.kind) == (PortalKind.ONLINE, PortalKind.PORTAL)
            assert changed.state.url == "http://login.example/"
            assert changed.as_smd() == {"type": "cpd", "result": "Captive"}
        nursery.cancel_scope.cancel()
