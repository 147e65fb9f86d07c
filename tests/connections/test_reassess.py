"""The reassessment task: who is judged after a change, when, and what comes of it. No wall time passes."""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Callable
from ipaddress import ip_address

import attrs
import pytest
import trio
import trio.testing
from hypothesis import given, settings, strategies as st
from trio.testing import MockClock

from tests.connections.network import C1, C2, C3, LO, NO_CARRIER, UP, Site
from trio_routes._events import (
    ConnectionLost,
    ConnectionRecovered,
    ConnectionRerouted,
    ConnectionSuspect,
    Event,
)
from trio_routes.connections import Connection, Flow, Policy, Probe, Reassessor, Registry, Standing, Verdict
from trio_routes.connections._docket import _PUT_RIGHT_AT_ONCE
from trio_routes.connections._judge import judge
from trio_routes.connections._reassess import CHUNK
from trio_routes.netlink import RTN_BLACKHOLE, RTN_LOCAL, RTN_THROW
from trio_routes.routing import ChangeBatch

FAR = "1.1.1.1"  # global: from a private address only reached by translation


class Stream:
    def __init__(self, flow: Flow) -> None:
        self.flow = flow
        self.aborted = False

    def abort(self) -> None:
        self.aborted = True


class Watch:
    """A registry with its reassessment, on a network by hand."""

    def __init__(self, family: int = 4) -> None:
        self.site = Site(family)
        self.network = self.site.network
        self.events: list[Event] = []
        self.monitoring = True
        self.applied = 0
        self.streams: list[Stream] = []
        self.registry = Registry(
            self.network,
            policy=Policy(),
            publish=self.events.append,
            monitoring=lambda: self.monitoring,
            netns_cookie=None,
        )
        self.reassessor = Reassessor(self.registry, self.network, apply_pending=self.apply_pending)

    def apply_pending(self) -> None:
        """Stands for the follow task's reading: what the test has changed by now becomes a batch."""
        self.applied += 1
        batch = self.network.take()
        if batch:
            self.touch(batch)

    def register(
        self, flow: Flow | None = None, *, policy: Policy | None = None, probe: Probe | None = None
    ) -> Connection:
        stream = Stream(flow or self.site.flow())
        self.streams.append(stream)
        return self.registry.register(stream, policy=policy, probe=probe)

    async def change(self) -> None:
        """Let what the test changed be told, and judged."""
        self.touch(self.network.take())
        await trio.testing.wait_all_tasks_blocked()

    def touch(self, batch: ChangeBatch) -> None:
        """Do what the engine does with a batch."""
        self.reassessor.touch(batch)
        self.reassessor.take_turn()

    def gateway_moves(self) -> None:
        site = self.site
        self.network.add_route(site.default, via=site.gw1b, dev=C1, metric=100, replace=True)

    def route_goes(self) -> None:
        self.network.delete_route(self.site.default)

    def route_returns(self) -> None:
        self.network.add_route(self.site.default, via=self.site.gw1, dev=C1, metric=100)

    @property
    def told(self) -> list[type[Event]]:
        return [type(event) for event in self.events]


def standing(connection: Connection) -> Standing:
    """Read anew: a checker would take the property for an attribute, and what was asserted of it for lasting."""
    return connection.standing


@pytest.fixture
async def watch(family: int, nursery: trio.Nursery) -> Watch:
    # pytest-trio takes the clock from the test's own arguments only: each test has to ask for it.
    watch = Watch(family)
    await nursery.start(watch.reassessor.run)
    return watch


# ---- waiting -------------------------------------------------------------------------------------------------


async def test_a_route_that_is_gone_for_its_wait_ends_the_connection(watch: Watch, autojump_clock: MockClock) -> None:
    connection = watch.register()
    scope = trio.CancelScope()
    connection.attach(scope)
    began = trio.current_time()
    watch.route_goes()
    await watch.change()
    assert (connection.standing, connection.deadline) == (Standing.SUSPECT, began + 1.0)
    with scope:
        await trio.sleep_forever()
    assert trio.current_time() == began + 1.0
    assert watch.told == [ConnectionSuspect, ConnectionLost]
    assert watch.streams[0].aborted
    loss = connection.loss
    assert loss is not None
    assert (loss.verdict, loss.cause) == (Verdict.NO_ROUTE, "RTM_DELROUTE")
    assert loss.before.gateways == (ip_address(watch.site.gw1),)
    assert "no route" in loss.describe()
    assert "RTM_DELROUTE" in loss.describe()


async def test_a_route_deleted_and_added_back_within_the_grace_closes_nothing(
    watch: Watch, autojump_clock: MockClock
) -> None:
    connection = watch.register()
    watch.route_goes()
    await watch.change()
    await trio.sleep(0.9)
    watch.route_returns()
    await watch.change()
    await trio.sleep(60)
    assert (connection.standing, connection.deadline, connection.suspect_since) == (Standing.GOOD, math.inf, None)
    assert watch.told == [ConnectionSuspect, ConnectionRecovered]
    assert not watch.streams[0].aborted


async def test_a_route_deleted_and_added_back_in_one_batch_is_nothing_at_all(
    watch: Watch, autojump_clock: MockClock
) -> None:
    watch.register(policy=Policy.immediate())
    watch.route_goes()
    watch.route_returns()
    await watch.change()
    assert watch.told == []


async def test_what_is_readable_at_the_deadline_is_applied_before_anybody_is_ended(
    watch: Watch, autojump_clock: MockClock
) -> None:
    """R10."""
    connection = watch.register()
    watch.route_goes()
    await watch.change()
    await trio.sleep(0.5)
    watch.route_returns()  # readable by now, and told to nobody yet
    await trio.sleep(60)
    assert standing(connection) is Standing.GOOD
    assert watch.applied == 1


async def test_lost_carrier_waits_six_seconds_and_its_return_acquits_without_any_route_message(
    watch: Watch, autojump_clock: MockClock
) -> None:
    connection = watch.register()
    watch.network.link_is(C1, NO_CARRIER)
    await watch.change()
    await trio.sleep(5.9)
    assert (connection.standing, connection.verdict) == (Standing.SUSPECT, Verdict.CARRIER_LOST)
    watch.network.link_is(C1)
    await watch.change()
    await trio.sleep(60)
    assert standing(connection) is Standing.GOOD


async def test_row_3_networkd_drops_everything_and_has_it_back_in_four_seconds(
    watch: Watch, autojump_clock: MockClock
) -> None:
    site, network = watch.site, watch.network
    connection = watch.register()
    network.link_is(C1, NO_CARRIER)
    await watch.change()
    network.delete_address(site.s1, C1)
    watch.route_goes()
    await watch.change()
    await trio.sleep(2)
    network.link_is(C1)
    await watch.change()
    await trio.sleep(2)
    assert standing(connection) is Standing.SUSPECT
    network.add_address(site.s1, C1)
    watch.route_returns()
    await watch.change()
    assert standing(connection) is Standing.GOOD


async def test_row_59_a_routing_daemon_may_restart_for_six_seconds(watch: Watch, autojump_clock: MockClock) -> None:
    site, network = watch.site, watch.network
    watch.route_goes()
    network.add_route(site.default, via=site.gw1, dev=C1, protocol=12)
    network.take()
    connection = watch.register()
    watch.route_goes()
    await watch.change()
    assert connection.deadline == trio.current_time() + 6.0


async def test_the_immediate_policy_closes_on_every_closing_verdict_at_once(
    watch: Watch, autojump_clock: MockClock
) -> None:
    began = trio.current_time()
    moved = watch.register(policy=Policy.immediate())
    watch.gateway_moves()
    await watch.change()
    assert (moved.standing, moved.verdict) == (Standing.LOST, Verdict.GATEWAY_CHANGED)
    gone = watch.register(policy=Policy.immediate())
    watch.route_goes()
    await watch.change()
    assert standing(gone) is Standing.LOST
    broken = watch.register(policy=Policy.immediate())
    await trio.testing.wait_all_tasks_blocked()
    assert standing(broken) is Standing.LOST
    assert trio.current_time() == began


async def test_ignored_verdicts_leave_a_connection_alone_and_uncertain_ones_move_its_baseline(
    watch: Watch, autojump_clock: MockClock
) -> None:
    connection = watch.register(policy=Policy(gateway_changed=None, no_route=None))
    watch.gateway_moves()
    await watch.change()
    watch.route_goes()
    await watch.change()
    await trio.sleep(60)
    assert (connection.standing, connection.verdict) == (Standing.GOOD, Verdict.NO_ROUTE)
    watch.network.add_route(watch.site.default, via=watch.site.gw1b, dev=C1)
    await watch.change()
    assert connection.verdict is Verdict.UNCHANGED
    assert watch.told == []


async def test_a_silent_gateway_is_a_hint_for_ever(watch: Watch, autojump_clock: MockClock) -> None:
    connection = watch.register()
    watch.network.neighbour_is(C1, watch.site.gw1, failed=True)
    await watch.change()
    await trio.sleep(3600)
    assert (connection.standing, connection.verdict) == (Standing.SUSPECT, Verdict.GATEWAY_FAILED)
    watch.network.neighbour_is(C1, watch.site.gw1, failed=False)
    await watch.change()
    assert standing(connection) is Standing.GOOD


async def test_a_reroute_that_does_not_matter_is_told_once_and_becomes_the_baseline(
    watch: Watch, autojump_clock: MockClock
) -> None:
    service = "192.0.2.1" if watch.site.family == 4 else "2001:db8:5::1"
    watch.network.add_address(service, LO)
    watch.network.take()
    connection = watch.register(watch.site.flow(local=service))
    watch.gateway_moves()
    await watch.change()
    watch.network.put_rule(77)  # everybody is judged again
    await watch.change()
    assert watch.told == [ConnectionRerouted]
    assert connection.verdict is Verdict.UNCHANGED


async def test_waking_moves_the_deadlines_of_the_suspects(watch: Watch, autojump_clock: MockClock) -> None:
    connection = watch.register()
    watch.route_goes()
    await watch.change()
    await trio.sleep(0.5)
    watch.reassessor.woke()
    assert connection.deadline == trio.current_time() + 10.0
    await trio.sleep(9.9)
    assert standing(connection) is Standing.SUSPECT
    await trio.sleep(0.2)
    assert standing(connection) is Standing.LOST


# ---- when nobody can be judged -------------------------------------------------------------------------------


async def test_during_a_resync_nobody_is_ended_and_what_fell_due_is_judged_after_it(
    watch: Watch, autojump_clock: MockClock
) -> None:
    restored, gone = watch.register(), watch.register(watch.site.flow(local=watch.site.s2, peer=watch.site.neighbour))
    watch.route_goes()
    watch.network.delete_address(watch.site.s2, C2)
    await watch.change()
    watch.network.resyncing = True
    await trio.sleep(60)
    assert (restored.standing, gone.standing) == (Standing.SUSPECT, Standing.SUSPECT)
    assert watch.applied == 0, "the task must not spin on a deadline that it may not act on"
    watch.network.resyncing = False
    watch.route_returns()
    batch = watch.network.take()
    batch.resynced = "a test"
    watch.touch(batch)
    await trio.testing.wait_all_tasks_blocked()
    assert (restored.standing, gone.standing) == (Standing.GOOD, Standing.LOST)


async def test_unmonitored_a_deadline_passes_and_nothing_happens(watch: Watch, autojump_clock: MockClock) -> None:
    connection = watch.register()
    watch.route_goes()
    await watch.change()
    watch.monitoring = False
    await trio.sleep(60)
    assert (connection.standing, connection.verdict) == (Standing.SUSPECT, Verdict.UNJUDGED)
    assert watch.told == [ConnectionSuspect]


# ---- where nobody can be asked (J8) --------------------------------------------------------------------------


async def test_an_uncertain_verdict_without_anybody_to_ask_stays_suspect(
    watch: Watch, autojump_clock: MockClock
) -> None:
    connection = watch.register()
    watch.gateway_moves()
    await watch.change()
    await trio.sleep(60)
    assert (connection.standing, connection.deadline) == (Standing.SUSPECT, math.inf)
    watch.route_goes()
    await watch.change()
    assert connection.deadline == trio.current_time() + 1.0, "and what is certain has its full wait then"
    await trio.sleep(2)
    assert standing(connection) is Standing.LOST


async def test_it_closes_after_settling_where_translation_is_likely(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    watch = Watch(4)
    await nursery.start(watch.reassessor.run)
    connection = watch.register(watch.site.flow(peer=FAR))
    watch.gateway_moves()
    await watch.change()
    await trio.sleep(0.9)
    assert standing(connection) is Standing.SUSPECT
    await trio.sleep(0.2)
    assert standing(connection) is Standing.LOST


# ---- the application's own probe (R14) -----------------------------------------------------------------------


async def test_a_probe_that_says_yes_acquits_and_the_new_path_is_good_from_then_on(
    watch: Watch, autojump_clock: MockClock
) -> None:
    asked: list[tuple[Connection, float]] = []

    async def probe(connection: Connection) -> bool:
        asked.append((connection, trio.current_time()))
        return True

    began = trio.current_time()
    connection = watch.register(probe=probe)
    watch.gateway_moves()
    await watch.change()
    await trio.sleep(2)
    assert asked == [(connection, began + 1.0)], "only once it has settled"
    assert (connection.standing, connection.verdict) == (Standing.GOOD, Verdict.UNCHANGED)
    assert watch.told == [ConnectionSuspect, ConnectionRecovered]
    watch.network.put_rule(77)
    await watch.change()
    assert standing(connection) is Standing.GOOD
    assert len(asked) == 1


async def test_a_probe_that_says_no_ends_the_connection(watch: Watch, autojump_clock: MockClock) -> None:
    async def probe(connection: Connection) -> bool:
        return False

    connection = watch.register(probe=probe)
    watch.gateway_moves()
    await watch.change()
    await trio.sleep(1.1)
    assert (connection.standing, connection.verdict) == (Standing.LOST, Verdict.GATEWAY_CHANGED)


async def test_a_raising_probe_does_not_acquit_is_logged_and_ends_nothing_else(
    watch: Watch, caplog: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    """R14."""

    async def probe(connection: Connection) -> bool:
        raise ValueError("a bug of the application's")

    connection, other = watch.register(probe=probe), watch.register()
    watch.gateway_moves()
    with caplog.at_level(logging.WARNING):
        await watch.change()
        await trio.sleep(1.1)
    assert standing(connection) is Standing.LOST
    assert "a bug of the application's" in caplog.text
    watch.network.add_route(watch.site.default, via=watch.site.gw1, dev=C1, metric=100, replace=True)
    await watch.change()
    assert standing(other) is Standing.GOOD, "the task is still there"


async def test_a_probe_that_never_answers_is_silence(watch: Watch, autojump_clock: MockClock) -> None:
    """R14."""

    async def probe(connection: Connection) -> bool:
        await trio.sleep_forever()

    connection = watch.register(probe=probe)
    watch.gateway_moves()
    await watch.change()
    await trio.sleep(10.9)
    assert standing(connection) is Standing.SUSPECT
    await trio.sleep(0.2)
    assert standing(connection) is Standing.LOST


async def test_a_path_that_returns_while_the_probe_runs_ends_the_probe_and_acquits(
    watch: Watch, autojump_clock: MockClock
) -> None:
    cancelled = trio.Event()

    async def probe(connection: Connection) -> bool:
        try:
            await trio.sleep_forever()
        finally:
            cancelled.set()

    connection = watch.register(probe=probe)
    watch.gateway_moves()
    await watch.change()
    await trio.sleep(2)
    watch.network.add_route(watch.site.default, via=watch.site.gw1, dev=C1, metric=100, replace=True)
    await watch.change()
    await cancelled.wait()
    assert standing(connection) is Standing.GOOD


async def test_an_answer_about_a_path_that_has_moved_on_counts_for_nothing(
    watch: Watch, autojump_clock: MockClock
) -> None:
    answers = [True, False]
    release = trio.Event()

    async def probe(connection: Connection) -> bool:
        answer = answers.pop(0)
        if answer:
            with trio.CancelScope(shield=True):  # it does not care for being cancelled
                await release.wait()
        return answer

    connection = watch.register(probe=probe)
    watch.gateway_moves()
    await watch.change()
    await trio.sleep(2)
    watch.network.add_route(watch.site.default, via=watch.site.gw2, dev=C2, metric=100, replace=True)
    watch.touch(watch.network.take())
    release.set()
    await trio.testing.wait_all_tasks_blocked()
    assert standing(connection) is Standing.SUSPECT
    await trio.sleep(2)
    assert (connection.standing, connection.verdict) == (Standing.LOST, Verdict.EGRESS_CHANGED)


async def test_broken_from_the_start_but_alive_is_unjudged_for_good(watch: Watch, autojump_clock: MockClock) -> None:
    async def alive(connection: Connection) -> bool:
        return True

    watch.route_goes()
    watch.network.take()
    connection = watch.register(probe=alive)
    assert standing(connection) is Standing.SUSPECT
    await trio.sleep(2)
    assert (connection.standing, connection.verdict) == (Standing.GOOD, Verdict.UNJUDGED)
    watch.network.put_rule(77)
    watch.network.delete_address(watch.site.s1, C1)
    await watch.change()
    await trio.sleep(60)
    assert (connection.standing, connection.verdict) == (Standing.GOOD, Verdict.UNJUDGED)


async def test_an_acquitted_ipv6_socket_that_may_use_a_stale_route_is_asked_about_at_the_next_change(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    asked = 0

    async def alive(connection: Connection) -> bool:
        nonlocal asked
        asked += 1
        return True

    watch = Watch(6)
    await nursery.start(watch.reassessor.run)
    watch.network.link_is(C3)
    watch.network.put_rule(52)
    watch.network.take()
    connection = watch.register(probe=alive)
    watch.network.add_route(watch.site.default, dev=C3, table=52)
    await watch.change()
    await trio.sleep(2)
    assert (connection.standing, connection.verdict, asked) == (Standing.GOOD, Verdict.EGRESS_CHANGED, 1)
    watch.network.link_is(LO, 0)  # anything but an IPv6 route
    await watch.change()
    await trio.sleep(2)
    assert asked == 1
    watch.network.add_route("2001:db8:abcd::/48", via=watch.site.gw1, dev=C1)  # its own prefix is not touched
    await watch.change()
    assert standing(connection) is Standing.SUSPECT
    await trio.sleep(2)
    assert (connection.standing, asked) == (Standing.GOOD, 2)
    resynced = watch.network.take()
    resynced.resynced = "what came and went meanwhile is not known"
    watch.touch(resynced)
    await trio.sleep(2)
    assert (connection.standing, asked) == (Standing.GOOD, 3)
    watch.network.delete_route(watch.site.default, table=52)
    await watch.change()
    assert connection.verdict is Verdict.UNCHANGED


# ---- many ----------------------------------------------------------------------------------------------------


async def test_a_change_that_touches_many_leaves_the_loop_a_turn_between_chunks(
    watch: Watch, autojump_clock: MockClock
) -> None:
    """R11."""
    connections = [watch.register(policy=Policy.immediate()) for _ in range(10 * CHUNK)]
    watch.route_goes()
    watch.touch(watch.network.take())
    lost = [0]
    while lost[-1] < len(connections):
        await trio.lowlevel.checkpoint()
        lost.append(len(watch.events))
    # Tasks run in random order in each turn, so that this one may see two chunks at once.
    assert max(after - before for before, after in itertools.pairwise(lost)) <= 2 * CHUNK
    assert {connection.standing for connection in connections} == {Standing.LOST}


@pytest.mark.parametrize(("touched", "rung"), [(1, 0), (2 * CHUNK, 1)], ids=["few", "many"])
async def test_the_task_is_woken_only_for_what_the_first_chunk_left(touched: int, rung: int) -> None:
    watch = Watch()  # nobody answers the bell
    for _ in range(touched):
        watch.register(policy=Policy.immediate())
    watch.route_goes()
    watch.touch(watch.network.take())
    bell = watch.registry.court.docket._bell.statistics()
    assert bell.current_buffer_used == rung
    assert (
        1 <= len(watch.events) <= min(touched, CHUNK)
    )  # fewer where the machine is slow: there is a bound in time, too


async def test_a_network_that_flaps_leaves_one_entry_of_each_connection(
    watch: Watch, autojump_clock: MockClock
) -> None:
    connection = watch.register(policy=Policy.patient())
    docket = watch.registry.court.docket
    for _ in range(1000):
        watch.route_goes()
        await watch.change()
        watch.route_returns()
        await watch.change()
    assert len(watch.events) == 2000
    assert len(docket._deadlines) == 1
    watch.route_goes()
    await watch.change()
    began = trio.current_time()
    await trio.sleep(29)
    assert (connection.deadline, len(docket._deadlines)) == (began + 30, 1)
    await trio.sleep(2)
    assert (connection.standing, docket._deadlines) == (Standing.LOST, [])


async def test_a_deadline_that_moves_to_an_earlier_time_counts_from_then_on(
    watch: Watch, autojump_clock: MockClock
) -> None:
    connection = watch.register(policy=Policy(no_route=20.0, source_gone=1.0, gateway_failed=3600.0))
    watch.network.neighbour_is(C1, watch.site.gw1, failed=True)
    await watch.change()
    assert connection.deadline == trio.current_time() + 3600
    watch.route_goes()
    await watch.change()
    began = trio.current_time()
    with trio.CancelScope() as scope:
        connection.attach(scope)
        await trio.sleep_forever()
    assert trio.current_time() == began + 20


async def test_many_that_are_good_again_when_their_deadline_comes_up_are_passed_over_in_portions(
    autojump_clock: MockClock,
) -> None:
    watch = Watch()
    reassessor, docket = watch.reassessor, watch.registry.court.docket

    def turns() -> list[int]:
        """Do what the task would do now; how many entries each turn leaves."""
        left = [len(docket._deadlines)]
        while reassessor._work():
            left.append(len(docket._deadlines))
        return [*left, len(docket._deadlines)]

    for _ in range(100 * CHUNK):
        watch.register()
    # Its deadline comes first, and keeps the others' entries where they are.
    watch.register(watch.site.flow(local=watch.site.s2, peer=watch.site.neighbour), policy=Policy(source_gone=0.5))
    watch.route_goes()
    watch.network.delete_address(watch.site.s2, C2)
    watch.touch(watch.network.take())
    turns()
    watch.route_returns()
    watch.touch(watch.network.take())
    assert turns()[-1] == 100 * CHUNK + 1
    await trio.sleep(2)
    left = turns()
    assert (left[0], left[-1], len(watch.registry.history)) == (100 * CHUNK + 1, 0, 1)
    # The docket is looked at twice for each of a chunk, and before and after it.
    at_most = 2 * (CHUNK + 1) * _PUT_RIGHT_AT_ONCE
    assert max(before - after for before, after in itertools.pairwise(left)) <= at_most < 100 * CHUNK


async def test_reading_a_connection_whose_turn_has_not_come_judges_that_one_only(
    watch: Watch, autojump_clock: MockClock
) -> None:
    """R11."""
    connections = [watch.register(policy=Policy.immediate()) for _ in range(3)]
    watch.route_goes()
    watch.reassessor.touch(watch.network.take())
    assert connections[2].loss is not None
    assert len(watch.events) == 1
    watch.reassessor.take_turn()
    await trio.testing.wait_all_tasks_blocked()
    assert len(watch.events) == 3


async def test_what_cannot_touch_anybody_looks_nobody_up(watch: Watch, autojump_clock: MockClock) -> None:
    for number in range(100):
        watch.register(attrs.evolve(watch.site.flow(), peer=ip_address(watch.site.peer) + number))
    site, network = watch.site, watch.network
    network.lookups = 0
    network.link_is(C3, NO_CARRIER)
    network.link_is(C3)
    network.add_address("203.0.113.1" if site.family == 4 else "2001:db8:ee::1", C3)
    network.add_route(site.elsewhere, dev=C3)
    network.delete_route(site.elsewhere)
    network.neighbour_is(C3, "203.0.113.2" if site.family == 4 else "2001:db8:ee::2", failed=True)
    network.add_route(site.elsewhere, kind=RTN_BLACKHOLE, table=100)
    await watch.change()
    assert network.lookups == 0
    assert len(watch.registry.court.docket.dirty) == 0


async def test_a_more_specific_route_touches_the_peers_inside_it_only(watch: Watch, autojump_clock: MockClock) -> None:
    first = int(ip_address(watch.site.peer)) & ~0xFF
    kind = type(ip_address(watch.site.peer))
    connections = [watch.register(attrs.evolve(watch.site.flow(), peer=kind(first + n))) for n in range(0, 64, 2)]
    host = watch.site.host
    watch.network.add_route(f"{kind(first + 16)}/{host - 3}", via=watch.site.gw2, dev=C2)
    await watch.change()
    suspects = [int(c.flow.peer or kind(0)) - first for c in connections if c.standing is Standing.SUSPECT]
    assert suspects == [16, 18, 20, 22]


# ---- the index misses nobody ---------------------------------------------------------------------------------


def flows(site: Site) -> list[Flow]:
    ipv4 = site.family == 4
    service, anyip = ("192.0.2.1", "192.0.2.77") if ipv4 else ("2001:db8:5::1", "2001:db8:6::77")
    return [
        site.flow(),
        site.flow(peer=site.neighbour),
        site.flow(peer=site.s2),
        site.flow(device=C1),
        site.flow(local=service),
        site.flow(local=anyip),
        site.flow(local=site.s2),
        site.flow(local=anyip, transparent=True),
    ]


def toggles(site: Site) -> list[Callable[[], None]]:
    """Things that are so or not, each changed by one step."""
    network, ipv4 = site.network, site.family == 4
    service, anyip = ("192.0.2.1", "192.0.2.64/26") if ipv4 else ("2001:db8:5::1", "2001:db8:6::/64")

    def link(ifindex: int) -> None:
        network.link_is(ifindex, NO_CARRIER if network.links[ifindex].carrier else UP)

    def administratively(ifindex: int) -> None:
        network.link_is(ifindex, 0 if network.links[ifindex].up else UP)

    def address(text: str, ifindex: int) -> None:
        if network.has_address(ip_address(text), ifindex):
            network.delete_address(text, ifindex)
        else:
            network.add_address(text, ifindex)

    def neighbour(ifindex: int, text: str) -> None:
        network.neighbour_is(ifindex, text, failed=(ifindex, ip_address(text)) not in network.failed)

    def route(
        prefix: str, table: int, metric: int, kind: int, hop: tuple[str | None, int | None] = (None, None)
    ) -> None:
        via, dev = hop
        try:
            network.delete_route(prefix, table=table, metric=metric)
        except LookupError:
            network.add_route(prefix, table=table, metric=metric, kind=kind, via=via, dev=dev)

    return [
        lambda: link(C1),
        lambda: link(C2),
        lambda: administratively(C1),
        lambda: address(site.s1, C1),
        lambda: address(site.s2, C2),
        lambda: address(service, LO),
        lambda: address(site.s1, C2),
        lambda: address(site.neighbour, C2),
        lambda: neighbour(C1, site.gw1),
        lambda: neighbour(C1, site.neighbour),
        lambda: route(site.default, 254, 100, 1, (site.gw1, C1)),
        lambda: route(site.default, 254, 50, 1, (site.gw2, C2)),
        lambda: route(site.near_peer, 254, 0, 1, (site.gw1b, C1)),
        lambda: route(site.near_peer, 100, 0, RTN_BLACKHOLE),
        lambda: route(site.near_peer, 100, 1, 1, (site.gw2, C2)),
        lambda: route(site.near_peer, 99, 0, RTN_THROW),
        lambda: route(site.halves[0], 99, 0, 1, (site.gw2, C2)),
        lambda: route(site.halves[1], 99, 0, 1, (site.gw2, C2)),
        lambda: route(anyip, 255, 0, RTN_LOCAL, (None, LO)),
        lambda: route(site.lan1, 254, 0, 1, (None, C1)),
    ]


FOR_EVER = Policy(
    no_route=math.inf,
    rejected=math.inf,
    source_gone=math.inf,
    peer_moved=math.inf,
    carrier_lost=math.inf,
    egress_changed=math.inf,
    gateway_changed=math.inf,
)


@settings(deadline=None)
@given(
    st.sampled_from([4, 6]),
    st.lists(st.integers(0, 19), max_size=4),
    st.lists(st.lists(st.integers(0, 19), min_size=1, max_size=3), max_size=8),
    st.booleans(),
)
def test_whoever_a_change_does_not_touch_would_be_judged_as_before(
    family: int, beginning: list[int], batches: list[list[int]], ignore_linkdown: bool
) -> None:
    async def main() -> None:
        watch = Watch(family)
        network = watch.network
        network.ignore_linkdown = ignore_linkdown
        network.put_rule(100)
        network.put_rule(99)
        steps = toggles(watch.site)
        for number in beginning:
            steps[number]()
        network.take()
        connections = [watch.register(flow, policy=FOR_EVER) for flow in flows(watch.site)]
        for batch in batches:
            for number in batch:
                steps[number]()
            watch.registry.court.touch(network.take())
            for connection in connections:
                verdict = connection.verdict  # judges those that were touched, and nobody else
                record = connection.record
                finding = judge(connection.flow, record.known, network, onlink=record.onlink)
                assert (finding.resolution, finding.hops) == (record.now, record.hops)
                assert finding.verdict is verdict or verdict is Verdict.REROUTED

    trio.run(main)
