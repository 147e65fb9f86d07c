"""Long dumps are read in another thread: nothing is lost, reordered or read twice by it, and the loop goes on."""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import socket
import sys
import threading
from collections.abc import Callable, Generator
from ipaddress import ip_address

import pytest
import trio

from tests._scripted_socket import PORT, ScriptedSocket
from trio_routes import open_pt, testing
from trio_routes._follow import Follower
from trio_routes.netlink import (
    AF_INET,
    NLM_F_CREATE,
    NLM_F_REQUEST,
    RTN_BLACKHOLE,
    RTPROT_STATIC,
    Channel,
    LinuxKernel,
    MessageType,
    RouteBody,
    RouteMessage,
    build_message,
    dump_routes,
    encode_route,
    get_route,
)
from trio_routes.netlink._bulk import ManyReader, many_reader
from trio_routes.netlink._channel import BULK_WAITING_OCTETS, LARGE, LONG_DUMP, MANY
from trio_routes.netlink._kernel import BulkRead
from trio_routes.routing import Cache


def part(number: int, size: int = 2 * LARGE) -> bytes:
    """What looks like a part of a dump."""
    return build_message(MessageType.RTM_NEWROUTE, 2, number, bytes(size - 16))


def small(number: int) -> bytes:
    return build_message(MessageType.RTM_NEWROUTE, 0, number, b"", port=1234)


class ScriptedReader:
    """Reads a scripted socket when the test says that the thread has got so far."""

    def __init__(self, wire: BulkWire, room: int) -> None:
        self._wire = wire
        self._room = room
        self._done: Callable[[], None] = lambda: None
        self.result: BulkRead | None = None
        self.starts = 0
        self.reads = 0
        self.rests = 0
        self.closed = False
        self.refused = False

    def start(self, done: Callable[[], None]) -> None:
        if self.refused:
            raise RuntimeError("can't start new thread")
        assert not self._wire.read_elsewhere, "two readers of one socket"
        self._wire.read_elsewhere = True
        self.starts += 1
        self._done, self.result = done, None

    def work(self) -> None:
        """Do what the thread does."""
        self._wire.read_elsewhere = False
        self.result = self._read_up_to(self._room)

    def read(self) -> BulkRead:
        assert not self._wire.read_elsewhere, "two readers of one socket"
        self.reads += 1
        return self._read_up_to(self._room)

    def _read_up_to(self, room: int) -> BulkRead:
        found: list[bytes] = []
        odd: dict[int, tuple[bool, int]] = {}
        error, buffer = 0, bytearray(65536)
        while len(found) < room and not error:
            try:
                length, truncated, sender = self._wire.receive_into(buffer)
            except OSError as caught:
                error = caught.errno or 0
            else:
                if truncated or sender:
                    odd[len(found)] = (truncated, sender)
                found.append(bytes(buffer[:length]))
        return BulkRead(found, odd, error)

    def end(self) -> Callable[[], None]:
        """Let the thread end, and its word reach the loop; returns that word."""
        self.work()
        done = self._done
        done()
        return done

    def finish(self) -> BulkRead:
        if self.result is None:
            self.work()
        assert self.result is not None
        return self.result

    def rest(self) -> None:
        self.rests += 1

    def close(self) -> None:
        self.closed = True


class BulkWire(ScriptedSocket):
    """A scripted socket that can be read in bulk, a few datagrams at once."""

    def __init__(self, room: int = 4) -> None:
        super().__init__()
        self.read_elsewhere = False
        self.reader = ScriptedReader(self, room)

    def open_bulk(self, size: int) -> ScriptedReader:
        return self.reader

    def receive_into(self, buffer: bytearray) -> tuple[int, bool, int]:
        assert not self.read_elsewhere, "two readers of one socket"
        return super().receive_into(buffer)


class Pair:
    """A channel on a scripted socket, and what it handed on."""

    def __init__(self, room: int = 4) -> None:
        self.wire = BulkWire(room)
        self.reader = self.wire.reader
        self.channel = Channel(self.wire)
        self.heard: list[bytes] = []
        self.lost: list[str] = []

    def receive(self) -> None:
        """Take all that the channel has."""
        while True:
            received = self.channel.receive()
            self.heard += [data for _, data in received.datagrams]
            self.lost += [received.lost] if received.lost else []
            if not received.more:
                return

    def begin(self) -> list[bytes]:
        """Have a dump prove to be long; what is read from then on is read elsewhere."""
        first = [part(number) for number in range(LONG_DUMP)]
        for data in first:
            self.wire.push(data)
        before = self.reader.starts
        while self.reader.starts == before:
            received = self.channel.receive()
            self.heard += [data for _, data in received.datagrams]
            assert not received.lost
        return first


def test_a_short_dump_and_notifications_are_read_here() -> None:
    pair = Pair()
    for number in range(LONG_DUMP - 1):
        pair.wire.push(part(number))
    for number in range(1000):
        pair.wire.push(small(number))
    pair.receive()
    for number in range(LONG_DUMP - 1):  # another dump: the first does not count
        pair.wire.push(part(number))
    pair.receive()
    assert len(pair.heard) == 2 * (LONG_DUMP - 1) + 1000
    assert not pair.reader.starts


def test_many_notifications_are_read_many_at_a_time_in_order() -> None:
    pair = Pair(room=100)
    sent = [small(number) for number in range(MANY + 250)]
    for data in sent[:MANY]:
        pair.wire.push(data)
    pair.receive()
    assert pair.reader.reads == 1, "to see that there are no more"
    for data in sent[MANY:]:
        pair.wire.push(data)
    pair.receive()
    assert pair.heard == sent
    assert pair.reader.reads == 1 + 3
    assert pair.channel.statistics.datagrams == len(sent)
    assert pair.channel.statistics.octets == sum(map(len, sent))


def test_nothing_is_read_many_at_a_time_while_a_dump_is_under_way() -> None:
    # Each datagram that is read makes the kernel fill another part of the dump, within the same call.
    pair = Pair(room=100)
    for end in (
        build_message(MessageType.DONE, 2, 1, bytes(4), port=PORT),
        build_message(MessageType.RTM_NEWROUTE, 2, 2, bytes(40), port=PORT)
        + build_message(MessageType.DONE, 2, 2, bytes(4), port=PORT),
        build_message(MessageType.ERROR, 0, 3, bytes(20), port=PORT),
    ):
        before = pair.reader.reads
        number = pair.channel.send(dump_routes(AF_INET))
        for _ in range(1000):
            pair.wire.push(small(1))
        pair.wire.push(build_message(MessageType.RTM_NEWROUTE, 2, number, bytes(40), port=PORT))
        for _ in range(1000):
            pair.wire.push(small(1))
        pair.receive()
        assert pair.reader.reads == before
        pair.wire.push(end)
        pair.receive()
        for _ in range(1000):
            pair.wire.push(small(1))
        pair.receive()
        assert pair.reader.reads > before
    pair.channel.send(get_route(ip_address("192.0.2.1")))  # no dump
    before = pair.reader.reads
    for _ in range(1000):
        pair.wire.push(small(1))
    pair.receive()
    assert pair.reader.reads > before


def test_an_overflow_met_many_at_a_time_is_reported_once_all_that_waited_is_thrown_away() -> None:
    pair = Pair(room=100)
    for number in range(MANY + 50):
        pair.wire.push(small(number))
    pair.wire.overflow()
    for number in range(300):
        pair.wire.push(small(number))
    pair.receive()
    pair.receive()
    assert not pair.wire.queue and pair.heard == []
    assert len(pair.lost) == 1 and "overflow" in pair.lost[0]
    assert pair.channel.statistics.datagrams == MANY + 350


def test_a_long_dump_is_read_elsewhere_in_order_and_what_follows_it_is_read_here_again() -> None:
    pair = Pair()
    sent = pair.begin()
    for number in range(10):
        sent += [part(100 + number), small(number)]
    for data in sent[LONG_DUMP:]:
        pair.wire.push(data)
    pair.receive()  # touches nothing that is read elsewhere
    rounds = 0
    while pair.wire.read_elsewhere:
        pair.reader.end()
        pair.receive()
        rounds += 1
    assert pair.heard == sent
    assert rounds == pair.reader.starts >= 4 and pair.reader.rests == 1
    pair.wire.push(small(0))
    pair.receive()
    assert len(pair.heard) == len(sent) + 1
    assert pair.reader.starts == rounds, "the dump is over"


def test_a_storm_in_a_long_dump_is_read_here() -> None:
    pair = Pair(room=8)
    pair.begin()
    for number in range(100):
        pair.wire.push(small(number))
    pair.reader.end()
    pair.receive()
    assert len(pair.heard) == LONG_DUMP + 100
    assert pair.reader.starts == 1


def test_a_thread_does_not_read_on_while_too_much_waits_to_be_handed_on() -> None:
    pair = Pair(room=1000)
    pair.begin()
    count = 2 * BULK_WAITING_OCTETS // (2 * LARGE)
    for number in range(count):
        pair.wire.push(part(number))
    pair.wire.push(small(0))
    pair.reader.work()
    assert pair.reader.result is not None
    pair.reader.result = BulkRead(pair.reader.result.datagrams, {}, 0)  # as if there were more
    pair.reader._done()
    assert pair.reader.starts == 1
    handed_on = 0
    while pair.reader.starts == 1:
        handed_on += len(pair.channel.receive().datagrams)
    assert 0 < count - handed_on <= BULK_WAITING_OCTETS // (2 * LARGE)


def test_an_overflow_met_elsewhere_is_reported_once_all_that_waited_is_thrown_away() -> None:
    pair = Pair()
    pair.begin()
    for number in range(2):
        pair.wire.push(part(number))
    pair.wire.overflow()
    for number in range(20):
        pair.wire.push(part(number))
    while pair.wire.read_elsewhere:
        pair.reader.end()
        pair.receive()
    pair.receive()
    assert not pair.wire.queue
    assert len(pair.lost) == 1 and "overflow" in pair.lost[0]
    assert pair.channel.statistics.overruns == 1
    pair.wire.push(small(0))
    pair.receive()
    assert pair.heard[-1] == small(0) and len(pair.heard) < LONG_DUMP + 5


def test_what_is_truncated_or_forged_is_told_from_the_rest_elsewhere_as_here() -> None:
    pair = Pair(room=8)
    pair.begin()
    pair.wire.push(part(1), sender=4711)
    pair.wire.push(part(2))
    pair.wire.push(part(3), truncated=True)
    pair.wire.push(part(4))
    pair.reader.end()
    pair.receive()
    pair.receive()
    assert pair.channel.statistics.forged == 1 and pair.channel.statistics.truncated == 1
    assert len(pair.lost) == 1 and "larger" in pair.lost[0]
    assert pair.heard[LONG_DUMP:] == [part(4)], "what came before the loss is of no use any more"


def test_a_failure_met_elsewhere_is_raised_here() -> None:
    pair = Pair()
    pair.begin()
    pair.wire.queue.append(OSError(errno.ENOMEM, "no memory"))
    pair.reader.end()
    with pytest.raises(OSError, match="memory") as caught:
        pair.receive()
    assert caught.value.errno == errno.ENOMEM


def test_before_a_deadline_what_is_being_read_elsewhere_is_waited_for() -> None:
    pair = Pair()
    pair.begin()
    pair.wire.push(part(100))
    pair.channel.finish_read()
    pair.receive()
    assert pair.heard[-1] == part(100)
    pair.reader._done()  # which comes late now
    pair.receive()
    assert pair.heard.count(part(100)) == 1


def test_the_follower_waits_for_it_before_a_deadline_is_acted_on() -> None:
    pair = Pair()
    pair.begin()
    pair.receive()
    pair.wire.push(build_message(200, 0, 0, b"", port=1234))  # of a kind that is nothing to us
    follower = Follower(pair.channel, Cache(), lambda _: None, clock=lambda: 0.0)
    before = pair.channel.statistics.datagrams
    follower.apply_pending()
    assert pair.channel.statistics.datagrams == before + 1


def test_without_a_thread_the_dump_is_read_here(caplog: pytest.LogCaptureFixture) -> None:
    pair = Pair()
    pair.reader.refused = True
    sent = [part(number) for number in range(3 * LONG_DUMP)]
    for data in sent:
        pair.wire.push(data)
    pair.receive()
    assert pair.heard == sent
    assert pair.reader.closed and caplog.text.count("hold up the loop") == 1


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EPERM])
@pytest.mark.parametrize("data", [part, small], ids=["a dump", "a storm"])
def test_where_recvmmsg_is_not_allowed_all_is_read_one_by_one(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, data: Callable[[int], bytes], number: int
) -> None:
    def refuse(_room: int) -> BulkRead:
        return BulkRead([], {}, number)

    pair = Pair()
    monkeypatch.setattr(pair.reader, "_read_up_to", refuse)
    sent = [data(each) for each in range(3 * LONG_DUMP)]
    for each in sent:
        pair.wire.push(each)
    pair.receive()
    pair.channel.finish_read()
    pair.receive()
    assert pair.heard == sent and not pair.lost
    assert pair.reader.closed and caplog.text.count("hold up the loop") == 1


@pytest.mark.parametrize("data", [part, small], ids=["a dump", "a storm"])
def test_without_memory_for_many_at_once_all_is_read_one_by_one(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, data: Callable[[int], bytes]
) -> None:
    def no_memory(*_: object) -> None:
        raise OSError(errno.ENOMEM, "no memory")

    pair = Pair()
    for name in ("start", "read"):
        monkeypatch.setattr(pair.reader, name, no_memory)
    sent = [data(each) for each in range(3 * LONG_DUMP)]
    for each in sent:
        pair.wire.push(each)
    pair.receive()
    assert pair.heard == sent
    assert pair.reader.closed and caplog.text.count("hold up the loop") == 1


def test_without_a_descriptor_for_a_thread_all_is_read_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_descriptor(*_: object) -> None:
        raise OSError(errno.EMFILE, "too many open files")

    monkeypatch.setattr(BulkWire, "open_bulk", no_descriptor)
    pair = Pair()
    pair.wire.push(small(1))
    pair.receive()
    assert pair.heard == [small(1)]


async def test_who_waits_is_woken_by_the_end_of_a_read_and_by_closing() -> None:
    pair = Pair()
    pair.begin()
    pair.receive()
    woken: list[bool] = []

    async def wait() -> None:
        await pair.channel.wait_readable()
        woken.append(True)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        pair.wire.push(part(1))
        assert not woken
        pair.reader.end()
        await trio.testing.wait_all_tasks_blocked()
        assert len(woken) == 1
        pair.receive()
        pair.wire.push(part(2))
        done = pair.reader.end()
        pair.receive()
        pair.begin()
        pair.receive()
        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        assert len(woken) == 1 and pair.wire.read_elsewhere
        pair.channel.close()
        assert pair.reader.closed
        done()  # which comes after the end
    assert len(woken) == 2


# ---- the thread ------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def datagram_sockets(size: int = 1000) -> Generator[tuple[socket.socket, ManyReader]]:
    """A socket to send by, and a reader of its peer."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with ours, theirs:
        ours.setblocking(False)
        reader = many_reader(theirs.fileno(), size)
        assert reader is not None
        try:
            yield ours, reader
        finally:
            reader.close()


async def read_all(reader: ManyReader) -> tuple[list[bytes], int]:
    ended = trio.Event()
    reader.start(ended.set)
    await ended.wait()
    found = reader.finish()
    assert not found.odd
    return found.datagrams, found.error


async def test_a_thread_reads_what_is_there() -> None:
    with datagram_sockets() as (ours, reader):
        assert await read_all(reader) == ([], errno.EAGAIN)
        sent = [b"%d" % number * 10 for number in range(8)]
        for data in sent:
            ours.send(data)
        assert await read_all(reader) == (sent, errno.EAGAIN)


async def test_a_read_ends_when_its_room_is_used_up_and_each_has_more_until_there_is_rest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("trio_routes.netlink._bulk._FIRST", 1)
    monkeypatch.setattr("trio_routes.netlink._bulk._ELSEWHERE", 3)
    with datagram_sockets() as (ours, reader):
        for number in range(9):
            ours.send(b"%d" % number)
        assert await read_all(reader) == ([b"0"], 0)
        assert await read_all(reader) == ([b"1", b"2"], 0)
        assert await read_all(reader) == ([b"3", b"4", b"5"], 0)
        reader.rest()
        assert await read_all(reader) == ([b"6"], 0)
        assert await read_all(reader) == ([b"7", b"8"], 0)
        assert await read_all(reader) == ([], errno.EAGAIN)


async def test_a_busy_loop_goes_on_only_when_the_thread_has_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[int] = []
    go_on = threading.Event()

    def read(slots: object, fileno: int, most: int) -> tuple[int, int]:
        begun.append(most)
        assert go_on.wait(10)
        return 0, errno.EAGAIN

    monkeypatch.setattr("trio_routes.netlink._bulk._ENTERING", 10)
    monkeypatch.setattr("trio_routes.netlink._recvmmsg.Slots.receive", read)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(10)  # others get Python's lock only where this thread lets go of it
    try:
        with datagram_sockets() as (_, reader):
            for number in range(1, 4):  # the second one finds a thread that waits for work
                go_on.clear()
                ended = trio.Event()
                reader.start(ended.set)
                assert len(begun) == number
                go_on.set()
                await ended.wait()
    finally:
        sys.setswitchinterval(interval)


async def test_a_datagram_that_is_too_long_is_known_as_truncated() -> None:
    with datagram_sockets(size=4) as (ours, reader):
        ours.send(b"four")
        ours.send(b"five!")
        ended = trio.Event()
        reader.start(ended.set)
        await ended.wait()
        assert reader.finish() == BulkRead([b"four", b"five"], {1: (True, 0)}, errno.EAGAIN)


async def test_a_cancelled_wait_leaves_the_thread_to_end_by_itself_and_its_descriptor_is_closed_then() -> None:
    before = len(os.listdir("/proc/self/fd"))
    entered, go_on = threading.Event(), threading.Event()
    with datagram_sockets() as (ours, reader):
        ours.send(b"data")

        def slow(slots: object, fileno: int, most: int) -> tuple[int, int]:
            entered.set()
            assert go_on.wait(10)
            read.append(os.read(fileno, 10))
            return 0, 0

        read: list[bytes] = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("trio_routes.netlink._recvmmsg.Slots.receive", slow)
            reader.start(lambda: None)
            assert entered.wait(10)
        reader.close()
        assert len(os.listdir("/proc/self/fd")) == before + 3, "the thread reads by it still"
        go_on.set()
        assert reader.finish().error == 0 and read == [b"data"]
        reader.close()
    assert len(os.listdir("/proc/self/fd")) == before


def test_the_words_of_a_thread_that_outlives_the_run_are_dropped() -> None:
    with datagram_sockets() as (_, reader):

        async def begin() -> None:
            reader.start(lambda: None)

        trio.run(begin)
        assert reader.finish().error == errno.EAGAIN


# ---- the kernel ------------------------------------------------------------------------------------------------------

ROUTES = 40_000


def fill(host: testing.Host) -> None:
    """Add routes, many to a call."""
    body = RouteBody(AF_INET, 254, 32, type=RTN_BLACKHOLE, protocol=RTPROT_STATIC)
    flags = NLM_F_REQUEST | NLM_F_CREATE
    messages = [
        build_message(MessageType.RTM_NEWROUTE, flags, 1, encode_route(RouteMessage(body, (11 << 24) + number)))
        for number in range(ROUTES)
    ]
    with host.entered(), socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as sender:
        for at in range(0, ROUTES, 500):
            sender.send(b"".join(messages[at : at + 500]))


@pytest.mark.netns
async def test_a_long_dump_of_the_kernels_is_the_same_by_both_ways(lab: testing.Lab) -> None:
    host = lab.host("router")
    fill(host)
    kernel = LinuxKernel(host.netns)
    try:
        dumps: list[bytes] = []
        for bulk in (False, True):
            channel = Channel(kernel.open_netlink())
            if not bulk:
                channel._bulk = None
            channel.send(dump_routes(AF_INET))
            read: list[bytes] = []
            elsewhere = 0
            while not read or not _is_done(read[-1]):
                await channel.wait_readable()
                read += [data for _, data in channel.receive().datagrams]
                elsewhere += channel._in_bulk
            assert bool(elsewhere) is bulk
            port = channel._socket.port.to_bytes(4, sys.byteorder)
            dumps.append(b"".join(read).replace(port, b"port"))
            channel.close()
        assert dumps[0] == dumps[1] and len(dumps[0]) > 44 * ROUTES
    finally:
        kernel.close()


def _is_done(data: bytes) -> bool:
    return int.from_bytes(data[-16:-14], sys.byteorder) == MessageType.DONE


@pytest.mark.netns
async def test_a_pt_with_a_long_table_can_be_cancelled_at_any_time_and_leaves_nothing_behind(lab: testing.Lab) -> None:
    host = lab.host("router")
    fill(host)
    kernel = LinuxKernel(host.netns)
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    for turns in (2, 5, 8, 12, 20):
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:

                async def cancel(turns: int = turns, scope: trio.CancelScope = scope) -> None:
                    for _ in range(turns):
                        await trio.lowlevel.checkpoint()
                    scope.cancel()

                nursery.start_soon(cancel)
                async with open_pt(kernel=kernel):
                    await trio.sleep_forever()
    async with open_pt(kernel=kernel) as pt:
        assert pt.statistics().routes >= ROUTES
        assert pt.routes.lookup("11.0.0.7").route is not None
    kernel.close()
    with trio.fail_after(10):
        # The kernel's own is closed, and so must be what threads were reading by when they were left.
        while len(os.listdir("/proc/self/fd")) >= before:  # noqa: ASYNC110 -- nobody tells of a closed descriptor
            await trio.sleep(0.001)
