"""Recordings, as files of bytes."""

from __future__ import annotations

import io
from pathlib import Path

from trio_routes.testing._recording_format import Frame, FrameKind, Head, Recording, RecordingWriter

HEAD = Head(port=4242, receive_buffer=212992, kernel="6.18")
SMALL = Recording(HEAD, (Frame(FrameKind.SENT, 5, b"abc"), Frame(FrameKind.READ, 9, bytes(range(200)))), 12)


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
