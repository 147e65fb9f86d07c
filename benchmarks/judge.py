"""Whether judging is as fast and small as it is meant to be: ``make bench-judge``, two minutes.

Each scene runs in network namespaces of its own (`judge_latency.py`, `judge_scale.py`, `judge_crowd.py`), as root or as
anybody who may make a user namespace. The table says of each goal what was measured and whether that meets it; what has
no goal is there to explain the rest. ``ARGS="latency"`` runs only the scenes of that name.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence

import attrs

from benchmarks.cache import machine
from benchmarks.epoll_receiver import receiver
from benchmarks.judge_sizes import CROWD_SIZE, FLOWS, LATENCY_SIZES, STREAMS
from benchmarks.namespace import run_in_namespace
from benchmarks.table import Unit, with_unit

Figures = Mapping[str, float]


@attrs.frozen
class Line:
    """One line of the table.

    Attributes:
      label: What was measured.
      value: The figure.
      unit: Its unit.
      goal: What it may be at most; None where it only explains.
    """

    label: str
    value: float
    unit: Unit = "s"
    goal: float | None = None

    def cells(self) -> tuple[str, str, str, str]:
        """The cells: label, measured, goal, met or missed."""
        if self.goal is None:
            return f"  {self.label}", _written(self.value, self.unit), "", ""
        met = "met" if self.value <= self.goal else "MISSED"
        return f"  {self.label}", _written(self.value, self.unit), f"≤ {_written(self.goal, self.unit)}", met


def _written(value: float, unit: Unit) -> str:
    return f"× {value:.1f}" if unit == "times" else with_unit(value, unit)


Scene = Callable[[], tuple[str, list[Line]]]


def latency() -> tuple[str, list[Line]]:
    program = receiver()
    if program is None:
        return "Latency: there is no C compiler for the reference", []
    alone = run_in_namespace("benchmarks.judge_latency", program, "0")
    lines = [
        Line("C, epoll and recv(): median", alone["c"]),
        Line("a Trio task that reads the socket and cancels one scope, nothing else: median", alone["ours"]),
        Line("the same, times C's", alone["ours"] / alone["c"], "times"),
    ]
    for size in LATENCY_SIZES:
        figures = run_in_namespace("benchmarks.judge_latency", program, str(size))
        among = f"one of {size:,} connections" if size > 1 else "one connection"
        lines += [
            Line(f"{among}: C, median", figures["c"]),
            Line(f"{among}: its body cancelled, median", figures["ours"]),
            Line(f"{among}: times C's median", figures["ours"] / figures["c"], "times", 6.0),
            Line(f"{among}: C, 99th percentile", figures["c99"]),
            Line(f"{among}: its body cancelled, 99th percentile", figures["ours99"]),
            Line(f"all {size:,}: the last body cancelled", figures["last"]),
        ]
    return "Route deleted elsewhere until a guard's body is cancelled, Policy.immediate()", lines


def scale() -> tuple[str, list[Line]]:
    figures = run_in_namespace("benchmarks.judge_scale")
    return f"{FLOWS:,} flows, {STREAMS:,} connections, and nothing happens to them", [
        Line("an unrelated route, added or deleted: reassessment, many in a row", figures["event in a row"], "s", 5e-6),
        Line("the same, one at a time and the loop asleep before it", figures["event"], "s", 5e-6),
        Line("with one connection: many in a row", figures["event in a row, one connection"]),
        Line("with one connection: one at a time", figures["event, one connection"]),
        Line("memory of a registered connection, beside its stream", figures["memory"], "B", 1024),
        Line("with a guard, not entered", figures["memory of a guard"], "B"),
        Line("registering a connection, CPU time", figures["register"]),
        Line("releasing it, CPU time", figures["release"]),
    ]


def crowd() -> tuple[str, list[Line]]:
    figures = run_in_namespace("benchmarks.judge_crowd")
    return f"The default route goes, {CROWD_SIZE:,} connections with it, default policy", [
        Line("longest stall of the loop: its own CPU time, less the collector's", figures["uncollected"], "s", 5e-3),
        Line("its own CPU time, full passes of the garbage collector with it", figures["own"], "s", 5e-3),
        Line("by the clock", figures["clock"]),
        Line("by the clock, while nothing happens", figures["idle"]),
        Line("CPU time for each connection, from the route's going to the end of its task", figures["each"]),
        Line("until all are suspect", figures["suspect"]),
        Line("from the first body that is cancelled to the last", figures["decided"]),
    ]


SCENES: dict[str, Scene] = {"latency": latency, "scale": scale, "crowd": crowd}


def run(name: str) -> tuple[str, list[Line]]:
    started = time.perf_counter()
    print(f"{name} ...", end=" ", flush=True, file=sys.stderr)
    section = SCENES[name]()
    print(f"{time.perf_counter() - started:.0f} s", file=sys.stderr)
    return section


def format_lines(sections: Sequence[tuple[str, list[Line]]]) -> str:
    """Lay the sections out as one table."""
    rows: list[tuple[str, str, str, str]] = []
    for name, lines in sections:
        rows += [(name, "", "", ""), *(line.cells() for line in lines)]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    return "\n".join(
        f"{label:<{widths[0]}}  {value:>{widths[1]}}  {goal:>{widths[2]}}  {met}".rstrip()
        for label, value, goal, met in rows
    )


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="make bench-judge", description="How fast and small judging is.")
    parser.add_argument("scenes", nargs="*", choices=[[], *SCENES], help="only these")
    chosen: list[str] = parser.parse_args(arguments).scenes or list(SCENES)
    before = os.getloadavg()[0]
    sections = [run(name) for name in chosen]
    print(machine())
    print(f"Load of the machine, a minute's mean: {before:.1f} before, {os.getloadavg()[0]:.1f} after")
    print(format_lines(sections))
    goals = [line for _, lines in sections for line in lines if line.goal is not None]
    missed = sum(line.cells()[3] == "MISSED" for line in goals)
    print(f"{len(goals) - missed} goals met, {missed} missed")


if __name__ == "__main__":
    main(sys.argv[1:])
