"""One TCP socket that is asked by the kernel's own keepalive: its answers read, what was borrowed for it given back."""

from __future__ import annotations

import os
import socket
from typing import Final

from ._connection import Record, owned_socket
from ._evidence import Mark, Reply, mark_of, reply_of
from ._flow import AnySocket
from ._loan import Loan
from ._tcp_info import TCP_CLOSE_WAIT, TCP_ESTABLISHED, TcpInfo, has_error, read_tcp_info

LEAST_SECONDS: Final = 3.0
"""Three probes. With 5 % of loss each way one healthy connection in a thousand answers none of three."""
MOST_SECONDS: Final = 10.0
EXTENSION_SECONDS: Final = 3.0
"""For three more probes, where exactly one was answered."""

# Where an application has its own keepalive on, the kernel would add our unanswered probes to its.
_CODA_SECONDS: Final = 2.5


def can_be_asked(record: Record) -> bool:
    """Whether there is a TCP socket, and a kernel that tells what becomes of asking it."""
    sock = owned_socket(record)
    return sock is not None and read_tcp_info(sock) is not None


class Line:
    """A socket, asked.

    Its options belong to the open socket, not to a descriptor. So a duplicate is held as long as they are borrowed:
    if the owner closes his descriptor meanwhile, and another process or library has one of its own, they are given
    back all the same. The price is that the peer hears of such a closing when the next look does.

    Args:
      record: The connection's.
      may_duplicate: Whether there is a descriptor to spare; else the owner's own has to do.
    """

    def __init__(self, record: Record, *, may_duplicate: bool = True) -> None:
        self._record = record
        self._sock: AnySocket | None = None
        self._duplicate: socket.socket | None = None
        self._may_duplicate = may_duplicate
        self._loan: Loan | None = None
        self._began: Mark | None = None
        self._was_open = False
        self._ended_at: float | None = None

    def begin(self) -> float | None:
        """Borrow the options and start probing.

        Returns:
          For how many seconds silence is no answer yet; None if it cannot be asked.
        """
        sock = owned_socket(self._record)
        info = None if sock is None else read_tcp_info(sock)
        if sock is None or info is None:
            return None
        self._sock = self._hold(sock)
        self._was_open = info.state in (TCP_ESTABLISHED, TCP_CLOSE_WAIT)
        self._began = mark_of(info)
        try:
            self._loan = Loan.of(self._sock)
        except OSError:
            self.release()
            return None
        return _window(info)

    def look(self) -> Reply | None:
        """See what came of it so far; None once the owner has closed the socket, or it ended of itself."""
        sock = self._sock
        if sock is None or self._began is None or owned_socket(self._record) is None:
            return None
        info = read_tcp_info(sock)
        if info is None:
            return None
        if info.closed:
            # Without an error to tell it was the peer's reset if one could have come; else both sides had finished.
            return Reply.RESET if self._was_open or has_error(sock) else None
        return reply_of(self._began, self._record.mark, info)

    def end(self, t: float) -> bool:
        """Give the options back as soon as that does no harm; call again until it is True.

        With its own keepalive on, the application's count of unanswered probes takes in ours. Where the path is back,
        one answer sets it to 0; probing goes on until there was one, for two and a half seconds at most.
        """
        if self._ended_at is None:
            self._ended_at = t
        loan = self._loan
        if loan is not None and loan.was_kept_alive and not loan.is_shared and t - self._ended_at < _CODA_SECONDS:
            info = None if self._sock is None or owned_socket(self._record) is None else read_tcp_info(self._sock)
            if info is not None and info.probes and not info.closed:
                return False
        self.release()
        return True

    def resume(self, record: Record) -> float | None:
        """Begin anew before the options were given back: they are borrowed still.

        Returns:
          As `begin`; None also if they are not.
        """
        self._record = record
        info = None if self._sock is None else read_tcp_info(self._sock)
        if info is None or self._loan is None:
            return None
        self._ended_at, self._began = None, mark_of(info)
        return _window(info)

    def release(self) -> None:
        """Give everything back now."""
        sock, self._sock = self._sock, None
        loan, self._loan = self._loan, None
        if sock is not None and loan is not None:
            loan.give_back(sock)
        if self._duplicate is not None:
            self._duplicate.close()
            self._duplicate = None

    def _hold(self, sock: AnySocket) -> AnySocket:
        if not self._may_duplicate:
            return sock
        try:
            descriptor = os.dup(sock.fileno())
        except OSError:
            return sock  # no descriptor to spare
        # With SOCK_NONBLOCK in the type, Python leaves O_NONBLOCK alone, which the owner's descriptor shares.
        kind = sock.type | socket.SOCK_NONBLOCK
        self._duplicate = socket.socket(sock.family, kind, sock.proto, fileno=descriptor)
        return self._duplicate


def _window(info: TcpInfo) -> float:
    """For how many seconds silence is no answer yet."""
    return min(max(LEAST_SECONDS, 4 * info.rto), MOST_SECONDS)
