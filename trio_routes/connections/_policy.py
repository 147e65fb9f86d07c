"""How long a connection may stay SUSPECT: seconds per verdict, one value per pt or connection."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeAlias

import attrs

from ._verdict import Verdict, VerdictClass

if TYPE_CHECKING:
    from ._connection import Connection

Probe: TypeAlias = "Callable[[Connection], Awaitable[bool]]"
"""An application's own check of a path that moved: True acquits. Raising and returning False do not."""


def _check_seconds(instance: object, attribute: attrs.Attribute[float | None], value: float | None) -> None:
    if value is not None and not value >= 0:  # `not >=` refuses NaN as well
        raise ValueError(f"{attribute.name} must be 0 or more seconds, math.inf or None, not {value!r}")


def _check_least(instance: object, attribute: attrs.Attribute[float], value: float) -> None:
    if not 0 <= value < math.inf:
        raise ValueError(f"{attribute.name} must be a finite number of seconds, not {value!r}")


def _seconds(default: float | None) -> float | None:
    # A function, because a bare float as the default would make attrs' field() a float, never None.
    return attrs.field(default=default, validator=_check_seconds)


@attrs.frozen(kw_only=True)
class Policy:
    """Seconds from SUSPECT to LOST, per verdict.

    `math.inf` is SUSPECT for as long as it lasts, but never closed. None ignores the verdict: an
    uncertain one then takes the new path as the baseline, a certain one keeps the old.

    The defaults are measured: what a DHCP client or NetworkManager takes away and puts back on a
    link that stays up is back within 38 ms; on a link that went down, within 5 s.

    Attributes:
      no_route: The lookup for the connection's flow finds nothing.
      rejected: It finds a blackhole, unreachable or prohibiting route or rule.
      source_gone: The connection's own address is gone.
      peer_moved: The peer's address became one of this host's, or stopped being one.
      carrier_lost: The path is the same, and its link is down or without carrier.
      gateway_failed: No next hop answers neighbour discovery. It may be the peer's affair: never closed by default.
      egress_changed: Another link; how long it must have settled before the far side is asked.
      gateway_changed: Another gateway on the same link; likewise.
      link_cause: The least wait of every verdict but `carrier_lost` where a link or a routing daemon is the
        cause: both are away for seconds when they restart.
      ask_kernel: Ask by keepalive whether the new path is accepted, on uncertain verdicts: a packet a second, for
        3 to 13 s at most. Without, a connection on a changed path is closed only where address translation is likely.
    """

    no_route: float | None = _seconds(1.0)
    rejected: float | None = _seconds(1.0)
    source_gone: float | None = _seconds(1.0)
    peer_moved: float | None = _seconds(1.0)
    carrier_lost: float | None = _seconds(6.0)
    gateway_failed: float | None = _seconds(math.inf)
    egress_changed: float | None = _seconds(1.0)
    gateway_changed: float | None = _seconds(1.0)
    link_cause: float = attrs.field(default=6.0, validator=_check_least)
    ask_kernel: bool = True

    @classmethod
    def immediate(cls) -> Policy:
        """Close at once on every closing verdict, asking nobody."""
        return cls(
            no_route=0.0,
            rejected=0.0,
            source_gone=0.0,
            peer_moved=0.0,
            carrier_lost=0.0,
            egress_changed=0.0,
            gateway_changed=0.0,
            link_cause=0.0,
            ask_kernel=False,
        )

    @classmethod
    def patient(cls) -> Policy:
        """Wait half a minute, and a minute for links: for networks that flap."""
        return cls(
            no_route=30.0,
            rejected=30.0,
            source_gone=30.0,
            peer_moved=30.0,
            carrier_lost=60.0,
            egress_changed=30.0,
            gateway_changed=30.0,
            link_cause=60.0,
        )

    def wait(self, verdict: Verdict, *, slow: bool) -> float | None:
        """How long to wait in seconds; inf for ever, None to ignore the verdict, or to keep anyway.

        Args:
          verdict: What the judge said.
          slow: A link or a routing daemon is the cause (rule J3).
        """
        if verdict is Verdict.CARRIER_LOST:
            return self.carrier_lost  # its cause is always the link, so its own number says all
        seconds = self._seconds(verdict)
        if seconds is None or not slow or verdict.cls is VerdictClass.HINT:
            return seconds
        return max(seconds, self.link_cause)

    def _seconds(self, verdict: Verdict) -> float | None:
        match verdict:
            case Verdict.NO_ROUTE:
                return self.no_route
            case Verdict.REJECTED:
                return self.rejected
            case Verdict.SOURCE_GONE:
                return self.source_gone
            case Verdict.PEER_MOVED:
                return self.peer_moved
            case Verdict.EGRESS_CHANGED:
                return self.egress_changed
            case Verdict.GATEWAY_CHANGED:
                return self.gateway_changed
            case Verdict.GATEWAY_FAILED:
                return self.gateway_failed
            case _:
                return None
