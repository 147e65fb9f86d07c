"""A WebSocket subscriber that subscribes again as soon as the network is back, and misses nothing it could have had.

    python examples/websocket_client.py URI [MESSAGES]

It says where it stands ("after 0"), and prints the numbered messages that the server sends from there on. Take the
route to the server away: a second later it prints "lost:" and why. Add a route: it connects at once, subscribes from
the last message that it has seen, and goes on. It ends after MESSAGES (default 10), each printed with the seconds
since its start. Needs `pip install 'trio-routes[websockets]'`.
"""

from __future__ import annotations

import sys
from functools import partial
from urllib.parse import urlsplit

import trio
from websockets.exceptions import ConnectionClosedError
from websockets.trio.client import connect

import trio_routes


class Subscriber:
    """The subscription, over as many connections as it takes."""

    def __init__(self, uri: str, messages: int) -> None:
        self.uri = uri
        self.messages = messages
        self.seen = 0
        self.began = trio.current_time()

    def say(self, what: str) -> None:
        """Print, with the time."""
        print(f"{what} ({trio.current_time() - self.began:.2f} s)", flush=True)

    async def subscribe(self, stream: trio_routes.GuardedStream) -> None:
        """Go on from the last message, over one connection."""
        try:
            async with connect(self.uri, stream=stream) as websocket:
                await websocket.send(f"after {self.seen}")
                self.say(f"subscribed: after {self.seen}")
                while self.seen < self.messages:
                    message = await websocket.recv()
                    self.seen += 1
                    self.say(f"message: {message!s}")
        except ConnectionClosedError as error:
            self.say(f"lost: {error.__cause__}")
            raise  # keep_connected() finds the loss in it, and goes round again


async def main(uri: str, messages: int = 10) -> None:
    """Subscribe until so many messages have come."""
    parts = urlsplit(uri)
    subscriber = Subscriber(uri, messages)
    async with trio_routes.open_pt() as pt:
        port = parts.port or (443 if parts.scheme == "wss" else 80)
        await pt.keep_connected(subscriber.subscribe, parts.hostname or "", port)
    subscriber.say("done")


if __name__ == "__main__":
    trio.run(partial(main, sys.argv[1], *map(int, sys.argv[2:3])))
