"""Several pts in a process, in namespaces of their own, and who may speak to them."""

from __future__ import annotations

import math
import os
import socket
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import pytest
import trio

from tests.kernel._world import PUBLIC, SOON, World, next_of, open_world
from tests.lab.waiting import until
from trio_routes import ConnectionLost, Policy, Pt, RouteLostError, RouteRemoved, Standing, Verdict, open_pt
from trio_routes.testing import Host, Lab

pytestmark = pytest.mark.netns

_NETLINK_ROUTE = 0
_GROUPS = {4: 1 << 6, 6: 1 << 10}  # RTMGRP_IPV4_ROUTE, RTMGRP_IPV6_ROUTE of linux/rtnetlink.h


def netlink_ports(host: Host) -> set[int]:
    """The port ids of the sockets in a host that are subscribed to routing changes."""
    with host.entered():
        lines = Path("/proc/thread-self/net/netlink").read_text().splitlines()[1:]
    # sk Eth Pid Groups ...: as net/netlink/af_netlink.c writes them
    sockets = [(int(protocol), int(port), int(groups, 16)) for _, protocol, port, groups, *_ in map(str.split, lines)]
    return {port for protocol, port, groups in sockets if protocol == _NETLINK_ROUTE and groups}


async def test_two_pts_of_one_run_have_a_socket_and_a_cache_each_and_close_each_its_own(lab: Lab, family: int) -> None:
    async with open_world(lab, family) as world:
        await world.add_healthy()
        (first_port,) = netlink_ports(world.device)
        async with open_pt(netns=world.device.netns, policy=Policy(no_route=math.inf)) as patient:
            assert len(netlink_ports(world.device) - {first_port}) == 1
            ours, theirs = await world.connect(), await world.connect(pt=patient)
            assert world.pt.connections.find(theirs.near) is None and patient.connections.find(ours.near) is None
            with patient.subscribe(RouteRemoved) as events:
                world.device.delete_route("default", via=world.wifi)
                assert (await ours.lost()).verdict is Verdict.NO_ROUTE
                await next_of(events, RouteRemoved)
            # Each by its own policy: the other's knows, and waits.
            assert (theirs.standing, theirs.near.connection.verdict) == (Standing.SUSPECT, Verdict.NO_ROUTE)
            assert patient.statistics().lost == 0
            world.device.add_route("default", via=world.wifi)
            await world.the_healthy_live(lost=1)
            await theirs.exchange()
            assert theirs.standing is Standing.GOOD
        # A pt that ends closes nothing.
        await world.the_healthy_live(theirs, lost=1)
        assert netlink_ports(world.device) == {first_port}


async def in_a_thread(main: Callable[[], Awaitable[None]]) -> None:
    await trio.to_thread.run_sync(trio.run, main)


async def test_two_pts_in_two_threads_close_each_its_own(lab: Lab, family: int) -> None:
    async with open_world(lab, family) as world:
        await world.add_healthy()
        # Nobody accepts: the kernel answers for a server that is slow to.
        (listener,) = world.net.server.listen(0, {4: "0.0.0.0", 6: "::"}[family])
        port: int = listener.socket.getsockname()[1]
        token = trio.lowlevel.current_trio_token()
        guarded = [trio.Event(), trio.Event()]
        errors: list[tuple[int, RouteLostError]] = []

        async def worker(number: int, address: str) -> None:
            async with (
                open_pt(netns=world.device.netns, policy=Policy.immediate()) as pt,
                await pt.open_tcp_stream(address, port) as stream,
            ):
                with pytest.raises(RouteLostError) as caught, pt.guard(stream, label=f"worker {number}"):
                    token.run_sync_soon(guarded[number].set)
                    await trio.sleep(SOON)
                errors.append((number, caught.value))
                assert pt.statistics().lost == 1

        async with listener, trio.open_nursery() as workers:
            for number, address in enumerate((world.server, PUBLIC[family])):
                workers.start_soon(in_a_thread, partial(worker, number, address))
            with trio.fail_after(SOON):
                for event in guarded:
                    await event.wait()
            assert len(netlink_ports(world.device)) == 3
            # First one's peer, then the other's: nobody is closed for somebody else's loss.
            world.device.add_route(world.server, type="prohibit")
            await until(lambda: bool(errors))
            await world.the_healthy_live(lost=0)
            assert [number for number, _ in errors] == [0]
            world.device.delete_route("default", via=world.wifi)
        assert [(number, error.verdict) for number, error in errors] == [(0, Verdict.REJECTED), (1, Verdict.NO_ROUTE)]
        await world.the_healthy_live(lost=0)
        assert len(netlink_ports(world.device)) == 1


@pytest.mark.parametrize("way", ["descriptor", "path", "the caller's own"])
async def test_the_thread_stays_in_its_namespace_wherever_a_pt_lives(lab: Lab, family: int, way: str) -> None:
    def here() -> str:
        return os.readlink("/proc/thread-self/ns/net")

    home = here()
    async with open_world(lab, family) as world:
        await world.add_healthy()
        descriptor = world.device.netns
        if way == "the caller's own":
            with world.device.inside():
                # By a pt that was given nothing, in a task that lives there itself.
                async with open_pt(policy=Policy.immediate()) as pt:
                    await lose_one(world, pt=pt)
        else:
            netns = descriptor if way == "descriptor" else f"/proc/self/fd/{descriptor}"
            async with open_pt(netns=netns, policy=Policy.immediate()) as pt:
                assert here() == home
                await lose_one(world, pt=pt)
        assert here() == home
        os.fstat(descriptor)  # the descriptor is its owner's, and open
        await world.the_healthy_live(lost=0)


async def lose_one(world: World, *, pt: Pt) -> None:
    """Connect by a pt, and lose the connection."""
    assert {link.name for link in pt.routes.links.values()} == {"lo", "wlan0", "wwan0", "eth0"}
    pair = await world.connect(pt=pt)
    world.device.delete_route("default", via=world.wifi)
    assert (await pair.lost()).verdict is Verdict.NO_ROUTE


_FORGER = """
import socket, sys
forged = bytes.fromhex(sys.argv[3])
sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
sock.bind((0, 0))
sock.sendto(forged, (int(sys.argv[1]), 0))  # to the pt alone
sock.sendto(forged, (0, int(sys.argv[2])))  # to all that listen
"""


def record_deletion(world: World) -> bytes:
    """The kernel's own words for the default route's deletion, which is then undone."""
    with world.device.entered():
        listening = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE)
    with listening:
        listening.bind((0, _GROUPS[world.family]))
        world.device.delete_route("default", via=world.wifi)
        words = listening.recv(65_536)
        world.device.add_route("default", via=world.wifi, metric=100)
    return words


def routes_of(world: World) -> list[str]:
    """The routes of all tables that a rule leads to."""
    return sorted(str(route) for route in world.pt.routes if route.table in (254, 255))


async def test_a_forged_message_of_a_root_process_beside_us_changes_nothing_and_is_counted(
    lab: Lab, family: int
) -> None:
    async with open_world(lab, family) as world:
        await world.add_healthy()
        words = record_deletion(world)
        await world.applied()
        pair = await world.connect()
        routes = routes_of(world)
        (port,) = netlink_ports(world.device)
        with world.pt.subscribe(RouteRemoved, ConnectionLost) as events:
            await world.device.run([sys.executable, "-c", _FORGER, str(port), str(_GROUPS[family]), words.hex()])
            await until(lambda: world.pt.statistics().forged == 2)
            await world.the_healthy_live(pair, lost=0)
            assert routes_of(world) == routes
            # The same words, said by the kernel, are believed.
            world.device.delete_route("default", via=world.wifi)
            await next_of(events, RouteRemoved)
            assert (await pair.lost()).verdict is Verdict.NO_ROUTE
        await world.the_healthy_live(lost=1)
        assert world.pt.statistics().forged == 2
