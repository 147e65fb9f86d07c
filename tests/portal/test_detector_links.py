"""Each link and family by itself, in virtual time on a kernel in memory: who is asked by what, and how often."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from ipaddress import IPv6Address

import attrs
import pytest
import trio
import trio.testing

from trio_routes import (
    Endpoint,
    Event,
    Evidence,
    Finding,
    LinkPortalChanged,
    PortalChanged,
    PortalConfig,
    PortalExpiring,
    PortalKind,
    Pt,
    Question,
    Way,
    open_pt,
)
from trio_routes.netlink import ND_OPT_RDNSS, NdUserOption
from trio_routes.portal import Capport
from trio_routes.portal._pursuit import SETTLE_SECONDS
from trio_routes.testing import FakeKernel, FakeLink

HOUR = 3600.0
SETTLED = SETTLE_SECONDS + 0.01


@attrs.define
class Oracle:
    """A probe that answers by link; counts who was asked, when.

    Attributes:
      kinds: What is behind each link; Finding.PASSED where nothing is said.
      asked: (time, device, family) of every probe.
      takes: Seconds that an answer takes.
      capport: What the network says besides.
    """

    kinds: dict[str | None, Finding] = attrs.field(factory=dict[str | None, Finding])
    asked: list[tuple[float, str | None, int]] = attrs.field(factory=list[tuple[float, str | None, int]])
    takes: float = 0.0
    capport: Capport | None = None

    async def __call__(self, way: Way) -> Evidence:
        self.asked.append((trio.current_time(), way.device, way.family))
        finding = self.kinds.get(way.device, Finding.PASSED)  # as it is when asked, as a network would answer
        await trio.sleep(self.takes)
        return Evidence(question=Question.OWN, finding=finding, capport=self.capport, time=trio.current_time())

    def take(self) -> set[tuple[str | None, int]]:
        """Who was asked since the last call; nobody twice."""
        asked = [(device, family) for _, device, family in self.asked]
        assert len(asked) == len(set(asked))
        self.asked.clear()
        return set(asked)


@attrs.define
class Scene:
    kernel: FakeKernel
    pt: Pt
    oracle: Oracle
    wlan0: FakeLink
    eth0: FakeLink

    def kind(self, name: str, family: int = 4) -> PortalKind:
        (link,) = (link for link in self.pt.portal.links.values() if link.name == name)
        return link.families[family].kind


@asynccontextmanager
async def scene(oracle: Oracle | None = None, *, per_link: bool = True) -> AsyncGenerator[Scene]:
    """A host with two links, each with a gateway; the Wi-Fi's is preferred, and the only one with IPv6."""
    oracle = oracle or Oracle()
    async with FakeKernel() as kernel:
        wlan0, eth0 = kernel.add_link("wlan0"), kernel.add_link("eth0")
        wlan0.add_address("10.0.1.2/24")
        wlan0.add_address("2001:db8:1::2/64")
        eth0.add_address("10.0.2.2/24")
        kernel.add_route("0.0.0.0/0", via="10.0.1.1", device="wlan0", metric=100)
        kernel.add_route("::/0", via="2001:db8:1::1", device="wlan0", metric=100)
        kernel.add_route("0.0.0.0/0", via="10.0.2.1", device="eth0", metric=200)
        config = PortalConfig(endpoints=(), probes=[oracle], per_link=per_link)
        async with open_pt(kernel=kernel, portal=config) as pt:
            yield Scene(kernel, pt, oracle, wlan0, eth0)


async def all_of(events: trio.abc.ReceiveChannel[Event]) -> list[Event]:
    """What has come by now: `receive` is a cancellation point, so a deadline that is over would see nothing."""
    received: list[Event] = []
    with trio.move_on_after(0.01):
        async for event in events:
            received.append(event)  # noqa: PERF401  # what came before the end of the time counts
    return received


async def test_each_link_and_family_is_asked_once_at_the_start_and_a_quiet_hour_sends_nothing(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with scene() as here:
        await trio.sleep(HOUR)
        assert here.oracle.take() == {("wlan0", 4), ("wlan0", 6), ("eth0", 4)}
        assert here.pt.portal.state.kind is PortalKind.ONLINE
        eth0 = here.pt.portal.links[here.eth0.ifindex].families[6]
        assert [one.finding for one in eth0.evidence] == [Finding.LINK_LOCAL_ONLY]


async def test_two_links_of_which_one_is_captive(autojump_clock: trio.testing.MockClock) -> None:
    oracle = Oracle({"wlan0": Finding.REDIRECT})
    async with scene(oracle) as here:
        await trio.sleep(0.5)
        assert oracle.take() == {("wlan0", 4), ("wlan0", 6), ("eth0", 4)}
        assert (here.kind("wlan0", 4), here.kind("wlan0", 6), here.kind("eth0")) == (
            PortalKind.PORTAL,
            PortalKind.PORTAL,
            PortalKind.ONLINE,
        )
        assert here.pt.portal.state.kind is PortalKind.PORTAL  # the default path leads there
        # The other's routes become the better ones: what is behind them is known, so nobody is asked.
        with here.pt.subscribe(PortalChanged) as events:
            here.kernel.add_route("0.0.0.0/0", via="10.0.2.1", device="eth0", metric=50)
            here.kernel.delete_route("::/0", via="2001:db8:1::1", device="wlan0")
            changed = await events.receive()
            assert isinstance(changed, PortalChanged)
            assert changed.state.kind is PortalKind.ONLINE
        assert {device for _, device, _ in oracle.asked} <= {"wlan0"}  # whose rechecks go on


async def test_one_gateway_change_asks_by_that_link_and_family_alone(autojump_clock: trio.testing.MockClock) -> None:
    async with scene() as here:
        await trio.sleep(HOUR)
        here.oracle.take()
        here.kernel.delete_route("0.0.0.0/0", via="10.0.1.1", device="wlan0")
        here.kernel.add_route("0.0.0.0/0", via="10.0.1.9", device="wlan0", metric=100)
        await trio.testing.wait_all_tasks_blocked()
        assert here.kind("wlan0") is PortalKind.UNKNOWN  # of this network nothing is known yet
        await trio.sleep(HOUR)
        assert here.oracle.take() == {("wlan0", 4)}


async def test_what_is_no_other_network_asks_nobody(autojump_clock: trio.testing.MockClock) -> None:
    async with scene() as here:
        await trio.sleep(HOUR)
        here.oracle.take()
        here.kernel.add_route("203.0.113.0/24", via="10.0.1.1", device="wlan0")
        here.kernel.add_route("0.0.0.0/0", via="10.0.1.1", device="wlan0", metric=300)  # the same gateway again
        here.wlan0.add_address("2001:db8:1::3/64")  # as temporary addresses do
        here.kernel.add_link("veth0", kind="veth")
        here.kernel.add_link("docker0", kind="bridge").add_address("172.17.0.1/16")
        await trio.sleep(HOUR)
        assert here.oracle.take() == set()
        names = {link.name for link in here.pt.portal.links.values()}
        assert names == {"wlan0", "eth0", "docker0"}
        assert here.kind("docker0") is PortalKind.OFFLINE


async def test_a_lease_with_another_address_is_another_network(autojump_clock: trio.testing.MockClock) -> None:
    async with scene() as here:
        await trio.sleep(HOUR)
        here.oracle.take()
        here.eth0.add_address("192.168.1.7/24")
        await trio.sleep(HOUR)
        assert here.oracle.take() == {("eth0", 4)}


async def test_what_the_tables_know_is_told_without_a_packet(autojump_clock: trio.testing.MockClock) -> None:
    async with scene() as here:
        await trio.sleep(HOUR)
        here.oracle.take()
        with here.pt.subscribe(LinkPortalChanged, PortalChanged) as events:
            here.wlan0.set_carrier(False)
            here.kernel.delete_route("0.0.0.0/0", via="10.0.2.1", device="eth0")
            await trio.sleep(HOUR)
            told: set[object] = set()
            for event in await all_of(events):
                if isinstance(event, LinkPortalChanged):
                    told.add((here.pt.routes.links[event.ifindex].name, event.family, event.state.kind))
                    assert event.as_smd() is None
        assert {("wlan0", 4, PortalKind.NO_LINK), ("eth0", 4, PortalKind.OFFLINE)} <= told
        assert here.oracle.take() == set()


async def test_a_route_that_is_away_for_thirty_milliseconds_is_no_news_and_one_probe(
    autojump_clock: trio.testing.MockClock,
) -> None:
    # Meanwhile the default path leads by the other link, behind which is a portal.
    async with scene(Oracle({"eth0": Finding.REDIRECT})) as here:
        await trio.sleep(HOUR)
        here.oracle.asked.clear()
        with here.pt.subscribe(PortalChanged, LinkPortalChanged) as events:
            here.kernel.delete_route("0.0.0.0/0", via="10.0.1.1", device="wlan0")
            here.kernel.delete_route("::/0", via="2001:db8:1::1", device="wlan0")
            await trio.sleep(0.03)
            assert here.pt.portal.state.kind is PortalKind.PORTAL  # true at once, for whoever looks
            here.kernel.add_route("0.0.0.0/0", via="10.0.1.1", device="wlan0", metric=100)
            here.kernel.add_route("::/0", via="2001:db8:1::1", device="wlan0", metric=100)
            await trio.sleep(HOUR)
            # It may be another network with the same gateway: asked once, and the same answer is no news.
            asked = sorted(family for _, device, family in here.oracle.asked if device == "wlan0")
            assert asked == [4, 6]
            assert await all_of(events) == []


async def test_a_change_in_the_midst_of_a_run_restarts_that_path_and_leaves_the_others_alone(
    autojump_clock: trio.testing.MockClock,
) -> None:
    oracle = Oracle({"wlan0": Finding.REDIRECT}, takes=1.0)
    async with scene(oracle) as here:
        await trio.sleep(0.5)
        oracle.take()
        oracle.kinds.clear()  # the new network has no portal
        with here.pt.subscribe(LinkPortalChanged) as events:
            here.kernel.delete_route("0.0.0.0/0", via="10.0.1.1", device="wlan0")
            here.kernel.add_route("0.0.0.0/0", via="10.0.1.9", device="wlan0", metric=100)
            states: dict[tuple[int, int], PortalKind] = {}
            while len(states) < 3:
                event = await events.receive()
                if isinstance(event, LinkPortalChanged):
                    states[event.ifindex, event.family] = event.state.kind
        wlan0, eth0 = here.wlan0.ifindex, here.eth0.ifindex
        assert states == {
            (wlan0, 4): PortalKind.ONLINE,  # never the old network's redirect
            (wlan0, 6): PortalKind.PORTAL,
            (eth0, 4): PortalKind.ONLINE,
        }


async def test_a_link_that_went_is_asked_about_no_more_though_a_portal_was_behind_it(
    autojump_clock: trio.testing.MockClock,
) -> None:
    oracle = Oracle({"eth0": Finding.REDIRECT}, takes=1.0)
    async with scene(oracle) as here:
        await trio.sleep(2.5)
        assert here.kind("eth0") is PortalKind.PORTAL
        assert here.pt.portal.links.keys() == {here.wlan0.ifindex, here.eth0.ifindex}
        await trio.sleep(0.2)  # in the midst of a recheck
        oracle.asked.clear()
        here.eth0.delete()
        with pytest.raises(LookupError):
            await here.pt.portal.check(here.eth0.ifindex)
        await trio.sleep(HOUR)
        assert oracle.asked == []
        assert here.pt.portal.links.keys() == {here.wlan0.ifindex}
        assert here.pt.portal.state.kind is PortalKind.ONLINE


async def test_waking_asks_everybody_again(autojump_clock: trio.testing.MockClock) -> None:
    async with scene() as here:
        await trio.sleep(HOUR)
        here.oracle.take()
        here.pt._engine._on_waking(60.0)
        assert here.pt.portal.state.kind is PortalKind.UNKNOWN
        await trio.sleep(HOUR)
        assert here.oracle.take() == {("wlan0", 4), ("wlan0", 6), ("eth0", 4)}


async def test_check_asks_one_link_if_that_is_all_that_is_wanted(autojump_clock: trio.testing.MockClock) -> None:
    async with scene() as here:
        await trio.sleep(HOUR)
        here.oracle.take()
        here.oracle.kinds["eth0"] = Finding.REDIRECT
        assert (await here.pt.portal.check(here.eth0.ifindex)).kind is PortalKind.PORTAL
        assert here.oracle.take() == {("eth0", 4)}
        assert (await here.pt.portal.check()).kind is PortalKind.ONLINE
        assert here.oracle.take() == {("wlan0", 4), ("wlan0", 6), ("eth0", 4)}
        with pytest.raises(LookupError, match="no link 99"):
            await here.pt.portal.check(99)


async def test_a_tunnel_is_not_probed_and_the_default_path_through_it_is_asked_unbound(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with scene() as here:
        await trio.sleep(HOUR)
        here.oracle.take()
        here.kernel.add_link("wg0", kind="wireguard").add_address("10.9.0.2/24")
        here.kernel.add_route("0.0.0.0/0", via="10.9.0.1", device="wg0", metric=1)
        await trio.sleep(HOUR)
        assert here.oracle.take() == {(None, 0)}
        assert here.kind("wg0") is PortalKind.UNKNOWN
        (wg0,) = (link for link in here.pt.portal.links.values() if link.name == "wg0")
        assert wg0.families[4].evidence[0].finding is Finding.NOT_PROBED
        assert here.pt.portal.state.kind is PortalKind.ONLINE
        here.kernel.delete_route("0.0.0.0/0", via="10.9.0.1", device="wg0", metric=1)
        await trio.sleep(HOUR)
        await here.pt.portal.check()
        assert here.oracle.take() == {("wlan0", 4), ("wlan0", 6), ("eth0", 4)}  # and nobody unbound any more


async def test_without_per_link_only_the_default_path_is_asked(autojump_clock: trio.testing.MockClock) -> None:
    async with scene(per_link=False) as here:
        await trio.sleep(HOUR)
        assert here.oracle.take() == {(None, 0)}
        assert here.pt.portal.links == {}
        here.kernel.add_route("0.0.0.0/0", via="10.0.2.1", device="eth0", metric=50)
        await trio.sleep(HOUR)
        assert here.oracle.take() == {(None, 0)}


async def test_on_demand_asks_only_on_demand(autojump_clock: trio.testing.MockClock) -> None:
    oracle = Oracle()
    async with FakeKernel() as kernel:
        kernel.add_link("eth0").add_address("10.0.2.2/24")
        kernel.add_route("0.0.0.0/0", via="10.0.2.1", device="eth0")
        config = PortalConfig(endpoints=(), probes=[oracle], on_demand=True)
        async with open_pt(kernel=kernel, portal=config) as pt:
            await trio.sleep(HOUR)
            assert oracle.take() == set()
            assert (await pt.portal.check()).kind is PortalKind.ONLINE
            assert oracle.take() == {("eth0", 4)}
            with pytest.raises(RuntimeError, match="off"):
                await pt.portal.wait_online()


@pytest.mark.parametrize("on_demand", [False, True])
async def test_a_machine_without_links_has_none_and_says_so(
    on_demand: bool, autojump_clock: trio.testing.MockClock
) -> None:
    async with FakeKernel() as kernel:
        config = PortalConfig(on_demand=on_demand)
        async with open_pt(kernel=kernel, portal=config) as pt:
            if on_demand:
                assert pt.portal.state.open  # nobody has asked
            state = await pt.portal.check()
            assert (state.kind, state) == (PortalKind.NO_LINK, pt.portal.state)
            assert [one.finding for one in state.evidence] == [Finding.NO_CARRIER]
            kernel.add_link("eth0").add_address("10.0.2.2/24")
            kernel.add_route("0.0.0.0/0", via="10.0.2.1", device="eth0")
            await trio.testing.wait_all_tasks_blocked()
            assert pt.portal.state.open  # here is something to ask about


async def test_rules_for_one_user_lead_the_default_path_of_a_process_that_is_that_users(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    async with scene(Oracle({"wlan0": Finding.REDIRECT})) as here:
        here.kernel.delete_route("::/0", via="2001:db8:1::1", device="wlan0")
        await trio.sleep(1)
        assert (here.pt.portal.state.kind, here.kind("eth0")) == (PortalKind.PORTAL, PortalKind.ONLINE)
        here.kernel.delete_route("0.0.0.0/0", via="10.0.2.1", device="eth0")
        here.kernel.add_route("0.0.0.0/0", via="10.0.2.1", device="eth0", table=7)
        rule = here.kernel.add_rule(table=7, priority=100)
        here.kernel.delete_rule(rule)
        await trio.sleep(1)
        assert (here.pt.portal.state.kind, here.kind("eth0")) == (PortalKind.PORTAL, PortalKind.OFFLINE)
        here.kernel._network.add_rule(attrs.evolve(rule, uid_range=(1000, 1000)))
        await trio.sleep(1)
        assert (here.pt.portal.state.kind, here.kind("eth0")) == (PortalKind.ONLINE, PortalKind.ONLINE)


def resolver_advertised(link: FakeLink, number: int) -> NdUserOption:
    """Option 25 of a router on a link: its resolver has this number, and is good for ten minutes."""
    body = b"\0\0" + (600).to_bytes(4, "big") + IPv6Address(f"2001:db8::{number:x}").packed
    return NdUserOption(link.ifindex, IPv6Address("fe80::1"), ND_OPT_RDNSS, body)


async def test_an_advertisement_asks_nobody_where_detection_is_off(autojump_clock: trio.testing.MockClock) -> None:
    oracle = Oracle()
    async with FakeKernel() as kernel:
        eth0 = kernel.add_link("eth0")
        eth0.add_address("10.0.2.2/24")
        kernel.add_route("0.0.0.0/0", via="10.0.2.1", device="eth0")
        config = PortalConfig(endpoints=(), probes=[oracle], on_demand=True)
        async with open_pt(kernel=kernel, portal=config) as pt:
            pt._engine.detector.advertised(resolver_advertised(eth0, 1))
            await trio.sleep(HOUR)
            assert oracle.asked == []


async def test_advertisements_that_always_differ_ask_by_their_link_alone_and_once_a_second(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with scene() as here:
        await trio.sleep(HOUR)
        here.oracle.take()
        for number in range(1, 101):
            for taken in (number - 8, number):  # it makes room for the next: eight of a router are kept
                if taken > 0:
                    option = resolver_advertised(here.wlan0, taken)
                    gone = attrs.evolve(option, body=option.body[:2] + bytes(4) + option.body[6:])
                    here.pt._engine.detector.advertised(option if taken == number else gone)
            await trio.sleep(0.1)
        await trio.sleep(HOUR)
        assert {(device, family) for _, device, family in here.oracle.asked} == {("wlan0", 4), ("wlan0", 6)}
        assert 2 * 5 <= len(here.oracle.asked) <= 2 * 11
        here.oracle.asked.clear()
        here.pt._engine.detector.advertised(resolver_advertised(here.wlan0, 1000))
        here.pt._engine.detector.advertised(resolver_advertised(here.wlan0, 1000))  # the second says nothing new
        await trio.sleep(HOUR)
        assert here.oracle.take() == {("wlan0", 4), ("wlan0", 6)}


@pytest.mark.parametrize("goes", ["carrier", "router"])
async def test_what_a_router_said_is_forgotten_with_the_carrier_or_the_way_by_that_router(
    goes: str, autojump_clock: trio.testing.MockClock
) -> None:
    known: list[int] = []

    async def own(way: Way) -> Evidence:
        await trio.lowlevel.checkpoint()
        if (way.device, way.family) == ("eth0", 6):
            known.append(len(way.resolvers))
        return Evidence(question=Question.OWN, finding=Finding.PASSED)

    async with FakeKernel() as kernel:
        eth0 = kernel.add_link("eth0")
        eth0.add_address("2001:db8::2/64")
        kernel.add_route("::/0", via="fe80::1", device="eth0", metric=1)
        kernel.add_route("::/0", via="fe80::2", device="eth0", metric=7)
        async with open_pt(kernel=kernel, portal=PortalConfig(endpoints=(), probes=[own])) as pt:
            await trio.sleep(1)
            pt._engine.detector.advertised(resolver_advertised(eth0, 1))
            await trio.sleep(2)
            assert known == [0, 1]
            if goes == "carrier":
                eth0.set_carrier(False)
                await trio.sleep(1)
                eth0.set_carrier(True)
            else:
                kernel.delete_route("::/0", via="fe80::1", device="eth0", metric=1)
            await trio.sleep(2)
            assert known == [0, 1, 0]


async def test_a_literal_endpoint_needs_only_a_route_to_itself(autojump_clock: trio.testing.MockClock) -> None:
    async with FakeKernel() as kernel:
        kernel.add_link("eth0").add_address("10.0.2.2/24")
        config = PortalConfig(endpoints=[Endpoint("http://198.51.100.7/")])
        async with open_pt(kernel=kernel, portal=config) as pt:
            await trio.sleep(1)
            assert pt.portal.state.evidence[0].finding is Finding.NO_DEFAULT_ROUTE
            kernel.add_route("198.51.100.0/24", via="10.0.2.1", device="eth0")
            await trio.sleep(1)
            findings = {one.finding for one in pt.portal.state.evidence}
            assert findings == {Finding.API_UNKNOWN, Finding.REFUSED}  # asked, and nobody listens


async def test_a_session_that_ends_is_told_in_time_and_looked_at_again(
    autojump_clock: trio.testing.MockClock,
) -> None:
    oracle = Oracle(capport=Capport(captive=False, seconds_remaining=600.0))
    async with scene(oracle) as here:
        with here.pt.subscribe(PortalExpiring) as events:
            await trio.sleep(1)
            asked = len(oracle.asked)
            oracle.capport = Capport(captive=False, seconds_remaining=60.0)
            with trio.fail_after(HOUR):
                event = await events.receive()
            assert isinstance(event, PortalExpiring)
            assert trio.current_time() == pytest.approx(540)
            assert event.state.expires_at == pytest.approx(600)
            assert event.state.kind is PortalKind.ONLINE
            assert len(oracle.asked) > asked
            oracle.capport = Capport(captive=False, seconds_remaining=50.0)
            await here.pt.portal.check()
            others = await all_of(events)  # each path once, however often it is looked at
            assert sorted((one.ifindex, one.family) for one in (event, *others) if isinstance(one, PortalExpiring)) == [
                (here.wlan0.ifindex, 4),
                (here.wlan0.ifindex, 6),
                (here.eth0.ifindex, 4),
            ]
            oracle.capport, oracle.kinds = None, {"wlan0": Finding.REDIRECT, "eth0": Finding.REDIRECT}
            await trio.sleep_until(600 + SETTLED + 0.5)
            assert here.pt.portal.state.kind is PortalKind.PORTAL
