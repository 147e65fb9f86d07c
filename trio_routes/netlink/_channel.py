"""The netlink channel: one socket on which dumps and notifications arrive, in the kernel's order.

One socket for both is what makes their order known: a dump part that was made before a change
lies before the change's notification. The channel hands on what came in, says of each datagram
whether it answers a request of ours, and reports when something was lost. It keeps no state of
the network and decides nothing.
"""

from __future__ import annotations

import errno
import logging
import struct

import attrs

from ._kernel import NetlinkSocket
from ._requests import Request

log = logging.getLogger("trio_routes")

# The kernel's dump skbs top out at 32 KiB; twice that never truncates one.
READ_SIZE = 64 * 1024
# A batch: enough to read at 600 000 messages a second, and short enough to leave the loop to others.
# Parts of a dump hold hundreds of messages each, so the octets are bounded too (about a thousand routes).
BATCH_DATAGRAMS = 256
BATCH_OCTETS = 128 * 1024
_HEADER = struct.Struct("=IHHII")


@attrs.frozen(slots=True)
class Received:
    """What one read of the channel brought.

    Attributes:
      datagrams: (the sequence number of our request that it answers, or 0 for a notification; the bytes).
      lost: Why notifications are missing ("the receive buffer overflowed"), or "".
    """

    datagrams: list[tuple[int, bytes]]
    lost: str = ""


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
        self.statistics = ChannelStatistics()

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
        away, and only a fresh dump can tell the truth again.
        """
        datagrams: list[tuple[int, bytes]] = []
        counters = self.statistics
        ours = self._socket.port
        enough = counters.octets + BATCH_OCTETS
        while len(datagrams) < limit and counters.octets < enough:
            try:
                length, truncated, sender = self._socket.receive_into(self._buffer)
            except (BlockingIOError, InterruptedError):
                break
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                counters.overruns += 1
                self._drain()
                return Received([], "the receive buffer overflowed")
            if sender != 0:
                # Only the kernel speaks. A process with CAP_NET_ADMIN can send to any port id;
                # the header's own port field proves nothing, the socket address does.
                counters.forged += 1
                if counters.forged == 1:
                    log.warning("dropped a netlink message that port id %d sent, not the kernel", sender)
                continue
            counters.datagrams += 1
            counters.octets += length
            if truncated:
                counters.truncated += 1
                self._drain()
                return Received([], "a datagram was larger than the read buffer")
            data = bytes(memoryview(self._buffer)[:length])
            reply_to = 0
            if length >= 16:
                _, _, _, sequence, port = _HEADER.unpack_from(data)
                # A notification repeats the sequence number and port of whoever caused it.
                if port == ours:
                    reply_to = sequence
            datagrams.append((reply_to, data))
        return Received(datagrams)

    def _drain(self) -> None:
        # A sender that never pauses must not keep us here: past the bound the next read goes on.
        for _ in range(1_000_000):
            try:
                self._socket.receive_into(self._buffer)
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()
