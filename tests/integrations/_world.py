"""A device on a fake kernel, with one uplink and hosts out there."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import attrs

from trio_routes import Policy, Pt, open_pt
from trio_routes.testing import FakeKernel, FakeLink

SERVER = "198.51.100.7"


@attrs.frozen
class World:
    """The device.

    Attributes:
      kernel: Its kernel; `lose_route` and `restore_route` change the default route.
      wlan0: Its link.
      pt: Its pt; the policy waits a second where no route is left.
    """

    kernel: FakeKernel
    wlan0: FakeLink
    pt: Pt

    async def lose_route(self) -> None:
        """Take the default route away; connections are SUSPECT when this returns."""
        self.kernel.delete_route("default", via="192.0.2.1")
        await self.kernel.settle()

    async def lose_route_soon(self) -> None:
        """Take it away once all tasks wait; to be started beside what is to be hit."""
        await self.kernel.settle()
        await self.lose_route()

    async def restore_route(self) -> None:
        """Give it back; what was SUSPECT is GOOD when this returns."""
        self.kernel.add_route("default", via="192.0.2.1")
        await self.kernel.settle()


@asynccontextmanager
async def open_world(policy: Policy | None = None) -> AsyncGenerator[World, None]:
    """Set it up, for the length of a block."""
    async with FakeKernel() as kernel:
        wlan0 = kernel.add_link("wlan0")
        wlan0.add_address("192.0.2.2/24")
        kernel.add_route("default", via="192.0.2.1")
        async with open_pt(kernel=kernel, policy=policy or Policy()) as pt:
            yield World(kernel, wlan0, pt)
