"""The options that asking borrows from an application's socket: who has them, and what they are to be given back as.

option             while asking   why
----------------   ------------   ----------------------------------------------------------------------
TCP_USER_TIMEOUT   0              one shorter than the silence so far ends the connection at the first
                                  unanswered probe (measured: ETIMEDOUT after 1.03 s)
TCP_KEEPCNT        127            the most there is (include/net/tcp.h): silence is ours to judge
TCP_KEEPINTVL      1              a probe each second
SO_KEEPALIVE       1
TCP_KEEPIDLE       1              set last: with SO_KEEPALIVE on it sets the timer anew by how long the
                                  socket has been idle, which sends the first probe now instead of in a second

An option that the application never set reads as the default of its namespace (net.ipv4.tcp_keepalive_*), and is given
back as that number.

They belong to the kernel's socket, and more than one pt of a process, each perhaps in a thread of its own, may guard
that: then all of them borrow the same once, and the last gives it back. A second that saved for itself what the first
had set would leave the application with that. So there is one ledger for the process, by the socket's cookie.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import Final, TypeAlias

from ._flow import AnySocket, cookie_of

_Option: TypeAlias = tuple[int, int]

_TCP: Final = socket.IPPROTO_TCP
_KEEPALIVE: Final = (socket.SOL_SOCKET, socket.SO_KEEPALIVE)
_BORROWED: Final = (
    ((_TCP, socket.TCP_USER_TIMEOUT), 0),
    ((_TCP, socket.TCP_KEEPCNT), 127),
    ((_TCP, socket.TCP_KEEPINTVL), 1),
    (_KEEPALIVE, 1),
    ((_TCP, socket.TCP_KEEPIDLE), 1),
)
# Given back in another order: probing stops before its count is short again, and the timer is set by the old idle time.
_RETURNED: Final = (
    _KEEPALIVE,
    (_TCP, socket.TCP_KEEPCNT),
    (_TCP, socket.TCP_KEEPINTVL),
    (_TCP, socket.TCP_KEEPIDLE),
    (_TCP, socket.TCP_USER_TIMEOUT),
)


class Loan:
    """One socket's options, borrowed by one or more who ask about it.

    Attributes:
      borrowers: How many have them.
    """

    def __init__(self, cookie: int, saved: dict[_Option, int]) -> None:
        self._cookie = cookie
        self._saved = saved
        self.borrowers: int = 1

    @property
    def was_kept_alive(self) -> bool:
        """Whether the application has its own keepalive on."""
        return bool(self._saved[_KEEPALIVE])

    @property
    def is_shared(self) -> bool:
        """Whether somebody else has borrowed the same."""
        return self.borrowers > 1

    @classmethod
    def of(cls, sock: AnySocket) -> Loan:
        """Borrow a socket's options, and set them for asking; `give_back` is to be called once.

        Raises:
          OSError: They cannot be set; nothing is borrowed.
        """
        cookie = cookie_of(sock)
        with _lock:
            loan = _loans.get(cookie)
            if loan is not None:
                loan.borrowers += 1
                return loan
            loan = cls(cookie, {option: sock.getsockopt(*option) for option, _ in _BORROWED})
            try:
                for option, value in _BORROWED:
                    sock.setsockopt(*option, value)
            except OSError:
                loan._restore(sock)
                raise
            _loans[cookie] = loan
            return loan

    def give_back(self, sock: AnySocket) -> None:
        """Give back what one borrower has; with the last, the application has its own options again.

        Args:
          sock: By which the kernel's socket can still be reached; one that is closed takes nothing back.
        """
        with _lock:
            self.borrowers -= 1
            if not self.borrowers:
                del _loans[self._cookie]
                self._restore(sock)

    def _restore(self, sock: AnySocket) -> None:
        for option in _RETURNED:
            with contextlib.suppress(OSError):  # the descriptor is closed
                sock.setsockopt(*option, self._saved[option])


_lock = threading.Lock()
_loans: dict[int, Loan] = {}
