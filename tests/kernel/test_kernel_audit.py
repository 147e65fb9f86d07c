"""The audit and the self-check on the real kernel, with tables that were corrupted on purpose and with healthy ones.

The time between audits, and until a second look, is shortened: nothing here depends on how long they are.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from ipaddress import ip_address

import pytest
import trio

from tests.routing._kernel import ip
from trio_routes import _follow, _selfcheck, testing
from trio_routes._follow import Follower
from trio_routes._selfcheck_answers import Question
from trio_routes.netlink import AF_INET, AF_INET6, Channel, LinuxKernel
from trio_routes.routing import FOUND_BY_DUMP, Cache, ChangeBatch, Resolution

pytestmark = pytest.mark.netns

AUDIT = 0.3


class Audited:
    """A follower of a host that audits all the time."""

    def __init__(self, channel: Channel, peers: list[Question]) -> None:
        self.cache = Cache()
        self.batches: list[ChangeBatch] = []
        self.follower = Follower(channel, self.cache, self.batches.append, peers=lambda: peers, audit_seconds=AUDIT)
        self.statistics = self.follower.statistics
        self.checks = self.follower.self_check.statistics

    async def until(self, what: Callable[[], bool]) -> None:
        with trio.fail_after(10):
            while not what():  # noqa: ASYNC110 - the follower tells nobody of its counters
                await trio.sleep(0.02)

    async def audits(self, count: int) -> None:
        """Wait for so many audits from now on, self-checks and second looks included."""
        wanted = self.statistics.audits + count + 1
        await self.until(lambda: self.statistics.audits >= wanted)

    @property
    def found(self) -> int:
        return sum(change.cause == FOUND_BY_DUMP for batch in self.batches for change in batch.routes)


@asynccontextmanager
async def audited(host: testing.Host, *peers: Question) -> AsyncGenerator[Audited]:
    kernel = LinuxKernel(host.netns)
    channel = Channel(kernel.open_netlink())
    try:
        it = Audited(channel, list(peers))
        async with trio.open_nursery() as nursery:
            await nursery.start(it.follower.run)
            yield it
            nursery.cancel_scope.cancel()
    finally:
        channel.close()
        kernel.close()


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_follow, "SECOND_LOOK", 0.1)
    monkeypatch.setattr(_selfcheck, "SECOND_LOOK", 0.1)


@pytest.fixture
def host(lab: testing.Lab) -> testing.Host:
    host = lab.host("device")
    for at in range(2):
        host.plug(lab.network(f"n{at}"), name=f"d{at}", addresses=[f"10.0.{at}.10/24", f"2001:db8:{at}::10/64"])
    for command in (
        "route add default via 10.0.0.1",
        "route add 198.51.100.0/24 nexthop via 10.0.0.2 nexthop via 10.0.1.2",
        "route add unreachable 203.0.113.0/24",
        "-6 route add default via 2001:db8:0::1",
        "-6 route add 2001:db8:f::/48 via 2001:db8:1::1 metric 10",
    ):
        assert not ip(host, command)
    return host


async def test_a_healthy_cache_shows_no_differences_however_much_changes(host: testing.Host) -> None:
    peers = [
        Question(ip_address(text)) for text in ("198.51.100.7", "203.0.113.7", "8.8.8.8", "2001:db8:f::7", "10.0.0.10")
    ]
    peers.append(Question(ip_address("9.9.9.9"), source=ip_address("10.0.0.10"), mark=7, tos=0x10))
    peers.append(Question(ip_address("2001:db9::9"), source=ip_address("2001:db8:1::10"), oif=host.links["d1"].ifindex))
    async with audited(host, *peers) as it:
        for turn in range(15):
            for command in (
                "route replace 192.0.2.0/24 via 10.0.1.9",
                f"-6 route append 2001:db8:f::/48 via 2001:db8:0::{turn + 0x20:x} metric 10",
                "rule add pref 100 fwmark 7 lookup 100",
                "route replace default via 10.0.1.1 table 100",
                "-6 route add unreachable 2001:db8:e::/48",
                "route del 192.0.2.0/24",
                "-6 route del unreachable 2001:db8:e::/48",
                "rule del pref 100",
            ):
                assert not ip(host, command)
            host.links["d1"].carrier(bool(turn % 2))
            # Who asks for the link has the kernel tell of its carrier now, which else may take longer than SECOND_LOOK here.
            assert not ip(host, "link show dev d1")
            await trio.sleep(0.05)
        host.links["d1"].carrier(True)
        assert not ip(host, "link show dev d1")
        await it.audits(3)
        assert it.checks.checks > 30
        assert (it.statistics.audit_differences, it.checks.differences, it.statistics.resyncs) == (0, 0, 0), it.checks


@pytest.mark.parametrize("way", ["removed", "altered"])
async def test_a_cache_that_was_corrupted_is_put_right_and_says_so(
    host: testing.Host, caplog: pytest.LogCaptureFixture, way: str
) -> None:
    async with audited(host) as it:
        tables = it.cache.state.tables[AF_INET]
        right = tables.at((254, 0, 0))
        tables.put((254, 0, 0), () if way == "removed" else tables.at((254, 24, int(ip_address("10.0.1.0")))))
        await it.until(lambda: it.cache.state.tables[AF_INET].at((254, 0, 0)) == right)
        await it.audits(2)
        assert it.statistics.audit_differences == 1 and it.found
        assert sum("0.0.0.0/0 table 254" in record.getMessage() for record in caplog.records) == 1


async def test_a_route_hidden_between_siblings_is_left_alone_by_audit_and_self_check(host: testing.Host) -> None:
    bound = Question(ip_address("2001:db8:c::7"), oif=host.links["d1"].ifindex)
    key = (254, 48, int(ip_address("2001:db8:c::")))
    async with audited(host, bound) as it:
        for command in (
            "-6 route append 2001:db8:c::/48 via 2001:db8:0::1 metric 10",
            "-6 route append 2001:db8:c::/48 dev d1 metric 10",
            "-6 route append 2001:db8:c::/48 via 2001:db8:1::1 metric 10",
        ):
            assert not ip(host, command)
        shown = await host.run(["ip", "-6", "route", "show", "2001:db8:c::/48"])
        assert shown.count("nexthop") == 2 and shown.count("dev d1") == 1, shown  # this kernel hides it, too
        await it.until(lambda: len(it.cache.state.tables[AF_INET6].at(key)) == 2)
        it.batches.clear()
        await it.audits(3)
        assert len(it.cache.state.tables[AF_INET6].at(key)) == 2
        assert it.statistics.dump_exceptions >= 3 and not it.batches
        assert (it.statistics.audit_differences, it.checks.differences, it.statistics.resyncs) == (0, 0, 0)
        # One that begins now cannot know of it. The kernel's answer betrays it, and reading anew would not help.
        async with audited(host, bound) as late:
            assert len(late.cache.state.tables[AF_INET6].at(key)) == 1
            await late.audits(2)
            assert late.checks.exemptions["IPv6 routes of one metric"] >= 2
            assert (late.checks.differences, late.statistics.resyncs) == (0, 0)


async def test_a_lookup_that_goes_wrong_is_noticed_by_the_kernels_answer(
    host: testing.Host, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with audited(host, Question(ip_address("198.51.100.7"))) as it:
        wrong = it.cache.lookup(ip_address("10.0.1.7"))

        def say_wrong(*_: object, **__: object) -> Resolution:
            return wrong

        monkeypatch.setattr(it.cache, "lookup", say_wrong)
        await it.until(lambda: it.checks.differences > 0)
        said = [record.getMessage() for record in caplog.records if "the way to 198.51.100.7" in record.getMessage()]
        assert len(said) == 1 and "via 10.0." in said[0] and caplog.records[0].levelno == logging.WARNING
        await it.until(lambda: it.statistics.resyncs == 1)
        await it.until(lambda: any(batch.resynced for batch in it.batches))


def by_objects(host: testing.Host) -> None:
    """Nexthop objects, a group of two among them, and routes of both families by each."""
    for command in (
        "nexthop add id 1 via 10.0.0.1 dev d0",
        "nexthop add id 2 via 10.0.1.1 dev d1",
        "nexthop add id 3 group 1/2",
        "nexthop add id 4 via 2001:db8:0::1 dev d0",
        "nexthop add id 5 via 2001:db8:1::1 dev d1",
        "nexthop add id 6 group 4/5",
        "route add 192.0.2.0/25 nhid 1",
        "route add 192.0.2.128/25 nhid 3",
        "route add 192.0.2.128/25 via 10.0.0.9 metric 7",
        "-6 route add 2001:db8:a::/48 nhid 4",
        "-6 route add 2001:db8:b::/48 nhid 6",
    ):
        assert not ip(host, command)


def naming_objects(it: Audited) -> set[str]:
    return {str(route.destination) for route in it.cache.routes() if route.body.nexthop_id}


async def test_how_routes_by_nexthop_objects_are_shown_is_no_difference(host: testing.Host) -> None:
    by_objects(host)
    async with audited(host, Question(ip_address("192.0.2.200")), Question(ip_address("2001:db8:b::7"))) as it:
        for mode in (0, 1, 0):
            host.sysctl("net.ipv4.nexthop_compat_mode", mode)
            await it.audits(1)
        assert it.statistics.audit_differences == 0 and it.found == 0
        assert not any(batch.routes for batch in it.batches)
        assert len(naming_objects(it)) == 4
        assert len(it.cache.lookup(ip_address("192.0.2.200")).hops) == 2


@pytest.mark.parametrize("mode", [0, 1])
async def test_a_route_that_was_shown_in_another_form_goes_when_it_is_deleted(host: testing.Host, mode: int) -> None:
    host.sysctl("net.ipv4.nexthop_compat_mode", 1 - mode)
    by_objects(host)
    async with audited(host) as it:
        host.sysctl("net.ipv4.nexthop_compat_mode", mode)
        for command in (
            "route del 192.0.2.0/25",
            "route del 192.0.2.128/25 metric 0",
            "-6 route del 2001:db8:a::/48",
            "-6 route del 2001:db8:b::/48",
        ):
            assert not ip(host, command)
        it.follower.apply_pending()
        assert not naming_objects(it)
        assert it.cache.lookup(ip_address("192.0.2.200")).gateways == (ip_address("10.0.0.9"),)


async def test_a_group_that_shrank_without_a_word_is_no_difference_and_its_routes_can_go(host: testing.Host) -> None:
    by_objects(host)
    async with audited(host) as it:
        assert not ip(host, "link set d1 down")
        await it.audits(1)
        assert it.statistics.audit_differences == 0
        assert len(it.cache.lookup(ip_address("192.0.2.200")).hops) == 1
        assert not ip(host, "route del 192.0.2.128/25 metric 0")
        assert not ip(host, "-6 route del 2001:db8:b::/48")
        it.follower.apply_pending()
        assert naming_objects(it) == {"192.0.2.0/25", "2001:db8:a::/48"}
