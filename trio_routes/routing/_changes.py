"""What one applied batch changed: plain facts, from which events are made and connections re-judged.

A change carries old and new state and the cause in words ("RTM_DELROUTE", "link wlan0 went
down"); a removal that the cache derived looks exactly like one that the kernel announced.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Hashable, Iterable, Iterator, Sequence
from typing import TypeAlias, TypeVar

import attrs

from ..netlink import IPAddress, NextHop, RouteBody
from ._values import Address, Link, Route, Rule

_T = TypeVar("_T")
# (family, table, prefix length, destination)
_Prefix: TypeAlias = tuple[int, int, int, int]
# Route changes that are published in one go: with somebody who wants them all, 2 to 3 ms.
PORTION = 512
# The cause of a change that no notification told of.
FOUND_BY_DUMP = "found by a dump"


# Not frozen, which would take four times as long to make: a link that goes makes a hundred thousand in one step.
@attrs.define(slots=True)
class RouteChange:
    """A route came (old None), went (new None), or was replaced (both). Not to be changed."""

    destination: int
    old: RouteBody | None
    new: RouteBody | None
    cause: str

    @property
    def old_route(self) -> Route | None:
        """The route before, as users see routes."""
        return Route(self.old, self.destination) if self.old is not None else None

    @property
    def new_route(self) -> Route | None:
        """The route after, as users see routes."""
        return Route(self.new, self.destination) if self.new is not None else None


@attrs.frozen(slots=True)
class LinkChange:
    """A link came, went, or changed in what `Link` holds."""

    old: Link | None
    new: Link | None
    cause: str


@attrs.frozen(slots=True)
class AddressChange:
    """An address came, went, or changed in flags, scope or peer (lifetimes do not count)."""

    old: Address | None
    new: Address | None
    cause: str


@attrs.frozen(slots=True)
class RuleChange:
    """A policy rule came or went."""

    old: Rule | None
    new: Rule | None
    cause: str


@attrs.frozen(slots=True)
class NeighbourChange:
    """A neighbour's state became FAILED, or stopped being it."""

    ifindex: int
    address: IPAddress
    failed: bool


@attrs.frozen(slots=True)
class GatewayChange:
    """The gateways of one table's default routes changed: others, or in another order of preference."""

    family: int
    table: int
    before: tuple[NextHop, ...]
    after: tuple[NextHop, ...]


@attrs.define(slots=True)
class ChangeBatch:
    """Everything that one applied batch of messages changed, in the order in which it happened.

    Attributes:
      generation: The cache's generation after the batch.
      revived: (family, destination, prefix length) of routes that came to life again without a message of
        their own: members of multipath routes whose link came back.
      everything: True where the batch changed something that may touch any lookup (rules, sysctls).
      resynced: Why the tables were read anew, where the batch holds what a fresh dump found; otherwise "".
      earlier: Differences that were published before, where this is a later portion of a big batch.
    """

    generation: int = 0
    routes: list[RouteChange] = attrs.field(factory=list[RouteChange])
    links: list[LinkChange] = attrs.field(factory=list[LinkChange])
    addresses: list[AddressChange] = attrs.field(factory=list[AddressChange])
    rules: list[RuleChange] = attrs.field(factory=list[RuleChange])
    neighbours: list[NeighbourChange] = attrs.field(factory=list[NeighbourChange])
    gateways: list[GatewayChange] = attrs.field(factory=list[GatewayChange])
    revived: list[tuple[int, int, int]] = attrs.field(factory=list[tuple[int, int, int]])
    everything: bool = False
    resynced: str = ""
    earlier: int = 0

    def __bool__(self) -> bool:
        return bool(
            self.routes
            or self.links
            or self.addresses
            or self.rules
            or self.neighbours
            or self.revived
            or self.everything
            or self.resynced
        )

    def differences(self) -> int:
        """How many entries are other than before."""
        return len(self.routes) + len(self.links) + len(self.addresses) + len(self.rules)


def net_in_pieces(batch: ChangeBatch) -> Generator[None, None, ChangeBatch]:
    """Return what a batch comes to in the end: what went and came back, or came and went, is no change.

    The notifications that arrive during a resync are applied to tables that have missed something, and the dump
    corrects what came of it; only the difference between before and after is true. Gateways are compared that way
    already, and what is not a pair of before and after (revived routes, `everything`) stays.

    Yields between pieces of `PORTION` routes. The batch may grow meanwhile, at the ends of its lists: the routes that
    are appended stay as they are behind the others, since the tables are right again. What is returned is the batch.
    """
    count = len(batch.routes)
    # Of each prefix the first change, by its place; and of the few with several, the places of all.
    first_of: dict[_Prefix, int] = {}
    several: dict[int, list[int]] = {}
    for at in range(count):
        change = batch.routes[at]
        body = change.old if change.old is not None else change.new
        if body is not None:
            first = first_of.setdefault((body.family, body.table, body.prefix_length, change.destination), at)
            if first != at:
                several.setdefault(first, [first]).append(at)
        if at % PORTION == PORTION - 1:
            yield
    later = {at for places in several.values() for at in places[1:]}
    net: list[RouteChange] = []
    for at in range(count):
        if at in several:
            net += _net_routes([batch.routes[each] for each in several[at]])
        elif at not in later:
            net.append(batch.routes[at])
        if at % PORTION == PORTION - 1:
            yield
    # To free a hundred thousand entries at once takes some milliseconds more.
    while len(first_of) > PORTION:
        for _ in range(PORTION):
            first_of.popitem()
        yield
    batch.routes[:count] = net
    links = ((_ifindex(step.old or step.new), step.old, step.new, step.cause) for step in batch.links)
    addresses = ((_address_key(step.old or step.new), step.old, step.new, step.cause) for step in batch.addresses)
    rules = ((step.old or step.new, step.old, step.new, step.cause) for step in batch.rules)
    neighbours = Counter((step.ifindex, step.address) for step in batch.neighbours)
    batch.links = [LinkChange(*chain) for chain in _chained(links)]
    batch.addresses = [AddressChange(*chain) for chain in _chained(addresses)]
    batch.rules = [RuleChange(*chain) for chain in _chained(rules)]
    # Each change of a neighbour is the opposite of the one before.
    batch.neighbours = [
        step
        for step in {(step.ifindex, step.address): step for step in batch.neighbours}.values()
        if neighbours[step.ifindex, step.address] % 2
    ]
    return batch


def portions(batch: ChangeBatch) -> Iterator[ChangeBatch]:
    """Yield a batch as one or several that can be published one after the other, each in a few milliseconds.

    In the order of the events: routes are what there may be many of, all else but gateways and the resync's end comes
    before them. The later ones count what was in the earlier ones (`ChangeBatch.earlier`).
    """
    routes, most = batch.routes, PORTION
    if len(routes) <= most:
        yield batch
        return
    earlier = 0
    for at in range(0, len(routes), most):
        first, last = at == 0, at + most >= len(routes)
        part = ChangeBatch(generation=batch.generation, routes=routes[at : at + most], earlier=earlier)
        if first:
            part.links, part.addresses, part.rules = batch.links, batch.addresses, batch.rules
            part.neighbours, part.revived, part.everything = batch.neighbours, batch.revived, batch.everything
        if last:
            part.gateways, part.resynced = batch.gateways, batch.resynced
        earlier += part.differences()
        yield part


def _ifindex(link: Link | None) -> int:
    return 0 if link is None else link.ifindex


def _address_key(address: Address | None) -> Hashable:
    return None if address is None else (address.ifindex, address.address, address.prefix_length)


def _chained(
    steps: Iterable[tuple[Hashable, _T | None, _T | None, str]],
) -> Iterator[tuple[_T | None, _T | None, str]]:
    """Join the steps of each thing, by its key, to one step from its first state to its last."""
    chains: dict[Hashable, tuple[_T | None, _T | None, str]] = {}
    for key, old, new, cause in steps:
        first = chains[key][0] if key in chains else old
        chains[key] = first, new, cause
    return (chain for chain in chains.values() if chain[0] != chain[1])


def _net_routes(changes: Sequence[RouteChange]) -> Iterator[RouteChange]:
    """Do the same for the routes of one prefix, of which there can be several: equal ones that went and came cancel."""
    balance = Counter[RouteBody]()
    for change in changes:
        if change.old is not None:
            balance[change.old] -= 1
        if change.new is not None:
            balance[change.new] += 1
    destination, cause = changes[-1].destination, changes[-1].cause
    gone = [body for body, count in balance.items() if count < 0]
    came = [body for body, count in balance.items() if count > 0]
    if len(gone) == len(came) == 1:
        yield RouteChange(destination, gone[0], came[0], cause)
    else:
        yield from (RouteChange(destination, body, None, cause) for body in gone)
        yield from (RouteChange(destination, None, body, cause) for body in came)
