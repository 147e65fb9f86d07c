"""The task that finds out what is behind the gateway, and again whenever that may have changed.

                   trigger (the gateway changed): UNKNOWN at once, back-off starts anew
                 ┌─────────────────────────────────────────────────────────────────────┐
                 ▼                                                                     │
    settle 0.1 s ──▶ attempt: probes in a cancel scope ──▶ finding ──▶ ONLINE: silence ┤
                 ▲      │ trigger: cancelled, next attempt               │             │
                 └──────┘                                                └▶ else: again after 1, 2, 4 ... 600 s

Which network an attempt belongs to is its cancel scope and nothing else: a trigger cancels the scope, and only a scope
that nobody cancelled can yield a finding. So the old network's answer cannot become the new one's, not even if it
arrived in the same tick as the trigger. (libwebsockets drops the trigger instead, and keeps the old answer.)

The settle time lets one change be one run: NetworkManager and DHCP clients take a default route away and put it back
within some 30 ms, and resolv.conf follows the route. Triggers inside it do not lengthen it, so a flapping gateway costs
at most ten attempts a second; the state stays UNKNOWN until it holds still for as long as an answer takes.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable

import trio

from .._events import Event, PortalChanged
from ._config import PortalConfig
from ._probe import Network, examine
from ._rules import PortalKind, PortalState, judge, same_finding, unknown

SETTLE_SECONDS = 0.1
# 1 s doubling to 10 min (Android, NetworkManager): somebody who logs in is noticed soon, a dead link costs nothing.
FIRST_RECHECK_SECONDS = 1.0
LONGEST_RECHECK_SECONDS = 600.0

_logger = logging.getLogger("trio_routes.portal")


class Detector:
    """Finds out what is behind the gateway; one per pt.

    Args:
      network: Where names are resolved and connections made: the pt's `Kernel`.
      config: Whom to ask. None turns detection off: nothing is sent unless `check` is called.
      publish: Takes the `PortalChanged` events; must not block.
      generation: The routing cache's generation now.
    """

    def __init__(
        self,
        network: Network,
        config: PortalConfig | None,
        publish: Callable[[Event], None],
        generation: Callable[[], int],
    ) -> None:
        self._network = network
        self._enabled = config is not None
        self._endpoints = (config or PortalConfig()).endpoints
        self._publish = publish
        self._generation = generation
        # `_state` is what is true of the network of now; `_finding` what was last found of any network, and told.
        self._state = self._finding = unknown(generation())
        self._asked = trio.Event()  # set from the moment a run is wanted until it has its finding
        self._found = trio.Event()  # a new one for every finding
        self._attempt = trio.CancelScope()
        self._not_before = -math.inf
        self._pause = FIRST_RECHECK_SECONDS
        self._closed = False

    @property
    def state(self) -> PortalState:
        """What is known of the network of now; UNKNOWN from a trigger until the run that it causes is over."""
        return self._state

    def trigger(self, reason: str) -> None:
        """Say that the gateway changed: what was known holds no more, and a run begins unless detection is off.

        Args:
          reason: What changed, for the log and the cancelled attempt ("default via 192.0.2.1 gone").
        """
        self._state = unknown(self._generation())
        self._pause = FIRST_RECHECK_SECONDS
        self._not_before = trio.current_time() + SETTLE_SECONDS
        self._attempt.cancel(reason=reason)
        if self._enabled:
            _logger.debug("portal detection: %s", reason)
            self._asked.set()

    async def check(self) -> PortalState:
        """Ask once now, or wait for the run that is under way, and return what it found. A checkpoint.

        Works with detection off, too; the answer is then not kept up to date. The gateway changing meanwhile starts
        the run again; there is no timeout other than the caller's (a run takes at most 10 s).

        Raises:
          trio.ClosedResourceError: The pt has ended.
        """
        while True:
            self._asked.set()
            await self._next_finding()
            # The gateway may have changed between the finding and our turn.
            if self._state.kind is not PortalKind.UNKNOWN:
                return self._state

    async def wait_online(self) -> None:
        """Return once the network of now is known to reach the Internet. A checkpoint.

        Raises:
          RuntimeError: Detection is off, so nobody would ever know.
          trio.ClosedResourceError: The pt has ended.
        """
        if not self._enabled:
            raise RuntimeError("portal detection is off; give open_pt() a PortalConfig to wait for the Internet")
        await trio.lowlevel.checkpoint()
        while self._closed or self._state.kind is not PortalKind.ONLINE:
            await self._next_finding()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve triggers and checks until cancelled. Run it once."""
        if self._enabled:
            self._asked.set()
        task_status.started()
        try:
            while True:
                with trio.move_on_after(self._until_recheck()):
                    await self._asked.wait()
                if not self._asked.is_set():
                    self._pause = min(2 * self._pause, LONGEST_RECHECK_SECONDS)
                self._settle(await self._find_out())
        finally:
            self._closed = True
            self._found.set()  # and so it stays: whoever asks now is told

    def _until_recheck(self) -> float:
        quiet = not self._enabled or self._state.kind is PortalKind.ONLINE
        return math.inf if quiet else self._pause

    async def _find_out(self) -> PortalState:
        """Attempt until an attempt ends under the gateway that it began under."""
        while True:
            await trio.sleep_until(self._not_before)  # as it was when the sleep began: triggers do not lengthen it
            generation = self._generation()
            with trio.CancelScope() as self._attempt:
                evidence = await examine(self._network, self._endpoints)
                # A trigger after the last checkpoint leaves the scope cancelled and nothing to interrupt.
                if not self._attempt.cancel_called:
                    return judge(evidence, generation)

    def _settle(self, state: PortalState) -> None:
        before, self._finding = self._finding, state
        self._state = state
        self._asked = trio.Event()
        if state.kind is PortalKind.ONLINE:
            self._pause = FIRST_RECHECK_SECONDS
        self._found.set()
        self._found = trio.Event()
        if not same_finding(before, state):
            _logger.info("behind the gateway: %s%s", state.kind.value, f" at {state.url}" if state.url else "")
            self._publish(
                PortalChanged(generation=self._generation(), time=trio.current_time(), before=before, state=state)
            )

    async def _next_finding(self) -> None:
        await self._found.wait()
        if self._closed:
            raise trio.ClosedResourceError("the pt has ended, and its portal detection with it")
