"""The C program that the latency benchmarks compare with (route_epoll.c), compiled where there is a compiler."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

_BUILD = Path(__file__).parent / "build"


def receiver() -> str | None:
    """Compile it; None, and a word why, where there is no C compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        print("no C compiler: there is no reference to compare with", file=sys.stderr)
        return None
    _BUILD.mkdir(exist_ok=True)
    program = _BUILD / "route_epoll"
    subprocess.run([compiler, "-O2", "-Wall", "-o", str(program), str(_BUILD.parent / "route_epoll.c")], check=True)
    return str(program)
