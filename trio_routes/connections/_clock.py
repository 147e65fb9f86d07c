"""The clock: when a connection becomes SUSPECT, good again, or due. Pure: the time is passed in.

                        verdict keeps, or is ignored
          ┌───────────────────────────────────────────────────┐
          ▼                                                   │
        GOOD ──── any other verdict, at t ────▶ SUSPECT until t + wait ──── deadline ───▶ the judge once more, then
                                                   │     ▲                                CLOSE, ASK or LEAVE
                              another verdict: ────┘     │
                              same class: the deadline stays; a slow cause lengthens it, once,
                              and a path that moves on, uncertain again, settles anew
                              another class: its own wait from then
                              never over max(30 s, the policy's wait) in all: whoever is asked about after that
                              is asked for good, though the path moves on

A wait of inf has no deadline, and the time spent so does not count for the bound: an hour with a
silent gateway must not make the route that is gone for 27 ms after it a loss. Meanwhile its socket
is looked at from time to time: it may show that the connection lives, or has ended.
"""

from __future__ import annotations

import enum
import math
from typing import TypeAlias

import attrs

from ._verdict import Standing, Verdict, VerdictClass

BOUND_SECONDS = 30.0
"""The longest that a connection flaps between verdicts, SUSPECT without evidence."""

WAKING_SECONDS = 10.0
"""After waking, Wi-Fi association and DHCP need so long."""

_MOST_DOUBLINGS = 5  # 32 s from the shortest wait by default: over the bound

FIRST_LOOK_SECONDS = 1.0
MOST_LOOK_SECONDS = 60.0
"""Between two looks at the socket of a connection that waits without a deadline; a look costs some 5 µs."""

LONG_SLEEP_SECONDS = 600.0
"""Over this, who translates may well have forgotten a connection; keepalive is often set to more than that."""


FLAPPING_SECONDS = 60.0
FLAPPING_RETURNS = 3
"""A path that came back so often within so long is a flapping one. One that is renewed or roams comes back once or
twice; chosen, not measured."""

Returns: TypeAlias = tuple[float, ...]
"""When a path came back, of late; () for nearly every connection."""

STEADY: Returns = ()


def returned(returns: Returns, t: float) -> Returns:
    """Note that a path came back at `t`; only what `damped` can make use of is kept."""
    most = FLAPPING_RETURNS + _MOST_DOUBLINGS - 1
    return (*(then for then in returns if t - then < FLAPPING_SECONDS), t)[-most:]


def damped(wait: float, returns: Returns, t: float) -> float:
    """How long to wait for a path that went at `t`, given how often it came back before.

    From its third return within a minute on, each doubles the wait: who has been seen to come back may be waited for.
    At most `BOUND_SECONDS`, unless the policy's own wait is longer. No wait at all (`Policy.immediate()`) and one
    without end stay as they are.
    """
    if not returns:
        return wait
    lately = sum(1 for then in returns if t - then < FLAPPING_SECONDS)
    doublings = min(lately - FLAPPING_RETURNS + 1, _MOST_DOUBLINGS)
    return wait if doublings <= 0 else max(wait, min(wait * 2**doublings, BOUND_SECONDS))


class Mode(enum.Enum):
    """What a suspect connection is waiting for."""

    SETTLING = "settling"
    """The deadline is a guess that things stay as they are; then it is decided."""
    ASKING = "asking"
    """Somebody is being asked; the deadline is when silence is an answer."""
    LEFT = "left"
    """It was decided to leave it SUSPECT until something changes."""


@attrs.frozen
class Stand:
    """How a connection stands, at one moment; good connections share one value.

    Attributes:
      standing: GOOD, SUSPECT or LOST.
      verdict: What the judge said last.
      since: When it became suspect; None while it is not.
      started: When waiting for a deadline began, from which the bound counts; inf while there is none.
      deadline: When it falls due; inf for never.
      mode: What it is waiting for.
      note: What asking the far side has brought so far, if anything.
      look_at: When to look whether its socket says something, where it waits without a deadline; else inf.
    """

    standing: Standing = Standing.GOOD
    verdict: Verdict = Verdict.UNCHANGED
    since: float | None = None
    started: float = math.inf
    deadline: float = math.inf
    mode: Mode = Mode.SETTLING
    look_at: float = math.inf
    note: str = ""

    @property
    def due(self) -> float:
        """When there is something to do about it though nothing changes: its deadline, or a look; inf for never."""
        return min(self.deadline, self.look_at)

    @property
    def is_to_be_looked_at(self) -> bool:
        """Whether it waits without a deadline, and its socket may still say something."""
        return self.look_at < self.deadline

    @property
    def suspect(self) -> bool:
        """Whether the standing is SUSPECT."""
        return self.standing is Standing.SUSPECT


_GOOD = {verdict: Stand(verdict=verdict) for verdict in Verdict}


def good(verdict: Verdict = Verdict.UNCHANGED) -> Stand:
    """A good stand. With a verdict that does not keep: one that is ignored, or of which evidence acquitted."""
    return _GOOD[verdict]


def lost(stand: Stand, verdict: Verdict) -> Stand:
    """The last stand of a connection."""
    return Stand(Standing.LOST, verdict, stand.since, stand.started, mode=stand.mode)


def on_verdict(stand: Stand, verdict: Verdict, t: float, *, wait: float | None, slow: bool, moved: bool) -> Stand:
    """Take in what the judge says after a change.

    Args:
      stand: How the connection stood; not LOST.
      verdict: What the judge says now.
      t: Now, in seconds.
      wait: The policy's wait for this verdict and cause; inf for ever, None to ignore the verdict.
      slow: Whether a slow cause is seen now, for which `wait` was chosen.
      moved: Whether the path is another one than when the judge last spoke.
    """
    if verdict.keeps or wait is None:
        return good(verdict)
    if not stand.suspect:
        return _waiting(stand, verdict, t, wait)
    unchanged = verdict is stand.verdict and not moved
    if stand.mode is not Mode.SETTLING:
        # Asked, or left alone, for that very state of things; another one settles anew, as long as there is time to.
        if unchanged:
            return stand
        if stand.mode is Mode.ASKING and verdict.cls is VerdictClass.UNCERTAIN and _is_over(stand, t, wait):
            # Else it would be asked anew at each move, and nothing would ever come of a path that flips on and on.
            return attrs.evolve(stand, verdict=verdict)
        return _waiting(stand, verdict, t, wait)
    if verdict.cls is not stand.verdict.cls or math.isinf(wait) or math.isinf(stand.deadline):
        return _waiting(stand, verdict, t, wait)
    deadline = stand.deadline
    if slow or verdict is Verdict.CARRIER_LOST:
        # Never shortened again: a link is back seconds before its address is.
        deadline = max(deadline, stand.started + wait)
    if moved and verdict.cls is VerdictClass.UNCERTAIN:
        # It will be asked about: a packet into a path that only flips by would do the harm that settling prevents.
        deadline = max(deadline, t + wait)
    deadline = _bounded(deadline, stand.started, wait)
    if unchanged and deadline == stand.deadline:
        return stand
    return attrs.evolve(stand, verdict=verdict, deadline=deadline)


def _waiting(stand: Stand, verdict: Verdict, t: float, wait: float) -> Stand:
    """Settle from now on."""
    started = t if math.isinf(stand.deadline) else stand.started
    deadline = _bounded(t + wait, started, wait)
    return Stand(
        standing=Standing.SUSPECT,
        verdict=verdict,
        since=t if stand.since is None else stand.since,
        started=math.inf if math.isinf(deadline) else started,
        deadline=deadline,
        look_at=t + FIRST_LOOK_SECONDS if math.isinf(deadline) else math.inf,
    )


def _bounded(deadline: float, started: float, wait: float) -> float:
    return min(deadline, started + max(BOUND_SECONDS, wait))


def _is_over(stand: Stand, t: float, wait: float) -> bool:
    return t >= stand.started + max(BOUND_SECONDS, wait)


class Decision(enum.Enum):
    """What to do with a connection that is due."""

    CLOSE = "close"
    ASK = "ask"
    LEAVE = "leave"


def at_deadline(stand: Stand, *, doubtful: bool, can_ask: bool, close_unasked: bool) -> Decision:
    """Decide about a connection that is due and of which the judge just said `stand.verdict` again.

    Args:
      stand: A suspect one.
      doubtful: Whether a certain verdict is in doubt here: the connection was broken when it was registered, so the
        model may not fit it; or it is an IPv6 socket that may still use another route.
      can_ask: Whether there is somebody to ask.
      close_unasked: What else to do with a verdict that ought to be asked about.
    """
    if stand.mode is Mode.ASKING:
        return Decision.CLOSE  # silence
    if stand.verdict.cls is VerdictClass.CERTAIN and not doubtful:
        return Decision.CLOSE
    if can_ask:
        return Decision.ASK
    return Decision.CLOSE if close_unasked else Decision.LEAVE


def asking(stand: Stand, until: float, note: str = "") -> Stand:
    """The stand of a connection about which somebody is asked, and silent by `until` at the latest."""
    return attrs.evolve(stand, mode=Mode.ASKING, deadline=until, note=note)


def left(stand: Stand, t: float) -> Stand:
    """The stand of a connection that is left SUSPECT until something changes, or its socket shows that it lives."""
    return attrs.evolve(stand, mode=Mode.LEFT, deadline=math.inf, look_at=t + FIRST_LOOK_SECONDS)


def looked_at(stand: Stand, t: float, *, again: bool) -> Stand:
    """The stand of a connection that waits without a deadline and whose socket said nothing at `t`.

    The next look is as far away as the suspicion is old, so that their number grows with its logarithm, and at most
    `MOST_LOOK_SECONDS`. Without `again` there is none.
    """
    pause = t - stand.since if stand.since is not None else 0.0
    next_look = t + min(max(pause, FIRST_LOOK_SECONDS), MOST_LOOK_SECONDS)
    return attrs.evolve(stand, look_at=next_look if again else math.inf)


def woken(stand: Stand, t: float) -> Stand:
    """Move a deadline that passed, or nearly, while the machine slept (rule J7)."""
    if not stand.suspect or math.isinf(stand.deadline):
        return stand
    return attrs.evolve(stand, since=t, started=t, deadline=max(stand.deadline, t + WAKING_SECONDS))
