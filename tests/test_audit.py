"""The audit on a scripted socket: what it finds in tables that were corrupted on purpose, and what it leaves alone."""

from __future__ import annotations

import errno
import logging
from collections.abc import AsyncIterator, Callable
from ipaddress import IPv4Address, ip_address

import attrs
import pytest
import trio
from trio.testing import MockClock

from tests._followed import LINKS, ROUTES4, ROUTES6, A, B, C, Followed, prefixes, route
from trio_routes import _once
from trio_routes._follow import AUDIT_SMALL, SECOND_LOOK
from trio_routes._once import Once
from trio_routes._selfcheck import MOST_OUTSTANDING, PATIENCE, PEERS, SAMPLE
from trio_routes._selfcheck_answers import Question
from trio_routes.netlink import (
    AF_INET,
    AF_INET6,
    NLM_F_APPEND,
    NLM_F_CREATE,
    NUD_FAILED,
    NUD_INCOMPLETE,
    LinkMessage,
    MessageType,
    NeighbourMessage,
    NextHop,
    RouteBody,
    RuleMessage,
    encode_link,
    encode_neighbour,
    encode_route,
    encode_rule,
)
from trio_routes.netlink._route import RouteMessage
from trio_routes.routing import FOUND_BY_DUMP, Cache, Outcome, Resolution
from trio_routes.routing._tables import NodeKey

RULES4, NEIGHBOURS = (MessageType.RTM_GETRULE, AF_INET), (MessageType.RTM_GETNEIGH, 0)
# One audit, from wherever the last one ended, with its second look.
AN_AUDIT = AUDIT_SMALL + SECOND_LOOK + 1


@pytest.fixture
async def followed() -> AsyncIterator[Followed]:
    async with trio.open_nursery() as nursery:
        followed = Followed(nursery)
        main = RuleMessage(AF_INET, 32766, 254, action=1)
        followed.wire.tables[RULES4] = [(MessageType.RTM_NEWRULE, encode_rule(main))]
        yield followed
        nursery.cancel_scope.cancel()


def key_of(message: RouteMessage) -> NodeKey:
    return message.body.table, message.body.prefix_length, message.destination


def said(caplog: pytest.LogCaptureFixture, words: str) -> list[str]:
    return [record.getMessage() for record in caplog.records if words in record.getMessage()]


def remove(cache: Cache) -> None:
    cache.state.tables[AF_INET].put(key_of(A), ())


def alter(cache: Cache) -> None:
    cache.state.tables[AF_INET].put(key_of(A), (route("192.0.0.0/24", "10.9.9.9").body,))


def add(cache: Cache) -> None:
    cache.state.tables[AF_INET].put(key_of(C), (C.body,))


# ---- what is found -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("corrupt", "words"),
    [
        (remove, ("192.0.0.0/24 table 254", "the cache has nothing", "10.0.0.1")),
        (alter, ("192.0.0.0/24 table 254", "10.9.9.9", "10.0.0.1")),
        (add, ("192.0.2.0/24 table 254", "10.0.0.1", "the kernel nothing")),
    ],
)
async def test_a_corrupted_route_is_counted_logged_once_with_both_answers_repaired_and_published(
    autojump_clock: MockClock,
    followed: Followed,
    caplog: pytest.LogCaptureFixture,
    corrupt: Callable[[Cache], None],
    words: tuple[str, ...],
) -> None:
    await followed.start(A, B)
    for audit in (1, 2):
        corrupt(followed.cache)
        await followed.settle(AN_AUDIT)
        assert followed.prefixes == prefixes(A, B)
        assert len(followed.batches) == followed.statistics.audit_differences == audit
        assert followed.statistics.audits == audit
    (change,) = followed.batches[0].routes
    assert change.cause == FOUND_BY_DUMP and not followed.batches[0].resynced
    (line,) = said(caplog, "audit")  # twice the same: said once
    assert all(word in line for word in words), line
    assert followed.statistics.resyncs == 0


async def test_a_corrupted_link_and_a_corrupted_rule_are_differences_too(
    autojump_clock: MockClock, followed: Followed, caplog: pytest.LogCaptureFixture
) -> None:
    await followed.start(A)
    state = followed.cache.state
    state.links[2] = attrs.evolve(state.links[2], name="wrong0")
    del state.links[3]
    state.rules[AF_INET] = ()
    await followed.settle(AN_AUDIT)
    assert [link.name for link in followed.cache.links.values()] == ["eth2", "eth3"]
    assert [rule.priority for rule in followed.cache.rules(AF_INET)] == [32766]
    assert followed.statistics.audit_differences == 3
    (batch,) = (batch for batch in followed.batches if batch.rules)
    assert batch.everything
    lines = said(caplog, "audit")
    assert len(lines) == 3
    assert any("wrong0" in line and "eth2" in line for line in lines)


async def test_routes_that_only_stand_in_another_order_are_a_difference_of_ipv4(
    autojump_clock: MockClock, followed: Followed
) -> None:
    first, second = route("192.0.0.0/24", "10.0.0.1"), route("192.0.0.0/24", "10.0.0.2")
    await followed.start(first, second)
    followed.cache.state.tables[AF_INET].put(key_of(first), (second.body, first.body))
    await followed.settle(AN_AUDIT)
    assert followed.cache.state.tables[AF_INET].at(key_of(first)) == (first.body, second.body)
    (batch,) = followed.batches
    assert [(change.old, change.new) for change in batch.routes] == [
        (second.body, first.body),
        (first.body, second.body),
    ]


async def test_what_is_announced_a_moment_after_a_dump_showed_it_is_no_difference(
    autojump_clock: MockClock, followed: Followed
) -> None:
    await followed.start(A)
    followed.wire.set_routes(A, B)
    down = encode_link(LinkMessage(3, "eth3", 0x1))  # the kernel's NEWLINK of a lost carrier comes up to 1 s late
    followed.wire.tables[LINKS][1] = (MessageType.RTM_NEWLINK, down)
    await followed.settle(AUDIT_SMALL + 1)
    assert followed.statistics.audits == 1 and not followed.batches
    followed.wire.announce(B)
    followed.wire.notify(MessageType.RTM_NEWLINK, down)
    await followed.settle(2 * AUDIT_SMALL)
    assert followed.prefixes == prefixes(A, B) and not followed.cache.links[3].carrier
    assert followed.statistics.audit_differences == 0
    assert all(change.cause != FOUND_BY_DUMP for batch in followed.batches for change in batch.routes)
    # Only the two parts in question were dumped twice.
    assert (followed.wire.dumps.count(LINKS), followed.wire.dumps.count(ROUTES4)) == (3, 3)
    assert followed.wire.dumps.count(RULES4) == followed.statistics.audits == 2


async def test_a_healthy_follower_finds_nothing_however_much_changes(
    autojump_clock: MockClock, followed: Followed
) -> None:
    await followed.start(A)
    for second in range(300):
        gone = bool(second % 2)
        followed.wire.set_routes(*((A,) if gone else (A, B)))
        followed.wire.announce(B, gone=gone)
        await followed.settle(1)
    assert followed.statistics.audits >= 4
    assert (followed.statistics.audit_differences, followed.statistics.dump_exceptions) == (0, 0)


async def test_what_was_known_to_be_doubtful_is_no_difference_of_an_audit(
    autojump_clock: MockClock, followed: Followed
) -> None:
    # A group that lost a sibling is dumped again, and shows what nothing announced; the audit falls upon it.
    ways = NextHop(2, ip_address("fe80::1")), NextHop(3, ip_address("fe80::2"))
    group = RouteBody(AF_INET6, 254, 0, priority=1024, multipath=True, nexthops=ways)
    await followed.start(RouteMessage(group, 0))
    await followed.settle(AUDIT_SMALL - 0.01)
    followed.wire.announce(RouteMessage(attrs.evolve(group, nexthops=ways[:1], multipath=False), 0), gone=True)
    left = attrs.evolve(group, nexthops=ways[1:], multipath=False, protocol=4)
    followed.wire.set_routes(RouteMessage(left, 0))
    await followed.settle(AN_AUDIT)
    assert followed.cache.state.tables[AF_INET6].at((254, 0, 0)) == (left,)
    assert followed.statistics.audits and followed.statistics.audit_differences == 0


@pytest.mark.parametrize("when", ["before the second look", "in the second look"])
async def test_a_part_that_becomes_doubtful_before_it_is_looked_at_again_holds_no_findings(
    autojump_clock: MockClock, followed: Followed, when: str
) -> None:
    ways = NextHop(2, ip_address("fe80::1")), NextHop(3, ip_address("fe80::2"))
    group = RouteBody(AF_INET6, 254, 0, priority=1024, multipath=True, nexthops=ways)
    one, other = (attrs.evolve(group, nexthops=(way,), multipath=False) for way in ways)
    silent = RouteMessage(RouteBody(AF_INET6, 254, 16, nexthops=ways[:1]), 0x2001 << 112)
    await followed.start(RouteMessage(group, 0))
    followed.wire.set_routes(RouteMessage(other, 0), silent)

    def shrink(kind: int = ROUTES6[0], family: int = ROUTES6[1]) -> None:
        if (kind, family) == ROUTES6 and followed.wire.dumps.count(ROUTES6) != 1:
            followed.wire.announce(RouteMessage(one, 0), gone=True)
            followed.wire.meanwhile = lambda _kind, _family: None

    if when == "in the second look":
        followed.wire.meanwhile = shrink
    await followed.settle(AUDIT_SMALL + 1)
    if when == "before the second look":
        followed.wire.dumps.clear()
        shrink()
    await followed.settle(SECOND_LOOK + 1)
    assert len(list(followed.cache.routes())) == 2 and followed.statistics.audits == 1
    assert followed.statistics.audit_differences == 0


# ---- where the dump is wrong ---------------------------------------------------------------------


async def test_a_route_that_a_dump_hides_between_siblings_is_counted_apart_and_never_touched(
    autojump_clock: MockClock, followed: Followed, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    ways = NextHop(2, ip_address("fe80::1")), NextHop(3, ip_address("fe80::2"))
    group = RouteMessage(RouteBody(AF_INET6, 254, 0, priority=10, multipath=True, nexthops=ways), 0)
    hidden = RouteMessage(RouteBody(AF_INET6, 254, 0, priority=10, nexthops=(NextHop(3),)), 0)
    last = RouteMessage(RouteBody(AF_INET6, 254, 0, priority=20, nexthops=(NextHop(2),)), 0)
    await followed.start(group, last)
    append = NLM_F_CREATE | NLM_F_APPEND
    followed.wire.notify(MessageType.RTM_NEWROUTE, encode_route(hidden), append)
    await followed.settle()
    followed.batches.clear()
    await followed.settle(2 * AN_AUDIT)
    # At its place, before the routes of higher metric, where a lookup looks for it.
    assert followed.cache.state.tables[AF_INET6].at((254, 0, 0)) == (group.body, hidden.body, last.body)
    assert not followed.batches
    assert followed.statistics.dump_exceptions == followed.statistics.audits == 2
    assert followed.statistics.audit_differences == 0
    assert len(said(caplog, "left as it is known")) == 1 and not said(caplog, "audit")


async def test_a_route_before_its_siblings_is_never_hidden_so_it_is_a_difference_when_a_dump_lacks_it(
    autojump_clock: MockClock, followed: Followed
) -> None:
    ways = NextHop(2, ip_address("fe80::1")), NextHop(3, ip_address("fe80::2"))
    group = RouteMessage(RouteBody(AF_INET6, 254, 0, priority=10, multipath=True, nexthops=ways), 0)
    before = RouteMessage(RouteBody(AF_INET6, 254, 0, priority=10, nexthops=(NextHop(3),)), 0)
    await followed.start(before, group)
    followed.wire.set_routes(group)
    await followed.settle(AN_AUDIT)
    assert followed.cache.state.tables[AF_INET6].at((254, 0, 0)) == (group.body,)
    assert (followed.statistics.audit_differences, followed.statistics.dump_exceptions) == (1, 0)


async def test_a_failed_neighbour_that_is_asked_for_again_stays_failed(
    autojump_clock: MockClock, followed: Followed
) -> None:
    neighbour = NeighbourMessage(AF_INET, 2, ip_address("10.0.0.9"), NUD_FAILED)
    followed.wire.tables[NEIGHBOURS] = [(MessageType.RTM_NEWNEIGH, encode_neighbour(neighbour))]
    await followed.start(A)
    again = encode_neighbour(attrs.evolve(neighbour, state=NUD_INCOMPLETE))
    followed.wire.tables[NEIGHBOURS] = [(MessageType.RTM_NEWNEIGH, again)]
    await followed.settle(AN_AUDIT)
    assert followed.cache.neighbour_failed(2, ip_address("10.0.0.9")) and not followed.batches
    assert (followed.statistics.audit_differences, followed.statistics.dump_exceptions) == (0, 1)
    followed.wire.tables[NEIGHBOURS] = []
    await followed.settle(AN_AUDIT)
    assert not followed.cache.neighbour_failed(2, ip_address("10.0.0.9"))
    assert followed.statistics.audit_differences == 1


# ---- the log -------------------------------------------------------------------------------------


def test_the_log_has_each_thing_once_and_enough_of_many(caplog: pytest.LogCaptureFixture) -> None:
    once = Once(most=3)
    assert [once.say(logging.WARNING, text) for text in "abacadef"] == [True, True, False, True, *[False] * 4]
    assert [record.getMessage()[0] for record in caplog.records] == ["a", "b", "c", "3"]


async def test_a_log_line_is_bounded_however_long_the_answers(
    autojump_clock: MockClock, followed: Followed, caplog: pytest.LogCaptureFixture
) -> None:
    wide = RouteBody(
        AF_INET,
        254,
        8,
        multipath=True,
        nexthops=tuple(NextHop(2, IPv4Address(0x0A000001 + i)) for i in range(200)),
    )
    await followed.start(RouteMessage(wide, 10 << 24))
    followed.wire.set_routes(*(route(f"192.{i >> 8}.{i & 255}.0/24") for i in range(400)))
    await followed.settle(AN_AUDIT)
    assert followed.statistics.audit_differences == 401
    assert len(caplog.records) == _once.MOST_SAID + 1
    assert max(len(record.getMessage()) for record in caplog.records) < 700


# ---- lookups against the kernel's answers --------------------------------------------------------


class Truth:
    """Answers RTM_GETROUTE from a cache of its own, right before something corrupts the other."""

    def __init__(self, followed: Followed) -> None:
        self.wrong: RouteBody | int | None = 0
        self.silent = False
        followed.wire.ways = self.answer
        self._followed = followed

    def answer(self, asked: RouteMessage) -> RouteBody | int | None:
        if self.silent:
            return None
        if self.wrong:
            return self.wrong
        found = Cache.lookup(self._followed.cache, IPv4Address(asked.destination))
        if found.route is None:
            return errno.ENETUNREACH
        return attrs.evolve(found.route.body, prefix_length=32, nexthops=found.hops[:1], multipath=False)


def no_route(*_: object, **__: object) -> Resolution:
    return Resolution(Outcome.NO_ROUTE)


async def test_lookups_that_equal_the_kernels_answers_are_counted_and_no_more(
    autojump_clock: MockClock, followed: Followed
) -> None:
    Truth(followed)
    await followed.start(A, B)
    await followed.settle(AN_AUDIT)
    counters = followed.follower.self_check.statistics
    assert 0 < counters.checks <= len(followed.wire.asked) <= SAMPLE
    assert counters.differences == 0 and not counters.exemptions
    assert {asked.destination >> 8 for asked in followed.wire.asked} <= {A.destination >> 8, B.destination >> 8}
    assert followed.statistics.resyncs == 0 and not followed.batches


async def test_a_wrong_lookup_is_counted_logged_once_with_both_answers_and_answered_by_one_resync(
    autojump_clock: MockClock,
    followed: Followed,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Truth(followed)
    followed.peers.append(Question(ip_address("192.0.0.7"), mark=5))
    await followed.start(A)
    monkeypatch.setattr(followed.follower.self_check, "_inside_a_route", lambda: None)
    monkeypatch.setattr(followed.cache, "lookup", no_route)
    await followed.settle(AN_AUDIT + 3)
    counters = followed.follower.self_check.statistics
    assert (counters.checks, counters.differences) == (1, 1)
    assert len(followed.wire.asked) == 2 and {asked.body.mark for asked in followed.wire.asked} == {5}
    assert followed.statistics.resyncs == 1
    assert [batch.resynced for batch in followed.batches] == ["a lookup differs from the kernel's answer"]
    await followed.settle(AN_AUDIT + 3)
    assert counters.differences == 2 and followed.statistics.resyncs == 1
    (line,) = said(caplog, "the way to 192.0.0.7 mark 5")
    assert "no route" in line and "10.0.0.1" in line


async def test_a_change_between_question_and_answer_says_nothing_against_the_cache(
    autojump_clock: MockClock, followed: Followed
) -> None:
    truth = Truth(followed)
    followed.peers.append(Question(ip_address("192.0.0.7")))
    await followed.start(A)

    def late(asked: RouteMessage) -> RouteBody | int | None:
        answer = truth.answer(asked)
        if asked.destination == int(ip_address("192.0.0.7")):
            followed.wire.announce(A, gone=True)
        return answer

    followed.wire.ways = late
    await followed.settle(AN_AUDIT)
    counters = followed.follower.self_check.statistics
    assert counters.differences == 0 and counters.exemptions.keys() == {"the tables changed meanwhile"}
    assert followed.statistics.resyncs == 0


async def test_a_difference_that_is_gone_at_the_second_look_was_none(
    autojump_clock: MockClock, followed: Followed
) -> None:
    truth = Truth(followed)
    followed.peers.append(Question(ip_address("192.0.0.7")))
    truth.wrong = errno.ENETUNREACH
    await followed.start(A)
    await followed.settle(AUDIT_SMALL + 1)
    assert followed.wire.asked
    truth.wrong = 0
    await followed.settle(SECOND_LOOK + 1)
    counters = followed.follower.self_check.statistics
    assert counters.checks and counters.differences == 0


async def test_few_questions_are_asked_at_a_time_and_those_without_an_answer_are_given_up(
    autojump_clock: MockClock, followed: Followed
) -> None:
    Truth(followed).silent = True
    followed.peers += [Question(IPv4Address((192 << 24) + at)) for at in range(100)]
    await followed.start(A)
    await followed.settle(AUDIT_SMALL + 1)
    assert len(followed.wire.asked) == MOST_OUTSTANDING
    await followed.settle(PATIENCE * SAMPLE / MOST_OUTSTANDING + 1)
    assert PEERS <= len(followed.wire.asked) <= SAMPLE
    assert followed.follower.self_check.statistics.checks == 0
    assert followed.follower.self_check.wake_at > trio.current_time() + 1e6


async def test_a_kernel_that_does_not_answer_such_questions_is_not_asked_again(
    autojump_clock: MockClock, followed: Followed
) -> None:
    await followed.start(A)
    await followed.settle(3 * AN_AUDIT)
    assert 0 < len(followed.wire.asked) <= MOST_OUTSTANDING
    assert followed.follower.self_check.statistics.checks == 0 and followed.statistics.audits == 3
