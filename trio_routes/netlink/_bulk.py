"""Reading many datagrams at once in another thread, while the loop goes on.

A dump's parts are made by the kernel within the very call that reads them: a million routes take it half
a second, and a single part up to 150 ms (benchmarks/README.md). `recvmmsg()` called by way of ctypes works
through many of them without Python's lock, so the kernel works on one core while the loop decodes on
another, and the loop waits for no part however long.

    loop      start() ......... decodes what came before ......... done(), finish(), start() ...
    thread         recvmmsg(MSG_DONTWAIT)                          |
                   ends by itself: there is nothing that it waits for

To have the two really run side by side takes care. A thread that waits for Python's lock gets it when the loop has
nothing to do, or has held it for 5 ms on end (`sys.getswitchinterval`), and a busy loop does not even that: it lets
go of the lock at every turn, for a microsecond. So

- `start()` returns only when the thread has entered the kernel, 0.1 ms later; else it would not until the loop is idle;
- a read is so long that it does not matter when the thread tells of its end: the loop has work meanwhile, or is idle;
- the thread allocates nothing. What a thread allocates is kept apart by the C library (malloc's arenas), and hardly
  ever given back.

The thread has a descriptor of its own: a number that somebody else's socket has got meanwhile must not be read.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import socket
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, cast

import attrs
import trio

from ._kernel import BulkRead, Datagram

if TYPE_CHECKING:
    import outcome  # Trio's own dependency

# Datagrams of a read: at first few, since the loop has nothing to do until it ends; then each time twice as many, up to
# some 17 000 routes, of which the kernel needs 6 to 12 ms: so long that 0.3 ms for the change does not count.
_FIRST: Final = 8
_DATAGRAMS: Final = 32
# Seconds that `start` waits for the thread at most: on a busy machine there may be no core for it.
_ENTERING: Final = 0.002


class _SockAddr(ctypes.Structure):  # struct sockaddr_nl, linux/netlink.h
    _fields_ = (
        ("family", ctypes.c_ushort),
        ("pad", ctypes.c_ushort),
        ("port", ctypes.c_uint32),
        ("groups", ctypes.c_uint32),
    )


class _IOVec(ctypes.Structure):  # struct iovec, bits/types/struct_iovec.h
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class _MsgHdr(ctypes.Structure):  # struct msghdr, bits/socket.h
    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint32),
        ("iov", ctypes.c_void_p),
        ("iov_length", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class _MMsgHdr(ctypes.Structure):  # struct mmsghdr, bits/socket.h
    _fields_ = (("header", _MsgHdr), ("length", ctypes.c_uint))


@attrs.define(slots=True)
class _Slots:
    """Room for many datagrams, and what recvmmsg() is told of it. Mapped: the memory is given back with it."""

    size: int
    buffer: mmap.mmap = attrs.field(init=False)
    headers: ctypes.Array[_MMsgHdr] = attrs.field(init=False)
    senders: ctypes.Array[_SockAddr] = attrs.field(init=False)
    vectors: ctypes.Array[_IOVec] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.buffer = mmap.mmap(-1, _DATAGRAMS * self.size)
        base = ctypes.addressof(ctypes.c_char.from_buffer(self.buffer))
        self.senders = (_SockAddr * _DATAGRAMS)()
        self.vectors = (_IOVec * _DATAGRAMS)()
        self.headers = (_MMsgHdr * _DATAGRAMS)()
        for at, (message, sender, vector) in enumerate(zip(self.headers, self.senders, self.vectors, strict=True)):
            vector.base, vector.length = base + at * self.size, self.size
            header = message.header
            header.name, header.name_length = ctypes.addressof(sender), ctypes.sizeof(sender)
            header.iov, header.iov_length = ctypes.addressof(vector), 1

    def receive(self, fileno: int, most: int) -> tuple[int, int]:
        """Read what is waiting, as far as there is room; never blocks, and has Python's lock only before and after.

        Returns:
          How many datagrams there were, and why no more: an errno, or 0.
        """
        assert _recvmmsg is not None  # or there would be no reader
        count = error = 0
        while count < most and not error:
            rest = ctypes.byref(self.headers, count * ctypes.sizeof(_MMsgHdr))
            # An error that cuts a call short is told by the next one (net/socket.c, do_recvmmsg).
            read = _recvmmsg(fileno, rest, most - count, socket.MSG_DONTWAIT, None)
            count, error = (count + read, 0) if read >= 0 else (count, ctypes.get_errno())
        return count, error

    def take(self, count: int) -> list[Datagram]:
        """Copy the first datagrams out, and make room for new ones."""
        found: list[Datagram] = []
        with memoryview(self.buffer) as whole:
            for at, message in enumerate(self.headers[:count]):
                start = at * self.size
                data = bytes(whole[start : start + message.length])
                found.append(Datagram(data, bool(message.header.flags & socket.MSG_TRUNC), self.senders[at].port))
                message.header.name_length = ctypes.sizeof(_SockAddr)  # the kernel has overwritten it
        return found


def _find_recvmmsg() -> Callable[..., int] | None:
    """recvmmsg(2) of the C library, or None where it is missing. A call of it releases Python's lock."""
    try:
        function = ctypes.CDLL(None, use_errno=True).recvmmsg
    except (OSError, AttributeError):
        return None
    function.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int, ctypes.c_void_p)
    function.restype = ctypes.c_int
    return cast(Callable[..., int], function)


_recvmmsg = _find_recvmmsg()


class ThreadReader:
    """Reads a socket in another thread; see `BulkReader`.

    Args:
      fileno: The socket's descriptor. It stays the caller's.
      size: Bytes of the longest datagram.
    """

    def __init__(self, fileno: int, size: int) -> None:
        self._fileno = os.dup(fileno)
        self._size = size
        self._slots: _Slots | None = None
        self._most = _FIRST
        # Held from `start` until the thread has ended.
        self._reading = threading.Lock()
        # What `receive` returned, until `finish` has seen to it.
        self._result: tuple[int, int] | None = None
        self._read = BulkRead([], 0)
        self._closing = False

    def start(self, done: Callable[[], None]) -> None:
        """Begin a read; see `BulkReader.start`."""
        token = trio.lowlevel.current_trio_token()
        slots = self._slots = self._slots or _Slots(self._size)
        most, self._most = self._most, min(2 * self._most, _DATAGRAMS)
        entering = threading.Lock()
        entering.acquire()

        def read() -> tuple[int, int]:
            entering.release()
            return slots.receive(self._fileno, most)

        def deliver(result: outcome.Outcome[tuple[int, int]]) -> None:
            self._result = result.unwrap()
            self._reading.release()
            self._close_if_idle()
            with contextlib.suppress(trio.RunFinishedError):
                token.run_sync_soon(done)

        self._reading.acquire()
        try:
            trio.lowlevel.start_thread_soon(read, deliver, "trio_routes netlink")
        except BaseException:
            self._reading.release()
            raise
        entering.acquire(timeout=_ENTERING)

    def finish(self) -> BulkRead:
        """Wait for the read's end; see `BulkReader.finish`."""
        with self._reading:
            if self._result is not None and self._slots is not None:
                count, error = self._result
                self._read, self._result = BulkRead(self._slots.take(count), error), None
            return self._read

    def rest(self) -> None:
        """Give the memory back; see `BulkReader.rest`."""
        self._slots, self._most, self._read = None, _FIRST, BulkRead([], 0)

    def close(self) -> None:
        """Read no more; see `BulkReader.close`."""
        self._closing = True
        self._close_if_idle()

    def _close_if_idle(self) -> None:
        # Whichever of the two threads comes second finds the lock free.
        if self._closing and self._reading.acquire(blocking=False):
            fileno, self._fileno = self._fileno, -1
            if fileno >= 0:
                os.close(fileno)
            self._reading.release()


def thread_reader(fileno: int, size: int) -> ThreadReader | None:
    """Return a reader for a socket; None where the C library has no recvmmsg()."""
    return None if _recvmmsg is None else ThreadReader(fileno, size)
