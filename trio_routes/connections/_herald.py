"""The herald: tells of what the court did, to subscribers, to the log and to the counters.

Of attempts to connect it says nothing: they were no connections yet, and whoever waits for one is told by its error.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

import attrs
import trio

from .._events import ConnectionLost, ConnectionRecovered, ConnectionRerouted, ConnectionSuspect, Event

if TYPE_CHECKING:
    from ..routing import Resolution
    from ._connection import Connection, Loss

_logger = logging.getLogger(__name__)


@attrs.define
class Counters:
    """What the court did, ever."""

    judged: int = 0
    suspected: int = 0
    asked: int = 0
    damped: int = 0
    recovered: int = 0
    rerouted: int = 0
    lost: int = 0


class Herald:
    """Counts, logs and publishes.

    Args:
      publish: Takes the events; never blocks.
      generation: The routing cache's, now.
    """

    def __init__(self, publish: Callable[[Event], None], generation: Callable[[], int]) -> None:
        self.counters: Counters = Counters()
        self._publish = publish
        self._generation = generation

    def suspect(self, connection: Connection) -> None:
        """A connection became suspect."""
        record = connection.record
        if record.attempt:
            return
        verdict = record.stand.verdict
        self.counters.suspected += 1
        _logger.info("%s: suspect: %s (%s)", connection, verdict.value, record.cause)
        self._publish(
            ConnectionSuspect(
                generation=self._generation(), time=trio.current_time(), connection=connection, verdict=verdict
            )
        )

    def recovered(self, connection: Connection, acquitted_by: str) -> None:
        """A suspect connection is good again."""
        if connection.record.attempt:
            return
        self.counters.recovered += 1
        _logger.info("%s: good again: %s", connection, acquitted_by)
        self._publish(
            ConnectionRecovered(
                generation=self._generation(),
                time=trio.current_time(),
                connection=connection,
                acquitted_by=acquitted_by,
            )
        )

    def rerouted(self, connection: Connection, before: Resolution) -> None:
        """A connection's path changed, and that does not matter."""
        if connection.record.attempt:
            return
        self.counters.rerouted += 1
        self._publish(
            ConnectionRerouted(
                generation=self._generation(),
                time=trio.current_time(),
                connection=connection,
                before=before,
                after=connection.record.now,
            )
        )

    def lost(self, connection: Connection, loss: Loss) -> None:
        """A connection was ended."""
        if connection.record.attempt:
            return
        self.counters.lost += 1
        _logger.info("%s: lost: %s", connection, loss)
        self._publish(ConnectionLost(generation=loss.generation, time=loss.time, connection=connection, loss=loss))
