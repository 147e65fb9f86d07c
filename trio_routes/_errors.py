"""The exceptions of trio_routes.

Each subclasses what callers already catch, and carries its facts as attributes; the sentence
that ``str()`` gives is also the cancel scope's reason and the line in the log.

    ValueError                <- NetlinkDecodeError    bytes that break their framing
    OSError                   <- KernelRefusedError    a request that the kernel answered with an error
    OSError                   <- NoRouteError          no way to connect to an address
    trio.BrokenResourceError  <- RouteLostError        a connection whose path is gone

Types of upper floors are named for the type checker only: this module is the bottom.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from .connections import Connection, Loss, Verdict
    from .routing import Resolution


class NetlinkDecodeError(ValueError):
    """Bytes that claim to be netlink but break its framing.

    Attributes:
      message: What was wrong.
      offset: Where, in bytes from the start of the buffer that was being decoded.
    """

    def __init__(self, message: str, offset: int) -> None:
        super().__init__(message, offset)
        self.message = message
        self.offset = offset

    def __str__(self) -> str:
        return f"{self.message} (at byte {self.offset})"


class KernelRefusedError(OSError):
    """A netlink request that the kernel answered with an error.

    Attributes:
      errno: The kernel's error number, positive.
      request: What was asked, in words ("dump of IPv4 routes").
      ext_ack: The kernel's own explanation (NLMSGERR_ATTR_MSG), or "" where it gave none.
    """

    def __init__(self, errno: int, request: str, ext_ack: str = "") -> None:
        super().__init__(errno, os.strerror(errno))
        self.request = request
        self.ext_ack = ext_ack

    def __str__(self) -> str:
        said = f": {self.ext_ack}" if self.ext_ack else ""
        return f"the kernel refused the {self.request}: {self.strerror}{said}"


class NoRouteError(OSError):
    """There is no way to connect: no route, a rejecting route, or the route went while connecting.

    Attributes:
      errno: ENETUNREACH (no route), EHOSTUNREACH (unreachable), EACCES (prohibited) or EINVAL (blackhole).
      resolution: The routing cache's answer for the last address tried.
    """

    def __init__(self, errno: int, message: str, resolution: Resolution) -> None:
        super().__init__(errno, message)
        self.resolution = resolution


class RouteLostError(trio.BrokenResourceError):
    """The connection's path through the network is gone, and the connection was ended for it.

    Attributes:
      connection: The record of the connection.
      loss: What happened: verdict, path before and after, generation, time and cause.
    """

    def __init__(self, connection: Connection, loss: Loss) -> None:
        super().__init__(connection, loss)
        self.connection = connection
        self.loss = loss

    def __str__(self) -> str:
        return f"{self.connection.describe()}: {self.loss.describe()}"

    @property
    def verdict(self) -> Verdict:
        """What the change did to the connection."""
        return self.loss.verdict

    @property
    def before(self) -> Resolution:
        """The path under which the connection was last known good."""
        return self.loss.before

    @property
    def after(self) -> Resolution:
        """What a lookup for the same flow answered when the connection was ended."""
        return self.loss.after

    @property
    def generation(self) -> int:
        """The cache's generation at the loss."""
        return self.loss.generation
