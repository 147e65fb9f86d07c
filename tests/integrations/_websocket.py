"""WebSocket servers for any Trio stream, and one of them where the device of `_world` finds it."""

from __future__ import annotations

import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio
from trio_websocket import ConnectionClosed, wrap_server_stream

from tests.integrations._http import certify
from tests.integrations._world import SERVER, World, open_world

NAME = "feed.example"
CLIENT_TLS, SERVER_TLS = certify(NAME)

each_transport = pytest.mark.parametrize("tls", [False, True], ids=["TCP", "TLS"])


class EchoServer:
    """A server that greets, then echoes.

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


@asynccontextmanager
async def world_with(server: EchoServer) -> AsyncGenerator[World, None]:
    """A device, and the server by its name, without TLS and with."""
    async with open_world() as world:
        world.kernel.listen(SERVER, 80, server.serve, name=NAME)
        world.kernel.listen(SERVER, 443, partial(server.serve_tls, SERVER_TLS))
        yield world
