"""`FakeKernel.probe_answer`: what the peers of a program under test do when a kernel would ask them."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from trio_routes import RouteLostError, Standing, open_pt
from trio_routes.testing import FakeKernel, FakeStream


async def serve(stream: FakeStream) -> None:
    async for data in stream:
        await stream.send_all(data)


async def test_the_peers_answer_decides_about_a_connection_whose_path_moved(autojump_clock: MockClock) -> None:
    async with FakeKernel() as kernel:
        kernel.add_link("wlan0").add_address("192.0.2.2/24")
        kernel.add_route("default", via="192.0.2.1")
        kernel.listen("198.51.100.7", 7, serve)
        async with open_pt(kernel=kernel) as pt:
            stream = await pt.open_tcp_stream("198.51.100.7", 7)
            kernel.probe_answer = "ack"
            kernel.replace_route("default", via="192.0.2.3")
            await kernel.settle()
            assert stream.connection.standing is Standing.SUSPECT
            await trio.sleep(2)
            assert stream.connection.standing.value == "good"
            await stream.send_all(b"alive")
            assert await stream.receive_some() == b"alive"

            kernel.probe_answer = "reset"
            kernel.replace_route("default", via="192.0.2.4")
            began = trio.current_time()
            with pytest.raises(RouteLostError, match="reset within"):
                await stream.receive_some()
            assert trio.current_time() - began < 1.5
            await stream.aclose()


async def test_by_default_the_peer_is_silent(autojump_clock: MockClock) -> None:
    async with FakeKernel() as kernel:
        kernel.add_link("wlan0").add_address("192.0.2.2/24")
        kernel.add_route("default", via="192.0.2.1")
        kernel.listen("198.51.100.7", 7, serve)
        async with open_pt(kernel=kernel) as pt, await pt.open_tcp_stream("198.51.100.7", 7) as stream:
            kernel.replace_route("default", via="192.0.2.3")
            began = trio.current_time()
            with pytest.raises(RouteLostError, match="no answer when it was asked"):
                await stream.receive_some()
            assert trio.current_time() - began == pytest.approx(4.0, abs=0.2)
