"""The follow task on a scripted socket: joining dumps and notifications, losses, audits, and how long it may take."""

from __future__ import annotations

import errno
import itertools
import logging
import math
from collections.abc import AsyncIterator
from ipaddress import ip_address
from itertools import pairwise

import attrs
import pytest
import trio
from trio.testing import MockClock

from tests._followed import LINKS, ROUTES4, ROUTES6, A, B, C, D, Followed, prefixes
from tests._scripted_socket import PORT
from trio_routes import KernelRefusedError
from trio_routes._follow import AUDIT_SMALL, DUMP_TURN, PASSES, SECOND_LOOK
from trio_routes._pace import FIRST_RETRY, LAST_RETRY, Pace
from trio_routes._subscription import GROUPS, REQUESTS
from trio_routes.netlink import (
    AF_INET,
    AF_INET6,
    NLM_F_DUMP_INTR,
    RTM_F_CLONED,
    LinkMessage,
    MessageType,
    NextHop,
    RouteBody,
    build_message,
    encode_link,
    encode_route,
)
from trio_routes.netlink._route import RouteMessage
from trio_routes.netlink._route_dump import PORTION
from trio_routes.routing import FOUND_BY_DUMP, Outcome, Part


@pytest.fixture
async def followed() -> AsyncIterator[Followed]:
    async with trio.open_nursery() as nursery:
        yield Followed(nursery)
        nursery.cancel_scope.cancel()


def once(followed: Followed, asked: tuple[int, int], do: object) -> None:
    """Do something between the entries of the next dump of one kind and its end."""

    def meanwhile(kind: int, family: int) -> None:
        if (kind, family) == asked:
            followed.wire.meanwhile = lambda _kind, _family: None
            assert callable(do)
            do()

    followed.wire.meanwhile = meanwhile


# ---- the first dump --------------------------------------------------------------------------------


async def test_the_first_dump_is_complete_when_it_has_started_and_is_no_change(
    autojump_clock: MockClock, followed: Followed
) -> None:
    await followed.start(A, B)
    assert followed.wire.groups == list(GROUPS)
    assert len(followed.wire.sent) == len(Part)
    assert followed.prefixes == prefixes(A, B)
    assert set(followed.cache.links) == {2, 3}
    assert followed.batches == [] and followed.follower.ready.is_set()


async def test_a_notification_becomes_a_batch_with_a_generation_of_its_own(
    autojump_clock: MockClock, followed: Followed
) -> None:
    await followed.start(A)
    before = followed.cache.generation
    followed.wire.announce(B)
    followed.wire.announce(A, gone=True)
    await followed.settle()
    (batch,) = followed.batches
    assert batch.generation == followed.cache.generation == before + 1
    assert [(change.old is None, change.new is None) for change in batch.routes] == [(True, False), (False, True)]
    assert followed.prefixes == prefixes(B)
    followed.wire.announce(A, gone=True)  # unknown: nothing
    await followed.settle()
    assert len(followed.batches) == 1 and followed.cache.generation == before + 1


async def test_a_route_that_the_kernel_keeps_for_one_destination_is_of_no_table(
    autojump_clock: MockClock, followed: Followed
) -> None:
    await followed.start(A)
    cached = attrs.evolve(B, body=attrs.evolve(B.body, flags=RTM_F_CLONED))
    followed.wire.announce(cached)
    followed.wire.announce(attrs.evolve(cached, destination=A.destination), gone=True)
    await followed.settle()
    assert followed.prefixes == prefixes(A) and not followed.batches


@pytest.mark.parametrize("number", [errno.EOPNOTSUPP, errno.EAFNOSUPPORT])
async def test_what_a_kernel_does_not_have_is_empty(autojump_clock: MockClock, followed: Followed, number: int) -> None:
    followed.wire.refusals[(MessageType.RTM_GETNEXTHOP, 0)] = number
    await followed.start(A)
    assert followed.prefixes == prefixes(A)


@pytest.mark.parametrize("number", [errno.EOPNOTSUPP, errno.EAFNOSUPPORT])
async def test_a_kernel_without_policy_rules_looks_into_the_main_table(
    autojump_clock: MockClock, followed: Followed, number: int
) -> None:
    for family in (AF_INET, AF_INET6):
        followed.wire.refusals[(MessageType.RTM_GETRULE, family)] = number
    await followed.start(A)
    assert followed.cache.lookup(ip_address("192.0.0.7")).outcome is Outcome.ROUTED
    assert not followed.cache.rules(AF_INET)


async def test_a_refused_first_dump_is_the_callers_error(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        followed = Followed(nursery)
        followed.wire.refusals[LINKS] = errno.EPERM
        with pytest.raises(KernelRefusedError, match=r"dump of links: .*the test said no") as caught:
            await followed.follower.run()
        assert caught.value.errno == errno.EPERM


async def test_a_dump_that_is_refused_because_another_is_under_way_is_asked_for_again(
    autojump_clock: MockClock, followed: Followed
) -> None:
    followed.wire.refusals[LINKS] = errno.EBUSY
    await followed.start(A)
    assert followed.prefixes == prefixes(A)


@pytest.mark.parametrize("asked", [LINKS, ROUTES4])
async def test_a_torn_dump_is_made_again(autojump_clock: MockClock, followed: Followed, asked: tuple[int, int]) -> None:
    followed.wire.flags[asked] = NLM_F_DUMP_INTR
    await followed.start(A)
    assert followed.statistics.repeated_dumps == 1
    assert len(followed.wire.sent) == len(Part) + 1
    assert followed.prefixes == prefixes(A)


async def test_a_prefix_that_changed_under_its_first_dump_is_dumped_again(
    autojump_clock: MockClock, followed: Followed
) -> None:
    def change() -> None:  # between the part that shows A and B, and the end
        followed.wire.set_routes(A)
        followed.wire.announce(B, gone=True)

    once(followed, ROUTES4, change)
    await followed.start(A, B)
    assert followed.prefixes == prefixes(A)
    assert followed.statistics.repeated_dumps == 1


async def test_a_link_that_goes_down_under_the_first_dump_leaves_no_route_behind(
    autojump_clock: MockClock, followed: Followed
) -> None:
    def change() -> None:
        followed.wire.set_routes()
        followed.wire.notify(MessageType.RTM_NEWLINK, encode_link(LinkMessage(2, "eth2", 0)))

    once(followed, ROUTES4, change)
    await followed.start(A, B)
    assert followed.prefixes == []


async def test_the_passes_are_bounded_in_a_flood_and_go_on_when_it_is_quieter(
    autojump_clock: MockClock, followed: Followed
) -> None:
    flip = [0]

    def change(kind: int, family: int) -> None:
        if (kind, family) == ROUTES4:  # B comes and goes, and each dump shows the opposite
            flip[0] += 1
            followed.wire.set_routes(*((A, B) if flip[0] % 2 else (A,)))
            followed.wire.announce(B, gone=not flip[0] % 2)

    followed.wire.meanwhile = change
    began = trio.current_time()
    await followed.start(A)
    assert followed.follower.ready.is_set() and flip[0] == PASSES
    assert trio.current_time() == began  # ready: A is known, only B is doubtful
    followed.wire.meanwhile = lambda _kind, _family: None
    await followed.settle(2 * FIRST_RETRY)
    assert followed.prefixes == (prefixes(A, B) if flip[0] % 2 else prefixes(A))
    assert followed.wire.dumps == [ROUTES4]


async def test_it_is_not_ready_before_each_part_was_dumped_whole_once(
    autojump_clock: MockClock, followed: Followed
) -> None:
    def tear(kind: int, family: int) -> None:
        followed.wire.flags[ROUTES4] = NLM_F_DUMP_INTR

    followed.wire.flags[ROUTES4] = NLM_F_DUMP_INTR
    followed.wire.meanwhile = tear
    with trio.move_on_after(5):
        await followed.start(A)
    assert not followed.follower.ready.is_set()
    # With a back-off: 0.1 s doubling.
    assert 4 * PASSES <= followed.wire.dumps.count(ROUTES4) <= 8 * PASSES


# ---- losses ----------------------------------------------------------------------------------------


async def test_after_an_overflow_only_real_differences_are_published_and_why_once(
    autojump_clock: MockClock, followed: Followed
) -> None:
    await followed.start(A, B)
    followed.wire.set_routes(B, C)  # A went and C came, and nobody heard of it
    followed.wire.overflow()
    await followed.settle()
    (batch,) = followed.batches
    assert batch.resynced == "the receive buffer overflowed" and batch.everything
    assert {change.cause for change in batch.routes} == {FOUND_BY_DUMP} and len(batch.routes) == 2
    assert followed.prefixes == prefixes(B, C)
    assert followed.statistics.resyncs == 1 and not followed.resyncing()


async def test_an_overflow_that_lost_nothing_of_importance_is_told_without_differences(
    autojump_clock: MockClock, followed: Followed
) -> None:
    await followed.start(A)
    followed.wire.overflow()
    await followed.settle()
    (batch,) = followed.batches
    assert batch.resynced and not batch.routes and not batch.links


async def test_nobody_is_told_anything_in_a_resync_and_what_comes_to_nothing_never(
    autojump_clock: MockClock, followed: Followed
) -> None:
    await followed.start(A)
    seen: list[tuple[bool, int]] = []

    def change() -> None:
        followed.wire.announce(C)
        followed.wire.announce(C, gone=True)
        followed.wire.announce(D)
        followed.wire.set_routes(A, D)
        seen.append((followed.resyncing(), len(followed.batches)))

    once(followed, ROUTES6, change)
    followed.wire.overflow()
    await followed.settle()
    assert seen == [(True, 0)]
    (batch,) = followed.batches
    assert [str(change.new_route.destination) for change in batch.routes if change.new_route] == prefixes(D)
    assert followed.prefixes == prefixes(A, D)


async def test_losses_in_a_row_are_answered_with_patience(autojump_clock: MockClock, followed: Followed) -> None:
    await followed.start(A)
    asked: list[float] = []

    def lose_again(kind: int, family: int) -> None:
        if (kind, family) == LINKS:
            asked.append(trio.current_time())
            followed.wire.overflow()

    followed.wire.meanwhile = lose_again
    followed.wire.overflow()
    await followed.settle(30)
    assert followed.resyncing() and followed.batches == [] and followed.statistics.resyncs == 1
    pauses = [later - earlier for earlier, later in pairwise(asked)]
    assert pauses == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0][: len(pauses)])
    assert len(pauses) >= 7
    followed.wire.meanwhile = lambda _kind, _family: None
    await followed.settle(2 * LAST_RETRY)
    assert not followed.resyncing() and len(followed.batches) == 1
    assert followed.prefixes == prefixes(A)


async def test_losses_while_a_try_is_still_to_come_do_not_put_it_off(
    autojump_clock: MockClock, followed: Followed
) -> None:
    await followed.start(A)
    for _ in range(1000):
        followed.wire.overflow()
        await followed.settle(0.001)
    followed.wire.set_routes(B)
    await followed.settle(2)
    assert not followed.resyncing() and followed.prefixes == prefixes(B)


async def test_a_loss_while_a_part_is_still_doubtful_reads_everything_anew(
    autojump_clock: MockClock, followed: Followed
) -> None:
    def change(kind: int, family: int) -> None:
        if (kind, family) == ROUTES4:
            followed.wire.announce(B, gone=B in shown)
            shown.symmetric_difference_update({B})
            followed.wire.set_routes(A, *shown)

    shown: set[RouteMessage] = set()
    followed.wire.meanwhile = change
    await followed.start(A)
    followed.wire.meanwhile = lambda _kind, _family: None
    followed.wire.set_routes(C)
    followed.wire.overflow()
    await followed.settle(1)
    assert followed.prefixes == prefixes(C)
    assert set(followed.wire.dumps) >= {LINKS, ROUTES4, ROUTES6}


async def test_bytes_that_break_their_framing_are_counted_logged_once_and_answered_by_a_resync(
    autojump_clock: MockClock, followed: Followed, caplog: pytest.LogCaptureFixture
) -> None:
    await followed.start(A)
    followed.wire.set_routes(B)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            followed.wire.notify(MessageType.RTM_NEWROUTE, b"\2")
            await followed.settle(FIRST_RETRY / 2)
        await followed.settle(1)
    assert followed.statistics.undecodable == 3
    assert sum("could not be decoded:" in record.message for record in caplog.records) == 1
    assert followed.prefixes == prefixes(B)
    assert all(batch.resynced for batch in followed.batches)


async def test_an_overrun_that_the_kernel_reports_in_a_message_is_a_loss(
    autojump_clock: MockClock, followed: Followed, caplog: pytest.LogCaptureFixture
) -> None:
    await followed.start(A)
    followed.wire.set_routes(A, B)
    followed.wire.notify(MessageType.OVERRUN, b"")
    await followed.settle(1)
    assert followed.statistics.resyncs == 1 and followed.prefixes == prefixes(A, B)
    assert [batch.resynced for batch in followed.batches] == ["the kernel reported an overrun"]
    assert "read anew: the kernel reported an overrun" in caplog.text


async def test_messages_that_nobody_can_read_do_not_cost_a_resync_each(
    autojump_clock: MockClock, followed: Followed
) -> None:
    await followed.start(A)
    for _ in range(200):
        followed.wire.notify(MessageType.RTM_NEWROUTE, b"\2")
        await followed.settle(0.05)
    assert followed.statistics.undecodable == 200
    assert followed.wire.dumps.count(LINKS) < 20  # in ten seconds


async def test_an_undecodable_dump_is_made_again(autojump_clock: MockClock, followed: Followed) -> None:
    await followed.start(A)
    followed.wire.routes(AF_INET)[:] = [(MessageType.RTM_NEWROUTE, b"\2")]
    followed.wire.overflow()
    await followed.settle(0.05)
    assert followed.resyncing()
    followed.wire.set_routes(B)
    await followed.settle(5)
    assert not followed.resyncing() and followed.prefixes == prefixes(B)


async def test_a_dump_that_is_refused_later_on_is_asked_for_again(
    autojump_clock: MockClock, followed: Followed
) -> None:
    await followed.start(A)
    followed.wire.set_routes(B)
    followed.wire.refusals[ROUTES4] = errno.ENOMEM
    followed.wire.overflow()
    await followed.settle(5)
    assert followed.prefixes == prefixes(B)
    (batch,) = followed.batches
    assert batch.resynced


async def test_replies_to_a_dump_that_was_given_up_are_not_taken_for_the_next(
    autojump_clock: MockClock, followed: Followed
) -> None:
    await followed.start(A)

    def stale() -> None:  # the first resync's dump of links is cut off by an undecodable notification
        followed.wire.notify(MessageType.RTM_NEWROUTE, b"\2")

    once(followed, LINKS, stale)
    followed.wire.overflow()
    await followed.settle(5)
    assert not followed.resyncing() and followed.prefixes == prefixes(A)
    assert set(followed.cache.links) == {2, 3}


# ---- audits ----------------------------------------------------------------------------------------


async def test_an_audit_finds_and_publishes_what_no_notification_told(
    autojump_clock: MockClock, followed: Followed
) -> None:
    await followed.start(A)
    followed.wire.set_routes(A, B)
    await followed.settle(AUDIT_SMALL - 1)
    assert followed.wire.dumps == []
    await followed.settle(2 + SECOND_LOOK)
    (batch,) = followed.batches
    assert not batch.resynced and not batch.everything
    assert [change.cause for change in batch.routes] == [FOUND_BY_DUMP]
    assert (followed.statistics.audits, followed.statistics.audit_differences) == (1, 1)
    await followed.settle(AUDIT_SMALL + 1)
    assert followed.statistics.audits == 2 and len(followed.batches) == 1


async def test_an_audit_believes_notifications_more_than_an_older_part_of_its_dump(
    autojump_clock: MockClock, followed: Followed
) -> None:
    await followed.start(A)

    def change() -> None:
        followed.wire.announce(B)
        followed.wire.announce(A, gone=True)

    once(followed, ROUTES4, change)
    await followed.settle(AUDIT_SMALL + 1)
    assert followed.prefixes == prefixes(B)
    assert (followed.statistics.audit_differences, followed.statistics.repeated_dumps) == (0, 0)
    assert all(change.cause != FOUND_BY_DUMP for batch in followed.batches for change in batch.routes)


async def test_changes_go_on_being_published_in_an_audit(autojump_clock: MockClock, followed: Followed) -> None:
    await followed.start(A)

    def change() -> None:
        followed.wire.set_routes(A, B)
        followed.wire.announce(B)

    once(followed, LINKS, change)
    await followed.settle(AUDIT_SMALL + 1)
    assert [len(batch.routes) for batch in followed.batches] == [1]
    assert followed.times[0] == pytest.approx(AUDIT_SMALL, abs=0.01)


async def test_a_group_of_siblings_that_shrinks_is_read_anew_soon(
    autojump_clock: MockClock, followed: Followed
) -> None:
    group = RouteBody(
        AF_INET6,
        254,
        0,
        priority=1024,
        multipath=True,
        nexthops=(NextHop(2, ip_address("fe80::1")), NextHop(3, ip_address("fe80::2"))),
    )
    left = RouteBody(AF_INET6, 254, 0, priority=1024, nexthops=group.nexthops[1:])
    hidden = RouteBody(AF_INET6, 254, 0, priority=1024, nexthops=(NextHop(2),))
    await followed.start(RouteMessage(group, 0))
    gone = RouteBody(AF_INET6, 254, 0, priority=1024, nexthops=group.nexthops[:1])
    followed.wire.announce(RouteMessage(gone, 0), gone=True)
    # What the dump hid between the siblings now shows, without a notification.
    followed.wire.set_routes(RouteMessage(left, 0), RouteMessage(hidden, 0))
    await followed.settle(1)
    assert followed.wire.dumps == [ROUTES6]
    assert len(list(followed.cache.routes())) == 2
    await followed.settle(30)
    assert followed.wire.dumps == [ROUTES6]


# ---- the loop --------------------------------------------------------------------------------------


async def test_a_flood_leaves_the_loop_to_others_between_batches(autojump_clock: MockClock, followed: Followed) -> None:
    await followed.start()
    for _ in range(2000):
        followed.wire.announce(A)
        followed.wire.announce(A, gone=True)
    turns = 0
    while sum(len(batch.routes) for batch in followed.batches) < 4000:
        await trio.lowlevel.checkpoint()
        turns += 1
    assert turns >= 4000 // 256


@pytest.mark.parametrize(("seconds_of_each", "parts_of_a_turn"), [(0.0, 5), (0.6 * DUMP_TURN, 2), (1.0, 1)])
async def test_a_turn_of_the_loop_takes_as_much_of_a_dump_as_there_is_time_for(
    autojump_clock: MockClock,
    followed: Followed,
    monkeypatch: pytest.MonkeyPatch,
    seconds_of_each: float,
    parts_of_a_turn: int,
) -> None:
    calls = itertools.count()
    monkeypatch.setattr("trio_routes._follow.perf_counter", lambda: next(calls) * seconds_of_each)

    def many_parts(kind: int, family: int) -> None:
        for part in range(6 if (kind, family) == ROUTES4 else 0):
            routes = [RouteMessage(A.body, (11 << 24) + (part << 18) + (number << 8)) for number in range(600)]
            sequence = len(followed.wire.sent)
            messages = [
                build_message(MessageType.RTM_NEWROUTE, 2, sequence, encode_route(each), PORT) for each in routes
            ]
            followed.wire.push(b"".join(messages))

    followed.wire.meanwhile = many_parts  # the first comes with what is no part of the dump, and is a turn's last
    step, read = followed.follower.step, [0]

    def counting_step() -> bool:
        more = step()
        read.append(followed.statistics.routes_read)
        return more

    monkeypatch.setattr(followed.follower, "step", counting_step)
    await followed.start()
    turns = [(after - before) // 600 for before, after in pairwise(read) if after > before]
    assert sum(turns) == 6 and max(turns) == parts_of_a_turn


async def test_of_a_part_with_many_routes_of_their_own_a_turn_of_the_loop_takes_a_portion(
    autojump_clock: MockClock, followed: Followed, monkeypatch: pytest.MonkeyPatch
) -> None:
    routes = [
        RouteMessage(attrs.evolve(A.body, priority=number), (11 << 24) + (number << 8))
        for number in range(16 * PORTION)
    ]
    step, read = followed.follower.step, [0]

    def counting_step() -> bool:
        more = step()
        read.append(followed.statistics.routes_read)
        return more

    monkeypatch.setattr(followed.follower, "step", counting_step)
    await followed.start(*routes)
    assert [after - before for before, after in pairwise(read) if after > before] == 16 * [PORTION]
    assert len(list(followed.cache.routes())) == len(routes)


async def test_a_portion_of_a_dump_that_is_given_up_is_not_taken_for_the_next(
    autojump_clock: MockClock, followed: Followed, monkeypatch: pytest.MonkeyPatch
) -> None:
    def in_one_datagram(kind: int, family: int) -> None:
        if (kind, family) != ROUTES4:
            return
        followed.wire.meanwhile = lambda _kind, _family: None
        sequence = len(followed.wire.sent)
        messages = [
            build_message(MessageType.RTM_NEWROUTE, 2, sequence, encode_route(RouteMessage(body, A.destination)), PORT)
            for body in (attrs.evolve(A.body, priority=number) for number in range(16 * PORTION))
        ]
        followed.wire.push(b"".join(messages) + build_message(MessageType.DONE, 2, sequence, bytes(4), PORT))

    step, lost = followed.follower.step, [False]

    def losing_step() -> bool:
        more = step()
        if followed.follower._rest is not None and not any(lost):
            lost.append(True)
            followed.follower._lost("the test said so")
        return more

    monkeypatch.setattr(followed.follower, "step", losing_step)
    followed.wire.meanwhile = in_one_datagram
    await followed.start(B)
    assert any(lost) and followed.prefixes == prefixes(B)


async def test_what_is_pending_is_applied_at_once_and_bounded(autojump_clock: MockClock, followed: Followed) -> None:
    await followed.start()
    followed.wire.announce(A)
    followed.follower.apply_pending()
    assert followed.prefixes == prefixes(A) and len(followed.batches) == 1
    for _ in range(5_000):
        followed.wire.announce(A, gone=True)
        followed.wire.announce(A)
    followed.follower.apply_pending()
    assert 1 < sum(len(batch.routes) for batch in followed.batches) < 10_000


async def test_time_that_passes_in_a_resync_does_not_spin_the_loop(
    autojump_clock: MockClock, followed: Followed
) -> None:
    await followed.start(A)
    waits = 0
    wait_readable = followed.wire.wait_readable

    async def counted() -> None:
        nonlocal waits
        waits += 1
        await wait_readable()

    followed.wire.wait_readable = counted  # type: ignore[method-assign]  # counting on one object
    followed.wire.meanwhile = lambda kind, family: followed.wire.overflow() if (kind, family) == LINKS else None
    followed.wire.overflow()
    await followed.settle(3 * AUDIT_SMALL)
    assert followed.resyncing() and waits < 200


def test_the_pace_doubles_up_to_a_limit_and_is_forgotten_in_calm() -> None:
    pace = Pace()
    now = 100.0
    tries: list[float] = []
    for _ in range(10):
        at = pace.next(now)
        tries.append(at - now)
        now = at
    assert tries == pytest.approx([0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10, 10])
    assert pace.next(now + 15) == now + 15  # not calm for long enough: at once, but the next one waits
    assert pace.next(now + 16) == now + 15 + LAST_RETRY
    assert [pace.next(now + 17) for _ in range(1000)][-1] == now + 15 + LAST_RETRY  # still the same one
    later = pace.next(now + 1000)
    assert later == now + 1000
    assert pace.next(later) == pytest.approx(later + FIRST_RETRY)
    assert not math.isinf(later)


def test_there_is_a_request_for_every_part() -> None:
    assert list(REQUESTS) == list(Part)
