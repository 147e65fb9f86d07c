"""From another process's system call that deletes a route to the bodies that are cancelled: a scene of bench-judge.

    python -m benchmarks.judge_latency RECEIVER CONNECTIONS

Real TCP connections, each in a guard's body that waits in `receive_some()`, under `Policy.immediate()`. The reference
is a C program (route_epoll.c) that waits for the same notification with epoll and only takes the time, in the same
rounds. With 0 connections a Trio task takes our place that reads the socket and cancels a scope, and does nothing
else: what Trio itself costs.
"""

from __future__ import annotations

import json
import socket
import statistics
import sys
import time

import trio
import trio.testing

import trio_routes
from benchmarks.judge_network import CROWD, CROWD_PEER, VICTIM, VICTIM_PEER, Program, Stage, connect, connect_to, stage

REPETITIONS, ROUNDS = 3, 200
_SOL_NETLINK, _NETLINK_ADD_MEMBERSHIP, _RTNLGRP_IPV4_ROUTE = 270, 1, 7
_RTM_DELROUTE = 25


def main(receiver: str, connections: int) -> None:
    with stage(CROWD, VICTIM) as network:
        in_c = network.program(receiver)
        in_c.expect("ready")
        figures = (
            trio.run(guarded, network, in_c, connections) if connections else trio.run(in_trio_alone, network, in_c)
        )
    print(json.dumps({name: nanoseconds / 1e9 for name, nanoseconds in figures.items()}))


async def guarded(network: Stage, in_c: Program, connections: int) -> dict[str, float]:
    """Measure with our pt: one connection is lost while the others live, again and again, and then all of them."""
    victims, crowds = network.deleter(VICTIM), network.deleter(CROWD)
    one_by_one: list[tuple[int, int]] = []
    last: list[int] = []
    async with trio_routes.open_pt(policy=trio_routes.Policy.immediate()) as pt:
        for _ in range(REPETITIONS):
            ended: list[int] = []
            async with trio.open_nursery() as crowd:
                for number in range(connections - 1):
                    crowd.start_soon(hold, pt, connect(number), ended)
                await trio.testing.wait_all_tasks_blocked()
                one_by_one += [await one_of_them(pt, victims, in_c) for _ in range(ROUNDS)]
                crowd.start_soon(hold, pt, connect(connections), ended)
                await trio.testing.wait_all_tasks_blocked()
                assert not ended, "the crowd was to be spared until now"
                crowds.tell("delete")
            last.append(max(ended) - int(crowds.hear()))
            in_c.hear()
            assert len(ended) == connections
            crowds.tell("add")
            crowds.hear()
            await pt.wait_routable(CROWD_PEER)
            network.hang_up()
    return distribution(*one_by_one) | {"last": statistics.median(last)}


async def one_of_them(pt: trio_routes.Pt, deleter: Program, in_c: Program) -> tuple[int, int]:
    """Take one connection's route away; returns the nanoseconds until the C program knew, and until its body did."""
    ended: list[int] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(hold, pt, connect_to(VICTIM_PEER), ended)
        await trio.testing.wait_all_tasks_blocked()
        # The request is out before the loop waits: the deleter's pipe is not part of what is measured.
        deleter.tell("delete")
    sent, heard = int(deleter.hear()), int(in_c.hear())
    deleter.tell("add")
    deleter.hear()
    await pt.wait_routable(VICTIM_PEER)
    return heard - sent, ended[0] - sent


async def hold(pt: trio_routes.Pt, stream: trio.SocketStream, ended: list[int]) -> None:
    """Wait for bytes that never come, in a guard, and note when that was cancelled."""
    try:
        with pt.guard(stream):
            try:
                await stream.receive_some()
            finally:
                ended.append(time.monotonic_ns())
    except trio_routes.RouteLostError:
        pass
    stream.socket.close()


async def in_trio_alone(network: Stage, in_c: Program) -> dict[str, float]:
    """Measure with a task that reads one socket and cancels one scope."""
    deleter = network.deleter(VICTIM)
    rounds: list[tuple[int, int]] = []
    netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE)
    netlink.bind((0, 0))
    netlink.setsockopt(_SOL_NETLINK, _NETLINK_ADD_MEMBERSHIP, _RTNLGRP_IPV4_ROUTE)
    with netlink:
        for _ in range(REPETITIONS * ROUNDS):
            async with trio.open_nursery() as nursery:
                scope, ended, stream = trio.CancelScope(), list[int](), connect_to(VICTIM_PEER)
                nursery.start_soon(hold_in, scope, stream, ended)
                nursery.start_soon(cancel_at_a_deletion, netlink, scope)
                await trio.testing.wait_all_tasks_blocked()
                deleter.tell("delete")
            sent, heard = int(deleter.hear()), int(in_c.hear())
            rounds.append((heard - sent, ended[0] - sent))
            deleter.tell("add")
            deleter.hear()
    return distribution(*rounds)


async def hold_in(scope: trio.CancelScope, stream: trio.SocketStream, ended: list[int]) -> None:
    with scope:
        try:
            await stream.receive_some()
        finally:
            ended.append(time.monotonic_ns())
    stream.socket.close()


async def cancel_at_a_deletion(netlink: socket.socket, scope: trio.CancelScope) -> None:
    while not scope.cancel_called:
        await trio.lowlevel.wait_readable(netlink)
        data = netlink.recv(65536)
        if int.from_bytes(data[4:6], sys.byteorder) == _RTM_DELROUTE:
            scope.cancel(reason="the route was deleted")


def distribution(*rounds: tuple[int, int]) -> dict[str, float]:
    """The medians and 99th percentiles of what the C program and ours took."""
    in_c, ours = zip(*rounds, strict=True)
    return {
        "c": statistics.median(in_c),
        "c99": statistics.quantiles(in_c, n=100)[98],
        "ours": statistics.median(ours),
        "ours99": statistics.quantiles(ours, n=100)[98],
    }


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
