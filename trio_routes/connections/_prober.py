"""The prober: asks the far side of a moved path, by the kernel's own keepalive, whether it takes the connection.

    answers twice                                 the new path is accepted
    resets                                        a NAT or the peer does not know the connection by it
    is silent for max(3 s, 4 RTO), at most 10 s   nobody hears us, or nobody can answer;
                                                  after exactly one answer 3 s more, once

Nothing is asked before things have settled: a packet into a path that only flips for half a second makes the NAT beyond
it reset the connection for good (measured), while one that is not touched lives.

One task looks at all that are being asked, so that thousands at a time cost neither a task nor a
wake-up each. It decides nothing: answers go to the clerk, and silence is a deadline like any
other, before which what the kernel has to say is heard.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Final, Literal, Protocol, TypeAlias, TypeGuard

import trio

from ._evidence import Reply
from ._flow import is_abortable
from ._keepalive import EXTENSION_SECONDS, LEAST_SECONDS, Line, can_be_asked

if TYPE_CHECKING:
    from ._connection import Connection, Record

ProbeAnswer: TypeAlias = Literal["ack", "reset", "silence"]
"""What a peer in memory does when it would be asked."""

PACE: Final = 1000
"""Connections that asking begins about, a second: their probes are a packet each."""

_TICK: Final = 0.02
_SLOWEST_TICK: Final = 0.25
_TICK_PER_CASE: Final = 0.0002  # some 5 µs a look: 3 % of a processor, however many there are
_CHUNK: Final = 100

# A server that asks about a great many sockets at once must not use up its descriptors.
_MOST_DUPLICATES: Final = 256

_ACCEPTED_BY: Final = "the far side, asked by keepalive"


class Askable(Protocol):
    """A stream without a socket whose peer can be played asking."""

    def ask(self) -> ProbeAnswer:
        """What the peer does now."""
        ...


class AnyLine(Protocol):
    """Somebody to ask, as `Line` is for sockets."""

    def begin(self) -> float | None: ...
    def look(self) -> Reply | None: ...
    def end(self, t: float) -> bool: ...
    def resume(self, record: Record) -> float | None: ...
    def release(self) -> None: ...


class Answers(Protocol):
    """Who is told: the clerk."""

    def answered(self, connection: Connection, *, accepted: bool, by: str, reset: bool = False) -> None:
        """Somebody said yes or no."""
        ...

    def prolong(self, connection: Connection, until: float, note: str) -> None:
        """Silence is an answer at `until` only."""
        ...

    def unanswered(self, connection: Connection) -> None:
        """It has ended of itself, or cannot be asked after all."""
        ...


class _Case:
    """A connection that is being asked about.

    Attributes:
      connection: Which.
      line: What is asked.
      starts: When it begins.
      until: When silence is an answer; inf until it began.
      may_extend: Whether it was not prolonged yet.
      over: Nobody wants to know any more; the options are to be given back.
    """

    __slots__ = ("connection", "line", "may_extend", "over", "began", "starts", "until")

    def __init__(self, connection: Connection, line: AnyLine, starts: float) -> None:
        self.connection = connection
        self.line = line
        self.starts = starts
        self.began = starts
        self.until = math.inf
        self.may_extend = True
        self.over = False


def line_of(record: Record, may_duplicate: bool = False) -> AnyLine | None:
    """Whom to ask about a connection; None if there is nobody."""
    if can_be_asked(record):
        return Line(record, may_duplicate=may_duplicate)
    items = (reference() for reference in record.sockets)
    return next((_MemoryLine(item.ask) for item in items if _is_askable(item)), None)


def _is_askable(item: object) -> TypeGuard[Askable]:
    return is_abortable(item) and callable(getattr(item, "ask", None))


class Prober:
    """Asks about connections.

    Args:
      clerk: Takes the answers.
      find: Finds whom to ask, and whether that may take a descriptor; None where there is nobody.
    """

    def __init__(self, clerk: Answers, find: Callable[[Record, bool], AnyLine | None] = line_of) -> None:
        self._clerk = clerk
        self._find = find
        self._cases: dict[Hashable, _Case] = {}
        self._waiting: deque[_Case] = deque()
        self._next_start = -math.inf
        self._bell, self._rung = trio.open_memory_channel[None](1)

    def can_ask(self, record: Record) -> bool:
        """Whether there is anybody to ask about a connection."""
        return self._find(record, False) is not None

    def ask(self, connection: Connection) -> float:
        """Ask about a connection as soon as the pace allows it.

        Returns:
          When silence is expected to be an answer (`trio.current_time()`); `Answers.prolong` corrects it.
        """
        t = trio.current_time()
        key = connection.record.key
        former = self._cases.get(key)
        seconds = None if former is None else former.line.resume(connection.record)
        if former is not None and seconds is not None:
            starts = t
            case = _Case(connection, former.line, starts)
            case.until = t + seconds
        else:
            line = self._find(connection.record, len(self._cases) < _MOST_DUPLICATES)
            if line is None:
                return t
            starts = max(t, self._next_start)
            self._next_start = starts + 1 / PACE
            case = _Case(connection, line, starts)
            self._waiting.append(case)
        self._cases[key] = case
        self._ring()
        return case.until if math.isfinite(case.until) else starts + LEAST_SECONDS

    def stop(self, connection: Connection) -> None:
        """Ask no more about a connection, and give back what was borrowed."""
        key = connection.record.key
        case = self._cases.get(key)
        if case is None or case.connection is not connection:
            return
        case.over = True
        while self._waiting and self._waiting[-1].over:
            self._next_start = self._waiting.pop().starts  # the turn of one that never began is free for others
        if math.isinf(case.until) or case.line.end(trio.current_time()):
            del self._cases[key]

    def look(self, connection: Connection) -> None:
        """See whether a connection has answered by now, and tell."""
        case = self._cases.get(connection.record.key)
        if case is not None and case.connection is connection and not case.over:
            self._look(case, trio.current_time())

    def close(self) -> None:
        """Give everything back at once."""
        for case in self._cases.values():
            case.over = True
            case.line.release()
        self._cases.clear()
        self._waiting.clear()

    async def run(self) -> None:
        """Look at what is being asked until cancelled."""
        try:
            while True:
                if not self._cases:
                    await self._rung.receive()
                await trio.sleep(min(max(_TICK, _TICK_PER_CASE * len(self._cases)), _SLOWEST_TICK))
                for number, case in enumerate(list(self._cases.values()), 1):
                    self._turn(case)
                    if number % _CHUNK == 0:
                        await trio.lowlevel.checkpoint()
                self._start_waiting(trio.current_time())
        finally:
            self.close()

    def _turn(self, case: _Case) -> None:
        t, key = trio.current_time(), case.connection.record.key
        if self._cases.get(key) is not case:
            return  # it ended while others had their turn
        if not case.over:
            if math.isfinite(case.until):
                self._look(case, t)
        elif case.line.end(t):
            del self._cases[key]

    def _start_waiting(self, t: float) -> None:
        while self._waiting and self._waiting[0].starts <= t:
            case = self._waiting.popleft()
            if case.over or self._cases.get(case.connection.record.key) is not case:
                continue
            seconds = case.line.begin()
            if seconds is None:
                self._forget(case)
                self._clerk.unanswered(case.connection)
                continue
            case.began, case.until = t, t + seconds
            self._clerk.prolong(case.connection, case.until, "")

    def _look(self, case: _Case, t: float) -> None:
        reply = case.line.look()
        if reply is None:
            self._forget(case)
            self._clerk.unanswered(case.connection)
        elif reply is Reply.ACCEPTED:
            self._clerk.answered(case.connection, accepted=True, by=_ACCEPTED_BY)
        elif reply is Reply.RESET:
            after = f"reset within {t - case.began:.1f} s of being asked by keepalive"
            self._clerk.answered(case.connection, accepted=False, by=after, reset=True)
        elif reply is not Reply.NOTHING and t >= case.until and case.may_extend:
            case.may_extend = False
            case.until = max(case.until, t) + EXTENSION_SECONDS
            self._clerk.prolong(case.connection, case.until, reply.value)

    def _forget(self, case: _Case) -> None:
        case.over = True
        case.line.release()
        self._cases.pop(case.connection.record.key, None)

    def _ring(self) -> None:
        try:
            self._bell.send_nowait(None)
        except trio.WouldBlock:
            pass  # it is rung already


class _MemoryLine:
    """A peer in memory: it answers at once, as it is told to by the test."""

    _REPLIES: Final = {"ack": Reply.ACCEPTED, "reset": Reply.RESET, "silence": Reply.NOTHING}

    def __init__(self, ask: Callable[[], ProbeAnswer]) -> None:
        self._ask = ask

    def begin(self) -> float | None:
        return LEAST_SECONDS

    def look(self) -> Reply | None:
        return self._REPLIES[self._ask()]

    def end(self, t: float) -> bool:
        return True

    def resume(self, record: Record) -> float | None:
        return None

    def release(self) -> None:
        pass
