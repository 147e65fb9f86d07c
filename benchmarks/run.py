"""Run the benchmarks and print one table: ``make bench``, or ``make bench ARGS="decode dump"`` for some of them.

A benchmark is a file ``bench_*.py`` beside this one with ``NAME``, a line for the table, and ``def run() -> Sequence[Row]``.
"""

import importlib
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, cast

from benchmarks.table import Row, format_table


class Benchmark(Protocol):
    """What a file ``bench_*.py`` offers."""

    NAME: str

    def run(self) -> Sequence[Row]:
        """Measure, within some ten seconds, and return the reference first."""
        ...


def discover(folder: Path = Path(__file__).parent) -> list[str]:
    """Return the short names (``decode`` of ``bench_decode.py``), in order."""
    return sorted(path.stem.removeprefix("bench_") for path in folder.glob("bench_*.py"))


def main(wanted: Sequence[str]) -> int:
    known = discover()
    unknown = sorted(set(wanted) - set(known))
    if unknown or not known:
        print(f"No benchmark {' '.join(unknown) or 'at all'}; there are: {' '.join(known) or 'none'}", file=sys.stderr)
        return 1
    results: list[tuple[str, Sequence[Row]]] = []
    for name in wanted or known:
        started = time.perf_counter()
        print(f"{name} ...", end=" ", flush=True, file=sys.stderr)
        # There is no static type for "a module with these names".
        benchmark = cast(Benchmark, importlib.import_module(f"benchmarks.bench_{name}"))
        results.append((benchmark.NAME, benchmark.run()))
        print(f"{time.perf_counter() - started:.1f} s", file=sys.stderr)
    print(format_table(results))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
