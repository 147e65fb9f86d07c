"""A dashboard: a snapshot first, then what changes, without a gap between, through a burst that it is too slow for."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
import trio

from tests.kernel._world import SOON, open_world
from tests.lab.waiting import until
from trio_routes import (
    ConnectionLost,
    ConnectionRecovered,
    ConnectionSuspect,
    Event,
    Lagged,
    Policy,
    Pt,
    Resynced,
    RouteAdded,
    RouteRemoved,
    RouteReplaced,
    Standing,
)
from trio_routes.testing import Lab

pytestmark = pytest.mark.netns


# ---- the program --------------------------------------------------------------------------------


class Dashboard:
    """What an operator sees: the routes, and how each connection stands."""

    def __init__(self, pt: Pt, buffer: int = 256) -> None:
        self.pt = pt
        self.buffer = buffer
        self.routes: set[str] = set()
        self.standings: dict[str, Standing] = {}
        self.snapshots = 0
        self.paused = False
        self._going_on = trio.Event()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        with self.pt.subscribe(buffer=self.buffer) as events:
            generation = self._take_snapshot()
            task_status.started()
            async for event in events:
                if self.paused:
                    await self._going_on.wait()
                if isinstance(event, Lagged | Resynced):
                    generation = self._take_snapshot()  # what was missed is in it
                elif event.generation > generation:
                    self._show(event)

    def go_on(self) -> None:
        self.paused = False
        self._going_on.set()

    def _take_snapshot(self) -> int:
        self.routes = {str(route) for route in self.pt.routes}
        self.standings = {connection.label: connection.standing for connection in self.pt.connections}
        self.snapshots += 1
        return self.pt.generation

    def _show(self, event: Event) -> None:
        match event:
            case RouteAdded():
                self.routes.add(str(event.route))
            case RouteReplaced():
                self.routes.discard(str(event.old))
                self.routes.add(str(event.route))
            case RouteRemoved():
                self.routes.discard(str(event.route))
            case ConnectionSuspect() | ConnectionRecovered() | ConnectionLost():
                self.standings[event.connection.label] = event.connection.standing
            case _:
                pass


# ---- its test -----------------------------------------------------------------------------------


async def test_a_dashboard_shows_what_the_tables_say_whatever_it_has_missed(lab: Lab, family: int) -> None:
    """R46, R47."""
    policy = Policy(no_route=0.5, ask_kernel=False)
    async with open_world(lab, family, policy) as world, trio.open_nursery() as nursery:
        pair = await world.connect()
        pair.near.connection.label = "database"
        dashboard = Dashboard(world.pt, buffer=20)
        await nursery.start(dashboard.run)

        def is_true() -> bool:
            return dashboard.routes == {str(route) for route in world.pt.routes}

        assert is_true() and dashboard.standings["database"] is Standing.GOOD
        world.device.delete_route("default", via=world.wifi)
        await until(lambda: dashboard.standings["database"] is Standing.SUSPECT)
        world.device.add_route("default", via=world.wifi, metric=100)
        await until(lambda: dashboard.standings["database"] is Standing.GOOD)
        world.device.delete_route("default", via=world.wifi)
        await until(lambda: dashboard.standings["database"] is Standing.LOST)
        assert is_true() and dashboard.snapshots == 1

        dashboard.paused = True  # a slow terminal
        first = ip_address("203.0.113.0" if family == 4 else "2001:db8:d::")
        for number in range(60):
            world.device.add_route(str(first + number), type="blackhole", table=77)
        await world.applied()
        assert not is_true()
        dashboard.go_on()
        await until(is_true, seconds=SOON)
        assert dashboard.snapshots == 2
        nursery.cancel_scope.cancel()
