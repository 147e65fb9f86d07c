"""The two worlds of these tests, with their reassessment under way: of streams and servers, and of the judge."""

from __future__ import annotations

import pytest
import trio

from tests.connections._watch import Watch
from tests.connections._world import World


@pytest.fixture
async def world(nursery: trio.Nursery) -> World:
    """Tables to write, and a registry that judges by them."""
    world = World()
    await nursery.start(world.reassessor.run)
    return world


@pytest.fixture
async def watch(family: int, nursery: trio.Nursery) -> Watch:
    """A registry on a network by hand."""
    # pytest-trio takes the clock from the test's own arguments only: each test has to ask for it.
    watch = Watch(family)
    await nursery.start(watch.reassessor.run)
    return watch
