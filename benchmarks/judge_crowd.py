"""The default route goes, and 10 000 connections with it: a scene of bench-judge, in a namespace of its own.

    python -m benchmarks.judge_crowd

Real TCP connections, each with a task in a guard's body that waits in `receive_some()`, under the default policy: they
become suspect at once, are looked at half a second later, and are decided about after a second. How long the loop was
away from others meanwhile is what a task notes that wants to run every half millisecond (ticker.py).
"""

from __future__ import annotations

import json
import statistics
import time

import attrs
import trio
import trio.testing

import trio_routes
from benchmarks.judge_latency import hold
from benchmarks.judge_network import DEFAULT, Program, Stage, connect, stage
from benchmarks.judge_sizes import CROWD_SIZE
from benchmarks.ticker import Ticker

REPETITIONS = 3


@attrs.frozen
class Round:
    """One time that the route went; seconds.

    Attributes:
      suspect: From the system call until all are suspect.
      decided: From the first body that was cancelled to the last.
      clock: The longest stall, by the clock.
      own: By the thread's CPU time: without what other processes took.
      uncollected: That without the garbage collector's passes.
      each: CPU time of the loop's thread for one connection, from the system call until its task has ended.
      idle: By the clock, in as long a time in which nothing happened: what the machine does to any loop.
    """

    suspect: float
    decided: float
    clock: float
    own: float
    uncollected: float
    each: float
    idle: float


def main() -> None:
    with stage(DEFAULT) as network:
        deleter = network.deleter(DEFAULT)
        rounds = [attrs.asdict(trio.run(default_route_goes, network, deleter)) for _ in range(REPETITIONS)]
    print(json.dumps({name: statistics.median(each[name] for each in rounds) for name in rounds[0]}))


async def default_route_goes(network: Stage, deleter: Program) -> Round:
    ended: list[int] = []
    ticker = Ticker()
    async with trio_routes.open_pt() as pt, trio.open_nursery() as nursery:
        async with trio.open_nursery() as crowd:
            for number in range(CROWD_SIZE):
                crowd.start_soon(hold, pt, connect(number), ended)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(ticker.run)
            await trio.sleep(1.5)
            idle = ticker.longest
            ticker.reset()
            spent = time.thread_time()
            deleter.tell("delete")
            counters = pt._engine.registry.court.counters
            # Not by subscribing: a reader gives the loop a turn for each event, ten thousand of them.
            while counters.suspected < CROWD_SIZE:  # noqa: ASYNC110 -- it is no event that is waited for
                await trio.sleep(0.001)
            suspect = time.monotonic_ns()
        spent = time.thread_time() - spent
        await trio.sleep(0.01)  # the ticker notes a stall at its next tick
        sent = int(deleter.hear())
        result = Round(
            suspect=(suspect - sent) / 1e9,
            decided=(max(ended) - min(ended)) / 1e9,
            clock=ticker.longest,
            own=ticker.longest_own,
            uncollected=ticker.longest_uncollected,
            each=spent / CROWD_SIZE,
            idle=idle,
        )
        assert len(ended) == CROWD_SIZE
        deleter.tell("add")
        deleter.hear()
        network.hang_up()
        nursery.cancel_scope.cancel()
    return result


if __name__ == "__main__":
    main()
