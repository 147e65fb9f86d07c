"""Finding out what is behind one path, and again until it is the Internet and quiet.

              trigger (another network there): open at once, back-off starts anew
              ┌───────────────────────────────────────────────────────────────────────────┐
              ▼                                                                           │
 settle 0.1 s ──▶ attempt: a run in a cancel scope ──▶ finding ──▶ ONLINE, or the tables ─┤
              ▲      │ trigger: cancelled, next attempt    │       know: no task is left  │
              └──────┘                                     └▶ else: again after 1, 2, 4 ... 600 s;
                                                              with a session that ends: before it does

Which network an attempt belongs to is its cancel scope and nothing else: a trigger cancels the scope, and only a scope
that nobody cancelled can yield a finding. So the old network's answer cannot become the new one's, not even if it
arrived in the same tick as the trigger. (libwebsockets drops the trigger instead, and keeps the old answer.)

The settle time lets one change be one run: NetworkManager and DHCP clients take a default route away and put it back
within some 30 ms, and resolv.conf follows the route. Triggers inside it do not lengthen it, so a flapping gateway costs
at most ten attempts a second; the state stays open until it holds still for as long as an answer takes.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable

import trio

from ._evidence import Question
from ._rules import PortalKind, PortalState, unknown
from ._session import look
from ._survey import Path

SETTLE_SECONDS = 0.1
# 1 s doubling to 10 min (Android, NetworkManager): somebody who logs in is noticed soon, a dead link costs nothing.
FIRST_RECHECK_SECONDS = 1.0
LONGEST_RECHECK_SECONDS = 600.0

_logger = logging.getLogger("trio_routes.portal")


class Pursuit:
    """What is known of one path, and the task that finds it out; the task is there only while there is something to do.

    Args:
      path: Which path.
      find: One run; what it returns is dropped if it was cancelled.
      found: Called with this pursuit after every finding. Must not block.
      start: Starts `run` as a task; does nothing before there can be tasks.
      generation: The routing cache's generation now.
      enabled: Whether triggers and time make it ask; if not, only `ask` does.

    Attributes:
      path: Which path.
      state: What is known of the network of now; open from a trigger until the run that it causes is over.
      told: What was last found of any network there.
      expiring: Whether a session is about to end, by the last finding.
      warned: Whether that was told; whoever tells it sets this.
    """

    def __init__(
        self,
        path: Path,
        *,
        find: Callable[[Path], Awaitable[PortalState]],
        found: Callable[[Pursuit], None],
        start: Callable[[Pursuit], None],
        generation: Callable[[], int],
        enabled: bool,
    ) -> None:
        self.path: Path = path
        self.state: PortalState = unknown(generation())
        self.told: PortalState = self.state
        self.expiring: bool = False
        self.warned: bool = False
        self._find = find
        self._found = found
        self._start = start
        self._generation = generation
        self._enabled = enabled
        self._asked = trio.Event()  # set from the moment a run is wanted until it has its finding
        self._running = False
        self._ended = False
        self._attempt = trio.CancelScope()
        self._life = trio.CancelScope()
        self._not_before = -math.inf
        self._pause = FIRST_RECHECK_SECONDS
        self._found_at = -math.inf
        self._look_at = math.inf

    @property
    def pending(self) -> bool:
        """Whether a run is wanted or under way."""
        return self._asked.is_set()

    def trigger(self, reason: str) -> None:
        """Say that another network may be there now: what was known holds no more, and a run begins unless disabled.

        Args:
          reason: What changed, for the log and the cancelled attempt.
        """
        self.state = unknown(self._generation())
        self._pause = FIRST_RECHECK_SECONDS
        self._found_at = -math.inf
        self._not_before = trio.current_time() + SETTLE_SECONDS
        self._attempt.cancel(reason=reason)
        if self._enabled:
            _logger.debug("portal detection of path %s: %s", self.path, reason)
            self.ask()

    def ask(self, *, after: float = 0.0) -> None:
        """Want a run; the one under way will do. What is known stays known until it has its finding.

        Args:
          after: Seconds to wait first, for what a stranger may say as often as he likes.
        """
        self._asked.set()
        if after:
            self._not_before = max(self._not_before, trio.current_time() + after)
        if not self._running:
            self._start(self)

    def end(self, reason: str) -> None:
        """End the task, if there is one: the path is gone."""
        self._ended = True
        self._life.cancel(reason=reason)

    async def run(self) -> None:
        """Find out, until nothing is left to do. For `start`; returns at once if it runs already."""
        await trio.lowlevel.checkpoint()
        if self._running or self._ended or not self._asked.is_set():
            return
        self._running = True
        try:
            with trio.CancelScope() as self._life:
                while True:
                    await self._find_out()
                    again = self._again_at()
                    if again == math.inf and not self._asked.is_set():
                        return
                    with trio.move_on_at(again):
                        await self._asked.wait()
                    if not self._asked.is_set():
                        self._pause = min(2 * self._pause, LONGEST_RECHECK_SECONDS)
        finally:
            self._running = False

    async def _find_out(self) -> None:
        """Attempt until an attempt ends under the network that it began under."""
        while True:
            await trio.sleep_until(self._not_before)  # as it was when the sleep began: triggers do not lengthen it
            with trio.CancelScope() as self._attempt:
                state = await self._find(self.path)
                # A trigger after the last checkpoint leaves the scope cancelled and nothing to interrupt.
                if not self._attempt.cancel_called:
                    self._settle(state)
                    return

    def _settle(self, state: PortalState) -> None:
        now = trio.current_time()
        looked = look(state, now, self.state, self._found_at)
        self.state = state
        self.expiring, self._look_at, self._found_at = looked.expiring, looked.again_at, now
        self.warned &= looked.expiring
        self._asked = trio.Event()
        if state.kind is PortalKind.ONLINE:
            self._pause = FIRST_RECHECK_SECONDS
        self._found(self)

    def _again_at(self) -> float:
        if not self._enabled or all(one.question is Question.TABLES for one in self.state.evidence):
            return math.inf  # the tables tell by themselves when they say something else
        if self.state.kind is PortalKind.ONLINE:
            return self._look_at
        return min(self._found_at + self._pause, self._look_at)
