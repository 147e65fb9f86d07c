"""The routing cache against the kernel: random changes, for a few seconds. `make fuzz-kernel` goes on for longer."""

from __future__ import annotations

import time
from collections.abc import Sequence
from random import Random

import pytest

from trio_routes.routing import Cache, Rule

from ._changes import Changes, Step
from ._fuzz import fuzz
from ._run import Count, Mismatch, replay
from ._shrink import shrink

pytestmark = pytest.mark.netns


@pytest.mark.slow  # as long as it is allowed to be: what it finds is a matter of how much it tries
@pytest.mark.parametrize("seed", [1, 2])
async def test_after_random_changes_the_cache_equals_a_dump_and_routes_as_the_kernel(seed: int) -> None:
    count = Count()
    try:
        fuzz(seed, steps=150, until=time.monotonic() + 3, count=count, lookups=5)
    except Mismatch as mismatch:
        mismatch.add_note(f"seed {seed}: make fuzz-kernel SEED={seed} shortens this")
        raise
    assert count.operations > 100 and count.lookups > 300


async def test_a_cache_that_misses_something_is_found_out_and_the_run_shortened(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def forget(_: Cache, rule: Rule, gone: bool) -> None:
        pass

    monkeypatch.setattr(Cache, "apply_rule", forget)
    steps: tuple[Step, ...] = (
        ("addr add 10.0.0.11/24 dev d0",),
        ("link set d1 down", "-4 rule add pref 100 lookup 100", "-4 route add 192.0.2.0/24 dev d0"),
        ("-6 route add 2001:db8:9::/48 dev d0",),
    )

    def fails(some: Sequence[Step]) -> bool:
        try:
            replay(*some)
        except Mismatch:
            return True
        return False

    with pytest.raises(Mismatch, match="rules"):
        replay(*steps)
    assert shrink(steps, fails, seconds=30) == (("-4 rule add pref 100 lookup 100",),)


def test_the_same_seed_makes_the_same_changes() -> None:
    one, other = Changes(Random(5)), Changes(Random(5))
    assert [one.step() for _ in range(50)] == [other.step() for _ in range(50)]
