"""From another process's system call that deletes a route to the guarded body being cancelled.

The reference is a C program (route_epoll.c) that receives the same notification with epoll and only takes the time.
Both watch in the same run; one TCP connection is guarded, under `Policy.immediate()`. `make bench-judge` has the same
with many.
"""

from collections.abc import Sequence

from benchmarks.epoll_receiver import receiver
from benchmarks.namespace import run_in_namespace
from benchmarks.table import Row

NAME = "Route deleted elsewhere until the guarded body is cancelled (median)"


def run() -> Sequence[Row]:
    program = receiver()
    if program is None:
        return []
    figures = run_in_namespace("benchmarks.judge_latency", program, "1")
    return [
        Row("C, epoll and recv()", figures["c"]),
        Row("guard block cancelled", figures["ours"]),
        Row("C, epoll and recv(): 99th percentile", figures["c99"]),
        Row("guard block cancelled: 99th percentile", figures["ours99"]),
    ]
