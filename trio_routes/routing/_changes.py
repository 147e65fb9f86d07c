"""What one applied batch changed: plain facts, from which events are made and connections re-judged.

A change carries old and new state and the cause in words ("RTM_DELROUTE", "link wlan0 went
down"); a removal that the cache derived looks exactly like one that the kernel announced.
"""

from __future__ import annotations

import attrs

from ..netlink import IPAddress, NextHop, RouteBody
from ._values import Address, Link, Route, Rule


@attrs.frozen(slots=True)
class RouteChange:
    """A route came (old None), went (new None), or was replaced (both)."""

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
    """The set of gateways of one table's default route changed."""

    family: int
    table: int
    before: frozenset[NextHop]
    after: frozenset[NextHop]


@attrs.define(slots=True)
class ChangeBatch:
    """Everything that one applied batch of messages changed, in the order in which it happened.

    Attributes:
      generation: The cache's generation after the batch.
      revived: (family, destination, prefix length) of routes that came to life again without a message of
        their own: members of multipath routes whose link came back.
      everything: True where the batch changed something that may touch any lookup (rules, sysctls).
      resynced: Why the tables were read anew, where the batch holds what a fresh dump found; otherwise "".
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
