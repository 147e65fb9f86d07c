"""How fast the routing cache is, beside its peers: ``make bench-cache``, or ``make bench-cache ARGS=--quick``.

Each table is filled, measured and thrown away in a network namespace of its own (`cache_table.py`, `cache_storm.py`).
Peers come from Debian and PyPI, and are installed where they are missing (`peers/`).
"""

from __future__ import annotations

import argparse
import platform
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import attrs

from benchmarks.namespace import sections_in_namespace
from benchmarks.prefixes import Shape
from benchmarks.table import Section, format_table


@attrs.frozen
class Scene:
    """One run of a program in a namespace.

    Attributes:
      name: For the table.
      module: The program.
      arguments: Its command line.
      quick: Whether it is over in seconds.
    """

    name: str
    module: str
    arguments: tuple[str, ...]
    quick: bool = False


def table(name: str, shape: Shape, version: int, size: int) -> Scene:
    return Scene(name, "benchmarks.cache_table", (shape, str(version), str(size)), quick=size <= 10_000)


def storm(name: str, size: int) -> Scene:
    return Scene(name, "benchmarks.cache_storm", (str(size),), quick=size <= 10_000)


SCENES = (
    table("1 k IPv4 routes, /24", "uniform", 4, 1_000),
    table("100 k IPv4 routes, /24", "uniform", 4, 100_000),
    table("1 M IPv4 routes, /24", "uniform", 4, 1_000_000),
    table("100 k IPv6 routes, /64", "uniform", 6, 100_000),
    table("1 k IPv4 prefixes, mixed", "mixed", 4, 1_000),
    table("100 k IPv4 prefixes, mixed", "mixed", 4, 100_000),
    table("1 M IPv4 prefixes, mixed", "mixed", 4, 1_000_000),
    storm("Storm: 5 k routes added, then deleted", 5_000),
    storm("Storm: 100 k routes added, then deleted", 100_000),
)


def machine() -> str:
    """Say what was measured on: figures of two machines do not compare."""
    cpuinfo = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    models = [line.split(":", 1)[1].strip() for line in cpuinfo.splitlines() if line.startswith("model name")]
    cores = f"{models[0]}, {len(models)} cores" if models else platform.machine()
    return f"{cores}; {platform.system()} {platform.release()}; {platform.python_implementation()} {platform.python_version()}"


def measure(scene: Scene) -> list[Section]:
    started = time.perf_counter()
    print(f"{scene.name} ...", end=" ", flush=True, file=sys.stderr)
    sections = sections_in_namespace(scene.module, *scene.arguments)
    print(f"{time.perf_counter() - started:.1f} s", file=sys.stderr)
    return [(f"{scene.name}: {name}", rows) for name, rows in sections]


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="make bench-cache", description="How fast the routing cache is.")
    parser.add_argument("--quick", action="store_true", help="small tables only")
    parser.add_argument("words", nargs="*", help="only scenes whose name has one of these words")
    options = parser.parse_args(arguments)
    chosen = [scene for scene in SCENES if scene.quick or not options.quick]
    if options.words:
        chosen = [scene for scene in chosen if any(word.lower() in scene.name.lower() for word in options.words)]
    print(machine())
    print(format_table([section for scene in chosen for section in measure(scene)]))


if __name__ == "__main__":
    main(sys.argv[1:])
