"""`pt.connections`: what applications see of the registry."""

from __future__ import annotations

from collections.abc import Iterator

import attrs

from ._account import Account, account_of
from ._connection import Connection
from ._registry import Registry, RegistryStatistics


@attrs.frozen(eq=False)
class Connections:
    """The connections that are guarded now; iterates over them in the order of their registration."""

    _registry: Registry

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

    def statistics(self) -> RegistryStatistics:
        """Count the connections by standing, and what was decided about them. Not a checkpoint."""
        return self._registry.statistics()

    def __iter__(self) -> Iterator[Connection]:
        return iter(self._registry)

    def __len__(self) -> int:
        return len(self._registry)
