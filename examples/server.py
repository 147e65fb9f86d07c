"""An echo server that saves a client's state when the way to it is lost, and takes it up again.

    python examples/server.py PORT STATE.json [SESSIONS]

A client names its session in its first line; every later line comes back with its number in that session. Take the
server's route to the client away: a second later it prints "lost:" and why, and writes the count to STATE.json, which
shows that the handler is not cancelled but gets RouteLostError from its own stream, and may await. When the client is
back with the same name, the numbers go on ("resumed:"). The server ends when SESSIONS (default 1) were ended by their
clients.
"""

from __future__ import annotations

import json
import sys
from functools import partial

import trio

import trio_routes


class EchoServer:
    """The server and what it knows of its sessions."""

    def __init__(self, state: trio.Path, sessions: int) -> None:
        self.state = state
        self.sessions = sessions
        self.counts: dict[str, int] = {}
        self.all_ended = trio.Event()

    async def serve(self, stream: trio_routes.GuardedStream) -> None:
        """Serve one connection."""
        name, rest = "", b""
        try:
            async for data in stream:
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    if not name:
                        name = line.decode()
                        print(f"{'resumed' if name in self.counts else 'new'}: {name}", flush=True)
                        continue
                    self.counts[name] = self.counts.get(name, 0) + 1
                    await stream.send_all(b"%d %b\n" % (self.counts[name], line))
        except trio_routes.RouteLostError as error:
            print(f"lost: {name}: {error}", flush=True)
            await self.state.write_text(json.dumps(self.counts))
            print(f"saved: {name} at {self.counts.get(name, 0)}", flush=True)
            return
        print(f"ended: {name} at {self.counts.pop(name, 0)}", flush=True)
        self.sessions -= 1
        if self.sessions == 0:
            self.all_ended.set()


async def main(port: int, state: str, sessions: int = 1) -> None:
    """Serve until so many sessions have ended."""
    server = EchoServer(trio.Path(state), sessions)
    async with trio_routes.open_pt() as pt, trio.open_nursery() as nursery:
        await nursery.start(pt.serve_tcp, server.serve, port)
        print("listening", flush=True)
        await server.all_ended.wait()
        nursery.cancel_scope.cancel()
    print("done", flush=True)


if __name__ == "__main__":
    trio.run(partial(main, int(sys.argv[1]), sys.argv[2], *map(int, sys.argv[3:4])))
