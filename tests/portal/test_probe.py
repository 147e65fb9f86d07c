"""The probe against peers that do not mean well: it ends in time, returns what it saw and leaves nothing open."""

from __future__ import annotations

import errno
import itertools
import math
import socket
from collections.abc import Iterable
from ipaddress import ip_address

import pytest
import trio
import trio.testing
from hypothesis import given, settings, strategies as st

from tests.portal._network import ONLINE, PORTAL, FakeNetwork, Server, Stream, mute, says
from trio_routes.portal import Endpoint, Evidence, Trouble
from trio_routes.portal._probe import examine, probe

ENDPOINT = Endpoint("http://check.example/generate_204?x")


def for_ever(start: bytes, piece: bytes, *, every: float = 0.0) -> Server:
    """A server that begins to answer and never stops: a piece each so many seconds."""

    async def serve(stream: Stream) -> None:
        await stream.receive_some()
        await stream.send_all(start)
        while True:
            await stream.send_all(piece)
            await trio.sleep(every)

    return serve


def drips(answer: bytes) -> Server:
    """A byte every half second."""

    async def serve(stream: Stream) -> None:
        await stream.receive_some()
        for byte in answer:
            await trio.sleep(0.5)
            await stream.send_all(bytes([byte]))

    return serve


async def ask(server: Server | OSError, endpoint: Endpoint = ENDPOINT) -> Evidence:
    async with trio.open_nursery() as nursery:
        network = FakeNetwork(nursery, server)
        evidence = await probe(network, endpoint)
        assert await network.all_closed()
        nursery.cancel_scope.cancel()
    return evidence


OK = b"HTTP/1.1 200 OK\r\n"
PAGE = b"<html>log in</html>"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("server", "status", "body"),
    [
        (says(ONLINE), 204, 0),
        (says(PORTAL), 302, 0),
        (says(OK + b"Content-Length: 19\r\n\r\n" + PAGE), 200, 19),
        (says(OK + b"\r\n" + PAGE), 200, 19),
        (says(CHUNKED + b"13\r\n" + PAGE + b"\r\n0\r\n\r\n"), 200, 19),
        (says(b"HTTP/1.1 511 Network Authentication Required\r\n\r\n" + PAGE), 511, 19),
        (says(b"HTTP/1.1 100 Continue\r\n\r\n" * 8 + PORTAL), 302, 0),
        # Sloppy and yet plain enough.
        (says(b"HTTP/1.1 204 No Content\r\nContent-Length: 50\r\n\r\n" + PAGE), 204, 0),
        (says(OK + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), 200, 0),
        (says(b"HTTP/1.1 204 No Content\n\n"), 204, 0),
        (says(b"HTTP/1.1 204\r\n\r\n"), 204, 0),
        (says(b"HTTP/1.0 204 No Content\r\nX: a\r\n b\r\n\r\n"), 204, 0),
        (says(*(bytes([byte]) for byte in ONLINE)), 204, 0),
        # 204 is whole with its headers; who does not close is not waited for.
        (says(ONLINE, hang=True), 204, 0),
    ],
)
async def test_a_whole_answer_is_evidence_without_trouble(
    server: Server, status: int, body: int, autojump_clock: trio.testing.MockClock
) -> None:
    evidence = await ask(server)
    assert (evidence.status, evidence.body_bytes, evidence.trouble, evidence.detail) == (status, body, None, "")
    assert (evidence.endpoint, evidence.address) == (ENDPOINT.url, ip_address("192.0.2.1"))
    assert evidence.seconds == 0


HOSTILE: dict[str, tuple[Server | OSError, int | None, Trouble]] = {
    "endless headers": (for_ever(OK, b"X: y\r\n"), None, Trouble.TOO_MUCH),
    "one endless line": (for_ever(b"", b"x" * 999), None, Trouble.TOO_MUCH),
    "endless chunk extension": (for_ever(CHUNKED + b"1;", b"x" * 999), 200, Trouble.TOO_MUCH),
    "endless trailers": (for_ever(CHUNKED + b"0\r\n", b"X: y\r\n"), 200, Trouble.TOO_MUCH),
    "1xx for ever": (for_ever(b"", b"HTTP/1.1 100 Continue\r\n\r\n"), None, Trouble.TOO_MUCH),
    "a download": (for_ever(OK + b"\r\n", b"x" * 999), 200, Trouble.TOO_MUCH),
    "a stream of one-byte chunks": (for_ever(CHUNKED, b"1\r\nx\r\n" * 99), 200, Trouble.TOO_MUCH),
    "closed at once": (says(), None, Trouble.CLOSED),
    "closed within the headers": (says(b"HTTP/1.1 302 Fou"), None, Trouble.CLOSED),
    "closed within the body": (says(OK + b"Content-Length: 99\r\n\r\n" + PAGE), 200, Trouble.CLOSED),
    "redirect with a length that is wrong": (says(PORTAL.replace(b": 0", b": 9")), 302, Trouble.CLOSED),
    "a broken chunk": (says(CHUNKED + b"zz\r\n"), 200, Trouble.NOT_HTTP),
    "shoutcast": (says(b"ICY 200 OK\r\n\r\n"), None, Trouble.NOT_HTTP),
    "HTTP/2": (says(b"\x00\x00\x12\x04\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x80\r\n\r\n"), None, Trouble.NOT_HTTP),
    "TLS alert": (says(b"\x15\x03\x01\x00\x02\x02\x0a\r\n\r\n"), None, Trouble.NOT_HTTP),
    "SSH": (says(b"SSH-2.0-OpenSSH_9.2\r\n\r\n"), None, Trouble.NOT_HTTP),
    "HTTP/0.9": (says(b"<html>\n<body>log in</body>\n\n</html>\n"), None, Trouble.NOT_HTTP),
    "101": (says(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n"), None, Trouble.NOT_HTTP),
    "space before the colon": (says(OK + b"X : y\r\n\r\n"), None, Trouble.NOT_HTTP),
    "two lengths": (says(OK + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n"), None, Trouble.NOT_HTTP),
    "refused": (ConnectionRefusedError(errno.ECONNREFUSED, "refused"), None, Trouble.REFUSED),
    "reset": (ConnectionResetError(errno.ECONNRESET, "reset"), None, Trouble.CLOSED),
    "no route": (OSError(errno.ENETUNREACH, "unreachable"), None, Trouble.NO_ROUTE),
    "prohibited": (PermissionError(errno.EACCES, "prohibited"), None, Trouble.NO_ROUTE),
    "blackhole": (OSError(errno.EINVAL, "invalid"), None, Trouble.NO_ROUTE),
    "no descriptor left": (OSError(errno.EMFILE, "too many open files"), None, Trouble.OTHER),
    "the kernel gave up": (TimeoutError(errno.ETIMEDOUT, "timed out"), None, Trouble.TIMEOUT),
    "an error without a number": (OSError("odd"), None, Trouble.OTHER),
}


@pytest.mark.parametrize(("server", "status", "trouble"), HOSTILE.values(), ids=HOSTILE)
async def test_a_peer_that_does_not_mean_well_is_evidence_at_once(
    server: Server | OSError, status: int | None, trouble: Trouble, autojump_clock: trio.testing.MockClock
) -> None:
    evidence = await ask(server)
    assert (evidence.status, evidence.trouble) == (status, trouble)
    assert evidence.detail
    assert evidence.seconds == 0
    assert evidence.body_bytes <= 64 * 1024 + 999


@pytest.mark.parametrize(
    ("row", "limit"),
    [
        ("endless headers", "Receive buffer too long"),
        ("one endless line", "Receive buffer too long"),
        ("endless chunk extension", "Receive buffer too long"),
        ("endless trailers", "Receive buffer too long"),
        ("1xx for ever", "more than 8 1xx answers"),
        ("a download", "a body of more than 65536 bytes"),
        ("a stream of one-byte chunks", "more than 131072 bytes"),
    ],
)
async def test_each_limit_ends_what_it_is_for(row: str, limit: str, autojump_clock: trio.testing.MockClock) -> None:
    assert (await ask(HOSTILE[row][0])).detail == limit


@pytest.mark.parametrize(
    ("server", "status", "seconds"),
    [
        (mute, None, 3),
        (drips(ONLINE), None, 3),
        (for_ever(b"", b"HTTP/1.1 100 Continue\r\n\r\n", every=1), None, 3),
        (says(OK + b"Content-Length: 99\r\n\r\n", hang=True), 200, 10),
        (for_ever(OK + b"\r\n", b"x", every=0.5), 200, 10),
        (for_ever(CHUNKED + b"0\r\n", b"X: y\r\n", every=1), 200, 10),
    ],
)
async def test_slowness_ends_at_three_seconds_without_an_answer_and_at_ten_with_one(
    server: Server, status: int | None, seconds: float, autojump_clock: trio.testing.MockClock
) -> None:
    evidence = await ask(server)
    assert (evidence.status, evidence.trouble) == (status, Trouble.TIMEOUT)
    assert evidence.seconds == pytest.approx(seconds)


async def test_the_request_is_whole_and_asks_for_an_answer_that_nobody_kept() -> None:
    heard = bytearray()

    async def listen(stream: Stream) -> None:
        heard.extend(await stream.receive_some())
        await stream.send_all(ONLINE)

    await ask(listen, Endpoint("http://check.example:8080/generate_204?x"))
    lines = heard.decode().split("\r\n")
    assert lines[0] == "GET /generate_204?x HTTP/1.1"
    assert {"Host: check.example:8080", "Connection: close", "Accept-Encoding: identity"} < set(lines)
    assert "Cache-Control: no-cache" in lines
    assert lines[-2:] == ["", ""]


async def test_a_location_is_kept_as_it_came_up_to_a_length_and_never_fetched() -> None:
    async with trio.open_nursery() as nursery:
        network = FakeNetwork(nursery, says(b"HTTP/1.1 302 x\r\nLocation: /caf\xc3\xa9\r\nContent-Length: 0\r\n\r\n"))
        assert (await probe(network, ENDPOINT)).location == "/caf\xc3\xa9"
        network.server = says(b"HTTP/1.1 302 x\r\nLocation: /" + b"a" * 9000 + b"\r\nContent-Length: 0\r\n\r\n")
        assert (await probe(network, ENDPOINT)).location == "/" + "a" * 2047
        assert len(network.connects) == 2
        assert network.resolved == ["check.example"] * 2


async def test_a_hundred_kilobytes_of_tiny_chunks_leave_the_loop_to_others() -> None:
    # All of it is there at once: only the probe's own checkpoints let anybody else run.
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        network = FakeNetwork(nursery, says(CHUNKED + b"1\r\nx\r\n" * 20_000 + b"0\r\n\r\n"))
        nursery.start_soon(count)
        evidence = await probe(network, ENDPOINT)
        nursery.cancel_scope.cancel()
    assert (evidence.status, evidence.body_bytes, evidence.trouble) == (200, 20_000, None)
    assert turns > 20_000 / 100


async def test_a_name_that_does_not_resolve_is_trouble_with_dns(autojump_clock: trio.testing.MockClock) -> None:
    async with trio.open_nursery() as nursery:
        network = FakeNetwork(nursery, says(ONLINE))
        network.addresses = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        evidence = await probe(network, ENDPOINT)
        assert (evidence.trouble, evidence.detail) == (Trouble.DNS, "Name or service not known")
        network.addresses = []
        assert (await probe(network, ENDPOINT)).trouble is Trouble.DNS
        assert network.connects == []


async def test_a_resolver_that_never_answers_is_given_three_seconds(autojump_clock: trio.testing.MockClock) -> None:
    class DeadResolver(FakeNetwork):
        async def resolve(self, host: str, port: int) -> list[object]:  # type: ignore[override]  # never returns
            await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        evidence = await probe(DeadResolver(nursery, says(ONLINE)), ENDPOINT)  # type: ignore[arg-type]  # as above
    assert evidence.trouble is Trouble.DNS
    assert evidence.seconds == pytest.approx(3)


async def test_an_address_in_the_url_needs_no_resolver() -> None:
    async with trio.open_nursery() as nursery:
        network = FakeNetwork(nursery, says(ONLINE))
        assert (await probe(network, Endpoint("http://[2001:db8::7]/"))).address == ip_address("2001:db8::7")
        assert network.resolved == []


V6, V6_TOO, V4 = map(ip_address, ("2001:db8::1", "2001:db8::2", "192.0.2.1"))


async def test_a_dead_ipv6_path_is_not_a_dead_network(autojump_clock: trio.testing.MockClock) -> None:
    async with trio.open_nursery() as nursery:
        network = FakeNetwork(nursery, says(ONLINE))
        network.addresses = [V6, V6_TOO, V4]
        network.unreachable = {V6, V6_TOO}
        evidence = await probe(network, ENDPOINT)
        assert (evidence.status, evidence.address) == (204, V4)
        assert network.connects == [(0.0, V6), (1.5, V4)]

        network.unreachable = {V6, V4}
        evidence = await probe(network, ENDPOINT)
        assert (evidence.trouble, evidence.address) == (Trouble.TIMEOUT, V4)
        assert evidence.seconds == pytest.approx(3)


async def test_the_family_that_answers_first_in_the_resolvers_order_is_enough() -> None:
    async with trio.open_nursery() as nursery:
        network = FakeNetwork(nursery, says(PORTAL))
        network.addresses = [V6, V4]
        assert (await probe(network, ENDPOINT)).address == V6
        assert len(network.connects) == 1


async def test_a_connection_that_breaks_while_asking_is_closed_trouble() -> None:
    class Broken(FakeNetwork):
        async def connect_tcp(self, address: object, port: int) -> Stream:
            ours, theirs = trio.testing.memory_stream_pair()
            self.streams.append(ours)
            await theirs.aclose()
            return ours

    async with trio.open_nursery() as nursery:
        network = Broken(nursery, mute)
        evidence = await probe(network, ENDPOINT)
        assert (evidence.status, evidence.trouble) == (None, Trouble.CLOSED)
        assert evidence.detail
        assert await network.all_closed()


async def test_a_cancelled_probe_leaves_nothing_open(autojump_clock: trio.testing.MockClock) -> None:
    async with trio.open_nursery() as nursery:
        network = FakeNetwork(nursery, mute)
        with trio.move_on_after(1) as scope:
            await probe(network, ENDPOINT)
        assert scope.cancelled_caught
        assert len(network.streams) == 1
        assert await network.all_closed()
        nursery.cancel_scope.cancel()


async def test_all_endpoints_are_asked_at_once_and_answer_in_their_order(
    autojump_clock: trio.testing.MockClock,
) -> None:
    endpoints = [Endpoint(f"http://192.0.2.{number}/") for number in range(1, 6)]
    async with trio.open_nursery() as nursery:
        network = FakeNetwork(nursery, mute)
        network.unreachable = {ip_address("192.0.2.2")}
        found = await examine(network, endpoints)
        nursery.cancel_scope.cancel()
    assert [one.endpoint for one in found] == [endpoint.url for endpoint in endpoints]
    assert {when for when, _ in network.connects} == {0.0}
    assert trio.current_time() == pytest.approx(3)


def _cut(data: bytes, places: Iterable[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[start:end] for start, end in itertools.pairwise(edges)]


_LINES = st.sampled_from(
    [b"HTTP/1.1 ", b"200", b"302", b"100", b" OK", b"\r\n", b"\n", b"Location: ", b"a: b", b"0", b"zz"]
)


@settings(max_examples=150, deadline=None)  # a run of Trio each
@given(
    st.binary(max_size=200) | st.lists(_LINES, max_size=20).map(b"".join), st.lists(st.integers(0, 999)), st.booleans()
)
def test_any_bytes_in_any_pieces_are_evidence_within_ten_seconds(data: bytes, places: list[int], hang: bool) -> None:
    evidence = trio.run(ask, says(*_cut(data, places), hang=hang), clock=trio.testing.MockClock(autojump_threshold=0))
    assert evidence.status is not None or evidence.trouble is not None
    assert math.isfinite(evidence.seconds)
    assert evidence.seconds <= 10.001
