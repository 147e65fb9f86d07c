"""Reading struct tcp_info: against the kernel's own header, against sockets, and against any bytes."""

from __future__ import annotations

import ctypes
import socket
from collections.abc import Iterator
from contextlib import closing

import attrs
import pytest
from hypothesis import given, strategies as st

from trio_routes.connections._tcp_info import (
    TCP_CLOSE,
    TCP_CLOSE_WAIT,
    TCP_ESTABLISHED,
    TcpInfo,
    decode_tcp_info,
    has_error,
    read_tcp_info,
)

U8, U32, U64 = ctypes.c_uint8, ctypes.c_uint32, ctypes.c_uint64


class Structure(ctypes.Structure):
    """struct tcp_info as include/uapi/linux/tcp.h has it up to `bytes_retrans`; the compiler's rules lay it out."""

    _fields_ = (
        *(
            (name, U8)
            for name in ("state", "ca_state", "retransmits", "probes", "backoff", "options", "wscale", "bits")
        ),
        *((name, U32) for name in ("rto", "ato", "snd_mss", "rcv_mss")),
        *((name, U32) for name in ("unacked", "sacked", "lost", "retrans", "fackets")),
        *((name, U32) for name in ("last_data_sent", "last_ack_sent", "last_data_recv", "last_ack_recv")),
        *((name, U32) for name in ("pmtu", "rcv_ssthresh", "rtt", "rttvar", "snd_ssthresh", "snd_cwnd", "advmss")),
        *((name, U32) for name in ("reordering", "rcv_rtt", "rcv_space", "total_retrans")),
        *((name, U64) for name in ("pacing_rate", "max_pacing_rate", "bytes_acked", "bytes_received")),
        *((name, U32) for name in ("segs_out", "segs_in", "notsent_bytes", "min_rtt", "data_segs_in", "data_segs_out")),
        *((name, U64) for name in ("delivery_rate", "busy_time", "rwnd_limited", "sndbuf_limited")),
        *((name, U32) for name in ("delivered", "delivered_ce")),
        *((name, U64) for name in ("bytes_sent", "bytes_retrans")),
    )


SCALE = {"rto": 1e-6, "rtt": 1e-6, "last_ack_recv": 1e-3}


@pytest.mark.parametrize("field", [field.name for field in attrs.fields(TcpInfo)])
def test_each_field_is_where_the_header_has_it(field: str) -> None:
    data = bytearray(ctypes.sizeof(Structure))
    structure = Structure.from_buffer(data)
    setattr(structure, field, 7)
    info = decode_tcp_info(bytes(data))
    assert info is not None
    expected = dict.fromkeys(attrs.asdict(info), 0.0)
    expected[field] = 7 * SCALE.get(field, 1)
    assert attrs.asdict(info) == pytest.approx(expected)


@given(st.binary(max_size=300))
def test_any_bytes_are_a_value_or_none(data: bytes) -> None:
    info = decode_tcp_info(data)
    assert (info is None) == (len(data) < ctypes.sizeof(Structure))


@pytest.mark.parametrize("length", [0, 104, 160, 192, 215])
def test_an_older_kernels_shorter_structure_tells_nothing(length: int) -> None:
    assert decode_tcp_info(bytes(length)) is None


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        client = socket.create_connection(listener.getsockname())
        server, _ = listener.accept()
    with closing(client), closing(server):
        yield client, server


def read(sock: socket.socket) -> TcpInfo:
    info = read_tcp_info(sock)
    assert info is not None
    return info


def test_what_a_connection_says_of_itself(pair: tuple[socket.socket, socket.socket]) -> None:
    client, server = pair
    client.sendall(b"hello")
    assert server.recv(5) == b"hello"
    info = read(client)
    assert (info.state, info.unacked, info.bytes_first_sent) == (TCP_ESTABLISHED, 0, 5)
    assert info.bytes_acked == 6, "the SYN counts as one"
    assert 0.1 < info.rto < 5
    assert 0 < info.rtt < 1
    assert read(server).data_segs_in == 1
    assert read(server).bytes_acked == 0, "the other side's SYN is not counted"


def test_a_reset_and_an_end_are_told_apart_and_the_error_is_left_for_its_owner(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    client, server = pair
    server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    server.close()
    assert read(client).state == TCP_CLOSE
    assert has_error(client)
    assert has_error(client)
    with pytest.raises(ConnectionResetError):
        client.recv(1)
    assert not has_error(client)


def test_an_ended_connection_has_no_error(pair: tuple[socket.socket, socket.socket]) -> None:
    client, server = pair
    client.shutdown(socket.SHUT_WR)
    assert read(server).state == TCP_CLOSE_WAIT
    assert read(client).fin_sent
    server.shutdown(socket.SHUT_WR)
    assert read(server).closed
    assert not has_error(server)


def test_what_is_no_open_tcp_socket_tells_nothing() -> None:
    with closing(socket.socket(type=socket.SOCK_DGRAM)) as udp:
        assert read_tcp_info(udp) is None
    tcp = socket.socket()
    tcp.close()
    assert read_tcp_info(tcp) is None
    assert not has_error(tcp)
