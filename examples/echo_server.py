"""An echo server that saves a session when the way to its client is lost. It brings the network with it: just run it.

    python examples/echo_server.py

A client says "one" and "two"; then the server's route to it goes. A second later, the default policy's wait, the handler
gets RouteLostError, is not cancelled, and saves: "lost:", "saved:". The route and the client return: "resumed:".
"""

from __future__ import annotations

import json
import tempfile

import trio

import trio_routes
from trio_routes import testing


class EchoServer:
    """The server: a connection brings a session's name, then lines to be numbered in it."""

    def __init__(self, folder: str) -> None:
        self.state = trio.Path(folder, "state.json")
        self.saved, self.ended = trio.Event(), trio.Event()

    async def serve(self, stream: trio_routes.GuardedStream) -> None:
        """Serve one connection."""
        name = await receive_line(stream)
        counts: dict[str, int] = json.loads(await self.state.read_text()) if await self.state.exists() else {}
        print(f"{'resumed' if name in counts else 'new'}: {name} at {counts.get(name, 0)}")
        try:
            while line := await receive_line(stream):
                counts[name] = counts.get(name, 0) + 1
                await stream.send_all(f"{counts[name]} {line}\n".encode())
        except trio_routes.RouteLostError as error:
            print(f"lost: {name}: {error}")
            await self.state.write_text(json.dumps(counts))  # nobody has cancelled us: there is time to save
            print(f"saved: {name} at {counts[name]}")
            return self.saved.set()
        print(f"ended: {name} at {counts[name]}")
        return self.ended.set()


async def receive_line(stream: trio.abc.ReceiveStream) -> str:
    line = b""
    while (byte := await stream.receive_some(1)) not in (b"", b"\n"):  # one by one, which will do here
        line += byte
    return line.decode()


async def say(network: testing.TwoUplinks, *lines: str) -> trio.SocketStream:
    stream = await network.device.open_tcp_stream(network.server_addresses[4], 7)
    await stream.send_all("\n".join(("alice", *lines, "")).encode())
    for _ in lines:
        print(f"  client: {await receive_line(stream)}")
    return stream


async def main() -> None:
    testing.become_lab_root()
    with tempfile.TemporaryDirectory() as folder:
        async with testing.Lab() as lab:
            server, network = EchoServer(folder), lab.two_uplinks(nat=False)
            async with trio_routes.open_pt(netns=network.server.netns) as pt, trio.open_nursery() as nursery:
                await nursery.start(pt.serve_tcp, server.serve, 7)
                cut_off = await say(network, "one", "two")
                network.server.delete_route("10.0.1.0/24")
                await server.saved.wait()
                network.server.add_route("10.0.1.0/24", via="198.51.100.1")
                await (await say(network, "three")).aclose()
                await server.ended.wait()
                nursery.cancel_scope.cancel()
            await trio.aclose_forcefully(cut_off)
    print("done")


if __name__ == "__main__":
    trio.run(main)
