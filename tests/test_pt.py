"""`open_pt()` and the wiring of a pt, on a fake kernel; the tasks themselves have tests of their own."""

from __future__ import annotations

import errno
import logging
import threading
from typing import NoReturn

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

import trio_routes
from trio_routes import (
    AddressAdded,
    AddressRemoved,
    ConnectionLost,
    Event,
    GatewayChanged,
    LinkDown,
    LinkUp,
    NoRouteError,
    Policy,
    Pt,
    RouteAdded,
    RouteLostError,
    RouteRemoved,
    RouteReplaced,
    RuleChanged,
    Standing,
    Verdict,
    open_pt,
)
from trio_routes.testing import FakeKernel, FakeStream


class NoNetlink(FakeKernel):
    """A system where netlink is missing or refused."""

    def open_netlink(self) -> NoReturn:
        raise OSError(errno.EAFNOSUPPORT, "this system has no netlink")


async def silent(stream: FakeStream) -> None:
    await trio.sleep_forever()


async def drain(events: trio.abc.ReceiveChannel[Event]) -> list[Event]:
    """Everything that is there by now."""
    got: list[Event] = []
    with trio.move_on_after(0.01):
        while True:
            got.append(await events.receive())
    return got


async def test_the_tables_are_complete_when_the_body_begins() -> None:
    """R42."""
    kernel = FakeKernel()
    wlan0 = kernel.add_link("wlan0")
    wlan0.add_address("192.0.2.2/24")
    kernel.add_route("default", via="192.0.2.1")
    async with open_pt(kernel=kernel) as pt:
        assert pt.monitoring
        assert [str(gateway) for gateway in pt.routes.lookup("198.51.100.7").gateways] == ["192.0.2.1"]
        assert str(pt.routes.lookup("198.51.100.7").source) == "192.0.2.2"
        assert {link.name for link in pt.routes.links.values()} >= {"lo", "wlan0"}
        assert "192.0.2.2" in {str(entry.address) for entry in pt.routes.addresses}
        assert [rule.priority for rule in pt.routes.rules] == [0, 32766, 32767, 0, 32766]


async def test_the_zone_of_a_link_local_destination_is_the_link_that_it_goes_by() -> None:
    kernel = FakeKernel()
    links: dict[str, int] = {}
    for name in ("eth0", "eth1"):
        link = kernel.add_link(name)
        link.add_address(f"fe80::{link.ifindex}/64")
        links[name] = link.ifindex
    async with open_pt(kernel=kernel) as pt:
        for name, ifindex in links.items():
            for zone in (name, ifindex):
                assert [hop.ifindex for hop in pt.routes.lookup(f"fe80::7%{zone}").hops] == [ifindex]
        assert [hop.ifindex for hop in pt.routes.lookup("fe80::7%eth0", oif=links["eth1"]).hops] == [links["eth1"]]
        found = pt.routes.explain("fe80::7%eth1").resolution
        assert [hop.ifindex for hop in found.hops] == [links["eth1"]]
        for look_up in (pt.routes.lookup, pt.routes.explain):
            with pytest.raises(ValueError, match="there is no link 'eth7'"):
                look_up("fe80::7%eth7")


async def test_a_source_of_another_family_is_no_question() -> None:
    async with open_pt(kernel=FakeKernel()) as pt:
        for look_up in (pt.routes.lookup, pt.routes.explain):
            with pytest.raises(ValueError, match=r"::1 is of another family than 192\.0\.2\.1"):
                look_up("192.0.2.1", source="::1")


async def test_every_change_is_told_as_what_it_is_and_in_libwebsockets_words(
    autojump_clock: trio.testing.MockClock,
) -> None:
    kernel = FakeKernel()
    wlan0 = kernel.add_link("wlan0")
    wlan0.add_address("192.0.2.2/24")
    async with open_pt(kernel=kernel) as pt:
        with pt.subscribe() as events:
            kernel.add_route("default", via="192.0.2.1")
            await kernel.settle()
            added = await drain(events)
            assert [type(event) for event in added] == [RouteAdded, GatewayChanged]
            assert [event.as_smd() for event in added] == [
                {"rt": "add"},
                {"trigger": "cpdcheck", "src": "gw-change"},
            ]
            kernel.replace_route("default", via="192.0.2.9")
            await kernel.settle()
            replaced = await drain(events)
            assert [type(event) for event in replaced] == [RouteReplaced, GatewayChanged]
            assert replaced[0].as_smd() == {"rt": "add"}
            kernel.add_route("default", via="192.0.2.1", metric=500)
            await kernel.settle()
            behind = (await drain(events))[-1]
            assert isinstance(behind, GatewayChanged)
            assert [str(hop.gateway) for hop in behind.after] == ["192.0.2.9", "192.0.2.1"]
            kernel.add_route("default", via="192.0.2.1", metric=600)
            await kernel.settle()
            assert [type(event) for event in await drain(events)] == [RouteAdded]  # nothing new is preferred
            kernel.delete_route("default", via="192.0.2.1", metric=500)
            kernel.delete_route("default", via="192.0.2.1", metric=600)
            await kernel.settle()
            await drain(events)
            kernel.delete_route("default", via="192.0.2.9")
            await kernel.settle()
            removed = await drain(events)
            assert [type(event) for event in removed] == [RouteRemoved, GatewayChanged]
            assert removed[0].as_smd() == {"rt": "del"}
            wlan0.add_address("2001:db8::2/64")
            await kernel.settle()
            assert {type(event) for event in await drain(events)} == {AddressAdded, RouteAdded}
            wlan0.set_down()
            await kernel.settle()
            down = await drain(events)
            assert {type(event) for event in down} == {LinkDown, AddressRemoved, RouteRemoved}
            assert next(event.cause for event in down if isinstance(event, LinkDown)) == "link wlan0 was set down"
            wlan0.set_up()
            await kernel.settle()
            assert LinkUp in {type(event) for event in await drain(events)}
            kernel.add_rule(table=100, mark=7)
            await kernel.settle()
            assert [type(event) for event in await drain(events)] == [RuleChanged]
            assert {event.generation for event in down} == {down[0].generation}
            assert down[0].generation > added[0].generation


async def test_a_gateway_that_goes_and_comes_back_at_once_is_a_change_all_the_same(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Many networks have a gateway of the same address; a route by another metric alone is no change."""
    kernel = FakeKernel()
    kernel.add_link("wlan0").add_address("192.0.2.2/24")
    kernel.add_route("default", via="192.0.2.1")
    async with open_pt(kernel=kernel) as pt:
        with pt.subscribe(GatewayChanged) as events:
            kernel.delete_route("default", via="192.0.2.1")
            kernel.add_route("default", via="192.0.2.1")
            await kernel.settle()
            (changed,) = await drain(events)
            assert isinstance(changed, GatewayChanged) and changed.before == changed.after != ()
            kernel.add_route("default", via="192.0.2.1", metric=500)
            kernel.delete_route("default", via="192.0.2.1", metric=0)
            await kernel.settle()
            assert await drain(events) == []


async def test_a_lost_connection_is_told_once_and_stays_in_the_history(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with FakeKernel() as kernel:
        wlan0 = kernel.add_link("wlan0")
        wlan0.add_address("192.0.2.2/24")
        kernel.add_route("default", via="192.0.2.1")
        kernel.listen("198.51.100.7", 5432, silent)
        async with open_pt(kernel=kernel, policy=Policy.immediate()) as pt:
            stream = await pt.open_tcp_stream("198.51.100.7", 5432, label="database")
            assert [connection.label for connection in pt.connections] == ["database"]
            with pt.subscribe(ConnectionLost) as events:
                with pytest.raises(RouteLostError) as caught, pt.guard(stream), pt.guard(stream):
                    kernel.delete_route("default", via="192.0.2.1")
                    await trio.sleep_forever()
                assert [type(event) for event in await drain(events)] == [ConnectionLost]
            assert caught.value.verdict is Verdict.NO_ROUTE
            assert list(pt.connections) == []
            assert [connection.standing for connection in pt.connections.history] == [Standing.LOST]
            statistics = pt.statistics()
            assert (statistics.connections, statistics.lost) == (0, 1)
            with pytest.raises(NoRouteError) as refused:
                await pt.open_tcp_stream("198.51.100.7", 5432)
            assert refused.value.errno == errno.ENETUNREACH


async def test_without_netlink_everything_runs_and_nothing_is_judged(
    caplog: pytest.LogCaptureFixture, autojump_clock: trio.testing.MockClock
) -> None:
    """DESIGN: monitoring is False, and one warning is logged."""
    async with NoNetlink() as kernel:
        wlan0 = kernel.add_link("wlan0")
        wlan0.add_address("192.0.2.2/24")
        kernel.add_route("default", via="192.0.2.1")
        kernel.listen("198.51.100.7", 5432, silent)
        with caplog.at_level(logging.WARNING, logger="trio_routes"):
            async with open_pt(kernel=kernel, policy=Policy.immediate()) as pt:
                assert not pt.monitoring
                assert not pt.statistics().monitoring
                await pt.wait_routable("203.0.113.1")
                async with await pt.open_tcp_stream("198.51.100.7", 5432) as stream:
                    kernel.delete_route("default", via="192.0.2.1")
                    await trio.sleep(100)
                    assert stream.connection.standing is Standing.GOOD
                    assert stream.connection.verdict is Verdict.UNJUDGED
        assert [record.getMessage() for record in caplog.records] == [
            "connections are not monitored: [Errno 97] this system has no netlink"
        ]


async def test_a_namespace_and_a_kernel_exclude_each_other() -> None:
    with pytest.raises(ValueError, match="netns= and kernel= exclude each other"):
        async with open_pt(kernel=FakeKernel(), netns="blue"):
            raise AssertionError("it opened")


async def test_a_misspelt_namespace_is_named_and_raised_bare() -> None:
    """R44."""
    with pytest.raises(FileNotFoundError, match="no-such-namespace"):
        async with open_pt(netns="no-such-namespace"):
            raise AssertionError("it opened")


async def test_a_closed_pt_says_so() -> None:
    """R6."""
    async with open_pt(kernel=FakeKernel()) as pt:
        pass
    one, other = trio.socket.socketpair()
    with one, other, pytest.raises(trio.ClosedResourceError, match="closed"):
        pt.guard(one)
    with pytest.raises(trio.ClosedResourceError, match="closed"):
        pt.subscribe()
    with pytest.raises(trio.ClosedResourceError, match="closed"):
        await pt.wait_routable("192.0.2.1")
    with pytest.raises(trio.ClosedResourceError):
        await pt.portal.check()


async def test_another_runs_pt_is_refused() -> None:
    """R6, R51."""
    async with open_pt(kernel=FakeKernel()) as pt:
        errors: list[BaseException] = []

        async def use_it(pt: Pt) -> None:
            with pytest.raises(RuntimeError, match="another Trio run") as caught:
                pt.guard(None)
            errors.append(caught.value)
            with pytest.raises(RuntimeError, match="another Trio run") as caught:
                pt.subscribe()
            errors.append(caught.value)

        thread = threading.Thread(target=trio.run, args=(use_it, pt))
        thread.start()
        await trio.to_thread.run_sync(thread.join)
        assert len(errors) == 2


async def test_leaving_while_others_still_guard_logs_one_warning_and_cancels_nobody(
    caplog: pytest.LogCaptureFixture, autojump_clock: trio.testing.MockClock
) -> None:
    """R15."""
    async with FakeKernel() as kernel:
        wlan0 = kernel.add_link("wlan0")
        wlan0.add_address("192.0.2.2/24")
        kernel.listen("192.0.2.7", 5432, silent)
        finished = trio.Event()

        async def guarded(pt: Pt, stream: trio_routes.GuardedStream) -> None:
            with pt.guard(stream):
                await trio.sleep(5)
            finished.set()

        async with trio.open_nursery() as nursery:
            with caplog.at_level(logging.WARNING, logger="trio_routes"):
                async with open_pt(kernel=kernel, policy=Policy.immediate()) as pt:
                    stream = await pt.open_tcp_stream("192.0.2.7", 5432)
                    nursery.start_soon(guarded, pt, stream)
                    await wait_all_tasks_blocked()
            wlan0.set_down()
            await finished.wait()
        assert len(caplog.records) == 1
        assert "1 connection was still guarded; nobody watches it now" in caplog.text


def test_the_portal_says_nothing_unless_asked() -> None:
    """R48."""

    async def main() -> None:
        async with open_pt(kernel=FakeKernel()) as pt:
            assert pt.portal.state.kind is trio_routes.PortalKind.UNKNOWN
            with pytest.raises(RuntimeError, match="detection is off"):
                await pt.portal.wait_online()

    trio.run(main)


@pytest.mark.parametrize("turns", range(12))
async def test_r46_a_snapshot_and_the_events_after_it_miss_nothing_whenever_it_is_taken(
    turns: int, autojump_clock: trio.testing.MockClock
) -> None:
    """R46: subscribe, take the snapshot without an `await` between, skip the events that are in it already."""
    kernel = FakeKernel()
    kernel.add_link("wlan0").add_address("192.0.2.2/24")
    kernel.add_route("203.0.113.0/24", via="192.0.2.1")
    async with open_pt(kernel=kernel) as pt, trio.open_nursery() as nursery:

        async def change() -> None:
            for number in range(10):
                kernel.add_route(f"198.51.{number}.0/24", via="192.0.2.1")
                await trio.lowlevel.checkpoint()
            kernel.delete_route("203.0.113.0/24", via="192.0.2.1")

        nursery.start_soon(change)
        for _ in range(turns):
            await trio.lowlevel.checkpoint()
        with pt.subscribe(RouteAdded, RouteRemoved) as events:
            known, generation = set(map(str, pt.routes)), pt.generation
            with trio.move_on_after(1):
                async for event in events:
                    if event.generation <= generation:
                        continue
                    if isinstance(event, RouteAdded):
                        known.add(str(event.route))
                    elif isinstance(event, RouteRemoved):
                        known.remove(str(event.route))
        assert known == set(map(str, pt.routes))
        assert sum("198.51." in route for route in known) == 10
