"""A fake kernel's netlink sockets: dumps, notifications, and all that can go wrong on them."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from ipaddress import ip_address

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.fake._hearing import Hearing
from trio_routes.netlink import (
    AF_INET,
    AF_INET6,
    NLM_F_DUMP_FILTERED,
    RTNLGRP_IPV4_ROUTE,
    MessageType,
    NetlinkSocket,
    build_message,
    decode_error,
    decode_netconf,
    dump_addresses,
    dump_links,
    dump_neighbours,
    dump_netconf,
    dump_nexthops,
    dump_routes,
    get_route,
    iter_messages,
)
from trio_routes.testing import FakeKernel, FakeLink


@pytest.fixture
def kernel() -> FakeKernel:
    return FakeKernel()


@pytest.fixture
def wlan0(kernel: FakeKernel) -> FakeLink:
    link = kernel.add_link("wlan0")
    link.add_address("192.0.2.2/24")
    return link


def drain(socket: NetlinkSocket) -> Iterator[bytes]:
    buffer = bytearray(65536)
    while True:
        try:
            length, _, _ = socket.receive_into(buffer)
        except BlockingIOError:
            return
        yield bytes(buffer[:length])


def types(data: bytes) -> list[int]:
    return [header.type for header, _, _ in iter_messages(data)]


def test_it_starts_with_a_loopback_link_and_the_default_rules(kernel: FakeKernel) -> None:
    state = Hearing.of(kernel.open_netlink()).state()
    assert state["dump of links"] == ["NEWLINK lo UP LOWER_UP"]
    assert [line.split()[1] for line in state["dump of IPv4 addresses"]] == ["127.0.0.1/8"]
    assert [line.split()[1] for line in state["dump of IPv6 addresses"]] == ["::1/128"]
    assert [rule.priority for rule in kernel.rules()] == [0, 32766, 32767]
    assert [rule.table for rule in kernel.rules(AF_INET6)] == [255, 254]


def test_two_sockets_have_ports_of_their_own(kernel: FakeKernel) -> None:
    assert kernel.open_netlink().port != kernel.open_netlink().port != 0


def test_an_answer_carries_the_requests_sequence_and_our_port(kernel: FakeKernel) -> None:
    socket = kernel.open_netlink()
    socket.send(dump_routes(AF_INET).message(77))
    headers = [header for data in drain(socket) for header, _, _ in iter_messages(data)]
    assert {(header.sequence, header.port) for header in headers} == {(77, socket.port)}
    assert headers[-1].type == MessageType.DONE
    assert all(header.flags & NLM_F_DUMP_FILTERED for header in headers[:-1])


@pytest.mark.usefixtures("wlan0")
def test_a_notification_carries_neither_and_goes_to_those_who_joined(kernel: FakeKernel) -> None:
    joined, other = kernel.open_netlink(), kernel.open_netlink()
    joined.join(RTNLGRP_IPV4_ROUTE)
    kernel.add_route("default", via="192.0.2.1")
    assert list(drain(other)) == []
    (data,) = drain(joined)
    ((header, _, _),) = iter_messages(data)
    assert (header.sequence, header.port) == (0, 0)


@pytest.mark.usefixtures("wlan0")
def test_a_change_in_the_middle_of_a_dump_is_told_between_its_parts_and_shown_by_the_rest(kernel: FakeKernel) -> None:
    for third in range(200):
        kernel.add_route(f"10.0.{third}.0/24", via="192.0.2.1")
    socket = kernel.open_netlink()
    socket.join(RTNLGRP_IPV4_ROUTE)
    socket.send(dump_routes(AF_INET).message(1))
    kernel.delete_route("10.0.0.0/24")  # was in the first part already
    kernel.delete_route("10.0.199.0/24")  # would have been in a later one
    seen = [types(data) for data in drain(socket)]
    assert seen[1] == seen[2] == [MessageType.RTM_DELROUTE]
    parts = [part for part in seen if part[0] == MessageType.RTM_NEWROUTE]
    assert len(parts) > 2
    assert seen[-1] == [MessageType.DONE]
    assert sum(map(len, parts)) == 200 + 6 - 1  # the connected, local and loopback routes are six


@pytest.mark.usefixtures("wlan0")
def test_a_dump_of_routes_can_be_of_one_table(kernel: FakeKernel) -> None:
    kernel.add_route("default", via="192.0.2.1", table=1000)
    assert len(Hearing.of(kernel.open_netlink()).dump(dump_routes(AF_INET, 1000))) == 1


def test_one_dump_at_a_time(kernel: FakeKernel) -> None:
    for number in range(100):
        kernel.add_link(f"link{number}")
    socket = kernel.open_netlink()
    socket.send(dump_links().message(1))
    socket.send(dump_addresses().message(2))
    _, refusal = (data for data in (next(drain(socket)), next(drain(socket))))
    ((header, start, end),) = iter_messages(refusal)
    assert (header.type, header.sequence) == (MessageType.ERROR, 2)
    assert decode_error(refusal, start, end).errno == errno.EBUSY


def test_what_is_no_dump_is_refused_in_words(kernel: FakeKernel) -> None:
    socket = kernel.open_netlink()
    socket.send(get_route(ip_address("192.0.2.1")).message(3))
    (data,) = drain(socket)
    ((_, start, end),) = iter_messages(data)
    error = decode_error(data, start, end)
    assert error.errno == errno.EOPNOTSUPP
    assert error.ext_ack


def test_the_other_tables_can_be_dumped_too(kernel: FakeKernel, wlan0: FakeLink) -> None:
    wlan0.set_neighbour("192.0.2.1", "reachable")
    wlan0.set_neighbour("2001:db8::1", "stale")
    socket = kernel.open_netlink()
    socket.send(dump_neighbours(AF_INET).message(1))
    assert [types(data) for data in drain(socket)] == [[MessageType.RTM_NEWNEIGH], [MessageType.DONE]]
    socket.send(dump_nexthops().message(2))
    assert [types(data) for data in drain(socket)] == [[MessageType.DONE]]
    socket.send(dump_netconf(AF_INET6).message(3))
    data, _ = drain(socket)
    messages = [decode_netconf(data, start, end) for _, start, end in iter_messages(data)]
    assert [message.ifindex for message in messages] == [-1, -2, 1, wlan0.ifindex]


def test_overflow_is_told_once_before_the_older_messages_and_the_later_ones_are_lost_unsaid(
    kernel: FakeKernel, wlan0: FakeLink
) -> None:
    socket = kernel.open_netlink()
    socket.join(RTNLGRP_IPV4_ROUTE)
    kernel.add_route("10.0.0.0/24", via="192.0.2.1")
    kernel.add_route("10.0.1.0/24", via="192.0.2.1")
    kernel.overflow()
    kernel.add_route("10.0.2.0/24", via="192.0.2.1")
    buffer = bytearray(65536)
    with pytest.raises(OSError, match="overflow") as caught:
        socket.receive_into(buffer)
    assert caught.value.errno == errno.ENOBUFS
    socket.receive_into(buffer)
    kernel.add_route("10.0.3.0/24", via="192.0.2.1")
    assert len(list(drain(socket))) == 1
    wlan0.set_down()  # heard again, but for IPv4 routes silent
    wlan0.set_up()
    kernel.add_route("10.0.4.0/24", via="192.0.2.1")
    assert len(list(drain(socket))) == 3  # connected, broadcast, and the new one


def test_forged_truncated_and_raw_datagrams(kernel: FakeKernel) -> None:
    socket = kernel.open_netlink()
    kernel.send_raw(b"nonsense")
    kernel.send_raw(build_message(MessageType.RTM_NEWLINK, 0, 0, b""), sender=4711)
    kernel.send_raw(b"long", truncated=True)
    buffer = bytearray(65536)
    assert socket.receive_into(buffer) == (8, False, 0)
    assert buffer[:8] == b"nonsense"
    assert socket.receive_into(buffer)[2] == 4711
    assert socket.receive_into(buffer) == (4, True, 0)
    kernel.send_raw(b"too long for the reader")
    assert socket.receive_into(bytearray(8)) == (8, True, 0)


def test_a_request_that_breaks_its_framing_is_not_answered(kernel: FakeKernel) -> None:
    socket = kernel.open_netlink()
    socket.send(b"\x01")
    socket.send(b"")
    assert list(drain(socket)) == []


async def test_waiting_ends_when_something_comes(kernel: FakeKernel) -> None:
    socket = kernel.open_netlink()
    woken: list[bool] = []
    async with trio.open_nursery() as nursery:

        async def wait() -> None:
            await socket.wait_readable()
            woken.append(True)

        nursery.start_soon(wait)
        await wait_all_tasks_blocked()
        assert not woken
        kernel.overflow()
    assert woken
    with trio.testing.assert_checkpoints():
        await socket.wait_readable()


async def test_a_closed_socket_is_told_nothing_and_wakes_who_waits(kernel: FakeKernel) -> None:
    socket = kernel.open_netlink()
    async with trio.open_nursery() as nursery:

        async def wait() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await socket.wait_readable()

        nursery.start_soon(wait)
        await wait_all_tasks_blocked()
        socket.close()
        socket.close()
    kernel.add_link("wlan0")
    with pytest.raises(OSError, match="closed"):
        socket.receive_into(bytearray(10))


def test_netlink_can_be_refused() -> None:
    with pytest.raises(PermissionError):
        FakeKernel(netlink_error=errno.EPERM).open_netlink()
