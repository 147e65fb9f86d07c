"""Connecting: a race over the addresses that have a route, judged from before connect()."""

from __future__ import annotations

import errno
import math
import socket
import ssl
from contextlib import suppress
from ipaddress import IPv4Address
from typing import cast

import attrs
import pytest
import trio
import trio.testing
import trustme

from tests.connections._world import LOCAL, OTHER_PEER, PEER, UPLINK, V6_PEER, World, accepts, certify, loopback_pair
from trio_routes._errors import NoRouteError, RouteLostError
from trio_routes.connections._connect import adopt, in_order_of_attempts, open_ssl_over_tcp_stream, open_tcp_stream
from trio_routes.connections._hints import TcpHints
from trio_routes.connections._options import ConnectOptions
from trio_routes.connections._policy import Policy
from trio_routes.connections._verdict import Standing, Verdict
from trio_routes.netlink import (
    AF_INET,
    AF_INET6,
    NLM_F_REPLACE,
    RTN_BLACKHOLE,
    RTN_PROHIBIT,
    RTN_UNREACHABLE,
    LinuxKernel,
    NextHop,
    RouteBody,
)
from trio_routes.routing import Outcome
from trio_routes.testing._fake_stream import FakeStream

NAME = "db.example"


async def test_the_stream_is_guarded_and_knows_where_it_leads(world: World) -> None:
    world.kernel.listeners[PEER] = accepts
    world.kernel.names[NAME] = [PEER]
    stream = await open_tcp_stream(world.ground, NAME, 5432)
    assert stream.connection.label == "db.example:5432"
    assert stream.connection.flow.peer == PEER
    assert list(world.registry) == [stream.connection]
    await stream.aclose()
    assert list(world.registry) == []


async def test_an_address_without_a_route_is_skipped_at_once(
    world: World, autojump_clock: trio.testing.MockClock
) -> None:
    """R34."""
    world.kernel.names[NAME] = [PEER, V6_PEER]
    world.kernel.listeners = {PEER: None, V6_PEER: accepts}
    world.remove_default(AF_INET)
    began = trio.current_time()
    stream = await open_tcp_stream(world.ground, NAME, 5432)
    assert world.kernel.attempts == [(began, V6_PEER)]
    await stream.aclose()


@pytest.mark.parametrize(
    ("kind", "code", "outcome"),
    [
        (None, errno.ENETUNREACH, Outcome.NO_ROUTE),
        (RTN_UNREACHABLE, errno.EHOSTUNREACH, Outcome.UNREACHABLE),
        (RTN_PROHIBIT, errno.EACCES, Outcome.PROHIBITED),
        (RTN_BLACKHOLE, errno.EINVAL, Outcome.BLACKHOLE),
    ],
)
async def test_no_route_is_an_os_error_with_the_number_that_connect_would_give(
    world: World, kind: int | None, code: int, outcome: Outcome
) -> None:
    """R34; and it is a checkpoint though nothing was tried."""
    if kind is None:
        world.remove_default()
    else:
        world.cache.add_route(int(PEER), RouteBody(AF_INET, 254, 32, type=kind), 0)
        world.apply()
    with trio.testing.assert_checkpoints(), pytest.raises(NoRouteError) as caught:
        await open_tcp_stream(world.ground, PEER, 5432)
    assert caught.value.errno == code
    assert caught.value.resolution.outcome is outcome
    assert world.kernel.attempts == []


async def test_a_pending_attempt_fails_as_soon_as_its_route_goes(
    world: World, autojump_clock: trio.testing.MockClock
) -> None:
    """R34: not after the SYN retries, and not after the policy's wait."""
    world.kernel.listeners[PEER] = None
    began = trio.current_time()
    async with trio.open_nursery() as nursery:

        async def connect() -> None:
            with pytest.raises(NoRouteError, match="lost while connecting") as caught:
                await open_tcp_stream(world.ground, PEER, 5432, policy=Policy.patient())
            assert caught.value.errno == errno.ENETUNREACH
            assert caught.value.resolution.outcome is Outcome.NO_ROUTE

        nursery.start_soon(connect)
        await trio.testing.wait_all_tasks_blocked()
        assert len(world.kernel.attempts) == 1
        world.remove_default()
    assert trio.current_time() == began
    assert world.registry._records == {}


async def test_an_attempt_whose_route_moves_begins_anew_by_the_new_way(
    world: World, autojump_clock: trio.testing.MockClock
) -> None:
    """R34: from the address that the kernel chooses now, without waiting for SYN retries."""
    world.kernel.listeners[PEER] = None
    began = trio.current_time()
    async with trio.open_nursery() as nursery:

        async def connect() -> None:
            stream = await open_tcp_stream(world.ground, PEER, 5432)
            assert stream.connection.standing is Standing.GOOD
            assert stream.connection.now.gateways == (other,)
            await stream.aclose()

        nursery.start_soon(connect)
        await trio.testing.wait_all_tasks_blocked()
        other = IPv4Address("10.0.0.9")
        world.kernel.listeners[PEER] = accepts
        world.cache.add_route(
            0, attrs.evolve(world.default(AF_INET), nexthops=(NextHop(UPLINK, other),)), NLM_F_REPLACE
        )
        world.apply()
    assert len(world.kernel.attempts) == 2
    assert trio.current_time() == began


@pytest.mark.parametrize("ends", ["lost", "cancelled"])
async def test_nobody_is_told_of_an_attempt(world: World, autojump_clock: trio.testing.MockClock, ends: str) -> None:
    """What is still being made is no connection: no event, no line in the history, no count."""
    world.kernel.listeners[PEER] = None
    async with trio.open_nursery() as nursery:

        async def connect() -> None:
            with suppress(NoRouteError):
                await open_tcp_stream(world.ground, PEER, 5432)

        nursery.start_soon(connect)
        await trio.testing.wait_all_tasks_blocked()
        assert len(world.kernel.attempts) == 1
        assert list(world.registry) == [] and len(world.registry) == 0
        assert world.registry.statistics().registered == 0
        if ends == "lost":
            world.remove_default()
        else:
            nursery.cancel_scope.cancel()
    assert world.events == [] and world.registry.history == ()
    assert world.registry.statistics().lost == 0


async def test_another_addresss_attempt_goes_on_when_ones_route_goes(
    world: World, autojump_clock: trio.testing.MockClock
) -> None:
    """R34: the next address is tried at once, not after the delay."""
    world.kernel.names[NAME] = [PEER, V6_PEER]
    world.kernel.listeners = {PEER: None, V6_PEER: accepts}
    began = trio.current_time()
    async with trio.open_nursery() as nursery:

        async def connect() -> None:
            stream = await open_tcp_stream(world.ground, NAME, 5432, happy_eyeballs_delay=60)
            assert stream.connection.flow.peer == V6_PEER
            await stream.aclose()

        nursery.start_soon(connect)
        await trio.testing.wait_all_tasks_blocked()
        world.remove_default(AF_INET)
    assert trio.current_time() == began


async def test_a_silent_address_costs_one_delay_and_a_refusing_one_none(
    world: World, autojump_clock: trio.testing.MockClock
) -> None:
    refusing, silent, third = IPv4Address("198.51.100.1"), IPv4Address("198.51.100.2"), IPv4Address("198.51.100.3")
    world.kernel.names[NAME] = [refusing, silent, third]
    world.kernel.listeners = {silent: None, third: accepts}
    began = trio.current_time()
    stream = await open_tcp_stream(world.ground, NAME, 5432, happy_eyeballs_delay=0.25)
    assert [(when - began, address) for when, address in world.kernel.attempts] == [
        (0, refusing),
        (0, silent),
        (0.25, third),
    ]
    await stream.aclose()


def test_an_address_of_the_other_family_comes_second() -> None:
    """RFC 6555, section 5.4."""
    assert in_order_of_attempts([PEER, OTHER_PEER, V6_PEER]) == [PEER, V6_PEER, OTHER_PEER]
    assert in_order_of_attempts([V6_PEER, PEER, OTHER_PEER]) == [V6_PEER, PEER, OTHER_PEER]
    assert in_order_of_attempts([PEER, OTHER_PEER]) == [PEER, OTHER_PEER]
    assert in_order_of_attempts([]) == []


async def test_of_two_that_answer_in_one_tick_one_is_closed(
    world: World, autojump_clock: trio.testing.MockClock
) -> None:
    servers: list[FakeStream] = []
    both = trio.Event()

    async def answer(stream: FakeStream) -> None:
        servers.append(stream)
        if len(servers) == 2:
            both.set()
        with trio.CancelScope(shield=True):  # as a connect() that is done when the cancellation comes
            await both.wait()

    world.kernel.names[NAME] = [PEER, OTHER_PEER]
    world.kernel.listeners = {PEER: answer, OTHER_PEER: answer}
    stream = await open_tcp_stream(world.ground, NAME, 5432)
    assert len(list(world.registry)) == 1
    ended = 0
    for server in servers:
        with trio.move_on_after(1):
            ended += await server.receive_some() == b""
    assert ended == 1
    await stream.aclose()


async def test_a_cancelled_connect_leaves_nothing_behind(world: World) -> None:
    world.kernel.listeners[PEER] = None
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(open_tcp_stream, world.ground, PEER, 5432)
            await trio.testing.wait_all_tasks_blocked()
            assert len(world.registry._records) == 1
            scope.cancel()
    assert world.registry._records == {}


async def test_the_path_is_compared_with_the_one_before_connect(world: World) -> None:
    """R8: what changed in between is noticed, and has its wait."""
    world.kernel.listeners[PEER] = accepts
    world.kernel.on_connect = lambda: world.cache.remove_route(0, world.default(AF_INET))
    stream = await open_tcp_stream(world.ground, PEER, 5432)
    assert stream.connection.before.outcome is Outcome.ROUTED
    assert stream.connection.standing is Standing.SUSPECT
    assert stream.connection.verdict is Verdict.NO_ROUTE
    await stream.aclose()


async def test_under_a_policy_that_does_not_wait_the_first_call_tells_of_it(world: World) -> None:
    """R8."""
    world.kernel.listeners[PEER] = accepts
    world.kernel.on_connect = lambda: world.cache.remove_route(0, world.default(AF_INET))
    stream = await open_tcp_stream(world.ground, PEER, 5432, policy=Policy.immediate())
    with trio.fail_after(1), pytest.raises(RouteLostError):
        await stream.receive_some()
    await stream.aclose()


async def test_device_mark_and_local_address_reach_the_socket_and_the_lookup(world: World) -> None:
    """R33."""
    world.kernel.listeners[PEER] = accepts
    stream = await open_tcp_stream(world.ground, PEER, 5432, device="uplink", mark=7, local_address=str(LOCAL))
    assert world.kernel.egress == [(LOCAL, "uplink", 7)]
    await stream.aclose()
    with pytest.raises(NoRouteError):
        await open_tcp_stream(world.ground, PEER, 5432, device="absent")
    assert len(world.kernel.attempts) == 1


async def test_a_local_address_of_the_other_family_is_refused_and_a_wildcard_chooses_one(world: World) -> None:
    world.kernel.names[NAME] = [V6_PEER, PEER]
    world.kernel.listeners = {PEER: accepts, V6_PEER: accepts}
    stream = await open_tcp_stream(world.ground, NAME, 5432, local_address="0.0.0.0")
    assert stream.connection.flow.peer == PEER
    await stream.aclose()
    with pytest.raises(OSError, match="failed") as caught:
        await open_tcp_stream(world.ground, V6_PEER, 5432, local_address=LOCAL)
    assert caught.value.errno == errno.EAFNOSUPPORT


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ConnectionRefusedError(errno.ECONNREFUSED, "refused"), ConnectionRefusedError),
        (PermissionError(errno.EPERM, "SO_MARK"), PermissionError),
        (TimeoutError(errno.ETIMEDOUT, "timed out"), TimeoutError),
    ],
)
async def test_what_all_attempts_failed_of_is_what_is_raised(world: World, error: OSError, kind: type[OSError]) -> None:
    """R33, R34: PermissionError for a mark without the right to it."""
    world.kernel.names[NAME] = [PEER, V6_PEER]
    world.kernel.listeners = {PEER: error, V6_PEER: error}
    with pytest.raises(kind) as caught:
        await open_tcp_stream(world.ground, NAME, 5432)
    assert reasons_of(caught.value) == (error, error)


async def test_different_failures_are_one_plain_os_error_with_all_reasons(world: World) -> None:
    world.kernel.names[NAME] = [PEER, V6_PEER]
    world.remove_default(AF_INET6)
    with pytest.raises(OSError, match=r"all attempts to connect to db\.example:5432 failed") as caught:
        await open_tcp_stream(world.ground, NAME, 5432)
    assert type(caught.value) is OSError
    assert {type(error) for error in reasons_of(caught.value)} == {ConnectionRefusedError, NoRouteError}


def reasons_of(error: BaseException) -> tuple[object, ...]:
    group: object = error.__cause__
    reasons: tuple[object, ...] = getattr(group, "exceptions", ())
    return reasons


@pytest.mark.parametrize("why", ["unmonitored", "resyncing"])
async def test_an_empty_cache_is_no_reason_to_skip_unless_it_is_known_to_be_true(world: World, why: str) -> None:
    """R15."""
    world.kernel.listeners[PEER] = accepts
    world.remove_default()
    world.monitoring, world.cache.resyncing = why != "unmonitored", why == "resyncing"
    stream = await open_tcp_stream(world.ground, PEER, 5432)
    assert stream.connection.standing is Standing.GOOD
    await stream.aclose()


async def test_a_name_that_does_not_resolve_raises_the_resolvers_error(world: World) -> None:
    with pytest.raises(socket.gaierror):
        await open_tcp_stream(world.ground, "absent.example", 5432)
    world.kernel.names[NAME] = []
    with pytest.raises(OSError, match="no results"):
        await open_tcp_stream(world.ground, NAME, 5432)


async def test_a_closed_pt_is_told_bare(world: World) -> None:
    """R6: not in a group of the race's."""
    world.kernel.listeners[PEER] = accepts
    world.registry.close()
    with pytest.raises(trio.ClosedResourceError):
        await open_tcp_stream(world.ground, PEER, 5432)
    assert world.kernel.attempts == []


async def test_a_connection_that_is_reset_before_it_is_registered_is_an_os_error(world: World) -> None:
    client, server = await loopback_pair()
    server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    server.socket.close()
    with pytest.raises(trio.BrokenResourceError):
        await client.receive_some()
    with pytest.raises(ConnectionResetError):
        adopt(world.ground, client, None, policy=None, probe=None, label="")
    await client.aclose()


async def test_a_real_socket_gets_its_hints_and_is_the_callers(world: World) -> None:
    """R1, on the running kernel."""
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    world.monitoring = False
    ground = world.ground_on(LinuxKernel())
    async with listener:
        stream = await open_tcp_stream(
            ground, "127.0.0.1", listener.socket.getsockname()[1], tcp_hints=TcpHints(keepalive_idle=9), label="db"
        )
        async with stream:
            assert stream.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 9
            assert stream.connection.flow.local == IPv4Address("127.0.0.1")
            assert stream.connection.label == "db"
        assert stream.socket.fileno() == -1


async def test_tls_comes_on_top_and_passes_the_loss_on(world: World, nursery: trio.Nursery) -> None:
    """R33."""
    ours, theirs = certify(trustme.CA(), NAME)

    async def answer(stream: FakeStream) -> None:
        nursery.start_soon(say_hello, trio.SSLStream(stream, theirs, server_side=True))

    async def say_hello(stream: trio.SSLStream[FakeStream]) -> None:
        await stream.send_all(b"hello")

    world.kernel.names[NAME] = [PEER]
    world.kernel.listeners[PEER] = answer
    stream = await open_ssl_over_tcp_stream(world.ground, NAME, 443, ssl_context=ours)
    assert await stream.receive_some() == b"hello"
    world.lose(stream.transport_stream.connection)
    with pytest.raises(RouteLostError):
        await stream.receive_some()
    await stream.aclose()


async def test_the_default_tls_context_takes_a_cut_connection_for_no_end(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R33: as in Trio; with the option, half a body would pass for a whole one."""

    def create() -> ssl.SSLContext:  # which options it sets depends on Python's version
        context = original()
        context.options |= ssl.OP_IGNORE_UNEXPECTED_EOF
        return context

    original = ssl.create_default_context
    monkeypatch.setattr(ssl, "create_default_context", create)
    world.kernel.listeners[PEER] = accepts
    stream = await open_ssl_over_tcp_stream(world.ground, PEER, 443)
    context = stream.context
    assert isinstance(context, ssl.SSLContext)
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    assert not context.options & ssl.OP_IGNORE_UNEXPECTED_EOF
    await trio.aclose_forcefully(stream)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, r"198\.51\.100\.7: no route"),
        ({"device": "absent"}, r"198\.51\.100\.7 by absent: no route"),
        ({"local_address": LOCAL, "mark": 5}, r"198\.51\.100\.7 from 10\.0\.0\.2 with mark 5: no route"),
    ],
)
async def test_what_was_asked_for_is_named_where_there_is_no_route(
    world: World, options: ConnectOptions, said: str
) -> None:
    """R34: a route may well be there, but not by the device that the caller wants."""
    if "device" not in options:
        world.remove_default()
    with pytest.raises(NoRouteError, match=said):
        await open_tcp_stream(world.ground, PEER, 5432, **options)


def test_hints_out_of_the_kernels_range_are_refused() -> None:
    with pytest.raises(ValueError, match="keepalive_count"):
        TcpHints(keepalive_count=128)
    with pytest.raises(ValueError, match="keepalive_idle"):
        TcpHints(keepalive_idle=0)
    with pytest.raises(ValueError, match=r"whole number.* not 1\.5"):
        TcpHints(keepalive_interval=cast("int", 1.5))  # refused here, not when a connection has been made


@pytest.mark.parametrize("seconds", [-1.0, 0.0, 0.0001, math.nan, math.inf, 2_147_484.0])
def test_a_user_timeout_that_cannot_be_is_refused(seconds: float) -> None:
    """Nor one of 0: to the kernel that is its default."""
    with pytest.raises(ValueError, match="user_timeout"):
        TcpHints(user_timeout=seconds)


async def test_the_least_and_the_most_that_hints_take_the_kernel_takes(world: World) -> None:
    client, server = await loopback_pair()
    async with client, server:
        for hints in (
            TcpHints(1, 1, 1, user_timeout=0.001),
            TcpHints(32767, 32767, 127, user_timeout=0x7FFFFFFF / 1000),
        ):
            hints.apply_to(client.socket)
            assert hints.user_timeout is not None
            milliseconds = client.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
            assert milliseconds == round(hints.user_timeout * 1000)


async def test_a_dead_link_is_no_way_though_the_route_is_there(world: World) -> None:
    """R34: the kernel keeps the routes of a link without carrier."""
    world.kernel.listeners[PEER] = None
    world.set_carrier(False)
    world.apply()
    with pytest.raises(NoRouteError, match="carrier lost"):
        await open_tcp_stream(world.ground, PEER, 5432)
    assert world.cache.link(UPLINK) is not None


@pytest.mark.parametrize(
    ("port", "options", "said"),
    [
        (70_000, {}, "0 to 65535, not 70000"),
        (80, {"mark": 2**33}, "32 bits"),
        (80, {"happy_eyeballs_delay": -1.0}, "0 or more seconds"),
    ],
)
async def test_a_mistake_of_the_callers_is_named_and_not_grouped(
    world: World, port: int, options: ConnectOptions, said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        await open_tcp_stream(world.ground, PEER, port, **options)
