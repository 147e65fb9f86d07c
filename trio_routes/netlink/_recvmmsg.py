"""recvmmsg(2): many datagrams by one system call, by way of ctypes, which lets go of Python's lock meanwhile.

A notification read by recvmsg_into() takes 2.4 µs, of which the kernel's part is 1.1; read by the hundred and cut by
Structs, the kernel's part and 0.4. (With the datagrams in the caches; while another process sends them, some 3.5 µs.)
"""

from __future__ import annotations

import ctypes
import mmap
import socket
import struct
from collections.abc import Callable
from typing import Final, cast

from ._kernel import BulkRead

# What recvmmsg() is told and tells, as C lays it out (bits/socket.h, bits/types/struct_iovec.h, linux/netlink.h). "0P"
# is where a pointer would begin.
_SOCKADDR: Final = struct.Struct("=HHII")  # family, pad, port id, groups
_IOVEC: Final = struct.Struct("@PN")  # where to, and how much
_MMSGHDR: Final = struct.Struct(
    "@PIPNPNi0PI0P"
)  # name and its length, iovecs and their number, control data, flags; length
# Of these, what tells of a datagram: flags and length; and the port id.
_FLAGS_AT: Final = struct.calcsize("@PIPNPN")
_TOLD: Final = struct.Struct(f"@{_FLAGS_AT}xi0PI0P")
_PORT: Final = struct.Struct("=4xI4x")


def _find_recvmmsg() -> Callable[..., int] | None:
    """recvmmsg(2) of the C library, or None where it is missing. A call of it releases Python's lock."""
    try:
        function = ctypes.CDLL(None, use_errno=True).recvmmsg
    except (OSError, AttributeError):
        return None
    function.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int, ctypes.c_void_p)
    function.restype = ctypes.c_int
    return cast(Callable[..., int], function)


_recvmmsg = _find_recvmmsg()
available: bool = _recvmmsg is not None
"""Whether the C library has it."""


class Slots:
    """Room for many datagrams. It is mapped: what was never used takes no memory, and all is given back with it.

    Args:
      count: How many datagrams.
      size: Bytes of the longest one.
    """

    def __init__(self, count: int, size: int) -> None:
        self._count, self._size = count, size
        self._buffer = mmap.mmap(-1, count * size)
        self._senders = bytearray(count * _SOCKADDR.size)
        self._vectors = bytearray(count * _IOVEC.size)
        self._headers = bytearray(count * _MMSGHDR.size)
        data, senders, vectors = _address(self._buffer), _address(self._senders), _address(self._vectors)
        for at in range(count):
            vector, sender = vectors + at * _IOVEC.size, senders + at * _SOCKADDR.size
            _IOVEC.pack_into(self._vectors, at * _IOVEC.size, data + at * size, size)
            _MMSGHDR.pack_into(self._headers, at * _MMSGHDR.size, sender, _SOCKADDR.size, vector, 1, 0, 0, 0, 0)
        self._unused = bytes(self._headers)
        self._first = _address(self._headers)

    def receive(self, fileno: int, most: int) -> tuple[int, int]:
        """Read what is waiting, as far as there is room; never blocks, and has Python's lock only before and after.

        Returns:
          How many datagrams there were, and why no more: an errno, or 0.
        """
        assert _recvmmsg is not None
        count = error = 0
        most = min(most, self._count)
        while count < most and not error:
            rest = self._first + count * _MMSGHDR.size
            # An error that cuts a call short is told by the next one (net/socket.c, do_recvmmsg).
            read = _recvmmsg(fileno, rest, most - count, socket.MSG_DONTWAIT, None)
            count, error = (count + read, 0) if read >= 0 else (count, ctypes.get_errno())
        return count, error

    def take(self, count: int, error: int) -> BulkRead:
        """Copy what `receive` has read, and make room for more."""
        end = count * _MMSGHDR.size
        told = list(_TOLD.iter_unpack(memoryview(self._headers)[:end]))
        ports = [port for (port,) in _PORT.iter_unpack(memoryview(self._senders)[: count * _PORT.size])]
        buffer, size = self._buffer, self._size
        datagrams = [buffer[at * size : at * size + length] for at, (_, length) in enumerate(told)]
        odd = {
            at: (bool(flags & socket.MSG_TRUNC), port)
            for at, ((flags, _), port) in enumerate(zip(told, ports, strict=True))
            if port or flags & socket.MSG_TRUNC
        }
        self._headers[:end] = self._unused[:end]  # the kernel has written into them
        return BulkRead(datagrams, odd, error)


def _address(buffer: bytearray | mmap.mmap) -> int:
    """Where a buffer is, which must neither grow nor shrink from now on."""
    return ctypes.addressof(ctypes.c_char.from_buffer(buffer))
