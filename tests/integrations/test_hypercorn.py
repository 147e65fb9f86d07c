"""hypercorn over guarded streams, on loopback: applications, their life, and a client that is lost."""

from __future__ import annotations

import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import httpx2
import pytest
import trio
import trustme
from hypercorn.config import Config
from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable, Scope

from trio_routes import Connection, Pt, open_pt, testing
from trio_routes.integrations.hypercorn import serve


class App:
    """An ASGI application: `/` answers, `/wait` waits for what its client does; it notes its life."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.disconnected = trio.Event()
        self.waiting = trio.Event()

    async def __call__(self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        if scope["type"] == "lifespan":
            while True:
                event = await receive()
                self.log.append(event["type"])
                if event["type"] == "lifespan.startup":
                    await send({"type": "lifespan.startup.complete"})
                else:
                    await send({"type": "lifespan.shutdown.complete"})
                    return
        assert scope["type"] == "http"
        await receive()
        if scope["path"] == "/wait":
            self.waiting.set()
            event = await receive()
            self.log.append(event["type"])
            self.disconnected.set()
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        client = scope["client"]
        assert client is not None
        body = f"{scope['scheme']} {scope['http_version']} {client[0]}".encode()
        await send({"type": "http.response.body", "body": body, "more_body": False})


def config_for(*binds: str) -> Config:
    config = Config()
    config.bind = list(binds)
    config.errorlog = None
    config.graceful_timeout = 1
    return config


@asynccontextmanager
async def served(app: App, config: Config) -> AsyncGenerator[tuple[Pt, list[int]], None]:
    """The application, and its ports; it is told to end when the block does, and the block waits for that."""
    end = trio.Event()
    async with open_pt() as pt, trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(serve, pt, app, config, shutdown_trigger=end.wait))
        yield pt, [listener.socket.getsockname()[1] for listener in listeners]
        end.set()


def accepted(pt: Pt, port: int) -> Connection:
    [connection] = [each for each in pt.connections if each.flow.local_port == port]
    return connection


async def test_an_application_is_served_and_lives_from_start_to_end() -> None:
    app = App()
    async with served(app, config_for("127.0.0.1:0")) as (_, [port]):
        assert app.log == ["lifespan.startup"]
        async with httpx2.AsyncClient() as client:
            response = await client.get(f"http://127.0.0.1:{port}/")
            assert response.text == "http 1.1 127.0.0.1"
    assert app.log == ["lifespan.startup", "lifespan.shutdown"]


async def test_it_speaks_http2_over_tls_beside_plain_http(tmp_path: Path) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    chain, key = tmp_path / "chain.pem", tmp_path / "key.pem"
    chain.write_bytes(b"".join(pem.bytes() for pem in certificate.cert_chain_pems))
    key.write_bytes(certificate.private_key_pem.bytes())
    config = config_for("127.0.0.1:0")
    config.insecure_bind = ["127.0.0.1:0"]
    config.certfile, config.keyfile = str(chain), str(key)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)  # pyright: ignore[reportUnknownMemberType] -- trustme speaks of pyOpenSSL's, too
    async with (
        served(App(), config) as (_, [secure, plain]),
        httpx2.AsyncClient(verify=trusting, http2=True) as client,
    ):
        assert (await client.get(f"https://127.0.0.1:{secure}/")).text == "https 2 127.0.0.1"
        assert (await client.get(f"http://127.0.0.1:{plain}/")).text == "http 1.1 127.0.0.1"


async def test_an_application_whose_client_is_lost_is_told_and_the_server_goes_on(nursery: trio.Nursery) -> None:
    app = App()

    async def wait_in_vain(client: httpx2.AsyncClient, url: str) -> None:
        with pytest.raises(httpx2.TransportError):
            await client.get(url)

    async with served(app, config_for("127.0.0.1:0")) as (pt, [port]), httpx2.AsyncClient() as client:
        nursery.start_soon(wait_in_vain, client, f"http://127.0.0.1:{port}/wait")
        await app.waiting.wait()
        testing.lose(accepted(pt, port))
        await app.disconnected.wait()
        assert app.log == ["lifespan.startup", "http.disconnect"]
        assert (await client.get(f"http://127.0.0.1:{port}/")).status_code == 200


@pytest.mark.parametrize(
    ("bind", "complaint"), [("unix:/run/app.sock", "not a host and a port"), ("fd://3", "not a host and a port")]
)
async def test_binds_that_are_no_host_and_port_are_refused(bind: str, complaint: str) -> None:
    async with open_pt() as pt:
        with pytest.raises(ValueError, match=complaint):
            await serve(pt, App(), config_for(bind))


async def test_a_port_that_is_taken_ends_it_before_it_has_begun() -> None:
    app = App()
    async with open_pt() as pt:
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        async with listener:
            with pytest.raises(ExceptionGroup) as caught:
                await serve(pt, app, config_for(f"127.0.0.1:{listener.socket.getsockname()[1]}"))
    refused, others = caught.value.split(OSError)
    assert refused is not None
    assert others is None


async def test_quic_is_refused() -> None:
    config = config_for("127.0.0.1:0")
    config.quic_bind = ["127.0.0.1:0"]
    async with open_pt() as pt:
        with pytest.raises(ValueError, match="QUIC"):
            await serve(pt, App(), config)


async def test_an_ipv6_bind_is_understood() -> None:
    async with served(App(), config_for("[::1]:0")) as (_, [port]), httpx2.AsyncClient() as client:
        assert (await client.get(f"http://[::1]:{port}/")).text == "http 1.1 ::1"


async def test_a_request_that_does_not_end_delays_the_shutdown_no_longer_than_it_may(nursery: trio.Nursery) -> None:
    app, config = App(), config_for("127.0.0.1:0")
    config.graceful_timeout = 0.1

    async def wait_in_vain(port: int) -> None:
        async with httpx2.AsyncClient(timeout=None) as client:
            with pytest.raises(httpx2.TransportError):
                await client.get(f"http://127.0.0.1:{port}/wait")

    with trio.fail_after(10):
        async with served(app, config) as (_, [port]):
            nursery.start_soon(wait_in_vain, port)
            await app.waiting.wait()
    assert app.log[-1] == "lifespan.shutdown"


async def test_it_ends_by_itself_after_the_most_requests_that_it_may_serve() -> None:
    app, config = App(), config_for("127.0.0.1:0")
    config.max_requests = 1
    with trio.fail_after(10):
        async with open_pt() as pt, trio.open_nursery() as nursery:
            [listener] = await nursery.start(partial(serve, pt, app, config))
            port = listener.socket.getsockname()[1]
            async with httpx2.AsyncClient() as client:
                for _ in range(2):
                    assert (await client.get(f"http://127.0.0.1:{port}/")).status_code == 200
    assert app.log == ["lifespan.startup", "lifespan.shutdown"]


async def test_an_idle_connection_does_not_delay_the_shutdown() -> None:
    config = config_for("127.0.0.1:0")
    config.graceful_timeout = config.keep_alive_timeout = 60
    with trio.fail_after(10):
        async with httpx2.AsyncClient() as client, served(App(), config) as (_, [port]):
            assert (await client.get(f"http://127.0.0.1:{port}/")).status_code == 200
