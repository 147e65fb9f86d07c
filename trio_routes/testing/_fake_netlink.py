"""A netlink socket of a fake kernel: answers dumps, and queues notifications, in bytes.

The queue is one, as a real socket's is: parts of a dump and notifications lie in it in the order
in which they were made. A dump is made while it is read, one part ahead of the reader, so a
change in the middle of it is announced between its parts, and the rest of the dump shows it.

Overflow (measured on Linux 6.18, docs/kernel.md)::

    overflow()           ENOBUFS        queued before        empty: EAGAIN
        |-------------------|----------------|---------------------|--------> time
        |<------- every later notification is dropped, unsaid ---->|  received again
"""

from __future__ import annotations

import errno
import itertools
from collections import deque
from collections.abc import Callable, Iterator
from typing import Final

import attrs
import trio

from .._errors import NetlinkDecodeError
from ..netlink import (
    AF_UNSPEC,
    NLM_F_DUMP,
    NLM_F_DUMP_FILTERED,
    NLM_F_MULTI,
    RT_TABLE_UNSPEC,
    Header,
    MessageType,
    build_message,
    decode_route,
    encode_address,
    encode_done,
    encode_error,
    encode_link,
    encode_neighbour,
    encode_netconf,
    encode_route,
    encode_rule,
    iter_messages,
)
from ._fake_network import FAMILIES, FakeNetwork
from ._fake_notices import neighbour_message
from ._fake_routes import refuse

_PORTS = itertools.count(4242)
_RECEIVE_BUFFER: Final = 64 * 1024 * 1024
_PART: Final = 4096  # bytes after which a part of a dump is full; small, so that tests see dumps of several parts


@attrs.frozen
class Datagram:
    """One datagram in a socket's queue.

    Attributes:
      data: Its bytes.
      sender: The sender's port id; 0 is the kernel.
      truncated: Whether the reader is told that it was longer than the buffer.
    """

    data: bytes
    sender: int = 0
    truncated: bool = False


class FakeNetlinkSocket:
    """One netlink socket; satisfies `trio_routes.netlink.NetlinkSocket`."""

    def __init__(self, network: FakeNetwork, on_close: Callable[[FakeNetlinkSocket], None]) -> None:
        self._network = network
        self._on_close = on_close
        self._port = next(_PORTS)
        self._groups: set[int] = set()
        self._queue: deque[Datagram] = deque()
        self._dump: Iterator[bytes] | None = None
        self._error = 0
        self._dropping = False
        self._closed = False
        self._readers = trio.lowlevel.ParkingLot()

    # ---- the NetlinkSocket protocol --------------------------------------------------------

    @property
    def port(self) -> int:
        """The socket's port id."""
        return self._port

    @property
    def netns_cookie(self) -> int | None:
        """None: a fake kernel is in no network namespace."""
        return None

    @property
    def receive_buffer(self) -> int:
        """Bytes of receive buffer."""
        return _RECEIVE_BUFFER

    def join(self, group: int) -> None:
        """Subscribe to one multicast group."""
        self._must_be_open()
        self._groups.add(group)

    def send(self, data: bytes) -> None:
        """Answer one request: start a dump, or say why not."""
        self._must_be_open()
        try:
            header, start, end = next(iter_messages(data))
        except (NetlinkDecodeError, StopIteration):
            return  # the kernel does not answer what it cannot take apart
        answers = self._answers(header, data[start:end])
        if answers is None:
            self._refuse(header, errno.EOPNOTSUPP, "a fake kernel answers dumps only")
        elif self._dump is not None:
            self._refuse(header, errno.EBUSY, "")  # one dump at a time (netlink_dump_start)
        else:
            self._dump = self._parts(header, answers)
            self._continue_dump()

    def receive_into(self, buffer: bytearray) -> tuple[int, bool, int]:
        """Read one datagram; see `NetlinkSocket.receive_into`."""
        self._must_be_open()
        if self._error:
            number, self._error = self._error, 0
            raise OSError(number, "the receive buffer overflowed")
        if not self._queue:
            self._dropping = False
            raise BlockingIOError(errno.EAGAIN, "nothing is waiting")
        datagram = self._queue.popleft()
        length = min(len(datagram.data), len(buffer))
        buffer[:length] = datagram.data[:length]
        self._continue_dump()
        return length, datagram.truncated or length < len(datagram.data), datagram.sender

    async def wait_readable(self) -> None:
        """Return once something may be waiting. A checkpoint."""
        self._must_be_open()
        if self.pending:
            await trio.lowlevel.checkpoint()
        else:
            await self._readers.park()
        if self._closed:
            raise trio.ClosedResourceError("the netlink socket was closed")

    def close(self) -> None:
        """Close the socket; whoever waits gets ClosedResourceError."""
        if not self._closed:
            self._closed = True
            self._queue.clear()
            self._on_close(self)
            self._readers.unpark_all()

    # ---- the kernel's side -----------------------------------------------------------------

    @property
    def pending(self) -> bool:
        """Whether there is something to read."""
        return bool(self._queue or self._error)

    @property
    def queued(self) -> int:
        """How many datagrams wait."""
        return len(self._queue)

    def notify(self, group: int, data: bytes) -> None:
        """Queue a notification, if the group was joined."""
        if group in self._groups and not self._dropping:
            self.deliver(Datagram(data))

    def deliver(self, datagram: Datagram) -> None:
        """Queue a datagram, whatever it is."""
        self._queue.append(datagram)
        self._readers.unpark_all()

    def overflow(self) -> None:
        """Behave as if the receive buffer had just become too small."""
        self._error = errno.ENOBUFS
        self._dropping = True
        self._readers.unpark_all()

    def _must_be_open(self) -> None:
        if self._closed:
            raise refuse(errno.EBADF, "the socket was closed")

    def _refuse(self, request: Header, number: int, why: str) -> None:
        flags, payload = encode_error(number, request, why)
        message = build_message(MessageType.ERROR, flags, request.sequence, payload, self._port)
        self.deliver(Datagram(message))

    # ---- dumps -----------------------------------------------------------------------------

    def _continue_dump(self) -> None:
        if self._dump is not None:
            part = next(self._dump, None)
            if part is None:
                self._dump = None
            else:
                self.deliver(Datagram(part))

    def _parts(self, request: Header, answers: Iterator[tuple[MessageType, bytes]]) -> Iterator[bytes]:
        flags = NLM_F_MULTI
        if request.type == MessageType.RTM_GETROUTE:
            flags |= NLM_F_DUMP_FILTERED  # on every strict dump of routes, filtered or not
        part = b""
        for kind, payload in answers:
            part += build_message(kind, flags, request.sequence, payload, self._port)
            if len(part) >= _PART:
                yield part
                part = b""
        if part:
            yield part
        done_flags, payload = encode_done()
        yield build_message(MessageType.DONE, done_flags, request.sequence, payload, self._port)

    def _answers(self, request: Header, payload: bytes) -> Iterator[tuple[MessageType, bytes]] | None:
        if request.flags & NLM_F_DUMP != NLM_F_DUMP:
            return None
        asked = payload[0] if payload else AF_UNSPEC
        families = FAMILIES if asked == AF_UNSPEC else (asked,) if asked in FAMILIES else ()
        match request.type:
            case MessageType.RTM_GETLINK:
                return self._links()
            case MessageType.RTM_GETADDR:
                return self._addresses(families)
            case MessageType.RTM_GETNEIGH:
                return self._neighbours(families)
            case MessageType.RTM_GETRULE:
                return self._rules(families)
            case MessageType.RTM_GETNETCONF:
                return self._netconf(families)
            case MessageType.RTM_GETNEXTHOP:
                return iter(())
            case MessageType.RTM_GETROUTE:
                return self._routes(families, _table_of(payload))
            case _:
                return None

    def _links(self) -> Iterator[tuple[MessageType, bytes]]:
        for link in list(self._network.links.values()):
            yield MessageType.RTM_NEWLINK, encode_link(link.message())

    def _addresses(self, families: tuple[int, ...]) -> Iterator[tuple[MessageType, bytes]]:
        for family in families:
            for address in list(self._network.addresses(family)):
                yield MessageType.RTM_NEWADDR, encode_address(address)

    def _neighbours(self, families: tuple[int, ...]) -> Iterator[tuple[MessageType, bytes]]:
        for link in list(self._network.links.values()):
            for address, state in list(link.neighbours.items()):
                message = neighbour_message(link, address, state)
                if message.family in families:
                    yield MessageType.RTM_NEWNEIGH, encode_neighbour(message)

    def _rules(self, families: tuple[int, ...]) -> Iterator[tuple[MessageType, bytes]]:
        for rule in list(self._network.rules):
            if rule.family in families:
                yield MessageType.RTM_NEWRULE, encode_rule(rule)

    def _netconf(self, families: tuple[int, ...]) -> Iterator[tuple[MessageType, bytes]]:
        for family in families:
            for message in self._network.netconf(family):
                yield MessageType.RTM_NEWNETCONF, encode_netconf(message)

    def _routes(self, families: tuple[int, ...], table: int) -> Iterator[tuple[MessageType, bytes]]:
        for family in families:
            routes = self._network.routes[family]
            for key in routes.keys(table):
                # Looked at only now: what changed since the dump began is shown as it is.
                for message in routes.at(key):
                    yield MessageType.RTM_NEWROUTE, encode_route(message)


def _table_of(payload: bytes) -> int:
    try:
        return decode_route(payload, 0, len(payload)).body.table
    except NetlinkDecodeError:
        return RT_TABLE_UNSPEC
