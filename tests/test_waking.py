"""Noticing that the machine slept, by clocks that the test sets."""

from __future__ import annotations

import time
from functools import partial

import pytest
import trio
from trio.testing import MockClock

import trio_routes._engine
from trio_routes import Woke, open_pt
from trio_routes._waking import Waking, suspended_seconds
from trio_routes.testing import FakeKernel


class Clock:
    """How long the machine has slept in all."""

    def __init__(self) -> None:
        self.slept = 1000.0

    def read(self) -> float:
        return self.slept


def test_a_sleep_over_twenty_seconds_is_told_once() -> None:
    clock, told = Clock(), list[float]()
    waking = Waking(told.append, clock.read)
    waking.look()
    clock.slept += 3600
    waking.look()
    waking.look()
    assert told == [3600.0]


def test_short_sleeps_are_not_told_however_many() -> None:
    clock, told = Clock(), list[float]()
    waking = Waking(told.append, clock.read)
    for _ in range(10):
        clock.slept += 19
        waking.look()
    assert told == []


async def test_it_is_noticed_on_a_machine_where_nothing_else_happens(autojump_clock: MockClock) -> None:
    clock, told = Clock(), list[float]()
    waking = Waking(told.append, clock.read)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(waking.run)
        await trio.sleep(60)
        clock.slept += 100
        await trio.sleep(10.1)
        nursery.cancel_scope.cancel()
    assert told == [100.0]


def test_this_machine_has_not_slept_for_a_negative_time() -> None:
    before = suspended_seconds()
    time.sleep(0.01)
    assert before == pytest.approx(suspended_seconds(), abs=0.005), "the clocks run alike while awake"
    assert before > -0.001


async def test_a_pt_publishes_it_with_the_first_change_after(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    clock = Clock()
    monkeypatch.setattr(trio_routes._engine, "Waking", partial(Waking, read=clock.read))
    async with FakeKernel() as kernel, open_pt(kernel=kernel) as pt:
        with pt.subscribe() as events:
            clock.slept += 777
            kernel.add_link("wlan0")
            await kernel.settle()
            event = await events.receive()
    assert isinstance(event, Woke)
    assert event.slept_seconds == 777
    assert event.as_smd() is None
