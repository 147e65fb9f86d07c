"""Another process adds and deletes routes as fast as it can: a program of bench-cache, in a namespace of its own.

    python -m benchmarks.cache_storm SIZE

SIZE routes come, and go again; a pt with its usual receive buffer follows them.
"""

from __future__ import annotations

import subprocess
import sys
import time

import trio

import trio_routes
from benchmarks.namespace import bench_link, print_sections
from benchmarks.table import Row, Section
from benchmarks.ticker import Ticker
from trio_routes.netlink import AF_INET
from trio_routes.routing import Cache


def main(size: int) -> None:
    bench_link()
    with sender("storm", size) as process:
        until_ready(process)
        alone = until_done(process)
    print_sections(trio.run(follow, size, alone))


def sender(how: str, size: int) -> subprocess.Popen[str]:
    """Start a `route_sender`; `until_ready` waits for it, `until_done` lets it begin."""
    command = [sys.executable, "-m", "benchmarks.route_sender", how, str(size)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def until_ready(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"


def until_done(process: subprocess.Popen[str]) -> float:
    """Have a sender begin; returns the seconds that it took."""
    assert process.stdin is not None and process.stdout is not None
    before = time.perf_counter()
    process.stdin.write("go\n")
    process.stdin.flush()
    assert process.stdout.readline() == "done\n", "the sender failed"
    return time.perf_counter() - before


def known(cache: Cache) -> int:
    """How many IPv4 prefixes the cache holds; asked anew each time, because a resync swaps the tables."""
    return cache.state.tables[AF_INET].prefixes()


async def follow(size: int, alone: float) -> list[Section]:
    ticker = Ticker()
    async with trio_routes.open_pt() as pt, trio.open_nursery() as nursery:
        nursery.start_soon(ticker.run)
        with sender("storm", size) as process:
            await trio.to_thread.run_sync(until_ready, process)
            cache = pt._engine.cache
            at_first, before = known(cache), pt.statistics()
            ticker.reset()
            started, used = time.perf_counter(), time.process_time()
            sent = await trio.to_thread.run_sync(until_done, process)
            # All that was announced was read once the last route is gone again.
            while cache.resyncing or known(cache) != at_first:  # noqa: ASYNC110 -- it is no event that is waited for
                await trio.sleep(0.001)
            elapsed, used = time.perf_counter() - started, time.process_time() - used
            after = pt.statistics()
        await trio.sleep(0.05)
        nursery.cancel_scope.cancel()
    heard = max(after.datagrams - before.datagrams, 1)
    overflows = after.overruns - before.overruns
    per_message = [
        Row("the sender alone, nobody listening", alone / (2 * size)),
        Row("the sender while a pt follows", sent / (2 * size)),
        Row("until the pt had applied everything", elapsed / (2 * size)),
        Row("CPU time of the pt's process, all threads, for each that arrived", used / heard),
    ]
    counts = [
        Row("messages a second applied", 2 * size / elapsed, "times"),
        Row("messages that did not arrive", max(2 * size - heard, 0), "times"),
        Row("overflows of the receive buffer", overflows, "times"),
        Row("receive buffer granted", after.receive_buffer, "B"),
    ]
    return [("per message", per_message), ("of the pt", counts), ("longest stall of the loop", ticker.rows())]


if __name__ == "__main__":
    main(int(sys.argv[1]))
