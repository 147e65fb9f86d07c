"""When a session that the network will end is looked at again, and when the application is told. Pure.

    what the API said      looked at again                               told (`PortalExpiring`)
    ---------------------  --------------------------------------------  ---------------------------------------------
    seconds-remaining      60 s before the end, and once it is over      less than 60 s are left
    bytes-remaining        halfway to the end at the pace of the last    they last for less than 60 s at that pace, or
                           two answers, 10 s to 10 min; first at 60 s    there are less than 1 MB

Of a client that is captive there is no session that could end: RFC 8908 §5 wants both left out then, and a server that says
"0 seconds" to whoever has not logged in must not sound the alarm.

Sixty seconds are enough to save one's work or to prolong the session, and few enough to be about now.
"""

from __future__ import annotations

import math

import attrs

from ._evidence import Finding
from ._rules import PortalState

LEAD_SECONDS = 60.0
LEAST_BYTES = 1_000_000.0
# Between two looks at a session; a network that says "0 seconds left" for ever is not asked for ever.
SOONEST_SECONDS = 10.0
LATEST_SECONDS = 600.0
_GRACE_SECONDS = 0.5  # after the end, so that the network has noticed too


@attrs.frozen
class Look:
    """What follows from an answer.

    Attributes:
      again_at: When to ask again, `trio.current_time()`; inf where no session ends.
      expiring: Whether the end is near.
    """

    again_at: float
    expiring: bool


def look(state: PortalState, now: float, before: PortalState | None = None, before_at: float = 0.0) -> Look:
    """Plan what follows from what was just found.

    Args:
      state: The finding.
      now: When it was found, `trio.current_time()`.
      before: The finding before of the same path, for the pace; None without one.
      before_at: When that was found.
    """
    if any(one.finding is Finding.API_CAPTIVE for one in state.evidence):
        return Look(math.inf, expiring=False)
    again, expiring = math.inf, False
    if state.expires_at is not None:
        left = state.expires_at - now
        expiring = left <= LEAD_SECONDS
        again = now + left - LEAD_SECONDS if not expiring else state.expires_at + _GRACE_SECONDS
    if state.bytes_remaining is not None:
        lasts = _lasts(state.bytes_remaining, now, before, before_at)
        expiring |= state.bytes_remaining < LEAST_BYTES or (lasts is not None and lasts < LEAD_SECONDS)
        wait = LEAD_SECONDS if lasts is None else lasts / 2
        again = min(again, now + min(wait, LATEST_SECONDS))
    return Look(max(again, now + SOONEST_SECONDS), expiring)


def _lasts(bytes_remaining: float, now: float, before: PortalState | None, before_at: float) -> float | None:
    """For how many seconds the bytes last; None while no pace is known."""
    if before is None or before.bytes_remaining is None or now <= before_at:
        return None
    pace = (before.bytes_remaining - bytes_remaining) / (now - before_at)
    return bytes_remaining / pace if pace > 0 else math.inf
