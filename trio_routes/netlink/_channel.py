"""The netlink channel: one socket on which dumps and notifications arrive, in the kernel's order.

One socket for both is what makes their order known: a dump part that was made before a change
lies before the change's notification. The channel hands on what came in, says of each datagram
whether it answers a request of ours, and reports when something was lost. It keeps no state of
the network and decides nothing.

Who reads the socket, and never two at once::

            some large datagrams in a row: a long dump
    here  ------------------------------------------->  another thread (`_bulk.py`)
          <-------------------------------------------
            nothing is left, or they are mostly small

Notifications are read here, where that takes 5 µs and wakes nobody, and so are short dumps; where there are many
notifications, many at a time. Not while a dump is under way: each datagram that is read has the kernel make another
part of it, within that call. A thread costs 0.3 ms a read, and hides what the kernel takes for a long dump.
"""

from __future__ import annotations

import errno
import logging
import os
import sys
from collections import deque
from functools import partial

import attrs
import trio

from ._framing import HEADER, HEADER_SIZE, NLM_F_DUMP, MessageType
from ._kernel import BulkRead, BulkReader, BulkSocket, NetlinkSocket
from ._requests import Request

log = logging.getLogger("trio_routes")

# The kernel's dump skbs top out at 32 KiB; twice that never truncates one.
READ_SIZE = 64 * 1024
# A batch: what is handed on at once, short enough to leave the loop to others. A full part of a dump has 32 KiB and
# some 500 routes, which take a quarter of a millisecond, and several where dicts grow: it is a batch by itself.
BATCH_DATAGRAMS = 256
BATCH_OCTETS = 31 * 1024
# A process that changes routes as fast as it can (every 5 µs, and every 2.7 in its bursts) is faster than who reads and
# applies them, but hardly than who reads. So many are read in a turn, few are handed on while there are more to read,
# and the others wait here: 32 MiB are some 230 000. Of a dump no more is read in a turn than is handed on: one part.
READ_DATAGRAMS = 512
READ_OCTETS = 128 * 1024
FEW_DATAGRAMS = 16
# After so many notifications in a row those to come are read many at a time; so often in a turn.
MANY = 8
MANY_READS = 2
MOST_WAITING_OCTETS = 32 * 1024 * 1024
# Where a datagram's first message has its port.
_PORT = slice(HEADER_SIZE - 4, HEADER_SIZE)
# So many datagrams of such a size make a dump a long one: some 4000 routes, 2 ms. Only parts of dumps are as large.
LONG_DUMP = 8
LARGE = 16 * 1024
# A thread reads on while there is not more than this to be handed on.
BULK_WAITING_OCTETS = 1024 * 1024
# What a filter of system calls (seccomp) or an emulated kernel says of recvmmsg(); no netlink socket says it.
_NO_SUCH_CALL = (errno.ENOSYS, errno.EPERM)


@attrs.frozen(slots=True)
class Received:
    """What one read of the channel brought.

    Attributes:
      datagrams: (the sequence number of our request that it answers, or 0 for a notification; the bytes).
      lost: Why notifications are missing ("the receive buffer overflowed"), or "".
      more: Whether there may be more waiting, here or in the socket.
    """

    datagrams: list[tuple[int, bytes]]
    lost: str = ""
    more: bool = False


@attrs.define(slots=True)
class ChannelStatistics:
    """Counters of a channel, from its opening on."""

    datagrams: int = 0
    octets: int = 0
    forged: int = 0
    overruns: int = 0
    truncated: int = 0


class Channel:
    """Requests out, datagrams in, on one netlink socket."""

    def __init__(self, socket: NetlinkSocket) -> None:
        self._socket = socket
        self._port = socket.port.to_bytes(4, sys.byteorder)
        self._buffer = bytearray(READ_SIZE)
        self._sequence = 0
        self._draining = False
        # What is to be said by the next `receive`.
        self._lost = ""
        self._failure: OSError | None = None
        # What was read, and not yet handed on; mere bytes, of which the garbage collector need not know.
        self._waiting: deque[bytes] = deque()
        self._waiting_octets = 0
        self._large = 0
        self._bulk: BulkReader | None = _open_bulk(socket)
        self._in_bulk = False
        # The request for a dump whose end was not handed on yet; 0 while there is none.
        self._dump = 0
        # Set by the end of the read that is under way in another thread; None while there is none.
        self._read: trio.Event | None = None
        self.statistics: ChannelStatistics = ChannelStatistics()

    @property
    def receive_buffer(self) -> int:
        """Bytes of receive buffer that the kernel granted."""
        return self._socket.receive_buffer

    @property
    def netns_cookie(self) -> int | None:
        """The cookie of the network namespace that is followed."""
        return self._socket.netns_cookie

    def join(self, group: int) -> bool:
        """Subscribe to a multicast group; False where this kernel does not know it."""
        try:
            self._socket.join(group)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            return False
        return True

    def send(self, request: Request) -> int:
        """Send a request; returns the sequence number that its answer will carry. Raises OSError."""
        self._sequence = self._sequence % 0xFFFFFFFF + 1  # 0 is what spontaneous notifications carry
        self._socket.send(request.message(self._sequence))
        if request.flags & NLM_F_DUMP == NLM_F_DUMP:
            self._dump = self._sequence
        return self._sequence

    async def wait_readable(self) -> None:
        """Return once something may be waiting. A checkpoint."""
        if self._waiting or self._lost or self._failure is not None:
            await trio.lowlevel.checkpoint()
        elif self._read is not None:
            await self._read.wait()
        else:
            await self._socket.wait_readable()

    def receive(self) -> Received:
        """Take what is waiting, at most a batch; never blocks.

        Once the kernel had to drop notifications it drops all later ones, without another
        word, until the queue has been emptied: so after a loss everything waiting is thrown
        away, batch by batch, and the loss is reported when that is done. Only a fresh dump can
        tell the truth again.

        Raises:
          OSError: The socket failed.
        """
        emptied = True
        if not self._in_bulk:
            if self._waiting_octets >= MOST_WAITING_OCTETS:
                return Received(self._take_batch(BATCH_DATAGRAMS), more=True)
            emptied = self._read_ahead()
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure
        if self._lost:
            lost, self._lost = self._lost, ""
            return Received([], lost, more=bool(self._waiting) or not emptied)
        batch = self._take_batch(BATCH_DATAGRAMS if emptied else FEW_DATAGRAMS)
        self._read_in_bulk()
        return Received(batch, more=bool(self._waiting) or not emptied)

    def finish_read(self) -> None:
        """Wait for what another thread is reading, so that the next `receive` has all that was there. Blocks the loop."""
        if self._read is not None:
            self._end_bulk_read(self._read)

    def _read_ahead(self) -> bool:
        """Read from the socket into our own queue; whether nothing is left to read, as far as was seen."""
        enough, large = self.statistics.octets + READ_OCTETS, self._large
        many = None if self._dump else self._bulk
        for _ in range(MANY if many else READ_DATAGRAMS):
            if self.statistics.octets >= enough or self._large > large or self._lost or self._failure is not None:
                return False
            try:
                length, truncated, sender = self._socket.receive_into(self._buffer)
            except OSError as error:
                if self._note_error(error):
                    return True
            else:
                self._accept(bytes(memoryview(self._buffer)[:length]), truncated, sender)
        return many is not None and any(self._read_many(many) for _ in range(MANY_READS))

    def _read_many(self, bulk: BulkReader) -> bool:
        """Read many at a time; whether nothing is left to read."""
        if self._bulk is not bulk:
            return False
        try:
            found = bulk.read()
        except OSError as error:
            self._do_without_bulk(error)
            return False
        return self._take_in(found)

    def _take_in(self, found: BulkRead) -> bool:
        """Queue what was read many at a time; whether nothing is left to read."""
        if found.odd or self._draining:
            for at, data in enumerate(found.datagrams):
                self._accept(data, *found.odd.get(at, (False, 0)))
        else:  # as `_accept`, all at once
            octets = sum(map(len, found.datagrams))
            self.statistics.datagrams += len(found.datagrams)
            self.statistics.octets += octets
            self._large += sum(len(data) >= LARGE for data in found.datagrams)
            self._waiting.extend(found.datagrams)
            self._waiting_octets += octets
        if not found.error:
            return False
        error = OSError(found.error, os.strerror(found.error))
        if found.error in _NO_SUCH_CALL:
            self._do_without_bulk(error)
            return False
        return self._note_error(error)

    def _accept(self, data: bytes, truncated: bool, sender: int) -> None:
        """Queue a datagram, if the kernel sent it and it is whole."""
        if sender != 0:
            self._note_forged(sender)
            return
        counters = self.statistics
        counters.datagrams += 1
        counters.octets += len(data)
        if self._draining:
            return
        if truncated:
            counters.truncated += 1
            self._throw_away()
            self._lost = "a datagram was larger than the read buffer"
            return
        self._large += len(data) >= LARGE
        self._waiting.append(data)
        self._waiting_octets += len(data)

    def _note_error(self, error: OSError) -> bool:
        """Take in why a read brought nothing; whether the socket is empty."""
        if isinstance(error, BlockingIOError | InterruptedError):
            self._large = 0
            if self._draining:
                self._draining = False
                self._lost = "the receive buffer overflowed"
            return True
        if error.errno == errno.ENOBUFS:
            self.statistics.overruns += 1
            self._draining = True
            self._throw_away()
        else:
            self._failure = error
        return False

    # ---- another thread's reads --------------------------------------------------------------------

    def _read_in_bulk(self) -> None:
        """Let another thread read on, if this is a long dump."""
        bulk = self._bulk
        if bulk is None or self._read is not None or self._waiting_octets > BULK_WAITING_OCTETS:
            return
        if self._large < LONG_DUMP:
            if self._in_bulk:
                self._in_bulk = False
                bulk.rest()
            return
        read = trio.Event()
        try:
            bulk.start(partial(self._end_bulk_read, read))
        except (OSError, RuntimeError) as error:
            self._do_without_bulk(error)
        else:
            self._read, self._in_bulk = read, True

    def _do_without_bulk(self, error: Exception) -> None:
        """Read one datagram at a time from now on."""
        log.warning("long dumps hold up the loop: %s", error)
        if self._bulk is not None:
            self._bulk.close()
        self._bulk, self._in_bulk = None, False

    def _end_bulk_read(self, read: trio.Event) -> None:
        """Queue what another thread has read; waits for it if need be."""
        if self._bulk is None or self._read is not read:
            return  # `finish_read` was there before, or the channel is closed
        self._read = None
        found = self._bulk.finish()
        before = self._large
        self._take_in(found)
        if 2 * (self._large - before) < len(found.datagrams):
            self._large = 0  # mostly notifications
        self._read_in_bulk()
        read.set()

    def _take_batch(self, most: int) -> list[tuple[int, bytes]]:
        batch: list[tuple[int, bytes]] = []
        octets = 0
        while self._waiting and len(batch) < most and octets < BATCH_OCTETS:
            data = self._waiting.popleft()
            request = self._request_answered(data)
            if request and request == self._dump and _ends_a_dump(data):
                self._dump = 0
            batch.append((request, data))
            octets += len(data)
        self._waiting_octets -= octets
        return batch

    def _throw_away(self) -> None:
        self._waiting.clear()
        self._waiting_octets = 0

    def _note_forged(self, sender: int) -> None:
        # Only the kernel speaks. A process with CAP_NET_ADMIN can send to any port id; the
        # header's own port field proves nothing, the socket address does.
        self.statistics.forged += 1
        if self.statistics.forged == 1:
            log.warning("dropped a netlink message that port id %d sent, not the kernel", sender)

    def _request_answered(self, data: bytes) -> int:
        """The sequence number of our request that a datagram answers, or 0."""
        # A notification repeats the sequence number and port of whoever caused it.
        return HEADER.unpack_from(data)[3] if data[_PORT] == self._port else 0

    def close(self) -> None:
        """Close the socket."""
        if self._bulk is not None:
            self._bulk.close()
            self._bulk, self._in_bulk = None, False
        if self._read is not None:
            self._read.set()  # who waits for it learns from the socket that it is closed
            self._read = None
        self._socket.close()


def _open_bulk(socket: NetlinkSocket) -> BulkReader | None:
    try:
        return socket.open_bulk(READ_SIZE) if isinstance(socket, BulkSocket) else None
    except OSError as error:  # no descriptor is left: one at a time will do
        log.warning("long dumps hold up the loop: %s", error)
        return None


def _ends_a_dump(data: bytes) -> bool:
    """Whether a datagram that answers a dump is its last, as far as can be seen at a glance."""
    # An error or a DONE by itself; or a DONE at the end of the last part, with nothing in it but a result of 4 bytes.
    starts = {0, max(len(data) - HEADER_SIZE - 4, 0)}
    return any(HEADER.unpack_from(data, start)[1] in (MessageType.DONE, MessageType.ERROR) for start in starts)
