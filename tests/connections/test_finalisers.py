"""What the garbage collector frees, in the middle of anything and in any thread, disturbs nobody."""

from __future__ import annotations

import gc

import pytest
import trio

from trio_routes import GuardedStream
from trio_routes.connections import Connection, guard, guard_stream
from trio_routes.connections._registry import Registry

from ._world import PEER, World


class App:
    """An application's object that holds a stream and itself: only the cyclic collector frees it."""

    def __init__(self, stream: GuardedStream) -> None:
        self.stream = stream
        self.me = self


@pytest.fixture
def released(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Who was released, in order."""
    seen: list[object] = []
    release = Registry.release

    def spy(self: Registry, connection: Connection) -> None:
        seen.append(connection)
        release(self, connection)

    monkeypatch.setattr(Registry, "release", spy)
    return seen


async def test_a_stream_that_is_collected_is_given_back_at_the_next_call_and_not_before(
    world: World, released: list[object]
) -> None:
    gc.collect()
    stream = guard_stream(world.ground, world.stream(PEER)[0])
    connection = stream.connection
    App(stream)
    del stream
    await trio.to_thread.run_sync(gc.collect)  # as an automatic collection in any thread
    assert released == []
    assert list(world.registry) == []
    assert released == [connection]


async def test_a_guard_that_was_never_entered_is_given_back_the_same_way(world: World, released: list[object]) -> None:
    stream = guard_stream(world.ground, world.stream(PEER)[0])
    unused = guard(world.ground, stream)
    del unused
    gc.collect()
    assert released == []
    assert len(world.registry) == 1
    assert released == [stream.connection] and stream.connection.record.references == 1
    await stream.aclose()


async def test_a_change_of_the_tables_gives_back_first(world: World, released: list[object]) -> None:
    App(guard_stream(world.ground, world.stream(PEER)[0]))
    gc.collect()
    world.remove_default()
    assert len(released) == 1
    assert not any(type(event).__name__ == "ConnectionSuspect" for event in world.events)
