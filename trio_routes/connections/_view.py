"""`pt.connections`: what applications see of the registry."""

from __future__ import annotations

from collections.abc import Iterator

import attrs

from ._account import Account, account_of
from ._connection import Connection
from ._forecast import Forecast, Overlaying, forecast
from ._registry import Registry, RegistryStatistics
from ._suppose import Change


@attrs.frozen(eq=False)
class Connections:
    """The connections that are guarded now; iterates over them in the order of their registration."""

    _registry: Registry
    _cache: Overlaying

    def find(self, what: object) -> Connection | None:
        """Return the connection of a stream or socket; None where it is not guarded or was lost. Not a checkpoint."""
        return self._registry.find(what)

    @property
    def history(self) -> tuple[Connection, ...]:
        """The connections that were lost, the latest last; the last 256 are remembered."""
        return self._registry.history

    def explain(self, connection: Connection) -> Account:
        """Say in plain words how a connection of this pt stands: its path, what changed, what is awaited until when.

        `str()` of the answer is a few lines. One that waits for its turn is judged first; lost ones are explained too.
        Not a checkpoint.
        """
        return account_of(connection, self._registry.court)

    def what_if(self, *changes: Change) -> Forecast:
        """Say what would become of the connections if something went: all of these changes at once.

        The same judge looks at an overlay of the tables, and nothing is changed: no standing, no event, no socket. It
        takes 0.2 ms with a million routes, and 20 to 50 µs more for each connection that the changes can touch (measured):
        with many thousands of those, the loop stands still meanwhile. Not a checkpoint.

        Args:
          changes: Each a `Route`, a `Link` or an `Address` that is gone; the event of one that went (`RouteRemoved`,
            `LinkDown`, `AddressRemoved`); or words: "link wlan0 down", "link wlan0 without carrier", "link wlan0 gone",
            "address 192.0.2.2 gone", "route default dev wlan0 gone", "route 10.0.0.0/8 via 10.0.0.1 metric 100 gone".

        Raises:
          ValueError: A change names nothing that is there, or is said in other words.
          TypeError: It is none of these.
        """
        return forecast(self._registry.court, self._cache, changes)

    def statistics(self) -> RegistryStatistics:
        """Count the connections by standing, and what was decided about them. Not a checkpoint."""
        return self._registry.statistics()

    def __iter__(self) -> Iterator[Connection]:
        return iter(self._registry)

    def __len__(self) -> int:
        return len(self._registry)
