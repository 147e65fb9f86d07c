"""A client over UDP, as QUIC or a game has it: after a loss it binds anew and keeps its protocol's state."""

from __future__ import annotations

import socket

import pytest
import trio

from tests.kernel._world import SOON, open_world
from tests.lab.waiting import until
from trio_routes import Policy, Pt, RouteLostError
from trio_routes.testing import Host, Lab

pytestmark = pytest.mark.netns


# ---- the program --------------------------------------------------------------------------------


class Session:
    """What a session knows: its token outlives every socket."""

    token = b"token"

    def __init__(self) -> None:
        self.acknowledged = 0
        self.own_addresses: list[str] = []


async def run(pt: Pt, host: Host, session: Session, server: tuple[str, int], count: int) -> None:
    """Send numbered datagrams until so many were acknowledged, by whatever way there is."""
    family = socket.AF_INET6 if ":" in server[0] else socket.AF_INET
    while session.acknowledged < count:
        await pt.wait_routable(server[0])
        with host.socket(family, socket.SOCK_DGRAM) as sock:
            try:
                await sock.connect(server)
                session.own_addresses.append(sock.getsockname()[0])
                with pt.guard(sock, policy=Policy.immediate()):
                    await pump(sock, session, count)
            except RouteLostError:
                pass  # bind anew: the server knows us by our token


async def pump(sock: trio.socket.SocketType, session: Session, count: int) -> None:
    while session.acknowledged < count:
        await sock.send(b"%b %d" % (session.token, session.acknowledged + 1))
        with trio.move_on_after(0.2):  # datagrams get lost
            session.acknowledged = max(session.acknowledged, int(await sock.recv(100)))
            await trio.sleep(0.01)


# ---- its test -----------------------------------------------------------------------------------


async def test_a_udp_client_binds_anew_by_the_other_uplink_and_keeps_its_session(lab: Lab, family: int) -> None:
    async with open_world(lab, family, lte_metric=600) as world, trio.open_nursery() as nursery:
        await world.add_healthy()
        seen: dict[bytes, list[str]] = {}
        answered = 5  # beyond that the server is silent, so that the loss comes in the middle
        session = Session()
        inet = {4: socket.AF_INET, 6: socket.AF_INET6}[family]
        with world.net.server.socket(inet, socket.SOCK_DGRAM) as server:
            await server.bind((world.server, 4433))

            async def serve() -> None:
                while True:
                    data, peer = await server.recvfrom(100)
                    token, number = data.split()
                    seen.setdefault(token, []).append(peer[0])
                    if int(number) <= answered:
                        await server.sendto(number, peer)

            nursery.start_soon(serve)
            nursery.start_soon(run, world.pt, world.device, session, (world.server, 4433), 10)
            await until(lambda: session.acknowledged == 5)
            world.net.wlan0.down()
            answered = 10
            await until(lambda: session.acknowledged == 10, seconds=SOON)
            nursery.cancel_scope.cancel()
        addresses = world.net.wlan0_addresses[family], world.net.wwan0_addresses[family]
        assert session.own_addresses == list(addresses)
        assert list(seen) == [b"token"]  # one session
        assert len(set(seen[b"token"])) == 2  # from two routers' addresses
        await world.the_healthy_live(lost=1)
