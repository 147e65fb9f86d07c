"""The reassessment task: who is judged after a change, when, and what comes of it. No wall time passes."""

from __future__ import annotations

import itertools
import math
from ipaddress import ip_address

import attrs
import pytest
import trio
import trio.testing
from trio.testing import MockClock

from tests.connections._watch import Watch, standing
from tests.connections.network import C1, C2, C3, LO, NO_CARRIER
from trio_routes._events import ConnectionLost, ConnectionRecovered, ConnectionRerouted, ConnectionSuspect
from trio_routes.connections import Policy, Standing, Verdict
from trio_routes.connections._docket import _PUT_RIGHT_AT_ONCE
from trio_routes.connections._reassess import CHUNK
from trio_routes.netlink import RTN_BLACKHOLE

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
