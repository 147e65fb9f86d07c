"""Recordings: the file, what is recorded, what a replay gives to a pt, and the corpus of real networks."""

from __future__ import annotations

import errno
import gzip
import io
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from ipaddress import ip_address
from itertools import accumulate
from pathlib import Path
from typing import Any, cast

import attrs
import pytest
import trio
import trio.testing
from hypothesis import given, strategies as st
from trio.testing import MockClock

from tests.recordings.facts import event_lines, our_tables, their_tables
from trio_routes import (
    GatewayChanged,
    Resynced,
    RouteAdded,
    RouteLostError,
    RouteRemoved,
    Verdict,
    open_pt,
    testing,
)
from trio_routes.cli import ExitStatus
from trio_routes.connections import Flow
from trio_routes.netlink import (
    AF_INET,
    NLM_F_DUMP_INTR,
    NLM_F_MULTI,
    RTNLGRP_LINK,
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
from trio_routes.testing._recording_format import MAGIC, Frame, FrameKind, Head, Recording, RecordingWriter
from trio_routes.testing._replay import ReplaySocket
from trio_routes.testing._replay_script import Script

CORPUS = Path(__file__).parent / "recordings"
NAMES = sorted(path.stem for path in CORPUS.glob("*.trec"))
PYTHON = ("env", "-u", "PYTHONUNBUFFERED", sys.executable, "-m", "trio_routes")
HEAD = Head(port=4242, receive_buffer=212992, kernel="6.18")

each_recording = pytest.mark.parametrize("name", NAMES)


def packed(recording: Recording) -> bytes:
    """The recording as a file's bytes."""
    file = io.BytesIO()
    writer = RecordingWriter(file)
    writer.write(Frame(FrameKind.HEAD, 0, recording.head.encode()))
    for frame in recording.frames:
        writer.write(frame)
    writer.end(recording.microseconds)
    return file.getvalue()


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


# ---- the file --------------------------------------------------------------------------------------


def at(deltas_and_frames: list[tuple[int, Frame]]) -> list[Frame]:
    """The frames, each so many microseconds after the one before it."""
    times = accumulate(delta for delta, _ in deltas_and_frames)
    return [attrs.evolve(frame, microseconds=now) for now, (_, frame) in zip(times, deltas_and_frames, strict=True)]


def frames() -> st.SearchStrategy[list[Frame]]:
    plain = st.sampled_from([FrameKind.READ, FrameKind.SENT, FrameKind.TRUNCATED])
    frame = st.one_of(
        st.builds(Frame, plain, st.just(0), st.binary(max_size=300)),
        st.builds(Frame, st.just(FrameKind.FOREIGN), st.just(0), st.binary(max_size=9), st.integers(1, 2**32 - 1)),
        st.builds(Frame, st.just(FrameKind.ERROR), st.just(0), st.just(b""), st.integers(1, 133)),
        st.just(Frame(FrameKind.EMPTY, 0)),
    )
    return st.lists(st.tuples(st.integers(0, 10**9), frame), max_size=20).map(at)


@given(frames(), st.integers(0, 10**9))
def test_what_is_written_is_read_again(
    tmp_path_factory: pytest.TempPathFactory, frames: list[Frame], rest: int
) -> None:
    recording = Recording(HEAD, tuple(frames), (frames[-1].microseconds if frames else 0) + rest)
    path = write(tmp_path_factory.getbasetemp() / "round.trec", packed(recording))
    assert testing.read_recording(path) == recording


SMALL = Recording(HEAD, (Frame(FrameKind.SENT, 5, b"abc"), Frame(FrameKind.READ, 9, bytes(range(200)))), 12)


def test_a_file_that_is_cut_off_anywhere_says_where(tmp_path: Path) -> None:
    whole = packed(SMALL)
    for length in range(len(whole)):
        path = write(tmp_path / "cut.trec", whole[:length])
        with pytest.raises(testing.RecordingError) as caught:
            testing.read_recording(path)
        error = caught.value
        assert error.path == str(path)
        assert error.offset is not None and 0 <= error.offset <= length
        assert not error.unpacked
        assert "cut off" in error.problem or length == 0
        assert f"(at byte {error.offset} of the file)" in str(error)


def test_a_changed_byte_is_found_wherever_it_means_something(tmp_path: Path) -> None:
    whole = packed(SMALL)
    harmless = 0
    offsets = list[int | None]()
    for at in range(len(whole)):
        for bit in (0, 3, 7):
            changed = bytearray(whole)
            changed[at] ^= 1 << bit
            path = write(tmp_path / "changed.trec", bytes(changed))
            try:
                assert testing.read_recording(path) == SMALL
                harmless += 1
            except testing.RecordingError as error:
                offsets.append(error.offset)
    # gzip's header has a time, a level and a system (6 bytes), and three flags that say nothing of what follows them.
    assert harmless <= 6 * 3 + 3
    assert None not in offsets


def frame(kind: bytes, microseconds: int, data: bytes, length: int | None = None) -> bytes:
    return struct.pack("<cQI", kind, microseconds, len(data) if length is None else length) + data


H = frame(b"H", 0, HEAD.encode())
END = frame(b".", 7, b"")


@pytest.mark.parametrize(
    ("unpacked", "problem", "offset"),
    [
        (b"", "its end is missing", 0),
        (H, "its end is missing", len(H)),
        (END, "the first frame, and no other, must be the head", 0),
        (H + H + END, "the first frame, and no other, must be the head", len(H)),
        (H + END + END, "a frame follows the end", len(H) + len(END)),
        (H + b"R123", "the beginning of a frame is cut off", len(H)),
        (H + frame(b"R", 1, b"ab", 3), "a frame claims 3 bytes of 2", len(H)),
        (H + frame(b"R", 1, b"", 2**32 - 1), "a frame claims 4294967295 bytes of 0", len(H)),
        (H + frame(b"R", 1, bytes(2**20 + 1)) + END, "a frame claims 1048577 bytes", len(H)),
        (H + frame(b"Z", 1, b"") + END, "there is no kind of frame b'Z'", len(H)),
        (H + frame(b"F", 1, b"abc") + END, "a frame lacks its number", len(H)),
        (H + frame(b"E", 1, b"") + END, "a frame lacks its number", len(H)),
        (H + frame(b"R", 9, b"") + END, "a frame is earlier than the one before it", len(H) + 13),
        (frame(b"H", 0, b"{") + END, "its head cannot be read", 0),
        (frame(b"H", 0, b"[]") + END, "it is no JSON object", 0),
        (frame(b"H", 0, b"\xff\xfe\xfd") + END, "its head cannot be read", 0),
        (frame(b"H", 0, b"[" * 100_000) + END, "it claims 100000 bytes", 0),
        (frame(b"H", 0, HEAD.encode().replace(b"4242", b"0")) + END, "it lacks the socket's port id", 0),
        (frame(b"H", 0, HEAD.encode().replace(b"4242", b'"x"')) + END, "it lacks the socket's port id", 0),
        (frame(b"H", 0, HEAD.encode().replace(sys.byteorder.encode(), b"middle")) + END, "are middle-endian in it", 0),
    ],
)
def test_frames_that_cannot_be_say_what_is_wrong_and_where(
    tmp_path: Path, unpacked: bytes, problem: str, offset: int
) -> None:
    path = write(tmp_path / "wrong.trec", MAGIC + gzip.compress(unpacked))
    with pytest.raises(testing.RecordingError) as caught:
        testing.read_recording(path)
    assert problem in caught.value.problem
    assert (caught.value.offset, caught.value.unpacked) == (offset, True)
    assert f"(at byte {offset} of the unpacked frames)" in str(caught.value)


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "not a recording"),
        (b"\xd4\xc3\xb2\xa1\x02\x00\x04\x00" + bytes(40), "not a recording"),
        (gzip.compress(H + END), "not a recording"),
        (MAGIC.replace(b"1", b"2") + gzip.compress(H + END), "of version '2'; this trio_routes reads version 1"),
        (MAGIC + b"no gzip at all", "damaged"),
        (MAGIC + gzip.compress(H + END) + b"x", "something follows its end"),
        (MAGIC + gzip.compress(H + END) * 2, "something follows its end"),
        (MAGIC + gzip.compress(H + END) + bytes(5000), "something follows its end"),
    ],
    ids=["empty", "pcap", "gzip", "newer", "no gzip", "one byte more", "twice", "zeros"],
)
def test_a_file_that_is_something_else_is_named_as_that(tmp_path: Path, data: bytes, problem: str) -> None:
    with pytest.raises(testing.RecordingError, match=problem):
        testing.read_recording(write(tmp_path / "foreign.trec", data))


def test_what_follows_the_end_is_found_also_where_a_read_ends_with_it(tmp_path: Path) -> None:
    noise = os.urandom(1024)  # which gzip cannot pack
    path = tmp_path / "aligned.trec"
    for length in range(1024):
        file = packed(Recording(HEAD, (Frame(FrameKind.READ, 0, noise[:length]),), 0))
        if (len(file) - len(MAGIC)) % 512 == 0:
            assert testing.read_recording(write(path, file)).frames
            with pytest.raises(testing.RecordingError, match="something follows its end"):
                testing.read_recording(write(path, file + b"x"))
            return
    pytest.fail("no length fits")


def test_a_small_file_that_unpacks_to_more_than_is_allowed_is_not_unpacked(tmp_path: Path) -> None:
    path = write(tmp_path / "bomb.trec", MAGIC + gzip.compress(bytes(50_000_000)))
    assert path.stat().st_size < 50_000
    with pytest.raises(testing.RecordingError, match="unpacks to more than 1000000 bytes") as caught:
        testing.read_recording(path, most_octets=1_000_000)
    assert caught.value.offset is not None and caught.value.offset < 2_000
    exact = packed(SMALL)
    size = len(gzip.decompress(exact[len(MAGIC) :]))
    assert testing.read_recording(write(path, exact), most_octets=size) == SMALL
    with pytest.raises(testing.RecordingError, match="unpacks to more than"):
        testing.read_recording(path, most_octets=size - 1)


# ---- recording -------------------------------------------------------------------------------------


async def test_what_one_pt_published_another_publishes_at_the_same_times(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    path = tmp_path / "day.trec"
    begun = time.perf_counter()
    with testing.recording(testing.FakeKernel(), path) as kernel:
        fake = cast(testing.FakeKernel, kernel._kernel)
        wlan0 = fake.add_link("wlan0")
        wlan0.add_address("192.0.2.2/24")
        opened = trio.current_time()
        async with open_pt(kernel=kernel) as pt:
            with pt.subscribe() as live:
                await trio.sleep(1)
                for _ in range(3):
                    fake.add_route("default", via="192.0.2.1")
                    await trio.sleep(1800)
                    fake.delete_route("default", via="192.0.2.1")
                    await trio.sleep(1800.25)
                recorded = [await live.receive() for _ in range(3 * 4)]
            assert pt.statistics().audits > 100
    replayed_from = trio.current_time()
    played = await testing.replay(path)
    assert [(type(e), round(e.time - replayed_from, 5)) for e in played.events] == [
        (type(e), round(e.time - opened, 5)) for e in recorded
    ]
    assert event_lines(played.events, played.routes) == event_lines(recorded, pt.routes)
    assert our_tables(played.routes) == our_tables(pt.routes)
    assert played.statistics.audit_differences == 0
    assert trio.current_time() - replayed_from == pytest.approx(1 + 3 * 3600.25, abs=0.01)
    assert time.perf_counter() - begun < 60  # of the six hours that both stand for


async def test_losses_truncation_and_forgery_are_played_as_they_came(tmp_path: Path, autojump_clock: MockClock) -> None:
    path = tmp_path / "losses.trec"
    fake = testing.FakeKernel()
    wlan0 = fake.add_link("wlan0")
    wlan0.add_address("192.0.2.2/24")
    with testing.recording(fake, path) as kernel:
        async with open_pt(kernel=kernel) as pt:
            with pt.subscribe() as live:
                await trio.sleep(5)
                fake.overflow()
                fake.add_route("default", via="192.0.2.1")  # lost
                await trio.sleep(5)
                fake.send_raw(build_message(MessageType.RTM_NEWROUTE, 0, 0, b""), sender=77)
                await trio.sleep(5)
                fake.add_route("198.51.100.0/24", via="192.0.2.9")
                fake.send_raw(build_message(MessageType.RTM_NEWROUTE, 0, 0, b""), truncated=True)
                await trio.sleep(5)
                recorded = [await live.receive() for _ in range(5)]
            statistics = pt.statistics()
    assert (statistics.overruns, statistics.forged, statistics.truncated, statistics.resyncs) == (1, 1, 1, 2)
    played = await testing.replay(path)
    assert event_lines(played.events, played.routes) == event_lines(recorded, pt.routes)
    kinds = [RouteAdded, GatewayChanged, Resynced, RouteAdded, Resynced]
    assert [type(event) for event in played.events] == kinds
    again = played.statistics
    assert (again.overruns, again.forged, again.truncated, again.resyncs) == (1, 1, 1, 2)
    assert our_tables(played.routes) == our_tables(pt.routes)


async def test_a_recording_ends_with_each_dump_that_was_asked_for(tmp_path: Path, autojump_clock: MockClock) -> None:
    path = tmp_path / "last.trec"
    fake = testing.FakeKernel()
    with testing.recording(fake, path) as kernel:
        async with open_pt(kernel=kernel):
            await trio.sleep(1)
    sent = [frame.data for frame in testing.read_recording(path).frames if frame.kind is FrameKind.SENT]
    headers = [next(iter_messages(data))[0] for data in sent]
    asked = [(header.type, data[16:17]) for header, data in zip(headers, sent, strict=True)]
    half = len(asked) // 2
    assert half >= 8
    assert asked[:half] == asked[half:]
    assert len({header.sequence for header in headers}) == len(headers)


async def test_the_last_dumps_are_taken_again_when_something_changed_under_them(
    tmp_path: Path, autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "changing.trec"
    fake = testing.FakeKernel()
    with testing.recording(fake, path) as kernel:
        sock = kernel.open_netlink()
        sock.join(RTNLGRP_LINK)
        channel = Channel(sock)
        channel.send(LINKS)
        assert len(channel.receive().datagrams) == 2
        send = sock._inner.send

        def send_late(data: bytes) -> None:
            if not kernel.notifications:
                fake.add_link("late0")
            send(data)

        monkeypatch.setattr(sock._inner, "send", send_late)
        channel.close()
    frames = testing.read_recording(path).frames
    assert sum(frame.kind is FrameKind.SENT for frame in frames) == 3
    assert b"late0" in b"".join(frame.data for frame in frames[-4:])
    data = path.read_bytes()
    assert b"changing" not in data  # gzip's header would hold the file's name,
    assert data[len(MAGIC) + 4 : len(MAGIC) + 8] == bytes(4)  # and the time


async def test_a_block_that_ends_by_an_error_leaves_a_complete_file(tmp_path: Path, autojump_clock: MockClock) -> None:
    path = tmp_path / "error.trec"
    with pytest.raises(KeyError), testing.recording(testing.FakeKernel(), path) as kernel:
        async with open_pt(kernel=kernel):
            raise KeyError
    assert (await testing.replay(path)).events == ()


async def test_no_socket_leaves_no_file_and_a_second_one_is_refused(tmp_path: Path, autojump_clock: MockClock) -> None:
    path = tmp_path / "none.trec"
    with testing.recording(testing.FakeKernel(netlink_error=errno.EPERM), path) as kernel:
        async with open_pt(kernel=kernel) as pt:
            assert not pt.monitoring
        assert path.exists()
    assert not path.exists()
    with testing.recording(testing.FakeKernel(), path) as kernel:
        kernel.open_netlink()  # and never closed
        with pytest.raises(RuntimeError, match="opened already"):
            kernel.open_netlink()
    assert testing.read_recording(path).frames == ()


def test_a_file_that_is_there_is_overwritten_only_if_asked(tmp_path: Path) -> None:
    path = write(tmp_path / "there.trec", b"precious")
    with pytest.raises(FileExistsError), testing.recording(testing.FakeKernel(), path):
        pytest.fail("the block must not begin")
    assert path.read_bytes() == b"precious"
    # What was there is not removed, even where nothing was recorded into it: it may be no file at all.
    with testing.recording(testing.FakeKernel(), path, overwrite=True):
        pass
    assert path.exists()


async def test_everything_but_netlink_goes_to_the_kernel_behind(tmp_path: Path, autojump_clock: MockClock) -> None:
    async with testing.FakeKernel() as fake:
        fake.add_link("wlan0").add_address("192.0.2.2/24")

        async def greet(stream: testing.FakeStream) -> None:
            await stream.send_all(b"hello")

        fake.listen("192.0.2.7", 80, greet, name="peer.example")
        with testing.recording(fake, tmp_path / "through.trec") as kernel:
            assert await kernel.resolve("peer.example", 80) == [ip_address("192.0.2.7")]
            stream = await kernel.connect_tcp(ip_address("192.0.2.7"), 80)
            assert await stream.receive_some() == b"hello"
            with pytest.raises(OSError, match="listening"):
                await kernel.listen_tcp(80)


# ---- replaying: which answer ------------------------------------------------------------------------

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


# ---- the corpus ------------------------------------------------------------------------------------

# Differences that the audit after a recording finds: what the kernel did without a word. The hop limit of each default
# route by router advertisement is set after the route was announced.
SILENT = {"advertisements": 1}


def expected(name: str) -> dict[str, Any]:
    return cast(dict[str, Any], json.loads((CORPUS / f"{name}.json").read_text()))


def test_there_is_a_recording_of_each_scene() -> None:
    scenes = ["advertisements", "carrier", "containers", "dhclient", "dhcpcd", "overrun", "vpn"]
    assert scenes == NAMES == sorted(path.stem for path in CORPUS.glob("*.json"))


@each_recording
async def test_a_recording_leads_to_what_was_published_live_and_to_the_tables_of_ip(
    name: str, autojump_clock: MockClock
) -> None:
    kernel = testing.ReplayKernel(CORPUS / f"{name}.trec")
    wanted = expected(name)
    begun = time.perf_counter()
    played = await testing.replay(kernel.recording)
    assert event_lines(played.events, played.routes) == wanted["events"]
    printed = {table: said for table, said in wanted.items() if table not in ("story", "events")}
    assert our_tables(played.routes) == their_tables(printed)
    assert trio.current_time() >= kernel.recording.microseconds / 1e6
    assert time.perf_counter() - begun < 5  # of up to a minute that it stands for
    assert (played.statistics.resyncs, played.statistics.undecodable) == (int(name == "overrun"), 0)


@each_recording
async def test_the_kernel_s_own_last_dump_agrees_with_what_the_notifications_led_to(
    name: str, autojump_clock: MockClock
) -> None:
    kernel = testing.ReplayKernel(CORPUS / f"{name}.trec")
    async with open_pt(kernel=kernel) as pt:
        await kernel.wait_played()
        audits = pt.statistics().audits
        await trio.sleep(61)
        statistics = pt.statistics()
    assert statistics.audits > audits
    assert statistics.audit_differences == SILENT.get(name, 0)


@each_recording
def test_a_recording_is_small_and_has_nothing_of_the_machine_in_it(name: str) -> None:
    path = CORPUS / f"{name}.trec"
    data = path.read_bytes()
    assert len(data) < 100 * 1024
    everything = gzip.decompress(data[len(MAGIC) :]) + (CORPUS / f"{name}.json").read_bytes()
    for word in (b"/tmp", b"/home", b"/root", b"/work", b"eth0@", os.fsencode(Path(__file__).parents[2])):
        assert word not in everything


DEVICE = ip_address("192.0.2.53")


async def test_a_connection_outlives_the_renewals_of_a_lease_and_not_its_loss(autojump_clock: MockClock) -> None:
    kernel = testing.ReplayKernel(CORPUS / "dhclient.trec")
    stream, _ = trio.testing.memory_stream_pair()
    async with open_pt(kernel=kernel) as pt:
        with pt.subscribe(RouteRemoved, GatewayChanged) as events:
            await events.receive()  # the first lease is complete
            flow = Flow(peer=ip_address("198.51.100.7"), peer_port=443, local=DEVICE, local_port=40000)
            begun = trio.current_time()
            with pytest.raises(RouteLostError) as lost, pt.guard(stream, flow=flow):
                await trio.sleep_forever()
            removed = await events.receive()
    assert lost.value.verdict is Verdict.SOURCE_GONE
    assert removed.time - begun > 8  # two renewals, at 3 and at 7 s or so
    assert trio.current_time() == pytest.approx(removed.time + 1, abs=0.1)


# ---- the command -----------------------------------------------------------------------------------


async def lines_of(stream: trio.abc.ReceiveStream | None) -> list[str]:
    assert stream is not None
    with trio.fail_after(20):
        return b"".join([chunk async for chunk in stream]).decode().splitlines()


async def first_line_of(stream: trio.abc.ReceiveStream | None) -> str:
    assert stream is not None
    said = b""
    with trio.fail_after(20):
        while not said.endswith(b"\n"):
            said += await stream.receive_some(1)
    return said.decode()


@pytest.fixture
async def host(lab: testing.Lab) -> testing.Host:
    host = lab.host("device")
    host.plug(lab.network("wifi"), name="wlan0", addresses=["192.0.2.2/24"])
    await trio.lowlevel.checkpoint()
    return host


def events_of(path: Path) -> list[str]:
    async def play() -> list[str]:
        played = await testing.replay(path)
        return event_lines(played.events, played.routes)

    return trio.run(play, clock=MockClock(autojump_threshold=0))


async def test_the_command_records_what_a_replay_then_says(host: testing.Host, tmp_path: Path) -> None:
    path = tmp_path / "command.trec"
    process = host.start([*PYTHON, "record", path, "-n", "2"], stdout=subprocess.PIPE)
    assert await first_line_of(process.stdout) == "recording; Ctrl-C ends it\n"
    host.add_route("default", via="192.0.2.1")
    host.delete_route("default", via="192.0.2.1")
    said = await lines_of(process.stdout)
    assert await process.wait() == ExitStatus.OK
    assert said[0].startswith("recorded ")
    assert said[0].endswith(f"; {path.stat().st_size} bytes")
    routes = [line for line in await trio.to_thread.run_sync(events_of, path) if line.startswith("Route")]
    assert routes == [
        "RouteAdded: default via 192.0.2.1 dev wlan0 proto static",
        "RouteRemoved: default via 192.0.2.1 dev wlan0 proto static",
    ]


async def test_sigterm_completes_the_file(host: testing.Host, tmp_path: Path) -> None:
    path = tmp_path / "term.trec"
    process = host.start([*PYTHON, "record", path], stdout=subprocess.PIPE)
    await first_line_of(process.stdout)
    host.add_route("198.51.100.0/24", via="192.0.2.1")
    process.terminate()
    await lines_of(process.stdout)
    assert await process.wait() == ExitStatus.OK
    (event,) = await trio.to_thread.run_sync(events_of, path)
    assert event == "RouteAdded: 198.51.100.0/24 via 192.0.2.1 dev wlan0 proto static"


async def test_a_recording_whose_writer_was_killed_is_known_to_be_cut_off(host: testing.Host, tmp_path: Path) -> None:
    path = tmp_path / "killed.trec"
    process = host.start([*PYTHON, "record", path], stdout=subprocess.PIPE)
    await first_line_of(process.stdout)
    process.kill()
    await process.wait()
    with pytest.raises(testing.RecordingError, match="cut off"):
        testing.read_recording(path)


def started(*words: str | Path) -> subprocess.Popen[str]:
    return subprocess.Popen([*PYTHON, "record", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_ctrl_c_completes_the_file(tmp_path: Path) -> None:
    path = tmp_path / "interrupted.trec"
    with started(path) as process:
        assert process.stdout and process.stderr
        assert process.stdout.readline() == "recording; Ctrl-C ends it\n"
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline().startswith("recorded ")
        assert process.stderr.read() == ""
        assert process.wait(timeout=10) == ExitStatus.OK
    assert testing.read_recording(path).frames


def test_a_file_that_is_there_is_overwritten_only_with_force(tmp_path: Path) -> None:
    path = write(tmp_path / "there.trec", b"precious")
    with started(path, "--for", "0") as process:
        _, errors = process.communicate(timeout=20)
    assert (process.returncode, path.read_bytes()) == (ExitStatus.FAILED, b"precious")
    assert errors == f"trio-routes record: there is a file {path} already; --force overwrites it\n"
    with started(path, "--for", "0.05", "--force") as process:
        output, errors = process.communicate(timeout=20)
    assert (process.returncode, errors) == (ExitStatus.OK, "")
    assert output.splitlines()[-1].startswith("recorded 0.")
    assert testing.read_recording(path).frames


def test_where_nothing_can_be_written_or_heard_it_says_so_and_leaves_no_file(tmp_path: Path) -> None:
    with started(tmp_path / "no" / "folder", "--for", "0") as process:
        _, errors = process.communicate(timeout=20)
    assert process.returncode == ExitStatus.FAILED
    assert errors.startswith("trio-routes record: ")
    assert "No such file" in errors
    path = tmp_path / "deaf.trec"
    words = ["record", str(path)]
    program = f"import socket, sys, trio_routes.cli as c; del socket.AF_NETLINK; sys.exit(c.main({words}))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == ExitStatus.FAILED
    assert done.stderr.splitlines()[-1].startswith("trio-routes record: there is nothing to record")
    assert not path.exists()
