"""The words of judging: verdicts, their classes, and standings."""

from __future__ import annotations

import enum
from typing import Self


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
    """What a change did to one flow.

    Attributes:
      cls: The verdict's class.
      keeps: Whether the connection is left alone.
    """

    _value_: str
    # Plain attributes, because a loss asks for them a dozen times, and a table by verdict hashes in Python each time.
    cls: VerdictClass
    keeps: bool

    def __new__(cls, words: str, verdict_class: VerdictClass) -> Self:
        """Make a member whose value is its words."""
        member = object.__new__(cls)
        member._value_ = words
        member.cls = verdict_class
        member.keeps = verdict_class is VerdictClass.KEEP
        return member

    UNCHANGED = "unchanged", VerdictClass.KEEP
    REROUTED = "rerouted", VerdictClass.KEEP
    UNJUDGED = "unjudged", VerdictClass.KEEP
    SOURCE_GONE = "source gone", VerdictClass.CERTAIN
    NO_ROUTE = "no route", VerdictClass.CERTAIN
    REJECTED = "rejected", VerdictClass.CERTAIN
    PEER_MOVED = "peer moved", VerdictClass.CERTAIN
    EGRESS_CHANGED = "egress changed", VerdictClass.UNCERTAIN
    GATEWAY_CHANGED = "gateway changed", VerdictClass.UNCERTAIN
    CARRIER_LOST = "carrier lost", VerdictClass.CERTAIN
    GATEWAY_FAILED = "gateway failed", VerdictClass.HINT


class Standing(enum.Enum):
    """How a connection stands with the network."""

    GOOD = "good"
    SUSPECT = "suspect"
    LOST = "lost"
