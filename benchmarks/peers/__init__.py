"""Getting the peers of bench-cache: programs from Debian, libraries from PyPI, and two small programs built here.

A peer that cannot be had is no error: its row says why it is missing. Nothing is installed without saying so, and on a
machine without apt-get, or without the right to use it, only what is already there takes part.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

HERE = Path(__file__).parent
BUILD = HERE.parent / "build"
# Debian's Go libraries are sources under this path, for GOPATH builds without the network.
_GOPATH = "/usr/share/gocode"
_PACKAGES = {
    "ip": "iproute2",
    "cc": "gcc",
    "pkg-config": "pkg-config",
    "go": "golang-go",
    "/usr/include/libnl3/netlink/netlink.h": "libnl-3-dev",
    "/usr/include/libnl3/netlink/route/route.h": "libnl-route-3-dev",
    f"{_GOPATH}/src/github.com/vishvananda/netlink": "golang-github-vishvananda-netlink-dev",
}
TRIES = ("pytricia", "py-radix")


class MissingError(Exception):
    """A peer cannot take part; the text says why."""


def libnl() -> list[str]:
    """Return the command of the program that fills libnl's cache. Raises MissingError."""
    _want("cc", "/usr/include/libnl3/netlink/netlink.h", "/usr/include/libnl3/netlink/route/route.h")
    program = BUILD / "libnl_dump"
    source = HERE / "libnl_dump.c"
    libraries = ["-I/usr/include/libnl3", "-lnl-route-3", "-lnl-3"]
    _run([_compiler(), "-O2", "-Wall", "-o", program, source, *libraries])
    return [str(program)]


def go() -> list[str]:
    """Return the command of the program that lists routes by vishvananda/netlink. Raises MissingError."""
    _want("go", f"{_GOPATH}/src/github.com/vishvananda/netlink")
    program = BUILD / "netlink_dump"
    offline = {"GOPATH": _GOPATH, "GO111MODULE": "off", "GOFLAGS": "", "GOCACHE": str(BUILD / "go"), "CGO_ENABLED": "0"}
    _run(["go", "build", "-o", program, HERE / "netlink_dump.go"], offline)
    return [str(program)]


def tries() -> str:
    """Return a Python that has pytricia and py-radix, in a virtualenv of its own. Raises MissingError."""
    folder = BUILD / "peers"
    python = folder / "bin" / "python"
    if not python.exists():
        _run([sys.executable, "-m", "venv", "--clear", folder])
    imports = [str(python), "-c", "import pytricia, radix"]
    if subprocess.run(imports, stderr=subprocess.DEVNULL, check=False).returncode:
        _say(f"installing {' and '.join(TRIES)} from PyPI into {folder.relative_to(HERE.parent)}")
        # py-radix comes as source, and its C is older than what newer compilers let pass.
        _run([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *TRIES])
    return str(python)


def _compiler() -> str:
    return shutil.which("cc") or shutil.which("gcc") or "cc"


def _want(*things: str) -> None:
    missing = [thing for thing in things if not (Path(thing).exists() if thing[0] == "/" else shutil.which(thing))]
    if not missing:
        return
    packages = [_PACKAGES[thing] for thing in missing]
    if shutil.which("apt-get") is None or os.geteuid() != 0:
        raise MissingError(f"needs {' '.join(packages)} (Debian)")
    _say(f"installing {' '.join(packages)} by apt-get")
    quietly = {"DEBIAN_FRONTEND": "noninteractive"}
    if subprocess.run(["apt-cache", "show", packages[0]], capture_output=True, check=False).returncode:
        _run(["apt-get", "update", "-qq"], quietly)
    _run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages], quietly)


def _run(command: Sequence[str | Path], environment: Mapping[str, str] | None = None) -> None:
    """Run a command silently; what it printed is the reason if it fails."""
    BUILD.mkdir(exist_ok=True)
    words = list(map(str, command))
    done = subprocess.run(words, env={**os.environ, **(environment or {})}, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines() or ["no reason given"]
        raise MissingError(f"{Path(words[0]).name} {words[1]} failed: {lines[-1]}")


def _say(text: str) -> None:
    print(f"bench-cache: {text}", file=sys.stderr, flush=True)
