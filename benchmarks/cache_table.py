"""One routing table, from the kernel to lookups: a program of bench-cache, run in a namespace of its own.

    python -m benchmarks.cache_table SHAPE VERSION SIZE

prints sections: dumps (ours, the kernel's floor and the peers'), what opening a pt costs others of its loop and in
memory, lookups, inserts and deletes, a resync.
"""

from __future__ import annotations

import resource
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from ipaddress import IPv4Address
from typing import TypeAlias, TypeVar, cast

import trio

import trio_routes
from benchmarks import cache_opening, peers
from benchmarks.cache_storm import sender, until_done, until_ready
from benchmarks.namespace import bench_link, print_sections
from benchmarks.prefixes import Shape, addresses, prefixes
from benchmarks.route_sender import DEVICE, adding, deleting, routes
from benchmarks.table import Row, Section
from benchmarks.ticker import Ticker
from trio_routes._intake import Intake
from trio_routes.netlink import (
    AF_INET,
    AF_INET6,
    NLM_F_CREATE,
    NLM_F_EXCL,
    RT_TABLE_MAIN,
    MessageType,
    dump_routes,
    get_route,
)
from trio_routes.routing import Cache

_T = TypeVar("_T")
# What was measured to the rows of all libraries.
Libraries: TypeAlias = dict[str, list[Row]]
# Where a peer would take minutes, and this bench with it (libnl: over 170 µs a route and rising; pyroute2: 90, and 4 GB).
TOO_SLOW = {"libnl": 300_000, "pyroute2": 300_000}
LOOKED_UP = 10_000
# Addresses looked up in a row by each of several that are compared: half a millisecond.
PIECE = 1_000
CHANGED = 10_000
_NAN = float("nan")
# linux/netlink.h; the socket module has neither.
_SOL_NETLINK, _NETLINK_GET_STRICT_CHK = 270, 12


def main(shape: Shape, version: int, size: int) -> None:
    family = AF_INET if version == 4 else AF_INET6
    bench_link()
    opening = cache_opening.start(sum(1 for _ in routes(size, shape, family, 1)))
    fill = [sys.executable, "-m", "benchmarks.route_sender", "fill", shape, str(version), str(size)]
    subprocess.run(fill, check=True)
    sections: list[Section] = [
        ("dump, per route", list(dumps(family, shape, size))),
        ("dump, CPU time per route", list(dumps_on_one_core(family, shape, size))),
        ("longest read of a dump", [Row("the kernel's longest single answer to a read", bare_dump(family)[1])]),
        *cache_opening.finish(opening),
    ]
    sections += trio.run(open_table, family, shape, size)
    print_sections(sections)


def least(function: Callable[[], float], rounds: int) -> float:
    return min(function() for _ in range(rounds))


# ---- dumps -------------------------------------------------------------------------------------------


def dumps(family: int, shape: Shape, size: int) -> Iterator[Row]:
    """Yield what each way of dumping takes, per route."""
    rounds = 5 if size < 300_000 else 3
    last, _ = list(prefixes(size, shape, 4 if family == AF_INET else 6))[-1]
    count = sum(1 for _ in routes(size, shape, family, 1))
    yield Row("kernel's own dump, bytes thrown away", least(lambda: bare_dump(family)[0], rounds) / count)
    yield Row("ip route show > /dev/null", least(lambda: ip_route_show(family), rounds) / count)
    yield Row("open_pt() and lookup()", least(lambda: trio.run(until_lookup, family, last), rounds) / count)
    option = "4" if family == AF_INET else "6"
    for name, command in (
        ("libnl", peers.libnl),
        ("vishvananda/netlink", peers.go),
        ("pyroute2", lambda: [sys.executable, str(peers.HERE / "pyroute2_dump.py")]),
    ):
        if size > TOO_SLOW.get(name, size):
            yield Row(f"{name}: not run, it takes minutes", _NAN)
            continue
        try:
            words = [*command(), option]
        except peers.MissingError as missing:
            yield Row(f"{name}: {missing}", _NAN)
            continue
        one_round = 1 if name == "pyroute2" else rounds
        yield Row(name, least(lambda words=words: peer_dump(words), one_round) / count)  # type: ignore[misc]


def dumps_on_one_core(family: int, shape: Shape, size: int) -> Iterator[Row]:
    """Yield the CPU time of a dump, the kernel's within it included: what it takes where there is but one core."""
    last, _ = list(prefixes(size, shape, 4 if family == AF_INET else 6))[-1]
    count = sum(1 for _ in routes(size, shape, family, 1))
    yield Row("kernel's own dump, bytes thrown away", cpu_time(lambda: bare_dump(family)) / count)
    yield Row("ip route show > /dev/null", cpu_time(lambda: ip_route_show(family), resource.RUSAGE_CHILDREN) / count)
    yield Row("open_pt() and lookup()", cpu_time(lambda: trio.run(until_lookup, family, last)) / count)


def cpu_time(function: Callable[[], object], whose: int = resource.RUSAGE_SELF) -> float:
    """Seconds of all threads, or of child processes; the least of three calls."""

    def spent() -> float:
        used = resource.getrusage(whose)
        return used.ru_utime + used.ru_stime

    def once() -> float:
        before = spent()
        function()
        return spent() - before

    return least(once, 3)


def bare_dump(family: int) -> tuple[float, float]:
    """Have the kernel dump one family's routes and throw the bytes away: no reader can be faster.

    Returns:
      The seconds of the whole, and of the longest single read, for which the thread that reads has to stand still.
    """
    with blocking_netlink() as sock:
        buffer = bytearray(65536)
        before = time.perf_counter()
        sock.send(dump_routes(family).message(1))
        slowest, read = 0.0, before
        while True:
            length = sock.recv_into(buffer)
            last, read = read, time.perf_counter()
            slowest = max(slowest, read - last)
            # A DONE is the last message of its datagram, and 20 bytes long.
            if int.from_bytes(buffer[length - 16 : length - 14], sys.byteorder) == MessageType.DONE:
                return read - before, slowest


def blocking_netlink() -> socket.socket:
    """A plain netlink socket that dumps as strictly as a pt's."""
    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
    sock.setsockopt(_SOL_NETLINK, _NETLINK_GET_STRICT_CHK, 1)
    return sock


def ip_route_show(family: int) -> float:
    which = "-4" if family == AF_INET else "-6"
    before = time.perf_counter()
    subprocess.run(["ip", which, "route", "show", "table", "all"], stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - before


async def until_lookup(family: int, last: int) -> float:
    destination = socket.inet_ntop(family, last.to_bytes(4 if family == AF_INET else 16, "big"))
    before = time.perf_counter()
    async with trio_routes.open_pt() as pt:
        answer = pt.routes.lookup(destination)
        elapsed = time.perf_counter() - before
        assert answer.gateways, "the last route is not there"
    return elapsed


def peer_dump(command: Sequence[str]) -> float:
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True, timeout=300)
    return float(done.stdout.split()[0])


# ---- an open pt ----------------------------------------------------------------------------------------


async def open_table(family: int, shape: Shape, size: int) -> list[Section]:
    """Measure with the table in the cache."""
    ticker = Ticker()
    sections: list[Section] = []
    async with trio.open_nursery() as nursery, trio_routes.open_pt() as pt:
        nursery.start_soon(ticker.run)
        cache = pt._engine.cache
        libraries = tries(shape, size) if shape == "mixed" and family == AF_INET else {}
        if family == AF_INET:
            sections += lookups(pt, cache, shape, size, libraries)
        sections += changes(cache, family, libraries)
        sections += await resync(pt, ticker)
        nursery.cancel_scope.cancel()
    return sections


async def resync(pt: trio_routes.Pt, ticker: Ticker) -> list[Section]:
    """Overflow the receive buffer, and measure from then on until every table was read and compared anew."""
    with pt.subscribe(trio_routes.Resynced) as events, sender("blink", 100_000) as process:
        until_ready(process)
        until_done(process)  # the loop stands still meanwhile, on purpose: that is how notifications are lost
        before = time.perf_counter()
        await trio.lowlevel.checkpoint()
        ticker.reset()
        await events.receive()
        elapsed = time.perf_counter() - before
        await trio.sleep(0.05)
    return [("resync after an overflow", [Row("whole", elapsed)]), ("longest stall of the loop in it", ticker.rows())]


# ---- lookups -------------------------------------------------------------------------------------------


def each(function: Callable[[_T], object], arguments: Sequence[_T], rounds: int = 5) -> float:
    """Seconds of one call: the least of the rounds, less what the loop itself takes."""
    best = empty = float("inf")
    for _ in range(rounds):
        before = time.perf_counter()
        for argument in arguments:
            function(argument)
        between = time.perf_counter()
        for _argument in arguments:
            pass
        best, empty = min(best, between - before), min(empty, time.perf_counter() - between)
    return (best - empty) / len(arguments)


def lookups(pt: trio_routes.Pt, cache: Cache, shape: Shape, size: int, libraries: Libraries) -> list[Section]:
    """Measure lookups that hit the table and such of random addresses, IPv4."""
    plain = plain_lookup(cache)
    inner = cache.state.tables[AF_INET].finder(RT_TABLE_MAIN)
    sections: list[Section] = []
    for name, hits in (("hit", True), ("random", False)):
        asked = addresses(size, shape, LOOKED_UP, hits=hits)
        by_plain, by_inner = in_turns((plain, inner), asked)
        rows = [
            Row("a plain dict per prefix length", by_plain),
            Row("ours, integer in, route out, one table", by_inner),
            Row("ours, public, by the rules", each(pt.routes.lookup, list(map(IPv4Address, asked)))),
            Row("the kernel, asked one by one", kernel_lookup(asked)),
            *libraries.get(f"lookup, {name}", ()),
        ]
        sections.append((f"lookup, {name}", rows))
    return sections


def in_turns(functions: Sequence[Callable[[int], object]], arguments: Sequence[int], rounds: int = 20) -> list[float]:
    """Seconds of one call of each function: the sum over pieces of the arguments of the least that each piece took.

    The functions take turns piece by piece: what else the machine does hits them alike, and each comes to a piece
    again only after all others, with as little of its table in the processor's caches as it had the first time.
    """
    pieces = [arguments[at : at + PIECE] for at in range(0, len(arguments), PIECE)]
    least = [[float("inf")] * len(pieces) for _ in functions]
    for _ in range(rounds):
        for at, piece in enumerate(pieces):
            for function, times in zip(functions, least, strict=True):
                before = time.perf_counter()
                for argument in piece:
                    function(argument)
                between = time.perf_counter()
                for _argument in piece:
                    pass
                times[at] = min(times[at], 2 * between - before - time.perf_counter())
    return [sum(times) / len(arguments) for times in least]


def plain_lookup(cache: Cache) -> Callable[[int], object]:
    """Build the simplest thing that finds the longest prefix: the speed to hold on to."""
    by_length: dict[int, dict[int, object]] = {}
    for (table, length, destination), node in cache.state.tables[AF_INET].items():
        if table == RT_TABLE_MAIN:
            by_length.setdefault(length, {})[destination] = node
    search = [
        (0xFFFFFFFF << (32 - length) & 0xFFFFFFFF, by_length[length]) for length in sorted(by_length, reverse=True)
    ]

    def lookup(destination: int) -> object:
        for mask, nodes in search:
            node = nodes.get(destination & mask)
            if node is not None:
                return node
        return None

    return lookup


def kernel_lookup(asked: Sequence[int]) -> float:
    with blocking_netlink() as sock:
        messages = [get_route(IPv4Address(destination)).message(1) for destination in asked]

        def ask(message: bytes) -> None:
            sock.send(message)
            sock.recv(4096)

        return each(ask, messages, rounds=2)


# ---- inserts and deletes -----------------------------------------------------------------------------------


def changes(cache: Cache, family: int, libraries: Libraries) -> list[Section]:
    """Measure the applying of notifications, from bytes to a batch of changes: routes that come, and go again."""
    ifindex = socket.if_nametoindex(DEVICE)
    width, first = (32, 0xC0000000) if family == AF_INET else (128, 0x2002 << 112)
    bodies = {body for _, body in routes(64, "uniform", family, ifindex)}
    some = [
        (first + (number << (width - 24 if width == 32 else 64)), body) for number, body in enumerate([*bodies] * 640)
    ]
    some = some[:CHANGED]
    intake = Intake(cache)
    add, delete = adding(NLM_F_CREATE | NLM_F_EXCL), deleting(0)
    sections: list[Section] = []
    for name, make in (("insert", add), ("delete", delete)):
        messages = [make.of(*route) for route in some]
        before = time.perf_counter()
        for at, message in enumerate(messages):
            intake.apply(message)
            if at % 256 == 255:
                cache.take_changes()
        cache.take_changes()
        ours = Row("ours, from a notification's bytes", (time.perf_counter() - before) / len(messages))
        sections.append((name, [ours, *libraries.get(name, ())]))
    return sections


def tries(shape: Shape, size: int) -> Libraries:
    """Measure libraries that hold prefixes and nothing else, in a Python that has them."""
    what = ("insert", "lookup, hit", "lookup, random", "delete")
    try:
        python = peers.tries()
    except peers.MissingError as missing:
        return {did: [Row(f"{' and '.join(peers.TRIES)}: {missing}", _NAN)] for did in what}
    command = [python, "-m", "benchmarks.peers.tries", str(size), shape]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True, timeout=300)
    rows: Libraries = {did: [] for did in what}
    for line in done.stdout.splitlines():
        name, *figures = line.split()
        for did, figure in zip(what, figures, strict=True):
            rows[did].append(Row(name, float(figure)))
    return rows


if __name__ == "__main__":
    main(cast(Shape, sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
