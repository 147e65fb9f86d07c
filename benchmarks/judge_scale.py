"""What many registered connections cost while nothing happens to them: a scene of bench-judge, in a namespace of its own.

    python -m benchmarks.judge_scale

100 000 flows: what a route costs the reassessment that none of them uses, one at a time with a pause before each, and
many in a row; beside it the same with one connection. 10 000 real TCP connections: how fast they are registered and
released, and the memory that each takes beside its stream.
"""

from __future__ import annotations

import gc
import json
import statistics
import time
import tracemalloc
from collections.abc import Callable, Sequence
from ipaddress import IPv4Address

import attrs
import trio

import trio_routes
from benchmarks.cache_storm import sender, until_done, until_ready
from benchmarks.judge_network import CROWD, DEFAULT, OUR_ADDRESS, VICTIM, Program, connect, stage
from benchmarks.judge_sizes import FLOWS, STREAMS
from trio_routes.connections import Flow, Reassessor
from trio_routes.connections._registry import Registry
from trio_routes.routing import ChangeBatch

PAIRS = 100  # of an addition and a deletion, one at a time
IN_A_ROW = 10_000  # such pairs, as fast as another process can
_FIRST_PEER = IPv4Address("50.0.0.0")  # clear of all routes that come and go here


@attrs.define
class Stopwatch:
    """Stands before a pt's reassessment and takes the time of what is done for each event in the task that reads.

    Attributes:
      spent: Seconds per batch of route changes, in order; of neighbours, which the kernel gives up meanwhile, not.
      changes: How many changes there were in them.
    """

    _reassessor: Reassessor
    spent: list[float] = attrs.field(factory=list[float])
    changes: int = 0
    _counts: bool = False

    def touch(self, batch: ChangeBatch) -> None:
        """What the engine calls first."""
        before = time.perf_counter()
        self._reassessor.touch(batch)
        self._counts = bool(batch.routes)
        if self._counts:
            self.spent.append(time.perf_counter() - before)
            self.changes += len(batch.routes)

    def take_turn(self) -> None:
        """What the engine calls last."""
        before = time.perf_counter()
        self._reassessor.take_turn()
        if self._counts:
            self.spent[-1] += time.perf_counter() - before

    def reset(self) -> None:
        """Begin anew."""
        self.spent.clear()
        self.changes = 0


def main() -> None:
    with stage(DEFAULT, CROWD, VICTIM) as network:
        figures = trio.run(unrelated, network.deleter(VICTIM)) | trio.run(registering)
    print(json.dumps(figures))


async def unrelated(deleter: Program) -> dict[str, float]:
    """What an event costs that touches nobody."""
    async with trio_routes.open_pt() as pt:
        engine = pt._engine
        stopwatch = Stopwatch(engine._reassessor)
        vars(engine)["_reassessor"] = stopwatch
        registered = [register(engine.registry, 0)]
        await events_one_by_one(pt, deleter, stopwatch)  # once, so that whatever is made once is made
        single, single_in_a_row = await events_one_by_one(pt, deleter, stopwatch), await events_in_a_row(pt, stopwatch)
        registered += [register(engine.registry, number) for number in range(1, FLOWS)]
        gc.collect()
        many, many_in_a_row = await events_one_by_one(pt, deleter, stopwatch), await events_in_a_row(pt, stopwatch)
        judged = engine.registry.statistics().judged
        assert judged == FLOWS, f"{judged - FLOWS} were judged though nothing touched them"
        for connection in registered:
            engine.registry.release(connection)
    return {
        "event": statistics.median(many),
        "event in a row": many_in_a_row,
        "event, one connection": statistics.median(single),
        "event in a row, one connection": single_in_a_row,
    }


def register(registry: Registry, number: int) -> trio_routes.Connection:
    return registry.register(
        None, flow=Flow(peer=_FIRST_PEER + number, peer_port=443, local=IPv4Address(OUR_ADDRESS), local_port=40000)
    )


async def events_one_by_one(pt: trio_routes.Pt, deleter: Program, stopwatch: Stopwatch) -> list[float]:
    """Delete and add a route; the loop sleeps before each, as it does between the changes of a quiet machine."""
    stopwatch.reset()
    for number in range(2 * PAIRS):
        await trio.sleep(0.002)
        generation = pt.generation
        deleter.tell("add" if number % 2 else "delete")
        deleter.hear()
        await pt._engine.pulse.wait_beyond(generation)
    assert len(stopwatch.spent) == stopwatch.changes == 2 * PAIRS, (len(stopwatch.spent), stopwatch.changes)
    return list(stopwatch.spent)


async def events_in_a_row(pt: trio_routes.Pt, stopwatch: Stopwatch) -> float:
    """Have another process add and delete routes in turn; returns the mean seconds of a change."""
    stopwatch.reset()
    with sender("blink", IN_A_ROW) as process:
        await trio.to_thread.run_sync(until_ready, process)
        await trio.to_thread.run_sync(until_done, process)
    while stopwatch.changes < 2 * IN_A_ROW:
        await pt._engine.pulse.wait_beyond(pt.generation)
    return sum(stopwatch.spent) / stopwatch.changes


async def registering() -> dict[str, float]:
    """What it costs to register and release real connections, in time and in memory."""
    streams = [connect(number) for number in range(STREAMS)]
    async with trio_routes.open_pt() as pt:
        registry = pt._engine.registry
        times = [time_of(registry, streams) for _ in range(3)]
        memory = memory_of(lambda: [registry.register(stream) for stream in streams], registry.release)
        guards = memory_of(lambda: [pt.guard(stream) for stream in streams], _leave)
    for stream in streams:
        stream.socket.close()
    return {
        "register": statistics.median(register for register, _ in times),
        "release": statistics.median(release for _, release in times),
        "memory": memory,
        "memory of a guard": guards,
    }


def time_of(registry: Registry, streams: Sequence[trio.SocketStream]) -> tuple[float, float]:
    """The seconds of CPU time for each: what other processes take of the machine is not ours."""
    started = time.thread_time()
    connections = [registry.register(stream) for stream in streams]
    registered = time.thread_time()
    for connection in connections:
        registry.release(connection)
    return (registered - started) / len(streams), (time.thread_time() - registered) / len(streams)


def memory_of(make: Callable[[], list[object]], release: Callable[..., None]) -> float:
    """The bytes that Python has allocated for each of what is made, the list's own entry included."""
    gc.collect()
    tracemalloc.start()
    made = make()
    gc.collect()
    octets = tracemalloc.get_traced_memory()[0] / len(made)
    tracemalloc.stop()
    for one in made:
        release(one)
    return octets


def _leave(_: object) -> None:
    """A guard that nobody entered is given back by its finaliser."""


if __name__ == "__main__":
    main()
