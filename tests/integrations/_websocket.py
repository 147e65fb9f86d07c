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
