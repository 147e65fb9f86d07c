"""From another process's system call that deletes a route to the guarded body being cancelled.

The reference is a C program (route_epoll.c) that receives the same notification with epoll and only takes the time.
Both watch in the same run; a datagram socket is guarded, because that needs no peer; `Policy.immediate()`.
"""

import json
import shutil
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import trio

import trio_routes
from benchmarks.namespace import ip, run_in_namespace
from benchmarks.table import Row

NAME = "Route deleted elsewhere until the guarded body is cancelled (median)"
ROUNDS = 300
BUILD = Path(__file__).parent / "build"
PREFIX = "192.0.2.0"


def run() -> Sequence[Row]:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        print("no C compiler: bench_latency needs one for its reference", file=sys.stderr)
        return []
    BUILD.mkdir(exist_ok=True)
    receiver = BUILD / "route_epoll"
    subprocess.run([compiler, "-O2", "-Wall", "-o", str(receiver), str(BUILD.parent / "route_epoll.c")], check=True)
    figures = run_in_namespace(__name__, str(receiver))
    return [
        Row("C, epoll and recv()", figures["c"]),
        Row("guard block cancelled", figures["guard"]),
        Row("C, epoll and recv(): 99th percentile", figures["c99"]),
        Row("guard block cancelled: 99th percentile", figures["guard99"]),
    ]


def main(receiver: str) -> None:
    ip("link add bench0 type veth peer name bench1", "address add 10.0.0.1/24 dev bench0")
    ip("link set dev lo up", "link set dev bench0 up", "link set dev bench1 up")
    ip(f"route add {PREFIX}/24 dev bench0 proto static scope link")
    deleter = [sys.executable, "-m", "benchmarks.route_deleter", PREFIX, str(socket.if_nametoindex("bench0"))]
    with (
        subprocess.Popen([receiver], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as watching,
        subprocess.Popen(deleter, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as deleting,
    ):
        assert watching.stdin and watching.stdout and deleting.stdin and deleting.stdout
        for ready in (watching.stdout, deleting.stdout):
            assert ready.readline() == "ready\n"
        guard, sent = trio.run(measure, deleting.stdin, deleting.stdout)
        in_c = [int(watching.stdout.readline()) for _ in range(ROUNDS)]
        watching.stdin.close()
        deleting.stdin.close()
    c_latencies = [after - before for before, after in zip(sent, in_c, strict=True)]
    figures = {
        "c": statistics.median(c_latencies),
        "guard": statistics.median(guard),
        "c99": statistics.quantiles(c_latencies, n=100)[98],
        "guard99": statistics.quantiles(guard, n=100)[98],
    }
    print(json.dumps({name: nanoseconds / 1e9 for name, nanoseconds in figures.items()}))


async def measure(requests: IO[str], answers: IO[str]) -> tuple[list[int], list[int]]:
    latencies: list[int] = []
    sent: list[int] = []
    async with trio_routes.open_pt(policy=trio_routes.Policy.immediate()) as pt:
        for _ in range(ROUNDS):
            with trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
                await udp.connect(("192.0.2.7", 9))
                cancelled_at = 0
                # The request is out before the task waits: the deleter's pipe is not part of what is measured.
                try:
                    with pt.guard(udp):
                        requests.write("delete\n")
                        requests.flush()
                        try:
                            await trio.sleep(5)
                        finally:
                            cancelled_at = time.monotonic_ns()
                except trio_routes.RouteLostError:
                    pass
                else:
                    raise AssertionError("the route was deleted and nobody was cancelled")
            before = int(answers.readline())
            latencies.append(cancelled_at - before)
            sent.append(before)
            requests.write("add\n")
            requests.flush()
            answers.readline()
            await pt.wait_routable("192.0.2.7")
    return latencies, sent


if __name__ == "__main__":
    main(sys.argv[1])
