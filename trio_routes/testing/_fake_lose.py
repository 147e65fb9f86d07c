"""Ending one connection at once, without a network that would give a reason."""

from __future__ import annotations

from ..connections import Connection, Verdict
from ..connections._court import Court
from ..connections._flow import layers


def lose(connection_or_stream: object, verdict: Verdict = Verdict.NO_ROUTE) -> None:
    """Act as if the judge had condemned a connection: what it is to an application, all of it.

    The record is LOST, the event is published, guard blocks are cancelled, the socket is disconnected. Nothing happens
    to a connection that is lost already. Not a checkpoint.

    Args:
      connection_or_stream: A `Connection`, or a guarded stream, also under TLS.
      verdict: The verdict that the loss carries.

    Raises:
      TypeError: Neither a `Connection` nor a guarded stream. For a bare stream in a guard block give the block's
        `Connection`.
      ValueError: Nobody uses the connection any more: its last guard was left.
    """
    connection = _connection_of(connection_or_stream)
    # The one way from a connection to its judge, which is no application's affair.
    court = connection._settler  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
    if not isinstance(court, Court):
        raise TypeError(f"{connection.describe()} has no judge that could lose it")
    if connection.loss is not None:
        return
    if connection.record.references < 1:
        raise ValueError(f"nobody uses {connection.describe()} any more")
    court.end(connection, verdict, "testing.lose()")


def _connection_of(what: object) -> Connection:
    for layer in layers(what):
        connection = layer if isinstance(layer, Connection) else getattr(layer, "connection", None)
        if isinstance(connection, Connection):
            return connection
    raise TypeError(f"{type(what).__name__} is neither a Connection nor a guarded stream")
