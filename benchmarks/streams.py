"""What guarding costs: `make bench-streams`, guarded streams beside bare ones.

Everything happens between two ends in this process, over an address of this host that is not loopback's, because a
connection from loopback to loopback is never judged. Both ends and the kernel's part in sending are this process's CPU
time, and that is what is measured: by the clock, a busy machine would add what others do. Rivals take turns, in many short
rounds, and the best round of each counts.
"""

from __future__ import annotations

import gc
import ssl
import sys
import time
import tracemalloc
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

import httpx  # noqa: ASYNC127 -- what most applications still have
import trio
import trustme

from benchmarks.cache import machine
from benchmarks.namespace import bench_link, print_sections, sections_in_namespace
from benchmarks.table import Row, Section, best_of, format_table
from trio_routes import GuardedStream, Pt, open_pt
from trio_routes.integrations.httpx import GuardedTransport

HERE = "10.0.0.1"
ROUNDS = 25
_KIB, _MIB = 1 << 10, 1 << 20

Round = Callable[[], Awaitable[int]]
"""Does something a number of times and returns how often."""


async def side_by_side(ways: Mapping[str, Round], rounds: int = ROUNDS) -> list[Row]:
    """Measure rivals in turns; a row for each, the best of its rounds in CPU seconds for once."""
    best = dict.fromkeys(ways, float("inf"))
    for _ in range(rounds):
        for name, way in ways.items():
            gc.collect()
            began = time.process_time()
            count = await way()
            best[name] = min(best[name], (time.process_time() - began) / count)
    return [Row(name, seconds) for name, seconds in best.items()]


# ---- what wraps what ----------------------------------------------------------------------------


async def pair(pt: Pt | None) -> tuple[trio.SocketStream | GuardedStream, trio.SocketStream]:
    """A connection; its near end guarded if there is a pt."""
    [listener] = await trio.open_tcp_listeners(0, host=HERE)
    async with listener:
        address: tuple[str, int] = listener.socket.getsockname()
        connect = trio.open_tcp_stream if pt is None else pt.open_tcp_stream
        return await connect(*address), await listener.accept()


@asynccontextmanager
async def one_connection(pt: Pt) -> AsyncGenerator[dict[str, tuple[trio.abc.Stream, trio.SocketStream]], None]:
    """The same connection with its near end bare and guarded: two connections differ by how their windows grew."""
    near, far = await pair(pt)
    assert isinstance(near, GuardedStream)
    try:
        yield {"bare": (near.inner, far), "guarded": (near, far)}
    finally:
        await trio.aclose_forcefully(near)
        await trio.aclose_forcefully(far)


class Instant(trio.abc.Stream):
    """A stream whose calls take no time: what is left of a call is what is around it."""

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Receive a byte."""
        return b"x"

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send nothing."""

    async def wait_send_all_might_not_block(self) -> None:
        """Wait for nothing."""

    async def aclose(self) -> None:
        """Close nothing."""


# ---- the sections -------------------------------------------------------------------------------


async def a_call(pt: Pt) -> Section:
    """The wrapper alone."""
    near, far = await pair(None)
    assert isinstance(near, trio.SocketStream)
    guarded = pt.guard_stream(near)
    guarded.inner = Instant()  # judged as the socket is, and instant

    async def receive(stream: trio.abc.Stream) -> int:
        for _ in range(10_000):
            await stream.receive_some(1)
        return 10_000

    async def send(stream: trio.abc.Stream) -> int:
        for _ in range(10_000):
            await stream.send_all(b"x")
        return 10_000

    rows: list[Row] = []
    for name, call in (("receive_some", receive), ("send_all", send)):
        bare, wrapped = await side_by_side({"bare": partial(call, Instant()), "guarded": partial(call, guarded)})
        rows.append(Row(f"{name}: the wrapper's part", wrapped.value - bare.value))
    await near.aclose()
    await far.aclose()
    return "A call, with nothing under it", rows


async def ping_pong(pt: Pt) -> Section:
    """A byte there and back: four calls, two of them on the guarded end."""

    async def exchange(near: trio.abc.Stream, far: trio.abc.Stream) -> int:
        for _ in range(1_000):
            await near.send_all(b"?")
            await far.receive_some(1)
            await far.send_all(b"!")
            await near.receive_some(1)
        return 1_000

    async with one_connection(pt) as both:
        return "A byte there and back", await side_by_side(
            {name: partial(exchange, *ends) for name, ends in both.items()}
        )


async def transfer(near: trio.abc.Stream, far: trio.abc.Stream, mebibytes: int, *, back: bool = False) -> int:
    """Send so much from one end to the other; counts KiB."""
    source, sink = (far, near) if back else (near, far)
    chunk, left = bytes(256 * _KIB), mebibytes * _MIB

    async def send() -> None:
        for _ in range(mebibytes * 4):
            await source.send_all(chunk)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        while left:
            left -= len(await sink.receive_some(256 * _KIB))
    return mebibytes * _KIB


async def throughput(pt: Pt) -> list[Section]:
    """Much data, each way."""
    sections: list[Section] = []
    async with one_connection(pt) as both:
        for name, back in (("sent", False), ("received", True)):
            ways = {kind: partial(transfer, *ends, 32, back=back) for kind, ends in both.items()}
            sections.append((f"32 MiB {name}, for a KiB", await side_by_side(ways)))
    return sections


async def tls(pt: Pt) -> Section:
    """Much data through TLS."""
    ours, theirs = ssl.create_default_context(), ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority = trustme.CA()
    authority.configure_trust(ours)  # pyright: ignore[reportUnknownMemberType] -- trustme speaks of pyOpenSSL's, too
    authority.issue_cert("peer.example").configure_cert(theirs)  # pyright: ignore[reportUnknownMemberType] -- likewise
    ways: dict[str, Round] = {}
    async with AsyncExitStack() as stack:
        for kind, opener in (("bare", None), ("guarded", pt)):
            near, far = await pair(opener)
            for end in (near, far):
                stack.push_async_callback(trio.aclose_forcefully, end)
            client = trio.SSLStream[trio.abc.Stream](near, ours, server_hostname="peer.example")
            server = trio.SSLStream[trio.abc.Stream](far, theirs, server_side=True)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(client.do_handshake)
                nursery.start_soon(server.do_handshake)
            ways[kind] = partial(transfer, client, server, 8)
        return "8 MiB sent by TLS, for a KiB", await side_by_side(ways)


async def http(pt: Pt) -> Section:
    """Requests by httpx on a kept connection."""

    async def serve(stream: trio.SocketStream) -> None:
        while await stream.receive_some():  # a request of httpx's is one piece
            await stream.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    async def get(client: httpx.AsyncClient, url: str) -> int:
        for _ in range(50):
            assert (await client.get(url)).status_code == 200
        return 50

    [listener] = await trio.open_tcp_listeners(0, host=HERE)
    url = f"http://{HERE}:{listener.socket.getsockname()[1]}/"
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(trio.serve_listeners, serve, [listener]))
        async with (
            httpx.AsyncClient(trust_env=False) as plain,
            httpx.AsyncClient(transport=GuardedTransport(pt), trust_env=False) as guarded,
        ):
            ways = {"plain transport": partial(get, plain, url), "guarded transport": partial(get, guarded, url)}
            rows = await side_by_side(ways)
        nursery.cancel_scope.cancel()
    return "A request by httpx, connection kept", rows


async def registration(pt: Pt, count: int = 1_000) -> list[Section]:
    """Registering and releasing: different sockets, and all over one socket."""
    ends = [await pair(None) for _ in range(count)]
    streams = [near for near, _ in ends]

    def wrap_and_release() -> None:
        for stream in streams:
            pt.guard_stream(stream)._release()

    def guard_blocks() -> None:
        for stream in streams:
            with pt.guard(stream):
                pass

    def guard_again() -> None:
        with pt.guard(streams[0]):
            for _ in range(count):
                with pt.guard(streams[0]):
                    pass

    def cancel_scopes() -> None:
        for _ in range(count):
            with trio.CancelScope():
                pass

    ways = {
        "a cancel scope, for comparison": cancel_scopes,
        "guard_stream() of a new socket, and its release": wrap_and_release,
        "a guard block around a new socket": guard_blocks,
        "a guard block around a guarded socket": guard_again,
    }
    rows = [Row(name, best_of(way) / count) for name, way in ways.items()]
    memory = memory_of(pt, streams)
    for end in (end for both in ends for end in both):
        await trio.aclose_forcefully(end)
    return [("Registering", rows), memory]


def memory_of(pt: Pt, streams: list[trio.SocketStream | GuardedStream]) -> Section:
    """What a guarded stream takes beside the stream."""
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    guarded = [pt.guard_stream(stream) for stream in streams]
    gc.collect()
    taken = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    for stream in guarded:
        stream._release()
    return "Memory", [Row("a guarded stream, beside the stream itself", taken / len(streams), "B")]


async def measure() -> list[Section]:
    async with open_pt() as pt:
        return [
            await a_call(pt),
            await ping_pong(pt),
            *await throughput(pt),
            await tls(pt),
            await http(pt),
            *await registration(pt),
        ]


def main(arguments: list[str]) -> None:
    if arguments == ["inside"]:
        bench_link()
        print_sections(trio.run(measure))
    else:
        print(machine())
        print(format_table(sections_in_namespace("benchmarks.streams", "inside")))


if __name__ == "__main__":
    main(sys.argv[1:])
