r"""A recording as a file: what one netlink socket sent and read, call by call.

    +-----------------------------+~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~+
    | "trio-routes recording 1\n" | one gzip member: frames, end to end    |
    +-----------------------------+~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~~+

A frame, little-endian:

     0      1                           9        13
     +------+---------------------------+--------+~~~~~~~~~~~~~~~+
     | kind | microseconds since opening | length | length octets |
     +------+---------------------------+--------+~~~~~~~~~~~~~~~+

    kind  what happened                               the octets
    H     the socket was opened; first, and once      JSON: what `Head` has, and the byte order of netlink's integers
    S     a request was sent                          the request
    R     a datagram of the kernel's was read         the datagram
    T     the same, but the reader's buffer was short what fitted
    F     a datagram of somebody else's was read      the sender's port id (u32), the datagram
    E     a read failed                               the errno (u32); ENOBUFS: notifications were lost
    Q     a read found the queue empty                none
    .     the recording was ended properly; last      none

gzip's checksum guards the whole. The frames are checked all the same, since it proves only that a file is as its
writer left it. Nothing of the machine is in a recording but what netlink says of its network.
"""

from __future__ import annotations

import enum
import gzip
import json
import os
import struct
import sys
import zlib
from collections.abc import Iterator
from typing import IO, Final, Self, cast

import attrs

from .._errors import NetlinkDecodeError
from ..netlink import iter_messages

MAGIC: Final = b"trio-routes recording 1\n"
_MAGIC_START: Final = b"trio-routes recording "
_FRAME: Final = struct.Struct("<cQI")
_NUMBER: Final = struct.Struct("<I")
# The head is short; the limit keeps nested brackets from exhausting the stack. Then, one datagram: the kernel's are up to 32 KiB, and a channel reads with 64.
_MOST_IN_HEAD: Final = 512
_MOST_IN_FRAME: Final = 1024 * 1024
# Unpacked: a million routes, dumped twice, take half of it.
_MOST_IN_ALL: Final = 512 * 1024 * 1024
# What is unpacked in one go, and so how exactly an error can tell where it is.
_CHUNK: Final = 512


class RecordingError(ValueError):
    """A file that is no recording, or a damaged one, or a recording that cannot be played so.

    Attributes:
      problem: What is wrong.
      path: The file; "" where it is not about a file.
      offset: Where in bytes: of the file, or of its unpacked frames; None where it is about the whole.
      unpacked: Whether `offset` counts unpacked frames.
    """

    def __init__(self, problem: str, path: str = "", offset: int | None = None, *, unpacked: bool = False) -> None:
        super().__init__(problem, path, offset)
        self.problem = problem
        self.path = path
        self.offset = offset
        self.unpacked = unpacked

    def __str__(self) -> str:
        of = "unpacked frames" if self.unpacked else "file"
        where = "" if self.offset is None else f" (at byte {self.offset} of the {of})"
        return (f"{self.path}: " if self.path else "") + self.problem + where


class FrameKind(enum.Enum):
    """What happened at the socket."""

    HEAD = b"H"
    SENT = b"S"
    READ = b"R"
    TRUNCATED = b"T"
    FOREIGN = b"F"
    ERROR = b"E"
    EMPTY = b"Q"
    END = b"."


_LETTERS = frozenset(kind.value for kind in FrameKind)
_NUMBERED = (FrameKind.FOREIGN, FrameKind.ERROR)


@attrs.frozen
class Frame:
    """One call to the socket, and what came of it.

    Attributes:
      kind: What happened.
      microseconds: When, since the socket was opened.
      data: The bytes that were sent or read.
      number: FOREIGN: the sender's port id. ERROR: the errno.
    """

    kind: FrameKind
    microseconds: int
    data: bytes = b""
    number: int = 0

    def encode(self) -> bytes:
        """Return the frame as it stands in a file."""
        body = (_NUMBER.pack(self.number) if self.kind in _NUMBERED else b"") + self.data
        return _FRAME.pack(self.kind.value, self.microseconds, len(body)) + body


@attrs.frozen
class Head:
    """What a recording knows of its socket.

    Attributes:
      port: The socket's port id, by which answers are told from notifications.
      receive_buffer: Bytes of receive buffer that were granted.
      kernel: The kernel's version, "6.18", for whoever compares recordings; "" if it was no Linux.
    """

    port: int
    receive_buffer: int
    kernel: str = ""

    def encode(self) -> bytes:
        """Return the HEAD frame's octets."""
        return json.dumps({"byteorder": sys.byteorder} | attrs.asdict(self)).encode()

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Read the HEAD frame's octets.

        Raises:
          ValueError: They are no head, or that of a machine with the other byte order.
        """
        if len(data) > _MOST_IN_HEAD:
            raise ValueError(f"it claims {len(data)} bytes")
        said: object = json.loads(data)
        if not isinstance(said, dict):
            raise ValueError("it is no JSON object")
        fields = cast(dict[str, object], said)
        if fields.get("byteorder") != sys.byteorder:
            raise ValueError(f"netlink's integers are {fields.get('byteorder')}-endian in it, and not this machine's")
        port, receive_buffer, kernel = (fields.get(name) for name in ("port", "receive_buffer", "kernel"))
        if not (isinstance(port, int) and 0 < port < 2**32 and isinstance(receive_buffer, int)):
            raise ValueError("it lacks the socket's port id or receive buffer")
        return cls(port, receive_buffer, str(kernel or ""))


@attrs.frozen
class Recording:
    """What one netlink socket sent and read.

    Attributes:
      head: The socket.
      frames: What happened at it, in order; without HEAD and END.
      microseconds: How long it took, from the socket's opening to its closing.
    """

    head: Head
    frames: tuple[Frame, ...]
    microseconds: int


class RecordingWriter:
    """Writes frames to a file. The file is complete only after `end`.

    Args:
      file: Open for writing, in bytes. It stays the caller's to close.
    """

    def __init__(self, file: IO[bytes]) -> None:
        file.write(MAGIC)
        file.flush()  # so that what is left of a writer that was killed can be told from any other file
        # Neither the file's name nor the time: a recording has nothing of the machine in it.
        self._packed = gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0)
        self._last = 0

    def write(self, frame: Frame) -> None:
        """Write one frame."""
        self._last = frame.microseconds
        self._packed.write(frame.encode())

    def end(self, microseconds: int | None = None) -> None:
        """Write the END frame, of the last frame's time if none is given, and all that is still buffered."""
        self.write(Frame(FrameKind.END, self._last if microseconds is None else microseconds))
        self._packed.close()


def read_recording(path: str | os.PathLike[str], *, most_octets: int = _MOST_IN_ALL) -> Recording:
    """Read a recording, all of it.

    Args:
      path: The file.
      most_octets: Unpacked; a larger one is an error, for a small file can unpack to any size.

    Raises:
      RecordingError: It is no recording, of another version, cut off, damaged or too large.
      OSError: It cannot be read.
    """
    name = os.fspath(path)
    with open(path, "rb") as file:
        start = file.read(len(MAGIC))
        if start != MAGIC:
            raise RecordingError(_what_else(start), name, 0)
        unpacked = _unpack(file, name, most_octets)
    return _assemble(unpacked, name)


def _what_else(start: bytes) -> str:
    if start and MAGIC.startswith(start):
        return "cut off: the file ends within its first line"
    if start.startswith(_MAGIC_START):
        version = start[len(_MAGIC_START) :].split(b"\n")[0].decode("ascii", "replace")
        return f"a recording of version {version!r}; this trio_routes reads version 1"
    return "not a recording of trio_routes"


def _unpack(file: IO[bytes], path: str, most: int) -> bytes:
    unpacker = zlib.decompressobj(wbits=31)  # gzip, and nothing else
    unpacked = bytearray()
    while not unpacker.eof:
        at = file.tell()
        chunk = file.read(_CHUNK)
        if not chunk:
            raise RecordingError("cut off: the file ends within its packed frames", path, at)
        while chunk and not unpacker.eof:
            try:
                unpacked += unpacker.decompress(chunk, most + 1 - len(unpacked))
            except zlib.error as error:
                raise RecordingError(f"damaged: {error}", path, at) from None
            if len(unpacked) > most:
                raise RecordingError(f"too large: it unpacks to more than {most} bytes", path, at)
            chunk = unpacker.unconsumed_tail
    if unpacker.unused_data or file.read(1):
        raise RecordingError("damaged: something follows its end", path, file.tell())
    return bytes(unpacked)


def _assemble(unpacked: bytes, path: str) -> Recording:
    head: Head | None = None
    frames: list[Frame] = []
    last = 0
    for offset, frame in _iter_frames(unpacked, path):
        if (frame.kind is FrameKind.HEAD) != (head is None):
            raise _damaged("the first frame, and no other, must be the head", path, offset)
        if frame.microseconds < last:
            raise _damaged("a frame is earlier than the one before it", path, offset)
        if frames and frames[-1].kind is FrameKind.END:
            raise _damaged("a frame follows the end", path, offset)
        last = frame.microseconds
        if frame.kind is FrameKind.HEAD:
            try:
                head = Head.decode(frame.data)
            except ValueError as error:
                raise _damaged(f"its head cannot be read: {error}", path, offset) from None
        else:
            frames.append(frame)
    if head is None or not frames or frames[-1].kind is not FrameKind.END:
        raise RecordingError("cut off: its end is missing", path, len(unpacked), unpacked=True)
    return Recording(head, tuple(frames[:-1]), last)


def _iter_frames(unpacked: bytes, path: str) -> Iterator[tuple[int, Frame]]:
    """Yield (offset, frame)."""
    offset = 0
    while offset < len(unpacked):
        start = offset + _FRAME.size
        if start > len(unpacked):
            raise _damaged("the beginning of a frame is cut off", path, offset)
        letter, microseconds, length = _FRAME.unpack_from(unpacked, offset)
        if letter not in _LETTERS:
            raise _damaged(f"there is no kind of frame {letter!r}", path, offset)
        past = start + length
        if length > _MOST_IN_FRAME or past > len(unpacked):
            raise _damaged(f"a frame claims {length} bytes of {len(unpacked) - start}", path, offset)
        kind = FrameKind(letter)
        number = 0
        if kind in _NUMBERED:
            if length < _NUMBER.size:
                raise _damaged("a frame lacks its number", path, offset)
            (number,) = _NUMBER.unpack_from(unpacked, start)
            start += _NUMBER.size
        yield offset, Frame(kind, microseconds, unpacked[start:past], number)
        offset = past


def _damaged(problem: str, path: str, offset: int) -> RecordingError:
    return RecordingError(f"damaged: {problem}", path, offset, unpacked=True)


def request_answered(data: bytes, port: int) -> int:
    """The sequence number of the request that a datagram of the kernel's answers, or 0 for a notification.

    Args:
      data: The datagram.
      port: The reading socket's port id: a notification names whoever caused it.

    One whose first message is cut off or broken answers nothing: to its reader it is a loss.
    """
    try:
        header, _, _ = next(iter_messages(data))
    except (NetlinkDecodeError, StopIteration):
        return 0
    return header.sequence if header.port == port else 0
