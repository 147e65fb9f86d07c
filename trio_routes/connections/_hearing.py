"""What a connection's own socket has to say before anybody decides about it."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

from ._connection import owned_socket
from ._evidence import is_acknowledged, mark_of
from ._tcp_info import has_error, read_tcp_info

if TYPE_CHECKING:
    from ._connection import Record


class Word(enum.Enum):
    """What it says."""

    NOTHING = "nothing"
    ACKNOWLEDGED = "acknowledged data"
    """Bytes that were first sent by the path of now arrived: the model is wrong (rule J4)."""
    RESET = "reset"
    FINISHED = "finished"
    """Both sides have ended it, or its owner has."""


def hear(record: Record) -> Word:
    """Ask a connection's socket. Takes some microseconds and changes nothing."""
    sock = owned_socket(record)
    info = None if sock is None else read_tcp_info(sock)
    if sock is None or info is None:
        return Word.NOTHING
    if info.closed:
        return Word.RESET if has_error(sock) else Word.FINISHED
    acknowledged = record.mark is not None and is_acknowledged(record.mark, info)
    return Word.ACKNOWLEDGED if acknowledged else Word.NOTHING


def has_ended(record: Record) -> bool:
    """Whether the kernel has no connection any more, whatever ended it; False where there is no socket to tell."""
    sock = owned_socket(record)
    info = None if sock is None else read_tcp_info(sock)
    return info is not None and info.closed


def take_mark(record: Record) -> None:
    """Note how far a connection has got by now."""
    sock = owned_socket(record)
    info = None if sock is None else read_tcp_info(sock)
    record.mark = None if info is None else mark_of(info)
