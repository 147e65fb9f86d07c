"""A client that stays connected through the loss of its route.

    python examples/client.py HOST PORT [LINES]

It sends a numbered line every 0.2 s to an echo server and prints what comes back. Take its route away meanwhile
(`ip route del default ...`): a second later, the default policy's wait, it prints "lost:" and why. Give it a way again,
by whatever link: it prints "connected:" and goes on with the first line that was not echoed. It ends when all LINES
(default 20) came back.
"""

from __future__ import annotations

import sys
from functools import partial

import trio

import trio_routes


class Session:
    """What outlives a connection: how many lines there are in all, and how many came back."""

    def __init__(self, pt: trio_routes.Pt, lines: int) -> None:
        self.pt = pt
        self.lines = lines
        self.echoed = 0

    async def chat(self, stream: trio_routes.GuardedStream) -> None:
        """Talk over one connection: two tasks, and one bare RouteLostError for both."""
        print(f"connected: {stream.connection.describe()}: {stream.connection.now}", flush=True)
        try:
            with self.pt.guard(stream):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self.write, stream)
                    await self.read(stream)
                    nursery.cancel_scope.cancel()
        except trio_routes.RouteLostError as error:
            print(f"lost: {error}", flush=True)
            raise  # which tells keep_connected() to go round again

    async def write(self, stream: trio_routes.GuardedStream) -> None:
        """Send every line that has not come back yet, one by one."""
        for number in range(self.echoed, self.lines):
            await stream.send_all(b"line %d\n" % number)
            await trio.sleep(0.2)

    async def read(self, stream: trio_routes.GuardedStream) -> None:
        """Print the lines that come back, until the last one has."""
        rest = b""
        async for data in stream:
            *whole, rest = (rest + data).split(b"\n")
            for line in whole:
                print(f"echo: {line.decode()}", flush=True)
                self.echoed += 1
            if self.echoed == self.lines:
                return
        raise ConnectionError("the server ended the connection before the last line")


async def main(host: str, port: int, lines: int = 20) -> None:
    """Run the client to its end."""
    async with trio_routes.open_pt() as pt:
        session = Session(pt, lines)
        await pt.keep_connected(session.chat, host, port, retry_on=(ConnectionError,), label="chat")
    print("done", flush=True)


if __name__ == "__main__":
    trio.run(partial(main, sys.argv[1], *map(int, sys.argv[2:4])))
