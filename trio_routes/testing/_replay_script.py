"""What a recording says, taken apart: what the kernel said by itself, and its answers. Pure.

The kernel's own datagrams and the losses are *changes*: the position of anything in a recording is how many of them came
before it. An answer, a dump of one part, is known by what was asked (the kind of message and the family) and has a
position for each of its datagrams; so in a replay it comes between the same changes, whenever it was asked for::

    recorded    ask A . a1 . change 1 . a2 . change 2 . ask B . b1 . change 3 . ask A . a1' ...
    positions         0    0             1                   2   2                   3    3

A pt that is replayed need not ask what the recorded one asked, nor then. At position `p` a request gets

1. the first answer that was asked for at `p` and was not given yet;
2. else the last of those that were given and are not torn: nothing has changed since;
3. else the first that was asked for later, once the changes before it have been given: a dump may take its time.

An older one would tell of a state that is past, as no kernel does. Since a recording ends with every dump (_recording.py),
3 finds one, if no change followed it.
"""

from __future__ import annotations

import errno
import sys
from collections.abc import Iterable
from typing import Final, NamedTuple, Self

import attrs

from .._errors import NetlinkDecodeError
from ..netlink import NLM_F_DUMP, NLM_F_DUMP_INTR, MessageType, decode_error, iter_messages
from ._recording_format import Frame, FrameKind, Recording, request_answered

_HEADER_SIZE: Final = 16
_SEQUENCE_OFFSET: Final = 8


class Key(NamedTuple):
    """What a request asks for, apart from how.

    Attributes:
      type: RTM_GET*.
      family: AF_*; the first byte of every request.
    """

    type: int
    family: int

    @classmethod
    def of(cls, request: bytes) -> Self | None:
        """The key of a request for a dump; None for anything else."""
        try:
            header, start, end = next(iter_messages(request))
        except (NetlinkDecodeError, StopIteration):
            return None
        if header.flags & NLM_F_DUMP != NLM_F_DUMP:
            return None
        return cls(header.type, request[start] if start < end else 0)


@attrs.frozen
class Piece:
    """One datagram of an answer.

    Attributes:
      position: How many changes came before it.
      frame: The read that brought it.
    """

    position: int
    frame: Frame


@attrs.frozen(eq=False)
class Answer:
    """One complete dump, or the kernel's refusal.

    Attributes:
      position: How many changes came before it was asked for.
      pieces: Its datagrams.
      torn: Whether the kernel says in it that the table changed under the dump.
    """

    position: int
    pieces: tuple[Piece, ...]
    torn: bool


@attrs.define
class _Asking:
    key: Key
    position: int
    pieces: list[Piece] = attrs.Factory(list[Piece])
    torn: bool = False


class Script:
    """A recording's changes, in order, and its answers.

    Attributes:
      changes: The reads that brought a notification, something foreign, or an error.
      releases: For each change, when it is there, in microseconds.
    """

    def __init__(self, recording: Recording) -> None:
        self.changes: list[Frame] = []
        self.releases: list[int] = []
        self._answers: dict[Key, list[Answer]] = {}
        self._read(recording)

    def _read(self, recording: Recording) -> None:
        asked: dict[int, _Asking] = {}
        # What is drained after a loss was there when it was noticed, and is drained in one go again.
        lost_at: int | None = None
        for frame in recording.frames:
            if frame.kind is FrameKind.SENT:
                self._note_request(frame.data, asked)
            elif frame.kind is FrameKind.EMPTY:
                lost_at = None
            else:
                if frame.kind is FrameKind.ERROR and lost_at is None:
                    lost_at = frame.microseconds
                sequence = request_answered(frame.data, recording.head.port) if frame.kind is FrameKind.READ else 0
                if not sequence:
                    self.changes.append(frame)
                    self.releases.append(frame.microseconds if lost_at is None else lost_at)
                elif sequence in asked and self._note_piece(asked[sequence], frame):
                    del asked[sequence]

    def _note_request(self, request: bytes, asked: dict[int, _Asking]) -> None:
        key = Key.of(request)
        if key is not None:
            asked[_sequence_of(request)] = _Asking(key, len(self.changes))

    def _note_piece(self, asking: _Asking, frame: Frame) -> bool:
        """Take a datagram of an answer in; returns whether it was the last."""
        asking.pieces.append(Piece(len(self.changes), frame))
        try:
            for header, start, end in iter_messages(frame.data):
                asking.torn |= bool(header.flags & NLM_F_DUMP_INTR)
                if header.type == MessageType.DONE:
                    self._keep(asking)
                    return True
                if header.type == MessageType.ERROR:
                    # EBUSY says nothing of the tables: a replay knows itself whether it is busy.
                    if decode_error(frame.data, start, end).errno != errno.EBUSY:
                        self._keep(asking)
                    return True
        except NetlinkDecodeError:
            pass  # the pt will find it too
        return False

    def _keep(self, asking: _Asking) -> None:
        answer = Answer(asking.position, tuple(asking.pieces), asking.torn)
        self._answers.setdefault(asking.key, []).append(answer)

    def knows(self, key: Key) -> bool:
        """Whether the recorded pt ever asked for that."""
        return key in self._answers

    def answer(self, key: Key, position: int, given: Iterable[Answer]) -> Answer | None:
        """Choose an answer; None where the recording has none that is true at `position` or later.

        Args:
          key: What is asked for.
          position: How many changes the one who asks has been given.
          given: The answers that were given already.
        """
        before = set(given)
        answers = self._answers.get(key, ())
        now = [answer for answer in answers if answer.position == position]
        fresh = [answer for answer in now if answer not in before]
        if fresh:
            return fresh[0]
        again = [answer for answer in now if not answer.torn]
        if again:
            return again[-1]
        return next((answer for answer in answers if answer.position > position), None)


def with_sequence(datagram: bytes, sequence: int) -> bytes:
    """The datagram of an answer as the answer to another request of the same socket."""
    changed = bytearray(datagram)
    number = sequence.to_bytes(4, sys.byteorder)
    try:
        for _, start, _ in iter_messages(datagram):
            at = start - _HEADER_SIZE + _SEQUENCE_OFFSET
            changed[at : at + 4] = number
    except NetlinkDecodeError:
        pass  # what follows has no header to be found
    return bytes(changed)


def _sequence_of(request: bytes) -> int:
    header, _, _ = next(iter_messages(request))
    return header.sequence
