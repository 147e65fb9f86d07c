"""A line chat: several people, a server that passes lines on, and clients that come back after a loss."""

from __future__ import annotations

from functools import partial
from typing import Self

import pytest
import trio

from tests.kernel._world import SOON, open_world
from tests.lab.waiting import until
from trio_routes import GuardedStream, Pt, RouteLostError
from trio_routes.testing import Host, Lab

pytestmark = pytest.mark.netns


# ---- the program --------------------------------------------------------------------------------


class Lines:
    """What comes in, cut into lines."""

    def __init__(self, stream: trio.abc.ReceiveStream) -> None:
        self.stream = stream
        self._rest = b""

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> str:
        while b"\n" not in self._rest:
            data = await self.stream.receive_some()
            if not data:
                raise StopAsyncIteration
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\n")
        return line.decode()


class Room:
    """The server's side; it knows nothing of routes, but that a member's stream may break."""

    def __init__(self) -> None:
        # Two members may speak at once, and a stream takes one sender at a time.
        self.members: dict[trio.SocketStream, trio.Lock] = {}

    async def member(self, stream: trio.SocketStream) -> None:
        self.members[stream] = trio.Lock()
        try:
            async for line in Lines(stream):
                for other, turn in list(self.members.items()):
                    if other is not stream:
                        async with turn:
                            await other.send_all(f"{line}\n".encode())
        except trio.BrokenResourceError:
            pass
        finally:
            del self.members[stream]


class Chatter:
    """A client: what is said while there is no connection is said later."""

    def __init__(self, pt: Pt) -> None:
        self.pt = pt
        self.heard: list[str] = []
        self.lost: list[RouteLostError] = []
        self.say, self._unsaid = trio.open_memory_channel[str](10)
        self._line = ""

    async def run(self, host: str, port: int) -> None:
        await self.pt.keep_connected(self._chat, host, port, label="chat")

    async def _chat(self, stream: GuardedStream) -> None:
        try:
            with self.pt.guard(stream):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._hear, stream)
                    nursery.start_soon(self._speak, stream)
        except RouteLostError as error:
            self.lost.append(error)
            raise

    async def _hear(self, stream: GuardedStream) -> None:
        async for line in Lines(stream):
            self.heard.append(line)

    async def _speak(self, stream: GuardedStream) -> None:
        while True:
            self._line = self._line or await self._unsaid.receive()
            await stream.send_all(f"{self._line}\n".encode())
            self._line = ""


# ---- its test -----------------------------------------------------------------------------------


async def test_a_chat_goes_on_over_the_other_uplink(lab: Lab, family: int) -> None:
    async with open_world(lab, family, lte_metric=600) as world, trio.open_nursery() as nursery:
        await world.add_healthy()
        room = Room()
        (listener,) = world.net.server.listen(0, world.server)
        port: int = listener.socket.getsockname()[1]
        nursery.start_soon(partial(trio.serve_listeners, room.member, [listener]))
        bob = await other_member(world.net.server, world.server, port)
        alice = Chatter(world.pt)
        nursery.start_soon(alice.run, world.server, port)

        await alice.say.send("hello")
        with trio.fail_after(SOON):
            assert await bob.receive_some() == b"hello\n"
        await bob.send_all(b"hi alice\n")
        await until(lambda: alice.heard == ["hi alice"])

        world.net.wlan0.down()
        await until(lambda: len(alice.lost) == 1)
        await alice.say.send("still there?")
        with trio.fail_after(SOON):
            assert await bob.receive_some() == b"still there?\n"
        await bob.send_all(b"sure\n")
        await until(lambda: alice.heard == ["hi alice", "sure"])
        await bob.aclose()
        nursery.cancel_scope.cancel()


async def other_member(host: Host, address: str, port: int) -> trio.SocketStream:
    return await host.open_tcp_stream(address, port)
