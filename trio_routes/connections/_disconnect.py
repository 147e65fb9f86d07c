"""Ending a lost TCP connection in its owner's hands: pending and later calls fail, the descriptor stays.

`connect()` with an AF_UNSPEC address makes the kernel forget the peer (tcp_disconnect in
net/ipv4/tcp.c): every task and process that waits on the socket is woken with an error, the peer
gets a reset if it can be reached, nothing has to be privileged, and it takes some 7 µs.

Rejected: `shutdown()`, which forges an end-of-file, so that half a download becomes a success;
closing the descriptor, which is not ours and whose number the next `open()` would get;
SOCK_DESTROY, which needs CAP_NET_ADMIN.
"""

from __future__ import annotations

import ctypes
import functools
import logging
import socket
import struct
from collections.abc import Callable

from ._flow import AnySocket, Flow, is_abortable

_logger = logging.getLogger(__name__)

# struct sockaddr of sa_family AF_UNSPEC (0). The kernel wants at least the two bytes of the family.
_NOWHERE = bytes(16)
_LINGER_NOTHING = struct.pack("ii", 1, 0)


@functools.cache
def _libc_connect() -> Callable[[int, bytes, int], int]:
    # Python's own connect() builds the address from the socket's family and cannot say AF_UNSPEC.
    function = ctypes.CDLL(None, use_errno=True).connect
    function.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
    function.restype = ctypes.c_int
    connect: Callable[[int, bytes, int], int] = function
    return connect


@functools.cache
def _libc_shutdown() -> Callable[[int, int], int]:
    # Not the socket object's: trio.socket would answer later sends with ClosedResourceError, as if the owner had
    # closed it.
    function = ctypes.CDLL(None, use_errno=True).shutdown
    function.argtypes = (ctypes.c_int, ctypes.c_int)
    function.restype = ctypes.c_int
    shutdown: Callable[[int, int], int] = function
    return shutdown


def cut(item: object, flow: Flow) -> bool:
    """End a connection by one of its owner's objects, if it is a stream's; False where that one was of no use.

    A datagram socket is left for its owner to bind anew.
    """
    if isinstance(item, AnySocket):
        return flow.protocol == "tcp" and disconnect(item)
    if not is_abortable(item):
        return False
    item.abort()
    return True


def disconnect(sock: AnySocket) -> bool:
    """End a TCP connection at once; the socket stays its owner's, unconnected. Never blocks, never raises.

    Returns:
      Whether the socket is disconnected now; False if it was closed already, or nothing helped.
    """
    descriptor = sock.fileno()
    if descriptor == -1:
        return False
    if _libc_connect()(descriptor, _NOWHERE, len(_NOWHERE)) == 0:
        return True
    error = ctypes.get_errno()
    _logger.debug("connect(AF_UNSPEC) failed with errno %d; shutting the socket down instead", error)
    return _reset(sock, descriptor)


def _reset(sock: AnySocket, descriptor: int) -> bool:
    """The next best: both directions shut, and a reset instead of a goodbye when the owner closes it."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOTHING)
    except OSError:
        return False
    return _libc_shutdown()(descriptor, socket.SHUT_RDWR) == 0
