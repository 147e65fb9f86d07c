"""An echo server that saves state: several sessions, one of which loses its route, and takes up where it was."""

from __future__ import annotations

from functools import partial

import pytest
import trio

from tests.kernel._world import SOON, open_world
from tests.lab.waiting import until
from trio_routes import GuardedListener, GuardedStream, RouteLostError, Verdict
from trio_routes.testing import Host, Lab

pytestmark = pytest.mark.netns


# ---- the program --------------------------------------------------------------------------------


class Server:
    """It counts the bytes of each session, by the session's one-byte name."""

    def __init__(self) -> None:
        self.saved: dict[bytes, int] = {}
        self.ended: list[tuple[bytes, Verdict | None]] = []

    async def serve(self, stream: GuardedStream) -> None:
        name = bytes(await stream.receive_some(1))
        count = self.saved.pop(name, 0)
        await stream.send_all(b"%d;" % count)
        verdict: Verdict | None = None
        try:
            async for data in stream:
                count += len(data)
                await stream.send_all(b"%d;" % count)
        except RouteLostError as error:
            await trio.sleep(0.01)  # a database
            self.saved[name] = count
            verdict = error.verdict
        self.ended.append((name, verdict))


# ---- its test -----------------------------------------------------------------------------------


class Client:
    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream

    async def say(self, data: bytes) -> int:
        with trio.fail_after(SOON):
            await self.stream.send_all(data)
            answer = b""
            while not answer.endswith(b";"):
                answer += await self.stream.receive_some()
        return int(answer.split(b";")[-2])


async def test_one_session_is_saved_and_resumed_and_the_others_never_notice(lab: Lab, family: int) -> None:
    async with open_world(lab, family, nat=False) as world, trio.open_nursery() as nursery:
        await world.add_healthy()
        server = Server()
        here = {4: "0.0.0.0", 6: "::"}[family]
        listeners: list[GuardedListener] = await nursery.start(partial(world.pt.serve_tcp, server.serve, 0, host=here))
        port: int = listeners[0].socket.getsockname()[1]

        async def connect(host: Host, address: str, own_address: str) -> Client:
            return Client(await host.open_tcp_stream(address, port, local_address=own_address))

        by_wifi = partial(connect, world.net.server, world.net.wlan0_addresses[family], world.server)
        near = await connect(
            world.net.neighbour, world.net.eth0_addresses[family], world.net.neighbour_addresses[family]
        )
        far = await by_wifi()
        assert await near.say(b"n") == 0 and await near.say(b"xx") == 2
        assert await far.say(b"f") == 0 and await far.say(b"xxx") == 3

        world.device.delete_route("default", via=world.wifi)
        await until(lambda: server.ended == [(b"f", Verdict.NO_ROUTE)])
        assert server.saved == {b"f": 3}
        assert await near.say(b"xx") == 4

        world.device.add_route("default", via=world.wifi, metric=100)
        await world.applied()
        again = await by_wifi()
        assert await again.say(b"f") == 3 and await again.say(b"x") == 4
        for client in (near, again):
            await client.stream.aclose()
        await until(lambda: len(server.ended) == 3)
        assert sorted(server.ended[1:]) == [(b"f", None), (b"n", None)]
        await trio.aclose_forcefully(far.stream)
        nursery.cancel_scope.cancel()
        await world.the_healthy_live(lost=1)
