"""A WebSocket server for any Trio stream: it greets, then echoes."""

from __future__ import annotations

import ssl

import trio
from trio_websocket import ConnectionClosed, wrap_server_stream


class EchoServer:
    """The server.

    Attributes:
      connections: How many there were.
    """

    def __init__(self) -> None:
        self.connections = 0

    async def serve(self, stream: trio.abc.Stream) -> None:
        """Serve one connection."""
        self.connections += 1
        async with trio.open_nursery() as nursery:
            request = await wrap_server_stream(nursery, stream)
            websocket = await request.accept()
            await websocket.send_message("hello")
            try:
                while True:
                    await websocket.send_message(await websocket.get_message())
            except ConnectionClosed:
                nursery.cancel_scope.cancel()

    async def serve_tls(self, context: ssl.SSLContext, stream: trio.abc.Stream) -> None:
        """Serve one connection with TLS."""
        await self.serve(trio.SSLStream(stream, context, server_side=True, https_compatible=True))


class NumberServer:
    """A server whose clients say "after 7", and get the messages "8", "9" and so on, one every `interval` seconds.

    Attributes:
      interval: Seconds between messages.
      subscriptions: What clients said.
    """

    def __init__(self, interval: float = 0.02) -> None:
        self.interval = interval
        self.subscriptions: list[str] = []

    async def serve(self, stream: trio.abc.Stream) -> None:
        """Serve one connection, until it breaks."""
        async with trio.open_nursery() as nursery:
            request = await wrap_server_stream(nursery, stream)
            websocket = await request.accept()
            try:
                words = str(await websocket.get_message())
                self.subscriptions.append(words)
                number = int(words.removeprefix("after "))
                while True:
                    number += 1
                    await websocket.send_message(str(number))
                    await trio.sleep(self.interval)
            except ConnectionClosed:
                nursery.cancel_scope.cancel()

    async def serve_tls(self, context: ssl.SSLContext, stream: trio.abc.Stream) -> None:
        """Serve one connection with TLS."""
        await self.serve(trio.SSLStream(stream, context, server_side=True, https_compatible=True))
