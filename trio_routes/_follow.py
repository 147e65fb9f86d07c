"""The pt's netlink task: from the channel into the cache, and out as batches of changes.

The cache becomes and stays exact by this recipe (measured against its rivals: docs/kernel.md):

1. one socket, subscribed before the first dump, so everything arrives in the kernel's order;
2. each part of the state is dumped in turn; notifications are applied as they come, meanwhile;
3. after a dump's DONE its word is taken for all that no notification touched; what was touched
   must agree already, or that part is dumped again, until nothing is doubtful (bounded, then
   again when it is quieter);
4. when notifications were lost, everything is doubtful and dumped again. Until that is done
   nobody is judged, and then only real differences are published, with one `Resynced`.

The same machinery audits the tables from time to time, without doubting them first.

    why a round of dumps is under way       what is doubtful   what follows its end
    -------------------------------------   ----------------   --------------------------------------
    START   the task began                  everything         `ready`; no changes
    LOSS    notifications were lost         everything         the net differences, and why
    AUDIT   time passed, or some entries    those entries      what the notifications had failed to say
            were left doubtful

What an audit shows to be different, in a part that nothing had made doubtful, is looked at again
`SECOND_LOOK` seconds later; only what is different then still is a difference: counted, logged once
with both answers, corrected and published. Where the dump is known to be wrong, the cache's word
stands, and that is counted apart. A self-check of lookups follows (`_selfcheck.py`); what it finds
makes the tables to be read anew, once.

A START or LOSS ends only when each part was settled once; single entries that are doubtful then are
left to an AUDIT. This is a state machine that `step()` turns: `run()` calls it when the channel has
something, and the reassessment task calls `apply_pending()` before it acts on a deadline.
"""

from __future__ import annotations

import enum
import errno
import logging
import math
from collections import deque
from collections.abc import Callable, Generator, Iterable
from time import perf_counter

import attrs
import trio

from ._errors import KernelRefusedError, NetlinkDecodeError
from ._intake import Intake
from ._once import Once
from ._pace import Pace
from ._selfcheck import SelfCheck
from ._selfcheck_answers import Question
from ._subscription import GROUPS, REQUESTS
from .netlink import Channel, ErrorMessage, NdUserOption, Received, Request
from .routing import EVERYTHING, NO_DOUBTS, Cache, ChangeBatch, Doubts, Part, Staging, portions

log = logging.getLogger("trio_routes")

# A kernel without nexthop objects (before 5.3) or without IPv6: there is nothing of that kind.
_NOTHING_THERE = (errno.EOPNOTSUPP, errno.EAFNOSUPPORT)

# Dumps of one part in a row that may leave something doubtful, before the tables are given time to calm down.
PASSES = 8
# Seconds of a turn of the loop that go into a dump, if there is so much of it; a turn by itself takes 0.05 ms.
DUMP_TURN = 0.001
# Seconds between audits; small tables are cheap to compare.
AUDIT_SMALL, AUDIT_LARGE, SMALL_TABLE = 60.0, 600.0, 1_000
# Seconds after which what an audit found different is dumped again. A lost carrier is announced up to 1 s late.
SECOND_LOOK = 2.0
# What is taken in one go before a deadline is acted on: some 4000 notifications, 50 ms.
_MOST_PENDING = 16


class _Why(enum.Enum):
    """Why a round of dumps is under way."""

    START = "start"
    LOSS = "loss"
    AUDIT = "audit"


@attrs.define(slots=True)
class FollowStatistics:
    """Counters of the follow task.

    Attributes:
      resyncs: Times that everything was read anew because something was lost.
      audits: Times that the cache was compared with a dump.
      audit_differences: What those comparisons found, and corrected.
      dump_exceptions: What they showed and is known to be wrong in a dump.
      repeated_dumps: Dumps that had to be made again.
      undecodable: Messages that could not be decoded.
      routes_read: Routes in all dumps so far, of those that are under way too.
    """

    resyncs: int = 0
    audits: int = 0
    audit_differences: int = 0
    dump_exceptions: int = 0
    repeated_dumps: int = 0
    undecodable: int = 0
    routes_read: int = 0


@attrs.define(slots=True)
class _Dump:
    sequence: int
    staging: Staging
    torn: bool = False


class Follower:
    """Keeps a cache true to a channel's kernel.

    Args:
      channel: An open channel; the follower subscribes it.
      cache: The cache to keep.
      on_batch: Called with every batch of changes, in order. Must not block.
      clock: Seconds, monotonic: `trio.current_time`.
      peers: What connections would ask the cache, for the self-check.
      on_option: Called with every option of a router advertisement that the kernel passes on. Must not block.
      audit_seconds: The time between audits; None is 60 s, and 600 s for large tables.
      before_changes: Called before anything that was received is applied. Must not block.

    Attributes:
      ready: Set once the cache is complete.
      statistics: Counters, from the beginning on.
      self_check: Compares lookups with the kernel's answers.
    """

    def __init__(
        self,
        channel: Channel,
        cache: Cache,
        on_batch: Callable[[ChangeBatch], None],
        clock: Callable[[], float] = trio.current_time,
        *,
        peers: Callable[[], Iterable[Question]] = tuple[Question, ...],
        on_option: Callable[[NdUserOption], None] | None = None,
        audit_seconds: float | None = None,
        before_changes: Callable[[], None] = lambda: None,
    ) -> None:
        self._channel = channel
        self._cache = cache
        self._on_batch = on_batch
        self._before_changes = before_changes
        self._clock = clock
        self._intake = Intake(cache, on_option)
        self._why: _Why | None = None
        self._reason = ""
        # What is doubtful of each part; parts that are exact are not in it.
        self._doubts: dict[Part, Doubts] = {}
        # Parts that nothing had made doubtful before an audit: what is different there is its finding.
        self._trusted: set[Part] = set()
        self._queue: deque[Part] = deque()
        self._passes = 0
        self._dump: _Dump | None = None
        # What is left of a part of it that takes long; nothing else is received before.
        self._rest: tuple[_Dump, bytes] | None = None
        # What goes on, piece by piece, between a dump's end and the next dump, or the end of the round.
        self._settling: Generator[None, None, None] | None = None
        # What is left of a big batch; nothing else is published before.
        self._unpublished: deque[ChangeBatch] = deque()
        self._pace = Pace()
        self._retry_at = math.inf
        self._audit_at = math.inf
        self._audit_seconds = audit_seconds
        # What the task waits in.
        self._sleep: trio.CancelScope | None = None
        self._check_due = False
        self._once = Once()
        self.ready = trio.Event()
        self.statistics = FollowStatistics()
        self.self_check = SelfCheck(cache, channel.send, peers)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Follow the kernel until cancelled; started once the first dump is complete.

        Raises:
          OSError: The kernel refused the subscription or a dump that it must grant.
        """
        for group in GROUPS:
            self._channel.join(group)
        self._begin(_Why.START)
        while not self.ready.is_set():
            await self._wait_and_step(once=True)
        task_status.started()
        while True:
            await self._wait_and_step()

    async def _wait_and_step(self, *, once: bool = False) -> None:
        """Wait for what is next to be done, and do it; go on so while nothing but the channel has anything, or once."""
        wake_at = self._wake_at()
        if wake_at == -math.inf:
            await trio.lowlevel.checkpoint()
            self.step()
            return
        # One scope for as long as its deadline stands: to make and leave one takes as long as to apply a change.
        with trio.move_on_at(wake_at) as self._sleep:
            while True:
                await self._channel.wait_readable()
                self.step()
                if once or self._wake_at() != wake_at:
                    return
        self.step()

    def _wake_at(self) -> float:
        """When to go on though nothing comes in; -inf for now."""
        if self._rest is not None or self._settling is not None or self._unpublished:
            return -math.inf
        return min(self._retry_at, self._audit_at, math.inf if self._why else self.self_check.wake_at)

    def step(self) -> bool:
        """Apply what is waiting, publish what it changed; returns whether there may be more waiting."""
        until = perf_counter() + DUMP_TURN
        received = self._receive()
        while self._is_mere_dump(received) and perf_counter() < until:
            received = self._receive()
        self._go_on_settling()
        now = self._clock()
        self._look_at_the_clock(now)
        # The first snapshot is no change, and after a loss only what is different in the end is one.
        self._publish()
        if not self._unpublished and self._why not in (_Why.START, _Why.LOSS):
            self._take_changes(self._cache.take_changes())
            self._publish()
        if self._why is None and not self._unpublished and self.self_check.turn(now):
            self._lost("a lookup differs from the kernel's answer")
        return received.more

    def _receive(self) -> Received:
        """Take a batch from the channel, and it in."""
        if self._rest is not None:
            (dump, data), self._rest = self._rest, None
            if dump is self._dump:
                self._take_dump(dump, data, may_pause=True)
            return Received([], more=True)
        received = self._channel.receive()
        self._before_changes()
        if received.lost:
            self._lost(received.lost)
        for number, (reply_to, data) in enumerate(received.datagrams, start=1):
            if not reply_to:
                self._take_notification(data)
            elif self._dump is not None and reply_to == self._dump.sequence:
                self._take_dump(self._dump, data, may_pause=number == len(received.datagrams))
            else:
                self.self_check.hear(reply_to, data)
        return received

    def _is_mere_dump(self, received: Received) -> bool:
        """Whether a batch was nothing but parts of a dump that goes on, so that there is nothing to do but to read on."""
        dump = self._dump
        return (
            dump is not None and bool(received.datagrams) and all(to == dump.sequence for to, _ in received.datagrams)
        )

    def apply_pending(self) -> None:
        """Apply everything that the kernel has said so far. Not a checkpoint; bounded."""
        self._channel.finish_read()
        for _ in range(_MOST_PENDING):
            if not self.step():
                break
        # What was read here and not come to, or begun, is the task's; the socket, which may be empty now, does not wake it.
        if self._sleep is not None:
            self._sleep.cancel()

    def _look_at_the_clock(self, now: float) -> None:
        if self._why is None and self._retry_at == math.inf and self._cache.suspect:
            for part in self._cache.suspect:
                self._doubts.setdefault(part, NO_DOUBTS)
            self._retry_at = self._pace.later(now)
        if now >= self._retry_at:
            self._resume()
        elif now >= self._audit_at:
            self.statistics.audits += 1
            self._trusted.update(part for part in Part if part not in self._doubts)
            self._check_due = True
            self._begin(_Why.AUDIT)

    def _take_changes(self, batch: ChangeBatch) -> None:
        if batch:
            self._unpublished.extend(portions(batch))

    def _publish(self) -> None:
        """Publish a portion of what changed: mostly all. A turn of the loop applies fewer changes than one has."""
        if not self._unpublished:
            return
        portion = self._unpublished.popleft()
        if not self._unpublished and self._why not in (_Why.START, _Why.LOSS):
            self._cache.resyncing = False  # not before: nobody is judged while half of it is told
        self._on_batch(portion)

    # ---- what comes in ---------------------------------------------------------------------------

    def _take_notification(self, data: bytes) -> None:
        try:
            if not self._intake.apply(data):
                self._lost("the kernel reported an overrun")
        except NetlinkDecodeError as error:
            self._undecodable(error)
            self._lost("a notification could not be decoded")

    def _take_dump(self, dump: _Dump, data: bytes, *, may_pause: bool) -> None:
        """Take a part of a dump in; only a portion of it where that takes long, and nothing waits behind it."""
        while data:
            try:
                said = self._intake.stage(dump.staging, data)
            except NetlinkDecodeError as error:
                # The rest of the datagram, perhaps the end of the dump with it, cannot be found any more.
                self._undecodable(error)
                self._try_later()
                return
            self.statistics.routes_read += said.routes
            dump.torn |= said.torn
            data = said.rest
            if said.result is not None:
                self._end_dump(dump, said.result)
            elif data and may_pause:
                self._rest = dump, data
                return

    def _undecodable(self, error: NetlinkDecodeError) -> None:
        self.statistics.undecodable += 1
        if self.statistics.undecodable == 1:
            log.warning("a netlink message could not be decoded: %s", error)

    def _lost(self, reason: str) -> None:
        """Doubt everything after notifications were lost, and read it anew: at once, or later if that was just done."""
        if self._why not in (_Why.START, _Why.LOSS):
            self.statistics.resyncs += 1
            self._why, self._reason = _Why.LOSS, reason
            self._cache.resyncing = True
            log.warning("the routing tables are read anew: %s", reason)
        self._doubts = dict.fromkeys(Part, EVERYTHING)
        self._trusted.clear()
        self.self_check.abandon()
        now = self._clock()
        self._try_again(self._pace.next(now))
        if self._retry_at <= now:
            self._resume()

    # ---- rounds of dumps -------------------------------------------------------------------------

    def _begin(self, why: _Why) -> None:
        self._why = why
        doubts = NO_DOUBTS if why is _Why.AUDIT else EVERYTHING
        self._doubts = {part: self._doubts.get(part, doubts) for part in Part}
        self._resume()

    def _try_later(self) -> None:
        self._try_again(self._pace.later(self._clock()))

    def _try_again(self, at: float) -> None:
        """Give up the dump that is coming in, and go on with the round at a time to come."""
        self._dump = self._settling = None
        self._cache.abandon()
        self._queue.clear()
        self._audit_at = math.inf
        self._retry_at = at

    def _resume(self) -> None:
        self._why = self._why or _Why.AUDIT
        self._retry_at = self._audit_at = math.inf
        self._queue = deque(part for part in Part if part in self._doubts)
        self._passes = 0
        self._next()

    def _next(self) -> None:
        """Ask for the next part, or finish."""
        if not self._queue:
            self._finish()
            return
        part = self._queue[0]
        if part in self._cache.suspect:
            self._trusted.discard(part)
        confirm = part in self._trusted and self._doubts[part] == NO_DOUBTS
        sequence = self._channel.send(REQUESTS[part])
        self._dump = _Dump(sequence, self._cache.stage(part, self._doubts[part], confirm=confirm))

    def _end_dump(self, dump: _Dump, result: ErrorMessage) -> None:
        part = dump.staging.part
        if result.errno and result.errno not in _NOTHING_THERE:
            self._refused(REQUESTS[part], result)
            return
        self._dump = None
        dump.staging.absent = bool(result.errno)
        if dump.torn:
            self._cache.abandon()
            self._repeat_part()
            self._next()
        else:
            self._settling = self._settle(dump.staging)
            self._go_on_settling()

    def _go_on_settling(self) -> None:
        """Do a piece of what follows a dump; a big table's takes many turns of the loop."""
        if self._settling is not None:
            next(self._settling, None)

    def _settle(self, staging: Staging) -> Generator[None, None, None]:
        part = staging.part
        self._doubts[part] = yield from self._cache.settle_in_pieces(staging)
        self._note_findings(staging)
        if self._doubts[part] == NO_DOUBTS:
            del self._doubts[part]
            self._trusted.discard(part)
            self._leave_part()
        elif staging.confirm:
            self._leave_part()
        else:
            self._repeat_part()
        self._settling = None
        self._next()

    def _repeat_part(self) -> None:
        self.statistics.repeated_dumps += 1
        self._passes += 1
        if self._passes >= PASSES:
            # The kernel changes faster than it can be dumped. What is doubtful stays so until it calms down.
            self._leave_part()

    def _note_findings(self, staging: Staging) -> None:
        if staging.part in self._cache.suspect:
            self._trusted.discard(staging.part)  # while the dump came in; nobody was meant to know what it shows
        for exception in staging.exceptions:
            self.statistics.dump_exceptions += 1
            self._once.say(logging.INFO, f"left as it is known: {exception}")
        for difference in staging.found if staging.part in self._trusted else ():
            self.statistics.audit_differences += 1
            self._once.say(logging.WARNING, f"found different by an audit: {difference}")

    def _leave_part(self) -> None:
        self._queue.popleft()
        self._passes = 0

    def _refused(self, request: Request, result: ErrorMessage) -> None:
        # EBUSY: an earlier dump, given up here, is still under way there.
        if self._why is _Why.START and result.errno != errno.EBUSY:
            raise KernelRefusedError(result.errno, request.description, result.ext_ack)
        log.info("the kernel refused the %s (error %d); trying again", request.description, result.errno)
        self._try_later()

    def _finish(self) -> None:
        """End the round, or go on later with what could not be settled."""
        if EVERYTHING in self._doubts.values() and self._why is not _Why.AUDIT:
            self._try_later()
        elif self._why is _Why.LOSS:
            self._settling = self._end_loss()
            self._go_on_settling()
        else:
            self._end_round()

    def _end_loss(self) -> Generator[None, None, None]:
        batch = yield from self._cache.take_net_changes(self._reason)
        self._settling = None
        self._end_round()
        self._take_changes(batch)

    def _end_round(self) -> None:
        why, self._why = self._why, None
        now = self._clock()
        self._audit_at = now + self._audit_interval()
        if self._doubts:
            # Only findings to be looked at again can wait: what is doubtful for another reason is read soon.
            self._retry_at = now + SECOND_LOOK if self._trusted.issuperset(self._doubts) else self._pace.later(now)
        elif self._check_due:
            self._check_due = False
            self.self_check.begin()
        if why is _Why.START:
            self._cache.start_recording()
            self.ready.set()

    def _audit_interval(self) -> float:
        if self._audit_seconds is not None:
            return self._audit_seconds
        small = sum(tables.prefixes() for tables in self._cache.state.tables.values()) < SMALL_TABLE
        return AUDIT_SMALL if small else AUDIT_LARGE
