"""The channel: what it lets in, what it reports, and how long it may take."""

from __future__ import annotations

import errno
import logging
import socket
import struct

import pytest

from tests._scripted_socket import PORT, ScriptedSocket
from trio_routes import testing
from trio_routes.netlink import RTNLGRP_IPV4_ROUTE, Channel, LinuxKernel, MessageType, build_message, dump_links
from trio_routes.netlink._channel import BATCH_DATAGRAMS, FEW_DATAGRAMS, READ_DATAGRAMS

NOTIFICATION = build_message(MessageType.RTM_NEWROUTE, 0, 7, b"", port=1234)


@pytest.fixture
def wire() -> ScriptedSocket:
    return ScriptedSocket()


def test_a_notification_is_told_from_a_reply_by_the_port_of_who_asked(wire: ScriptedSocket) -> None:
    channel = Channel(wire)
    sequence = channel.send(dump_links())
    reply = build_message(MessageType.DONE, 0, sequence, b"\0\0\0\0", port=PORT)
    # Somebody else's request with the same sequence number is no reply to ours.
    for data in (NOTIFICATION, reply, build_message(MessageType.RTM_NEWROUTE, 0, sequence, b"", port=1234), b"short"):
        wire.push(data)
    assert [reply_to for reply_to, _ in channel.receive().datagrams] == [0, sequence, 0, 0]


def test_sequence_numbers_differ_and_are_never_that_of_a_notification(wire: ScriptedSocket) -> None:
    channel = Channel(wire)
    channel._sequence = 0xFFFFFFFE
    assert [channel.send(dump_links()) for _ in range(3)] == [0xFFFFFFFF, 1, 2]


def test_what_the_kernel_did_not_send_is_dropped_counted_and_logged_once(
    wire: ScriptedSocket, caplog: pytest.LogCaptureFixture
) -> None:
    channel = Channel(wire)
    for sender in (0, 4711, 4711, 0):
        wire.push(NOTIFICATION, sender=sender)
    with caplog.at_level(logging.WARNING):
        assert len(channel.receive().datagrams) == 2
    assert channel.statistics.forged == 2
    assert len(caplog.records) == 1 and "4711" in caplog.text


def test_a_flood_of_forgeries_does_not_hold_the_loop(wire: ScriptedSocket) -> None:
    for _ in range(READ_DATAGRAMS + 1):
        wire.push(NOTIFICATION, sender=1)
    received = Channel(wire).receive()
    assert received.more and not received.datagrams and len(wire.queue) == 1


def test_after_an_overflow_all_that_waits_is_thrown_away_and_then_the_loss_is_reported(wire: ScriptedSocket) -> None:
    channel = Channel(wire)
    wire.push(NOTIFICATION)
    wire.overflow()
    for _ in range(2 * READ_DATAGRAMS):
        wire.push(NOTIFICATION)
    results = [channel.receive()]
    while results[-1].more:
        results.append(channel.receive())
    assert not wire.queue
    assert [bool(result.lost) for result in results] == [False, False, True]  # in batches, and once
    assert not any(result.datagrams for result in results)
    assert channel.statistics.overruns == 1
    wire.push(NOTIFICATION)
    assert len(channel.receive().datagrams) == 1


def test_a_truncated_datagram_is_a_loss(wire: ScriptedSocket) -> None:
    channel = Channel(wire)
    wire.push(NOTIFICATION, truncated=True)
    wire.push(NOTIFICATION)
    received = channel.receive()
    assert "larger" in received.lost and not received.datagrams and received.more
    assert len(channel.receive().datagrams) == 1
    assert channel.statistics.truncated == 1


def test_a_batch_is_bounded_in_datagrams_and_by_parts_of_dumps(wire: ScriptedSocket) -> None:
    channel = Channel(wire)
    for _ in range(BATCH_DATAGRAMS + 1):
        wire.push(NOTIFICATION)
    assert (len(channel.receive().datagrams), channel.receive().more) == (BATCH_DATAGRAMS, False)
    for _ in range(8):
        wire.push(bytes(32 * 1024))
    full = channel.receive()
    assert full.more and len(full.datagrams) == 1, "a part of a dump has many routes"


async def test_a_storm_is_read_faster_than_it_is_handed_on_so_that_the_kernels_buffer_does_not_overflow(
    wire: ScriptedSocket,
) -> None:
    channel = Channel(wire)
    sent = [build_message(MessageType.RTM_NEWROUTE, 0, number, b"", port=1234) for number in range(READ_DATAGRAMS)]
    for data in sent:
        wire.push(data)
    received = [channel.receive()]
    assert received[0].more and len(wire.queue) == 0 and len(received[0].datagrams) == FEW_DATAGRAMS
    while received[-1].more:
        await channel.wait_readable()  # does not wait for the socket, where nothing is left
        received.append(channel.receive())
    assert [data for each in received for _, data in each.datagrams] == sent
    assert max(len(each.datagrams) for each in received) == BATCH_DATAGRAMS


def test_what_waits_to_be_handed_on_is_bounded_and_all_of_it_is_handed_on(
    wire: ScriptedSocket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trio_routes.netlink._channel.MOST_WAITING_OCTETS", 2000 * len(NOTIFICATION))
    channel = Channel(wire)
    for _ in range(10 * READ_DATAGRAMS):
        wire.push(NOTIFICATION)
    handed_on = 0
    while (received := channel.receive()).more:
        handed_on += len(received.datagrams)
        assert channel.statistics.datagrams - handed_on < 2000 + READ_DATAGRAMS
    assert handed_on + len(received.datagrams) == 10 * READ_DATAGRAMS


def test_what_was_read_before_an_overflow_is_thrown_away_with_the_rest(wire: ScriptedSocket) -> None:
    channel = Channel(wire)
    for _ in range(BATCH_DATAGRAMS + 10):
        wire.push(NOTIFICATION)
    assert len(channel.receive().datagrams) == BATCH_DATAGRAMS
    wire.overflow()
    received = channel.receive()
    assert received.lost and not received.datagrams and not received.more


def test_other_errors_of_the_socket_are_the_callers(wire: ScriptedSocket) -> None:
    wire.queue.append(OSError(errno.EIO, "broken"))
    with pytest.raises(OSError, match="broken"):
        Channel(wire).receive()


def test_a_group_that_this_kernel_does_not_know_is_no_error(wire: ScriptedSocket) -> None:
    class Old(ScriptedSocket):
        def join(self, group: int) -> None:
            raise OSError(errno.EINVAL if group == 32 else errno.EPERM, "no")

    assert Channel(wire).join(1) and wire.groups == [1]
    assert not Channel(Old()).join(32)
    with pytest.raises(PermissionError):
        Channel(Old()).join(1)


def forged(host: testing.Host, port: int, group: int) -> None:
    """Send what looks like the kernel's word, from a process with CAP_NET_ADMIN; the header's port field says 0."""
    message = build_message(MessageType.RTM_NEWROUTE, 0, 0, struct.pack("=BBBBBBBBI", 2, 0, 0, 0, 254, 3, 0, 1, 0))
    with host.entered():
        forger = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
    with forger:
        forger.bind((0, 0))
        forger.sendto(message, (port, group))


@pytest.mark.parametrize("group", [0, 1 << RTNLGRP_IPV4_ROUTE - 1], ids=["unicast", "to the group"])
async def test_a_forgery_from_a_root_process_is_dropped(lab: testing.Lab, group: int) -> None:
    host = lab.host("device")
    kernel = LinuxKernel(host.netns)
    wire = kernel.open_netlink()
    channel = Channel(wire)
    try:
        channel.join(RTNLGRP_IPV4_ROUTE)
        forged(host, 0 if group else wire.port, group)
        await channel.wait_readable()
        assert not channel.receive().datagrams
        assert channel.statistics.forged == 1
        host.add_route("192.0.2.0/24", type="blackhole")
        await channel.wait_readable()
        assert len(channel.receive().datagrams) == 1
    finally:
        channel.close()
        kernel.close()
