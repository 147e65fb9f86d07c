"""A path that comes and goes: each return within a minute, from the third on, doubles the wait for the next one."""

from __future__ import annotations

import math

import pytest
import trio
from hypothesis import given, strategies as st
from trio.testing import MockClock

from tests.connections._watch import Watch, standing
from tests.connections.test_account import explained
from trio_routes.connections import Connection, Policy, Standing
from trio_routes.connections._clock import BOUND_SECONDS, FLAPPING_SECONDS, STEADY, damped, returned

times = st.lists(st.floats(0, 1000), max_size=40).map(sorted)


def after(*times: float) -> tuple[float, ...]:
    returns = STEADY
    for t in times:
        returns = returned(returns, t)
    return returns


@pytest.mark.parametrize(
    ("returns", "wait"), [(0, 1.0), (1, 1.0), (2, 1.0), (3, 2.0), (4, 4.0), (5, 8.0), (6, 16.0), (7, 30.0), (50, 30.0)]
)
def test_the_third_return_within_a_minute_doubles_the_wait_and_each_further_one_again(
    returns: int, wait: float
) -> None:
    assert damped(1.0, after(*range(returns)), 50.0 if returns < 50 else 51.0) == wait


def test_what_is_a_minute_ago_does_not_count() -> None:
    assert damped(1.0, after(0, 10, 20), 59.9) == 2.0
    assert damped(1.0, after(0, 10, 20), 60.0) == 1.0
    assert damped(1.0, after(0, 61, 122, 183), 184.0) == 1.0


def test_no_wait_stays_none_and_one_without_end_stays_so() -> None:
    returns = after(*range(10))
    assert damped(0.0, returns, 10.0) == 0.0
    assert damped(math.inf, returns, 10.0) == math.inf


@given(times, st.floats(0, 100), st.floats(0, 200))
def test_it_is_never_shorter_than_the_policys_wait_nor_longer_than_the_bound(
    times: list[float], wait: float, pause: float
) -> None:
    returns = after(*times)
    t = (times[-1] if times else 0.0) + pause
    assert wait <= damped(wait, returns, t) <= max(wait, BOUND_SECONDS)
    assert len(returns) <= 7
    if pause >= FLAPPING_SECONDS:
        assert damped(wait, returns, t) == wait


@given(times, st.floats(0.001, 20))
def test_one_return_more_never_shortens_it(times: list[float], wait: float) -> None:
    t = times[-1] if times else 0.0
    assert damped(wait, after(*times), t) <= damped(wait, after(*times, t), t)


# ---- in the court ------------------------------------------------------------------------------


@pytest.fixture
async def watch(nursery: trio.Nursery) -> Watch:
    watch = Watch(4)
    await nursery.start(watch.reassessor.run)
    return watch


async def flap(watch: Watch, times: int, *, gone: float = 0.5, there: float = 4.5) -> None:
    for _ in range(times):
        watch.route_goes()
        await watch.change()
        await trio.sleep(gone)
        watch.route_returns()
        await watch.change()
        await trio.sleep(there)


async def gone_for(watch: Watch, connection: Connection, limit: float = 40) -> float:
    """For how long its path was gone when it was lost."""
    watch.route_goes()
    await watch.change()
    began = trio.current_time()
    while connection.loss is None:
        assert trio.current_time() < began + limit
        await trio.sleep(0.25)
    return connection.loss.time - began


async def test_a_flapping_path_is_waited_for_longer(watch: Watch, autojump_clock: MockClock) -> None:
    connection = watch.register()
    await flap(watch, 3)
    watch.route_goes()
    await watch.change()
    assert "several times within a minute (rule J7)" in explained(watch, connection)
    await trio.sleep(1.9)
    assert standing(connection) is Standing.SUSPECT
    watch.route_returns()
    await watch.change()
    assert standing(connection) is Standing.GOOD
    assert await gone_for(watch, connection) == 4.0
    assert watch.registry.statistics().damped == 2


async def test_a_path_that_flaps_on_and_on_is_waited_for_half_a_minute(watch: Watch, autojump_clock: MockClock) -> None:
    connection = watch.register()
    await flap(watch, 20)
    assert await gone_for(watch, connection) == BOUND_SECONDS


async def test_after_a_quiet_minute_it_is_as_before(watch: Watch, autojump_clock: MockClock) -> None:
    connection = watch.register()
    await flap(watch, 5)
    await trio.sleep(FLAPPING_SECONDS)
    assert await gone_for(watch, connection) == 1.0
    assert watch.registry.statistics().damped == 2, "the fourth and the fifth time that it went"


async def test_the_immediate_policy_is_immediate_still(watch: Watch, autojump_clock: MockClock) -> None:
    connection = watch.register(policy=Policy(no_route=1.0))
    await flap(watch, 5)
    connection.policy = Policy.immediate()
    assert await gone_for(watch, connection) == 0.0


async def test_others_that_did_not_flap_wait_no_longer(watch: Watch, autojump_clock: MockClock) -> None:
    await flap(watch, 5)
    connection = watch.register()
    assert await gone_for(watch, connection) == 1.0
    assert watch.registry.statistics().damped == 0
