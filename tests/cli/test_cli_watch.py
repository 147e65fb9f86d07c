"""``trio-routes watch`` as users run it: a process beside routes that change, and its ends."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any, cast

import pytest
import trio

from trio_routes import testing
from trio_routes.cli import ExitStatus, _progress, _watch
from trio_routes.netlink import NetlinkSocket
from trio_routes.testing import LabProcess

# As users run it: PYTHONUNBUFFERED, which CI systems like to set, would flush what the command forgets to.
PYTHON = ("env", "-u", "PYTHONUNBUFFERED", sys.executable, "-m", "trio_routes")


class Lines:
    """What a process writes, line by line."""

    def __init__(self, stream: trio.abc.ReceiveStream | None) -> None:
        assert stream is not None
        self._stream = stream
        self._rest = b""

    async def next(self) -> str:
        """The next line; fails if none comes within 10 s."""
        with trio.fail_after(10):
            while b"\n" not in self._rest:
                more = await self._stream.receive_some()
                assert more, f"ended after {self._rest!r}"
                self._rest += more
        line, _, self._rest = self._rest.partition(b"\n")
        return line.decode()

    async def next_json(self) -> dict[str, Any]:
        return cast(dict[str, Any], json.loads(await self.next()))

    async def json_until(self, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The next object that is wanted."""
        while not wanted(said := await self.next_json()):
            pass
        return said


@pytest.fixture
async def host(lab: testing.Lab) -> testing.Host:
    host = lab.host("device")
    host.plug(lab.network("wifi"), name="wlan0", addresses=["192.0.2.2/24"])
    await trio.lowlevel.checkpoint()
    return host


def watch(host: testing.Host, *words: str) -> LabProcess:
    return host.start([*PYTHON, "watch", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE)


async def end_of(process: LabProcess) -> tuple[int, bytes]:
    """The exit status and what is on stderr; fails after 10 s."""
    assert process.stderr is not None
    errors = b""
    with trio.fail_after(10):
        async for chunk in process.stderr:
            errors += chunk
        return await process.wait(), errors


async def test_each_line_is_an_event_with_its_fields_and_its_smd_form(host: testing.Host) -> None:
    process = watch(host, "--json")
    lines = Lines(process.stdout)
    start = await lines.next_json()
    assert start["event"] == "Watching"
    assert (start["links"], start["rules"]) == (2, 5)
    assert start["routes"] >= 8

    host.add_route("198.51.100.0/24", via="192.0.2.1", metric=7)
    added = await lines.json_until(lambda said: said["event"] == "RouteAdded")
    assert added["route"]["dst"] == "198.51.100.0/24"
    assert (added["route"]["gateway"], added["route"]["dev"], added["route"]["metric"]) == ("192.0.2.1", "wlan0", 7)
    assert (added["smd"], added["cause"]) == ({"rt": "add"}, "RTM_NEWROUTE")
    assert added["generation"] > start["generation"]
    assert added["time"] > start["time"]

    host.add_route("default", via="192.0.2.1")
    gateway = await lines.json_until(lambda said: said["event"] == "GatewayChanged")
    assert gateway["before"] == []
    assert [(hop["gateway"], hop["dev"]) for hop in gateway["after"]] == [("192.0.2.1", "wlan0")]
    assert gateway["smd"] == {"trigger": "cpdcheck", "src": "gw-change"}

    host.add_rule(50, source="192.0.2.0/24", table=7, mark=3)
    rule = await lines.json_until(lambda said: said["event"] == "RuleChanged")
    assert rule["old"] is None
    assert (rule["new"]["priority"], rule["new"]["src"], rule["new"]["table"]) == (50, "192.0.2.0/24", "7")
    assert rule["new"]["fwmark"] == "0x3"

    host.links["wlan0"].delete()
    link = await lines.json_until(lambda said: said["event"] == "LinkDown")
    assert (link["link"]["ifname"], link["smd"]) == ("wlan0", None)
    gone = await lines.json_until(lambda said: said["event"] == "RouteRemoved")
    assert gone["route"]["dev"] == "wlan0"  # by its name, which the kernel does not know any more
    assert gone["cause"].startswith("link wlan0 was")
    assert gone["smd"] == {"rt": "del"}


async def test_what_is_behind_the_links_is_told_where_it_is_wanted(lab: testing.Lab, nursery: trio.Nursery) -> None:
    net = lab.two_uplinks()
    asked = 0

    async def redirect(stream: trio.SocketStream) -> None:
        nonlocal asked
        asked += 1
        await stream.receive_some()
        await stream.send_all(b"HTTP/1.1 302 Found\r\nLocation: /login\r\nContent-Length: 0\r\n\r\n")

    nursery.start_soon(trio.serve_listeners, redirect, net.server.listen(80))
    place = f"http://{net.server_addresses[4]}"
    words = ("--portal", "--endpoint", f"{place}/generate_204", "-n", "20")
    process = watch(net.device, *words)
    lines = Lines(process.stdout)
    told: set[str] = set()
    while len(told) < 2:
        line = await lines.next()
        if "portal, at" in line:
            told.add(line.partition(" ")[2])
    assert told == {
        f"~ portal  behind wlan0 by IPv4: unknown is now portal, at {place}/login",
        f"~ portal  behind the default path: unknown is now portal, at {place}/login",
    }
    before = asked
    process = watch(net.device, "--json", *words)
    lines = Lines(process.stdout)
    changed = await lines.json_until(lambda said: said["event"] == "PortalChanged")
    assert (changed["smd"], changed["state"]["url"]) == ({"type": "cpd", "result": "Captive"}, f"{place}/login")
    assert [one["finding"] for one in changed["state"]["evidence"] if one["question"] == "http 204"] == ["redirect"]
    assert asked > before
    nursery.cancel_scope.cancel()


async def test_it_ends_after_as_many_events_as_were_asked_for(host: testing.Host) -> None:
    process = watch(host, "-n", "1")
    lines = Lines(process.stdout)
    assert (await lines.next()).startswith("watching ")
    host.add_route("198.51.100.0/24", via="192.0.2.1")
    assert (await lines.next()).endswith(" + route   198.51.100.0/24 via 192.0.2.1 dev wlan0 proto static")
    assert await end_of(process) == (ExitStatus.OK, b"")


async def test_it_ends_after_the_time_that_was_asked_for(host: testing.Host) -> None:
    process = watch(host, "--for", "0.05")
    assert await end_of(process) == (ExitStatus.OK, b"")


async def test_a_reader_that_goes_away_ends_it_quietly(host: testing.Host) -> None:
    process = watch(host)
    await Lines(process.stdout).next()
    assert process.stdout is not None
    await process.stdout.aclose()
    host.add_route("198.51.100.0/24", via="192.0.2.1")
    assert await end_of(process) == (ExitStatus.BROKEN_PIPE, b"")


async def test_a_terminal_gets_colours(host: testing.Host) -> None:
    pytest.importorskip("rich")
    controlling, terminal = pty.openpty()
    async with trio.lowlevel.FdStream(controlling) as ours:
        words = ["env", "-u", "NO_COLOR", "TERM=xterm-256color", *PYTHON, "watch", "-n", "1"]
        process = host.start(words, stdout=terminal, stderr=subprocess.PIPE)
        os.close(terminal)
        lines = Lines(ours)
        assert (await lines.next()).startswith("watching ")
        host.add_route("198.51.100.0/24", via="192.0.2.1", metric=1234567890, source="192.0.2.2", protocol=16)
        line = await lines.next()
        assert "\x1b[32mroute  \x1b[0m" in line
        assert line.rstrip().endswith("metric 1234567890")  # in one line, however narrow the terminal is
        assert await end_of(process) == (ExitStatus.OK, b"")


def test_without_rich_there_are_no_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _watch._coloured() is not None
    monkeypatch.setitem(sys.modules, "rich.console", None)
    assert _watch._coloured() is None


def test_ctrl_c_is_quiet() -> None:
    pipe = subprocess.PIPE
    with subprocess.Popen([*PYTHON, "watch"], stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stdout and process.stderr
        assert process.stdout.readline().startswith("watching ")
        process.send_signal(signal.SIGINT)
        assert process.stderr.read() == ""
        assert process.wait(timeout=10) == ExitStatus.INTERRUPTED


@pytest.mark.parametrize("command", [["routes"], ["get", "192.0.2.1"], ["watch"]], ids=lambda words: words[0])
def test_where_there_is_no_netlink_it_says_so(command: list[str]) -> None:
    program = f"import socket, sys, trio_routes.cli as c; del socket.AF_NETLINK; sys.exit(c.main({command}))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stdout) == (ExitStatus.FAILED, "")
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f"trio-routes {command[0]}: ")
    assert "kernel" in last
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["-n", "0"], "it takes at least 1"),
        (["-n", "x"], "'x' is not a number"),
        (["--for", "nan"], "nan is not a finite number of seconds"),
        (["--endpoint", "http://a.example/"], "nobody is asked without --portal"),
    ],
)
def test_wrong_arguments_say_what_was_wrong(words: list[str], said: str) -> None:
    done = subprocess.run([*PYTHON, "watch", *words], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == ExitStatus.USAGE
    assert said in done.stderr


class SlowSocket:
    """A netlink socket on which each thing that arrives takes a second; the rest is the other's."""

    def __init__(self, inner: NetlinkSocket) -> None:
        self._inner = inner

    @property
    def port(self) -> int:
        return self._inner.port

    @property
    def netns_cookie(self) -> int | None:
        return self._inner.netns_cookie

    @property
    def receive_buffer(self) -> int:
        return self._inner.receive_buffer

    def join(self, group: int) -> None:
        self._inner.join(group)

    def send(self, data: bytes) -> None:
        self._inner.send(data)

    def receive_into(self, buffer: bytearray) -> tuple[int, bool, int]:
        return self._inner.receive_into(buffer)

    async def wait_readable(self) -> None:
        await trio.sleep(1)
        await self._inner.wait_readable()

    def close(self) -> None:
        self._inner.close()


class SlowKernel(testing.FakeKernel):
    def open_netlink(self) -> NetlinkSocket:  # type: ignore[override]  # a pt asks for no more than that
        return SlowSocket(super().open_netlink())


async def test_how_many_routes_were_read_is_said_while_the_tables_come_in(
    autojump_clock: trio.testing.MockClock,
) -> None:
    kernel = SlowKernel()
    for number in range(300):
        kernel.add_route(f"10.{number // 250}.{number % 250}.0/24", type="blackhole")
    said: list[int] = []
    async with _progress.opened(kernel, said.append) as pt:
        routes = pt.statistics().routes
        during = len(said)
        await trio.sleep(10)
    assert during == len(said) >= 4, "while they come in, and not afterwards"
    assert said == sorted(said) and said[0] == 0 and 300 <= said[-1] <= routes
    assert len(set(said)) > 1
