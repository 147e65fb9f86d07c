"""Where a fuzz run happens: a namespace of three links whose far ends are in another, and hands that work fast there.

One `ip -batch` process per family stays alive for a run, so a change costs a write and a read (some 70 µs), is made by
the tool that people use, and reads in a report as one would type it. A step is a list of lines:

    -6 route add ...             an ip command, -4 where nothing is said
    far link set p0 down         the same at the far ends: p0's going down is d0's carrier's
    plug d0                      the link d0, under the same ifindex as ever
    sysctl net.x.y=1             a sysctl of the namespace
    audit, lose                  the follower begins to compare, or believes that it lost something; from there to the
                                 end of the step it works between any two changes, so that dumps are contested
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from types import TracebackType
from typing import Final, Self

from trio_routes.testing._namespaces import Namespace

LINKS: Final = ("d0", "d1", "d2")
_FIRST_IFINDEX = 11
# No duplicate address detection and no automatic addresses: what comes by itself comes late.
_SYSCTLS = (
    "net.ipv6.conf.default.accept_dad=0",
    "net.ipv6.conf.default.dad_transmits=0",
    "net.ipv6.conf.default.addr_gen_mode=1",
    "net.ipv6.conf.default.router_solicitations=0",
    "net.ipv6.conf.default.accept_ra=0",
)
_MARK = "!\n"


class _Batch:
    """A live `ip -batch` process. What it refuses is an answer like any other."""

    def __init__(self, namespace: Namespace, family: int) -> None:
        self._namespace = namespace
        self._family = family
        self._start()

    def _start(self) -> None:
        with self._namespace.entered():
            self._process = subprocess.Popen(
                ["ip", f"-{self._family}", "-force", "-batch", "-"],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                bufsize=0,
            )
        self._line = 0

    def do(self, *commands: str) -> str:
        """Run commands, and return in words what was refused."""
        assert self._process.stdin is not None and self._process.stderr is not None
        # An object that does not exist is answered at once, on the unbuffered standard error.
        self._process.stdin.write(("".join(f"{command}\n" for command in commands) + _MARK).encode())
        self._line += len(commands) + 1
        end = f'Object "!" is unknown, try "ip help".\nCommand failed -:{self._line}\n'.encode()
        heard = b""
        while not heard.endswith(end):
            more = os.read(self._process.stderr.fileno(), 65536)
            if not more:  # of some errors it dies, such as of a next hop on a link that is not there
                if any(words in heard for words in (b"Usage:", b"garbage", b"is unknown, try")):
                    raise ValueError(f"ip does not understand one of {commands}: {heard.decode()}")
                self.close()
                self._start()
                return heard.decode()
            heard += more
        refused = heard[: -len(end)].decode().splitlines()
        return " ".join(line for line in refused if not line.startswith("Command failed"))

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stderr):
            if pipe is not None:
                pipe.close()


class Ground:
    """Two namespaces and the links between them. A context manager."""

    def __init__(self) -> None:
        self._stack = contextlib.ExitStack()
        self.here, self._there = Namespace.new(), Namespace.new()
        self._stack.callback(self.here.close)
        self._stack.callback(self._there.close)
        self._ip = {family: _Batch(self.here, family) for family in (4, 6)}
        self._far = _Batch(self._there, 4)
        for batch in (*self._ip.values(), self._far):
            self._stack.callback(batch.close)
        for setting in _SYSCTLS:
            self._sysctl(setting)
        for link in LINKS:
            self._plug(link)
        for at in range(len(LINKS)):
            self.do(f"addr add 10.0.{at}.10/24 dev d{at}")
            self.do(f"-6 addr add 2001:db8:{at}::10/64 dev d{at} nodad")
        self.do("link set lo up")

    def do(self, line: str) -> str:
        """Do what one line says; returns in words what was refused."""
        verb, _, rest = line.partition(" ")
        match verb:
            case "sysctl":
                return self._sysctl(rest)
            case "plug":
                return self._plug(rest)
            case "far":
                return self._far.do(rest) + self.await_carrier()
            case "-4" | "-6":
                return self._ip[int(verb[1])].do(rest)
            case _:
                return self._ip[4].do(line)

    def await_carrier(self) -> str:
        """Have the kernel tell of carriers now, not up to a second later: who asks for one link makes it look."""
        for link in LINKS:
            self._ip[4].do(f"link show dev {link}", f"link show dev x{link[1]}")
        return ""

    def _plug(self, link: str) -> str:
        at = int(link[1])
        there = f"/proc/{os.getpid()}/fd/{self._there.fileno()}"
        refused = self._ip[4].do(
            f"link add name {link} index {_FIRST_IFINDEX + at} type veth peer name p{at} netns {there}"
        )
        self._far.do(f"link set p{at} up")
        return refused or self._ip[4].do(f"link set {link} up") + self.await_carrier()

    def _sysctl(self, setting: str) -> str:
        name, _, value = setting.partition("=")
        # A link's name has no dots here.
        path = "/proc/sys/" + name.replace(".", "/")
        try:
            with self.here.entered(), open(path, "w") as file:
                file.write(value)
        except OSError as error:
            return str(error)
        return ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()
