"""A network of memory streams for the portal's tests: names and connections without a socket or wall time."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from ipaddress import ip_address
from typing import TypeAlias

import trio
import trio.testing

from trio_routes.netlink import IPAddress
from trio_routes.portal import Way
from trio_routes.portal._way import Network, TlsContext

Stream: TypeAlias = "trio.StapledStream[trio.testing.MemorySendStream, trio.testing.MemoryReceiveStream]"
Server: TypeAlias = Callable[[Stream], Awaitable[None]]

ONLINE = b"HTTP/1.1 204 No Content\r\n\r\n"
PORTAL = b"HTTP/1.1 302 Found\r\nLocation: http://login.example/\r\nContent-Length: 0\r\n\r\n"


def says(*pieces: bytes, hang: bool = False) -> Server:
    """A server that answers with these bytes and closes, or falls silent."""

    async def serve(stream: Stream) -> None:
        await stream.receive_some()
        for piece in pieces:
            await stream.send_all(piece)
        if hang:
            await trio.sleep_forever()

    return serve


async def mute(stream: Stream) -> None:
    await trio.sleep_forever()


class FakeNetwork:
    """Satisfies what the detector needs of a Kernel.

    Attributes:
      server: Serves the next connections; an exception refuses them in its place.
      addresses: What every name resolves to; an exception in its place is raised.
      unreachable: Addresses towards which connecting hangs.
      connects: (time, address) of every connection that was asked for.
      devices: By which link each of them was to go.
      resolved: Every name that was looked up.
      streams: Our ends of all connections that were made.
    """

    def __init__(self, nursery: trio.Nursery, server: Server | OSError) -> None:
        self._nursery = nursery
        self.server = server
        self.addresses: list[IPAddress] | OSError = [ip_address("192.0.2.1")]
        self.unreachable: set[IPAddress] = set()
        self.connects: list[tuple[float, IPAddress]] = []
        self.devices: list[str | None] = []
        self.resolved: list[str] = []
        self.streams: list[Stream] = []

    @property
    def times(self) -> list[float]:
        return [when for when, _ in self.connects]

    async def resolve(self, host: str, port: int) -> list[IPAddress]:
        self.resolved.append(host)
        await trio.lowlevel.checkpoint()
        if host.endswith(".invalid"):
            raise socket.gaierror(socket.EAI_NONAME, "no such name")
        if isinstance(self.addresses, OSError):
            raise self.addresses
        return self.addresses

    async def connect_tcp(self, address: IPAddress, port: int, *, device: str | None = None) -> Stream:
        self.devices.append(device)
        self.connects.append((trio.current_time(), address))
        await trio.lowlevel.checkpoint()
        if address in self.unreachable:
            await trio.sleep_forever()
        if isinstance(self.server, OSError):
            raise self.server
        ours, theirs = trio.testing.memory_stream_pair()
        self.streams.append(ours)
        self._nursery.start_soon(self._serve, self.server, theirs)
        return ours

    async def _serve(self, server: Server, stream: Stream) -> None:
        try:
            await server(stream)
        except trio.BrokenResourceError:
            pass  # the probe has had enough
        finally:
            await trio.aclose_forcefully(stream)

    async def all_closed(self) -> bool:
        """Whether the prober closed its end of every connection."""
        for stream in self.streams:
            try:
                await stream.send_all(b"x")
            except trio.ClosedResourceError:
                continue
            except trio.BrokenResourceError:
                pass
            return False
        return True


def any_way(network: Network, family: int = 0) -> Way:
    """The way of the machine's own tables, over such a network."""
    return Way(network=network, tls=TlsContext(None).get, family=family)
