"""Connections in memory: streams like any, and the one thing that makes them worth having: they can be lost."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from ipaddress import ip_address

import pytest
import trio
from trio.testing import check_half_closeable_stream, wait_all_tasks_blocked

from trio_routes import Flow
from trio_routes.testing import FakeStream
from trio_routes.testing._fake_stream import BUFFER, fake_connection

HERE, THERE = ip_address("192.0.2.2"), ip_address("198.51.100.7")


def connection() -> tuple[FakeStream, FakeStream]:
    return fake_connection(
        Flow(peer=THERE, peer_port=5432, local=HERE, local_port=40000),
        Flow(peer=HERE, peer_port=40000, local=THERE, local_port=5432),
    )


async def _pair() -> tuple[FakeStream, FakeStream]:
    await trio.lowlevel.checkpoint()
    return connection()


async def _clogged_pair() -> tuple[FakeStream, FakeStream]:
    client, server = connection()
    await client.send_all(bytes(BUFFER))
    await server.send_all(bytes(BUFFER))
    return client, server


async def test_it_is_a_stream_as_trio_understands_streams() -> None:
    await check_half_closeable_stream(_pair, _clogged_pair)


PENDING: dict[str, Callable[[FakeStream], Awaitable[object]]] = {
    "receive_some": lambda stream: stream.receive_some(),
    "send_all": lambda stream: stream.send_all(bytes(3 * BUFFER)),
    "wait_send_all_might_not_block": lambda stream: stream.wait_send_all_might_not_block(),
}


@pytest.mark.parametrize("call", PENDING.values(), ids=PENDING)
@pytest.mark.parametrize("end", ["own", "other"])
async def test_abort_wakes_pending_calls_and_fails_later_ones_at_both_ends(
    call: Callable[[FakeStream], Awaitable[object]], end: str
) -> None:
    client, server = connection()
    await client.send_all(bytes(BUFFER))
    async with trio.open_nursery() as nursery:

        async def pending() -> None:
            with pytest.raises(trio.BrokenResourceError):
                await call(client)

        nursery.start_soon(pending)
        await wait_all_tasks_blocked()
        assert nursery.child_tasks
        (client if end == "own" else server).abort()
    for stream in (client, server):
        for later in PENDING.values():
            with pytest.raises(trio.BrokenResourceError):
                await later(stream)
        with pytest.raises(trio.BrokenResourceError):
            await stream.send_eof()
        await stream.aclose()
        with pytest.raises(trio.ClosedResourceError):
            await stream.receive_some()


async def test_abort_drops_what_was_not_yet_received() -> None:
    client, server = connection()
    await client.send_all(b"half a message")
    client.abort()
    with pytest.raises(trio.BrokenResourceError):
        await server.receive_some()


async def test_a_close_delivers_what_was_sent_and_then_the_end() -> None:
    client, server = connection()
    await client.send_all(b"goodbye")
    await client.aclose()
    client.abort()  # too late: it is closed
    assert await server.receive_some(4) == b"good"
    assert await server.receive_some() == b"bye"
    assert await server.receive_some() == b""
    with pytest.raises(trio.BrokenResourceError):
        await server.send_all(b"hello?")


async def test_a_stream_says_where_it_leads() -> None:
    client, _ = connection()
    assert "198.51.100.7" in repr(client)
