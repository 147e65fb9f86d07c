"""The detector over real sockets: a device, a portal that lets it in after a login, and routes that go."""

from __future__ import annotations

import socket
import struct
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, closing
from functools import partial
from ipaddress import ip_address

import pytest
import trio
from dns import flags, message, rrset

from tests.portal._network import any_way
from trio_routes._events import Event, PortalChanged
from trio_routes.netlink._linux import LinuxKernel
from trio_routes.portal import Endpoint, Finding, PortalConfig, PortalKind, PortalState, Way
from trio_routes.portal._detector import Detector
from trio_routes.portal._probe import probe
from trio_routes.portal._way import TlsContext
from trio_routes.testing import Host, Lab

pytestmark = pytest.mark.netns

DEVICE = {4: "192.0.2.2", 6: "2001:db8::2"}
GATEWAY = {4: "192.0.2.1", 6: "2001:db8::1"}
LENGTH = {4: 24, 6: 64}
# Behind the gateway, which answers for it as portals do.
CHECKED = {4: "198.51.100.7", 6: "2001:db8:f::7"}


class Portal:
    """Redirects everybody until `open`, then answers 204; `resets` counts down answers that end in a reset."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.open = False
        self.resets = 0
        self.served = 0

    async def serve(self, stream: trio.SocketStream) -> None:
        self.served += 1
        await stream.receive_some()
        if self.resets:
            self.resets -= 1
            stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        elif self.open:
            await stream.send_all(b"HTTP/1.1 204 No Content\r\n\r\n")
        else:
            await stream.send_all(b"HTTP/1.1 302 Found\r\nLocation: /login\r\nContent-Length: 0\r\n\r\n")


@asynccontextmanager
async def captive(lab: Lab, family: int) -> AsyncGenerator[tuple[Host, LinuxKernel, Portal, Endpoint], None]:
    """Yield a device whose default route leads to a portal, its kernel, the portal, and an endpoint behind it."""
    device, gateway, wifi = lab.host("device"), lab.host("gateway"), lab.network("wifi")
    device.plug(wifi, name="wlan0", addresses=[f"{DEVICE[family]}/{LENGTH[family]}"])
    gateway.plug(wifi, name="lan0", addresses=[f"{GATEWAY[family]}/{LENGTH[family]}"])
    gateway.plug(lab.network("core"), name="core0", addresses=[f"{CHECKED[family]}/{LENGTH[family]}"])
    device.add_route("default", via=GATEWAY[family])
    portal = Portal(gateway)
    async with trio.open_nursery() as nursery:
        await nursery.start(partial(trio.serve_listeners, portal.serve, gateway.listen(80)))
        host = f"[{CHECKED[family]}]" if family == 6 else CHECKED[family]
        with closing(LinuxKernel(device.netns)) as kernel:
            yield device, kernel, portal, Endpoint(f"http://{host}/generate_204")
        nursery.cancel_scope.cancel()


async def test_a_portal_is_found_a_login_is_noticed_and_a_lost_route_too(lab: Lab, family: int) -> None:
    send, events = trio.open_memory_channel[PortalState](10)

    def publish(event: Event) -> None:
        assert isinstance(event, PortalChanged)
        send.send_nowait(event.state)

    async with captive(lab, family) as (device, kernel, portal, endpoint), trio.open_nursery() as nursery:
        detector = Detector(kernel, PortalConfig(endpoints=(endpoint,)), publish, lambda: 1)
        nursery.start_soon(detector.run)
        with trio.fail_after(10):
            state = await events.receive()
            assert (state.kind, state.url) == (PortalKind.PORTAL, endpoint.url.replace("generate_204", "login"))

            portal.open = True
            await detector.wait_online()
            assert (await events.receive()).kind is PortalKind.ONLINE

            device.delete_route("default", via=GATEWAY[family])
            detector.trigger("default route gone")
            state = await events.receive()
            assert (state.kind, state.evidence[0].finding) == (PortalKind.OFFLINE, Finding.NO_ROUTE)

            device.add_route("default", via=GATEWAY[family])
            detector.trigger("default route added")
            assert (await events.receive()).kind is PortalKind.ONLINE
        asked = portal.served
        nursery.cancel_scope.cancel()
    assert asked in {3, 4}  # at the start, one recheck or two until the login was noticed, behind the new route


async def test_what_the_kernel_says_of_dead_ends_is_understood(lab: Lab, family: int) -> None:
    async with captive(lab, family) as (device, kernel, portal, endpoint):

        async def found(endpoint: Endpoint = endpoint) -> Finding:
            with trio.fail_after(5):
                return (await probe(any_way(kernel), endpoint)).finding

        assert await found(Endpoint(endpoint.url.replace("/generate", ":81/generate"))) is Finding.REFUSED
        portal.resets = 1
        assert await found() is Finding.CLOSED
        assert await found() is Finding.REDIRECT
        for type_ in ("unreachable", "prohibit", "blackhole"):
            device.add_route(CHECKED[family], type=type_)
            assert await found() is Finding.NO_ROUTE, type_
            device.delete_route(CHECKED[family], type=type_)


def bound_way(kernel: LinuxKernel, device: str, ifindex: int, family: int, *resolvers: str) -> Way:
    return Way(
        network=kernel,
        tls=TlsContext(None).get,
        device=device,
        ifindex=ifindex,
        family=family,
        resolvers=tuple(map(ip_address, resolvers)),
    )


async def test_a_link_that_cannot_be_bound_to_is_not_asked_and_that_is_the_evidence(lab: Lab, family: int) -> None:
    async with captive(lab, family) as (_device, kernel, portal, endpoint):
        way = bound_way(kernel, "gone0", 99, family, GATEWAY[family])
        for asked in (endpoint, Endpoint("http://check.example/")):
            with trio.fail_after(5):
                evidence = await probe(way, asked)
            assert evidence.finding is Finding.CANNOT_BIND
            assert "gone0" in evidence.detail
        assert portal.served == 0


async def test_a_link_local_resolver_is_asked_by_its_link_and_over_tcp_where_the_answer_is_long(
    lab: Lab, nursery: trio.Nursery
) -> None:
    asked: list[str] = []

    def answer(query: bytes, *, truncated: bool) -> bytes:
        asked.append("UDP" if truncated else "TCP")
        reply = message.make_response(message.from_wire(query))
        if truncated:
            reply.flags |= flags.TC
        else:
            reply.answer.append(rrset.from_text(reply.question[0].name, 60, "IN", "AAAA", CHECKED[6]))
        return reply.to_wire()

    async def datagrams(sock: trio.socket.SocketType) -> None:
        while True:
            query, sender = await sock.recvfrom(4096)
            await sock.sendto(answer(query, truncated=True), sender)

    async def streams(stream: trio.SocketStream) -> None:
        query = bytearray()
        while len(query) < 2 or len(query) < 2 + int.from_bytes(query[:2], "big"):
            query += await stream.receive_some()
        reply = answer(bytes(query[2:]), truncated=False)
        await stream.send_all(len(reply).to_bytes(2, "big") + reply)

    async with captive(lab, 6) as (device, kernel, portal, _endpoint):
        gateway = portal.host
        lan0 = gateway.links["lan0"]
        lan0.add_address("fe80::1/64")
        with gateway.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
            await sock.bind(("fe80::1", 53, 0, lan0.ifindex))
            nursery.start_soon(datagrams, sock)
            nursery.start_soon(trio.serve_listeners, streams, gateway.listen(53, "::"))
            way = bound_way(kernel, "wlan0", device.links["wlan0"].ifindex, 6, "fe80::1")
            with trio.fail_after(5):
                found = await way.resolve("check.example")
            assert (found.addresses, found.resolver) == ((ip_address(CHECKED[6]),), ip_address("fe80::1"))
            assert asked == ["UDP", "TCP"]
            nursery.cancel_scope.cancel()
