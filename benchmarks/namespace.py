"""Running a measurement in a network namespace of its own, as root or as anybody who may make a user namespace."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence

from benchmarks.table import Row, Section


def run_in_namespace(module: str, *arguments: str, timeout: float = 300) -> dict[str, float]:
    """Run ``python -m module`` in a fresh namespace and return the JSON object of numbers that it printed last."""
    figures: dict[str, float] = json.loads(_last_line(module, arguments, timeout))
    return figures


def sections_in_namespace(module: str, *arguments: str, timeout: float = 600) -> list[Section]:
    """Do the same for a program that ends with `print_sections`."""
    return sections_of(_last_line(module, arguments, timeout))


def sections_of(output: str) -> list[Section]:
    """Read what `print_sections` printed last."""
    return [(name, [Row(*row) for row in rows]) for name, rows in json.loads(output.strip().splitlines()[-1])]


def print_sections(sections: Iterable[Section]) -> None:
    """Hand sections over to `sections_of`."""
    print(json.dumps([(name, [(row.label, row.value, row.unit) for row in rows]) for name, rows in sections]))


def _last_line(module: str, arguments: Sequence[str], timeout: float) -> str:
    unshare = ["unshare", "-n"] if os.geteuid() == 0 else ["unshare", "-Urn"]
    command = [*unshare, sys.executable, "-m", module, *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=timeout, text=True)
    return done.stdout.strip().splitlines()[-1]


def bench_link() -> None:
    """Make the link by which the benchmarks' routes lead, `bench0`, with room for many gateways in both families."""
    ip("link add bench0 type veth peer name bench1", "address add 10.0.0.1/16 dev bench0")
    ip("address add fd00::1/64 dev bench0 nodad")
    ip("link set dev lo up", "link set dev bench0 up", "link set dev bench1 up")


def ip(*lines: str) -> None:
    """Run a few commands, one a line, in one process."""
    ip_batch(lines)


def ip_batch(lines: Iterable[str], *options: str) -> None:
    """Run many ip(8) commands in one process."""
    with tempfile.NamedTemporaryFile("w", suffix=".ip") as file:
        file.write("\n".join(lines) + "\n")
        file.flush()
        subprocess.run(["ip", *options, "-batch", file.name], check=True)
