"""From nothing to the first ``lookup()``: how long a pt takes to read a big routing table.

Against ``ip route show table main``, which reads and prints the same, to /dev/null. Every figure is of one whole dump,
the least of several; the pt's includes opening it, all other tables and its tasks.
"""

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from ipaddress import IPv4Address

import trio

import trio_routes
from benchmarks.namespace import ip, ip_batch, run_in_namespace
from benchmarks.table import Row

NAME = "IPv4 routes dumped until lookup() answers"
SIZES = {"100 k": 100_000, "1 M": 1_000_000}
GATEWAYS = 16


def run() -> Sequence[Row]:
    rows: list[Row] = []
    for name, size in SIZES.items():
        figures = run_in_namespace(__name__, str(size))
        rows.append(Row(f"{name}: ip route show > /dev/null, per route", figures["ip"] / size, reference=True))
        rows.append(Row(f"{name}: open_pt() and lookup(), per route", figures["pt"] / size))
    return rows


def routes(size: int) -> Iterator[str]:
    first = int(IPv4Address("16.0.0.0"))
    for number in range(size):
        yield f"route add {IPv4Address(first + number * 256)}/24 via 10.0.0.{2 + number % GATEWAYS} dev bench0"


async def until_lookup(last: str) -> float:
    started = time.perf_counter()
    async with trio_routes.open_pt() as pt:
        answer = pt.routes.lookup(last)
        elapsed = time.perf_counter() - started
        assert answer.gateways, "the last route is not there"
    return elapsed


def main(size: int) -> None:
    ip("link add bench0 type veth peer name bench1", "address add 10.0.0.1/24 dev bench0")
    ip("link set dev lo up", "link set dev bench0 up", "link set dev bench1 up")
    ip_batch(routes(size))
    last = str(IPv4Address(int(IPv4Address("16.0.0.0")) + (size - 1) * 256 + 7))
    figures: dict[str, float] = {"ip": float("inf"), "pt": float("inf")}
    for _ in range(5 if size <= 100_000 else 3):
        started = time.perf_counter()
        subprocess.run(["ip", "route", "show", "table", "main"], stdout=subprocess.DEVNULL, check=True)
        figures["ip"] = min(figures["ip"], time.perf_counter() - started)
        figures["pt"] = min(figures["pt"], trio.run(until_lookup, last))
    print(json.dumps(figures))


if __name__ == "__main__":
    main(int(sys.argv[1]))
