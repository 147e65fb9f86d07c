"""Connections in memory that end as TCP connections do.

`trio.testing.memory_stream_pair` would do but for one thing: nothing wakes a call that is pending
on it, and waking pending calls is what a lost connection is about.

    what one end does     its own calls, pending and later    the other end's calls
    --------------------  ----------------------------------  ---------------------------------------
    send_eof              sends: ClosedResourceError           receives: what was sent, then b""
    aclose                all: ClosedResourceError             receives: the same; sends: broken
    abort (the judge)     all: BrokenResourceError             all: broken, what was sent is dropped

Abort is what disconnecting a socket does: the peer gets a reset. Bytes pass whatever the fake
kernel's tables say: a test decides itself whether its peer is silent.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Final, final

import trio

from ..connections import Flow, ProbeAnswer

# A little more than a TCP window on a fresh connection, so that a sender without a reader soon waits.
BUFFER: Final = 64 * 1024


class _Pipe:
    """One direction: a bounded buffer, and how it ended.

    Attributes:
      ended: The writing end will send no more.
      broken: The connection was reset, or the reading end closed.
    """

    def __init__(self) -> None:
        self._data = bytearray()
        self._changed = trio.lowlevel.ParkingLot()
        self.ended: bool = False
        self.broken: bool = False

    @property
    def room(self) -> int:
        return BUFFER - len(self._data)

    @property
    def readable(self) -> bool:
        return bool(self._data or self.ended or self.broken)

    def write(self, data: memoryview) -> int:
        taken = min(self.room, len(data))
        self._data += data[:taken]
        self.wake()
        return taken

    def read(self, most: int) -> bytes:
        data = bytes(self._data[:most])
        del self._data[:most]
        self.wake()
        return data

    def end(self) -> None:
        self.ended = True
        self.wake()

    def breaks(self) -> None:
        self.broken = True
        self.wake()

    def wake(self) -> None:
        self._changed.unpark_all()

    async def change(self) -> None:
        """Wait until anything happened to the pipe."""
        await self._changed.park()


@final
class FakeStream(trio.abc.HalfCloseableStream):
    """One end of a connection in memory.

    Attributes:
      flow: Where it leads from and to, for the registry of connections.
    """

    def __init__(self, flow: Flow, outgoing: _Pipe, incoming: _Pipe, answer: Callable[[], ProbeAnswer]) -> None:
        self.flow = flow
        self._answer = answer
        self._outgoing = outgoing
        self._incoming = incoming
        self._sending = False
        self._receiving = False
        self._closed = False
        self._aborted = False

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send all of `data`; waits while the peer does not read."""
        with self._one_sender():
            await trio.lowlevel.checkpoint()
            rest = memoryview(data).cast("B")
            while True:
                self._check_sending()
                rest = rest[self._outgoing.write(rest) :]
                if not rest:
                    return
                await self._outgoing.change()

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until there is room."""
        with self._one_sender():
            await trio.lowlevel.checkpoint()
            self._check_sending()
            while not self._outgoing.room:
                await self._outgoing.change()
                self._check_sending()

    async def send_eof(self) -> None:
        """Tell the peer that there will be no more."""
        with self._one_sender():
            await trio.lowlevel.checkpoint()
            if self._outgoing.ended and not self._closed:
                return
            self._check_sending()
            self._outgoing.end()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Receive between one and `max_bytes` bytes; b"" is the peer's end-of-file."""
        most = BUFFER if max_bytes is None else operator.index(max_bytes)
        if most < 1:
            raise ValueError(f"max_bytes must be at least 1, not {max_bytes}")
        if self._receiving:
            raise trio.BusyResourceError("another task is already receiving from this stream")
        self._receiving = True
        try:
            await trio.lowlevel.checkpoint()
            self._check_open()
            while not self._incoming.readable:
                await self._incoming.change()
                self._check_open()
            if self._incoming.broken:
                raise trio.BrokenResourceError("the connection was reset by the peer")
            return self._incoming.read(most)
        finally:
            self._receiving = False

    def abort(self) -> None:
        """End the connection at once, as disconnecting a socket does; see the table at the head of this module."""
        if not self._closed and not self._aborted:
            self._aborted = True
            self._outgoing.breaks()
            self._incoming.breaks()

    def ask(self) -> ProbeAnswer:
        """How the peer answers where a kernel would ask by keepalive: as the `FakeKernel` says."""
        return self._answer()

    def close(self) -> None:
        """Close this end."""
        if not self._closed:
            self._closed = True
            self._outgoing.end()
            # Nobody will read any more: a kernel answers such bytes with a reset.
            self._incoming.breaks()

    async def aclose(self) -> None:
        """Close this end, then run a checkpoint."""
        self.close()
        await trio.lowlevel.checkpoint()

    def _check_open(self) -> None:
        if self._closed:
            raise trio.ClosedResourceError("this stream was closed")
        if self._aborted:
            raise trio.BrokenResourceError("the connection was aborted")

    def _check_sending(self) -> None:
        self._check_open()
        if self._outgoing.broken:
            raise trio.BrokenResourceError("the connection was reset by the peer")
        if self._outgoing.ended:
            raise trio.ClosedResourceError("send_eof was called")

    @contextmanager
    def _one_sender(self) -> Generator[None]:
        if self._sending:
            raise trio.BusyResourceError("another task is already sending on this stream")
        self._sending = True
        try:
            yield
        finally:
            self._sending = False

    def __repr__(self) -> str:
        return f"<FakeStream {self.flow}>"


def fake_connection(
    client: Flow, server: Flow, answer: Callable[[], ProbeAnswer] = lambda: "silence"
) -> tuple[FakeStream, FakeStream]:
    """Return both ends of a connection: the client's, the server's. `answer` says how either's peer answers probes."""
    there, back = _Pipe(), _Pipe()
    return FakeStream(client, there, back, answer), FakeStream(server, back, there, answer)
