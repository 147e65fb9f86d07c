"""Network namespaces: by name, by path, by descriptor; never made by mistake, never stayed in."""

from __future__ import annotations

import os
import re
import socket
import threading
from ipaddress import IPv6Address
from pathlib import Path

import pytest
import trio

from tests.lab.waiting import until
from trio_routes import testing
from trio_routes.netlink import LinuxKernel, _netns
from trio_routes.netlink._netns import entered, open_netns


def where() -> tuple[int, int]:
    at = os.stat("/proc/thread-self/ns/net")
    return at.st_dev, at.st_ino


def behind(fd: int) -> tuple[int, int]:
    at = os.fstat(fd)
    return at.st_dev, at.st_ino


async def test_a_namespace_is_opened_by_name_by_path_and_by_descriptor(
    lab: testing.Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = lab.host("device")
    monkeypatch.setattr(_netns, "_NAMED", str(tmp_path))
    (tmp_path / "blue").symlink_to(f"/proc/{os.getpid()}/fd/{host.netns}")
    for named in ("blue", str(tmp_path / "blue"), host.netns):
        fd = open_netns(named)
        try:
            assert fd != host.netns and behind(fd) == behind(host.netns)
        finally:
            os.close(fd)


def test_a_misspelt_name_is_not_found_and_not_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_netns, "_NAMED", str(tmp_path))
    for named in ("bleu", str(tmp_path / "bleu")):
        with pytest.raises(FileNotFoundError, match=f"no network namespace: '{re.escape(named)}'"):
            LinuxKernel(named)
    assert not list(tmp_path.iterdir())


async def test_the_thread_is_back_at_home_after_the_block_however_it_ends(lab: testing.Lab) -> None:
    home, host = where(), lab.host("device")
    assert behind(host.netns) != home
    with entered(host.netns):
        assert where() == behind(host.netns)
    assert where() == home
    with pytest.raises(ZeroDivisionError), entered(host.netns):
        raise ZeroDivisionError
    assert where() == home
    with entered(None):
        assert where() == home


async def test_a_descriptor_that_is_no_namespace_is_refused_and_nothing_moved(lab: testing.Lab, tmp_path: Path) -> None:
    home = where()
    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        with pytest.raises(OSError, match="cannot enter"), entered(fd):
            raise AssertionError("the block must not run")
    finally:
        os.close(fd)
    assert where() == home


async def test_a_kernels_sockets_belong_to_its_namespace_and_the_thread_does_not(lab: testing.Lab) -> None:
    home, host = where(), lab.host("device")
    kernel, other = LinuxKernel(host.netns), LinuxKernel(host.netns)
    here = LinuxKernel()
    sockets = [each.open_netlink() for each in (kernel, other, here)]
    try:
        assert where() == home
        cookies = [each.netns_cookie for each in sockets]
        assert cookies[0] == cookies[1] != cookies[2]
        assert len({each.port for each in sockets}) == 3 and 0 not in [each.port for each in sockets]
    finally:
        for each in sockets:
            each.close()
            each.close()  # a second time does nothing
        kernel.close()
        other.close()
    assert os.fstat(host.netns)  # only our own descriptor was closed


def test_what_is_no_network_namespace_is_refused_at_once(tmp_path: Path) -> None:
    """Later it would pass for a kernel that refuses netlink, and nothing would be monitored."""
    before = len(os.listdir("/proc/self/fd"))
    (tmp_path / "file").touch()
    for named in (str(tmp_path / "file"), "/proc/self/ns/mnt"):
        with pytest.raises(OSError, match="cannot enter the network namespace"):
            LinuxKernel(named)
    assert len(os.listdir("/proc/self/fd")) == before


async def test_a_link_that_is_not_there_leaves_no_socket_behind() -> None:
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError, match=r"No such device|no interface"):
        await LinuxKernel().connect_tcp(IPv6Address("fe80::1%nosuch"), 9)
    assert len(os.listdir("/proc/self/fd")) == before


async def test_a_look_up_that_is_given_up_keeps_the_namespace_to_its_end_and_no_longer(
    lab: testing.Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = lab.host("device")
    before = len(os.listdir("/proc/self/fd"))
    asked, answer, seen = trio.Event(), threading.Event(), list[tuple[int, int]]()
    token = trio.lowlevel.current_trio_token()

    def slow(*_: object, **__: object) -> list[object]:
        token.run_sync_soon(asked.set)
        answer.wait(5)
        seen.append(where())
        return []

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    kernel = LinuxKernel(host.netns)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(kernel.resolve, "db.example", 5432)
        await asked.wait()
        nursery.cancel_scope.cancel()
    kernel.close()
    answer.set()
    await until(lambda: len(os.listdir("/proc/self/fd")) == before)
    assert seen == [behind(host.netns)]
