"""The demo's scene: a device with two uplinks, what it talks to, and a witness of the kernel's messages.

                  wlan0 ── Wi-Fi ── router (NAT) ──┐
        [device]                                   ├── 198.51.100.7 [server]: echo, and a page for HTTP probes
                  wwan0 ── LTE ──── router (NAT) ──┘
                  eth0  ── wired ── 192.168.7.9 [neighbour]: echo

Each router translates addresses. Without that, or a source check, a connection would survive its
path's moving to the other uplink, and the demo would prove nothing.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Literal

import attrs
import trio

from ..testing import Host, Lab, TwoUplinks

ECHO_PORT = 7
HTTP_PORT = 80
LOOPBACK = {4: "127.0.0.1", 6: "::1"}
# Asked by the portal probe; lives behind the Wi-Fi, and on LTE at the router itself, which intercepts it.
PROBED = {4: "203.0.113.80", 6: "2001:db8:80::80"}
LOGIN = "http://login.lte.example/"
_LTE_METRIC = 600
_WITNESS = str(Path(__file__).with_name("_demo_witness.py"))

_NO_CONTENT = b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n"
_TO_LOGIN = f"HTTP/1.1 302 Found\r\nLocation: {LOGIN}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode()


class Witness:
    """What a process of its own says of the kernel's messages (`_demo_witness.py`)."""

    def __init__(self) -> None:
        self._times: list[float] = []
        self._news = trio.Event()

    async def run(self, device: Host, *, task_status: trio.TaskStatus[None]) -> None:
        """Listen to it until cancelled; started once it watches."""
        process = device.start([sys.executable, "-I", "-S", _WITNESS], stdout=subprocess.PIPE)
        assert process.stdout is not None
        rest = b""
        async for data in process.stdout:
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                if line == b"ready":
                    task_status.started()
                else:
                    self._times.append(int(line) / 1e9)
            self._news.set()
            self._news = trio.Event()

    async def first_since(self, moment: float) -> float:
        """When the first message after `moment` came, by `time.perf_counter()`. A checkpoint."""
        while True:
            later = [when for when in self._times if when >= moment]
            if later:
                await trio.lowlevel.checkpoint()
                return later[0]
            await self._news.wait()


@attrs.frozen
class Scene:
    """The lab of one act.

    Attributes:
      net: The hosts, links and addresses.
      family: 4 or 6: what the act is played with.
      witness: Takes the times.
    """

    net: TwoUplinks
    family: Literal[4, 6]
    witness: Witness

    @property
    def device(self) -> Host:
        """The host whose connections the demo is about."""
        return self.net.device

    @property
    def server(self) -> str:
        """The server's address."""
        return self.net.server_addresses[self.family]

    def delete_wifi_route(self) -> None:
        """Delete the default route by the Wi-Fi."""
        self.device.delete_route("default", via=self.net.wifi_gateways[self.family])

    def add_wifi_route(self) -> None:
        """Add it again."""
        self.device.add_route("default", via=self.net.wifi_gateways[self.family], metric=100)

    @property
    def wifi_address(self) -> str:
        """The device's address on the Wi-Fi, with its prefix length."""
        return f"{self.net.wlan0_addresses[self.family]}/{24 if self.family == 4 else 64}"

    def prefer_lte(self) -> None:
        """Let a better default route by LTE appear beside the one by the Wi-Fi."""
        self.device.add_route("default", via=self.net.lte_gateways[self.family], metric=50)


@asynccontextmanager
async def open_scene(family: Literal[4, 6]) -> AsyncGenerator[Scene]:
    """Build the lab, with its servers running."""
    async with Lab() as lab, trio.open_nursery() as nursery:
        net = lab.two_uplinks(nat=True, lte_metric=_LTE_METRIC)
        length = {4: 32, 6: 128}[family]
        probed = f"{PROBED[family]}/{length}"
        # The probed address is the server's; on LTE the router takes it for its own, as a captive portal does.
        net.server.add_route(probed, type="local", device="lo", table=255)
        net.wifi_router.add_route(probed, via=net.server_addresses[family])
        net.lte_router.add_route(probed, type="local", device="lo", table=255)
        for host in (net.server, net.neighbour):
            nursery.start_soon(trio.serve_listeners, _echo, host.listen(ECHO_PORT))
        nursery.start_soon(trio.serve_listeners, _echo, net.device.listen(ECHO_PORT, LOOPBACK[family]))
        nursery.start_soon(trio.serve_listeners, _answering(_NO_CONTENT), net.server.listen(HTTP_PORT))
        nursery.start_soon(trio.serve_listeners, _answering(_TO_LOGIN), net.lte_router.listen(HTTP_PORT))
        witness = Witness()
        await nursery.start(witness.run, net.device)
        yield Scene(net, family, witness)
        nursery.cancel_scope.cancel()


async def _echo(stream: trio.SocketStream) -> None:
    try:
        async for data in stream:
            await stream.send_all(data)
    except trio.BrokenResourceError:
        pass  # the client was ended for its route; its kernel told us by a reset


def _answering(answer: bytes) -> Callable[[trio.SocketStream], Awaitable[None]]:
    """Make a handler that gives every request the same answer."""

    async def handle(stream: trio.SocketStream) -> None:
        try:
            await stream.receive_some()
            await stream.send_all(answer)
        except trio.BrokenResourceError:
            pass

    return handle
