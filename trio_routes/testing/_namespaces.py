"""Network namespaces: made, entered and left, per thread, without a name and without a child process.

A socket belongs for life to the namespace in which it was made; bind(), connect(), accept() and
later use do not care where the thread is (network_namespaces(7)). So it is enough to be inside for
the one call that makes the socket, the process or the /proc/sys access, and one process can own
both ends of a connection between two hosts.

A namespace lives as long as something refers to it: a descriptor, a thread inside, a socket. Ours
are held by a descriptor only, so nothing is left behind however the process ends.

Everything here works on the *calling thread*: other threads stay where they are, and a new thread or
child process starts where its maker is at that moment.
"""

from __future__ import annotations

import ctypes
import functools
import os
import sys
import threading
import weakref
from collections.abc import Generator
from contextlib import contextmanager

# include/uapi/linux/sched.h
CLONE_NEWNS = 0x00020000
CLONE_NEWUSER = 0x10000000
CLONE_NEWNET = 0x40000000

# Not /proc/self/ns/net: that is the main thread's, whichever thread asks.
_OF_THIS_THREAD = "/proc/thread-self/ns/net"


@functools.cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _call_libc(function: str, *arguments: int) -> None:
    result = getattr(_libc(), function)(*arguments)
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{function}() was refused: {os.strerror(number)}")


def unshare(flags: int) -> None:
    """Move the calling thread into new namespaces.

    Args:
      flags: An or of the ``CLONE_NEW*`` constants.

    Raises:
      OSError: EPERM without CAP_SYS_ADMIN; ENOSPC where user.max_net_namespaces or
        user.max_user_namespaces is used up (unshare(2)).
    """
    if sys.version_info >= (3, 12):
        os.unshare(flags)
    else:
        _call_libc("unshare", flags)


def setns(descriptor: int) -> None:
    """Move the calling thread into the network namespace behind ``descriptor``.

    Raises:
      OSError: EPERM without CAP_SYS_ADMIN in both namespaces' user namespaces (setns(2)).
    """
    if sys.version_info >= (3, 12):
        os.setns(descriptor, os.CLONE_NEWNET)
    else:
        _call_libc("setns", descriptor, CLONE_NEWNET)


class _Thread(threading.local):
    """How many ``entered()`` blocks the thread is in."""

    depth = 0


_thread = _Thread()


def leave_forgotten_blocks() -> bool:
    """Forget the ``entered()`` blocks of this thread, if it is in any, and say whether it was.

    For whoever takes the thread elsewhere between two steps of a task: the block's exit then sees
    that it was suspended, which it must not be.
    """
    forgotten = _thread.depth > 0
    _thread.depth = 0
    return forgotten


class Namespace:
    """A network namespace, kept alive by a descriptor until ``close()`` or the last reference goes."""

    def __init__(self, descriptor: int) -> None:
        """Take over ``descriptor``."""
        self._descriptor = descriptor
        self._close = weakref.finalize(self, os.close, descriptor)

    @classmethod
    def of_this_thread(cls) -> Namespace:
        """Return the namespace that the calling thread is in."""
        return cls(os.open(_OF_THIS_THREAD, os.O_RDONLY | os.O_CLOEXEC))

    @classmethod
    def new(cls) -> Namespace:
        """Make an empty namespace (``lo``, down); the calling thread stays where it is.

        Raises:
          OSError: As ``unshare()``.
        """
        before = cls.of_this_thread()
        try:
            unshare(CLONE_NEWNET)
            try:
                return cls.of_this_thread()
            finally:
                before.move_thread()
        finally:
            before.close()

    def duplicate(self) -> Namespace:
        """Return another hold of the same namespace, which outlives the closing of this one."""
        return Namespace(os.dup(self.fileno()))

    def fileno(self) -> int:
        """Return the descriptor.

        Raises:
          ValueError: It is closed.
        """
        if not self._close.alive:
            raise ValueError("this network namespace is closed")
        return self._descriptor

    def move_thread(self) -> None:
        """Move the calling thread here and leave it here."""
        setns(self.fileno())

    @contextmanager
    def entered(self) -> Generator[None]:
        """Have the calling thread in this namespace for the block: there and back about 6 µs.

        For synchronous work: making sockets and processes, reading and writing /proc/sys/net. No
        ``await`` in the block, and no thread started (it would stay).

        Raises:
          RuntimeError: On leaving, if a task was suspended inside the block while a lab was open:
            what it did after the first ``await`` happened elsewhere.
        """
        before = Namespace.of_this_thread()
        try:
            self.move_thread()
            _thread.depth += 1
            mine = _thread.depth
            try:
                yield
            except BaseException:
                _thread.depth = min(_thread.depth, mine - 1)
                raise
            else:
                suspended = _thread.depth != mine
                _thread.depth = min(_thread.depth, mine - 1)
                if suspended:
                    raise RuntimeError("there was an await inside entered(): use inside() for asynchronous code")
            finally:
                before.move_thread()
        finally:
            before.close()

    def close(self) -> None:
        """Close the descriptor; closing twice is harmless."""
        self._close()
