"""``trio-routes portal``: what it prints and how it ends; and the endpoint that it serves."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import trio
import trio.testing

from trio_routes import Evidence, Finding, PortalKind, PortalState, Question, testing
from trio_routes.cli import ExitStatus, main
from trio_routes.cli._portal_forms import evidence_as_text, state_as_json
from trio_routes.portal import Capport, serve_endpoint


async def served(request: bytes) -> bytes:
    """What an endpoint of ours answers."""
    ours, theirs = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve_endpoint, theirs)
        await ours.send_all(request)
        await ours.send_eof()
        answer = bytearray()
        async for data in ours:
            answer += data
    return bytes(answer)


async def test_an_endpoint_answers_204_and_the_challenge() -> None:
    answer = await served(b"GET /generate_204 HTTP/1.1\r\nHost: a\r\nX-Trio-Routes-Challenge: a1-b.c\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 204 ")
    assert b"X-Trio-Routes-Response: response a1-b.c\r\n" in answer
    assert b"\r\nX-Trio" not in await served(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n")


@pytest.mark.parametrize(
    "request_",
    [
        b"GET / HTTP/1.1\r\nHost: a\r\nX-Trio-Routes-Challenge: " + challenge + b"\r\n\r\n"
        for challenge in (b"<script>", b"a b", b"a" * 65, b"\xff")
    ],
)
async def test_what_is_no_challenge_is_not_echoed(request_: bytes) -> None:
    answer = await served(request_)
    assert answer.startswith(b"HTTP/1.1 204 ")
    assert b"X-Trio-Routes-Response" not in answer


@pytest.mark.parametrize(
    ("request_", "answer"),
    [
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", b"HTTP/1.1 405 "),
        (b"", b""),
        (b"\x16\x03\x01\x02\x00\r\n\r\n", b""),
        (b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 5000, b""),
    ],
)
async def test_whoever_asks_something_else_gets_little(request_: bytes, answer: bytes) -> None:
    assert (await served(request_)).startswith(answer)
    assert answer or not await served(request_)


async def test_a_peer_that_never_asks_is_left_after_ten_seconds(autojump_clock: trio.testing.MockClock) -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    await serve_endpoint(theirs)
    assert trio.current_time() == 10
    await ours.aclose()


def test_times_are_told_from_now_and_what_is_not_known_is_left_out() -> None:
    said = Capport(captive=False, seconds_remaining=90.0)
    evidence = Evidence(question=Question.API, finding=Finding.API_OPEN, capport=said, time=100.0)
    state = PortalState(kind=PortalKind.ONLINE, generation=3, expires_at=190.0, evidence=(evidence,))
    told = state_as_json(state, 130.0)
    assert told == {
        "state": "online",
        "result": "OK",
        "expires_in": 60.0,
        "generation": 3,
        "evidence": [
            {
                "question": "api",
                "finding": "api open",
                "capport": {"captive": False, "seconds_remaining": 90.0},
                "seconds_ago": 30.0,
                "seconds": 0.0,
                "generation": 0,
            }
        ],
    }


def test_what_a_stranger_wrote_cannot_play_with_the_terminal() -> None:
    evidence = Evidence(question=Question.API, finding=Finding.OTHER, endpoint="https://a/\x1b[2J", detail="\x07")
    assert "\x1b" not in evidence_as_text(evidence)
    assert "\x07" not in evidence_as_text(evidence)


@pytest.mark.parametrize(
    "words",
    [
        ["--endpoint", "ftp://a/"],
        ["--challenge"],
        ["--endpoint", "http://a/", "--endpoint", "http://a/"],
        ["serve", "--port", "65536"],
        ["--resolver", "192.0.2.53"],
        ["--api", "https://a.example/"],
        ["--interface", "eth0", "--api", "http://a.example/"],
        ["--interface", "eth0", "--resolver", "dns.example"],
    ],
)
def test_wrong_arguments(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    try:
        status: object = main(["portal", *words])
    except SystemExit as ended:
        status = ended.code
    assert status == ExitStatus.USAGE
    assert "trio-routes portal" in capsys.readouterr().err


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_authorities_that_cannot_be_read_are_named(
    content: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    authorities = tmp_path / "ca.pem"
    if content is not None:
        authorities.write_text(content)
    assert main(["portal", "--ca", str(authorities)]) == ExitStatus.FAILED
    assert capsys.readouterr().err.startswith(f"trio-routes portal: {authorities}: ")


async def _portal(host: testing.Host, *words: str) -> tuple[int, str]:
    process = host.start([sys.executable, "-m", "trio_routes", "portal", *words], stdout=subprocess.PIPE)
    assert process.stdout is not None
    output = bytearray()
    with trio.fail_after(20):
        async for data in process.stdout:
            output += data
        return await process.wait(), output.decode()


@pytest.mark.slow  # starts the command three times
async def test_the_command_asks_an_endpoint_that_the_command_serves(lab: testing.Lab) -> None:
    net = lab.two_uplinks(nat=True)
    argv = [sys.executable, "-m", "trio_routes", "portal", "serve", "--port", "8080"]
    server = net.server.start(argv, stdout=subprocess.PIPE)
    assert server.stdout is not None
    with trio.fail_after(20):
        assert b"listens on" in await server.stdout.receive_some()
    url = f"http://{net.server_addresses[4]}:8080/generate_204"
    status, output = await _portal(net.device, "--json", "--challenge", "--endpoint", url)
    told = json.loads(output)
    assert (status, told["state"], told["result"]) == (ExitStatus.OK, "online", "OK")
    assert {link["ifname"] for link in told["links"]} == {"wlan0", "wwan0", "eth0"}
    status, output = await _portal(net.device, "--interface", "wwan0", "--endpoint", url)
    assert status == ExitStatus.OFFLINE  # no route by it
    assert "no default route" in output
