"""What to do with a connection whose deadline has come: rules J1, J5, J6 and J8, without doing it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import _clock as clock
from ._judge import View, is_likely_translated, may_be_stale
from ._verdict import Verdict, VerdictClass

if TYPE_CHECKING:
    from ._connection import Connection


def decide(connection: Connection, view: View, *, can_ask: bool) -> clock.Decision:
    """Decide about a suspect connection of which the judge just said its verdict again.

    Args:
      connection: Which.
      view: The routing cache.
      can_ask: Whether there is somebody to ask about it.
    """
    record = connection.record
    return clock.at_deadline(
        record.stand,
        doubtful=record.born_broken or _may_be_past_it(connection),
        can_ask=can_ask,
        close_unasked=closes_unasked(connection, view),
    )


def closes_unasked(connection: Connection, view: View) -> bool:
    """Whether to close for a verdict that ought to be asked about, and cannot be (rule J8); else it stays suspect."""
    record, policy = connection.record, connection.policy
    verdict = record.stand.verdict
    if verdict.cls is VerdictClass.HINT:
        return True  # only a policy with a number of seconds for it lets a hint fall due
    if verdict.cls is VerdictClass.CERTAIN and not _may_be_past_it(connection):
        return True  # broken since it was registered, and nothing speaks for it
    if not policy.ask_kernel and policy.wait(verdict, slow=False) == 0:
        return True  # Policy.immediate(): every closing verdict closes
    return is_likely_translated(connection.flow, record.hops, view)


def _may_be_past_it(connection: Connection) -> bool:
    """Whether an IPv6 socket may still go another way than the one that rejects."""
    record = connection.record
    return record.stand.verdict is Verdict.REJECTED and may_be_stale(connection.flow, record.before, record.now)
