"""What the kernel knows of a TCP connection: `struct tcp_info`, read by getsockopt(TCP_INFO).

    offset  size  field                offset  size  field
    ------  ----  ------------------   ------  ----  ------------------
         0     1  state                   120     8  bytes_acked
         2     1  retransmits             140     4  segs_in
         3     1  probes                  152     4  data_segs_in
         4     1  backoff                 200     8  bytes_sent
         8     4  rto                     208     8  bytes_retrans
        24     4  unacked
        56     4  last_ack_recv
        68     4  rtt
       100     4  total_retrans

The offsets are those of include/uapi/linux/tcp.h, where fields are only ever added at the end. `bytes_retrans` is the last
one that is needed here, since Linux 4.19; from an older kernel the structure ends before it, and nothing is read at
all: half of the evidence would be worse than none.
"""

from __future__ import annotations

import select
import socket
import struct
from typing import Final

import attrs

from ._flow import AnySocket

# Numbers of enum in include/net/tcp_states.h.
TCP_ESTABLISHED: Final = 1
TCP_CLOSE: Final = 7
TCP_CLOSE_WAIT: Final = 8
# A FIN of ours is under way, or has arrived: FIN_WAIT1, FIN_WAIT2, TIME_WAIT, LAST_ACK, CLOSING.
_FIN_SENT: Final = frozenset({4, 5, 6, 9, 11})

_LAYOUT: Final = struct.Struct("=BxBBB3x I12x I28x I8x I28x I16x Q12x I8x I44x QQ")
_MICROSECONDS: Final = 1_000_000


@attrs.frozen
class TcpInfo:
    """One look at a TCP connection.

    Attributes:
      state: TCP_ESTABLISHED and its like.
      retransmits: Timeouts in a row without an acknowledgement.
      probes: Keepalive or window probes in a row without one.
      backoff: How often the retransmission timeout was doubled.
      rto: The retransmission timeout, in seconds.
      unacked: Segments that were sent and are not acknowledged.
      last_ack_recv: Seconds since the last segment with an acknowledgement came in. It proves nothing of our own
        direction: what the peer sends by itself renews it.
      rtt: The smoothed round-trip time, in seconds.
      total_retrans: Segments that were sent again, ever.
      bytes_acked: Bytes acknowledged, ever; a SYN and a FIN count as one each.
      segs_in: Segments received, ever.
      data_segs_in: Those among them with data.
      bytes_sent: Bytes sent, ever, again ones included.
      bytes_retrans: Bytes sent again, ever.
    """

    state: int
    retransmits: int
    probes: int
    backoff: int
    rto: float
    unacked: int
    last_ack_recv: float
    rtt: float
    total_retrans: int
    bytes_acked: int
    segs_in: int
    data_segs_in: int
    bytes_sent: int
    bytes_retrans: int

    @property
    def bytes_first_sent(self) -> int:
        """Bytes sent, each counted once."""
        return self.bytes_sent - self.bytes_retrans

    @property
    def pure_segments_in(self) -> int:
        """Segments received without data: acknowledgements, and what else is empty."""
        return self.segs_in - self.data_segs_in

    @property
    def fin_sent(self) -> bool:
        """Whether our own end-of-file went out."""
        return self.state in _FIN_SENT

    @property
    def closed(self) -> bool:
        """Whether there is no connection any more: reset, timed out, disconnected, or ended by both sides."""
        return self.state == TCP_CLOSE


def decode_tcp_info(data: bytes) -> TcpInfo | None:
    """Take the fields out of a `struct tcp_info`.

    Args:
      data: As getsockopt() gave it: as much of the structure as the kernel knows, or as was asked for.

    Returns:
      None where it ends too early, as before Linux 4.19.
    """
    if len(data) < _LAYOUT.size:
        return None
    (
        state,
        retransmits,
        probes,
        backoff,
        rto,
        unacked,
        last_ack_recv,
        rtt,
        total_retrans,
        bytes_acked,
        segs_in,
        data_segs_in,
        bytes_sent,
        bytes_retrans,
    ) = _LAYOUT.unpack_from(data)
    return TcpInfo(
        state,
        retransmits,
        probes,
        backoff,
        rto / _MICROSECONDS,
        unacked,
        last_ack_recv / 1000,
        rtt / _MICROSECONDS,
        total_retrans,
        bytes_acked,
        segs_in,
        data_segs_in,
        bytes_sent,
        bytes_retrans,
    )


def read_tcp_info(sock: AnySocket) -> TcpInfo | None:
    """Look at a socket's connection. Takes some microseconds and changes nothing; never raises.

    Returns:
      None for what is no TCP socket, a closed descriptor, and kernels that tell too little.
    """
    try:
        return decode_tcp_info(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _LAYOUT.size))
    except OSError:
        return None


def has_error(sock: AnySocket) -> bool:
    """Whether an error waits for the socket's owner, a reset above all. It is left there, as SO_ERROR would not."""
    poll = select.poll()
    try:
        poll.register(sock.fileno(), 0)  # POLLERR is always told
    except ValueError:
        return False  # the descriptor is closed
    return any(events & select.POLLERR for _, events in poll.poll(0))
