"""The words of judging: verdicts, their classes, and standings."""

from __future__ import annotations

import enum


class VerdictClass(enum.Enum):
    """How sure a verdict is, which decides what waiting for it ends in."""

    KEEP = "keep"
    """The connection is not touched."""
    CERTAIN = "certain"
    """A local fact: nothing can pass as things stand. Closed when its wait is over."""
    UNCERTAIN = "uncertain"
    """The path moved; whether the far side accepts that, no local fact tells (NAT, source checks)."""
    HINT = "hint"
    """Something looks wrong, and it may be the peer's affair. Never closed for it alone."""


class Verdict(enum.Enum):
    """What a change did to one flow."""

    UNCHANGED = "unchanged"
    REROUTED = "rerouted"
    UNJUDGED = "unjudged"
    SOURCE_GONE = "source gone"
    NO_ROUTE = "no route"
    REJECTED = "rejected"
    PEER_MOVED = "peer moved"
    EGRESS_CHANGED = "egress changed"
    GATEWAY_CHANGED = "gateway changed"
    CARRIER_LOST = "carrier lost"
    GATEWAY_FAILED = "gateway failed"

    @property
    def cls(self) -> VerdictClass:
        """The verdict's class."""
        return _CLASS[self]

    @property
    def keeps(self) -> bool:
        """Whether the connection is left alone."""
        return _CLASS[self] is VerdictClass.KEEP


_CLASS = {
    Verdict.UNCHANGED: VerdictClass.KEEP,
    Verdict.REROUTED: VerdictClass.KEEP,
    Verdict.UNJUDGED: VerdictClass.KEEP,
    Verdict.SOURCE_GONE: VerdictClass.CERTAIN,
    Verdict.NO_ROUTE: VerdictClass.CERTAIN,
    Verdict.REJECTED: VerdictClass.CERTAIN,
    Verdict.PEER_MOVED: VerdictClass.CERTAIN,
    Verdict.EGRESS_CHANGED: VerdictClass.UNCERTAIN,
    Verdict.GATEWAY_CHANGED: VerdictClass.UNCERTAIN,
    Verdict.CARRIER_LOST: VerdictClass.CERTAIN,
    Verdict.GATEWAY_FAILED: VerdictClass.HINT,
}


class Standing(enum.Enum):
    """How a connection stands with the network."""

    GOOD = "good"
    SUSPECT = "suspect"
    LOST = "lost"
