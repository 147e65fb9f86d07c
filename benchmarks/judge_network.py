"""The network of bench-judge, two namespaces, and many real TCP connections through it.

ours: bench0 10.0.0.1/16 ──── bench1 10.0.0.2/16: the far side (judge_peer.py)

198.51.100.0/24 via 10.0.0.2   the crowd's peers; or a default route, where that is to go
192.0.2.0/24    via 10.0.0.2   the victim's, which is deleted while the crowd lives on
"""

from __future__ import annotations

import resource
import socket
import subprocess
import sys
from collections.abc import Generator
from contextlib import ExitStack, contextmanager

import trio

from benchmarks.namespace import ip

OUR_ADDRESS, PEER_ADDRESS, LINK, PEER_LINK, PORT = "10.0.0.1", "10.0.0.2", "bench0", "bench1", 7
CROWD, VICTIM, DEFAULT = "198.51.100.0/24", "192.0.2.0/24", "0.0.0.0/0"
CROWD_PEER, VICTIM_PEER = "198.51.100.1", "192.0.2.7"


class Program:
    """A helper process that answers each line with a line."""

    def __init__(self, *command: str) -> None:
        self.process: subprocess.Popen[str] = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def tell(self, line: str) -> None:
        """Hand it a line; returns before it acts."""
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def hear(self) -> str:
        """Wait for its next line."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.process.args!r} ended with status {self.process.wait()}")
        return line.strip()

    def expect(self, line: str) -> None:
        """Wait for this very line."""
        heard = self.hear()
        assert heard == line, f"{heard!r} instead of {line!r}"

    def end(self) -> None:
        """Close its standard input, at which it ends, and wait for that."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait()


class Stage:
    """The network, and the programs that play in it."""

    def __init__(self) -> None:
        self._programs = ExitStack()
        # execve() keeps the number: what unshare(1) becomes is in a namespace of its own.
        self.peer: Program = self.program("unshare", "-n", sys.executable, "-m", "benchmarks.judge_peer")
        self.peer.expect("here")

    def program(self, *command: str) -> Program:
        """Start a helper that ends with the stage; it has printed its first line when this returns."""
        program = Program(*command)
        self._programs.callback(program.end)
        return program

    def python(self, module: str, *arguments: str) -> Program:
        """Start one of our own."""
        return self.program(sys.executable, "-m", module, *arguments)

    def deleter(self, route: str) -> Program:
        """A process that deletes and restores one of the routes: "delete" and "add"."""
        deleter = self.python("benchmarks.route_deleter", route, LINK, PEER_ADDRESS)
        deleter.expect("ready")
        return deleter

    def hang_up(self) -> None:
        """Have the far side forget all connections, those that it has not heard the end of, too."""
        self.peer.tell("hang up")
        self.peer.expect("closed")

    def close(self) -> None:
        """End them all."""
        self._programs.close()


@contextmanager
def stage(*routes: str) -> Generator[Stage]:
    """Set the network up, with these routes by way of the far side."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    ip(f"link add {LINK} type veth peer name {PEER_LINK}", f"address add {OUR_ADDRESS}/16 dev {LINK}")
    # Else the routes of the links' IPv6 addresses come in a second later, among what is measured.
    ip(*(f"link set dev {link} addrgenmode none" for link in (LINK, PEER_LINK)))
    made = Stage()
    try:
        ip(f"link set {PEER_LINK} netns {made.peer.process.pid}", "link set dev lo up", f"link set dev {LINK} up")
        made.peer.tell("go")
        made.peer.expect("ready")
        ip(*(f"route add {route} via {PEER_ADDRESS} proto static" for route in routes))
        yield made
    finally:
        made.close()


def connect(number: int) -> trio.SocketStream:
    """Make the crowd's connection of that number. Blocks for the 50 µs that it takes: nothing is measured meanwhile."""
    return connect_to(f"198.51.100.{1 + number % 250}")


def connect_to(peer: str) -> trio.SocketStream:
    """Make one connection."""
    sock = socket.socket()
    try:
        sock.connect((peer, PORT))
    except BaseException:
        sock.close()
        raise
    return trio.SocketStream(trio.socket.from_stdlib_socket(sock))
