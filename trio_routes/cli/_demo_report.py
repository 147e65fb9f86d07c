"""What the demo found: one value per act, as a table and as JSON."""

from __future__ import annotations

import attrs


@attrs.define
class ActResult:
    """What was observed in one act.

    Attributes:
      name: What happened to the network.
      expectations: What was expected, and whether it was observed.
      ended_after: Seconds from the kernel's message to the end of the guarded `receive_some()`; None if it lived.
      reason: The verdict it ended with; "" if it lived.
      returned_after: Seconds from that end to the first byte over the new connection; None without one.
      note: What else is worth a word in the table.
    """

    name: str
    expectations: dict[str, bool] = attrs.field(factory=dict[str, bool])
    ended_after: float | None = None
    reason: str = ""
    returned_after: float | None = None
    note: str = ""

    @property
    def ok(self) -> bool:
        """Whether every expectation was observed."""
        return bool(self.expectations) and all(self.expectations.values())

    def as_json(self) -> dict[str, object]:
        """The act as a JSON object; times in milliseconds."""
        return {
            "act": self.name,
            "ok": self.ok,
            "ended_after_ms": _milliseconds(self.ended_after),
            "reason": self.reason,
            "returned_after_ms": _milliseconds(self.returned_after),
            "expectations": self.expectations,
            "note": self.note,
        }


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 2)


def in_words(seconds: float | None) -> str:
    """A duration for people."""
    return "-" if seconds is None else f"{seconds * 1000:.1f} ms"


def summary(results: list[ActResult]) -> str:
    """Lay the acts out as a table."""
    rows = [("", "guarded ended after", "reason", "back over LTE after", "as expected")]
    rows += [
        (
            result.name,
            in_words(result.ended_after),
            result.reason or result.note or "-",
            in_words(result.returned_after) if result.returned_after is not None or not result.reason else "later",
            "yes" if result.ok else "NO: " + "; ".join(what for what, seen in result.expectations.items() if not seen),
        )
        for result in results
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])
