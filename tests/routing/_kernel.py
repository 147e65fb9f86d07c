"""Two followers of one namespace: one that has followed all along, and a fresh one whose tables are a dump."""

from __future__ import annotations

import subprocess
from collections.abc import AsyncGenerator, Hashable
from contextlib import asynccontextmanager
from ipaddress import ip_address

import trio

from trio_routes import testing
from trio_routes._follow import Follower
from trio_routes.netlink import (
    AF_INET,
    AF_INET6,
    Channel,
    LinuxKernel,
    MessageType,
    decode_error,
    decode_route,
    get_route,
    iter_messages,
)
from trio_routes.routing import Cache, ChangeBatch
from trio_routes.routing._nodes import bodies


class Following:
    """A cache that follows a host.

    Attributes:
      batches: What was published.
    """

    def __init__(self, host: testing.Host) -> None:
        self.kernel = LinuxKernel(host.netns)
        self.channel = Channel(self.kernel.open_netlink())
        self.cache = Cache()
        self.batches: list[ChangeBatch] = []
        self.follower = Follower(self.channel, self.cache, self.batches.append)

    def close(self) -> None:
        self.channel.close()
        self.kernel.close()


@asynccontextmanager
async def following(host: testing.Host) -> AsyncGenerator[Following]:
    """Follow a host for the length of the block; the tables are complete when it begins."""
    it = Following(host)
    try:
        async with trio.open_nursery() as nursery:
            await nursery.start(it.follower.run)
            yield it
            nursery.cancel_scope.cancel()
    finally:
        it.close()


def ip(host: testing.Host, command: str) -> str:
    """Run the ip command in a host; a refusal is an answer like any other, and is returned."""
    with host.entered():
        done = subprocess.run(["ip", *command.split()], capture_output=True, text=True, check=False)
    return done.stderr.strip()


def picture(cache: Cache) -> dict[Hashable, object]:
    """All that a cache knows, in a form that compares, and where two are different shows where."""
    state = cache.state
    seen: dict[Hashable, object] = {}
    for family, tables in state.tables.items():
        for key, node in tables.items():
            # The order of IPv6 routes of one metric that are no siblings is the kernel's affair.
            seen["route", family, key] = bodies(node) if family == AF_INET else frozenset(bodies(node))
            for body in bodies(node):
                hops = () if body.nexthop_id else body.nexthops
                dead = {(hop.ifindex, hop.gateway) for hop in hops if not state.alive(body, hop)}
                if dead:
                    seen["dead", family, key, body.priority, body.type] = dead
    for family in (AF_INET, AF_INET6):
        seen["rules", family] = state.rules[family]
    seen |= {("link", ifindex): link for ifindex, link in state.links.items()}
    seen |= {("address", key): address for key, address in state.addresses.by_key().items()}
    seen |= {("nexthop", number): message for number, message in state.nexthops.items()}
    seen["ignoring linkdown"] = frozenset(state.ignoring_linkdown)
    return seen


def differences(mine: dict[Hashable, object], theirs: dict[Hashable, object]) -> list[str]:
    """Say in words where two pictures differ."""
    return [
        f"{key}: followed {mine.get(key)}, dumped {theirs.get(key)}"
        for key in {**mine, **theirs}
        if mine.get(key) != theirs.get(key)
    ]


def ask(host: testing.Host, destination: str) -> tuple[int, tuple[int, str | None] | None]:
    """RTM_GETROUTE's answer for a destination: (error number, (ifindex, gateway))."""
    kernel = LinuxKernel(host.netns)
    wire = kernel.open_netlink()
    try:
        wire.send(get_route(ip_address(destination)).message(1))
        buffer = bytearray(16384)
        length, _, _ = wire.receive_into(buffer)  # the kernel answers before send() returns
    finally:
        wire.close()
        kernel.close()
    ((header, start, end),) = iter_messages(bytes(buffer[:length]))
    if header.type == MessageType.ERROR:
        return decode_error(bytes(buffer[:length]), start, end).errno, None
    (way,) = decode_route(bytes(buffer[:length]), start, end).body.nexthops
    return 0, (way.ifindex, None if way.gateway is None else str(way.gateway))


def assert_agrees(followed: Following, host: testing.Host, destination: str, what: str) -> None:
    """Fail unless a lookup gives the kernel's own answer, or has it among several."""
    number, way = ask(host, destination)
    mine = followed.cache.lookup(ip_address(destination))
    ways = {(hop.ifindex, None if hop.gateway is None else str(hop.gateway)) for hop in mine.hops}
    assert mine.outcome.errno == number, f"after {what}: to {destination}: {mine}, the kernel says error {number}"
    assert way is None or way in ways, f"after {what}: to {destination}: {mine}, the kernel says {way}"


async def dumped(host: testing.Host) -> dict[Hashable, object]:
    """What the kernel's tables are now."""
    async with following(host) as fresh:
        return picture(fresh.cache)


async def assert_exact(followed: Following, host: testing.Host, what: str) -> None:
    """Fail unless the cache becomes equal to the kernel's tables soon; some changes are late (carrier: up to 1 s)."""
    left: list[str] = []
    with trio.move_on_after(4):
        while True:
            truth = await dumped(host)
            followed.follower.apply_pending()
            left = differences(picture(followed.cache), truth)
            if not left:
                return
            await trio.sleep(0.02)
    raise AssertionError(
        f"after {what}: {len(left)} differences, resyncing {followed.cache.resyncing}\n" + "\n".join(left[:10])
    )
