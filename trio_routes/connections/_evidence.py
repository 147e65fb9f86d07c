"""Evidence: what in `tcp_info` proves that our packets arrive and answers come back. Pure.

Only two things prove both directions (measured with ours cut: everything else goes on growing, from the window in
flight, the peer's data and its retransmissions):

    bytes acknowledged that were first sent by the path of now ... rule J4, of every verdict
    two empty segments that came in after keepalive probes ....... rule J5, once somebody asked

One empty segment may be an answer by the old path that was still under way, or the peer's own keepalive probe. That one,
however often it comes, does not set back the kernel's count of our unanswered probes, as an answer does: an
acceptable acknowledgement sets icsk_probes_out to 0 (tcp_ack), a probe is discarded before (tcp_validate_incoming).
"""

from __future__ import annotations

import enum

import attrs

from ._tcp_info import TcpInfo

SETTLED_SECONDS = 0.5
"""After a change, ACKs by the old path are still under way, and an IPv6 socket may pass one packet by it."""

_ANSWERS = 2
_RETRANSMISSIONS = 2


@attrs.frozen
class Mark:
    """How far a connection had got at one moment, for later looks to be compared with.

    Attributes:
      bytes_acked: What was acknowledged.
      bytes_due: What `bytes_acked` comes to at most by what had been sent, without anything newer.
      pure_segments_in: Empty segments that had come in.
      total_retrans: Segments that had been sent again.
    """

    bytes_acked: int
    bytes_due: int
    pure_segments_in: int
    total_retrans: int


def mark_of(info: TcpInfo) -> Mark:
    """Note how far a connection has got."""
    # With nothing under way the count itself says how far. Otherwise it may come to one more than the bytes, for the
    # SYN (of a connection that this side opened), and to one more again for a FIN.
    due = info.bytes_acked if not info.unacked else info.bytes_first_sent + 1 + info.fin_sent
    return Mark(info.bytes_acked, due, info.pure_segments_in, info.total_retrans)


def is_acknowledged(mark: Mark, info: TcpInfo) -> bool:
    """Whether bytes are acknowledged that were first sent after the mark (rule J4)."""
    return info.bytes_acked > mark.bytes_due


class Reply(enum.Enum):
    """What came of asking, so far."""

    NOTHING = "nothing"
    ONE = "one answer"
    ACCEPTED = "accepted"
    RESET = "reset"
    UNHEARD = "unheard"
    """Nothing, and too little went out yet for that to mean anything."""


def reply_of(began: Mark, settled: Mark | None, info: TcpInfo) -> Reply:
    """Say what came of asking.

    Args:
      began: When asking began.
      settled: Half a second after the change; None where asking began before.
      info: Now; not closed.
    """
    if settled is not None and is_acknowledged(settled, info):
        return Reply.ACCEPTED
    sent_again = info.total_retrans - began.total_retrans
    if info.bytes_acked > began.bytes_acked and sent_again >= _RETRANSMISSIONS:
        # Older data. That an answer to its first sending took so long that it was sent again twice is ruled out.
        return Reply.ACCEPTED
    answers = info.pure_segments_in - began.pure_segments_in
    if answers >= _ANSWERS and info.probes <= 1 and not info.unacked:
        return Reply.ACCEPTED
    if info.unacked and sent_again < _RETRANSMISSIONS:
        return Reply.UNHEARD  # the kernel sends no probe while data is under way
    return Reply.ONE if answers else Reply.NOTHING
