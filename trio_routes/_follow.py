"""The pt's netlink task: from the channel into the cache, and out as batches of changes.

The cache becomes and stays exact by this recipe (measured against its rivals: docs/kernel.md):

1. one socket, subscribed before the first dump, so everything arrives in the kernel's order;
2. each part of the state is dumped in turn; notifications are applied as they come, meanwhile;
3. after a dump's DONE its word is taken for all that no notification touched; what was touched
   must agree already, or that part is dumped again, until nothing is open (bounded, then again
   when it is quieter);
4. when notifications were lost, everything is dumped again. Until that is done nobody is judged,
   and then only real differences are published, with one `Resynced`.

The same machinery audits the tables from time to time, without doubting them first.

This is a state machine that `step()` turns: `run()` calls it when the channel has something, and
the reassessment task calls `apply_pending()` before it acts on a deadline.
"""

from __future__ import annotations

import enum
import errno
import logging
import math
from collections.abc import Callable

import attrs
import trio

from ._errors import KernelRefusedError, NetlinkDecodeError
from .netlink import (
    AF_INET,
    AF_INET6,
    NLM_F_DUMP_INTR,
    RTM_F_CLONED,
    RTNLGRP_IPV4_IFADDR,
    RTNLGRP_IPV4_NETCONF,
    RTNLGRP_IPV4_ROUTE,
    RTNLGRP_IPV4_RULE,
    RTNLGRP_IPV6_IFADDR,
    RTNLGRP_IPV6_NETCONF,
    RTNLGRP_IPV6_ROUTE,
    RTNLGRP_IPV6_RULE,
    RTNLGRP_LINK,
    RTNLGRP_NEIGH,
    RTNLGRP_NEXTHOP,
    Channel,
    ErrorMessage,
    MessageType,
    Request,
    RouteDecoder,
    decode_address,
    decode_done,
    decode_error,
    decode_link,
    decode_neighbour,
    decode_netconf,
    decode_nexthop,
    decode_rule,
    dump_addresses,
    dump_links,
    dump_neighbours,
    dump_netconf,
    dump_nexthops,
    dump_routes,
    dump_rules,
    iter_messages,
)
from .routing import FOUND_BY_DUMP, Cache, ChangeBatch, Link, Part, Staging, address_of

log = logging.getLogger("trio_routes")

GROUPS = (
    RTNLGRP_LINK,
    RTNLGRP_NEIGH,
    RTNLGRP_IPV4_IFADDR,
    RTNLGRP_IPV4_ROUTE,
    RTNLGRP_IPV4_RULE,
    RTNLGRP_IPV6_IFADDR,
    RTNLGRP_IPV6_ROUTE,
    RTNLGRP_IPV6_RULE,
    RTNLGRP_IPV4_NETCONF,
    RTNLGRP_IPV6_NETCONF,
    RTNLGRP_NEXTHOP,
)

# Dumps of one part in a row that may leave something open, before the tables are given time to calm down.
PASSES = 8
# Seconds between tries while the kernel changes faster than it can be read: 0.1 doubling to 10.
FIRST_RETRY, LAST_RETRY = 0.1, 10.0
# Seconds between audits; small tables are cheap to compare.
AUDIT_SMALL, AUDIT_LARGE, SMALL_TABLE = 60.0, 600.0, 1_000


class _Why(enum.Enum):
    """Why a dump of everything is under way."""

    START = "start"
    LOSS = "loss"
    AUDIT = "audit"


@attrs.define(slots=True)
class FollowStatistics:
    """Counters of the follow task.

    Attributes:
      batches: Batches that changed something.
      resyncs: Times that everything was read anew because something was lost.
      audits: Times that the cache was compared with a dump.
      audit_differences: What those comparisons found.
      repeated_dumps: Dumps that had to be made again.
      undecodable: Messages that could not be decoded.
    """

    batches: int = 0
    resyncs: int = 0
    audits: int = 0
    audit_differences: int = 0
    repeated_dumps: int = 0
    undecodable: int = 0


@attrs.define(slots=True)
class _Dump:
    part: Part
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
    """

    def __init__(
        self,
        channel: Channel,
        cache: Cache,
        on_batch: Callable[[ChangeBatch], None],
        clock: Callable[[], float] = trio.current_time,
    ) -> None:
        self._channel = channel
        self._cache = cache
        self._on_batch = on_batch
        self._clock = clock
        self._decoder = RouteDecoder()
        self._why: _Why | None = None
        self._reason = ""
        self._waiting: list[Part] = []
        self._dump: _Dump | None = None
        self._open: dict[Part, set[tuple[int, int, int]] | None] = {}
        self._passes = 0
        self._again: dict[Part, set[tuple[int, int, int]] | None] = {}
        self._retry = FIRST_RETRY
        self._retry_at = math.inf
        self._audit_at = math.inf
        self.ready = trio.Event()
        self.statistics = FollowStatistics()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Follow the kernel until cancelled; started once the first dump is complete.

        Raises:
          OSError: The kernel refused the subscription or a dump that it must grant.
        """
        for group in GROUPS:
            self._channel.join(group)
        self._begin(_Why.START, "")
        started = False
        while True:
            with trio.move_on_at(min(self._retry_at, self._audit_at)):
                await self._channel.wait_readable()
            self.step()
            if not started and self.ready.is_set():
                started = True
                task_status.started()

    def step(self) -> bool:
        """Apply what is waiting, publish what it changed; returns whether anything was waiting."""
        received = self._channel.receive()
        if received.lost:
            self._lost(received.lost)
        for reply_to, data in received.datagrams:
            if not reply_to:
                self._take_notification(data)
            elif self._dump is not None and reply_to == self._dump.sequence:
                self._take_dump(self._dump, data)
        now = self._clock()
        if now >= self._retry_at:
            self._retry_at = math.inf
            self._resume()
        elif now >= self._audit_at and self._why is None:
            self._audit_at = math.inf
            self.statistics.audits += 1
            self._begin(_Why.AUDIT, "audit")
        self._publish()
        return bool(received.datagrams or received.lost)

    def apply_pending(self) -> None:
        """Apply everything that the kernel has said so far. Not a checkpoint; bounded."""
        for _ in range(64):
            if not self.step():
                return

    def _publish(self) -> None:
        if self._why is _Why.START or self._cache.resyncing:
            return  # the first snapshot is no change; after a loss only what is different at the end is one
        batch = self._cache.take_changes()
        if batch:
            self.statistics.batches += 1
            self._on_batch(batch)

    # ---- notifications -------------------------------------------------------------------------

    def _take_notification(self, data: bytes) -> None:
        try:
            for header, start, end in iter_messages(data):
                if header.type == MessageType.OVERRUN:
                    self._lost("the kernel reported an overrun")
                else:
                    self._apply(header.type, header.flags, data, start, end)
        except NetlinkDecodeError as error:
            self._undecodable(error)
            self._lost("a notification could not be decoded")

    def _apply(self, kind: int, flags: int, data: bytes, start: int, end: int) -> None:
        cache = self._cache
        match kind:
            case MessageType.RTM_NEWROUTE | MessageType.RTM_DELROUTE:
                destination, body = self._decoder.decode(data, start, end)
                if body.flags & RTM_F_CLONED:
                    return
                if kind == MessageType.RTM_NEWROUTE:
                    cache.add_route(destination, body, flags)
                else:
                    cache.remove_route(destination, body)
            case MessageType.RTM_NEWLINK | MessageType.RTM_DELLINK:
                cache.apply_link(decode_link(data, start, end), kind == MessageType.RTM_DELLINK)
            case MessageType.RTM_NEWADDR | MessageType.RTM_DELADDR:
                cache.apply_address(decode_address(data, start, end), kind == MessageType.RTM_DELADDR)
            case MessageType.RTM_NEWNEIGH | MessageType.RTM_DELNEIGH:
                cache.apply_neighbour(decode_neighbour(data, start, end), kind == MessageType.RTM_DELNEIGH)
            case MessageType.RTM_NEWRULE | MessageType.RTM_DELRULE:
                cache.apply_rule(decode_rule(data, start, end), kind == MessageType.RTM_DELRULE)
            case MessageType.RTM_NEWNEXTHOP | MessageType.RTM_DELNEXTHOP:
                cache.apply_nexthop(decode_nexthop(data, start, end), kind == MessageType.RTM_DELNEXTHOP)
            case MessageType.RTM_NEWNETCONF | MessageType.RTM_DELNETCONF:
                cache.apply_switches(decode_netconf(data, start, end), kind == MessageType.RTM_DELNETCONF)
            case _:
                pass  # newer kernels may say more in these groups; nothing of it is a route

    def _undecodable(self, error: NetlinkDecodeError) -> None:
        self.statistics.undecodable += 1
        if self.statistics.undecodable == 1:
            log.warning("a netlink message could not be decoded: %s", error)

    # ---- dumps -----------------------------------------------------------------------------------

    def _lost(self, reason: str) -> None:
        """Begin anew after notifications were lost: nothing that was known is sure any more."""
        if self._why is _Why.LOSS or self._why is _Why.START:
            # Lost again before we were through: give the kernel time, and go on reading meanwhile.
            self._abandon()
            self._postpone()
            return
        self.statistics.resyncs += 1
        log.warning("the routing tables are read anew: %s", reason)
        self._begin(_Why.LOSS, reason)

    def _begin(self, why: _Why, reason: str) -> None:
        self._abandon()
        self._why = why
        self._reason = reason
        self._cache.resyncing = why is _Why.LOSS
        self._waiting = list(Part)
        self._again.clear()
        self._passes = 0
        # An audit starts from tables that are right as far as anybody knows; the others from nothing.
        self._open = {part: set() if why is _Why.AUDIT else None for part in Part}
        self._next()

    def _abandon(self) -> None:
        self._dump = None
        self._cache.abandon()

    def _postpone(self) -> None:
        self._retry_at = self._clock() + self._retry
        self._retry = min(2 * self._retry, LAST_RETRY)

    def _resume(self) -> None:
        if self._again:
            self._waiting = list(self._again)
            self._open.update(self._again)
            self._again.clear()
            self._why = self._why or _Why.AUDIT
        elif self._why is not None:
            self._waiting = list(Part)
            self._open = dict.fromkeys(Part)
        self._passes = 0
        self._next()

    def _next(self) -> None:
        """Ask for the next part, or finish."""
        if not self._waiting:
            self._finish()
            return
        part = self._waiting[0]
        sequence = self._channel.send(_REQUESTS[part])
        self._dump = _Dump(part, sequence, self._cache.stage(part))

    def _take_dump(self, dump: _Dump, data: bytes) -> None:
        at = 0
        try:
            if dump.staging.routes is not None:
                batch = self._decoder.decode_many(data)
                plain, append = self._cache.plain, dump.staging.routes.append
                for destination, body in batch.routes:
                    append(destination, plain(body))
                dump.torn |= bool(batch.flags & NLM_F_DUMP_INTR)
                at = batch.end
            for header, start, end in iter_messages(data, at):
                dump.torn |= bool(header.flags & NLM_F_DUMP_INTR)
                if header.type == MessageType.DONE:
                    self._done(dump, decode_done(data, start, end))
                    return
                if header.type == MessageType.ERROR:
                    self._done(dump, decode_error(data, start, end))
                    return
                self._stage(dump.staging, header.type, data, start, end)
        except NetlinkDecodeError as error:
            # The rest of the datagram cannot be found any more, and a dump with a hole is no dump.
            self._undecodable(error)
            dump.torn = True

    def _stage(self, staging: Staging, kind: int, data: bytes, start: int, end: int) -> None:
        match kind:
            case MessageType.RTM_NEWLINK:
                staging.entries.append(Link.of(decode_link(data, start, end)))
            case MessageType.RTM_NEWADDR:
                staging.entries.append(address_of(decode_address(data, start, end)))
            case MessageType.RTM_NEWRULE:
                staging.entries.append(decode_rule(data, start, end))
            case MessageType.RTM_NEWNEXTHOP:
                staging.entries.append(decode_nexthop(data, start, end))
            case MessageType.RTM_NEWNETCONF:
                staging.entries.append(decode_netconf(data, start, end))
            case MessageType.RTM_NEWNEIGH:
                staging.entries.append(decode_neighbour(data, start, end))
            case _:
                pass

    def _done(self, dump: _Dump, result: ErrorMessage) -> None:
        self._dump = None
        if result.errno and result.errno != errno.EOPNOTSUPP:  # EOPNOTSUPP: an old kernel has no such objects
            if self._why is _Why.START:
                raise KernelRefusedError(result.errno, _REQUESTS[dump.part].description, result.ext_ack)
            self._cache.abandon()
            log.warning("the %s failed (%s); trying again", _REQUESTS[dump.part].description, result.ext_ack)
            self._postpone()
            return
        if dump.torn:
            self._cache.abandon()
            still: set[tuple[int, int, int]] | None = self._open[dump.part]
        else:
            still = self._cache.settle(dump.staging, self._open[dump.part])
        if not dump.torn and still is not None and not still:
            self._waiting.pop(0)
            self._passes = 0
        else:
            self.statistics.repeated_dumps += 1
            self._open[dump.part] = still
            self._passes += 1
            if self._passes >= PASSES:
                # The kernel changes faster than it can be dumped. What is open stays open until it calms down.
                self._again[dump.part] = still
                self._waiting.pop(0)
                self._passes = 0
        self._next()

    def _finish(self) -> None:
        why, self._why = self._why, None
        if self._again:
            self._postpone()
        else:
            self._retry = FIRST_RETRY
        self._cache.resyncing = False
        size = sum(len(tables.dicts()) and len(tables) for tables in self._cache.state.tables.values())
        self._audit_at = self._clock() + (AUDIT_SMALL if size < SMALL_TABLE else AUDIT_LARGE)
        if why is _Why.START:
            self._cache.take_changes()
            self.ready.set()
            return
        batch = self._cache.take_changes()
        if why is _Why.AUDIT:
            found = sum(1 for change in batch.routes if change.cause == FOUND_BY_DUMP)
            self.statistics.audit_differences += found
            if found:
                log.warning("an audit found %d routes different from the kernel's tables", found)
        if why is _Why.LOSS or batch:
            batch.resynced = self._reason if why is _Why.LOSS else ""
            batch.everything |= why is _Why.LOSS
            self.statistics.batches += 1
            self._on_batch(batch)


_REQUESTS: dict[Part, Request] = {
    Part.LINKS: dump_links(),
    Part.ADDRESSES: dump_addresses(),
    Part.IPV4_SWITCHES: dump_netconf(AF_INET),
    Part.IPV6_SWITCHES: dump_netconf(AF_INET6),
    Part.NEXTHOPS: dump_nexthops(),
    Part.IPV4_RULES: dump_rules(AF_INET),
    Part.IPV6_RULES: dump_rules(AF_INET6),
    Part.NEIGHBOURS: dump_neighbours(),
    Part.IPV4_ROUTES: dump_routes(AF_INET),
    Part.IPV6_ROUTES: dump_routes(AF_INET6),
}
