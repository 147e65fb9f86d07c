"""httpx and httpx2 over guarded streams, by the test's own clock: what a loss is to a request, and to a pool."""

from __future__ import annotations

import ast
import ssl
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import cast

import httpcore
import httpx  # noqa: ASYNC127 -- both generations are tested
import pytest
import trio
import trustme
from trio.testing import MockClock

import trio_routes.integrations
from tests.integrations._http import FIRST, SECOND, Generation, HttpServer, certify
from tests.integrations._world import SERVER, World, open_world
from trio_routes import Connection, NoRouteError, Policy, RouteLostError, Standing, Verdict

NAME = "www.example"

# A certificate costs 60 ms.
CLIENT_TLS, SERVER_TLS = certify(NAME)


@pytest.fixture(params=[FIRST, SECOND], ids=lambda generation: generation.name)
def library(request: pytest.FixtureRequest) -> Generation:
    return cast("Generation", request.param)


@pytest.fixture(params=["HTTP/1.1", "HTTP/1.1 over TLS", "HTTP/2"])
def version(request: pytest.FixtureRequest) -> str:
    return cast("str", request.param)


@asynccontextmanager
async def client_of(
    library: Generation, world: World, server: HttpServer, version: str, *, wait_for_route: bool = False
) -> AsyncGenerator[httpx.AsyncClient, None]:
    """A client of the server, which listens."""
    world.kernel.listen(SERVER, 80, server.serve, name=NAME)
    world.kernel.listen(SERVER, 443, partial(server.serve_tls, SERVER_TLS))
    transport = library.transport(world.pt, verify=CLIENT_TLS, http2=version == "HTTP/2", wait_for_route=wait_for_route)
    scheme = "http" if version == "HTTP/1.1" else "https"
    # httpx's own default of 5 s would come before some of what is waited for here.
    async with library.client(transport=transport, base_url=f"{scheme}://{NAME}", timeout=60) as client:
        yield client


async def get(client: httpx.AsyncClient, path: str, version: str) -> httpx.Response:
    response = await client.get(path)
    assert response.text == path
    assert response.http_version == version.split(maxsplit=1)[0]
    return response


def connection_of(response: httpx.Response) -> Connection:
    connection = response.extensions["network_stream"].get_extra_info("connection")
    assert isinstance(connection, Connection)
    return connection


# ---- requests in flight ------------------------------------------------------------------------


async def test_a_request_in_flight_fails_when_its_route_is_lost_with_the_library_s_error_and_ours(
    library: Generation, version: str, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    async with open_world() as world, client_of(library, world, HttpServer(), version) as client:
        await get(client, "/", version)
        began = trio.current_time()
        nursery.start_soon(world.lose_route_soon)
        with pytest.raises(library.read_error) as caught:
            await client.get("/hang")
        assert trio.current_time() - began == 1.0
        error = caught.value
        assert isinstance(error, RouteLostError)
        assert error.loss.verdict is Verdict.NO_ROUTE
        assert error.request.url.path == "/hang"
        assert isinstance(error.__cause__, library.core_lost_reading)
        assert isinstance(error.__cause__, (library.core_read_error, RouteLostError))
        assert error.__cause__.loss is error.loss
        assert "no route" in str(error)


async def test_half_a_body_is_never_a_whole_response(
    library: Generation, version: str, autojump_clock: MockClock
) -> None:
    async with open_world() as world, client_of(library, world, HttpServer(), version) as client:
        received = b""
        with pytest.raises(library.read_error) as caught:
            async with client.stream("GET", "/half") as response:
                assert response.status_code == 200
                async for part in response.aiter_bytes():
                    received += part
                    await world.lose_route()
        assert received == b"/half"
        assert isinstance(caught.value, RouteLostError)
        assert isinstance(caught.value.__cause__, library.core_lost_reading)


# httpx leaves the generator of a body that it could not send to the garbage collector.
leaves_a_generator = pytest.mark.filterwarnings("ignore:Exception ignored in. <async_generator")


@leaves_a_generator
async def test_an_upload_that_nobody_takes_fails_when_its_route_is_lost(
    library: Generation, version: str, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    async def endless() -> AsyncIterator[bytes]:  # noqa: ASYNC900 -- the form in which httpx takes a body
        while True:
            yield bytes(65536)

    server = HttpServer()
    async with open_world() as world, client_of(library, world, server, version) as client:
        nursery.start_soon(world.lose_route_soon)
        with pytest.raises((library.read_error, library.write_error)) as caught:
            await client.post("/upload", content=endless())
        assert isinstance(caught.value, RouteLostError)


async def test_a_loss_while_the_headers_are_sent_is_a_write_error(
    library: Generation, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    async def deaf(stream: trio.abc.Stream) -> None:
        secure = trio.SSLStream(stream, SERVER_TLS, server_side=True)
        await secure.do_handshake()
        await trio.sleep_forever()

    # By HTTP/2: an HTTP/1.1 request that cannot be sent is followed by reading what the server said meanwhile.
    async with open_world() as world, client_of(library, world, HttpServer(), "HTTP/2") as client:
        world.kernel.listen(SERVER, 443, deaf)
        nursery.start_soon(world.lose_route_soon)
        with pytest.raises(library.write_error) as caught:
            await client.get("/", headers={"cookie": "0" * 4_000_000})
        assert isinstance(caught.value, RouteLostError)
        assert isinstance(caught.value.__cause__, RouteLostError)


async def test_a_loss_during_the_tls_handshake_is_a_connect_error(
    library: Generation, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    async def silent(stream: trio.abc.Stream) -> None:
        while await stream.receive_some():
            pass

    async with open_world() as world, client_of(library, world, HttpServer(), "HTTP/2") as client:
        world.kernel.listen(SERVER, 443, silent)
        nursery.start_soon(world.lose_route_soon)
        with pytest.raises(library.connect_error) as caught:
            await client.get("/")
        assert isinstance(caught.value, RouteLostError)
        assert len(list(world.pt.connections)) == 0  # closed: the pool never had it


async def test_a_request_survives_a_path_that_returns_in_time(
    library: Generation, version: str, autojump_clock: MockClock
) -> None:
    server = HttpServer()
    async with open_world() as world, client_of(library, world, server, version) as client:
        async with client.stream("GET", "/half") as response:
            await world.lose_route()
            assert connection_of(response).standing is Standing.SUSPECT
            await trio.sleep(0.5)
            await world.restore_route()
            await trio.sleep(2)
            assert standing_of(response) is Standing.GOOD
        assert server.connections == 1


def standing_of(response: httpx.Response) -> Standing:
    """A call, because type checkers take a property to keep its value."""
    return connection_of(response).standing


# ---- pooled connections ------------------------------------------------------------------------


async def test_an_idle_connection_whose_path_is_good_is_used_again(
    library: Generation, version: str, autojump_clock: MockClock
) -> None:
    server = HttpServer()
    async with open_world() as world, client_of(library, world, server, version) as client:
        for _ in range(3):
            await get(client, "/", version)
        assert server.connections == 1


async def test_an_idle_connection_that_is_suspect_is_closed_by_its_pool_rather_than_lent(
    library: Generation, version: str, autojump_clock: MockClock
) -> None:
    server = HttpServer()
    async with open_world() as world, client_of(library, world, server, version) as client:
        first = connection_of(await get(client, "/", version))
        world.kernel.replace_route("default", via="192.0.2.254")  # another gateway: uncertain
        await world.kernel.settle()
        assert first.standing is Standing.SUSPECT
        second = connection_of(await get(client, "/", version))
        assert second is not first
        assert server.connections == 2
        await server.wait_ended(1)
        assert list(world.pt.connections) == [second]


async def test_an_idle_connection_that_was_lost_costs_no_request_anything(
    library: Generation, version: str, autojump_clock: MockClock
) -> None:
    server = HttpServer()
    async with open_world() as world, client_of(library, world, server, version) as client:
        first = connection_of(await get(client, "/", version))
        await world.lose_route()
        await trio.sleep(1.5)
        assert first.standing is Standing.LOST
        await world.restore_route()
        assert connection_of(await get(client, "/", version)) is not first
        assert server.connections == 2


async def test_an_http2_connection_that_is_suspect_keeps_its_requests_and_gets_no_more(
    library: Generation, autojump_clock: MockClock
) -> None:
    server = HttpServer()
    async with open_world() as world, client_of(library, world, server, "HTTP/2") as client:
        async with client.stream("GET", "/half") as running:
            first = connection_of(running)
            assert connection_of(await get(client, "/", "HTTP/2")) is first
            world.kernel.replace_route("default", via="192.0.2.254")
            await world.kernel.settle()
            assert connection_of(await get(client, "/", "HTTP/2")) is not first
            assert server.connections == 2
            world.kernel.replace_route("default", via="192.0.2.1")
            await world.kernel.settle()
            assert first.standing is Standing.GOOD
        assert server.ended == 0


async def test_a_full_pool_with_a_suspect_connection_makes_another_rather_than_wait(
    library: Generation, version: str, autojump_clock: MockClock
) -> None:
    server = HttpServer()
    async with open_world() as world:
        world.kernel.listen(SERVER, 443, partial(server.serve_tls, SERVER_TLS), name=NAME)
        world.kernel.listen(SERVER, 80, server.serve)
        transport = library.transport(
            world.pt, verify=CLIENT_TLS, http2=version == "HTTP/2", limits=library.limits(max_connections=1)
        )
        scheme = "http" if version == "HTTP/1.1" else "https"
        async with library.client(transport=transport, base_url=f"{scheme}://{NAME}", timeout=5) as client:
            await get(client, "/", version)
            world.kernel.replace_route("default", via="192.0.2.254")
            await world.kernel.settle()
            began = trio.current_time()
            await get(client, "/", version)
            assert trio.current_time() == began


# ---- connecting --------------------------------------------------------------------------------


async def test_without_a_route_a_request_fails_at_once_and_says_why(
    library: Generation, version: str, autojump_clock: MockClock
) -> None:
    async with open_world() as world, client_of(library, world, HttpServer(), version) as client:
        await world.lose_route()
        began = trio.current_time()
        with pytest.raises(library.connect_error, match="no route") as caught:
            await client.get("/")
        assert trio.current_time() == began
        assert isinstance(caught.value.__cause__, library.core_connect_error)
        assert isinstance(caught.value.__cause__, NoRouteError)
        await world.restore_route()
        await get(client, "/", version)


async def test_a_request_may_wait_for_the_route(library: Generation, version: str, autojump_clock: MockClock) -> None:
    server = HttpServer()
    async with open_world() as world, client_of(library, world, server, version, wait_for_route=True) as client:
        await world.lose_route()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(get, client, "/", version)
            await trio.sleep(30)
            assert server.requests == []
            await world.restore_route()
        assert server.requests == ["/"]


async def test_a_request_waits_for_the_route_no_longer_than_its_connect_timeout(
    library: Generation, autojump_clock: MockClock
) -> None:
    async with open_world() as world, client_of(library, world, HttpServer(), "HTTP/2", wait_for_route=True) as client:
        await world.lose_route()
        began = trio.current_time()
        with pytest.raises(library.connect_timeout):
            await client.get("/", timeout=3)
        assert trio.current_time() - began == 3


async def test_timeouts_are_the_library_s_own(library: Generation, version: str, autojump_clock: MockClock) -> None:
    async with open_world() as world, client_of(library, world, HttpServer(), version) as client:
        began = trio.current_time()
        with pytest.raises(library.read_timeout):
            await client.get("/hang", timeout=2)
        assert trio.current_time() - began == 2
        world.kernel.silence(SERVER)
        with pytest.raises(library.connect_timeout):
            await client.get("/", timeout=2)
        assert trio.current_time() - began == 4


@leaves_a_generator
async def test_a_write_takes_no_longer_than_its_timeout(library: Generation, autojump_clock: MockClock) -> None:
    async with open_world() as world, client_of(library, world, HttpServer(), "HTTP/1.1") as client:
        with pytest.raises(library.write_timeout):
            await client.post("/upload", content=bytes(1 << 20), timeout=library.timeout(60, write=2))


async def test_other_failures_to_connect_are_the_library_s_own(library: Generation, autojump_clock: MockClock) -> None:
    async with open_world() as world, client_of(library, world, HttpServer(), "HTTP/1.1") as client:
        world.kernel.stop_listening(SERVER, 80)
        with pytest.raises(library.connect_error, match="refused") as caught:
            await client.get("/")
        assert type(caught.value.__cause__) is library.core_connect_error
        with pytest.raises(library.connect_error, match="not known"):
            await client.get("http://no-such-name.example/")


async def test_a_server_that_ends_a_response_is_not_a_loss(library: Generation, autojump_clock: MockClock) -> None:
    async def resetting(stream: trio.abc.Stream) -> None:
        await stream.receive_some()
        raise trio.BrokenResourceError  # closed with its handler

    async with open_world() as world, client_of(library, world, HttpServer(), "HTTP/1.1") as client:
        world.kernel.listen(SERVER, 80, resetting)
        with pytest.raises(httpx.TransportError if library is FIRST else Exception) as caught:
            await client.get("/")
        assert not isinstance(caught.value, RouteLostError)


async def test_what_the_pool_is_told_to_connect_with_reaches_the_socket_s_flow(
    library: Generation, autojump_clock: MockClock
) -> None:
    server = HttpServer()
    async with open_world() as world:
        world.kernel.listen(SERVER, 80, server.serve, name=NAME)
        policy = Policy.patient()
        transport = library.transport(world.pt, connect={"device": "wlan0", "policy": policy, "label": "poller"})
        async with library.client(transport=transport) as client:
            connection = connection_of(await client.get(f"http://{NAME}/"))
        assert connection.label == "poller"
        assert connection.policy is policy
        assert connection.flow.device == world.wlan0.ifindex


async def test_a_failed_handshake_leaves_nothing_open(library: Generation, autojump_clock: MockClock) -> None:
    async def short(stream: trio.abc.Stream) -> None:
        await stream.receive_some()

    async with open_world() as world, client_of(library, world, HttpServer(), "HTTP/2") as client:
        world.kernel.listen(SERVER, 443, short)
        with pytest.raises(library.connect_error):
            await client.get("/")
        assert len(list(world.pt.connections)) == 0


async def test_a_cancelled_handshake_leaves_nothing_open(library: Generation, autojump_clock: MockClock) -> None:
    async def silent(stream: trio.abc.Stream) -> None:
        while await stream.receive_some():
            pass

    async with open_world() as world, client_of(library, world, HttpServer(), "HTTP/2") as client:
        world.kernel.listen(SERVER, 443, silent)
        with trio.move_on_after(1) as scope:
            await client.get("/")
        assert scope.cancelled_caught
        assert len(list(world.pt.connections)) == 0


# ---- proxies -----------------------------------------------------------------------------------


async def tunnel(server: HttpServer, stream: trio.abc.Stream) -> None:
    """A proxy that lets through to the server, which sits in it."""
    request = b""
    while b"\r\n\r\n" not in request:
        request += await stream.receive_some(1)
    assert request.startswith(b"CONNECT www.example:443 ")
    await stream.send_all(b"HTTP/1.1 200 OK\r\n\r\n")
    await server.serve_tls(SERVER_TLS, stream)


@pytest.mark.parametrize("http2", [False, True], ids=["HTTP/1.1", "HTTP/2"])
async def test_through_a_proxy_it_is_the_path_to_the_proxy_that_counts(
    library: Generation, http2: bool, autojump_clock: MockClock
) -> None:
    server = HttpServer()
    async with open_world() as world:
        world.kernel.listen("198.51.100.9", 3128, partial(tunnel, server), name="proxy.example")
        transport = library.transport(world.pt, verify=CLIENT_TLS, http2=http2, proxy="http://proxy.example:3128")
        async with library.client(transport=transport, base_url=f"https://{NAME}") as client:
            first = connection_of(await client.get("/"))
            assert str(first.flow.peer) == "198.51.100.9"
            assert connection_of(await client.get("/")) is first
            world.kernel.replace_route("default", via="192.0.2.254")
            await world.kernel.settle()
            assert connection_of(await client.get("/")) is not first


# ---- what a stream tells of itself -------------------------------------------------------------


async def test_the_network_stream_tells_what_httpcore_s_own_does(
    library: Generation, autojump_clock: MockClock
) -> None:
    async with open_world() as world, client_of(library, world, HttpServer(), "HTTP/2") as client:
        stream = (await client.get("/")).extensions["network_stream"]
        assert stream.get_extra_info("client_addr")[0] == "192.0.2.2"
        assert stream.get_extra_info("server_addr") == (SERVER, 443)
        assert stream.get_extra_info("ssl_object").version() == "TLSv1.3"
        assert stream.get_extra_info("is_readable") is False
        assert stream.get_extra_info("anything else") is None
        await world.lose_route()
        assert stream.get_extra_info("is_readable") is True


async def test_the_pool_is_made_as_the_library_makes_it(library: Generation) -> None:
    """The options mean what they mean to the library's own transport, which gives them all to its pool."""
    chosen: dict[str, object] = {
        "verify": CLIENT_TLS,
        "http1": False,
        "http2": True,
        "limits": library.limits(max_connections=3, max_keepalive_connections=2, keepalive_expiry=7),
        "uds": "/run/socket",
        "local_address": "192.0.2.2",
        "retries": 4,
        "socket_options": [(1, 9, 1)],
    }
    own, ours = part_of(library, "AsyncHTTPTransport"), anyhow(library.transport)
    async with open_world() as world:
        for options in (dict[str, object](), chosen):
            assert settings_of(ours(world.pt, **options)) == settings_of(own(**options))


async def test_a_proxy_is_told_all_that_the_library_tells_it(library: Generation) -> None:
    url = "https://user:secret@proxy.example:3128"
    given = part_of(library, "Proxy")(url, headers={"X-Team": "blue"}, ssl_context=CLIENT_TLS)
    async with open_world() as world:
        proxy = cast("httpcore.Proxy", vars(anyhow(library.transport)(world.pt, proxy=given)._pool)["_proxy"])
    assert bytes(proxy.url) == b"https://proxy.example:3128/"
    assert proxy.auth == (b"user", b"secret")
    assert (b"X-Team", b"blue") in proxy.headers
    assert proxy.ssl_context is CLIENT_TLS


def anyhow(transport: Callable[..., httpx.AsyncHTTPTransport]) -> Callable[..., httpx.AsyncHTTPTransport]:
    """It, with whatever arguments."""
    return transport


def part_of(library: Generation, name: str) -> Callable[..., httpx.AsyncHTTPTransport]:
    """A class of that generation."""
    return cast("Callable[..., httpx.AsyncHTTPTransport]", getattr(sys.modules[library.name], name))


def settings_of(transport: httpx.AsyncHTTPTransport) -> dict[str, object]:
    """What a pool was made with, as far as that is plain, and its TLS context if it was given."""
    pool: dict[str, object] = vars(transport._pool)
    plain = (int, float, str, list, type(None))
    found: dict[str, object] = {name: value for name, value in pool.items() if isinstance(value, plain)}
    return {**found, "tls": pool["_ssl_context"] is CLIENT_TLS}


@pytest.mark.parametrize("trusting", [True, False])
async def test_the_environment_s_certificates_count_where_they_may(
    library: Generation, trusting: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = tmp_path / "trusted.pem"
    bundle.write_bytes(trustme.CA().cert_pem.bytes())
    monkeypatch.setenv("SSL_CERT_FILE", str(bundle))
    async with open_world() as world:
        pool = vars(library.transport(world.pt, trust_env=trusting)._pool)
        count = cast("ssl.SSLContext", pool["_ssl_context"]).cert_store_stats()["x509_ca"]
        assert (count == 1) is trusting


async def test_an_option_that_there_is_not_is_refused_rather_than_ignored(library: Generation) -> None:
    async with open_world() as world:
        with pytest.raises(TypeError, match="no option http3"):
            anyhow(library.transport)(world.pt, http3=True)


def test_both_generations_adapters_are_one_text() -> None:
    """The second is the first with other names: whoever changes one changes the other."""
    folder = Path(trio_routes.integrations.__file__).parent
    first, second = ((folder / f"_{name}.py").read_text() for name in ("httpx", "httpx2"))
    renamed = first.replace("httpx", "httpx2").replace("httpcore", "httpcore2")

    def meaning(text: str) -> str:
        module = ast.parse(text)
        return ast.dump(ast.Module(module.body[1:], []))  # without the docstring

    assert meaning(renamed) == meaning(second)
