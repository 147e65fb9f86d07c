"""Whoever is asked about a connection: the application's own probe where it has one, else the far side's kernel."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import trio

from ._prober import Prober

if TYPE_CHECKING:
    from ._clerk import Clerk
    from ._connection import Connection

_logger = logging.getLogger(__name__)

OWN_SECONDS = 10.0
"""How long the application's own probe may take: as long as the kernel's at most (rule J5)."""


class Asker:
    """Asks, and brings the clerk the answers. Of use only while `run` runs.

    Args:
      clerk: Where the answers go.
      nursery: For the application's probes, each of which is a task.
    """

    def __init__(self, clerk: Clerk, nursery: trio.Nursery) -> None:
        self._clerk = clerk
        self._nursery = nursery
        self._prober = Prober(clerk)

    async def run(self) -> None:
        """Look after what is being asked until cancelled; then everything borrowed is given back."""
        await self._prober.run()

    def can_ask(self, connection: Connection) -> bool:
        """Whether there is anybody to ask about a connection."""
        if connection.record.probe is not None:
            return True
        return connection.policy.ask_kernel and self._prober.can_ask(connection.record)

    def ask(self, connection: Connection) -> float:
        """Begin to ask. Returns when silence will be an answer (`trio.current_time()`)."""
        if connection.record.probe is None:
            return self._prober.ask(connection)
        scope = connection.record.asking = trio.CancelScope()
        self._nursery.start_soon(self._probe, connection, scope, name="trio_routes: probe")
        return trio.current_time() + OWN_SECONDS

    def stop(self, connection: Connection) -> None:
        """Ask no more about a connection, if anybody does."""
        scope, connection.record.asking = connection.record.asking, None
        if scope is not None:
            scope.cancel(reason="what was asked about is settled")
        else:
            self._prober.stop(connection)

    def look(self, connection: Connection) -> None:
        """Hear what the far side has said by now, before its silence counts."""
        self._prober.look(connection)

    async def _probe(self, connection: Connection, scope: trio.CancelScope) -> None:
        """Run the application's own probe. What it raises is its own affair, and no acquittal (R14)."""
        probe, accepted = connection.record.probe, False
        with scope:
            try:
                accepted = probe is not None and bool(await probe(connection))
            except Exception:  # an application's code: whatever it raises must not end the pt
                _logger.warning("the probe of %s failed", connection.describe(), exc_info=True)
        if not scope.cancel_called:  # else things have changed: whatever it answered is about a path of then
            self._clerk.answered(connection, accepted=accepted, by="its probe")
        await trio.lowlevel.checkpoint()
