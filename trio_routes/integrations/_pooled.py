"""Connections in an HTTP pool, lent only while their path is good.

    standing    idle                                     serving requests (HTTP/2 may take more)
    --------    -------------------------------------    ----------------------------------------------
    GOOD        lent                                     lent
    SUSPECT     reported as expired: the pool closes it  not lent; those that run may well come through
    LOST        likewise                                 not lent; those that run fail by themselves

An idle connection that is SUSPECT might recover, and could be set aside for so long. But httpcore's
pools count what they keep, and one that is full of connections neither lent nor given up would not
make another: a request would hang where it need not. A new connection costs a round trip or two.
"""

from __future__ import annotations

from typing import Generic, Protocol, TypeVar

from ..connections import Connection, Standing
from ._network import opener

# A library's own: its request, its response, and the scheme, host and port that a connection is for.
_Request_contra = TypeVar("_Request_contra", contravariant=True)
_Response_co = TypeVar("_Response_co", covariant=True)
_Origin_contra = TypeVar("_Origin_contra", contravariant=True)


class Pooled(Protocol[_Request_contra, _Response_co, _Origin_contra]):
    """What the pools ask their connections, of both generations alike."""

    async def handle_async_request(self, request: _Request_contra) -> _Response_co: ...
    def can_handle_request(self, origin: _Origin_contra) -> bool: ...
    async def aclose(self) -> None: ...
    def info(self) -> str: ...
    def is_available(self) -> bool: ...
    def has_expired(self) -> bool: ...
    def is_idle(self) -> bool: ...
    def is_closed(self) -> bool: ...


class GuardedConnection(Generic[_Request_contra, _Response_co, _Origin_contra]):
    """A pooled connection, and the standing of the path that it lives by.

    Attributes:
      connection: The registry's record; None until it is connected.
    """

    def __init__(self, inner: Pooled[_Request_contra, _Response_co, _Origin_contra]) -> None:
        self._pooled = inner
        self.connection: Connection | None = None

    def opened(self, connection: Connection) -> None:
        """Learn by which connection it lives; through a proxy, that to the proxy."""
        self.connection = connection

    async def handle_async_request(self, request: _Request_contra) -> _Response_co:
        """Send a request, for the pool, and connect first if need be. A checkpoint."""
        token = opener.set(self)
        try:
            return await self._pooled.handle_async_request(request)
        finally:
            opener.reset(token)

    def can_handle_request(self, origin: _Origin_contra) -> bool:
        """Whether it leads there."""
        return self._pooled.can_handle_request(origin)

    async def aclose(self) -> None:
        """Close it, for the pool."""
        await self._pooled.aclose()

    def is_available(self) -> bool:
        """Whether it may take a request."""
        return self._pooled.is_available() and self._is_good()

    def has_expired(self) -> bool:
        """Whether it is idle and to be closed."""
        return self._pooled.has_expired() or (self._pooled.is_idle() and not self._is_good())

    def is_idle(self) -> bool:
        """Whether it serves no request."""
        return self._pooled.is_idle()

    def is_closed(self) -> bool:
        """Whether it has been closed."""
        return self._pooled.is_closed()

    def info(self) -> str:
        """Describe it, for logs."""
        path = "" if self.connection is None else f", {self.connection.standing.value}"
        return f"{self._pooled.info()}{path}"

    def __repr__(self) -> str:
        return f"<{type(self).__name__} [{self.info()}]>"

    def _is_good(self) -> bool:
        return self.connection is None or self.connection.standing is Standing.GOOD
