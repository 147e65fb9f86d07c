"""A command that waits for the network: started at boot, it prints, waits for a way, does its work, and ends."""

from __future__ import annotations

import subprocess
import sys

import pytest
import trio

from tests.kernel._world import SOON
from trio_routes.testing import Lab

pytestmark = pytest.mark.netns

# What a user would have in a file: the whole program.
PROGRAM = """
import sys
import trio
import trio_routes

async def main(host, port):
    async with trio_routes.open_pt() as pt:
        with trio.move_on_after(0.1):
            await pt.wait_routable(host)
            print("at once", flush=True)
        print("waiting", flush=True)
        with trio.fail_after(30):
            way = await pt.wait_routable(host)
        print(f"by {pt.routes.links[way.hops[0].ifindex].name}", flush=True)
        stream = await pt.open_tcp_stream(host, port)
        async with stream:
            await stream.send_all(b"registered")
            await stream.send_eof()
            await stream.receive_some()
    print("done", flush=True)

trio.run(main, sys.argv[1], int(sys.argv[2]))
"""


async def test_a_command_waits_for_the_network_and_then_does_its_work(lab: Lab, family: int) -> None:
    net = lab.two_uplinks()
    address = net.server_addresses[family]
    net.device.delete_route("default", via=net.wifi_gateways[family])
    net.wwan0.carrier(False)
    (listener,) = net.server.listen(0, address)
    port: int = listener.socket.getsockname()[1]
    command = net.device.start([sys.executable, "-c", PROGRAM, address, str(port)], stdout=subprocess.PIPE)
    assert command.stdout is not None
    output = b""

    async def until_printed(line: bytes) -> None:
        nonlocal output
        assert command.stdout is not None
        with trio.fail_after(4 * SOON):  # Python has to start
            while line not in output:
                data = await command.stdout.receive_some()
                assert data, output
                output += data

    await until_printed(b"waiting\n")
    assert b"at once" not in output
    net.device.add_route("198.51.0.0/16" if family == 4 else "2001:db8:ffff::/48", via=net.lte_gateways[family])
    net.device.add_route("default", via=net.lte_gateways[family], metric=600)  # a route, and no carrier
    with trio.move_on_after(0.3) as silent:
        await until_printed(b"by ")
    assert silent.cancelled_caught, output
    net.wwan0.carrier(True)
    await until_printed(b"by wwan0\n")
    async with listener, await listener.accept() as stream:
        data = b"".join([bytes(part) async for part in stream])
        assert data == b"registered"
    await until_printed(b"done\n")
    with trio.fail_after(SOON):
        assert await command.wait() == 0
