"""A process that was stopped past its deadlines: what the kernel said meanwhile is heard before anybody is ended (R10)."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest
import trio

from trio_routes.testing import Lab

pytestmark = pytest.mark.netns

BOUND = 20

PROGRAM = """
import sys, trio, trio_routes

async def main(netns, host, port):
    async with trio_routes.open_pt(netns=int(netns)) as pt, await pt.open_tcp_stream(host, port):
        kinds = trio_routes.ConnectionSuspect, trio_routes.ConnectionRecovered, trio_routes.ConnectionLost
        with pt.subscribe(*kinds) as events:
            print("ready", flush=True)
            async for event in events:
                print(type(event).__name__, flush=True)

trio.run(main, *sys.argv[1:3], int(sys.argv[3]))
"""


class Program:
    """The program, read line by line, and stopped and continued."""

    def __init__(self, process: trio.Process) -> None:
        self.process = process
        self._rest = b""

    async def line(self) -> str:
        stdout = self.process.stdout
        assert stdout is not None
        with trio.fail_after(BOUND):
            while b"\n" not in self._rest:
                data = await stdout.receive_some()
                assert data, "it ended"
                self._rest += data
        line, self._rest = self._rest.split(b"\n", 1)
        return line.decode()

    def stop(self) -> None:
        os.kill(self.process.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, self.process.pid, os.WSTOPPED | os.WNOWAIT)

    def go_on(self) -> None:
        os.kill(self.process.pid, signal.SIGCONT)


@pytest.mark.slow  # it is stopped for longer than the default policy's second, twice
async def test_stopped_past_the_deadline_what_was_said_meanwhile_counts(lab: Lab, family: int) -> None:
    net = lab.two_uplinks(nat=False, lte_metric=None)
    (listener,) = net.server.listen(0, net.server_addresses[family])
    port: int = listener.socket.getsockname()[1]
    argv = [sys.executable, "-c", PROGRAM, str(net.device.netns), net.server_addresses[family], str(port)]
    process = await trio.lowlevel.open_process(argv, stdout=subprocess.PIPE, pass_fds=(net.device.netns,))
    program = Program(process)
    try:
        async with listener:
            server = await listener.accept()
            assert await program.line() == "ready"
            for returns, told in ((True, "ConnectionRecovered"), (False, "ConnectionLost")):
                net.device.delete_route("default", via=net.wifi_gateways[family])
                assert await program.line() == "ConnectionSuspect"
                program.stop()
                await trio.sleep(1.5)  # its deadline passes
                if returns:
                    net.device.add_route("default", via=net.wifi_gateways[family])
                program.go_on()
                assert await program.line() == told
            await server.aclose()
    finally:
        process.kill()
        with trio.move_on_after(5, shield=True):
            await process.wait()
