"""The follow task and tables that are too big for one turn of the loop: settled, told and freed in pieces."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import pytest
import trio
from trio.testing import MockClock

from tests._followed import A, B, C, Followed, prefixes, route
from trio_routes.routing import _changes, _settling_routes, _tables


@pytest.fixture
async def followed() -> AsyncIterator[Followed]:
    async with trio.open_nursery() as nursery:
        yield Followed(nursery)
        nursery.cancel_scope.cancel()


@pytest.fixture
def in_small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (_tables, _settling_routes):
        monkeypatch.setattr(module, "PIECE", 4)


MANY = [route(f"10.{second}.0.0/16") for second in range(100)]


async def turns_until(followed: Followed, done: Callable[[], bool]) -> int:
    turns = 0
    while not done():
        await trio.lowlevel.checkpoint()
        turns += 1
    return turns


@pytest.mark.usefixtures("in_small_pieces")
async def test_a_big_table_is_compared_and_freed_in_pieces_between_which_the_loop_has_turns(
    autojump_clock: MockClock, followed: Followed
) -> None:
    await followed.start(*MANY)
    followed.wire.set_routes(*MANY[1:], B)
    followed.wire.overflow()
    turns = await turns_until(followed, lambda: bool(followed.batches))
    assert turns >= 2 * len(MANY) // 4  # to compare, and to free what was known before
    assert followed.prefixes == prefixes(*MANY[1:], B)
    assert len(followed.batches[0].routes) == 2


@pytest.mark.usefixtures("in_small_pieces")
@pytest.mark.parametrize("after_turns", [2, 10, 20, 30, 40])
async def test_what_is_said_while_a_big_table_is_settled_counts(
    autojump_clock: MockClock, followed: Followed, after_turns: int
) -> None:
    await followed.start(*MANY)
    followed.wire.set_routes(*MANY, B)
    followed.wire.overflow()
    for _ in range(after_turns):
        await trio.lowlevel.checkpoint()
    assert followed.resyncing()
    for gone in (MANY[0], MANY[50], MANY[99], B):
        followed.wire.announce(gone, gone=True)
    followed.wire.announce(C)
    left = [each for each in (*MANY, C) if each not in (MANY[0], MANY[50], MANY[99])]
    followed.wire.set_routes(*left)
    await followed.settle(5)
    assert followed.prefixes == prefixes(*left) and not followed.resyncing()


@pytest.mark.usefixtures("in_small_pieces")
async def test_a_loss_while_a_big_table_is_settled_begins_anew(autojump_clock: MockClock, followed: Followed) -> None:
    await followed.start(*MANY)
    followed.wire.overflow()
    for _ in range(10):
        await trio.lowlevel.checkpoint()
    followed.wire.set_routes(A)
    followed.wire.overflow()
    await followed.settle(5)
    assert followed.prefixes == prefixes(A) and not followed.resyncing()
    assert len(followed.batches) == 1


@pytest.fixture
def in_small_portions(in_small_pieces: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_changes, "PORTION", 8)
    monkeypatch.setattr(_settling_routes, "DECIDED", 8)


def published(followed: Followed) -> list[tuple[str, bool]]:
    """What was published of routes: (prefix, whether it came)."""
    return [
        (str((change.new_route or change.old_route).destination), change.new is not None)  # type: ignore[union-attr]  # one of them is there
        for batch in followed.batches
        for change in batch.routes
    ]


@pytest.mark.usefixtures("in_small_portions")
async def test_what_a_resync_finds_is_told_in_portions_and_nobody_is_judged_before_the_last(
    autojump_clock: MockClock, followed: Followed
) -> None:
    await followed.start(*MANY)
    resyncing: list[bool] = []
    followed.on_batch = lambda: resyncing.append(followed.resyncing())
    followed.wire.set_routes(*MANY[:50], B)
    followed.wire.overflow()
    await followed.settle()
    first, last = followed.batches[0], followed.batches[-1]
    assert [len(batch.routes) for batch in followed.batches] == [8, 8, 8, 8, 8, 8, 3]
    assert resyncing == [True] * 6 + [False]
    assert first.everything and not first.resynced and last.resynced
    assert {batch.generation for batch in followed.batches} == {followed.cache.generation}
    assert last.earlier + last.differences() == 51
    assert sorted(published(followed)) == sorted([(f"10.{each}.0.0/16", False) for each in range(50, 100)] + [b_came()])


def b_came() -> tuple[str, bool]:
    return prefixes(B)[0], True


@pytest.mark.usefixtures("in_small_portions")
@pytest.mark.parametrize("after_turns", [1, 15, 60, 80, 100, 110, 120])
async def test_a_loss_while_differences_are_netted_or_told_loses_none_of_them(
    autojump_clock: MockClock, followed: Followed, after_turns: int
) -> None:
    await followed.start(*MANY)
    followed.wire.set_routes(*MANY[:50])
    followed.wire.overflow()
    for _ in range(after_turns):
        await trio.lowlevel.checkpoint()
    followed.wire.set_routes(*MANY[:50], B)
    followed.wire.overflow()
    await followed.settle(5)
    assert not followed.resyncing() and followed.prefixes == prefixes(*MANY[:50], B)
    assert sorted(published(followed)) == sorted([(f"10.{each}.0.0/16", False) for each in range(50, 100)] + [b_came()])


@pytest.mark.usefixtures("in_small_portions")
async def test_what_happens_while_a_big_batch_is_told_is_told_after_it(
    autojump_clock: MockClock, followed: Followed
) -> None:
    await followed.start(*MANY)
    followed.wire.set_routes(*MANY[:50])
    followed.wire.overflow()
    followed.on_batch = lambda: followed.wire.announce(C) if len(followed.batches) == 1 else None
    await followed.settle()
    assert published(followed)[-1] == (prefixes(C)[0], True) and len(published(followed)) == 51
    assert followed.batches[-1].generation == followed.batches[0].generation + 1
    assert not followed.batches[-1].resynced and followed.batches[-2].resynced


@pytest.mark.usefixtures("in_small_portions")
async def test_many_notifications_at_once_are_told_in_their_order(
    autojump_clock: MockClock, followed: Followed
) -> None:
    await followed.start(*MANY)
    for each in MANY[50:0:-1]:
        followed.wire.announce(each, gone=True)
    followed.wire.announce(B)
    await followed.settle()
    assert published(followed) == [*((f"10.{each}.0.0/16", False) for each in range(50, 0, -1)), b_came()]
    assert len({batch.generation for batch in followed.batches}) == 1 and len(followed.batches) == 7


# ---- what is read before a deadline, while the task sleeps -----------------------------------------


async def test_what_a_deadline_read_and_did_not_come_to_is_applied_without_another_word(
    autojump_clock: MockClock, followed: Followed
) -> None:
    await followed.start(A)
    await followed.settle()
    many = [route(f"10.{second}.{third}.0/24") for second in range(20) for third in range(250)]
    for each in many:
        followed.wire.announce(each)
    followed.follower.apply_pending()
    assert not followed.wire.queue and len(followed.prefixes) < 1 + len(many), "the socket has nothing to wake for"
    await followed.settle()
    assert followed.prefixes == prefixes(A, *many)


@pytest.mark.usefixtures("in_small_pieces")
async def test_a_table_that_a_deadline_began_to_settle_is_settled_without_another_word(
    autojump_clock: MockClock, followed: Followed
) -> None:
    await followed.start(*MANY)
    await followed.settle()
    followed.wire.set_routes(*MANY[1:])
    followed.wire.overflow()
    while followed.wire.queue:
        followed.follower.apply_pending()
    assert followed.resyncing(), "the socket has nothing to wake for"
    await followed.settle(5)
    assert not followed.resyncing() and followed.prefixes == prefixes(*MANY[1:])
