"""Guarding what other libraries connect: a socket factory that registers every outgoing TCP socket of a Trio run.

Trio lets one object make the sockets of a run (`trio.socket.set_custom_socket_factory`). At that moment a socket has no
peer yet, and nobody tells when it has one; so a new socket is only remembered, weakly, and taken in later: at the
latest before the next change of the tables is applied, because the path under which it connected has to be looked up
while it is still there. A socket that is still connecting then is asked again the next time. Its own connect() is not
cut short: there is no peer to judge by yet.
"""

from __future__ import annotations

import logging
import socket
import weakref
from types import TracebackType
from typing import TYPE_CHECKING, final

import trio

from .._errors import RouteLostError
from ._flow import is_connected

if TYPE_CHECKING:
    from ._connection import Connection
    from ._ground import Ground
    from ._policy import Policy
    from ._registry import Registry

_logger = logging.getLogger(__name__)

# Sockets that were closed, but are still referred to, are let go when somebody looks, or when there are so many or
# twice as many as there were live ones.
_FEW = 64


def guard_new_sockets(ground: Ground, *, policy: Policy | None = None) -> NewSockets:
    """Make a block in which every outgoing TCP socket that is made in this run is guarded.

    Args:
      ground: The pt's parts.
      policy: Seconds from SUSPECT to LOST, instead of the pt's.

    Raises:
      trio.ClosedResourceError: The pt is closed.
    """
    ground.registry.check_open()
    return NewSockets(ground.registry, policy)


@final
class NewSockets(trio.abc.SocketFactory):
    """The factory, and the `with` block for as long as which it is installed."""

    def __init__(self, registry: Registry, policy: Policy | None) -> None:
        self._registry = registry
        self._policy = policy
        self._former: trio.abc.SocketFactory | None = None
        self._entered = False
        self._new: list[weakref.ref[trio.socket.SocketType]] = []
        self._guarded: list[tuple[weakref.ref[trio.socket.SocketType], Connection]] = []
        self._many = _FEW
        self._busy = False

    @trio.lowlevel.enable_ki_protection
    def __enter__(self) -> None:
        """Install the factory in this run; not a checkpoint.

        Raises:
          RuntimeError: One of ours is installed already, or this one was before.
        """
        if self._entered:
            raise RuntimeError("guard_new_sockets() can be entered only once: call it again")
        former = trio.socket.set_custom_socket_factory(self)
        if isinstance(former, NewSockets):
            trio.socket.set_custom_socket_factory(former)
            raise RuntimeError("the new sockets of this run are guarded already, by this pt or by another")
        self._entered, self._former = True, former
        self._registry.newcomers = self

    @trio.lowlevel.enable_ki_protection
    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Restore the former factory, and guard none of the sockets any more."""
        installed = trio.socket.set_custom_socket_factory(self._former)
        if installed is not self:  # somebody has put his own on top: it stays, and this one just makes sockets
            trio.socket.set_custom_socket_factory(installed)
        self._registry.newcomers = None
        self._new.clear()
        guarded, self._guarded = self._guarded, []
        for _, connection in guarded:
            self._registry.release(connection)

    def socket(
        self, family: int = socket.AF_INET, type: int = socket.SOCK_STREAM, proto: int = 0
    ) -> trio.socket.SocketType:
        """Make a socket as without us, and remember it if it may become an outgoing TCP connection."""
        if self._former is not None:
            made = self._former.socket(family, type, proto)
        else:
            made = trio.socket.from_stdlib_socket(socket.socket(family, type, proto))
        if made.family in (socket.AF_INET, socket.AF_INET6) and made.type == socket.SOCK_STREAM:
            self._new.append(weakref.ref(made))
        return made

    def take_in(self) -> None:
        """Register those that are connected by now. Not a checkpoint."""
        if self._busy:  # registering takes in, too
            return
        self._busy = True
        try:
            self._look_at_all()
        finally:
            self._busy = False

    def _look_at_all(self) -> None:
        waiting, self._new = self._new, []
        for reference in waiting:
            sock = reference()
            if sock is None or sock.fileno() == -1 or sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                continue
            if is_connected(sock):
                self._take_one_in(sock, reference)
            else:
                self._new.append(reference)
        if len(self._guarded) > self._many:
            self.let_go()

    def _take_one_in(self, sock: trio.socket.SocketType, reference: weakref.ref[trio.socket.SocketType]) -> None:
        try:
            connection = self._registry.register(sock, policy=self._policy)
        except (ValueError, OSError, RouteLostError, trio.ClosedResourceError) as error:
            _logger.debug("a new socket is not guarded: %s", error)  # of another namespace, or closed by its peer
        else:
            self._guarded.append((reference, connection))

    def let_go(self) -> None:
        """Guard those no longer that were closed. Not a checkpoint."""
        alive: list[tuple[weakref.ref[trio.socket.SocketType], Connection]] = []
        for reference, connection in self._guarded:
            sock = reference()
            if sock is None or sock.fileno() == -1:
                self._registry.release(connection)
            else:
                alive.append((reference, connection))
        self._guarded = alive
        self._many = max(_FEW, 2 * len(alive))
