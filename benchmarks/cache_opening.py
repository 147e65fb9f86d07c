"""What opening a pt with a table does to a program that does nothing else: a program of bench-cache.

    python -m benchmarks.cache_opening COUNT

It takes its own measure first, says "ready", and opens pts once there is a line of input: then the table is to be
there. Prints sections: how long others of the loop had to wait while it loaded, and the memory that each of COUNT
routes takes.

In a process of its own, because what a bench did before is in its memory, and in the collector's passes.
"""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import tracemalloc
from pathlib import Path

import trio

import trio_routes
from benchmarks.namespace import print_sections, sections_of
from benchmarks.table import Row, Section
from benchmarks.ticker import Ticker


def start(count: int) -> subprocess.Popen[str]:
    """Start the program in this namespace, while there is no table yet."""
    command = [sys.executable, "-m", "benchmarks.cache_opening", str(count)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def finish(process: subprocess.Popen[str]) -> list[Section]:
    """Have it go on, now that there is the table; returns what it measured."""
    output, _ = process.communicate("go\n", timeout=300)
    assert process.returncode == 0
    return sections_of(output)


async def open_table(count: int, empty: int) -> list[Section]:
    ticker = Ticker()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ticker.run)
        await trio.sleep(0.01)
        ticker.reset()
        async with trio_routes.open_pt():
            await trio.sleep(0.01)
            stalls = ticker.rows()
            gc.collect()
            memory = [Row("growth of resident memory (RSS)", (resident() - empty) / count, "B")]
        tracemalloc.start()
        async with trio_routes.open_pt():
            memory.append(Row("allocated, by tracemalloc", tracemalloc.get_traced_memory()[0] / count, "B"))
        tracemalloc.stop()
        nursery.cancel_scope.cancel()
    return [("longest stall of the loop while it loads", stalls), ("memory, per route", memory)]


async def nothing() -> None:
    async with trio_routes.open_pt():
        pass


def resident() -> int:
    """Bytes of memory that this process has in use."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def main(count: int) -> None:
    trio.run(nothing)  # what every pt needs, imports and first calls, is no part of what a route costs
    gc.collect()
    empty = resident()
    print("ready", flush=True)
    sys.stdin.readline()
    print_sections(trio.run(open_table, count, empty))


if __name__ == "__main__":
    main(int(sys.argv[1]))
