"""The examples, as a user runs them: each in a process of its own, on a host of the lab, while its route goes and comes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from trio_routes import testing

EXAMPLES = Path(__file__).parent.parent / "examples"

# The longest step of these tests is the default policy's second before a connection is closed.
BOUND = 20


class Example:
    """A running example, read line by line."""

    def __init__(self, host: testing.Host, name: str, *arguments: object) -> None:
        argv = [sys.executable, os.fspath(EXAMPLES / name), *map(str, arguments)]
        self.process = host.start(argv, stdout=subprocess.PIPE)
        self.lines: list[str] = []
        self._rest = b""

    async def until(self, start: str) -> str:
        """Read on to the next line that begins with ``start``, and return it."""
        before = len(self.lines)
        while True:
            line = await self._read_line(start, before)
            self.lines.append(line)
            if line.startswith(start):
                return line

    async def _read_line(self, start: str, before: int) -> str:
        while b"\n" not in self._rest:
            self._rest += await self._read(start, before)
        line, self._rest = self._rest.split(b"\n", 1)
        await trio.lowlevel.checkpoint()
        return line.decode()

    async def _read(self, start: str, before: int) -> bytes:
        stdout = self.process.stdout
        assert stdout is not None
        seen = "\n".join(self.lines[before:])
        with trio.move_on_after(BOUND):
            data = await stdout.receive_some()
            assert data, f"{self.process} ended before a line with {start!r}; it printed:\n{seen}"
            return bytes(data)
        raise AssertionError(f"{self.process} printed no line with {start!r} for {BOUND} s, but:\n{seen}")

    async def ends_well(self) -> None:
        await self.until("done")
        with trio.fail_after(BOUND):
            assert await self.process.wait() == 0


async def echo(stream: trio.SocketStream) -> None:
    try:
        async for data in stream:
            await stream.send_all(data)
    except trio.BrokenResourceError:
        pass  # the client's kernel told us that its connection was ended for its route


@pytest.mark.slow  # the default policy waits a second before it closes
async def test_the_client_says_what_it_lost_and_goes_on_over_the_other_uplink(
    lab: testing.Lab, nursery: trio.Nursery
) -> None:
    net = lab.two_uplinks(nat=True)
    nursery.start_soon(trio.serve_listeners, echo, net.server.listen(7))
    client = Example(net.device, "client.py", net.server_addresses[4], 7, 6)
    assert f"via {net.wifi_gateways[4]}" in await client.until("connected: ")
    await client.until("echo: line 1")
    net.device.delete_route("default", via=net.wifi_gateways[4])
    assert "no route" in await client.until("lost: ")
    net.device.add_route("default", via=net.lte_gateways[4])
    assert f"via {net.lte_gateways[4]}" in await client.until("connected: ")
    await client.ends_well()
    echoed = [line for line in client.lines if line.startswith("echo: ")]
    assert echoed == [f"echo: line {number}" for number in range(6)]


async def session(host: testing.Host, server: str, port: int, line: bytes) -> tuple[trio.SocketStream, bytes]:
    """Open a session called "alice", and say one line in it."""
    stream = await host.open_tcp_stream(server, port)
    await stream.send_all(b"alice\n" + line + b"\n")
    with trio.fail_after(BOUND):
        return stream, bytes(await stream.receive_some())


@pytest.mark.slow  # as above
async def test_the_server_saves_the_state_of_a_session_whose_route_it_lost_and_resumes_it(
    lab: testing.Lab, tmp_path: Path
) -> None:
    net = lab.two_uplinks(nat=False)
    address, state = net.server_addresses[4], tmp_path / "state.json"
    server = Example(net.server, "server.py", 7, state, 1)
    await server.until("listening")
    lost, answer = await session(net.device, address, 7, b"one")
    assert answer == b"1 one\n"
    assert await server.until("new: ") == "new: alice"
    net.server.delete_route("10.0.1.0/24")
    assert "no route" in await server.until("lost: alice: ")
    assert await server.until("saved: ") == "saved: alice at 1"
    assert json.loads(state.read_text()) == {"alice": 1}
    net.server.add_route("10.0.1.0/24", via="198.51.100.1")
    again, answer = await session(net.device, address, 7, b"two")
    assert answer == b"2 two\n"
    assert await server.until("resumed: ") == "resumed: alice"
    await again.aclose()
    assert await server.until("ended: ") == "ended: alice at 2"
    await server.ends_well()
    await trio.aclose_forcefully(lost)


async def test_the_events_example_tells_the_changes_that_move_the_way_and_no_others(lab: testing.Lab) -> None:
    net = lab.two_uplinks(nat=True)
    events = Example(net.device, "events.py", net.server_addresses[4], 3)
    address = net.server_addresses[4]
    assert await events.until("") == f"{address}: by wlan0 via {net.wifi_gateways[4]}"
    net.device.add_route("203.0.113.0/24", via=net.lte_gateways[4])  # elsewhere
    net.device.add_route("default", via=net.lte_gateways[4], metric=50)
    assert await events.until("") == f"{address}: by wwan0 via {net.lte_gateways[4]}"
    net.wwan0.down()
    assert await events.until("") == f"{address}: by wlan0 via {net.wifi_gateways[4]}"
    net.device.delete_route("default", via=net.wifi_gateways[4])
    assert await events.until("") == f"{address}: no route"
    await events.ends_well()


async def run_to_its_end(name: str) -> list[str]:
    """Run an example that brings its own network, and return what it printed."""
    argv = [sys.executable, os.fspath(EXAMPLES / name)]
    with trio.fail_after(BOUND):
        finished = await trio.run_process(argv, capture_stdout=True, capture_stderr=True, check=False)
    assert finished.returncode == 0, finished.stderr.decode()
    return finished.stdout.decode().splitlines()


@pytest.mark.netns
async def test_the_what_if_example_says_what_would_close_and_closes_nothing() -> None:
    lines = await run_to_its_end("what_if.py")
    assert lines[0].endswith("(server): good")
    assert lines[1].startswith("  path     via 10.0.1.1 dev wlan0, by 0.0.0.0/0")
    asked = [line for line in lines if line.startswith("if ")]
    assert asked == [
        "if link wlan0 without carrier: 1 ended, 0 asked, 0 suspect, 0 kept",
        # The address stays, and the other link has a way: whether the far side takes that, only it can tell.
        "if link wlan0 down: 0 ended, 1 asked, 0 suspect, 0 kept",
        "if link wlan0 gone: 1 ended, 0 asked, 0 suspect, 0 kept",
        "if address 10.0.1.2 gone: 1 ended, 0 asked, 0 suspect, 0 kept",
        "if route default dev wlan0 gone: 0 ended, 1 asked, 0 suspect, 0 kept",
        "if route default dev wlan0 gone and route default dev wwan0 gone: 1 ended, 0 asked, 0 suspect, 0 kept",
        "if link eth0 gone: 1 ended, 0 asked, 0 suspect, 0 kept",
    ]
    assert "(server): ended after 6 s: carrier lost" in lines[lines.index(asked[0]) + 1]
    assert "asked after 6 s: egress changed; path via 10.0.2.1 dev wwan0" in lines[lines.index(asked[1]) + 1]
    assert "(neighbour): ended after 6 s: source gone" in lines[lines.index(asked[-1]) + 1]
    assert lines[-2:] == ["and yet: good, good", "done"]


@pytest.mark.netns
@pytest.mark.slow  # as above
async def test_keep_connected_loses_nothing_between_two_uplinks() -> None:
    lines = await run_to_its_end("keep_connected.py")
    assert [line for line in lines if line.startswith("echo: ")] == [f"echo: {number}" for number in range(10)]
    others = [line for line in lines if not line.startswith("echo: ")]
    before, lost, after, done = others
    assert before.startswith("connected: ") and "via 10.0.1.1" in before
    assert lost.startswith("lost: ") and "no route" in lost
    assert after.startswith("connected: ") and "via 10.0.2.1" in after
    assert done == "done" == lines[-1]
    assert lines.index(lost) < lines.index(after) < lines.index("echo: 5")


@pytest.mark.netns
@pytest.mark.slow  # as above
async def test_the_echo_server_saves_at_the_loss_and_resumes() -> None:
    lines = await run_to_its_end("echo_server.py")
    (lost,) = [line for line in lines if line.startswith("lost: alice: ")]
    assert "no route" in lost
    lines.remove(lost)
    assert lines == [
        "new: alice at 0",
        "  client: 1 one",
        "  client: 2 two",
        "saved: alice at 2",
        "resumed: alice at 2",
        "  client: 3 three",
        "ended: alice at 3",
        "done",
    ]


def timed(lines: list[str], start: str) -> list[tuple[float, str]]:
    """Of the examples that print the seconds first: when, and what, where that begins with `start`."""
    split = [line.split(" s ", 1) for line in lines if " s " in line]
    return [(float(seconds), what.removeprefix(start)) for seconds, what in split if what.startswith(start)]


@pytest.mark.netns
@pytest.mark.slow  # as above
async def test_the_http_client_loses_a_request_waits_for_the_route_and_goes_on_at_once() -> None:
    lines = await run_to_its_end("http_client.py")
    answers = timed(lines, "answer: ")
    assert [what for _, what in answers] == [f"number {number}" for number in (1, 2, 3, 5, 6, 7)]
    [(lost_at, lost)], [(refused_at, refused)], [(back_at, _)] = (
        timed(lines, start) for start in ("lost: ", "no route: ", "back:")
    )
    assert "no route" in lost and "no route" in refused
    assert lost_at - answers[2][0] > 1  # the default policy's wait
    assert refused_at - lost_at < 0.3
    assert back_at - lost_at > 0.3
    assert answers[3][0] - back_at < 0.3
    assert lines[-1] == "done"


@pytest.mark.netns
@pytest.mark.slow  # as above
async def test_the_websocket_client_subscribes_again_and_misses_nothing() -> None:
    lines = await run_to_its_end("websocket_client.py")
    assert [int(what) for _, what in timed(lines, "number: ")] == list(range(1, 11))
    [(lost_at, lost)] = timed(lines, "lost: ")
    assert "no route" in lost
    (_, first), (again_at, again) = timed(lines, "subscribed: after ")
    assert first == "0, unicast via 10.0.1.1 on link 2"
    seen = len([at for at, _ in timed(lines, "number: ") if at <= lost_at])
    assert again == f"{seen}, unicast via 10.0.2.1 on link 3"
    assert again_at > lost_at
    assert lines[-1] == "done"


@pytest.mark.netns
@pytest.mark.slow  # the first recheck comes after a second
async def test_the_captive_portal_is_found_logged_in_at_and_gone() -> None:
    lines = await run_to_its_end("captive_portal.py")
    told = [re.fullmatch(r"(portal|online): after (\d+\.\d+) s(.*)", line) for line in lines]
    portal, online = [found for found in told if found is not None]
    assert (portal[1], portal[3], online[1]) == ("portal", ", at http://198.18.0.7/login", "online")
    assert float(portal[2]) < 0.9  # at once, not at a recheck
    assert 1.0 <= float(online[2]) < 5.0  # at the first recheck
    links = [line for line in lines if line.startswith("link: ")]
    assert "link: wlan0 portal" in links
    assert "link: eth0 offline" in links
    assert {"link: wwan0 online", "link: wwan0 unknown"} & set(links)  # asked at the same time; who is first, is chance
    assert lines[-1] == "done"
