"""A hundred thousand routes come and go while nobody reads: ENOBUFS, and afterwards the cache is exact."""

from __future__ import annotations

import socket

import pytest
import trio

from trio_routes import testing
from trio_routes.netlink._linux import LinuxNetlinkSocket

from ._kernel import assert_exact, following

ROUTES = 100_000


@pytest.mark.slow  # ip(8) needs that long to add and delete them
async def test_after_a_flood_that_overflows_the_buffer_nothing_is_lost(
    lab: testing.Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = lab.host("device")
    host.plug(lab.network("n"), name="d0", addresses=["10.0.0.10/16"])

    def small(self: LinuxNetlinkSocket) -> None:
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)

    monkeypatch.setattr(LinuxNetlinkSocket, "_grow_buffer", small)
    prefixes = [f"11.{at >> 16}.{at >> 8 & 255}.{at & 255}" for at in range(ROUTES)]
    commands = [f"route add {prefix} via 10.0.{at % 4}.1" for at, prefix in enumerate(prefixes)]
    # All but every tenth go again, and the kernel may say so when nobody can hear it.
    commands += [f"route del {prefix}" for at, prefix in enumerate(prefixes) if at % 10]
    async with following(host) as followed:
        await host.run(["ip", "-batch", "-"], stdin="\n".join(commands).encode())
        with trio.move_on_after(30):
            # No task of ours makes it true but the one under test.
            while followed.cache.resyncing or followed.cache.state.tables[socket.AF_INET].prefixes() < ROUTES // 10:  # noqa: ASYNC110
                await trio.sleep(0.05)
        monkeypatch.undo()
        await assert_exact(followed, host, "the flood")
        assert followed.channel.statistics.overruns > 0 and followed.follower.statistics.resyncs > 0
        resynced = [batch.resynced for batch in followed.batches if batch.resynced]
        assert 0 < len(resynced) <= followed.follower.statistics.resyncs
        assert followed.cache.state.tables[socket.AF_INET].prefixes() >= ROUTES // 10


async def test_followers_that_begin_in_the_middle_of_changes_are_exact_in_the_end(lab: testing.Lab) -> None:
    host = lab.host("device")
    host.plug(lab.network("n"), name="d0", addresses=["10.0.0.10/16"])
    churn = [f"route replace 11.0.{at % 250}.0/24 via 10.0.{at % 3}.1" for at in range(2000)]
    ready, quiet = trio.Semaphore(0), trio.Event()

    async def follow() -> None:
        async with following(host) as followed:
            ready.release()
            await quiet.wait()
            await assert_exact(followed, host, "the changes")

    async def change() -> None:
        while not quiet.is_set():
            await host.run(["ip", "-batch", "-"], stdin="\n".join(churn).encode())
            if ready.value == 4:  # all have begun in the middle of it
                quiet.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(change)
        for _ in range(4):
            nursery.start_soon(follow)
