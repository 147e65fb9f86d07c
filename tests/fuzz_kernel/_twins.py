"""The cache that follows, and another that has just been dumped: both on the kernel, without a loop and with our clock."""

from __future__ import annotations

import math
from collections.abc import Hashable
from typing import TypeAlias

import attrs

from trio_routes._follow import Follower, _Why
from trio_routes._subscription import GROUPS
from trio_routes.netlink import AF_INET, AF_INET6, IFA_F_SECONDARY, Channel, LinuxKernel, RouteBody
from trio_routes.routing import Cache, ChangeBatch
from trio_routes.routing._nodes import bodies
from trio_routes.routing._state import State
from trio_routes.routing._tables import NodeKey

from ._ground import Ground

Picture: TypeAlias = dict[Hashable, object]


@attrs.frozen
class RouteKey:
    """What stands in a picture for the routes of a prefix."""

    family: int
    key: NodeKey


@attrs.frozen
class DeadKey:
    """What stands in a picture for those of a route's ways that are dead."""

    route: RouteKey
    body: RouteBody


class Twin:
    """A cache on a namespace. Its follower's clock stands still, so that no audit helps unless it is told to.

    Attributes:
      cache: The cache.
      statistics: The follower's.
      batches: How many batches were published.
    """

    def __init__(self, ground: Ground, *, follows: bool) -> None:
        self._kernel = LinuxKernel(ground.here.fileno())
        self._channel = Channel(self._kernel.open_netlink())
        self._follows = follows
        self._now = 0.0
        self.batches = 0
        self.cache = Cache()
        self._start()

    def _start(self) -> None:
        self._follower = Follower(self._channel, self.cache, self._on_batch, lambda: self._now)
        if self._follows:
            for group in GROUPS:
                self._channel.join(group)
        self._follower._begin(_Why.START)
        self._settle()
        assert self._follower.ready.is_set()
        self.statistics = self._follower.statistics

    def _on_batch(self, _: ChangeBatch) -> None:
        self.batches += 1

    def dump(self) -> Cache:
        """Forget everything and dump it: what the kernel's tables are now."""
        self.cache = Cache()
        self._start()
        return self.cache

    def step(self) -> None:
        """Have the follower take in what is waiting."""
        self._follower.step()

    def begin_audit(self) -> None:
        if self._follower._why is None:
            self._follower._begin(_Why.AUDIT)

    def lose(self) -> None:
        self._follower._lost("a test says so")

    def catch_up(self) -> bool:
        """Take in all that the kernel has said, and make the dumps that are due; whether one was."""
        while self._follower.step():
            pass
        due = self._follower._why is not None or self._follower._retry_at < math.inf
        self._settle()
        return due

    def _settle(self) -> None:
        for _ in range(1000):
            self._follower.step()
            if self._follower._why is None and self._follower._retry_at == math.inf:
                self._follower._audit_at = math.inf
                return
            if self._follower._retry_at < math.inf:
                self._now = max(self._now, self._follower._retry_at)
        raise AssertionError("the follower does not come to an end")

    def close(self) -> None:
        self._channel.close()
        self._kernel.close()


def picture(state: State) -> Picture:
    """All that a cache knows, in a form that compares, and where two are different shows where."""
    seen: Picture = {}
    for family, tables in state.tables.items():
        for key, node in tables.items():
            route = RouteKey(family, key)
            seen[route] = bodies(node)
            for body in bodies(node):
                dead = _dead_ways(state, body)
                if dead:
                    seen[DeadKey(route, body)] = dead
    for family in (AF_INET, AF_INET6):
        seen["rules", family] = state.rules[family]
    seen |= {("link", ifindex): link for ifindex, link in state.links.items()}
    seen |= {("address", key): address for key, address in state.addresses.by_key().items()}
    # The order of a link's primary addresses counts: the first that fits is the source of what is sent.
    for ifindex in state.links:
        seen["addresses", ifindex] = tuple(
            (entry.address, entry.prefix_length)
            for entry in state.addresses.on_link(ifindex, AF_INET)
            if not entry.flags & IFA_F_SECONDARY
        )
    seen |= {("nexthop", number): message for number, message in state.nexthops.items()}
    seen["ignoring linkdown"] = frozenset(state.ignoring_linkdown)
    return seen


def _dead_ways(state: State, body: RouteBody) -> frozenset[object]:
    hops = () if body.nexthop_id else body.nexthops
    return frozenset((hop.ifindex, hop.gateway) for hop in hops if not state.alive(body, hop))
