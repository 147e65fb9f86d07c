"""Processes in a namespace that end with their owner, their own children included, whatever happens.

Two prefixes from util-linux do it. ``setpriv --pdeathsig KILL`` has the kernel kill the next program when the
thread that started it ends (PR_SET_PDEATHSIG, prctl(2)), which covers our own death by SIGKILL. That would leave
grandchildren in sessions of their own, and they would hold the namespace; so the program is also the first process
of a PID namespace (``unshare --pid --fork --kill-child``), which takes all of them along. Together 1.8 ms a start.
One gap stays: where we are killed by SIGKILL within the millisecond in which unshare(1) forks, its child survives.

"The thread that started it": Trio's idle workers end after 10 s, and their processes would go with them. So it is
started in the Trio thread, which costs that thread about 1 ms.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import trio

from ._namespaces import Namespace

_PREFIX = ("setpriv", "--pdeathsig", "KILL", "unshare", "--pid", "--fork", "--kill-child=KILL", "--")

# A killed process ends in a millisecond, but for one that the kernel itself holds (state D): then we go without it.
_STUCK_SECONDS = 5


class LabProcess:
    """A running program in a host.

    Attributes:
      argv: The program and its arguments.
      stdout: A ``trio.abc.ReceiveStream`` if it was started with ``stdout=subprocess.PIPE``, else None.
      stderr: Likewise.
    """

    def __init__(
        self, argv: Sequence[str], namespace: Namespace, stdin: int | None, stdout: int | None, stderr: int | None
    ) -> None:
        self.argv: tuple[str, ...] = tuple(argv)
        _require(self.argv)
        with namespace.entered():
            self._popen = subprocess.Popen(
                [*_PREFIX, *self.argv], stdin=stdin, stdout=stdout, stderr=stderr, bufsize=0, process_group=0
            )
        self._pidfd = os.pidfd_open(self._popen.pid)
        self.stdin: trio.lowlevel.FdStream | None
        self.stdout: trio.lowlevel.FdStream | None
        self.stderr: trio.lowlevel.FdStream | None
        self.stdin, self.stdout, self.stderr = (
            None if pipe is None else trio.lowlevel.FdStream(os.dup(pipe.fileno()))
            for pipe in (self._popen.stdin, self._popen.stdout, self._popen.stderr)
        )
        for pipe in (self._popen.stdin, self._popen.stdout, self._popen.stderr):
            if pipe is not None:
                pipe.close()

    def __repr__(self) -> str:
        return f"<LabProcess {' '.join(self.argv)}>"

    @property
    def returncode(self) -> int | None:
        """The exit status, negative for a signal, or None while the program runs."""
        return self._popen.poll()

    async def wait(self) -> int:
        """Wait for the program's end and return its exit status."""
        while self._popen.poll() is None:
            await trio.lowlevel.wait_readable(self._pidfd)
        await trio.lowlevel.checkpoint()
        return self._popen.returncode

    def terminate(self) -> None:
        """Ask the program to end (SIGTERM); see ``send_signal()``."""
        self.send_signal(signal.SIGTERM)

    def send_signal(self, number: int) -> None:
        """Send a signal to the program; nothing happens if it has ended.

        As the first process of its PID namespace it does not receive signals that it has no handler for
        (pid_namespaces(7)): what has none needs ``kill()``.
        """
        # Not to our own child: that is unshare(1), which ignores SIGTERM and passes nothing on.
        for pid in _children(self._popen.pid):
            os.kill(pid, number)

    def kill(self) -> None:
        """End the program and all that it started (SIGKILL)."""
        # The group, not unshare(1) alone: that one's child is not yet bound to its parent's death for the first
        # moment of its life, and would stay behind, with the namespace.
        if self._popen.poll() is None:
            os.killpg(self._popen.pid, signal.SIGKILL)

    async def aclose(self) -> None:
        """Kill what still runs, collect its status, close the pipes: all of it, cancelled or not."""
        self.kill()
        with trio.move_on_after(_STUCK_SECONDS, shield=True):
            await self.wait()
            for stream in (self.stdin, self.stdout, self.stderr):
                if stream is not None:
                    await stream.aclose()
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1


def _children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []


def _require(argv: Sequence[str]) -> None:
    # Otherwise unshare(1) would start and end with 127, which looks like the program's own failure.
    if not argv:
        raise ValueError("there is no command to run")
    for program in ("setpriv", "unshare", argv[0]):
        if shutil.which(program) is None:
            cure = " (it is part of util-linux)" if program in _PREFIX else ""
            raise FileNotFoundError(f"there is no program {program!r}{cure}")


async def run_process(argv: Sequence[str], namespace: Namespace, stdin: bytes) -> str:
    """Run a program to its end and return what it wrote to stdout; killed if cancelled.

    Raises:
      subprocess.CalledProcessError: Its exit status is not 0. A note has what it wrote to stderr.
    """
    process = LabProcess(argv, namespace, subprocess.PIPE, subprocess.PIPE, subprocess.PIPE)
    output, errors = bytearray(), bytearray()
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_feed, process.stdin, stdin)
            nursery.start_soon(_collect, process.stdout, output)
            nursery.start_soon(_collect, process.stderr, errors)
            status = await process.wait()
    finally:
        with trio.move_on_after(_STUCK_SECONDS, shield=True):
            await process.aclose()
    if status != 0:
        failure = subprocess.CalledProcessError(status, list(argv), bytes(output), bytes(errors))
        failure.add_note(errors.decode(errors="replace").strip())
        raise failure
    return output.decode()


async def _feed(stream: trio.lowlevel.FdStream | None, data: bytes) -> None:
    assert stream is not None
    # A program may end without reading all of it.
    with suppress(trio.BrokenResourceError):
        await stream.send_all(data)
    await stream.aclose()


async def _collect(stream: trio.lowlevel.FdStream | None, into: bytearray) -> None:
    assert stream is not None
    async for chunk in stream:
        into += chunk
