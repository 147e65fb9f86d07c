"""Flows read off real sockets on loopback, and lost sockets disconnected."""

from __future__ import annotations

import errno
import os
import socket
import ssl
import sys
from collections.abc import AsyncIterator, Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
import trio
import trio.testing

from trio_routes.connections import Flow, flow_of, socket_of
from trio_routes.connections._disconnect import _reset, disconnect
from trio_routes.connections._flow import cookie_of, is_connected

V4, V6 = IPv4Address("127.0.0.1"), IPv6Address("::1")
HOST = {4: "127.0.0.1", 6: "::1"}
FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}
SO_NETNS_COOKIE = 71
HOST_UID = os.getuid()
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="these socket options are for root")


@pytest.fixture
def listener(family: int) -> Iterator[socket.socket]:
    with socket.create_server((HOST[family], 0), family=FAMILY[family]) as server:
        yield server


@pytest.fixture
def pair(listener: socket.socket) -> Iterator[tuple[socket.socket, socket.socket]]:
    """(client, server), connected."""
    client = socket.create_connection(listener.getsockname()[:2])
    server, _ = listener.accept()
    with client, server:
        yield client, server


def udp(family: int = 4) -> socket.socket:
    return socket.socket(FAMILY[family], socket.SOCK_DGRAM)


def test_a_tcp_socket_tells_its_endpoints_and_its_user(pair: tuple[socket.socket, socket.socket], family: int) -> None:
    client, server = pair
    flow = flow_of(client)
    assert (flow.protocol, flow.peer, flow.local) == ("tcp", ip_address(HOST[family]), ip_address(HOST[family]))
    assert (flow.peer_port, flow.local_port) == (server.getsockname()[1], client.getsockname()[1])
    assert (flow.device, flow.mark, flow.tos, flow.transparent) == (None, 0, 0, False)
    assert flow.uid == os.fstat(client.fileno()).st_uid == HOST_UID
    assert flow.family == FAMILY[family]


def test_loopback_to_loopback_is_unjudged_and_says_why(pair: tuple[socket.socket, socket.socket]) -> None:
    assert flow_of(pair[0]).unjudged == "it goes from loopback to loopback"


def test_a_v4_mapped_socket_is_an_ipv4_flow() -> None:
    with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as listener:
        client = socket.create_connection(("127.0.0.1", listener.getsockname()[1]))
        client_port = client.getsockname()[1]
        server, _ = listener.accept()
        with client, server:
            server.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, 0x10)
            flow = flow_of(server)
    assert (flow.peer, flow.local, flow.peer_port, flow.tos) == (V4, V4, client_port, 0x10)


def test_options_that_decide_the_path_are_read(family: int) -> None:
    with udp(family) as sock:
        if family == 4:
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, 0x2B)
        else:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, 0x2B)
        sock.connect((HOST[family], 9))
        flow = flow_of(sock)
    assert flow.protocol == "udp"
    assert flow.tos == 0x28  # without the two bits of ECN


@needs_root
def test_device_mark_and_transparency_are_read(family: int) -> None:
    with udp(family) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lo")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, 77)
        level, option = (socket.IPPROTO_IP, 19) if family == 4 else (socket.IPPROTO_IPV6, 75)
        sock.setsockopt(level, option, 1)
        sock.connect((HOST[family], 9))
        flow = flow_of(sock)
    assert (flow.device, flow.mark, flow.transparent) == (socket.if_nametoindex("lo"), 77, True)


def test_a_link_local_peer_gives_its_link_as_device() -> None:
    lo = socket.if_nametoindex("lo")
    with udp(6) as sock:
        by_number = flow_of(sock, peer=(f"fe80::9%{lo}", 9))
        by_name = flow_of(sock, peer=("fe80::9%lo", 9))
    assert by_number.device == by_name.device == lo
    assert by_number.peer == IPv6Address("fe80::9")


def test_peer_serves_an_unconnected_datagram_socket() -> None:
    with udp() as sock:
        flow = flow_of(sock, peer=(IPv4Address("192.0.2.7"), 4433))
        assert (flow.peer, flow.peer_port, flow.local) == (IPv4Address("192.0.2.7"), 4433, None)
        assert not flow.unjudged
        assert flow_of(sock).unjudged == "it has no peer"


def test_an_unconnected_or_listening_stream_socket_is_refused(listener: socket.socket, family: int) -> None:
    with socket.socket(FAMILY[family]) as sock, pytest.raises(ValueError, match="not connected"):
        flow_of(sock)
    with pytest.raises(ValueError, match="not connected"):
        flow_of(listener)


def test_a_closed_socket_is_refused(pair: tuple[socket.socket, socket.socket]) -> None:
    pair[0].close()
    with pytest.raises(trio.ClosedResourceError):
        flow_of(pair[0])
    with pytest.raises(trio.ClosedResourceError):
        cookie_of(pair[0])


def test_a_socket_of_another_namespace_is_refused(pair: tuple[socket.socket, socket.socket]) -> None:
    cookie = int.from_bytes(pair[0].getsockopt(socket.SOL_SOCKET, SO_NETNS_COOKIE, 8), sys.byteorder)
    assert flow_of(pair[0], netns_cookie=cookie) == flow_of(pair[0])
    with pytest.raises(ValueError, match="namespace"):
        flow_of(pair[0], netns_cookie=cookie + 1)


def test_a_unix_socket_is_unjudged() -> None:
    one, other = socket.socketpair()
    with one, other:
        assert flow_of(one).unjudged == "unix is neither TCP nor UDP"


@pytest.mark.parametrize(("family", "address"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def test_multipath_tcp_is_unjudged(family: int, address: str) -> None:
    """Whatever such a socket refuses to tell: over IPv6 its traffic class."""
    try:
        server = socket.socket(family, socket.SOCK_STREAM, 262)
    except OSError as error:
        pytest.skip(f"no MPTCP in this kernel: {error}")
    with server, socket.socket(family, socket.SOCK_STREAM, 262) as client:
        server.bind((address, 0))
        server.listen()
        client.connect(server.getsockname())
        flow = flow_of(client)
        assert flow.unjudged == "mptcp is neither TCP nor UDP"
        assert (flow.peer, flow.local) == (ip_address(address), ip_address(address))


@pytest.mark.parametrize(
    ("peer", "word"), [("224.0.0.251", "multicast"), ("ff02::fb", "multicast"), ("::1", "loopback")]
)
def test_flows_by_hand_know_why_they_are_unjudged(peer: str, word: str) -> None:
    assert word in Flow(peer=ip_address(peer)).unjudged


def test_a_flow_reads_as_an_operator_would_write_it() -> None:
    flow = Flow(peer=IPv6Address("2001:db8::7"), peer_port=443, local=IPv6Address("2001:db8::1"), local_port=40000)
    assert str(flow) == "tcp [2001:db8::1]:40000 -> [2001:db8::7]:443"
    assert str(Flow(peer=IPv4Address("192.0.2.7"), peer_port=53, protocol="udp")) == "udp *:0 -> 192.0.2.7:53"


async def test_the_socket_is_found_in_whatever_is_around_it(pair: tuple[socket.socket, socket.socket]) -> None:
    client, server = pair
    sock = trio.socket.from_stdlib_socket(client)
    stream = trio.SocketStream(sock)
    tls = trio.SSLStream(stream, ssl.create_default_context(), server_hostname="example.org")
    for what in (sock, stream, tls, trio.StapledStream(stream, stream)):
        assert socket_of(what) is sock
    assert socket_of(server) is server
    assert socket_of(trio.testing.memory_stream_pair()[0]) is None
    assert socket_of(None) is None


def test_a_duplicate_has_the_same_cookie_and_another_socket_has_not(pair: tuple[socket.socket, socket.socket]) -> None:
    with pair[0].dup() as duplicate:
        assert cookie_of(duplicate) == cookie_of(pair[0]) != cookie_of(pair[1])


# ---- disconnecting -------------------------------------------------------------------------------------------


@pytest.fixture
async def streams(
    pair: tuple[socket.socket, socket.socket],
) -> AsyncIterator[tuple[trio.SocketStream, trio.SocketStream]]:
    client, server = (trio.SocketStream(trio.socket.from_stdlib_socket(sock)) for sock in pair)
    async with client, server:
        yield client, server


async def test_a_disconnected_socket_fails_a_pending_receive_at_once_and_every_later_call(
    streams: tuple[trio.SocketStream, trio.SocketStream],
) -> None:
    """R2."""
    client, _ = streams
    failures: list[BaseException | None] = []

    async def receive() -> None:
        with pytest.raises(trio.BrokenResourceError) as caught:
            await client.receive_some()
        failures.append(caught.value.__cause__)

    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive)
            await trio.testing.wait_all_tasks_blocked()
            assert disconnect(client.socket)
    assert [type(failure) for failure in failures] == [ConnectionResetError]
    with pytest.raises(trio.BrokenResourceError):
        await client.receive_some()
    with pytest.raises(trio.BrokenResourceError):
        await client.send_all(b"more")
    assert not is_connected(client.socket)
    assert client.socket.fileno() != -1, "the descriptor stays its owner's"


async def test_a_disconnected_socket_fails_a_pending_send(streams: tuple[trio.SocketStream, trio.SocketStream]) -> None:
    client, _ = streams
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:

            async def send() -> None:
                with pytest.raises(trio.BrokenResourceError):
                    await client.send_all(bytes(1 << 24))

            nursery.start_soon(send)
            await trio.testing.wait_all_tasks_blocked()
            disconnect(client.socket)


async def test_the_peer_of_a_disconnected_socket_sees_a_reset_and_no_end_of_file(
    streams: tuple[trio.SocketStream, trio.SocketStream],
) -> None:
    """R2, R3."""
    client, server = streams
    disconnect(client.socket)
    with trio.fail_after(5), pytest.raises(trio.BrokenResourceError) as caught:
        await server.receive_some()
    assert isinstance(caught.value.__cause__, ConnectionResetError)


async def test_a_duplicate_in_other_hands_is_cut_too(pair: tuple[socket.socket, socket.socket]) -> None:
    with pair[0].dup() as duplicate:
        disconnect(pair[0])
        with pytest.raises(OSError, match=r"reset|not connected|[Nn]ot connected") as caught:
            duplicate.recv(1)
        assert caught.value.errno in (errno.ECONNRESET, errno.ENOTCONN)


async def test_a_connection_attempt_is_cut_in_syn_sent(family: int) -> None:
    # A listener whose queue is full answers nothing: the attempt stays in SYN_SENT.
    with socket.socket(FAMILY[family]) as listener, socket.socket(FAMILY[family]) as filler:
        listener.bind((HOST[family], 0))
        listener.listen(0)
        filler.connect(listener.getsockname())
        sock = trio.socket.socket(FAMILY[family])
        failed = trio.Event()

        async def connect() -> None:
            with pytest.raises(ConnectionResetError):
                await sock.connect(listener.getsockname())
            failed.set()

        with trio.fail_after(5), sock:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(connect)
                await trio.testing.wait_all_tasks_blocked()
                assert not failed.is_set(), "the queue was meant to be full"
                assert disconnect(sock)
        assert failed.is_set()


async def test_shutting_down_is_the_next_best_where_disconnecting_fails(
    streams: tuple[trio.SocketStream, trio.SocketStream],
) -> None:
    """R2."""
    client, server = streams
    assert _reset(client.socket, client.socket.fileno())
    with pytest.raises(trio.BrokenResourceError):
        await client.send_all(b"more")  # not ClosedResourceError, as after trio's own shutdown()
    await client.aclose()
    with trio.fail_after(5):
        try:
            while await server.receive_some():
                pass
            await server.send_all(b"late")
            await server.receive_some()
        except trio.BrokenResourceError:
            return
    pytest.fail("the peer was never told")


def test_a_closed_socket_is_left_alone(pair: tuple[socket.socket, socket.socket]) -> None:
    pair[0].close()
    assert not disconnect(pair[0])
