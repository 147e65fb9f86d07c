"""The netlink channel: one socket on which dumps and notifications arrive, in the kernel's order.

One socket for both is what makes their order known: a dump part that was made before a change
lies before the change's notification. The channel hands on what came in, says of each datagram
whether it answers a request of ours, and reports when something was lost. It keeps no state of
the network and decides nothing.
"""

from __future__ import annotations

import errno
import logging

import attrs

from ._framing import HEADER, HEADER_SIZE
from ._kernel import NetlinkSocket
from ._requests import Request

log = logging.getLogger("trio_routes")

# The kernel's dump skbs top out at 32 KiB; twice that never truncates one.
READ_SIZE = 64 * 1024
# A batch: enough to read at 600 000 messages a second, and short enough to leave the loop to others.
# Parts of a dump hold hundreds of messages each, so the octets are bounded too (about a thousand routes).
BATCH_DATAGRAMS = 256
BATCH_OCTETS = 128 * 1024


@attrs.frozen(slots=True)
class Received:
    """What one read of the channel brought.

    Attributes:
      datagrams: (the sequence number of our request that it answers, or 0 for a notification; the bytes).
      lost: Why notifications are missing ("the receive buffer overflowed"), or "".
      more: Whether there may be more waiting: the batch was full.
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
        self._buffer = bytearray(READ_SIZE)
        self._sequence = 0
        self._draining = False
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
        return self._sequence

    async def wait_readable(self) -> None:
        """Return once something may be waiting. A checkpoint."""
        await self._socket.wait_readable()

    def receive(self, limit: int = BATCH_DATAGRAMS) -> Received:
        """Take what is waiting, at most `limit` datagrams; never blocks.

        Once the kernel had to drop notifications it drops all later ones, without another
        word, until the queue has been emptied: so after a loss everything waiting is thrown
        away, batch by batch, and the loss is reported when that is done. Only a fresh dump can
        tell the truth again.

        Raises:
          OSError: The socket failed.
        """
        datagrams: list[tuple[int, bytes]] = []
        counters = self.statistics
        enough = counters.octets + BATCH_OCTETS
        for _ in range(limit):
            if counters.octets >= enough:
                break
            try:
                length, truncated, sender = self._socket.receive_into(self._buffer)
            except (BlockingIOError, InterruptedError):
                if self._draining:
                    self._draining = False
                    return Received([], lost="the receive buffer overflowed")
                return Received(datagrams)
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                counters.overruns += 1
                self._draining = True
                datagrams.clear()
                continue
            if sender != 0:
                self._note_forged(sender)
                continue
            counters.datagrams += 1
            counters.octets += length
            if self._draining:
                continue
            if truncated:
                counters.truncated += 1
                return Received([], lost="a datagram was larger than the read buffer", more=True)
            data = bytes(memoryview(self._buffer)[:length])
            datagrams.append((self._request_answered(data), data))
        return Received(datagrams, more=True)

    def _note_forged(self, sender: int) -> None:
        # Only the kernel speaks. A process with CAP_NET_ADMIN can send to any port id; the
        # header's own port field proves nothing, the socket address does.
        self.statistics.forged += 1
        if self.statistics.forged == 1:
            log.warning("dropped a netlink message that port id %d sent, not the kernel", sender)

    def _request_answered(self, data: bytes) -> int:
        """The sequence number of our request that a datagram answers, or 0."""
        if len(data) < HEADER_SIZE:
            return 0
        _, _, _, sequence, port = HEADER.unpack_from(data)
        # A notification repeats the sequence number and port of whoever caused it.
        return int(sequence) if port == self._socket.port else 0

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()
