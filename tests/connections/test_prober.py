"""Asking: when it begins, how long it waits, what it reports and gives back. No packet, and no wall time."""

from __future__ import annotations

import math

import attrs
import pytest
import trio
import trio.testing
from trio.testing import MockClock

from tests.connections._watch import FAR, Peer, Watch, register, standing
from tests.connections.network import C2
from trio_routes import ConnectionLost, ConnectionRecovered, ConnectionSuspect
from trio_routes.connections import Connection, Policy, ProbeAnswer, Standing, Verdict
from trio_routes.connections._connection import Record
from trio_routes.connections._deadlines import Deadlines
from trio_routes.connections._evidence import Reply
from trio_routes.connections._judge import resolve
from trio_routes.connections._prober import PACE, AnyLine, Prober

LATE = 0.3  # looks are up to so far apart


@attrs.define(eq=False)
class Line:
    """A connection that answers as it is told to."""

    now: Reply | None = Reply.NOTHING
    window: float | None = 3.0
    begun: float | None = None
    given_back: bool = False
    wants_an_answer: bool = False

    def begin(self) -> float | None:
        self.begun = trio.current_time()
        return self.window

    def look(self) -> Reply | None:
        assert not self.given_back
        return self.now

    def end(self, t: float) -> bool:
        if self.wants_an_answer:
            return False
        self.release()
        return True

    def resume(self, record: Record) -> float | None:
        return None if self.given_back else self.window

    def release(self) -> None:
        self.given_back = True


@attrs.define(eq=False)
class Clerk:
    """Writes down what it is told, as the court would act on it."""

    told: list[tuple[str, float]] = attrs.field(factory=list[tuple[str, float]])
    until: float = math.inf

    def answered(self, connection: Connection, *, accepted: bool, by: str, reset: bool = False) -> None:
        self.note("accepted" if accepted else "reset" if reset else "refused")

    def prolong(self, connection: Connection, until: float, note: str) -> None:
        self.until = until

    def unanswered(self, connection: Connection) -> None:
        self.note("unanswered")

    def note(self, what: str) -> None:
        self.told.append((what, round(trio.current_time(), 1)))


class Desk:
    """A prober with lines by hand."""

    def __init__(self) -> None:
        self.clerk = Clerk()
        self.lines: list[Line] = []
        self.began = trio.current_time()
        self.watch = Watch()
        self.prober = Prober(self.clerk, self.find)

    def find(self, record: Record, may_duplicate: bool) -> AnyLine | None:
        return self.lines[-1]

    def ask(self, line: Line | None = None) -> Line:
        self.lines.append(line or Line())
        self.connection = self.watch.register()
        self.prober.ask(self.connection)
        return self.lines[-1]

    @property
    def waits(self) -> float:
        return self.clerk.until - self.began


@pytest.fixture
async def desk(nursery: trio.Nursery) -> Desk:
    desk = Desk()
    nursery.start_soon(desk.prober.run)
    return desk


async def test_silence_is_nothing_that_the_prober_decides(desk: Desk, autojump_clock: MockClock) -> None:
    line = desk.ask()
    await trio.sleep(60)
    assert desk.clerk.told == []
    assert desk.waits == pytest.approx(3, abs=LATE)
    assert not line.given_back, "its deadline is the court's, which then says stop"


async def test_the_window_is_as_long_as_the_line_says(desk: Desk, autojump_clock: MockClock) -> None:
    desk.ask(Line(window=8.0))
    await trio.sleep(1)
    assert desk.waits == pytest.approx(8, abs=LATE)


@pytest.mark.parametrize("reply", [Reply.ONE, Reply.UNHEARD])
async def test_one_answer_prolongs_it_once_by_three_seconds(
    desk: Desk, autojump_clock: MockClock, reply: Reply
) -> None:
    desk.ask(Line(reply))
    await trio.sleep(2.9)
    assert desk.waits == pytest.approx(3, abs=LATE)
    await trio.sleep(1)
    assert desk.waits == pytest.approx(6, abs=2 * LATE)
    await trio.sleep(60)
    assert desk.waits == pytest.approx(6, abs=2 * LATE)


@pytest.mark.parametrize(
    ("reply", "told"), [(Reply.ACCEPTED, "accepted"), (Reply.RESET, "reset"), (None, "unanswered")]
)
async def test_an_answer_is_told(desk: Desk, autojump_clock: MockClock, reply: Reply | None, told: str) -> None:
    line = desk.ask()
    await trio.sleep(2)
    line.now = reply
    await trio.sleep(LATE)
    assert desk.clerk.told[0][0] == told


async def test_a_line_that_cannot_begin_is_told_and_nothing_is_kept(desk: Desk, autojump_clock: MockClock) -> None:
    line = desk.ask(Line(window=None))
    await trio.sleep(1)
    assert [what for what, _ in desk.clerk.told] == ["unanswered"]
    assert line.given_back


async def test_a_stop_gives_back_at_once(desk: Desk, autojump_clock: MockClock) -> None:
    line = desk.ask()
    await trio.sleep(1)
    desk.prober.stop(desk.connection)
    assert line.given_back
    await trio.sleep(10)
    assert desk.clerk.told == []


async def test_a_stop_before_it_began_means_that_it_never_does(desk: Desk, autojump_clock: MockClock) -> None:
    line = desk.ask()
    desk.prober.stop(desk.connection)
    await trio.sleep(1)
    assert line.begun is None


async def test_options_that_cannot_be_given_back_yet_are_when_they_can(desk: Desk, autojump_clock: MockClock) -> None:
    line = desk.ask(Line(wants_an_answer=True))
    await trio.sleep(1)
    desk.prober.stop(desk.connection)
    await trio.sleep(1)
    assert not line.given_back
    line.wants_an_answer = False
    await trio.sleep(LATE)
    assert line.given_back


async def test_asking_anew_while_options_are_still_borrowed_goes_on_with_them(
    desk: Desk, autojump_clock: MockClock
) -> None:
    """Else the borrowed ones would pass for the application's."""
    line = desk.ask(Line(window=8.0, wants_an_answer=True))
    await trio.sleep(1)
    desk.prober.stop(desk.connection)
    other = Line()
    desk.lines.append(other)
    asked = trio.current_time()
    assert desk.prober.ask(desk.connection) == asked + 8, "the line's own window"
    line.now = Reply.ACCEPTED
    await trio.sleep(1)
    assert desk.clerk.told[0][0] == "accepted"
    assert other.begun is None


async def test_the_end_of_the_task_gives_everything_back(autojump_clock: MockClock) -> None:
    desk = Desk()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(desk.prober.run)
        lines = [desk.ask(Line(wants_an_answer=True)) for _ in range(3)]
        await trio.sleep(1)
        desk.prober.stop(desk.connection)
        nursery.cancel_scope.cancel()
    assert all(line.given_back for line in lines)


async def test_no_more_than_a_thousand_begin_in_a_second(desk: Desk, autojump_clock: MockClock) -> None:
    lines = [desk.ask() for _ in range(2500)]
    await trio.sleep(5)
    begun = sorted(line.begun - desk.began for line in lines if line.begun is not None)
    assert len(begun) == 2500
    for number, t in enumerate(begun):
        assert number / PACE - 0.001 <= t <= number / PACE + LATE


async def test_turns_that_were_not_taken_are_free_again(desk: Desk, autojump_clock: MockClock) -> None:
    """A path that is back before all had their turn must not make the next one that is asked about wait for theirs."""
    connections: list[Connection] = []
    for _ in range(3_000):
        desk.ask()
        connections.append(desk.connection)
    await trio.sleep(1)
    for connection in connections:
        desk.prober.stop(connection)
    line, asked = desk.ask(), trio.current_time()
    await trio.sleep(5)
    assert line.begun == pytest.approx(asked, abs=LATE)


# ---- with the court ------------------------------------------------------------------------------------------


async def test_nobody_is_asked_before_things_have_settled(watch: Watch, autojump_clock: MockClock) -> None:
    connection, peer = register(watch, "ack")
    began = trio.current_time()
    watch.gateway_moves()
    await watch.change()
    await trio.sleep(0.5)
    watch.network.add_route(watch.site.default, via=watch.site.gw1, dev=2, metric=100, replace=True)
    await watch.change()
    await trio.sleep(5)
    assert standing(connection) is Standing.GOOD
    assert peer.asked == []
    watch.gateway_moves()
    await watch.change()
    began = trio.current_time()
    await trio.sleep(5)
    assert peer.asked[0] >= began + 1.0


async def test_an_answer_makes_the_new_path_good_and_the_old_one_stays_so(
    watch: Watch, autojump_clock: MockClock
) -> None:
    connection, peer = register(watch, "ack")
    for move in (
        watch.gateway_moves,
        lambda: watch.network.add_route(watch.site.default, via=watch.site.gw1, dev=2, metric=100, replace=True),
    ):
        move()
        await watch.change()
        await trio.sleep(2)
        assert (connection.standing, connection.verdict) == (Standing.GOOD, Verdict.UNCHANGED)
    assert len(peer.asked) == 1
    assert watch.told == [ConnectionSuspect, ConnectionRecovered]
    assert watch.registry.statistics().asked == 1


async def test_a_reset_ends_it_at_once_and_is_said(watch: Watch, autojump_clock: MockClock) -> None:
    connection, peer = register(watch, "reset")
    began = trio.current_time()
    watch.gateway_moves()
    await watch.change()
    await trio.sleep(5)
    loss = connection.loss
    assert loss is not None and peer.aborted
    assert loss.verdict is Verdict.GATEWAY_CHANGED
    assert loss.time - began == pytest.approx(1.0, abs=0.1)
    assert "reset" in loss.evidence and loss.evidence in loss.describe()


async def test_silence_ends_it_after_three_seconds(watch: Watch, autojump_clock: MockClock) -> None:
    connection, peer = register(watch, "silence")
    began = trio.current_time()
    watch.gateway_moves()
    await watch.change()
    await trio.sleep(3.9)
    assert standing(connection) is Standing.SUSPECT
    await trio.sleep(5)
    loss = connection.loss
    assert loss is not None and peer.aborted
    assert loss.time - began == pytest.approx(4.0, abs=0.1)
    assert loss.evidence == "no answer when it was asked"


async def test_an_answer_that_is_there_when_silence_falls_due_counts(watch: Watch, autojump_clock: MockClock) -> None:
    """As after SIGSTOP: every deadline has passed, and the answers came in meanwhile."""
    connection, peer = register(watch, "silence")
    watch.gateway_moves()
    await watch.change()
    await trio.sleep(2)
    prober = watch.registry.court.asker
    assert prober is not None
    peer.answer = "ack"
    record = connection.record
    record.stand = attrs.evolve(record.stand, deadline=trio.current_time())
    Deadlines(watch.registry.court, watch.registry.clerk).due(connection)
    assert standing(connection) is Standing.GOOD


async def test_what_is_readable_when_silence_falls_due_is_applied_first(
    watch: Watch, autojump_clock: MockClock
) -> None:
    connection, _ = register(watch, "silence")
    watch.gateway_moves()
    await watch.change()
    await trio.sleep(3.5)
    watch.network.add_route(watch.site.default, via=watch.site.gw1, dev=2, metric=100, replace=True)  # told to nobody
    await trio.sleep(5)
    assert standing(connection) is Standing.GOOD


async def test_certain_verdicts_are_not_asked_about(watch: Watch, autojump_clock: MockClock) -> None:
    connection, peer = register(watch, "ack")
    watch.route_goes()
    await watch.change()
    await trio.sleep(1.1)
    assert standing(connection) is Standing.LOST
    assert peer.asked == []


async def test_the_applications_own_probe_comes_instead(watch: Watch, autojump_clock: MockClock) -> None:
    async def no(connection: Connection) -> bool:
        return False

    peer = Peer(watch.site.flow(), "ack")
    connection = watch.registry.register(peer, probe=no)
    watch.gateway_moves()
    await watch.change()
    await trio.sleep(2)
    assert standing(connection) is Standing.LOST
    assert peer.asked == []


@pytest.mark.parametrize("far", [False, True])
async def test_without_asking_it_is_closed_where_translation_is_likely(
    nursery: trio.Nursery, autojump_clock: MockClock, far: bool
) -> None:
    watch = Watch(4)
    await nursery.start(watch.reassessor.run)
    flow = watch.site.flow(peer=FAR) if far else watch.site.flow()
    connection, peer = register(watch, "ack", policy=Policy(ask_kernel=False), flow=flow)
    watch.gateway_moves()
    await watch.change()
    await trio.sleep(20)
    assert standing(connection) is (Standing.LOST if far else Standing.SUSPECT)
    assert peer.asked == []


@pytest.mark.parametrize(("answer", "ends"), [("ack", Standing.GOOD), ("silence", Standing.LOST)])
async def test_broken_from_the_start_is_asked_about_though_certain(
    watch: Watch, autojump_clock: MockClock, answer: ProbeAnswer, ends: Standing
) -> None:
    watch.route_goes()
    watch.network.take()
    connection, peer = register(watch, answer)
    await trio.sleep(6)
    assert standing(connection) is ends
    assert peer.asked
    if ends is Standing.GOOD:
        assert connection.verdict is Verdict.UNJUDGED


async def test_what_went_while_it_was_connecting_is_no_reason_to_ask(watch: Watch, autojump_clock: MockClock) -> None:
    """It has a baseline, of before `connect()`: it is not one that the model does not fit (R8, J1)."""
    peer = Peer(watch.site.flow(), "ack")
    before = resolve(peer.flow, watch.network)
    watch.route_goes()
    watch.network.take()
    connection = watch.registry.register(peer, before=before)
    assert connection.verdict is Verdict.NO_ROUTE
    await trio.sleep(1.1)
    assert standing(connection) is Standing.LOST
    assert peer.asked == []


async def test_a_path_that_moves_on_while_asked_settles_and_is_asked_anew(
    watch: Watch, autojump_clock: MockClock
) -> None:
    connection, peer = register(watch, "silence")
    watch.gateway_moves()
    await watch.change()
    await trio.sleep(2)
    watch.network.add_route(watch.site.default, via=watch.site.gw2, dev=C2, metric=100, replace=True)
    moved = trio.current_time()
    await watch.change()
    peer.asked.clear()
    await trio.sleep(3.9)
    assert standing(connection) is Standing.SUSPECT
    assert min(peer.asked) >= moved + 1.0
    await trio.sleep(0.5)
    assert standing(connection) is Standing.LOST


async def test_an_ignored_verdict_asks_nobody_and_takes_the_path_for_good(
    watch: Watch, autojump_clock: MockClock
) -> None:
    connection, peer = register(watch, "silence", policy=Policy(gateway_changed=None))
    watch.gateway_moves()
    await watch.change()
    await trio.sleep(10)
    assert standing(connection) is Standing.GOOD
    assert peer.asked == [] and ConnectionLost not in watch.told


async def test_leaving_it_while_suspect_forgets_it_and_its_socket_lives(
    watch: Watch, autojump_clock: MockClock
) -> None:
    connection, peer = register(watch, "silence")
    watch.route_goes()
    await watch.change()
    watch.registry.release(connection)
    await trio.sleep(10)
    assert connection.loss is None and not peer.aborted


async def test_leaving_it_ends_the_asking(watch: Watch, autojump_clock: MockClock) -> None:
    connection, peer = register(watch, "silence")
    watch.gateway_moves()
    await watch.change()
    await trio.sleep(2)
    watch.registry.release(connection)
    peer.asked.clear()
    await trio.sleep(10)
    assert peer.asked == []
    assert connection.loss is None


# ---- waking --------------------------------------------------------------------------------------------------


async def test_after_waking_whoever_is_suspect_has_ten_seconds(watch: Watch, autojump_clock: MockClock) -> None:
    connection, _ = register(watch, "silence")
    watch.route_goes()
    await watch.change()
    await trio.sleep(0.5)
    watch.reassessor.woke(30.0)
    await trio.sleep(9.9)
    assert standing(connection) is Standing.SUSPECT
    watch.route_returns()
    await watch.change()
    assert standing(connection) is Standing.GOOD


async def test_what_the_kernel_tells_only_after_waking_has_them_too(watch: Watch, autojump_clock: MockClock) -> None:
    connection, _ = register(watch, "silence")
    watch.reassessor.woke(30.0)
    await trio.sleep(1)
    watch.route_goes()
    await watch.change()
    await trio.sleep(8.8)
    assert standing(connection) is Standing.SUSPECT
    await trio.sleep(0.4)
    assert standing(connection) is Standing.LOST


@pytest.mark.parametrize(("answer", "ends"), [("ack", Standing.GOOD), ("silence", Standing.LOST)])
async def test_after_a_long_sleep_everybody_is_asked_about(
    watch: Watch, autojump_clock: MockClock, answer: ProbeAnswer, ends: Standing
) -> None:
    connection, peer = register(watch, answer)
    deaf = watch.register()  # nobody can ask about this one
    woken = trio.current_time()
    watch.reassessor.woke(3600.0)
    await trio.testing.wait_all_tasks_blocked()
    assert standing(connection) is Standing.SUSPECT
    await trio.sleep(20)
    assert peer.asked[0] >= woken + 10
    assert standing(connection) is ends
    if connection.loss is not None:
        assert "slept for 3600 s" in connection.loss.cause
    else:
        assert connection.verdict is Verdict.UNCHANGED
    assert standing(deaf) is Standing.GOOD


async def test_after_a_long_sleep_a_route_that_is_gone_is_gone_and_nobody_is_asked(
    watch: Watch, autojump_clock: MockClock
) -> None:
    connection, peer = register(watch, "ack")
    watch.reassessor.woke(3600)
    watch.route_goes()
    await watch.change()
    assert (connection.verdict, connection.deadline) == (Verdict.NO_ROUTE, trio.current_time() + 10)
    await trio.sleep(15)
    assert standing(connection) is Standing.LOST
    assert peer.asked == []


async def test_a_short_sleep_makes_nobody_suspect(watch: Watch, autojump_clock: MockClock) -> None:
    connection, peer = register(watch, "silence")
    watch.reassessor.woke(599.0)
    await trio.sleep(30)
    assert standing(connection) is Standing.GOOD
    assert peer.asked == []


# ---- what is evidence, from when on --------------------------------------------------------------------------


async def test_progress_is_noted_half_a_second_after_the_last_change(watch: Watch, autojump_clock: MockClock) -> None:
    """Until then, what is acknowledged may have gone by the path of before."""
    docket = watch.registry.court.docket
    connection, _ = register(watch, "silence")
    began = trio.current_time()
    watch.gateway_moves()
    await watch.change()
    assert docket.next_time == began + 0.5
    await trio.sleep(0.6)
    watch.network.add_route(watch.site.default, via=watch.site.gw2, dev=C2, metric=100, replace=True)
    await watch.change()
    assert docket.next_time == pytest.approx(began + 1.1)
    assert connection.deadline == pytest.approx(began + 1.6), "a path that moves on settles anew"
