"""A netlink socket whose every datagram a test has written, and one that answers dumps from tables of messages."""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Callable

import trio

from trio_routes.netlink import (
    AF_INET,
    AF_INET6,
    NLM_F_DUMP,
    NLM_F_MULTI,
    Header,
    MessageType,
    RouteBody,
    build_message,
    decode_route,
    encode_done,
    encode_error,
    encode_route,
    iter_messages,
)
from trio_routes.netlink._route import RouteMessage

PORT = 4711


class ScriptedSocket:
    """Gives what was queued, in order.

    Attributes:
      queue: Datagrams as (bytes, the sender's port, whether they were truncated), and errors to raise.
      sent: What was sent.
      groups: What was joined.
    """

    port = PORT
    netns_cookie = None
    receive_buffer = 212992

    def __init__(self) -> None:
        self.queue: deque[tuple[bytes, int, bool] | OSError] = deque()
        self.sent: list[bytes] = []
        self.groups: list[int] = []
        self.closed = False
        self._arrived = trio.Event()

    def push(self, data: bytes, *, sender: int = 0, truncated: bool = False) -> None:
        self.queue.append((data, sender, truncated))
        self._arrived.set()

    def overflow(self) -> None:
        """Have the next read say that notifications were dropped."""
        self.queue.append(OSError(errno.ENOBUFS, "no buffer space"))
        self._arrived.set()

    def join(self, group: int) -> None:
        self.groups.append(group)

    def send(self, data: bytes) -> None:
        self.sent.append(data)

    def receive_into(self, buffer: bytearray) -> tuple[int, bool, int]:
        if not self.queue:
            self._arrived = trio.Event()
            raise BlockingIOError(errno.EAGAIN, "nothing is waiting")
        waiting = self.queue.popleft()
        if isinstance(waiting, OSError):
            raise waiting
        data, sender, truncated = waiting
        buffer[: len(data)] = data
        return len(data), truncated, sender

    async def wait_readable(self) -> None:
        await self._arrived.wait()
        while not self.queue:  # somebody else has read it before the loop came round; epoll tells nobody of that
            await self._arrived.wait()

    def close(self) -> None:
        self.closed = True


class TalkingSocket(ScriptedSocket):
    """Answers each dump from `tables`, one datagram for its entries and one for its DONE.

    Attributes:
      tables: Messages as (type, payload), by the type of the request and the family it names.
      meanwhile: Called with (type of request, family) between the entries and the DONE.
      refusals: Errors to answer with instead, by (type of request, family), once each.
      flags: nlmsg_flags of the entries of the dumps to come, once each.
      asked: What was asked of a single route.
      ways: Answers that: with a route, an error, or None for no answer at all.
    """

    def __init__(self) -> None:
        super().__init__()
        self.tables: dict[tuple[int, int], list[tuple[int, bytes]]] = {}
        self.meanwhile: Callable[[int, int], None] = lambda _type, _family: None
        self.refusals: dict[tuple[int, int], int] = {}
        self.flags: dict[tuple[int, int], int] = {}
        self.dumps: list[tuple[int, int]] = []
        self.asked: list[RouteMessage] = []
        self.ways: Callable[[RouteMessage], RouteBody | int | None] = lambda _asked: errno.EOPNOTSUPP

    def send(self, data: bytes) -> None:
        super().send(data)
        ((header, start, end),) = iter_messages(data)
        if header.flags & NLM_F_DUMP != NLM_F_DUMP:
            self._answer(header, decode_route(data, start, end))
            return
        asked = (header.type, data[start])
        self.dumps.append(asked)
        if asked in self.refusals:
            self._refuse(header, self.refusals.pop(asked))
            return
        flags = NLM_F_MULTI | self.flags.pop(asked, 0)
        entries = [
            build_message(kind, flags, header.sequence, payload, PORT) for kind, payload in self.tables.get(asked, [])
        ]
        self.push(b"".join(entries))
        self.meanwhile(*asked)
        done_flags, payload = encode_done()
        self.push(build_message(MessageType.DONE, done_flags, header.sequence, payload, PORT))

    def _answer(self, header: Header, asked: RouteMessage) -> None:
        self.asked.append(asked)
        way = self.ways(asked)
        if isinstance(way, int):
            self._refuse(header, way)
        elif way is not None:
            payload = encode_route(RouteMessage(way, asked.destination))
            self.push(build_message(MessageType.RTM_NEWROUTE, 0, header.sequence, payload, PORT))

    def _refuse(self, header: Header, number: int) -> None:
        flags, payload = encode_error(number, header, "the test said no")
        self.push(build_message(MessageType.ERROR, flags, header.sequence, payload, PORT))

    def notify(self, kind: int, payload: bytes, flags: int = 0) -> None:
        """Announce a change; the request that caused it was another socket's."""
        self.push(build_message(kind, flags, 99, payload, port=1234))

    # ---- routes, which most tests are about --------------------------------------------------------

    def routes(self, family: int) -> list[tuple[int, bytes]]:
        return self.tables.setdefault((MessageType.RTM_GETROUTE, family), [])

    def set_routes(self, *routes: RouteMessage) -> None:
        """Have the kernel's tables hold these routes, and say nothing of it."""
        for family in (AF_INET, AF_INET6):
            self.routes(family).clear()
        for route in routes:
            self.routes(route.body.family).append((MessageType.RTM_NEWROUTE, encode_route(route)))

    def announce(self, route: RouteMessage, *, gone: bool = False) -> None:
        self.notify(MessageType.RTM_DELROUTE if gone else MessageType.RTM_NEWROUTE, encode_route(route), 0x600)
