"""What proves that a connection lives, and what only seems to."""

from __future__ import annotations

import attrs
from hypothesis import given, strategies as st

from trio_routes.connections._evidence import Mark, Reply, is_acknowledged, mark_of, reply_of
from trio_routes.connections._tcp_info import TCP_ESTABLISHED, TcpInfo

IDLE = TcpInfo(
    state=TCP_ESTABLISHED,
    retransmits=0,
    probes=0,
    backoff=0,
    rto=0.2,
    unacked=0,
    last_ack_recv=5.0,
    rtt=0.01,
    total_retrans=0,
    bytes_acked=101,
    segs_in=50,
    data_segs_in=20,
    bytes_sent=100,
    bytes_retrans=0,
)
BUSY = attrs.evolve(IDLE, unacked=2, bytes_sent=160)


def reply(began: TcpInfo, now: TcpInfo, settled: TcpInfo | None = None) -> Reply:
    return reply_of(mark_of(began), None if settled is None else mark_of(settled), now)


def test_one_byte_that_was_first_sent_after_the_mark_and_is_acknowledged_is_evidence() -> None:
    assert is_acknowledged(mark_of(IDLE), attrs.evolve(IDLE, bytes_sent=101, bytes_acked=102))


def test_so_it_is_on_the_side_that_was_connected_to_whose_syn_is_not_counted() -> None:
    accepted = attrs.evolve(IDLE, bytes_acked=100)
    assert is_acknowledged(mark_of(accepted), attrs.evolve(accepted, bytes_sent=101, bytes_acked=101))


def test_what_was_under_way_at_the_mark_is_none_when_it_is_acknowledged() -> None:
    assert not is_acknowledged(mark_of(BUSY), attrs.evolve(BUSY, bytes_acked=161, unacked=0))
    assert is_acknowledged(mark_of(BUSY), attrs.evolve(BUSY, bytes_acked=162, unacked=0))


def test_a_fin_under_way_at_the_mark_is_none_either() -> None:
    closing = attrs.evolve(BUSY, state=4)
    assert not is_acknowledged(mark_of(closing), attrs.evolve(closing, bytes_acked=162, unacked=0))


@given(st.integers(0, 10**6), st.integers(0, 10**6), st.integers(0, 10**6), st.booleans(), st.booleans())
def test_nothing_that_was_sent_before_the_mark_is_ever_evidence(
    acked: int, flying: int, again: int, opened_here: bool, closing: bool
) -> None:
    """However much was sent, sent again and acknowledged, with or without SYN and FIN."""
    syn, fin = int(opened_here), int(closing)
    mark = mark_of(
        attrs.evolve(
            IDLE,
            state=4 if closing else TCP_ESTABLISHED,
            unacked=1 if flying or fin else 0,
            bytes_acked=acked + syn,
            bytes_sent=acked + flying + again,
            bytes_retrans=again,
        )
    )
    assert not is_acknowledged(mark, attrs.evolve(IDLE, bytes_acked=acked + flying + syn + fin))


def test_two_answers_accept_and_one_does_not() -> None:
    one = attrs.evolve(IDLE, segs_in=51, last_ack_recv=0.0)
    assert reply(IDLE, IDLE) is Reply.NOTHING
    assert reply(IDLE, one) is Reply.ONE
    assert reply(IDLE, attrs.evolve(one, segs_in=52)) is Reply.ACCEPTED
    assert reply(IDLE, attrs.evolve(one, segs_in=52, probes=1)) is Reply.ACCEPTED, "the third is on its way"


def test_the_peers_own_data_is_no_answer_however_much_comes() -> None:
    assert reply(IDLE, attrs.evolve(IDLE, segs_in=90, data_segs_in=60, last_ack_recv=0.0)) is Reply.NOTHING


def test_the_peers_own_keepalive_is_no_answer_ours_are_counted_on() -> None:
    assert reply(IDLE, attrs.evolve(IDLE, segs_in=53, probes=3)) is Reply.ONE


def test_empty_segments_are_no_answers_while_data_is_under_way_for_nothing_was_asked() -> None:
    assert reply(BUSY, attrs.evolve(BUSY, segs_in=53)) is Reply.UNHEARD
    assert reply(BUSY, attrs.evolve(BUSY, segs_in=53, total_retrans=2)) is Reply.ONE


def test_data_sent_since_it_settled_answers_for_probes_that_the_kernel_does_not_send() -> None:
    began = attrs.evolve(IDLE, bytes_sent=110, unacked=1)
    assert reply(began, attrs.evolve(began, bytes_acked=111, unacked=0), settled=IDLE) is Reply.ACCEPTED


def test_older_data_counts_once_it_was_sent_again_twice() -> None:
    acked = attrs.evolve(BUSY, bytes_acked=161, unacked=0)
    assert reply(BUSY, attrs.evolve(acked, total_retrans=1)) is Reply.NOTHING
    assert reply(BUSY, attrs.evolve(acked, total_retrans=2)) is Reply.ACCEPTED


def test_silence_means_nothing_while_data_is_under_way_and_was_not_sent_again_twice() -> None:
    assert reply(BUSY, BUSY) is Reply.UNHEARD
    assert reply(BUSY, attrs.evolve(BUSY, total_retrans=1)) is Reply.UNHEARD
    assert reply(BUSY, attrs.evolve(BUSY, total_retrans=2)) is Reply.NOTHING


def test_a_mark_is_what_it_says() -> None:
    assert mark_of(IDLE) == Mark(bytes_acked=101, bytes_due=101, pure_segments_in=30, total_retrans=0)
    assert mark_of(BUSY) == Mark(bytes_acked=101, bytes_due=161, pure_segments_in=30, total_retrans=0)
