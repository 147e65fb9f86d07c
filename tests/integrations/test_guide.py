"""The code in docs/adapters.md, as it stands there: each piece runs against a server that waits for it."""

from __future__ import annotations

import re
import ssl
import textwrap
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import cast

import httpcore
import httpx2
import pytest
import trio
import trustme
from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable, Scope
from trio_websocket import wrap_server_stream

import trio_routes
from tests.integrations._http import HttpServer
from trio_routes.testing import FakeKernel

GUIDE = Path(__file__).parents[2] / "docs" / "adapters.md"
BLOCKS: list[str] = re.findall(r"^```\n(.*?)^```", GUIDE.read_text(), re.MULTILINE | re.DOTALL)


def block_about(module: str) -> str:
    [block] = [block for block in BLOCKS if f"from trio_routes.integrations.{module} import" in block]
    return block


async def run(block: str, **names: object) -> dict[str, object]:
    """Run a block; returns its variables."""
    names = {"__name__": "guide", **names}
    exec(compile(f"async def main():\n{textwrap.indent(block, '    ')}\n    return locals()", GUIDE, "exec"), names)
    return await cast("Callable[[], Awaitable[dict[str, object]]]", names["main"])()


async def greet(stream: trio.abc.Stream) -> None:
    """Serve a WebSocket that says hello and goodbye."""
    async with trio.open_nursery() as nursery:
        websocket = await (await wrap_server_stream(nursery, stream)).accept()
        await websocket.send_message("hello")
        await websocket.aclose()


async def echo(stream: trio.abc.Stream) -> None:
    async for data in stream:
        await stream.send_all(data)


@asynccontextmanager
async def network(monkeypatch: pytest.MonkeyPatch, folder: Path) -> AsyncGenerator[None]:
    """The servers that the guide speaks of, in memory, with certificates that this process trusts."""
    authority, bundle = trustme.CA(), folder / "trusted.pem"
    bundle.write_bytes(authority.cert_pem.bytes())
    monkeypatch.setenv("SSL_CERT_FILE", str(bundle))

    def tls_of(name: str) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        authority.issue_cert(name).configure_cert(context)  # pyright: ignore[reportUnknownMemberType] -- trustme speaks of pyOpenSSL's, too
        context.set_alpn_protocols(["h2", "http/1.1"])
        return context

    feed = tls_of("feed.example")

    async def greet_over_tls(stream: trio.abc.Stream) -> None:
        await greet(trio.SSLStream(stream, feed, server_side=True, https_compatible=True))

    async with FakeKernel() as kernel:
        kernel.add_link("eth0").add_address("192.0.2.2/24")
        kernel.add_route("default", via="192.0.2.1")
        kernel.listen("198.51.100.1", 443, partial(HttpServer().serve_tls, tls_of("example.org")), name="example.org")
        kernel.listen("198.51.100.2", 443, greet_over_tls, name="feed.example")
        kernel.listen("198.51.100.3", 7, echo, name="echo.example")
        monkeypatch.setattr(trio_routes, "open_pt", partial(trio_routes.open_pt, kernel=kernel))
        yield


@pytest.mark.parametrize(
    ("module", "variable"),
    [
        ("httpx2", "response"),
        ("httpcore", "response"),
        ("websockets", "message"),
        ("trio_websocket", "message"),
        ("anyio", "answer"),
    ],
)
async def test_a_client_s_code_in_the_guide_gets_its_answer(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, module: str, variable: str
) -> None:
    async with network(monkeypatch, tmp_path):
        with trio.fail_after(10):
            answer = (await run(block_about(module)))[variable]
    if isinstance(answer, httpx2.Response):
        assert (answer.status_code, answer.http_version) == (200, "HTTP/2")
    elif isinstance(answer, httpcore.Response):
        assert (answer.status, answer.content) == (200, b"/")
    else:
        assert answer in ("hello", b"hello")


async def test_the_server_s_code_in_the_guide_starts_its_application(nursery: trio.Nursery) -> None:
    started = trio.Event()

    async def app(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        if (await receive())["type"] == "lifespan.startup":
            started.set()
            await send({"type": "lifespan.startup.complete"})
        await trio.sleep_forever()

    block = block_about("hypercorn").replace(":8000", ":0")  # 8000 may be taken here
    nursery.start_soon(partial(run, block, app=app))
    with trio.fail_after(10):
        await started.wait()


def test_every_piece_of_code_in_the_guide_is_run() -> None:
    modules = ("httpx2", "httpcore", "websockets", "trio_websocket", "anyio", "hypercorn")
    assert sorted(map(block_about, modules)) == sorted(BLOCKS)
