"""The detector's task in virtual time: when it asks, what it tells, and that no old answer stands for a new network.

Nothing is known of links here, so it asks by the default path alone; `test_detector_links` is about the links.
"""

from __future__ import annotations

import errno
import itertools
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager

import attrs
import pytest
import trio
import trio.testing

from tests.portal._network import ONLINE, PORTAL, FakeNetwork, mute, says
from trio_routes._events import Event, PortalChanged
from trio_routes.portal import (
    Endpoint,
    Evidence,
    Finding,
    PortalConfig,
    PortalKind,
    PortalState,
    PortalView,
    Question,
    Way,
)
from trio_routes.portal._detector import Detector
from trio_routes.portal._examination import Examiner
from trio_routes.portal._hints import Known
from trio_routes.portal._pursuit import SETTLE_SECONDS
from trio_routes.portal._rules import unknown

REFUSED = ConnectionRefusedError(errno.ECONNREFUSED, "refused")
ENDPOINT = Endpoint("http://check.example/generate_204")
DEFAULT = PortalConfig(endpoints=[ENDPOINT])
HOUR = 3600.0
DAY = 24 * HOUR


@attrs.define
class Pt:
    """What a pt has around its detector."""

    network: FakeNetwork
    detector: Detector
    events: list[PortalChanged]
    task: trio.CancelScope
    tables: list[int]

    @property
    def told(self) -> list[tuple[PortalKind, PortalKind]]:
        return [(event.before.kind, event.state.kind) for event in self.events]

    def gateway_changes(self) -> None:
        self.tables[0] += 1
        self.detector.trigger(f"generation {self.tables[0]}")


@asynccontextmanager
async def detecting(server: object, config: PortalConfig | None = DEFAULT) -> AsyncGenerator[Pt, None]:
    events: list[PortalChanged] = []
    tables = [5]

    def publish(event: Event) -> None:
        assert isinstance(event, PortalChanged)
        events.append(event)

    async with trio.open_nursery() as nursery:
        network = FakeNetwork(nursery, server)  # type: ignore[arg-type]  # FakeNetwork says what it may be
        detector = Detector(network, config, publish, lambda: tables[0])
        if config is None:  # the defaults are three, and one of them speaks TLS
            detector._examiner = Examiner((ENDPOINT,), ())
        task = trio.CancelScope()

        async def run() -> None:
            with task:
                await detector.run()

        nursery.start_soon(run)
        yield Pt(network, detector, events, task, tables)
        nursery.cancel_scope.cancel()


# When it asks.


async def test_nothing_is_sent_unless_asked_for(autojump_clock: trio.testing.MockClock) -> None:
    async with detecting(says(ONLINE), None) as pt:
        for _ in range(10):
            pt.gateway_changes()
            await trio.sleep(HOUR)
        assert pt.network.resolved == []
        assert pt.network.connects == []
        assert pt.detector.state.kind is PortalKind.UNKNOWN
        with pytest.raises(RuntimeError, match="off"):
            await pt.detector.wait_online()


async def test_online_is_found_at_the_start_and_then_nothing_is_sent_any_more(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with detecting(says(ONLINE)) as pt:
        await pt.detector.wait_online()
        assert trio.current_time() == 0
        resolved = list(pt.network.resolved)
        await trio.sleep(HOUR)
        assert pt.network.times == [0.0]
        assert pt.network.resolved == resolved  # no name either
        assert pt.told == [(PortalKind.UNKNOWN, PortalKind.ONLINE)]


@pytest.mark.parametrize("server", [REFUSED, says(PORTAL)], ids=["offline", "portal"])
async def test_rechecks_double_from_a_second_to_ten_minutes(
    server: object, autojump_clock: trio.testing.MockClock
) -> None:
    async with detecting(server) as pt:
        await trio.sleep(HOUR)
        assert _pauses([0.0, *pt.network.times]) == [0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 600, 600, 600, 600]
        assert len(pt.events) == 1  # the same finding is no news


async def test_a_trigger_starts_the_rechecks_anew(autojump_clock: trio.testing.MockClock) -> None:
    async with detecting(REFUSED) as pt:
        await trio.sleep(20)
        assert pt.network.times == [0, 1, 3, 7, 15]
        pt.gateway_changes()
        await trio.sleep(10)
        assert pt.network.times[5:] == pytest.approx([20.1, 21.1, 23.1, 27.1])


async def test_going_offline_after_having_been_online_starts_the_rechecks_anew(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with detecting(REFUSED) as pt:
        await trio.sleep(20)
        pt.network.server = says(ONLINE)
        await pt.detector.wait_online()
        pt.network.server = REFUSED
        await pt.detector.check()
        begin = trio.current_time()
        await trio.sleep(8)
        assert [when - begin for when in pt.network.times if when > begin] == pytest.approx([1, 3, 7])


async def test_a_check_between_rechecks_does_not_slow_them_down(autojump_clock: trio.testing.MockClock) -> None:
    async with detecting(REFUSED) as pt:
        await trio.sleep(3.5)
        assert (await pt.detector.check()).kind is PortalKind.OFFLINE
        await trio.sleep(5)
        assert pt.network.times == [0, 1, 3, 3.5, 7.5]


async def test_many_triggers_are_one_run(autojump_clock: trio.testing.MockClock) -> None:
    async with detecting(says(ONLINE)) as pt:
        await pt.detector.wait_online()
        for _ in range(9):
            pt.gateway_changes()
            await trio.sleep(SETTLE_SECONDS / 10)
        await pt.detector.wait_online()
        await trio.sleep(HOUR)
        assert pt.network.times == pytest.approx([0, SETTLE_SECONDS])
        assert pt.detector.state.generation == 5 + 9


async def test_a_gateway_that_flaps_for_ever_is_still_looked_at_and_not_too_often(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with detecting(mute) as pt:
        for _ in range(1000):
            pt.gateway_changes()
            await trio.sleep(0.01)
        assert 50 <= len(pt.network.times) <= 10 / SETTLE_SECONDS + 1


# What belongs to an older gateway.


async def test_a_trigger_in_the_midst_of_a_run_restarts_it_for_the_new_network(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with detecting(mute) as pt:
        await trio.sleep(1)
        assert pt.network.times == [0]
        pt.network.server = says(ONLINE)
        pt.gateway_changes()
        await pt.detector.wait_online()
        assert trio.current_time() == pytest.approx(1 + SETTLE_SECONDS)
        assert pt.detector.state.generation == 6
        assert {one.generation for one in pt.detector.state.evidence} == {6}
        assert pt.told == [(PortalKind.UNKNOWN, PortalKind.ONLINE)]
        assert await pt.network.all_closed()


async def test_the_old_networks_answer_is_dropped_even_if_it_came_in_the_tick_of_the_trigger(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    answers = [302, 204]

    async def examine(self: Examiner, way: Way, known: Known) -> tuple[Evidence, ...]:
        await trio.sleep(1)
        status = answers.pop(0)
        if status == 302:
            pt.gateway_changes()  # and no checkpoint follows at which a cancellation could strike
        finding = Finding.REDIRECT if status == 302 else Finding.PASSED
        return (Evidence(question=Question.HTTP_204, finding=finding, status=status),)

    monkeypatch.setattr(Examiner, "examine", examine)
    async with detecting(mute) as pt:
        await pt.detector.wait_online()
        assert pt.told == [(PortalKind.UNKNOWN, PortalKind.ONLINE)]
        assert pt.detector.state.generation == 6


async def test_from_the_trigger_on_the_old_state_is_unknown_and_nobody_is_told_online(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with detecting(says(ONLINE)) as pt:
        await pt.detector.wait_online()
        pt.network.server = says(PORTAL)
        pt.gateway_changes()
        assert pt.detector.state == unknown(6)
        with trio.move_on_after(HOUR) as scope:
            await pt.detector.wait_online()
        assert scope.cancelled_caught
        assert pt.told == [(PortalKind.UNKNOWN, PortalKind.ONLINE), (PortalKind.ONLINE, PortalKind.PORTAL)]


async def test_whoever_waits_is_not_woken_with_an_answer_that_a_trigger_overtook(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with detecting(says(ONLINE)) as pt:
        returned: list[tuple[PortalKind, int]] = []

        async def wait() -> None:
            await pt.detector.wait_online()
            state = pt.detector.state
            returned.append((state.kind, state.generation))

        async def check() -> None:
            state = await pt.detector.check()
            returned.append((state.kind, state.generation))

        def publish(event: Event) -> None:
            # The finding is told; before a waiter can run, the gateway changes.
            if not returned and pt.tables[0] == 5:
                pt.gateway_changes()

        pt.detector._publish = publish
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            nursery.start_soon(check)
        assert returned == [(PortalKind.ONLINE, 6)] * 2


async def test_the_same_finding_behind_another_gateway_is_no_event(autojump_clock: trio.testing.MockClock) -> None:
    async with detecting(says(ONLINE)) as pt:
        await pt.detector.wait_online()
        pt.gateway_changes()
        await pt.detector.wait_online()
        assert pt.network.times == pytest.approx([0, SETTLE_SECONDS])
        assert len(pt.events) == 1


# What it tells.


async def test_a_login_is_noticed_and_each_change_is_told_once(autojump_clock: trio.testing.MockClock) -> None:
    async with detecting(says(PORTAL)) as pt:
        await trio.sleep(5)
        assert pt.detector.state.url == "http://login.example/"
        pt.network.server = says(ONLINE)
        await pt.detector.wait_online()
        assert trio.current_time() == 7
        assert pt.told == [(PortalKind.UNKNOWN, PortalKind.PORTAL), (PortalKind.PORTAL, PortalKind.ONLINE)]
        assert [event.as_smd() for event in pt.events] == [
            {"type": "cpd", "result": "Captive"},
            {"type": "cpd", "result": "OK"},
        ]
        assert [(event.generation, event.time) for event in pt.events] == [(5, 0), (5, 7)]


async def test_all_configured_endpoints_are_asked(autojump_clock: trio.testing.MockClock) -> None:
    config = PortalConfig(endpoints=(Endpoint("http://a.example/"), Endpoint("http://b.example/")))
    async with detecting(says(ONLINE), config) as pt:
        await pt.detector.wait_online()
        assert sorted(pt.network.resolved[:2]) == ["a.example", "b.example"]
        about = [one.question for one in pt.detector.state.evidence]
        # Both have the same private address, so a name that cannot exist is asked for, too.
        assert about == [Question.HTTP_204, Question.HTTP_204, Question.NAMES]


# What a check does.


async def test_check_asks_once_with_detection_off_and_a_new_gateway_makes_the_answer_void(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with detecting(says(PORTAL), None) as pt:
        portal = PortalView(pt.detector)
        state = await portal.check()
        assert (state.kind, state.url, state) == (PortalKind.PORTAL, "http://login.example/", portal.state)
        assert pt.network.resolved[0] == "check.example"
        assert len(pt.events) == 1
        await trio.sleep(HOUR)
        assert pt.network.times == [0]
        pt.gateway_changes()
        assert portal.state.kind is PortalKind.UNKNOWN
        await trio.sleep(HOUR)
        assert pt.network.times == [0]


async def test_checks_at_the_same_time_are_one_run(autojump_clock: trio.testing.MockClock) -> None:
    async with detecting(says(ONLINE), None) as pt, trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(pt.detector.check)
        await trio.testing.wait_all_tasks_blocked()
        assert pt.network.times == [0]


async def test_a_check_that_a_gateway_change_overtakes_answers_for_the_new_one_though_detection_is_off(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with detecting(mute, None) as pt:
        found: list[PortalState] = []

        async def check() -> None:
            found.append(await pt.detector.check())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(check)
            await trio.sleep(1)
            pt.network.server = says(ONLINE)
            pt.gateway_changes()
        assert [(state.kind, state.generation) for state in found] == [(PortalKind.ONLINE, 6)]


async def test_a_cancelled_check_harms_nobody(autojump_clock: trio.testing.MockClock) -> None:
    async with detecting(mute, None) as pt:
        with trio.move_on_after(1) as scope:
            await pt.detector.check()
        assert scope.cancelled_caught
        assert pt.network.times == [0]
        pt.network.server = says(ONLINE)
        # The run goes on by itself to its end at 3 s, and a check joins it; another one asks anew.
        assert (await pt.detector.check()).kind is PortalKind.OFFLINE
        assert trio.current_time() == pytest.approx(3)
        assert (await pt.detector.check()).kind is PortalKind.ONLINE


# The end.


async def test_after_the_pt_has_ended_nobody_waits_for_ever(autojump_clock: trio.testing.MockClock) -> None:
    ended = 0

    async def fails(wait: Callable[[], Awaitable[object]]) -> None:
        nonlocal ended
        with pytest.raises(trio.ClosedResourceError):
            await wait()
        ended += 1

    async with detecting(mute) as pt, trio.open_nursery() as nursery:
        nursery.start_soon(fails, pt.detector.check)
        nursery.start_soon(fails, pt.detector.wait_online)
        await trio.testing.wait_all_tasks_blocked()
        pt.task.cancel()
        await trio.testing.wait_all_tasks_blocked()
        assert ended == 2
        nursery.start_soon(fails, pt.detector.check)
        nursery.start_soon(fails, pt.detector.wait_online)
        pt.detector.trigger("too late")
    assert ended == 4


async def test_a_day_behind_a_portal_costs_few_connections(autojump_clock: trio.testing.MockClock) -> None:
    async with detecting(says(PORTAL)) as pt:
        await trio.sleep(DAY)
        assert len(pt.network.connects) == 11 + (DAY - 1023) // 600


def _pauses(times: list[float]) -> list[float]:
    return [round(after - before, 6) for before, after in itertools.pairwise(times)]
