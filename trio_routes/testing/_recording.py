"""Recording a pt: a kernel that passes everything on and writes down what its netlink socket says.

    with testing.recording(LinuxKernel(), "morning.trec") as kernel:
        async with open_pt(kernel=kernel) as pt:
            ...

What is written is what the pt needed, for it is what the pt asked for and read. One thing is added: when the pt closes
the socket, each dump that it had asked for is taken once more. So a recording ends with the kernel's own last word on
every table, and a replay that asks for a dump at a moment at which the recorded pt did not can be given a later one.

The times are those at which the reader woke up, and not those of each read: what one wake-up brought was there at once,
and a replay brings it at once.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
from collections.abc import Generator
from typing import Final

import attrs
import trio

from ..netlink import NLM_F_DUMP, IPAddress, Kernel, NetlinkSocket, Request, build_message, iter_messages
from ._recording_format import Frame, FrameKind, Head, RecordingWriter, request_answered

# A dump of a million routes takes some 5 000 reads.
_MOST_READS: Final = 100_000
# Times that the last dumps are taken while the tables change under them.
_LAST_ROUNDS: Final = 3
_READ_SIZE: Final = 64 * 1024


@contextlib.contextmanager
def recording(kernel: Kernel, path: str | os.PathLike[str], *, overwrite: bool = False) -> Generator[RecordingKernel]:
    """Make a kernel that records what another one says, for the length of a `with` block.

    The file is complete when the block has been left, however it was left. A block in which no netlink socket was
    opened leaves no file.

    Args:
      kernel: Where everything is passed on to.
      path: The file to write.
      overwrite: Whether there may be such a file already.

    Raises:
      FileExistsError: There is such a file.
      OSError: It cannot be written.
    """
    with open(path, "wb" if overwrite else "xb") as file:
        recorder = RecordingKernel(kernel, RecordingWriter(file))
        try:
            yield recorder
        finally:
            recorder.end()
            # Only what was made here: what was there before may be no file at all (/dev/null).
            if not recorder.opened and not overwrite:
                os.unlink(path)


class RecordingKernel:
    """A kernel whose netlink socket is recorded; satisfies `trio_routes.Kernel`. Made by `recording`.

    Attributes:
      opened: Whether its netlink socket was opened.
      notifications: Datagrams that the kernel sent by itself.
      datagrams: All datagrams.
    """

    def __init__(self, kernel: Kernel, writer: RecordingWriter) -> None:
        self._kernel = kernel
        self._writer = writer
        self._changed = trio.lowlevel.ParkingLot()
        self._ended = False
        self.opened: bool = False
        self.notifications: int = 0
        self.datagrams: int = 0

    def open_netlink(self) -> RecordingSocket:
        """Open the netlink socket. Raises RuntimeError at the second time: a recording is of one socket."""
        if self.opened:
            raise RuntimeError("a recording is of one netlink socket, and it has been opened already")
        inner = self._kernel.open_netlink()
        self.opened = True
        return RecordingSocket(inner, self)

    async def resolve(self, host: str, port: int) -> list[IPAddress]:
        """Look a name up; not recorded. A checkpoint."""
        return await self._kernel.resolve(host, port)

    async def connect_tcp(
        self,
        address: IPAddress,
        port: int,
        *,
        local_address: IPAddress | None = None,
        device: str | None = None,
        mark: int = 0,
    ) -> trio.abc.HalfCloseableStream:
        """Connect; not recorded. A checkpoint."""
        return await self._kernel.connect_tcp(address, port, local_address=local_address, device=device, mark=mark)

    async def listen_tcp(
        self, port: int, *, host: str | None = None, backlog: int | None = None, share_port: bool = False
    ) -> list[trio.SocketListener]:
        """Listen; not recorded. A checkpoint."""
        return await self._kernel.listen_tcp(port, host=host, backlog=backlog, share_port=share_port)

    async def wait_notifications(self, count: int) -> None:
        """Return once so many notifications were read in all. A checkpoint."""
        await trio.lowlevel.checkpoint()
        while self.notifications < count:
            await self._changed.park()

    def write(self, frame: Frame, *, notification: bool = False) -> None:
        """Write a frame; for the socket."""
        if not self._ended:
            self._writer.write(frame)
        self.datagrams += frame.kind in _DATAGRAMS
        if notification:
            self.notifications += 1
            self._changed.unpark_all()

    def end(self, microseconds: int | None = None) -> None:
        """Complete the file; for the socket, and for `recording` where a socket was left open. Twice is harmless."""
        if not self._ended:
            self._ended = True
            self._writer.end(microseconds)


_DATAGRAMS = (FrameKind.READ, FrameKind.TRUNCATED, FrameKind.FOREIGN)


@attrs.define(eq=False)
class _Clock:
    """Microseconds since the start, standing still from one wake-up to the next."""

    start: float = attrs.field(factory=trio.current_time)
    now: int = 0

    def go_on(self) -> None:
        self.now = max(self.now, round((trio.current_time() - self.start) * 1_000_000))


class RecordingSocket:
    """A netlink socket that writes down what passes; satisfies `trio_routes.netlink.NetlinkSocket`."""

    def __init__(self, inner: NetlinkSocket, kernel: RecordingKernel) -> None:
        self._inner = inner
        self._kernel = kernel
        self._clock = _Clock()
        self._dumps: dict[Request, None] = {}  # what was asked for, in order
        self._sequence = 0
        self._losses = 0
        self._empty = True
        self._closed = False
        head = Head(inner.port, inner.receive_buffer, _kernel_version())
        self._write(FrameKind.HEAD, head.encode())

    @property
    def port(self) -> int:
        """The recorded socket's port id."""
        return self._inner.port

    @property
    def netns_cookie(self) -> int | None:
        """The recorded socket's; it stands in no recording, for it means nothing after a reboot."""
        return self._inner.netns_cookie

    @property
    def receive_buffer(self) -> int:
        """The recorded socket's receive buffer in bytes."""
        return self._inner.receive_buffer

    def join(self, group: int) -> None:
        """Subscribe to one multicast group."""
        self._inner.join(group)

    def send(self, data: bytes) -> None:
        """Send one request, and write it down."""
        for header, start, end in iter_messages(data):
            self._sequence = header.sequence
            if header.flags & NLM_F_DUMP == NLM_F_DUMP:
                self._dumps[Request(header.type, header.flags, data[start:end], "")] = None
        self._clock.go_on()
        # First: an answer never comes before its question.
        self._write(FrameKind.SENT, data)
        self._inner.send(data)

    def receive_into(self, buffer: bytearray) -> tuple[int, bool, int]:
        """Read one datagram, and write it down, or why there is none."""
        try:
            length, truncated, sender = self._inner.receive_into(buffer)
        except BlockingIOError:
            if not self._empty:
                self._empty = True
                self._write(FrameKind.EMPTY)
            self._clock.go_on()
            raise
        except OSError as error:
            self._losses += error.errno == errno.ENOBUFS
            self._empty = False
            self._write(FrameKind.ERROR, number=error.errno or 0)
            raise
        self._empty = False
        data = bytes(memoryview(buffer)[:length])
        if sender:
            self._write(FrameKind.FOREIGN, data, number=sender)
        else:
            kind = FrameKind.TRUNCATED if truncated else FrameKind.READ
            self._write(kind, data, notification=not request_answered(data, self.port))
        return length, truncated, sender

    async def wait_readable(self) -> None:
        """Return once something may be waiting. A checkpoint."""
        await self._inner.wait_readable()
        self._clock.go_on()

    def close(self) -> None:
        """Take the last dumps, close the socket and complete the file."""
        if self._closed:
            return
        self._closed = True
        try:
            # Where the socket has failed, the recording ends without them. (A full disk fails at the end once more.)
            with contextlib.suppress(OSError):
                self._take_last_dumps()
        finally:
            self._inner.close()
            self._clock.go_on()
            self._kernel.end(self._clock.now)

    def _write(self, kind: FrameKind, data: bytes = b"", *, number: int = 0, notification: bool = False) -> None:
        self._kernel.write(Frame(kind, self._clock.now, data, number), notification=notification)

    # A dump is made by the one who reads it, so these need no waiting.

    def _take_last_dumps(self) -> None:
        self._drain()  # a dump that is under way, and what waits
        for _ in range(_LAST_ROUNDS):
            before = self._kernel.notifications, self._losses
            for request in self._dumps:
                self._sequence = self._sequence % 0xFFFFFFFF + 1
                message = build_message(request.type, request.flags, self._sequence, request.payload)
                self._clock.go_on()
                self._write(FrameKind.SENT, message)
                self._inner.send(message)
                self._drain()
            if before == (self._kernel.notifications, self._losses):
                return

    def _drain(self) -> None:
        buffer = bytearray(_READ_SIZE)
        for _ in range(_MOST_READS):
            try:
                self.receive_into(buffer)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise


def _kernel_version() -> str:
    """Major and minor: what follows may tell whose machine it is."""
    found = re.match(r"\d+\.\d+", os.uname().release)
    return found[0] if found else ""
