"""``trio-routes record``: what the kernel says of this machine's routing, into a file that tests can replay."""

from __future__ import annotations

import argparse
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import trio

from .._pt import open_pt
from ..netlink import LinuxKernel
from ..testing import RecordingKernel, recording
from ._arguments import CommandFailedError, positive, seconds
from ._status import ExitStatus


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.description = (
        "Record the kernel's netlink datagrams, with their times, as a context of trio_routes asks for and reads them; "
        "trio_routes.testing.replay plays them. Ctrl-C or SIGTERM ends the recording and completes the file. "
        "It holds this machine's addresses, routes, rules, neighbours and names of links."
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="the file to write")
    parser.add_argument("--for", dest="seconds", type=seconds, metavar="SECONDS", help="end after so long")
    parser.add_argument(
        "-n", dest="count", type=positive, metavar="DATAGRAMS", help="end after so many datagrams of notifications"
    )
    parser.add_argument("--force", action="store_true", help="write FILE even if there is one")


def run(arguments: argparse.Namespace) -> int:
    """Record until told to stop."""
    trio.run(_record, arguments.file, arguments.seconds, arguments.count, arguments.force)
    return ExitStatus.OK


async def _record(file: Path, longest: float | None, count: int | None, force: bool) -> None:
    started = trio.current_time()
    try:
        recorder = recording(LinuxKernel(), file, overwrite=force)
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals, recorder as kernel:
            await _record_until_told(kernel, signals, longest, count)
    except FileExistsError:
        raise CommandFailedError(f"there is a file {file} already; --force overwrites it") from None
    took = trio.current_time() - started
    said = f"{kernel.notifications} of {kernel.datagrams} datagrams were notifications"
    print(f"recorded {took:.1f} s: {said}; {file.stat().st_size} bytes", flush=True)


async def _record_until_told(
    kernel: RecordingKernel, signals: AsyncIterator[int], longest: float | None, count: int | None
) -> None:
    async with open_pt(kernel=kernel) as pt:
        if not pt.monitoring:
            raise CommandFailedError("there is nothing to record: the kernel's routing tables cannot be followed here")
        print("recording; Ctrl-C ends it", flush=True)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_cancel_at_signal, signals, nursery.cancel_scope)
            with trio.move_on_after(float("inf") if longest is None else longest):
                if count is None:
                    await trio.sleep_forever()
                else:
                    await kernel.wait_notifications(count)
            nursery.cancel_scope.cancel("the recording is long enough")


async def _cancel_at_signal(signals: AsyncIterator[int], scope: trio.CancelScope) -> None:
    async for _ in signals:
        scope.cancel("a signal ended the recording")
