"""Replaying a recording: which answer a pt is given, and when."""

from __future__ import annotations

import errno
import socket
import sys
from ipaddress import ip_address

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from tests.recordings._file import HEAD, SMALL
from trio_routes import testing
from trio_routes.netlink import (
    AF_INET,
    NLM_F_DUMP_INTR,
    NLM_F_MULTI,
    Channel,
    MessageType,
    Request,
    build_message,
    dump_addresses,
    dump_links,
    dump_routes,
    encode_done,
    encode_error,
    iter_messages,
)
from trio_routes.testing._recording_format import Frame, FrameKind, Recording
from trio_routes.testing._replay import ReplaySocket
from trio_routes.testing._replay_script import Script

PORT = 4242
LINKS, ADDRESSES, ROUTES = dump_links(), dump_addresses(), dump_routes(AF_INET)


def answer(sequence: int, text: bytes, *, torn: bool = False) -> list[Frame]:
    """A dump of two datagrams; the first has `text` in it."""
    flags = NLM_F_MULTI | (NLM_F_DUMP_INTR if torn else 0)
    part = build_message(MessageType.RTM_NEWLINK, flags, sequence, text, PORT)
    done_flags, done = encode_done()
    end = build_message(MessageType.DONE, done_flags, sequence, done, PORT)
    return [Frame(FrameKind.READ, 0, part), Frame(FrameKind.READ, 0, end)]


def change(seconds: float, text: bytes) -> Frame:
    return Frame(FrameKind.READ, round(seconds * 1e6), build_message(MessageType.RTM_NEWLINK, 0, 0, text))


def asked(request: Request, sequence: int) -> Frame:
    return Frame(FrameKind.SENT, 0, request.message(sequence))


def heard(channel: Channel) -> list[bytes]:
    """What can be read now: the payloads, in order; b"." for the end of a dump, b"!" and the errno for an error."""
    said: list[bytes] = []
    for _, data in channel.receive().datagrams:
        for header, start, end in iter_messages(data):
            if header.type == MessageType.DONE:
                said.append(b".")
            elif header.type == MessageType.ERROR:
                said.append(b"!%d" % -int.from_bytes(data[start : start + 4], sys.byteorder, signed=True))
            else:
                said.append(data[start:end].rstrip(b"\0"))
    return said


def playing(*frames: Frame) -> Channel:
    recording = Recording(HEAD, tuple(frames), 60_000_000)
    return Channel(ReplaySocket(recording, Script(recording)))


async def test_parts_may_be_asked_for_in_another_order_and_again(autojump_clock: MockClock) -> None:
    channel = playing(asked(LINKS, 1), *answer(1, b"links"), asked(ROUTES, 2), *answer(2, b"routes"))
    for request, text in ((ROUTES, b"routes"), (LINKS, b"links"), (ROUTES, b"routes"), (ROUTES, b"routes")):
        sequence = channel.send(request)
        received = channel.receive().datagrams
        assert [number for number, _ in received] == [sequence, sequence]
        assert text in received[0][1]


async def test_a_dump_of_a_state_that_is_past_is_not_given(autojump_clock: MockClock) -> None:
    channel = playing(
        *(asked(LINKS, 1), *answer(1, b"old")),
        change(1, b"change"),
        *(asked(LINKS, 2), *answer(2, b"new")),
        change(2, b"another"),
        *(asked(LINKS, 3), *answer(3, b"newest")),
    )
    await trio.sleep(1.5)
    channel.send(LINKS)
    assert heard(channel) == [b"change", b"new", b"."]
    await trio.sleep(1)
    channel.send(LINKS)
    assert heard(channel) == [b"another", b"newest", b"."]
    channel.send(LINKS)
    assert heard(channel) == [b"newest", b"."]


async def test_a_dump_that_was_made_later_is_held_until_then_and_another_is_refused_meanwhile(
    autojump_clock: MockClock,
) -> None:
    channel = playing(
        *(asked(LINKS, 1), *answer(1, b"links")),
        change(1, b"change"),
        *(asked(LINKS, 2), *answer(2, b"later"), asked(ROUTES, 3), *answer(3, b"routes")),
    )
    channel.send(ROUTES)
    assert heard(channel) == []
    channel.send(LINKS)
    assert heard(channel) == [b"!%d" % errno.EBUSY]
    with trio.fail_after(2):
        await channel.wait_readable()
    assert trio.current_time() == 1
    assert heard(channel) == [b"change", b"routes", b"."]


async def test_changes_come_between_the_same_parts_of_a_dump(autojump_clock: MockClock) -> None:
    first, end = answer(1, b"first")
    channel = playing(asked(LINKS, 1), first, change(1, b"change"), end)
    channel.send(LINKS)
    assert heard(channel) == [b"first"]
    await channel.wait_readable()
    assert heard(channel) == [b"change", b"."]


async def test_a_torn_dump_is_given_once(autojump_clock: MockClock) -> None:
    channel = playing(asked(LINKS, 1), *answer(1, b"torn", torn=True), asked(LINKS, 2), *answer(2, b"whole"))
    for text in (b"torn", b"whole", b"whole"):
        channel.send(LINKS)
        assert heard(channel) == [text, b"."]


async def test_a_torn_dump_is_not_given_again_where_no_other_follows_before_a_change(autojump_clock: MockClock) -> None:
    channel = playing(
        *(asked(LINKS, 1), *answer(1, b"torn", torn=True)),
        change(1, b"change"),
        *(asked(LINKS, 2), *answer(2, b"whole")),
    )
    channel.send(LINKS)
    assert heard(channel) == [b"torn", b"."]
    channel.send(LINKS)
    assert heard(channel) == []
    await channel.wait_readable()
    assert heard(channel) == [b"change", b"whole", b"."]


async def test_that_the_recorded_kernel_was_busy_is_no_answer(autojump_clock: MockClock) -> None:
    flags, payload = encode_error(errno.EBUSY, next(iter_messages(LINKS.message(1)))[0])
    busy = Frame(FrameKind.READ, 0, build_message(MessageType.ERROR, flags, 1, payload, PORT))
    channel = playing(asked(LINKS, 1), busy, asked(LINKS, 2), *answer(2, b"links"))
    channel.send(LINKS)
    assert heard(channel) == [b"links", b"."]


async def test_at_one_instant_dumps_come_before_changes_that_were_recorded_after_them(
    autojump_clock: MockClock,
) -> None:
    channel = playing(asked(LINKS, 1), *answer(1, b"links"), change(0, b"change"))
    channel.send(LINKS)
    assert heard(channel) == [b"links", b"."]
    await channel.wait_readable()
    assert heard(channel) == [b"change"]


async def test_what_was_never_asked_for_is_refused_as_unknown(autojump_clock: MockClock) -> None:
    channel = playing(asked(LINKS, 1), *answer(1, b"links"))
    channel.send(ADDRESSES)
    assert heard(channel) == [b"!%d" % errno.EOPNOTSUPP]
    channel.send(Request(LINKS.type, 1, LINKS.payload, "one link"))  # no dump
    assert heard(channel) == [b"!%d" % errno.EOPNOTSUPP]


async def test_a_recording_without_its_last_dumps_says_so_when_one_is_needed(autojump_clock: MockClock) -> None:
    channel = playing(asked(LINKS, 1), *answer(1, b"links"), change(1, b"change"))
    await trio.sleep(2)
    with pytest.raises(testing.RecordingError, match=r"no later dump .* of message type 18 and family 0"):
        channel.send(LINKS)


async def test_what_was_drained_after_a_loss_is_drained_in_one_go(autojump_clock: MockClock) -> None:
    channel = playing(
        Frame(FrameKind.ERROR, 1_000_000, number=errno.ENOBUFS),
        change(1, b"before the loss"),
        change(1.5, b"read late"),
        Frame(FrameKind.EMPTY, 1_600_000),
        change(2, b"after"),
    )
    await channel.wait_readable()
    assert trio.current_time() == 1
    assert "overflowed" in channel.receive().lost
    await channel.wait_readable()
    assert trio.current_time() == 2
    assert heard(channel) == [b"after"]


async def test_a_closed_socket_wakes_its_reader_and_whoever_waits_for_the_end(autojump_clock: MockClock) -> None:
    kernel = testing.ReplayKernel(Recording(HEAD, (change(1000, b"never read"),), 10**9))
    sock = kernel.open_netlink()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(kernel.wait_played)
        with pytest.RaisesGroup(trio.ClosedResourceError):
            async with trio.open_nursery() as inner:
                inner.start_soon(sock.wait_readable)
                await trio.testing.wait_all_tasks_blocked()
                sock.close()
    sock.close()
    with pytest.raises(OSError, match="closed"):
        sock.receive_into(bytearray(10))
    assert trio.current_time() < 1


async def test_a_replayed_kernel_has_no_network() -> None:
    kernel = testing.ReplayKernel(SMALL)
    assert await kernel.resolve("192.0.2.1", 80) == [ip_address("192.0.2.1")]
    with pytest.raises(socket.gaierror):
        await kernel.resolve("localhost", 80)
    with pytest.raises(OSError, match="a recording"):
        await kernel.connect_tcp(ip_address("192.0.2.1"), 80)
    with pytest.raises(OSError, match="a recording"):
        await kernel.listen_tcp(80)
