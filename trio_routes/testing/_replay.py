"""Playing a recording to a pt: what the kernel said then, at the same times.

    played = await testing.replay("morning.trec")          # under trio.testing.MockClock(autojump_threshold=0)
    assert [type(event) for event in played.events] == [...]
    assert played.routes.lookup("192.0.2.7").outcome is Outcome.ROUTED

or, with an application in it,

    kernel = testing.ReplayKernel("morning.trec")
    async with open_pt(kernel=kernel) as pt:
        with pt.guard(stream, flow=...):
            await kernel.wait_played()

Under Trio's own clock it takes as long as the recording did. Dumps are answered when they are asked for, part by part;
`_replay_script.py` has the rules. A dump of a kind that the recorded pt never asked for is refused with EOPNOTSUPP, as by
a kernel that does not know it, and a second dump while one is under way with EBUSY.
"""

from __future__ import annotations

import errno
import math
import os
import socket
from collections import deque
from contextlib import ExitStack, suppress
from ipaddress import ip_address
from typing import Final, NoReturn

import attrs
import trio
import trio.testing

from .._events import Event, Resynced
from .._pt import open_pt
from .._routes import Routes
from .._statistics import Statistics
from ..connections import Policy
from ..netlink import IPAddress, MessageType, build_message, encode_error, iter_messages
from ._fake_routes import refuse
from ._recording_format import Frame, FrameKind, Recording, RecordingError, read_recording
from ._replay_script import Answer, Key, Script, with_sequence

# Seconds for a pt to become exact once nothing comes any more: its next try to read lost tables anew is at most 10 s off.
_SETTLING_SECONDS: Final = 60.0
_EVENTS: Final = 1_000_000


@attrs.frozen
class Replayed:
    """What a recording led to.

    Attributes:
      events: All that the pt published.
      routes: The tables in the end.
      statistics: The pt's counters in the end.
    """

    events: tuple[Event, ...]
    routes: Routes
    statistics: Statistics


async def replay(source: str | os.PathLike[str] | Recording, *, policy: Policy | None = None) -> Replayed:
    """Play a recording to a new pt, to its end. A checkpoint.

    Returns once the pt has applied all of it, lost tables read anew included.

    Args:
      source: A recording or its file.
      policy: The pt's.

    Raises:
      RecordingError: The file is no recording, or has no answer to what the pt asks.
      trio.TooSlowError: A minute after the end the pt still reads its tables anew.
    """
    kernel = ReplayKernel(source)
    with ExitStack() as subscription:
        async with open_pt(kernel=kernel, policy=Policy() if policy is None else policy) as pt:
            events = subscription.enter_context(pt.subscribe(buffer=_EVENTS))
            await kernel.wait_played()
            with trio.fail_after(_SETTLING_SECONDS), pt.subscribe(Resynced) as resyncs:
                if pt.statistics().resyncing:
                    await resyncs.receive()
                else:
                    await trio.lowlevel.checkpoint()
            routes, statistics = pt.routes, pt.statistics()
        return Replayed(tuple([event async for event in events]), routes, statistics)


class ReplayKernel:
    """A kernel that says what another one said when it was recorded; satisfies `trio_routes.Kernel`.

    It has no network: it connects nobody, and knows no names. Guard an application's stream with `flow=`.

    Args:
      source: A recording or its file.

    Raises:
      RecordingError: The file is no recording.
    """

    def __init__(self, source: str | os.PathLike[str] | Recording) -> None:
        self.recording: Recording = source if isinstance(source, Recording) else read_recording(source)
        self._script = Script(self.recording)
        self._sockets: list[ReplaySocket] = []

    def open_netlink(self) -> ReplaySocket:
        """Open a netlink socket: the recording begins. Each socket plays it from its own opening on."""
        sock = ReplaySocket(self.recording, self._script)
        self._sockets.append(sock)
        return sock

    async def wait_played(self) -> None:
        """Return once every socket's reader has applied all that was recorded. A checkpoint.

        A pt that lost notifications may still be reading its tables anew then: see `Pt.statistics`.
        """
        for sock in self._sockets:
            await sock.wait_played()
        await trio.testing.wait_all_tasks_blocked()

    async def resolve(self, host: str, port: int) -> list[IPAddress]:
        """Read an address; names are unknown (socket.gaierror). A checkpoint."""
        await trio.lowlevel.checkpoint()
        with suppress(ValueError):
            return [ip_address(host)]
        raise socket.gaierror(socket.EAI_NONAME, f"a recording knows no names: {host}")

    async def connect_tcp(
        self,
        address: IPAddress,
        port: int,
        *,
        local_address: IPAddress | None = None,
        device: str | None = None,
        mark: int = 0,
    ) -> NoReturn:
        """Not played: a recording has no packets. Raises OSError (EOPNOTSUPP). A checkpoint."""
        await trio.lowlevel.checkpoint()
        raise refuse(errno.EOPNOTSUPP, "a recording connects nobody; guard a stream of your own with flow=")

    async def listen_tcp(
        self, port: int, *, host: str | None = None, backlog: int | None = None, share_port: bool = False
    ) -> NoReturn:
        """Not played. Raises OSError (EOPNOTSUPP). A checkpoint."""
        await trio.lowlevel.checkpoint()
        raise refuse(errno.EOPNOTSUPP, "a recording has no listening sockets")


class ReplaySocket:
    """A netlink socket that plays a recording; satisfies `trio_routes.netlink.NetlinkSocket`.

    What is read goes through one queue, in which changes and pieces of answers lie in the order of their positions.
    """

    def __init__(self, recording: Recording, script: Script) -> None:
        self._head = recording.head
        self._script = script
        self._start = trio.current_time()
        self._end = self._at(recording.microseconds)
        self._position = 0
        self._queue: deque[Frame] = deque()
        self._given: list[Answer] = []
        # The pieces of the answer under way that are not queued yet, and the sequence number that they are to carry.
        self._pieces: deque[tuple[int, Frame]] = deque()
        self._closed = False
        self._readers = trio.lowlevel.ParkingLot()
        self._read_out = trio.Event()

    @property
    def port(self) -> int:
        """The recorded socket's port id."""
        return self._head.port

    @property
    def netns_cookie(self) -> int | None:
        """None: a recording is in no network namespace."""
        return None

    @property
    def receive_buffer(self) -> int:
        """The recorded socket's receive buffer in bytes."""
        return self._head.receive_buffer

    def join(self, group: int) -> None:
        """Do nothing: what is heard is what the recorded pt had subscribed to."""
        self._must_be_open()

    def send(self, data: bytes) -> None:
        """Take a request, and begin to answer it.

        Raises:
          RecordingError: The recording has no answer that is true now or later.
        """
        self._must_be_open()
        self._advance()
        header, _, _ = next(iter_messages(data))
        key = Key.of(data)
        if key is None or not self._script.knows(key):
            self._refuse(data, errno.EOPNOTSUPP)
        elif self._pieces:
            self._refuse(data, errno.EBUSY)
        else:
            answer = self._script.answer(key, self._position, self._given)
            if answer is None:
                raise RecordingError(
                    f"the recording has no later dump than was given, of message type {key.type} and family {key.family}"
                )
            self._given.append(answer)
            for piece in answer.pieces:
                frame = attrs.evolve(piece.frame, data=with_sequence(piece.frame.data, header.sequence))
                self._pieces.append((piece.position, frame))
            self._advance()
        self._readers.unpark_all()

    def receive_into(self, buffer: bytearray) -> tuple[int, bool, int]:
        """Read one datagram; see `NetlinkSocket.receive_into`."""
        self._must_be_open()
        self._advance()
        if not self._queue:
            if self._position == len(self._script.changes) and not self._pieces:
                self._read_out.set()
            raise BlockingIOError(errno.EAGAIN, "nothing is waiting")
        frame = self._queue.popleft()
        if frame.kind is FrameKind.ERROR:
            raise OSError(frame.number, os.strerror(frame.number))
        length = min(len(frame.data), len(buffer))
        buffer[:length] = frame.data[:length]
        truncated = frame.kind is FrameKind.TRUNCATED or length < len(frame.data)
        return length, truncated, frame.number

    async def wait_readable(self) -> None:
        """Return once something may be waiting. A checkpoint."""
        await trio.lowlevel.checkpoint()
        while not self._closed:
            self._advance()
            if not self._queue:
                self._advance(idle=True)
            if self._queue:
                return
            with trio.move_on_at(self._next_release()):
                await self._readers.park()
        raise trio.ClosedResourceError("the netlink socket was closed")

    def close(self) -> None:
        """Close the socket; whoever waits gets ClosedResourceError, or returns from `wait_played`."""
        if not self._closed:
            self._closed = True
            self._readers.unpark_all()
            self._read_out.set()

    async def wait_played(self) -> None:
        """Return once all was read, and as much time has passed as the recording took. A checkpoint."""
        await self._read_out.wait()
        if not self._closed:
            await trio.sleep_until(self._end)

    def _must_be_open(self) -> None:
        if self._closed:
            raise refuse(errno.EBADF, "the socket was closed")

    def _at(self, microseconds: int) -> float:
        return self._start + microseconds / 1_000_000

    def _next_release(self) -> float:
        """When the next change comes. Only changes are waited for: a piece that is not queued waits for one itself."""
        releases = self._script.releases
        return self._at(releases[self._position]) if self._position < len(releases) else math.inf

    def _advance(self, *, idle: bool = False) -> None:
        """Queue all that is there now, in the order of the positions.

        Args:
          idle: Whether the reader waits. What is due at this very instant comes only then: where no time passes, as
            under a MockClock, it came when the recorded pt had asked for all that it wanted.
        """
        now = trio.current_time()
        while True:
            release = self._next_release()
            if self._pieces and self._pieces[0][0] <= self._position:
                self._queue.append(self._pieces.popleft()[1])
            elif release < now or (idle and release == now):
                self._queue.append(self._script.changes[self._position])
                self._position += 1
            else:
                return

    def _refuse(self, request: bytes, number: int) -> None:
        header, _, _ = next(iter_messages(request))
        flags, payload = encode_error(number, header)
        message = build_message(MessageType.ERROR, flags, header.sequence, payload, self.port)
        self._queue.append(Frame(FrameKind.READ, 0, message))
