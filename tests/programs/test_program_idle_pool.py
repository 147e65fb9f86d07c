"""A pool of idle connections, as a database driver has one: it lends what is good and never what is dead."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio

from tests.kernel._world import SOON, open_world
from tests.lab.waiting import until
from trio_routes import ConnectionLost, GuardedStream, Policy, Pt, Standing
from trio_routes.testing import Lab

pytestmark = pytest.mark.netns


# ---- the program --------------------------------------------------------------------------------


class Pool:
    """Connections to one server, opened on demand and kept for reuse."""

    def __init__(self, pt: Pt, host: str, port: int) -> None:
        self.pt = pt
        self.host = host
        self.port = port
        self.idle: list[GuardedStream] = []
        self.opened = 0

    @asynccontextmanager
    async def connection(self) -> AsyncGenerator[GuardedStream, None]:
        stream = await self._find() or await self._open()
        try:
            yield stream
        except BaseException:
            await trio.aclose_forcefully(stream)
            raise
        if stream.connection.standing is Standing.LOST:
            await stream.aclose()
        else:
            self.idle.append(stream)

    async def shed(self) -> None:
        """Close idle connections as soon as they are lost, without being asked."""
        with self.pt.subscribe(ConnectionLost) as losses:
            async for _ in losses:
                await self._drop_lost()

    async def _find(self) -> GuardedStream | None:
        await self._drop_lost()
        for stream in self.idle:
            if stream.connection.standing is Standing.GOOD:
                self.idle.remove(stream)
                return stream
        return None  # those that are suspect stay: they may recover

    async def _open(self) -> GuardedStream:
        self.opened += 1
        return await self.pt.open_tcp_stream(self.host, self.port)

    async def _drop_lost(self) -> None:
        for stream in [each for each in self.idle if each.connection.standing is Standing.LOST]:
            self.idle.remove(stream)
            await stream.aclose()


async def ask(pool: Pool, question: bytes) -> bytes:
    async with pool.connection() as stream:
        await stream.send_all(question)
        with trio.fail_after(SOON):
            return bytes(await stream.receive_some())


# ---- its test -----------------------------------------------------------------------------------


async def test_a_pool_sets_the_suspect_aside_sheds_the_lost_and_serves_all_the_while(lab: Lab, family: int) -> None:
    policy = Policy(no_route=0.5, ask_kernel=False)
    async with open_world(lab, family, policy) as world, trio.open_nursery() as nursery:
        await world.add_healthy()

        async def echo(stream: trio.SocketStream) -> None:
            try:
                async for data in stream:
                    await stream.send_all(data)
            except trio.BrokenResourceError:
                pass

        listeners = world.net.server.listen(0)
        port: int = listeners[0].socket.getsockname()[1]
        nursery.start_soon(partial(trio.serve_listeners, echo, listeners))
        pool = Pool(world.pt, world.server, port)
        nursery.start_soon(pool.shed)
        assert await ask(pool, b"1") == b"1"
        assert await ask(pool, b"2") == b"2"
        assert (pool.opened, len(pool.idle)) == (1, 1)  # one was enough

        # The route goes and is back before the policy's wait is over: set aside, then lent again.
        (idle,) = pool.idle
        world.device.delete_route("default", via=world.wifi)
        await world.applied()
        assert idle.connection.standing is Standing.SUSPECT
        world.device.add_route("default", via=world.wifi, metric=100)
        await world.applied()
        assert await ask(pool, b"3") == b"3"
        assert (pool.opened, pool.idle) == (1, [idle])

        # It goes for good, and another is there: the lost one is shed while nobody asks, and a new one is opened.
        world.device.delete_route("default", via=world.wifi)
        await until(lambda: pool.idle == [])
        world.device.add_route("default", via=world.lte)
        await world.applied()
        assert await ask(pool, b"4") == b"4"
        assert pool.opened == 2 and len(pool.idle) == 1
        for stream in pool.idle:
            await stream.aclose()
        nursery.cancel_scope.cancel()
        await world.the_healthy_live(lost=1)
