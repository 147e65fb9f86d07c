"""Reading many datagrams at once: notifications in the loop, the parts of a long dump in another thread.

A storm of notifications is read faster than another process can cause it, and no thread could be faster. A dump's parts are made by the kernel within the very call that reads them: a million routes take it half a second,
and a single part up to 150 ms (benchmarks/README.md). In a thread they are made without Python's lock, so the kernel
works on one core while the loop decodes on another, and the loop waits for no part however long.

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
import os
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import trio

from ._kernel import BulkRead
from ._recvmmsg import Slots, available

if TYPE_CHECKING:
    import outcome  # Trio's own dependency

# Datagrams of a read in the loop, some 0.4 ms. For short ones: they are apart by as much as the longest may have.
_HERE: Final = 256
# Datagrams of a read in the thread: at first few, since the loop has nothing to do until it ends; then each time twice as
# many, up to some 17 000 routes, for which the kernel needs 6 to 12 ms: so long that 0.3 ms for the change does not count.
_FIRST: Final = 8
_ELSEWHERE: Final = 32
# Seconds that `start` waits for the thread at most: on a busy machine there may be no core for it.
_ENTERING: Final = 0.002
_NOTHING: Final = BulkRead([], {}, 0)


class ManyReader:
    """Reads a socket, many datagrams at once; see `BulkReader`.

    Args:
      fileno: The socket's descriptor. It stays the caller's.
      size: Bytes of the longest datagram.
    """

    def __init__(self, fileno: int, size: int) -> None:
        self._fileno = os.dup(fileno)
        self._size = size
        self._slots: Slots | None = None
        self._most = _FIRST
        # Held from `start` until the thread has ended.
        self._reading = threading.Lock()
        # What `receive` returned, until `finish` has seen to it.
        self._result: tuple[int, int] | None = None
        self._read = _NOTHING
        self._closing = False

    def read(self) -> BulkRead:
        """Read what is waiting; see `BulkReader.read`."""
        slots = self._slots = self._slots or Slots(_HERE, self._size)
        return slots.take(*slots.receive(self._fileno, _HERE))

    def start(self, done: Callable[[], None]) -> None:
        """Begin a read; see `BulkReader.start`."""
        token = trio.lowlevel.current_trio_token()
        slots = self._slots = self._slots or Slots(_HERE, self._size)
        most, self._most = self._most, min(2 * self._most, _ELSEWHERE)
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
                self._read, self._result = self._slots.take(*self._result), None
            return self._read

    def rest(self) -> None:
        """Give the memory back; see `BulkReader.rest`."""
        self._slots, self._most, self._read = None, _FIRST, _NOTHING

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


def many_reader(fileno: int, size: int) -> ManyReader | None:
    """Return a reader for a socket; None where the C library has no recvmmsg()."""
    return ManyReader(fileno, size) if available else None
