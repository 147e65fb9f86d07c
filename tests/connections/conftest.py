"""The world of the streams', guards' and servers' tests, with its reassessment under way."""

from __future__ import annotations

import pytest
import trio

from tests.connections._world import World


@pytest.fixture
async def world(nursery: trio.Nursery) -> World:
    """Tables to write, and a registry that judges by them."""
    world = World()
    await nursery.start(world.reassessor.run)
    return world
