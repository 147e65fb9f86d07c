"""A registry on a network by hand, with its reassessment, and connections that it watches. No packet, no wall time."""

from __future__ import annotations

import math
from collections.abc import Callable
from ipaddress import ip_address

import attrs
import trio
import trio.testing

from tests.connections.network import C1, C2, LO, NO_CARRIER, UP, Site
from trio_routes._events import Event
from trio_routes.connections import Connection, Flow, Policy, Probe, ProbeAnswer, Reassessor, Registry, Standing
from trio_routes.netlink import RTN_BLACKHOLE, RTN_LOCAL, RTN_THROW
from trio_routes.routing import ChangeBatch

FAR = "1.1.1.1"  # global: from a private address only reached by translation


class Stream:
    def __init__(self, flow: Flow) -> None:
        self.flow = flow
        self.aborted = False

    def abort(self) -> None:
        self.aborted = True


class Watch:
    """A registry with its reassessment, on a network by hand."""

    def __init__(self, family: int = 4) -> None:
        self.site = Site(family)
        self.network = self.site.network
        self.events: list[Event] = []
        self.monitoring = True
        self.applied = 0
        self.streams: list[Stream] = []
        self.registry = Registry(
            self.network,
            policy=Policy(),
            publish=self.events.append,
            monitoring=lambda: self.monitoring,
            netns_cookie=None,
        )
        self.reassessor = Reassessor(self.registry, self.network, apply_pending=self.apply_pending)

    def apply_pending(self) -> None:
        """Stands for the follow task's reading: what the test has changed by now becomes a batch."""
        self.applied += 1
        batch = self.network.take()
        if batch:
            self.touch(batch)

    def register(
        self, flow: Flow | None = None, *, policy: Policy | None = None, probe: Probe | None = None
    ) -> Connection:
        stream = Stream(flow or self.site.flow())
        self.streams.append(stream)
        return self.registry.register(stream, policy=policy, probe=probe)

    async def change(self) -> None:
        """Let what the test changed be told, and judged."""
        self.touch(self.network.take())
        await trio.testing.wait_all_tasks_blocked()

    def touch(self, batch: ChangeBatch) -> None:
        """Do what the engine does with a batch."""
        self.reassessor.touch(batch)
        self.reassessor.take_turn()

    def gateway_moves(self) -> None:
        site = self.site
        self.network.add_route(site.default, via=site.gw1b, dev=C1, metric=100, replace=True)

    def route_goes(self) -> None:
        self.network.delete_route(self.site.default)

    def route_returns(self) -> None:
        self.network.add_route(self.site.default, via=self.site.gw1, dev=C1, metric=100)

    @property
    def told(self) -> list[type[Event]]:
        return [type(event) for event in self.events]


def standing(connection: Connection) -> Standing:
    """Read anew: a checker would take the property for an attribute, and what was asserted of it for lasting."""
    return connection.standing


class Peer(Stream):
    """A stream whose peer can be played asking."""

    def __init__(self, flow: Flow, answer: ProbeAnswer) -> None:
        super().__init__(flow)
        self.answer: ProbeAnswer = answer
        self.asked: list[float] = []

    def ask(self) -> ProbeAnswer:
        self.asked.append(trio.current_time())
        return self.answer


def register(
    watch: Watch, answer: ProbeAnswer, *, policy: Policy | None = None, flow: Flow | None = None
) -> tuple[Connection, Peer]:
    peer = Peer(flow or watch.site.flow(), answer)
    watch.streams.append(peer)
    return watch.registry.register(peer, policy=policy), peer


# ---- for random changes --------------------------------------------------------------------------------------

# Nobody is ended.
FOR_EVER = Policy(
    no_route=math.inf,
    rejected=math.inf,
    source_gone=math.inf,
    peer_moved=math.inf,
    carrier_lost=math.inf,
    egress_changed=math.inf,
    gateway_changed=math.inf,
)
# Nobody is ended and nobody is asked: what the judge says stays to be read.
UNASKED = attrs.evolve(FOR_EVER, ask_kernel=False)


def flows(site: Site) -> list[Flow]:
    """Connections that differ in what their path rests on."""
    ipv4 = site.family == 4
    service, anyip = ("192.0.2.1", "192.0.2.77") if ipv4 else ("2001:db8:5::1", "2001:db8:6::77")
    return [
        site.flow(),
        site.flow(peer=site.neighbour),
        site.flow(peer=site.s2),
        site.flow(device=C1),
        site.flow(local=service),
        site.flow(local=anyip),
        site.flow(local=site.s2),
        site.flow(local=anyip, transparent=True),
    ]


def toggles(site: Site) -> list[Callable[[], None]]:
    """Twenty things that are there or not; each call turns one over."""
    """Things that are so or not, each changed by one step."""
    network, ipv4 = site.network, site.family == 4
    service, anyip = ("192.0.2.1", "192.0.2.64/26") if ipv4 else ("2001:db8:5::1", "2001:db8:6::/64")

    def link(ifindex: int) -> None:
        network.link_is(ifindex, NO_CARRIER if network.links[ifindex].carrier else UP)

    def administratively(ifindex: int) -> None:
        network.link_is(ifindex, 0 if network.links[ifindex].up else UP)

    def address(text: str, ifindex: int) -> None:
        if network.has_address(ip_address(text), ifindex):
            network.delete_address(text, ifindex)
        else:
            network.add_address(text, ifindex)

    def neighbour(ifindex: int, text: str) -> None:
        network.neighbour_is(ifindex, text, failed=(ifindex, ip_address(text)) not in network.failed)

    def route(
        prefix: str, table: int, metric: int, kind: int, hop: tuple[str | None, int | None] = (None, None)
    ) -> None:
        via, dev = hop
        try:
            network.delete_route(prefix, table=table, metric=metric)
        except LookupError:
            network.add_route(prefix, table=table, metric=metric, kind=kind, via=via, dev=dev)

    return [
        lambda: link(C1),
        lambda: link(C2),
        lambda: administratively(C1),
        lambda: address(site.s1, C1),
        lambda: address(site.s2, C2),
        lambda: address(service, LO),
        lambda: address(site.s1, C2),
        lambda: address(site.neighbour, C2),
        lambda: neighbour(C1, site.gw1),
        lambda: neighbour(C1, site.neighbour),
        lambda: route(site.default, 254, 100, 1, (site.gw1, C1)),
        lambda: route(site.default, 254, 50, 1, (site.gw2, C2)),
        lambda: route(site.near_peer, 254, 0, 1, (site.gw1b, C1)),
        lambda: route(site.near_peer, 100, 0, RTN_BLACKHOLE),
        lambda: route(site.near_peer, 100, 1, 1, (site.gw2, C2)),
        lambda: route(site.near_peer, 99, 0, RTN_THROW),
        lambda: route(site.halves[0], 99, 0, 1, (site.gw2, C2)),
        lambda: route(site.halves[1], 99, 0, 1, (site.gw2, C2)),
        lambda: route(anyip, 255, 0, RTN_LOCAL, (None, LO)),
        lambda: route(site.lan1, 254, 0, 1, (None, C1)),
    ]
