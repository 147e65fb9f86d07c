"""What the owner of a lost connection sees, whatever it is doing, and what its peer sees."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Awaitable
from functools import partial

import pytest
import trio
import trio.testing

from tests.kernel._world import PUBLIC, SOON, Pair, World, losses, next_of, open_world
from tests.lab.waiting import until
from trio_routes import (
    Connection,
    ConnectionLost,
    GuardedListener,
    GuardedStream,
    NoRouteError,
    Outcome,
    Policy,
    Pt,
    RouteAdded,
    RouteLostError,
    Standing,
    Verdict,
    open_pt,
)
from trio_routes.testing import Lab, TwoUplinks

pytestmark = pytest.mark.netns


async def test_a_connection_that_is_still_being_made_fails_when_its_route_goes(lab: Lab, family: int) -> None:
    hole = {4: "198.18.9.9", 6: "2001:db8:18::9"}[family]

    def silence(net: TwoUplinks) -> None:
        net.wifi_router.add_route(hole, type="blackhole")  # a router drops without a word

    async with open_world(lab, family, Policy(), prepare=silence) as world:
        await world.add_healthy()
        registered = len(world.pt.connections)

        async def connect() -> None:
            with pytest.raises(NoRouteError) as caught:
                await world.pt.open_tcp_stream(hole, 7)
            # Not by the pt's policy of a second: nothing that could be kept is there yet.
            assert caught.value.errno == errno.ENETUNREACH
            assert caught.value.resolution.outcome is Outcome.NO_ROUTE

        async with trio.open_nursery() as nursery:
            nursery.start_soon(connect)
            await trio.testing.wait_all_tasks_blocked()
            assert len(world.pt.connections) == registered  # an attempt is no connection
            await world.the_healthy_live(lost=0)
            assert nursery.child_tasks
            world.device.delete_route("default", via=world.wifi)
            await until(lambda: not nursery.child_tasks, seconds=0.5)
        assert len(world.pt.connections) == registered
        with pytest.raises(NoRouteError):
            await world.pt.open_tcp_stream(hole, 7)  # and the next attempt at once
        await world.the_healthy_live(lost=0)


async def test_an_attempt_whose_route_moves_begins_anew_from_the_new_address(lab: Lab, family: int) -> None:
    """R34: the old attempt's socket would go on speaking from an address that the new uplink's NAT does not know."""

    def silence(net: TwoUplinks) -> None:
        net.wifi_router.add_route(net.server_addresses[family], type="blackhole")

    async with open_world(lab, family, Policy(), lte_metric=600, prepare=silence) as world:
        await world.add_healthy()
        (listener,) = world.net.server.listen(0, world.server)
        port: int = listener.socket.getsockname()[1]
        own_addresses: list[str] = []

        async def connect() -> None:
            async with await world.pt.open_tcp_stream(world.server, port) as stream:
                own_addresses.append(stream.socket.getsockname()[0])
                assert stream.connection.standing is Standing.GOOD

        async with listener:
            with trio.fail_after(SOON):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(connect)
                    await trio.testing.wait_all_tasks_blocked()
                    world.device.delete_route("default", via=world.wifi)
                    await trio.aclose_forcefully(await listener.accept())
        assert own_addresses == [world.net.wwan0_addresses[family]]
        await world.the_healthy_live(lost=0)


async def test_the_peer_of_a_lost_connection_sees_a_reset_and_the_owner_keeps_the_descriptor(
    lab: Lab, family: int
) -> None:
    # Routed, so that a reset finds its way by the new gateway.
    async with open_world(lab, family, nat=False, spare_gateway=True) as world:
        await world.add_healthy()
        guarded, bare = await world.connect(), await world.connect()
        stream = bare.near.inner
        sock = bare.near.socket
        descriptor = sock.fileno()

        async def stays_pending() -> None:
            with pytest.raises(trio.BrokenResourceError) as caught:
                await stream.receive_some()
            assert not isinstance(caught.value, RouteLostError)  # a bare stream has no word for it

        async with trio.open_nursery() as nursery:
            nursery.start_soon(stays_pending)
            nursery.start_soon(guarded.lost)
            await trio.testing.wait_all_tasks_blocked()
            world.device.replace_route("default", via=world.spare, metric=100)
        for pair in (guarded, bare):
            with trio.fail_after(SOON), pytest.raises(trio.BrokenResourceError) as reset:
                await pair.far.receive_some()  # no b"": half a download must not pass for a whole one
            assert isinstance(reset.value.__cause__, ConnectionResetError)

        assert sock.fileno() == descriptor
        os.fstat(descriptor)
        with pytest.raises(OSError, match="not connected"):
            sock.getpeername()
        for what in (sock, stream):
            with pytest.raises(RouteLostError):
                world.pt.guard(what)
        # Its owner may connect it again: then it is another connection.
        (listener,) = world.net.server.listen(0, world.server)
        async with listener:
            await sock.connect(listener.socket.getsockname()[:2])
            again = await listener.accept()
        with world.pt.guard(sock) as connection:
            assert connection is not bare.near.connection and connection.standing is Standing.GOOD
            await again.send_all(b"back")
            assert await sock.recv(4) == b"back"
        await again.aclose()
        await world.the_healthy_live(lost=2)


async def test_bytes_that_arrived_before_the_loss_are_no_end_of_file(lab: Lab, family: int) -> None:
    async with open_world(lab, family) as world:
        await world.add_healthy()
        pair = await world.connect()
        with world.pt.subscribe(ConnectionLost) as events:
            await pair.far.send_all(b"half of it")
            world.device.delete_route("default", via=world.wifi)
            await next_of(events, ConnectionLost)
        for call in (
            pair.near.receive_some,
            partial(pair.near.send_all, b"x"),
            pair.near.wait_send_all_might_not_block,
            pair.near.send_eof,
        ):
            with pytest.raises(RouteLostError):
                await call()
        await world.the_healthy_live(lost=1)


async def delete_when_blocked(world: World) -> None:
    await trio.testing.wait_all_tasks_blocked()
    world.device.delete_route("default", via=world.wifi)


async def test_a_guarded_body_may_clean_up_under_a_shield_and_the_loss_still_leaves_it(lab: Lab, family: int) -> None:
    async with open_world(lab, family) as world, trio.open_nursery() as nursery:
        await world.add_healthy()
        pair = await world.connect()
        nursery.start_soon(delete_when_blocked, world)
        reason, ended_at_once = "", False
        with trio.fail_after(SOON), pytest.raises(RouteLostError) as caught, world.pt.guard(pair.near) as connection:
            try:
                await trio.sleep_forever()
            except trio.Cancelled as cancelled:
                reason = str(cancelled)
                with trio.CancelScope(shield=True):
                    await trio.sleep(0.02)
                    try:
                        await pair.near.send_all(b"goodbye")
                    except RouteLostError:
                        ended_at_once = True  # no goodbye is sent into a hole
                raise
        assert caught.value.connection is connection and caught.value.__cause__ is None
        assert ended_at_once
        assert "no route" in reason
        await world.the_healthy_live(lost=1)


async def test_a_guarded_body_that_swallows_its_cancellation_has_finished(lab: Lab, family: int) -> None:
    async with open_world(lab, family) as world, trio.open_nursery() as nursery:
        await world.add_healthy()
        pair = await world.connect()
        nursery.start_soon(delete_when_blocked, world)
        with trio.fail_after(SOON), world.pt.guard(pair.near) as connection:
            try:
                await trio.sleep_forever()
            except trio.Cancelled:  # noqa: ASYNC103 -- what a body should not do, and some do
                pass
        assert connection.loss is not None and connection.loss.verdict is Verdict.NO_ROUTE
        await world.the_healthy_live(lost=1)


async def test_an_error_of_the_bodys_own_during_a_loss_wins_and_says_that_there_was_one(lab: Lab, family: int) -> None:
    own = LookupError("a bug of the body's own")

    async def fail() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise own

    async with open_world(lab, family) as world, trio.open_nursery() as nursery:
        await world.add_healthy()
        bare, grouped = await world.connect(), await world.connect()
        nursery.start_soon(delete_when_blocked, world)
        with trio.fail_after(SOON):
            with pytest.raises(LookupError) as caught, world.pt.guard(bare.near):
                await fail()
            assert caught.value is own
            assert any("meanwhile the connection was lost" in note for note in own.__notes__)
            # The second is lost by now: entering says so, and the body does not run.
            with pytest.raises(RouteLostError), world.pt.guard(grouped.near):
                raise AssertionError("a body ran on a lost connection")
        await world.the_healthy_live(lost=2)


async def test_leaving_the_pt_while_a_loss_is_acted_on_ends_everything_and_leaves_nothing_half_done(
    lab: Lab, family: int
) -> None:
    # More than are judged in one go, and the pt is left at the first loss.
    count = 120
    async with open_world(lab, family) as world:
        await world.add_healthy()
        ended: list[Connection] = []
        left: list[Pt] = []
        pairs: list[Pair] = []

        async def guarded(pt: Pt, pair: Pair) -> None:
            try:
                with pt.guard(pair.near.inner):
                    await trio.sleep_forever()
            except RouteLostError:
                pass  # it got away before everybody had to leave
            finally:
                ended.append(pair.near.connection)

        with trio.fail_after(20), trio.CancelScope() as leaving:
            async with open_pt(netns=world.device.netns, policy=Policy.immediate()) as pt:
                left.append(pt)
                while len(pairs) < count:
                    pairs.append(await world.connect(pt=pt))
                async with trio.open_nursery() as nursery:
                    with pt.subscribe(ConnectionLost) as events:
                        for pair in pairs:
                            nursery.start_soon(guarded, pt, pair)
                        await trio.testing.wait_all_tasks_blocked()
                        world.device.delete_route("default", via=world.wifi)
                        await next_of(events, ConnectionLost)
                        leaving.cancel(reason="enough")
        # Who was not yet out when all had to leave was cancelled: no loss leaves with it, in no group.
        assert leaving.cancelled_caught and len(ended) == count
        (pt,) = left
        lost = [pair for pair in pairs if pair.near.connection.loss is not None]
        assert 0 < len(lost) == pt.statistics().lost
        for pair in pairs:
            if pair in lost:
                with pytest.raises(OSError, match="not connected"):
                    pair.near.socket.getpeername()
            else:
                pair.near.socket.getpeername()
        with pytest.raises(trio.ClosedResourceError):
            pt.guard(pairs[0].near)
        await world.the_healthy_live(lost=0)


async def test_a_server_whose_clients_path_goes_ends_its_handlers_and_serves_on(lab: Lab, family: int) -> None:
    async with open_world(lab, family, nat=False) as world, trio.open_nursery() as nursery:
        await world.add_healthy()
        saved: list[RouteLostError] = []

        async def echo(stream: GuardedStream) -> None:
            wish = await stream.receive_some(1)
            await stream.send_all(wish)
            if wish == b"n":  # the loss leaves the handler, and ends nothing else
                await stream.receive_some()
                return
            try:
                async for data in stream:
                    await stream.send_all(data)
            except RouteLostError as error:
                await trio.lowlevel.checkpoint()  # nobody cancels it: state can be saved
                saved.append(error)

        here = {4: "0.0.0.0", 6: "::"}[family]
        listeners: list[GuardedListener] = await nursery.start(partial(world.pt.serve_tcp, echo, 0, host=here))
        port: int = listeners[0].socket.getsockname()[1]

        async def client(connecting: Awaitable[trio.SocketStream], wish: bytes) -> trio.SocketStream:
            with trio.fail_after(SOON):
                stream = await connecting
                await stream.send_all(wish)
                assert await stream.receive_some(1) == wish
            return stream

        def remote() -> Awaitable[trio.SocketStream]:
            address = world.net.wlan0_addresses[family]
            return world.net.server.open_tcp_stream(address, port, local_address=world.server)

        def neighbouring() -> Awaitable[trio.SocketStream]:
            return world.net.neighbour.open_tcp_stream(world.net.eth0_addresses[family], port)

        careful, careless = await client(remote(), b"s"), await client(remote(), b"n")
        healthy = await client(neighbouring(), b"s")
        with world.pt.subscribe(ConnectionLost) as events:
            world.device.delete_route("default", via=world.wifi)
            lost = await losses(events, 2)
        assert {event.loss.verdict for event in lost} == {Verdict.NO_ROUTE}
        await until(lambda: bool(saved))
        assert saved[0].verdict is Verdict.NO_ROUTE
        # The server and the handlers of others are as they were.
        await healthy.send_all(b"?")
        with trio.fail_after(SOON):
            assert await healthy.receive_some(1) == b"?"
        another = await client(neighbouring(), b"s")
        await world.the_healthy_live(lost=2)
        for stream in (careful, careless, healthy, another):
            await trio.aclose_forcefully(stream)
        nursery.cancel_scope.cancel()


async def test_keep_connected_goes_on_over_the_other_uplink(lab: Lab, family: int) -> None:
    async with open_world(lab, family, lte_metric=600) as world, trio.open_nursery() as nursery:
        await world.add_healthy()
        (listener,) = world.net.server.listen(0, world.server)
        port: int = listener.socket.getsockname()[1]

        async def echo(stream: trio.SocketStream) -> None:
            try:
                async for data in stream:
                    await stream.send_all(data)
            except trio.BrokenResourceError:
                pass  # the first one's client went away without a word

        nursery.start_soon(partial(trio.serve_listeners, echo, [listener]))
        used: list[str] = []

        async def talk(stream: GuardedStream) -> str:
            used.append(stream.socket.getsockname()[0])
            await stream.send_all(b"hello")
            assert await stream.receive_some() == b"hello"
            if len(used) == 1:
                world.net.wlan0.down()
                await stream.receive_some()
            return "done"

        with trio.fail_after(SOON):
            assert await world.pt.keep_connected(talk, world.server, port) == "done"
        assert used == [world.net.wlan0_addresses[family], world.net.wwan0_addresses[family]]
        await world.the_healthy_live(lost=1)
        nursery.cancel_scope.cancel()


async def test_keep_connected_waits_for_a_route_and_goes_on_when_it_is_there(lab: Lab, family: int) -> None:
    async with open_world(lab, family) as world, trio.open_nursery() as nursery:
        await world.add_healthy()
        (listener,) = world.net.server.listen(0, world.server)
        port: int = listener.socket.getsockname()[1]
        rounds: list[float] = []

        async def talk(stream: GuardedStream) -> int:
            rounds.append(trio.current_time())
            if len(rounds) == 1:
                await stream.receive_some()
            return len(rounds)

        async def kept() -> None:
            async with listener:
                assert await world.pt.keep_connected(talk, world.server, port) == 2

        nursery.start_soon(kept)
        await until(lambda: len(rounds) == 1)
        with world.pt.subscribe(ConnectionLost) as events:
            world.device.delete_route("default", via=world.wifi)
            await next_of(events, ConnectionLost)
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert len(rounds) == 1  # nothing to try while there is no way
        world.device.add_route("default", via=world.wifi)
        back = trio.current_time()
        await until(lambda: len(rounds) == 2)
        assert rounds[1] - back < 1.0
        await world.the_healthy_live(lost=1)


async def test_wait_routable_returns_when_the_kernel_has_a_way(lab: Lab, family: int) -> None:
    async with open_world(lab, family) as world:
        await world.add_healthy()
        assert (await world.pt.wait_routable(world.server)).outcome is Outcome.ROUTED
        world.device.delete_route("default", via=world.wifi)
        await world.applied()
        paths: list[str] = []

        async def wait() -> None:
            path = await world.pt.wait_routable(PUBLIC[family])
            paths.extend(map(str, path.gateways))

        with trio.fail_after(SOON), world.pt.subscribe(RouteAdded) as events:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(wait)
                await trio.testing.wait_all_tasks_blocked()
                world.device.add_route(world.server, via=world.wifi)  # a way, but not to there
                await next_of(events, RouteAdded)
                await trio.testing.wait_all_tasks_blocked()
                assert paths == []
                world.device.add_route("default", via=world.lte)
        assert paths == [world.lte]
        await world.the_healthy_live(lost=0)


async def test_a_datagram_socket_is_judged_and_left_to_its_owner(lab: Lab, family: int) -> None:
    async with open_world(lab, family) as world, trio.open_nursery() as nursery:
        await world.add_healthy()
        inet = {4: socket.AF_INET, 6: socket.AF_INET6}[family]
        with (
            world.device.socket(inet, socket.SOCK_DGRAM) as sock,
            world.net.server.socket(inet, socket.SOCK_DGRAM) as far,
        ):
            await far.bind((world.server, 4433))
            await sock.sendto(b"before", (world.server, 4433))
            assert await far.recv(10) == b"before"
            nursery.start_soon(delete_when_blocked, world)
            with (
                trio.fail_after(SOON),
                pytest.raises(RouteLostError) as caught,
                world.pt.guard(sock, peer=(world.server, 4433)),
            ):
                await sock.recvfrom(10)
            assert caught.value.verdict is Verdict.NO_ROUTE
            world.device.add_route("default", via=world.wifi)
            await sock.sendto(b"after", (world.server, 4433))  # QUIC goes on with the same socket
            with trio.fail_after(SOON):
                assert await far.recv(10) == b"after"
        await world.the_healthy_live(lost=1)


async def test_r28_a_send_that_waits_for_room_is_ended_with_its_route(lab: Lab, family: int) -> None:
    async with open_world(lab, family) as world:
        await world.add_healthy()
        pair = await world.connect()

        async def send() -> None:
            with pytest.raises(RouteLostError) as caught:
                while True:  # the far end does not read: its window closes, and our buffer fills
                    await pair.near.send_all(b"x" * 1_000_000)
            assert caught.value.verdict is Verdict.NO_ROUTE

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            await trio.testing.wait_all_tasks_blocked(0.2)  # packets take their time
            world.device.delete_route("default", via=world.wifi)
            await until(lambda: not nursery.child_tasks, seconds=1)
        await world.the_healthy_live(lost=1)
