"""Network namespaces: opening one by name, path or descriptor, and being inside it for a moment.

A socket belongs to the namespace in which it was made, for life; what the thread does
afterwards does not matter. So entering is only ever a synchronous block around the making of a
socket, and the thread is back before any other code runs.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Generator
from contextlib import contextmanager

import trio

CLONE_NEWNET = 0x40000000  # linux/sched.h
_NAMED = "/run/netns"  # where ip-netns(8) keeps its names
_MINE = "/proc/thread-self/ns/net"  # the calling thread's, not the process's


def setns(fd: int) -> None:
    """Move the calling thread into the network namespace behind `fd`. Raises OSError."""
    # os.setns exists from Python 3.12 on only.
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(fd, CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"cannot enter the network namespace: {os.strerror(number)}")


def open_netns(netns: str | int) -> int:
    """Open a namespace and return a descriptor of our own for it.

    Args:
      netns: A name as ip-netns(8) keeps it, a path (anything with a slash), or an open descriptor.

    Raises:
      FileNotFoundError: There is no such namespace. Nothing is ever created.
      OSError: It could not be opened.
    """
    if isinstance(netns, int):
        return os.dup(netns)
    path = netns if "/" in netns else f"{_NAMED}/{netns}"
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise FileNotFoundError(errno.ENOENT, "there is no network namespace", netns) from None


@contextmanager
@trio.lowlevel.enable_ki_protection  # Ctrl-C must not leave the thread elsewhere
def entered(fd: int | None) -> Generator[None]:
    """Be in the namespace behind `fd` for a synchronous block; None stays where the thread is."""
    if fd is None:
        yield
        return
    home = os.open(_MINE, os.O_RDONLY | os.O_CLOEXEC)
    try:
        setns(fd)
        try:
            yield
        finally:
            setns(home)
    finally:
        os.close(home)
