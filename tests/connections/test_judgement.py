"""Properties of judging, whatever happens: on random changes of a network by hand, and in the clock's own time.

an acquitted connection stays acquitted while nothing changes
nobody is judged on half a table; when it is whole, everybody is, as if it had never been otherwise
the order of messages within a batch does not matter
"""

from __future__ import annotations

from random import Random

import trio
import trio.testing
from hypothesis import given, settings, strategies as st
from trio.testing import MockClock

from tests.connections._watch import FOR_EVER, UNASKED, Watch, flows, register, standing, toggles
from tests.connections.network import C1, C2, C3, LO, NO_CARRIER
from trio_routes import ConnectionRecovered, ConnectionRerouted, ConnectionSuspect
from trio_routes.connections import Connection, Flow, Policy, Standing, Verdict
from trio_routes.connections._clock import BOUND_SECONDS
from trio_routes.connections._finding import find

families = st.sampled_from([4, 6])
steps = st.integers(0, 19)
batches = st.lists(st.lists(steps, min_size=1, max_size=3), max_size=6)
# Steps that set apart things: in whatever order they are done, the same comes of it.
APART = (0, 1, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19)


def begin(family: int, beginning: list[int]) -> Watch:
    watch = Watch(family)
    watch.network.put_rule(100)
    watch.network.put_rule(99)
    changes = toggles(watch.site)
    for number in beginning:
        changes[number]()
    watch.network.take()
    return watch


def happen(watch: Watch, numbers: list[int]) -> None:
    """One batch of changes, told but not judged yet."""
    changes = toggles(watch.site)
    for number in numbers:
        changes[number]()
    watch.registry.court.touch(watch.network.take())


def told_of(connection: Connection) -> tuple[Standing, Verdict]:
    return connection.standing, connection.verdict


def found(connection: Connection) -> tuple[object, ...]:
    return (*told_of(connection), connection.record.now, connection.record.hops, connection.record.known)


@settings(deadline=None)
@given(families, st.lists(steps, max_size=4), st.lists(steps, min_size=1, max_size=4), st.integers(1, 5))
def test_an_acquitted_connection_stays_acquitted_while_nothing_changes(
    family: int, beginning: list[int], numbers: list[int], times: int
) -> None:
    async def main() -> None:
        watch = begin(family, beginning)
        court, clerk = watch.registry.court, watch.registry.clerk
        connections = [watch.register(flow, policy=UNASKED) for flow in flows(watch.site)]
        happen(watch, numbers)
        suspects = [connection for connection in connections if connection.standing is Standing.SUSPECT]
        for connection in suspects:
            clerk.acquit(connection, "the test")
        after = [told_of(connection) for connection in suspects]
        assert {standing(connection) for connection in connections} == {Standing.GOOD}
        told = len(watch.events)
        for _ in range(times):
            for connection in connections:
                court.judge(connection, "for no reason")
        assert [told_of(connection) for connection in suspects] == after
        assert {standing(connection) for connection in connections} == {Standing.GOOD}
        assert len(watch.events) == told

    trio.run(main)


@settings(deadline=None)
@given(families, st.lists(steps, max_size=4), batches, st.lists(steps, max_size=3))
def test_nobody_is_judged_on_half_a_table_and_everybody_once_it_is_whole(
    family: int, beginning: list[int], meanwhile: list[list[int]], last: list[int]
) -> None:
    async def main() -> None:
        watch = begin(family, beginning)
        connections = [watch.register(flow, policy=FOR_EVER) for flow in flows(watch.site)]
        before, told = [found(connection) for connection in connections], len(watch.events)
        watch.network.resyncing = True
        for numbers in meanwhile:
            happen(watch, numbers)
            watch.reassessor.take_turn()
            assert [found(connection) for connection in connections] == before
            assert len(watch.events) == told
        watch.network.resyncing = False
        changes = toggles(watch.site)
        for number in last:
            changes[number]()
        batch = watch.network.take()
        batch.resynced, batch.everything = "the test", True
        watch.registry.court.touch(batch)
        for connection in connections:
            stands, verdict = told_of(connection)
            now = find(connection, watch.network)
            assert (now.resolution, now.hops) == (connection.record.now, connection.record.hops)
            assert now.verdict is verdict or verdict is Verdict.REROUTED
            assert (stands is Standing.GOOD) == verdict.keeps

    trio.run(main)


@settings(deadline=None)
@given(families, st.lists(steps, max_size=4), st.lists(st.sampled_from(APART), unique=True, max_size=6), st.randoms())
def test_the_order_of_messages_within_a_batch_does_not_matter(
    family: int, beginning: list[int], numbers: list[int], random: Random
) -> None:
    def stand_after(order: list[int]) -> list[tuple[object, ...]]:
        stands: list[tuple[object, ...]] = []

        async def main() -> None:
            watch = begin(family, beginning)
            connections = [watch.register(flow, policy=FOR_EVER) for flow in flows(watch.site)]
            happen(watch, order)
            stands.extend(found(connection) for connection in connections)

        trio.run(main)
        return stands

    shuffled = list(numbers)
    random.shuffle(shuffled)
    assert stand_after(numbers) == stand_after(shuffled)


def service_flow(watch: Watch) -> Flow:
    """The flow of a connection from an address on no link of its path."""
    service = "192.0.2.1" if watch.site.family == 4 else "2001:db8:5::1"
    watch.network.add_address(service, LO)
    watch.network.take()
    return watch.site.flow(local=service)


async def started(nursery: trio.Nursery, family: int) -> Watch:
    watch = Watch(family)
    await nursery.start(watch.reassessor.run)
    return watch


async def moves_where_no_carrier_is(watch: Watch) -> None:
    """A better default route, by a link without carrier."""
    watch.network.link_is(C2, NO_CARRIER)
    watch.network.add_route(watch.site.default, via=watch.site.gw2, dev=C2, metric=50)
    await watch.change()


async def test_a_path_without_carrier_is_no_better_for_being_a_harmless_move(
    nursery: trio.Nursery, family: int, autojump_clock: MockClock
) -> None:
    watch = await started(nursery, family)
    connection = watch.register(service_flow(watch))
    await moves_where_no_carrier_is(watch)
    assert told_of(connection) == (Standing.SUSPECT, Verdict.CARRIER_LOST)
    assert watch.told == [ConnectionRerouted, ConnectionSuspect]


async def test_evidence_by_a_path_without_carrier_is_believed_until_something_changes(
    nursery: trio.Nursery, family: int, autojump_clock: MockClock
) -> None:
    watch = await started(nursery, family)
    connection, _ = register(watch, "ack")
    await moves_where_no_carrier_is(watch)
    await trio.sleep(10)
    watch.registry.court.judge(connection, "for no reason")
    assert told_of(connection) == (Standing.GOOD, Verdict.CARRIER_LOST)
    assert watch.told == [ConnectionSuspect, ConnectionRecovered]


async def test_what_evidence_showed_of_one_path_is_not_believed_of_another(
    nursery: trio.Nursery, family: int, autojump_clock: MockClock
) -> None:
    watch = await started(nursery, family)
    connection, _ = register(watch, "ack")
    await moves_where_no_carrier_is(watch)
    await trio.sleep(10)
    assert told_of(connection) == (Standing.GOOD, Verdict.CARRIER_LOST)
    watch.network.link_is(C1, NO_CARRIER)
    watch.network.delete_route(watch.site.default, metric=50)
    await watch.change()
    assert told_of(connection) == (Standing.SUSPECT, Verdict.CARRIER_LOST), "the same verdict, by the other link"


async def test_the_four_paths_that_were_proven_last_are_known(
    nursery: trio.Nursery, family: int, autojump_clock: MockClock
) -> None:
    watch = await started(nursery, family)
    connection, peer = register(watch, "ack")
    gateways = [f"10.0.1.{number}" if family == 4 else f"fe80::{number}" for number in range(101, 106)]
    for gateway in gateways:
        watch.network.add_route(watch.site.default, via=gateway, dev=C1, metric=100, replace=True)
        await watch.change()
        await trio.sleep(10)
        assert told_of(connection) == (Standing.GOOD, Verdict.UNCHANGED)
    assert [str(hop.gateway) for hop in connection.record.known] == gateways[:0:-1]
    asked = len(peer.asked)
    watch.network.add_route(watch.site.default, via=gateways[1], dev=C1, metric=100, replace=True)
    await watch.change()
    assert told_of(connection) == (Standing.GOOD, Verdict.UNCHANGED)
    watch.network.add_route(watch.site.default, via=gateways[0], dev=C1, metric=100, replace=True)
    await watch.change()
    assert told_of(connection) == (Standing.SUSPECT, Verdict.GATEWAY_CHANGED), "the first is forgotten"
    assert len(peer.asked) == asked


async def test_an_address_that_went_to_another_link_is_gone_with_that(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    watch = await started(nursery, 6)
    connection = watch.register()
    watch.network.add_address(watch.site.s1, C3)
    watch.network.link_is(C3)
    await watch.change()
    watch.network.delete_address(watch.site.s1, C1)
    await watch.change()
    assert told_of(connection) == (Standing.GOOD, Verdict.UNCHANGED)
    watch.network.link_is(C3, 0)  # of an IPv6 address on a link that goes down the kernel need not speak
    await watch.change()
    assert told_of(connection) == (Standing.SUSPECT, Verdict.SOURCE_GONE)


async def test_a_certain_verdict_that_is_ignored_leaves_the_baseline(
    nursery: trio.Nursery, family: int, autojump_clock: MockClock
) -> None:
    watch = await started(nursery, family)
    connection = watch.register(policy=Policy(no_route=None))
    before = connection.before
    watch.route_goes()
    await watch.change()
    assert told_of(connection) == (Standing.GOOD, Verdict.NO_ROUTE)
    assert connection.before is before
    watch.network.add_route(watch.site.default, via=watch.site.gw2, dev=C2, metric=100)
    await watch.change()
    assert told_of(connection) == (Standing.SUSPECT, Verdict.EGRESS_CHANGED)


async def test_a_doubt_after_a_long_sleep_that_is_ignored_is_over(
    nursery: trio.Nursery, family: int, autojump_clock: MockClock
) -> None:
    watch = await started(nursery, family)
    connection, peer = register(watch, "ack", policy=Policy(egress_changed=None))
    watch.reassessor.woke(3600)
    await trio.sleep(20)
    watch.registry.court.judge(connection, "for no reason")
    assert told_of(connection) == (Standing.GOOD, Verdict.UNCHANGED)
    assert peer.asked == []


async def test_the_cause_is_what_brought_the_verdict_and_not_what_came_after(
    nursery: trio.Nursery, family: int, autojump_clock: MockClock
) -> None:
    watch = await started(nursery, family)
    connection = watch.register()
    watch.route_goes()
    await watch.change()
    watch.registry.court.judge(connection, "something else")
    await trio.sleep(2)
    assert connection.loss is not None
    assert connection.loss.cause == "RTM_DELROUTE"


async def test_broken_from_the_start_and_then_proven_by_another_path_it_is_judged_on(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    watch = await started(nursery, 6)  # for IPv4 there is no way at all without the source
    watch.network.delete_address(watch.site.s1, C1)
    watch.network.take()
    connection, _ = register(watch, "ack")
    assert told_of(connection) == (Standing.SUSPECT, Verdict.SOURCE_GONE)
    watch.network.add_address(watch.site.s1, C1)
    watch.network.add_route(watch.site.default, via=watch.site.gw2, dev=C2, metric=50)
    await watch.change()
    assert told_of(connection) == (Standing.SUSPECT, Verdict.EGRESS_CHANGED)
    await trio.sleep(10)
    assert told_of(connection) == (Standing.GOOD, Verdict.UNCHANGED)


async def test_an_answer_is_taken_only_while_it_is_about_the_path_of_now(
    nursery: trio.Nursery, family: int, autojump_clock: MockClock
) -> None:
    watch = await started(nursery, family)
    connection, _ = register(watch, "silence")
    watch.gateway_moves()
    await watch.change()
    await trio.sleep(2)  # it is being asked about
    watch.network.add_route(watch.site.default, via=watch.site.gw2, dev=C2, metric=50)
    watch.registry.court.touch(watch.network.take())
    watch.registry.clerk.answered(connection, accepted=True, by="the test")
    assert told_of(connection) == (Standing.SUSPECT, Verdict.EGRESS_CHANGED)
    assert watch.told == [ConnectionSuspect], "and it never was anything else"


async def test_a_no_while_the_tables_are_read_anew_ends_nobody_before_they_are_whole(
    nursery: trio.Nursery, family: int, autojump_clock: MockClock
) -> None:
    watch = await started(nursery, family)
    connection, _ = register(watch, "silence")
    watch.gateway_moves()
    await watch.change()
    await trio.sleep(2)  # it is being asked about
    watch.network.resyncing = True
    watch.registry.clerk.answered(connection, accepted=False, by="the test")
    await trio.sleep(60)
    assert standing(connection) is Standing.SUSPECT
    watch.network.resyncing = False
    watch.network.link_is(LO, 0)
    await watch.change()
    assert standing(connection) is Standing.LOST, "nobody has answered since"


# ---- the clock ---------------------------------------------------------------------------------


async def test_a_deadline_is_revoked_at_the_last_moment(
    nursery: trio.Nursery, family: int, autojump_clock: MockClock
) -> None:
    watch = await started(nursery, family)
    connection = watch.register()
    watch.route_goes()
    await watch.change()
    await trio.sleep(0.999)
    watch.route_returns()
    await watch.change()
    await trio.sleep(60)
    assert standing(connection) is Standing.GOOD
    assert watch.told == [ConnectionSuspect, ConnectionRecovered]


async def test_row_95_the_second_verdict_has_its_own_second(
    nursery: trio.Nursery, family: int, autojump_clock: MockClock
) -> None:
    watch = await started(nursery, family)
    connection, peer = register(watch, "ack")
    watch.route_goes()
    await watch.change()
    began = trio.current_time()
    await trio.sleep(0.9)
    watch.network.add_route(watch.site.default, via=watch.site.gw1b, dev=2, metric=100)
    await watch.change()
    assert connection.verdict is Verdict.GATEWAY_CHANGED
    assert connection.deadline == began + 1.9
    await trio.sleep(5)
    assert standing(connection) is Standing.GOOD
    assert peer.asked[0] >= began + 1.9


async def test_a_path_that_flips_between_classes_ends_after_half_a_minute(
    nursery: trio.Nursery, family: int, autojump_clock: MockClock
) -> None:
    watch = await started(nursery, family)
    connection, _ = register(watch, "silence")
    watch.route_goes()
    await watch.change()
    began = trio.current_time()
    for turn in range(120):
        if connection.loss is not None:
            break
        await trio.sleep(0.5)
        if turn % 2 == 0:
            watch.network.add_route(watch.site.default, via=watch.site.gw2, dev=C2, metric=100)
        else:
            watch.network.delete_route(watch.site.default)
        await watch.change()
    loss = connection.loss
    assert loss is not None
    assert BOUND_SECONDS <= loss.time - began <= BOUND_SECONDS + 4, "asking may follow the last of it"


async def test_a_path_that_flips_between_two_gateways_is_asked_about_for_good_after_half_a_minute(
    nursery: trio.Nursery, family: int, autojump_clock: MockClock
) -> None:
    """Neither is known, and nobody answers: to ask anew after each move would keep it SUSPECT for ever."""
    watch = await started(nursery, family)
    connection, peer = register(watch, "silence")
    began = trio.current_time()
    for turn in range(60):
        if connection.loss is not None:
            break
        gateway, link = (watch.site.gw1b, C1) if turn % 2 else (watch.site.gw2, C2)
        watch.network.delete_route(watch.site.default)
        watch.network.add_route(watch.site.default, via=gateway, dev=link, metric=100)
        await watch.change()
        await trio.sleep(0.9)
    loss = connection.loss
    assert loss is not None
    assert peer.asked[0] >= began + BOUND_SECONDS, "it never settled before"
    assert loss.time - began <= BOUND_SECONDS + 4


async def test_stopped_past_the_deadline_what_is_readable_comes_first(
    nursery: trio.Nursery, family: int, mock_clock: MockClock
) -> None:
    """After a SIGSTOP every deadline has passed at once, and the route's return is readable: it is applied first."""
    watch = await started(nursery, family)
    connections = [watch.register() for _ in range(200)]
    watch.route_goes()
    await watch.change()
    watch.route_returns()  # told to nobody yet: the process is stopped
    mock_clock.jump(3600)
    await trio.testing.wait_all_tasks_blocked()
    assert watch.applied >= 1
    assert {standing(connection) for connection in connections} == {Standing.GOOD}
    watch.route_goes()
    await watch.change()
    mock_clock.jump(3600)
    await trio.testing.wait_all_tasks_blocked()
    assert {standing(connection) for connection in connections} == {Standing.LOST}, "nothing was to be read"


async def test_stopped_past_the_deadline_it_is_judged_by_what_is_so_now(
    nursery: trio.Nursery, family: int, mock_clock: MockClock
) -> None:
    """The path moved meanwhile: that is another verdict, with a wait of its own from now on."""
    watch = await started(nursery, family)
    connection = watch.register()
    watch.route_goes()
    await watch.change()
    watch.network.add_route(watch.site.default, via=watch.site.gw1b, dev=2, metric=100)
    mock_clock.jump(10)
    await trio.testing.wait_all_tasks_blocked()
    assert told_of(connection) == (Standing.SUSPECT, Verdict.GATEWAY_CHANGED)
    assert connection.deadline == trio.current_time() + 1.0
