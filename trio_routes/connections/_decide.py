"""What to do with a connection whose deadline has come: rules J1, J5, J6 and J8, without doing it. Pure.

It is asked at a deadline, and beforehand by whoever wants to know what a deadline will bring
(`_account.py`) or would bring if the network were another (`_forecast.py`). So it looks at
circumstances, not at a connection's record.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from ..routing import Resolution
from . import _clock as clock
from ._flow import Flow
from ._judge import Hops, View, is_likely_translated, may_be_stale
from ._policy import Policy
from ._verdict import Verdict, VerdictClass

if TYPE_CHECKING:
    from ._connection import Connection


@attrs.frozen(kw_only=True)
class Circumstances:
    """What a decision about a connection rests on.

    Attributes:
      flow: Its flow.
      policy: Its policy.
      stand: How it stands, with what the judge says.
      before: The path under which it was last good.
      now: The path that the judge looked at.
      hops: The next hops of that.
      born_broken: There was no working path when it was registered, and none was seen since.
    """

    flow: Flow
    policy: Policy
    stand: clock.Stand
    before: Resolution
    now: Resolution
    hops: Hops
    born_broken: bool


def circumstances_of(connection: Connection) -> Circumstances:
    """The circumstances of a connection as it was last judged."""
    record = connection.record
    return Circumstances(
        flow=connection.flow,
        policy=connection.policy,
        stand=record.stand,
        before=record.before,
        now=record.now,
        hops=record.hops,
        born_broken=record.born_broken,
    )


def decide(of: Circumstances, view: View, *, can_ask: bool) -> clock.Decision:
    """Decide about a suspect connection of which the judge just said its verdict again.

    Args:
      of: What is known of it.
      view: The routing cache.
      can_ask: Whether there is somebody to ask about it.
    """
    return clock.at_deadline(
        of.stand,
        doubtful=of.born_broken or _may_be_past_it(of, view),
        can_ask=can_ask,
        close_unasked=closes_unasked(of, view),
    )


def closes_unasked(of: Circumstances, view: View) -> bool:
    """Whether to close for a verdict that ought to be asked about, and cannot be (rule J8); else it stays suspect."""
    verdict, policy = of.stand.verdict, of.policy
    if verdict.cls is VerdictClass.HINT:
        return True  # only a policy with a number of seconds for it lets a hint fall due
    if verdict.cls is VerdictClass.CERTAIN and not _may_be_past_it(of, view):
        return True  # broken since it was registered, and nothing speaks for it
    if not policy.ask_kernel and policy.wait(verdict, slow=False) == 0:
        return True  # Policy.immediate(): every closing verdict closes
    return is_likely_translated(of.flow, of.hops, view)


def _may_be_past_it(of: Circumstances, view: View) -> bool:
    """Whether an IPv6 socket may still go another way than the one that rejects."""
    return of.stand.verdict is Verdict.REJECTED and may_be_stale(of.flow, of.before, of.now, view)
