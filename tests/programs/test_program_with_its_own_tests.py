"""An application and its own test-suite, as its authors would write both: with FakeKernel, and in the lab.

The application reports a sensor's readings to a collector: each is sent until it was acknowledged; what is read while
there is no way is kept.
"""

from __future__ import annotations

from collections import deque
from functools import partial

import pytest
import trio
import trio.testing

import trio_routes
from tests.lab.waiting import until
from trio_routes import testing

# ---- the application ----------------------------------------------------------------------------


class Reporter:
    """Delivers readings to a collector, in order, each at least once."""

    def __init__(self, pt: trio_routes.Pt, host: str, port: int) -> None:
        self.pt = pt
        self.host = host
        self.port = port
        self.waiting: deque[int] = deque()
        self.losses: list[trio_routes.Verdict] = []
        self._news = trio.Event()

    def report(self, reading: int) -> None:
        self.waiting.append(reading)
        self._news.set()

    async def run(self) -> None:
        await self.pt.keep_connected(self._deliver, self.host, self.port, label="collector")

    async def _deliver(self, stream: trio_routes.GuardedStream) -> None:
        try:
            while True:
                while self.waiting:
                    await stream.send_all(self.waiting[0].to_bytes())
                    if await stream.receive_some(1) != b"+":
                        raise ConnectionAbortedError("the collector speaks something else")
                    self.waiting.popleft()
                self._news = trio.Event()
                # A sensor may be silent for hours: the guard tells of a loss in the meantime.
                with self.pt.guard(stream):
                    await self._news.wait()
        except trio_routes.RouteLostError as error:
            self.losses.append(error.verdict)
            raise


# ---- its tests with FakeKernel: no rights, no wall time -------------------------------------------


class Collector:
    """The other side, in memory or on a socket."""

    def __init__(self) -> None:
        self.collected: list[int] = []
        self.silent = False
        self.connections = 0

    async def serve(self, stream: trio.abc.Stream) -> None:
        self.connections += 1
        try:
            async for data in stream:
                if self.silent:
                    continue
                self.collected += data
                await stream.send_all(b"+" * len(data))
        except trio.BrokenResourceError:
            pass


def a_network(kernel: testing.FakeKernel, collector: Collector) -> testing.FakeLink:
    wlan0 = kernel.add_link("wlan0")
    wlan0.add_address("192.0.2.2/24")
    kernel.add_route("default", via="192.0.2.1")
    kernel.listen("198.51.100.7", 9000, collector.serve, name="collector.example")
    return wlan0


async def test_a_reading_that_was_not_acknowledged_is_sent_again_after_the_route_is_back(
    autojump_clock: trio.testing.MockClock,
) -> None:
    collector = Collector()
    async with testing.FakeKernel() as kernel:
        a_network(kernel, collector)
        async with trio_routes.open_pt(kernel=kernel) as pt, trio.open_nursery() as nursery:
            reporter = Reporter(pt, "collector.example", 9000)
            nursery.start_soon(reporter.run)
            reporter.report(1)
            await kernel.settle()
            assert collector.collected == [1]
            collector.silent = True
            reporter.report(2)
            await kernel.settle()
            kernel.delete_route("default", via="192.0.2.1")
            await trio.sleep(3600)
            assert reporter.losses == [trio_routes.Verdict.NO_ROUTE]
            assert list(reporter.waiting) == [2] and collector.connections == 1
            collector.silent = False
            began = trio.current_time()
            kernel.add_route("default", via="192.0.2.1")
            await trio.sleep(1)
            assert collector.collected == [1, 2]
            assert collector.connections == 2
            assert trio.current_time() - began == pytest.approx(1)  # an hour passed in no time, and this too
            nursery.cancel_scope.cancel()


async def test_a_flap_of_the_route_loses_nothing(autojump_clock: trio.testing.MockClock) -> None:
    collector = Collector()
    async with testing.FakeKernel() as kernel:
        a_network(kernel, collector)
        async with trio_routes.open_pt(kernel=kernel) as pt, trio.open_nursery() as nursery:
            reporter = Reporter(pt, "collector.example", 9000)
            nursery.start_soon(reporter.run)
            await kernel.settle()
            kernel.delete_route("default", via="192.0.2.1")
            await kernel.settle()
            (connection,) = pt.connections
            assert connection.standing is trio_routes.Standing.SUSPECT
            kernel.add_route("default", via="192.0.2.1")
            await trio.sleep(60)
            reporter.report(1)
            await kernel.settle()
            assert collector.collected == [1] and collector.connections == 1 and reporter.losses == []
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize("verdict", [trio_routes.Verdict.SOURCE_GONE, trio_routes.Verdict.CARRIER_LOST])
async def test_any_loss_is_survived(autojump_clock: trio.testing.MockClock, verdict: trio_routes.Verdict) -> None:
    """One line plays a loss that would take a scene to bring about."""
    collector = Collector()
    async with testing.FakeKernel() as kernel:
        a_network(kernel, collector)
        async with trio_routes.open_pt(kernel=kernel) as pt, trio.open_nursery() as nursery:
            reporter = Reporter(pt, "collector.example", 9000)
            nursery.start_soon(reporter.run)
            await kernel.settle()
            (connection,) = pt.connections
            testing.lose(connection, verdict=verdict)
            reporter.report(7)
            await trio.sleep(1)
            assert collector.collected == [7]
            assert reporter.losses == [verdict] and collector.connections == 2
            nursery.cancel_scope.cancel()


async def test_a_collector_that_speaks_something_else_is_no_matter_of_the_network(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def rude(stream: trio.abc.Stream) -> None:
        await stream.receive_some()
        await stream.send_all(b"?")

    async with testing.FakeKernel() as kernel:
        a_network(kernel, Collector())
        kernel.listen("198.51.100.8", 9000, rude)
        async with trio_routes.open_pt(kernel=kernel) as pt:
            reporter = Reporter(pt, "198.51.100.8", 9000)
            reporter.report(1)
            with pytest.raises(ConnectionAbortedError):
                await reporter.run()


# ---- its test in the lab: the real kernel, a real second uplink -------------------------------------


@pytest.mark.netns
async def test_the_reporter_moves_to_the_other_uplink(lab: testing.Lab) -> None:
    net = lab.two_uplinks(lte_metric=600)
    collector = Collector()
    policy = trio_routes.Policy.immediate()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(trio.serve_listeners, collector.serve, net.server.listen(9000)))
        async with trio_routes.open_pt(netns=net.device.netns, policy=policy) as pt:
            reporter = Reporter(pt, net.server_addresses[4], 9000)
            with pt.subscribe(trio_routes.ConnectionLost) as losses, trio.CancelScope() as running:
                async with trio.open_nursery() as tasks:
                    tasks.start_soon(reporter.run)
                    reporter.report(1)
                    await until(lambda: not reporter.waiting)
                    net.wlan0.down()
                    with trio.fail_after(5):
                        await losses.receive()
                    reporter.report(2)
                    await until(lambda: not reporter.waiting)
                    running.cancel()
        nursery.cancel_scope.cancel()
    assert collector.collected == [1, 2] and collector.connections == 2
