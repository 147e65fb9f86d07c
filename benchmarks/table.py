"""What a benchmark hands over, and how it is measured and printed.

Figures of different runs, let alone machines, do not compare; figures within one run do. Each benchmark therefore measures
the rival ways side by side and its first row of a unit is the reference: the table shows how many times that every other is.
"""

import math
import timeit
from collections.abc import Callable, Iterable, Sequence
from typing import Literal, TypeAlias

import attrs

Unit = Literal["s", "B", "times"]

_SCALES: dict[Unit, tuple[tuple[float, str], ...]] = {
    "s": ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns")),
    "B": ((2.0**20, "MiB"), (2.0**10, "KiB"), (1.0, "B")),
    "times": ((1.0, ""),),
}


@attrs.frozen
class Row:
    """One measured way.

    Attributes:
      label: What was done and by whom, such as "decode a route: pyroute2".
      value: For one operation: seconds, or bytes; or how often something happened. NaN where it could not be
        measured; the label says why.
      unit: "s", "B" or "times".
      reference: Whether the rows after it are compared with this one; the first of a unit is one in any case.
    """

    label: str
    value: float
    unit: Unit = "s"
    reference: bool = False


# A heading, and the rows under it, of which the first of each unit is the reference.
Section: TypeAlias = tuple[str, Sequence[Row]]


def best_of(function: Callable[[], object], *, repeats: int = 5) -> float:
    """Return the seconds of one call of ``function``: the least of ``repeats`` means over some 0.2 s each.

    The least, because on a shared machine everything that disturbs a measurement makes it longer (see ``timeit``).
    """
    timer = timeit.Timer(function)
    number, _ = timer.autorange()
    return min(timer.repeat(repeats, number)) / number


def format_table(benchmarks: Iterable[Section]) -> str:
    """Lay out the rows of all benchmarks, each with its ratio to the first row of its unit in the same benchmark."""
    lines: list[tuple[str, str, str]] = []
    for name, rows in benchmarks:
        references: dict[Unit, float] = {}
        lines.append((name, "", ""))
        for row in rows:
            if math.isnan(row.value):
                lines.append((f"  {row.label}", "–", ""))
                continue
            if row.reference:
                references[row.unit] = row.value
            reference = references.setdefault(row.unit, row.value)
            ratio = f"× {row.value / reference:.2f}" if reference and row.unit != "times" else ""
            lines.append((f"  {row.label}", with_unit(row.value, row.unit), ratio))
    widths = [max((len(line[column]) for line in lines), default=0) for column in range(3)]
    return "\n".join(
        f"{label:<{widths[0]}}  {value:>{widths[1]}}  {ratio:>{widths[2]}}".rstrip() for label, value, ratio in lines
    )


def with_unit(value: float, unit: Unit) -> str:
    """Write a value as the table does: three digits, and the prefix that suits its size."""
    scale, name = next((pair for pair in _SCALES[unit] if value >= pair[0]), _SCALES[unit][-1])
    return f"{value / scale:.3g} {name}".rstrip()
