"""A recording's file: what is written is read again, and what is wrong with one is said."""

from __future__ import annotations

import gzip
import os
import struct
import sys
from itertools import accumulate
from pathlib import Path

import attrs
import pytest
from hypothesis import given, strategies as st

from tests.recordings._file import HEAD, SMALL, packed, write
from trio_routes import testing
from trio_routes.testing._recording_format import MAGIC, Frame, FrameKind, Recording


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
