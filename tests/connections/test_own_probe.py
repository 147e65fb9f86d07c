"""What the application's own probe says of a connection in doubt, and what becomes of one that nobody can ask."""

from __future__ import annotations

import logging
import math

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from tests.connections._watch import FAR, Watch, standing
from tests.connections.network import C1, C2, C3, LO
from trio_routes._events import ConnectionRecovered, ConnectionSuspect
from trio_routes.connections import Connection, Standing, Verdict

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
