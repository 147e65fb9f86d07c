"""A follower on a scripted socket, and routes to follow."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_address, ip_network

import trio
import trio.testing

from tests._scripted_socket import TalkingSocket
from trio_routes._follow import Follower
from trio_routes._selfcheck_answers import Question
from trio_routes.netlink import (
    AF_INET,
    AF_INET6,
    Channel,
    LinkMessage,
    MessageType,
    NextHop,
    RouteBody,
    encode_link,
)
from trio_routes.netlink._route import RouteMessage
from trio_routes.routing import Cache, ChangeBatch

ROUTES4, ROUTES6 = (MessageType.RTM_GETROUTE, AF_INET), (MessageType.RTM_GETROUTE, AF_INET6)
LINKS = (MessageType.RTM_GETLINK, 0)
UP = 0x10041


def route(prefix: str, gateway: str = "10.0.0.1") -> RouteMessage:
    network = ip_network(prefix)
    body = RouteBody(AF_INET, 254, network.prefixlen, nexthops=(NextHop(2, ip_address(gateway)),))
    return RouteMessage(body, int(network.network_address))


A, B, C, D = (route(f"192.0.{third}.0/24") for third in range(4))


class Followed:
    """A follower on a scripted socket.

    Attributes:
      batches: What was published, with the time.
      peers: What the self-check is to ask first.
      on_batch: Called after each batch.
    """

    def __init__(self, nursery: trio.Nursery) -> None:
        self.wire = TalkingSocket()
        self.cache = Cache()
        self.batches: list[ChangeBatch] = []
        self.times: list[float] = []
        self.peers: list[Question] = []
        self.on_batch: Callable[[], None] | None = None
        self.follower = Follower(Channel(self.wire), self.cache, self._note, peers=lambda: self.peers)
        self.statistics = self.follower.statistics
        self._nursery = nursery
        self.wire.tables[LINKS] = [
            (MessageType.RTM_NEWLINK, encode_link(LinkMessage(ifindex, f"eth{ifindex}", UP))) for ifindex in (2, 3)
        ]

    def _note(self, batch: ChangeBatch) -> None:
        self.batches.append(batch)
        if self.on_batch is not None:
            self.on_batch()
        self.times.append(trio.current_time())

    async def start(self, *routes: RouteMessage) -> None:
        """Begin, with these routes in the kernel's tables."""
        self.wire.set_routes(*routes)
        await self._nursery.start(self.follower.run)
        self.wire.dumps.clear()

    async def settle(self, seconds: float = 0.0) -> None:
        """Let everything happen that happens by itself, and time pass."""
        await trio.testing.wait_all_tasks_blocked()
        if seconds:
            await trio.sleep(seconds)
            await trio.testing.wait_all_tasks_blocked()

    def resyncing(self) -> bool:
        return self.cache.resyncing

    @property
    def prefixes(self) -> list[str]:
        return sorted(str(known.destination) for known in self.cache.routes())


def prefixes(*routes: RouteMessage) -> list[str]:
    return sorted(f"{ip_address(each.destination)}/{each.body.prefix_length}" for each in routes)
