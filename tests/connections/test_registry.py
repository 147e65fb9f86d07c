"""The registry: one record per socket, whoever holds it and in whatever it is wrapped."""

from __future__ import annotations

import gc
import logging
import socket
import tracemalloc
from collections.abc import Iterator
from ipaddress import IPv4Address, ip_address

import attrs
import pytest
import trio

from tests.connections.network import C1, Site
from trio_routes import RouteLostError
from trio_routes._events import ConnectionLost, Event
from trio_routes.connections import Connection, Flow, Policy, Registry, Standing, Verdict
from trio_routes.connections._judge import resolve


class Stream:
    """A stream without a socket, that can be ended."""

    def __init__(self, flow: Flow) -> None:
        self.flow = flow
        self.aborted = 0

    def abort(self) -> None:
        self.aborted += 1


@attrs.define
class Bench:
    """A registry on a network by hand."""

    site: Site = attrs.field(factory=lambda: Site(4))
    events: list[Event] = attrs.field(factory=list[Event])
    monitoring: bool = True
    netns_cookie: int | None = None
    registry: Registry = attrs.field(init=False)
    streams: list[Stream] = attrs.field(factory=list[Stream])

    def __attrs_post_init__(self) -> None:
        self.registry = Registry(
            self.site.network,
            policy=Policy(),
            publish=self.events.append,
            monitoring=lambda: self.monitoring,
            netns_cookie=self.netns_cookie,
        )

    def stream(self) -> Stream:
        """A stream that somebody owns: the registry keeps none alive."""
        self.streams.append(Stream(self.site.flow()))
        return self.streams[-1]

    def touch(self) -> None:
        """Give the registry what changed, without anybody to judge: the turn of all touched has not come."""
        self.registry.court.touch(self.site.network.take())


@pytest.fixture
def bench() -> Bench:
    return Bench()


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        server, _ = listener.accept()
        with client, server:
            yield client, server


async def test_all_objects_of_one_socket_share_one_record(
    bench: Bench, pair: tuple[socket.socket, socket.socket]
) -> None:
    """R4."""
    client, server = pair
    connection = bench.registry.register(client)
    with client.dup() as duplicate:
        stream = trio.SocketStream(trio.socket.from_stdlib_socket(duplicate.dup()))
        async with stream:
            assert bench.registry.register(duplicate) is connection
            assert bench.registry.register(stream) is connection
            assert bench.registry.find(stream.socket) is connection
            assert bench.registry.register(connection) is connection
    assert bench.registry.register(server) is not connection
    assert next(iter(bench.registry)) is connection
    assert len(bench.registry) == 2


async def test_the_record_ends_when_the_last_reference_leaves(
    bench: Bench, pair: tuple[socket.socket, socket.socket]
) -> None:
    first, second = bench.registry.register(pair[0]), bench.registry.register(pair[0])
    bench.registry.release(first)
    assert bench.registry.find(pair[0]) is first
    bench.registry.release(second)
    assert bench.registry.find(pair[0]) is None
    assert bench.registry.register(pair[0]) is not first


async def test_a_dropped_socket_disappears_and_is_collected(bench: Bench) -> None:
    """R5."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        stream = trio.SocketStream(trio.socket.from_stdlib_socket(socket.create_connection(listener.getsockname())))
        connection = bench.registry.register(stream)
        assert list(bench.registry) == [connection]
        stream.socket.close()  # or dropping it would warn, rightly
        del stream
        gc.collect()
        assert list(bench.registry) == []


async def test_while_one_duplicate_lives_the_record_stays(
    bench: Bench, pair: tuple[socket.socket, socket.socket]
) -> None:
    duplicate = pair[0].dup()
    connection = bench.registry.register(duplicate)
    bench.registry.register(pair[0])
    duplicate.close()
    del duplicate
    gc.collect()
    assert list(bench.registry) == [connection]


async def test_what_cannot_be_registered_says_so(bench: Bench, pair: tuple[socket.socket, socket.socket]) -> None:
    """R6."""
    registry = bench.registry
    with pytest.raises(TypeError, match="flow"):
        registry.register(object())
    with pytest.raises(TypeError, match="flow"):
        registry.register(None)
    with socket.socket() as unconnected, pytest.raises(ValueError, match="not connected"):
        registry.register(unconnected)
    pair[0].close()
    with pytest.raises(trio.ClosedResourceError):
        registry.register(pair[0])
    with pytest.raises(ValueError, match="namespace"):
        Bench(netns_cookie=1).registry.register(pair[1])
    registry.close()
    with pytest.raises(trio.ClosedResourceError):
        registry.register(pair[1])


async def test_one_datagram_socket_has_one_peer(bench: Bench) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        connection = bench.registry.register(sock, peer=("198.51.100.7", 443))
        assert bench.registry.register(sock, peer=(IPv4Address("198.51.100.7"), 443)) is connection
        with pytest.raises(ValueError, match="another peer"):
            bench.registry.register(sock, peer=("198.51.100.8", 443))


@pytest.mark.parametrize("peer", ["::ffff:198.51.100.7", "2001:DB8::7", "2001:db8:0:0::7", "fe80::9%1", "fe80::9%lo"])
async def test_a_peer_is_the_same_however_its_address_is_written(bench: Bench, peer: str) -> None:
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
        connection = bench.registry.register(sock, peer=(peer, 443))
        assert bench.registry.register(sock, peer=(peer, 443)) is connection
        with pytest.raises(ValueError, match="another peer"):
            bench.registry.register(sock, peer=("fe80::9%2", 443))


async def test_a_wildcard_socket_is_judged_by_the_address_that_the_kernel_would_choose(bench: Bench) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        connection = bench.registry.register(sock, peer=("198.51.100.7", 443))
    assert connection.flow.local == ip_address(bench.site.s1)


async def test_what_a_later_registration_brings_replaces_what_was(bench: Bench) -> None:
    stream = bench.stream()
    connection = bench.registry.register(stream)
    assert (connection.policy, connection.label) == (Policy(), "")
    bench.registry.register(stream, policy=Policy.patient(), label="feed")
    assert (connection.policy, connection.label) == (Policy.patient(), "feed")
    bench.registry.register(stream)
    assert (connection.policy, connection.label) == (Policy.patient(), "feed")
    assert connection.describe() == "tcp 10.0.1.2:40000 -> 198.51.100.7:443 (feed)"


async def test_a_flow_alone_is_an_attempt_and_each_is_its_own(bench: Bench) -> None:
    one, other = (bench.registry.register(None, flow=bench.site.flow()) for _ in range(2))
    assert one is not other
    bench.registry.release(one)
    assert list(bench.registry) == [other]


# ---- standings -----------------------------------------------------------------------------------------------


async def test_a_good_connection_begins_good(bench: Bench) -> None:
    connection = bench.registry.register(bench.stream())
    assert (connection.standing, connection.verdict, connection.loss) == (Standing.GOOD, Verdict.UNCHANGED, None)
    assert connection.before == connection.now == resolve(bench.site.flow(), bench.site.network)
    assert bench.events == []


async def test_a_path_already_gone_at_registration_is_no_baseline(bench: Bench) -> None:
    """R7."""
    bench.site.network.delete_route(bench.site.default)
    connection = bench.registry.register(bench.stream())
    assert (connection.standing, connection.verdict) == (Standing.SUSPECT, Verdict.NO_ROUTE)
    assert connection.deadline == pytest.approx(trio.current_time() + 1.0, abs=0.5)
    bench.site.network.add_route(bench.site.default, via=bench.site.gw2, dev=C1)
    bench.touch()
    assert connection.standing is Standing.GOOD, "the first path that works is the baseline"


async def test_a_path_that_changed_while_connecting_is_compared_with_the_one_before(bench: Bench) -> None:
    before = resolve(bench.site.flow(), bench.site.network)
    bench.site.network.add_route(bench.site.default, via=bench.site.gw1b, dev=C1, metric=100, replace=True)
    connection = bench.registry.register(bench.stream(), before=before)
    assert (connection.standing, connection.verdict) == (Standing.SUSPECT, Verdict.GATEWAY_CHANGED)
    assert connection.before == before


async def test_nobody_sees_a_stale_good(bench: Bench) -> None:
    """R11."""
    connection = bench.registry.register(bench.stream(), policy=Policy.immediate())
    bench.site.network.delete_route(bench.site.default)
    bench.touch()
    assert connection.standing is Standing.LOST
    assert connection.loss is not None
    assert (connection.loss.verdict, connection.loss.cause) == (Verdict.NO_ROUTE, "RTM_DELROUTE")


async def test_a_loss_ends_the_stream_cancels_the_scopes_and_is_published_once_in_this_order(bench: Bench) -> None:
    stream = bench.stream()
    connection = bench.registry.register(stream, policy=Policy.immediate())
    order: list[str] = []
    scope, other, detached = trio.CancelScope(), trio.CancelScope(), trio.CancelScope()
    for attached in (scope, other, detached):
        connection.attach(attached)
    connection.detach(detached)

    class Watcher(Stream):
        def abort(self) -> None:
            order.append(f"abort, cancelled {scope.cancel_called}")

    stream.abort = Watcher.abort.__get__(stream)  # type: ignore[method-assign]  # to see the order
    publish = bench.events.append

    def note(event: Event) -> None:
        publish(event)
        order.append(
            f"{type(event).__name__}, standing {connection.record.stand.standing.value}, {scope.cancel_called}"
        )

    bench.registry.court.herald._publish = note
    bench.site.network.delete_route(bench.site.default)
    bench.touch()
    assert connection.loss is not None
    assert order == ["ConnectionLost, standing lost, False", "abort, cancelled True"]
    assert (scope.cancel_called, other.cancel_called, detached.cancel_called) == (True, True, False)
    assert [type(event) for event in bench.events] == [ConnectionLost]
    assert bench.registry.history == (connection,)
    assert list(bench.registry) == []
    late = trio.CancelScope()
    connection.attach(late)
    assert late.cancel_called, "whoever comes too late is cancelled at once"


async def test_a_lost_socket_is_refused_until_its_owner_connects_it_again(
    bench: Bench, pair: tuple[socket.socket, socket.socket]
) -> None:
    client, server = pair
    connection = bench.registry.register(client, flow=bench.site.flow())
    bench.registry.lose(connection, Verdict.EGRESS_CHANGED, "a test")
    with pytest.raises(RouteLostError) as caught:
        bench.registry.register(client)
    assert caught.value.connection is connection
    assert "egress changed" in str(caught.value)
    with pytest.raises(RouteLostError):
        bench.registry.register(connection)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client.connect(listener.getsockname())
        again = bench.registry.register(client)
    assert again is not connection
    assert again.loss is None
    with pytest.raises(ConnectionResetError):
        server.recv(1)


async def test_a_lost_socket_is_forgotten_with_its_object(bench: Bench) -> None:
    stream = Stream(bench.site.flow())
    bench.registry.lose(bench.registry.register(stream), Verdict.NO_ROUTE, "a test")
    assert len(bench.registry._lost) == 1
    del stream
    gc.collect()
    assert bench.registry.statistics().lost == 1
    assert len(bench.registry._lost) == 0


async def test_a_datagram_socket_is_left_for_its_owner_to_bind_anew(bench: Bench) -> None:
    """R2."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect(("127.0.0.1", 9))
        connection = bench.registry.register(sock, flow=bench.site.flow(protocol="udp"))
        bench.registry.lose(connection)
        assert connection.standing is Standing.LOST
        assert sock.getpeername() == ("127.0.0.1", 9)


async def test_a_connection_left_while_suspect_is_judged_afresh_the_next_time(bench: Bench) -> None:
    """R13."""
    stream = bench.stream()
    connection = bench.registry.register(stream)
    bench.site.network.add_route(bench.site.default, via=bench.site.gw1b, dev=C1, metric=100, replace=True)
    bench.touch()
    assert connection.standing is Standing.SUSPECT
    bench.registry.release(connection)
    assert bench.registry.register(stream).standing is Standing.GOOD


async def test_a_socket_that_its_owner_closed_is_not_heard_of_any_more(
    bench: Bench, pair: tuple[socket.socket, socket.socket]
) -> None:
    connection = bench.registry.register(pair[0], flow=bench.site.flow(), policy=Policy.immediate())
    pair[0].close()
    bench.site.network.delete_route(bench.site.default)
    bench.touch()
    assert connection.standing is Standing.GOOD
    assert bench.events == []


# ---- when nothing can be known -------------------------------------------------------------------------------


async def test_unmonitored_nothing_is_judged_and_standings_stay(bench: Bench) -> None:
    known = bench.registry.register(bench.stream())
    bench.site.network.delete_route(bench.site.default)
    bench.touch()
    bench.monitoring = False
    new = bench.registry.register(bench.stream())
    assert (known.standing, known.verdict) == (Standing.GOOD, Verdict.UNJUDGED)
    assert (new.standing, new.verdict) == (Standing.GOOD, Verdict.UNJUDGED)
    bench.monitoring = True
    assert (known.standing, known.verdict) == (Standing.SUSPECT, Verdict.NO_ROUTE)
    assert (new.standing, new.verdict) == (Standing.SUSPECT, Verdict.NO_ROUTE)


async def test_nobody_is_judged_on_half_a_table(bench: Bench) -> None:
    connection = bench.registry.register(bench.stream())
    bench.site.network.delete_route(bench.site.default)
    bench.site.network.resyncing = True
    bench.touch()
    assert (connection.standing, connection.verdict) == (Standing.GOOD, Verdict.UNCHANGED)
    bench.site.network.resyncing = False
    assert (connection.standing, connection.verdict) == (Standing.SUSPECT, Verdict.NO_ROUTE)


async def test_unjudged_connections_are_good_whatever_happens(
    bench: Bench, pair: tuple[socket.socket, socket.socket]
) -> None:
    connection = bench.registry.register(pair[0])
    bench.site.network.put_rule(99)
    bench.touch()
    assert (connection.standing, connection.verdict) == (Standing.GOOD, Verdict.UNJUDGED)
    assert bench.registry.statistics().unjudged == 1


async def test_the_end_of_the_pt_leaves_standings_and_warns_once_of_guards_alive(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    streams = [bench.stream() for _ in range(2)]
    connections = [bench.registry.register(stream) for stream in streams]
    scope = trio.CancelScope()
    for connection in connections:
        connection.attach(scope)
    with caplog.at_level(logging.WARNING):
        bench.registry.close()
        bench.registry.close()
    assert len(caplog.records) == 1
    assert "2 connections" in caplog.text
    assert [connection.standing for connection in connections] == [Standing.GOOD] * 2
    assert not scope.cancel_called
    for connection in connections:
        bench.registry.release(connection)


async def test_statistics_count(bench: Bench) -> None:
    streams = [bench.stream() for _ in range(3)]
    connections = [bench.registry.register(stream) for stream in streams]
    bench.site.network.delete_route(bench.site.default)
    bench.touch()
    assert bench.registry.statistics().waiting == 3
    assert connections[0].standing is Standing.SUSPECT
    bench.registry.lose(connections[1])
    statistics = bench.registry.statistics()
    assert (statistics.registered, statistics.suspect, statistics.waiting, statistics.lost) == (2, 1, 1, 1)
    assert statistics.suspected == 1


# ---- what a connection costs ---------------------------------------------------------------------------------


async def test_a_connection_costs_under_a_kilobyte_beside_its_stream(bench: Bench) -> None:
    flows = [attrs.evolve(bench.site.flow(), peer=ip_address("198.18.0.0") + n, peer_port=n) for n in range(2000)]
    streams = [Stream(flow) for flow in flows]
    kept: list[Connection] = [bench.registry.register(bench.stream())]
    gc.collect()
    tracemalloc.start()
    try:
        kept.extend(bench.registry.register(stream) for stream in streams)
        gc.collect()
        used, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # The flow itself is not in the sum: 0.3 KB for a socket's, two addresses included.
    assert used / len(streams) < 720


async def test_nothing_is_left_in_the_index_when_all_have_gone(bench: Bench) -> None:
    peers = [ip_address(f"198.51.100.{number}") for number in range(1, 9)]
    connections = [
        bench.registry.register(None, flow=attrs.evolve(bench.site.flow(), peer=peer, device=device))
        for peer in peers
        for device in (None, C1)
    ]
    index = bench.registry.court.index
    assert len(index) == len(list(index)) == 16
    bench.site.network.delete_route(bench.site.default)
    bench.touch()
    for connection in connections:
        assert connection.standing is Standing.SUSPECT
    bench.registry.lose(connections[0])
    for connection in connections:
        bench.registry.release(connection)
    shelves = (index._bundles, index._by_route, index._by_link, index._by_gateway, index._by_local)
    assert [len(shelf) for shelf in shelves] == [0] * 5
    assert len(index) == 0
