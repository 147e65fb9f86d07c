"""Network namespaces: by name, by path, by descriptor; never made by mistake, never stayed in."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

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
