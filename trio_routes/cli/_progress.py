"""Opening a pt and saying meanwhile how far the reading of the routing tables has come: a million take some seconds."""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

import trio

from .._engine import Engine
from .._pt import Pt
from .._services import Services
from ..connections import Policy
from ..netlink import Kernel, LinuxKernel
from ..portal import PortalConfig

# Seconds between two words; tables that take less are read without any.
PERIOD = 0.5


@asynccontextmanager
async def open_pt_with_progress(portal: PortalConfig | None = None) -> AsyncGenerator[Pt]:
    """Do as `open_pt` does, and say on standard error how many routes were read so far. A checkpoint."""
    kernel = LinuxKernel()
    try:
        async with opened(kernel, _say, portal) as pt:
            yield pt
    finally:
        kernel.close()


@asynccontextmanager
async def opened(kernel: Kernel, say: Callable[[int], None], portal: PortalConfig | None = None) -> AsyncGenerator[Pt]:
    """Open a pt on a kernel; `say` is told every `PERIOD` seconds how many routes were read so far. A checkpoint."""
    engine = Engine(kernel, Policy(), portal)
    try:
        async with Services() as services:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_tell, engine, say)
                await engine.start(services)
                nursery.cancel_scope.cancel()
            yield Pt(engine)
    finally:
        engine.close()


async def _tell(engine: Engine, say: Callable[[int], None]) -> None:
    while True:
        await trio.sleep(PERIOD)
        say(engine.routes_read)


def _say(routes: int) -> None:
    # Not on standard output, where the events are, for programs too.
    print(f"reading the routing tables: {routes} routes so far", file=sys.stderr, flush=True)
