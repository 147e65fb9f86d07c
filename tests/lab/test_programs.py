"""Programs, sysctls and sockets of a host."""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest
import trio

from tests.lab.waiting import until
from trio_routes import testing


def running(token: str) -> list[int]:
    """Return the processes whose command line has ``token`` in it."""
    found: list[int] = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if token.encode() in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
            except OSError:
                continue  # it ended while we looked
    return found


async def wait_until_gone(token: str) -> None:
    await until(lambda: not running(token))


def unlikely_seconds() -> str:
    """Return an argument for sleep(1) by which it can be found."""
    return f"9{os.getpid()}{time.monotonic_ns()}"[:15]


async def wait_until_running(token: str, count: int) -> None:
    await until(lambda: len(running(token)) >= count)


async def test_run_returns_what_the_program_wrote(lab: testing.Lab) -> None:
    host = lab.host("a")
    assert await host.run(["echo", "grüße"]) == "grüße\n"
    assert await host.run(["cat"], stdin=b"x" * 300_000) == "x" * 300_000
    assert await host.run(["true"], stdin=b"x" * 300_000) == ""
    assert await host.run(["readlink", "/proc/self/ns/net"]) == f"net:[{os.fstat(host.netns).st_ino}]\n"


async def test_a_failing_program_raises_with_its_words(lab: testing.Lab) -> None:
    with pytest.raises(subprocess.CalledProcessError) as caught:
        await lab.host("a").run(["sh", "-c", "echo out; echo why >&2; exit 3"])
    assert caught.value.returncode == 3
    assert (caught.value.stdout, caught.value.stderr) == (b"out\n", b"why\n")
    assert caught.value.__notes__ == ["why"]


async def test_a_program_that_is_not_there(lab: testing.Lab) -> None:
    host = lab.host("a")
    with pytest.raises(FileNotFoundError, match="no-such-program"):
        await host.run(["no-such-program"])
    with pytest.raises(FileNotFoundError, match="no-such-program"):
        host.start(["no-such-program"])
    with pytest.raises(ValueError, match="no command"):
        await host.run([])


async def test_a_cancelled_run_leaves_no_process(lab: testing.Lab) -> None:
    seconds = unlikely_seconds()
    host = lab.host("a")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(host.run, ["sh", "-c", f"setsid sleep {seconds} & wait"])
        await wait_until_running(seconds, 3)
        nursery.cancel_scope.cancel()
    await wait_until_gone(seconds)


async def test_a_started_program_ends_with_the_lab_and_so_do_its_children() -> None:
    if testing.Lab.unavailable():
        pytest.skip("needs the lab")
    seconds = unlikely_seconds()
    async with testing.Lab() as lab:
        process = lab.host("a").start(["sh", "-c", f"setsid sleep {seconds} & wait"])
        await wait_until_running(seconds, 3)
        assert process.returncode is None
    assert await process.wait() == -9
    await wait_until_gone(seconds)


async def test_a_program_that_is_killed_in_its_first_moments_leaves_nothing(lab: testing.Lab) -> None:
    # Between 0 and 3 ms after the start, through setpriv, unshare, its fork and the program's exec.
    seconds = unlikely_seconds()
    host = lab.host("a")
    for step in range(60):
        process = host.start(["sleep", seconds])
        await trio.sleep(step * 0.00005)
        process.kill()
        await process.wait()
    await until(lambda: not running(seconds))


async def test_a_started_program_can_be_asked_to_end(lab: testing.Lab) -> None:
    program = "trap 'exit 7' TERM; echo ready; while :; do sleep 0.02; done"
    process = lab.host("a").start(["sh", "-c", program], stdout=subprocess.PIPE)
    assert process.stdout is not None
    with trio.fail_after(5):
        assert await process.stdout.receive_some() == b"ready\n"
        process.terminate()
        assert await process.wait() == 7
    assert process.returncode == 7
    process.terminate()
    process.kill()


async def test_a_started_program_can_be_sent_any_signal_that_it_handles(lab: testing.Lab) -> None:
    program = "trap 'echo heard' HUP; echo ready; while :; do sleep 0.02; done"
    process = lab.host("a").start(["sh", "-c", program], stdout=subprocess.PIPE)
    assert process.stdout is not None
    with trio.fail_after(5):
        assert await process.stdout.receive_some() == b"ready\n"
        process.send_signal(signal.SIGHUP)
        assert await process.stdout.receive_some() == b"heard\n"
    process.kill()
    await process.wait()
    process.send_signal(signal.SIGHUP)


async def test_waiting_for_a_program_can_be_cancelled(lab: testing.Lab) -> None:
    process = lab.host("a").start(["sleep", "1000"])
    with trio.move_on_after(0.01) as scope:
        await process.wait()
    assert scope.cancelled_caught
    process.kill()
    assert await process.wait() == -9


async def test_sysctls_are_the_hosts_own(lab: testing.Lab) -> None:
    a, b = lab.host("a"), lab.host("b")
    assert a.sysctl("net.ipv4.ip_forward", 1) == "1"
    assert (a.sysctl("net.ipv4.ip_forward"), b.sysctl("net.ipv4.ip_forward")) == ("1", "0")
    a.plug(lab.network("wifi"), name="vlan.7")
    assert a.sysctl("net/ipv6/conf/vlan.7/accept_ra", 0) == "0"
    with pytest.raises(FileNotFoundError):
        a.sysctl("net.ipv4.no_such_thing")


async def test_a_host_is_set_up_for_tests(lab: testing.Lab) -> None:
    host = lab.host("a")
    host.plug(lab.network("wifi"), name="wlan0")
    assert host.sysctl("net.ipv4.tcp_orphan_retries") == "1"
    assert host.sysctl("net.ipv6.conf.all.accept_dad") == "0"
    for name, value in (("accept_dad", "0"), ("router_solicitations", "0"), ("autoconf", "0"), ("disable_ipv6", "0")):
        assert host.sysctl(f"net.ipv6.conf.wlan0.{name}") == value


async def test_a_host_does_not_take_after_the_machine(lab: testing.Lab) -> None:
    # The machine's own settings are not ours to change: the host is spoilt afterwards, as it would have been made.
    host = lab.host("device")
    spoilt = ("net.ipv4.conf.all.rp_filter", "net.ipv4.conf.default.promote_secondaries", "net.ipv4.ip_forward")
    for name in spoilt:
        host.sysctl(name, 1)
    host._make_fit()
    assert {host.sysctl(name) for name in spoilt} == {"0"}


async def test_listen_takes_one_port_for_both_families(lab: testing.Lab) -> None:
    host = lab.host("a")
    listeners = host.listen(0)
    assert [listener.socket.family for listener in listeners] == [socket.AF_INET, socket.AF_INET6]
    assert len({listener.socket.getsockname()[1] for listener in listeners}) == 1
    port = listeners[0].socket.getsockname()[1]
    with pytest.raises(OSError, match="in use") as caught:
        host.listen(port)
    assert caught.value.errno == errno.EADDRINUSE
    for listener in listeners:
        await listener.aclose()
    with pytest.raises(ValueError, match="localhost"):
        host.listen(80, "localhost")


async def test_a_connection_from_a_chosen_address(lab: testing.Lab, family: int) -> None:
    a, b = lab.host("a"), lab.host("b")
    wifi = lab.network("wifi")
    mine, second, peer = {
        4: ("192.0.2.1", "192.0.2.3", "192.0.2.2"),
        6: ("2001:db8::1", "2001:db8::3", "2001:db8::2"),
    }[family]
    length = {4: 24, 6: 64}[family]
    a.plug(wifi, name="wlan0", addresses=[f"{mine}/{length}", f"{second}/{length}"])
    b.plug(wifi, name="wlan0", addresses=[f"{peer}/{length}"])
    (listener,) = b.listen(80, peer)
    async with listener:
        async with await a.open_tcp_stream(peer, 80, local_address=second) as stream:
            assert stream.socket.getsockname()[0] == second
        with pytest.raises(OSError, match="refused"):
            await a.open_tcp_stream(peer, 81)


async def test_an_unbound_socket_of_a_host(lab: testing.Lab) -> None:
    host = lab.host("a")
    host.plug(lab.network("wifi"), name="wlan0", addresses=["192.0.2.1/24"])
    with host.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
        await datagrams.bind(("192.0.2.1", 0))
        assert datagrams.type == socket.SOCK_DGRAM
