"""Running a measurement in a network namespace of its own, as root or as anybody who may make a user namespace."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable


def run_in_namespace(module: str, *arguments: str, timeout: float = 300) -> dict[str, float]:
    """Run ``python -m module`` in a fresh namespace with ``lo`` up and return the JSON object of numbers that it printed last."""
    unshare = ["unshare", "-n"] if os.geteuid() == 0 else ["unshare", "-Urn"]
    command = [*unshare, sys.executable, "-m", module, *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=timeout, text=True)
    figures: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return figures


def ip(*lines: str) -> None:
    """Run a few commands, one a line, in one process."""
    ip_batch(lines)


def ip_batch(lines: Iterable[str], *options: str) -> None:
    """Run many ip(8) commands in one process."""
    with tempfile.NamedTemporaryFile("w", suffix=".ip") as file:
        file.write("\n".join(lines) + "\n")
        file.flush()
        subprocess.run(["ip", *options, "-batch", file.name], check=True)
