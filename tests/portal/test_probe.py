"""The probe against peers that do not mean well: it ends in time, returns what it saw and leaves nothing open."""

from __future__ import annotations

import errno
import itertools
import math
import socket
from collections.abc import Iterable
from ipaddress import ip_address

import attrs
import pytest
import trio
import trio.testing
from hypothesis import given, settings, strategies as st

from tests.portal._network import ONLINE, PORTAL, FakeNetwork, Server, Stream, any_way, mute, says
from trio_routes.netlink import IPAddress
from trio_routes.portal import Endpoint, Evidence, Finding, Question, Way
from trio_routes.portal._answer import finding_of
from trio_routes.portal._examination import Examiner
from trio_routes.portal._hints import Known
from trio_routes.portal._probe import ask_api, probe
from trio_routes.portal._way import CannotBindError, NameSilentError

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
        evidence = await probe(any_way(network), endpoint)
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
    assert (evidence.status, evidence.body_bytes, evidence.detail) == (status, body, "")
    assert evidence.finding is finding_of(ENDPOINT, status, b"x" * body, torn=False)
    assert evidence.question is Question.HTTP_204
    assert (evidence.endpoint, evidence.address) == (ENDPOINT.url, ip_address("192.0.2.1"))
    assert evidence.seconds == 0


HOSTILE: dict[str, tuple[Server | OSError, int | None, Finding]] = {
    "endless headers": (for_ever(OK, b"X: y\r\n"), None, Finding.TOO_MUCH),
    "one endless line": (for_ever(b"", b"x" * 999), None, Finding.TOO_MUCH),
    "endless chunk extension": (for_ever(CHUNKED + b"1;", b"x" * 999), 200, Finding.FOREIGN_BODY),
    "endless trailers": (for_ever(CHUNKED + b"0\r\n", b"X: y\r\n"), 200, Finding.FOREIGN_BODY),
    "1xx for ever": (for_ever(b"", b"HTTP/1.1 100 Continue\r\n\r\n"), None, Finding.TOO_MUCH),
    "a download": (for_ever(OK + b"\r\n", b"x" * 999), 200, Finding.FOREIGN_BODY),
    "a stream of one-byte chunks": (for_ever(CHUNKED, b"1\r\nx\r\n" * 99), 200, Finding.FOREIGN_BODY),
    "closed at once": (says(), None, Finding.CLOSED),
    "closed within the headers": (says(b"HTTP/1.1 302 Fou"), None, Finding.CLOSED),
    "closed within the body": (says(OK + b"Content-Length: 99\r\n\r\n" + PAGE), 200, Finding.FOREIGN_BODY),
    "redirect with a length that is wrong": (says(PORTAL.replace(b": 0", b": 9")), 302, Finding.REDIRECT),
    "a broken chunk": (says(CHUNKED + b"zz\r\n"), 200, Finding.FOREIGN_BODY),
    "shoutcast": (says(b"ICY 200 OK\r\n\r\n"), None, Finding.NOT_HTTP),
    "HTTP/2": (says(b"\x00\x00\x12\x04\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x80\r\n\r\n"), None, Finding.NOT_HTTP),
    "TLS alert": (says(b"\x15\x03\x01\x00\x02\x02\x0a\r\n\r\n"), None, Finding.NOT_HTTP),
    "SSH": (says(b"SSH-2.0-OpenSSH_9.2\r\n\r\n"), None, Finding.NOT_HTTP),
    "HTTP/0.9": (says(b"<html>\n<body>log in</body>\n\n</html>\n"), None, Finding.NOT_HTTP),
    "101": (says(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n"), None, Finding.NOT_HTTP),
    "space before the colon": (says(OK + b"X : y\r\n\r\n"), None, Finding.NOT_HTTP),
    "two lengths": (says(OK + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n"), None, Finding.NOT_HTTP),
    "refused": (ConnectionRefusedError(errno.ECONNREFUSED, "refused"), None, Finding.REFUSED),
    "reset": (ConnectionResetError(errno.ECONNRESET, "reset"), None, Finding.CLOSED),
    "no route": (OSError(errno.ENETUNREACH, "unreachable"), None, Finding.NO_ROUTE),
    "prohibited": (PermissionError(errno.EACCES, "prohibited"), None, Finding.NO_ROUTE),
    "blackhole": (OSError(errno.EINVAL, "invalid"), None, Finding.NO_ROUTE),
    "no descriptor left": (OSError(errno.EMFILE, "too many open files"), None, Finding.OTHER),
    "the kernel gave up": (TimeoutError(errno.ETIMEDOUT, "timed out"), None, Finding.TIMEOUT),
    "an error without a number": (OSError("odd"), None, Finding.OTHER),
}


@pytest.mark.parametrize(("server", "status", "finding"), HOSTILE.values(), ids=HOSTILE)
async def test_a_peer_that_does_not_mean_well_is_evidence_at_once(
    server: Server | OSError, status: int | None, finding: Finding, autojump_clock: trio.testing.MockClock
) -> None:
    evidence = await ask(server)
    assert (evidence.status, evidence.finding) == (status, finding)
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
    assert (evidence.status, evidence.finding) == (status, Finding.FOREIGN_BODY if status else Finding.TIMEOUT)
    assert "hangs" in evidence.detail
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
        assert (await probe(any_way(network), ENDPOINT)).location == "/caf\xc3\xa9"
        network.server = says(b"HTTP/1.1 302 x\r\nLocation: /" + b"a" * 9000 + b"\r\nContent-Length: 0\r\n\r\n")
        assert (await probe(any_way(network), ENDPOINT)).location == "/" + "a" * 2047
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
        evidence = await probe(any_way(network), ENDPOINT)
        nursery.cancel_scope.cancel()
    assert (evidence.status, evidence.body_bytes, evidence.detail) == (200, 20_000, "")
    assert turns > 20_000 / 100


async def test_a_name_that_does_not_resolve_is_trouble_with_dns(autojump_clock: trio.testing.MockClock) -> None:
    async with trio.open_nursery() as nursery:
        network = FakeNetwork(nursery, says(ONLINE))
        network.addresses = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        evidence = await probe(any_way(network), ENDPOINT)
        assert (evidence.finding, evidence.detail) == (Finding.NAME_FAILED, "Name or service not known")
        network.addresses = []
        assert (await probe(any_way(network), ENDPOINT)).finding is Finding.NO_SUCH_ADDRESS
        assert network.connects == []


async def test_a_resolver_that_never_answers_is_given_three_seconds(autojump_clock: trio.testing.MockClock) -> None:
    class DeadResolver(FakeNetwork):
        async def resolve(self, host: str, port: int) -> list[object]:  # type: ignore[override]  # never returns
            await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        evidence = await probe(any_way(DeadResolver(nursery, says(ONLINE))), ENDPOINT)  # type: ignore[arg-type]  # as above
    assert evidence.finding is Finding.NAME_SILENT
    assert evidence.seconds == pytest.approx(3)


async def test_an_address_in_the_url_needs_no_resolver() -> None:
    async with trio.open_nursery() as nursery:
        network = FakeNetwork(nursery, says(ONLINE))
        assert (await probe(any_way(network), Endpoint("http://[2001:db8::7]/"))).address == ip_address("2001:db8::7")
        assert network.resolved == []


V6, V6_TOO, V4 = map(ip_address, ("2001:db8::1", "2001:db8::2", "192.0.2.1"))


async def test_a_dead_ipv6_path_is_not_a_dead_network(autojump_clock: trio.testing.MockClock) -> None:
    async with trio.open_nursery() as nursery:
        network = FakeNetwork(nursery, says(ONLINE))
        network.addresses = [V6, V6_TOO, V4]
        network.unreachable = {V6, V6_TOO}
        evidence = await probe(any_way(network), ENDPOINT)
        assert (evidence.status, evidence.address) == (204, V4)
        assert network.connects == [(0.0, V6), (1.5, V4)]

        network.unreachable = {V6, V4}
        evidence = await probe(any_way(network), ENDPOINT)
        assert (evidence.finding, evidence.address) == (Finding.TIMEOUT, V4)
        assert evidence.seconds == pytest.approx(3)


async def test_the_family_that_answers_first_in_the_resolvers_order_is_enough() -> None:
    async with trio.open_nursery() as nursery:
        network = FakeNetwork(nursery, says(PORTAL))
        network.addresses = [V6, V4]
        assert (await probe(any_way(network), ENDPOINT)).address == V6
        assert len(network.connects) == 1


async def test_a_connection_that_breaks_while_asking_is_closed_trouble() -> None:
    class Broken(FakeNetwork):
        async def connect_tcp(self, address: object, port: int, *, device: str | None = None) -> Stream:
            ours, theirs = trio.testing.memory_stream_pair()
            self.streams.append(ours)
            await theirs.aclose()
            return ours

    async with trio.open_nursery() as nursery:
        network = Broken(nursery, mute)
        evidence = await probe(any_way(network), ENDPOINT)
        assert (evidence.status, evidence.finding) == (None, Finding.CLOSED)
        assert evidence.detail
        assert await network.all_closed()


async def test_a_cancelled_probe_leaves_nothing_open(autojump_clock: trio.testing.MockClock) -> None:
    async with trio.open_nursery() as nursery:
        network = FakeNetwork(nursery, mute)
        with trio.move_on_after(1) as scope:
            await probe(any_way(network), ENDPOINT)
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
        found = await Examiner(tuple(endpoints), ()).examine(any_way(network), Known())
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
    assert evidence.finding in Finding
    assert math.isfinite(evidence.seconds)
    assert evidence.seconds <= 10.001


# The other kinds of endpoint.

BODY = Endpoint("http://check.example/success.txt", body=b"success\n")
CHALLENGED = Endpoint("http://check.example/generate_204", challenge=True)


@pytest.mark.parametrize(
    ("answer", "finding"),
    [
        (OK + b"\r\nsuccess\n", Finding.PASSED),
        (OK + b"\r\nsuccess", Finding.FOREIGN_BODY),
        (OK + b"\r\nsuccess\n<script>", Finding.FOREIGN_BODY),
        (OK + b"Content-Length: 8\r\n\r\nsucc", Finding.CLOSED),  # its own, cut short: no portal
        (OK + b"Content-Length: 8\r\n\r\n<htm", Finding.FOREIGN_BODY),
        (OK + b"Content-Length: 0\r\n\r\n", Finding.WRONG_STATUS),
        (ONLINE, Finding.FOREIGN_BODY),
        (PORTAL, Finding.REDIRECT),
    ],
)
async def test_an_exact_body_is_that_and_nothing_else(answer: bytes, finding: Finding) -> None:
    evidence = await ask(says(answer), BODY)
    assert (evidence.question, evidence.finding) == (Question.HTTP_BODY, finding)


async def test_a_challenge_is_answered_by_the_endpoint_alone() -> None:
    asked: list[str] = []

    def answering(form: str) -> Server:
        async def serve(stream: Stream) -> None:
            request = bytes(await stream.receive_some()).decode()
            (line,) = (line for line in request.split("\r\n") if line.lower().startswith("x-trio-routes-challenge"))
            asked.append(line.partition(": ")[2])
            await stream.send_all(f"HTTP/1.1 204 x\r\n{form.format(asked[-1])}\r\n".encode())

        return serve

    right = "X-Trio-Routes-Response: response {}\r\n"
    assert (await ask(answering(right), CHALLENGED)).finding is Finding.PASSED
    for wrong in ("", "X-Trio-Routes-Response: {}\r\n", "X-Trio-Routes-Response: response 1\r\n"):
        assert (await ask(answering(wrong), CHALLENGED)).finding is Finding.CHALLENGE_FAILED
    assert len(set(asked)) == 4
    assert (await ask(says(PORTAL), CHALLENGED)).finding is Finding.REDIRECT


# The API.


async def api(answer: bytes) -> Evidence:
    """What the API's question makes of an answer, without TLS beneath."""
    async with trio.open_nursery() as nursery:
        way = any_way(FakeNetwork(nursery, says(answer)))

        async def plain(self: Way, stream: trio.abc.Stream, name: str) -> trio.abc.Stream:
            await trio.lowlevel.checkpoint()
            return stream

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Way, "start_tls", plain)
            evidence = await ask_api(way, "https://api.example/capport")
    return evidence


def json_answer(body: bytes, kind: bytes = b"application/captive+json") -> bytes:
    return OK + b"Content-Type: " + kind + b"\r\nContent-Length: %d\r\n\r\n" % len(body) + body


@pytest.mark.parametrize(
    ("answer", "finding"),
    [
        (json_answer(b'{"captive": true}'), Finding.API_CAPTIVE),
        (json_answer(b'{"captive": false}'), Finding.API_OPEN),
        (json_answer(b'{"captive": true}', b"Application/Captive+JSON; charset=utf-8"), Finding.API_CAPTIVE),
        (json_answer(b'{"captive": true}', b"application/json"), Finding.API_INVALID),
        (json_answer(b'{"captive": 1}'), Finding.API_INVALID),
        (json_answer(b"{}"), Finding.API_INVALID),
        (json_answer(b"[]"), Finding.API_INVALID),
        (json_answer(b"[" * 60_000), Finding.API_INVALID),
        (json_answer(b"\xff"), Finding.API_INVALID),
        (json_answer(b'{"captive": true}').replace(b"200 OK", b"404 Not Found"), Finding.API_INVALID),
        (PORTAL, Finding.API_INVALID),
        (OK + b"Content-Type: application/captive+json\r\nContent-Length: 99\r\n\r\n{", Finding.CLOSED),
    ],
)
async def test_the_api_is_believed_only_in_its_own_form(answer: bytes, finding: Finding) -> None:
    evidence = await api(answer)
    assert (evidence.question, evidence.finding) == (Question.API, finding)
    assert (evidence.capport is not None) == (finding in (Finding.API_CAPTIVE, Finding.API_OPEN))


async def test_the_api_is_asked_for_its_own_media_type(monkeypatch: pytest.MonkeyPatch) -> None:
    heard = bytearray()

    async def listen(stream: Stream) -> None:
        heard.extend(await stream.receive_some())
        await stream.send_all(json_answer(b'{"captive": false}'))

    async def plain(self: Way, stream: trio.abc.Stream, name: str) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        return stream

    monkeypatch.setattr(Way, "start_tls", plain)
    async with trio.open_nursery() as nursery:
        await ask_api(any_way(FakeNetwork(nursery, listen)), "https://api.example/capport")
    assert b"\r\nAccept: application/captive+json\r\n" in heard


async def test_only_where_a_name_was_looked_up_the_evidence_says_by_whom() -> None:
    async with trio.open_nursery() as nursery:
        way = attrs.evolve(any_way(FakeNetwork(nursery, says(ONLINE)), 4), device="wlan0", ifindex=2)
        assert "machine's resolver" in (await probe(way, ENDPOINT)).detail
        assert (await probe(way, Endpoint("http://192.0.2.1/"))).detail == ""


async def test_an_api_that_is_not_https_is_not_asked() -> None:
    async with trio.open_nursery() as nursery:
        network = FakeNetwork(nursery, says(ONLINE))
        for url, finding in (
            ("http://api.example/", Finding.API_INVALID),
            ("ftp://api.example/", Finding.API_INVALID),
            ("https://[", Finding.API_INVALID),
            ("urn:ietf:params:capport:unrestricted", Finding.API_UNRESTRICTED),
        ):
            assert (await ask_api(any_way(network), url)).finding is finding
        assert network.resolved == []
        assert network.connects == []


# Names that all lead to one place.


class Hijacked(FakeNetwork):
    """Resolves the endpoint, and what does not exist, as it is told."""

    nonsense: Iterable[str] | OSError = ()

    async def resolve(self, host: str, port: int) -> list[IPAddress]:
        if host.endswith(".invalid"):
            self.resolved.append(host)
            await trio.lowlevel.checkpoint()
            if isinstance(self.nonsense, OSError):
                raise self.nonsense
            return [ip_address(text) for text in self.nonsense]
        return await super().resolve(host, port)


@pytest.mark.parametrize(
    ("address", "nonsense", "finding"),
    [
        ("10.0.0.1", ["10.0.0.1"], Finding.NAMES_HIJACKED),
        ("10.0.0.1", ["10.0.0.2"], Finding.NAMES_SANE),
        ("10.0.0.1", [], Finding.NAMES_SANE),
        ("10.0.0.1", socket.gaierror(socket.EAI_NONAME, "no such name"), Finding.NAMES_SANE),
        # Nothing was said of that name, so nothing is known of names.
        ("10.0.0.1", socket.gaierror(socket.EAI_AGAIN, "try again"), Finding.NAME_SILENT),
        ("10.0.0.1", NameSilentError("no answer"), Finding.NAME_SILENT),
        ("10.0.0.1", CannotBindError(errno.ENODEV, "no such device"), Finding.CANNOT_BIND),
        ("8.8.8.8", ["8.8.8.8"], None),  # public: nobody asks
    ],
)
async def test_a_private_address_makes_one_ask_whether_all_names_have_it(
    address: str, nonsense: list[str] | OSError, finding: Finding | None
) -> None:
    async with trio.open_nursery() as nursery:
        network = Hijacked(nursery, says(PORTAL))
        network.addresses, network.nonsense = [ip_address(address)], nonsense
        found = await Examiner((ENDPOINT, BODY), ()).examine(any_way(network), Known())
    about_names = [one.finding for one in found if one.question is Question.NAMES]
    assert about_names == ([] if finding is None else [finding])
    assert len(network.resolved) == 2 + (finding is not None)


async def test_a_resolver_that_falls_silent_on_nonsense_is_given_three_seconds(
    autojump_clock: trio.testing.MockClock,
) -> None:
    class Silent(Hijacked):
        async def resolve(self, host: str, port: int) -> list[IPAddress]:
            if host.endswith(".invalid"):
                await trio.sleep_forever()
            return await super().resolve(host, port)

    async with trio.open_nursery() as nursery:
        found = await Examiner((ENDPOINT,), ()).examine(any_way(Silent(nursery, says(PORTAL))), Known())
    assert [one.finding for one in found] == [Finding.REDIRECT, Finding.NAME_SILENT]
    assert trio.current_time() == pytest.approx(3)


# Probes of one's own.


async def test_a_probe_of_ones_own_is_asked_beside_the_others_and_cannot_harm(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    ways: list[Way] = []

    async def passes(way: Way) -> Evidence:
        ways.append(way)
        await trio.lowlevel.checkpoint()
        return Evidence(question=Question.HTTP_204, finding=Finding.PASSED)

    async def raises(way: Way) -> Evidence:
        raise ZeroDivisionError("by nobody")

    async def hangs(way: Way) -> Evidence:
        await trio.sleep_forever()
        raise AssertionError

    async def forgets(way: Way) -> Evidence:
        await trio.lowlevel.checkpoint()
        return None  # type: ignore[return-value]  # as a function without types would

    autojump_clock.jump(5)
    async with trio.open_nursery() as nursery:
        way = any_way(FakeNetwork(nursery, mute))
        found = await Examiner((), (passes, raises, hangs, forgets)).examine(way, Known())
    assert [(one.question, one.finding, one.time) for one in found] == [
        (Question.OWN, Finding.PASSED, 5),
        (Question.OWN, Finding.OTHER, 5),
        (Question.OWN, Finding.TIMEOUT, 15),
        (Question.OWN, Finding.OTHER, 5),
    ]
    assert ways == [way]
    assert "by nobody" in caplog.text
    assert trio.current_time() == 15


async def test_what_was_not_asked_has_its_time_too(autojump_clock: trio.testing.MockClock) -> None:
    autojump_clock.jump(5)
    async with trio.open_nursery() as nursery:
        way = attrs.evolve(any_way(FakeNetwork(nursery, mute), 6), device="wlan0", ifindex=2)
        found = await Examiner((Endpoint("http://192.0.2.1/"),), ()).examine(way, Known())
    assert [(one.question, one.finding, one.time) for one in found] == [
        (Question.API, Finding.API_UNKNOWN, 5),
        (Question.TABLES, Finding.NO_SUCH_ADDRESS, 5),  # its endpoint is of the other family
    ]


async def test_at_most_five_questions_are_asked_at_once_however_many_paths_there_are(
    autojump_clock: trio.testing.MockClock,
) -> None:
    asking, most = 0, 0

    async def own(way: Way) -> Evidence:
        nonlocal asking, most
        asking += 1
        most = max(most, asking)
        await trio.sleep(1)
        asking -= 1
        return Evidence(question=Question.OWN, finding=Finding.PASSED)

    async with trio.open_nursery() as nursery:
        examiner = Examiner((), (own,) * 4)
        way = any_way(FakeNetwork(nursery, mute))
        async with trio.open_nursery() as runs:
            for _ in range(4):
                runs.start_soon(examiner.examine, way, Known())
    assert most == 5
    assert trio.current_time() == 4
