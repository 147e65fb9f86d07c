"""The command `trio-routes record`, and what a replay of its file says."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from tests.recordings._file import write
from tests.recordings.facts import event_lines
from trio_routes import testing
from trio_routes.cli import ExitStatus

PYTHON = ("env", "-u", "PYTHONUNBUFFERED", sys.executable, "-m", "trio_routes")


async def lines_of(stream: trio.abc.ReceiveStream | None) -> list[str]:
    assert stream is not None
    with trio.fail_after(20):
        return b"".join([chunk async for chunk in stream]).decode().splitlines()


async def first_line_of(stream: trio.abc.ReceiveStream | None) -> str:
    assert stream is not None
    said = b""
    with trio.fail_after(20):
        while not said.endswith(b"\n"):
            said += await stream.receive_some(1)
    return said.decode()


@pytest.fixture
async def host(lab: testing.Lab) -> testing.Host:
    host = lab.host("device")
    host.plug(lab.network("wifi"), name="wlan0", addresses=["192.0.2.2/24"])
    await trio.lowlevel.checkpoint()
    return host


def events_of(path: Path) -> list[str]:
    async def play() -> list[str]:
        played = await testing.replay(path)
        return event_lines(played.events, played.routes)

    return trio.run(play, clock=MockClock(autojump_threshold=0))


async def test_the_command_records_what_a_replay_then_says(host: testing.Host, tmp_path: Path) -> None:
    path = tmp_path / "command.trec"
    process = host.start([*PYTHON, "record", path, "-n", "2"], stdout=subprocess.PIPE)
    assert await first_line_of(process.stdout) == "recording; Ctrl-C ends it\n"
    host.add_route("default", via="192.0.2.1")
    host.delete_route("default", via="192.0.2.1")
    said = await lines_of(process.stdout)
    assert await process.wait() == ExitStatus.OK
    assert said[0].startswith("recorded ")
    assert said[0].endswith(f"; {path.stat().st_size} bytes")
    routes = [line for line in await trio.to_thread.run_sync(events_of, path) if line.startswith("Route")]
    assert routes == [
        "RouteAdded: default via 192.0.2.1 dev wlan0 proto static",
        "RouteRemoved: default via 192.0.2.1 dev wlan0 proto static",
    ]


async def test_sigterm_completes_the_file(host: testing.Host, tmp_path: Path) -> None:
    path = tmp_path / "term.trec"
    process = host.start([*PYTHON, "record", path], stdout=subprocess.PIPE)
    await first_line_of(process.stdout)
    host.add_route("198.51.100.0/24", via="192.0.2.1")
    process.terminate()
    await lines_of(process.stdout)
    assert await process.wait() == ExitStatus.OK
    (event,) = await trio.to_thread.run_sync(events_of, path)
    assert event == "RouteAdded: 198.51.100.0/24 via 192.0.2.1 dev wlan0 proto static"


async def test_a_recording_whose_writer_was_killed_is_known_to_be_cut_off(host: testing.Host, tmp_path: Path) -> None:
    path = tmp_path / "killed.trec"
    process = host.start([*PYTHON, "record", path], stdout=subprocess.PIPE)
    await first_line_of(process.stdout)
    process.kill()
    await process.wait()
    with pytest.raises(testing.RecordingError, match="cut off"):
        testing.read_recording(path)


def started(*words: str | Path) -> subprocess.Popen[str]:
    return subprocess.Popen([*PYTHON, "record", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_ctrl_c_completes_the_file(tmp_path: Path) -> None:
    path = tmp_path / "interrupted.trec"
    with started(path) as process:
        assert process.stdout and process.stderr
        assert process.stdout.readline() == "recording; Ctrl-C ends it\n"
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline().startswith("recorded ")
        assert process.stderr.read() == ""
        assert process.wait(timeout=10) == ExitStatus.OK
    assert testing.read_recording(path).frames


def test_a_file_that_is_there_is_overwritten_only_with_force(tmp_path: Path) -> None:
    path = write(tmp_path / "there.trec", b"precious")
    with started(path, "--for", "0") as process:
        _, errors = process.communicate(timeout=20)
    assert (process.returncode, path.read_bytes()) == (ExitStatus.FAILED, b"precious")
    assert errors == f"trio-routes record: there is a file {path} already; --force overwrites it\n"
    with started(path, "--for", "0.05", "--force") as process:
        output, errors = process.communicate(timeout=20)
    assert (process.returncode, errors) == (ExitStatus.OK, "")
    assert output.splitlines()[-1].startswith("recorded 0.")
    assert testing.read_recording(path).frames


def test_where_nothing_can_be_written_or_heard_it_says_so_and_leaves_no_file(tmp_path: Path) -> None:
    with started(tmp_path / "no" / "folder", "--for", "0") as process:
        _, errors = process.communicate(timeout=20)
    assert process.returncode == ExitStatus.FAILED
    assert errors.startswith("trio-routes record: ")
    assert "No such file" in errors
    path = tmp_path / "deaf.trec"
    words = ["record", str(path)]
    program = f"import socket, sys, trio_routes.cli as c; del socket.AF_NETLINK; sys.exit(c.main({words}))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == ExitStatus.FAILED
    assert done.stderr.splitlines()[-1].startswith("trio-routes record: there is nothing to record")
    assert not path.exists()
