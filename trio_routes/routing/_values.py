"""The values that the cache answers with: what users see of routes, links, addresses and rules."""

from __future__ import annotations

import enum
import errno
from ipaddress import IPv4Network, IPv6Network
from typing import TypeAlias

import attrs

from ..netlink import AF_INET, IPAddress, LinkMessage, NextHop, RouteBody, RuleMessage

IPNetwork: TypeAlias = IPv4Network | IPv6Network


class Outcome(enum.Enum):
    """How a lookup ended."""

    ROUTED = "routed"
    NO_ROUTE = "no route"
    UNREACHABLE = "unreachable"
    PROHIBITED = "prohibited"
    BLACKHOLE = "blackhole"

    @property
    def errno(self) -> int:
        """The error that a connect() would give: 0, ENETUNREACH, EHOSTUNREACH, EACCES or EINVAL."""
        return _ERRNO[self]

    @property
    def rejects(self) -> bool:
        """Whether a route or rule says no, as opposed to nothing saying yes."""
        return self in (Outcome.UNREACHABLE, Outcome.PROHIBITED, Outcome.BLACKHOLE)


_ERRNO = {
    Outcome.ROUTED: 0,
    Outcome.NO_ROUTE: errno.ENETUNREACH,
    Outcome.UNREACHABLE: errno.EHOSTUNREACH,
    Outcome.PROHIBITED: errno.EACCES,
    Outcome.BLACKHOLE: errno.EINVAL,
}


class Kind(enum.Enum):
    """What kind of destination a route leads to; the judge tells LOCAL from the others (peer moved)."""

    UNICAST = "unicast"
    LOCAL = "local"
    BROADCAST = "broadcast"
    MULTICAST = "multicast"


@attrs.frozen(slots=True)
class Route:
    """One route of one table: a destination, and how to get there.

    Built when somebody looks; the cache itself holds the destination as an integer key and
    shares one `RouteBody` among all routes that differ in nothing else.
    """

    body: RouteBody
    address: int

    @property
    def destination(self) -> IPNetwork:
        """The prefix that the route serves."""
        # Host bits, which a kernel never sends, are no reason to fail in whoever looks at a route.
        body = self.body
        if body.family == AF_INET:
            return IPv4Network((self.address, body.prefix_length), strict=False)
        return IPv6Network((self.address, body.prefix_length), strict=False)

    @property
    def table(self) -> int:
        """The table's number: 254 main, 255 local, 253 default."""
        return self.body.table

    @property
    def metric(self) -> int:
        """The route's priority, lower first."""
        return self.body.priority

    @property
    def nexthops(self) -> tuple[NextHop, ...]:
        """Where the route leads; empty for routes that reject and for those that name a nexthop object."""
        return self.body.nexthops

    @property
    def gateways(self) -> tuple[IPAddress, ...]:
        """The gateways among the next hops, in the route's order."""
        return tuple(hop.gateway for hop in self.body.nexthops if hop.gateway is not None)

    def __str__(self) -> str:
        hops = ", ".join(
            (f"via {hop.gateway} " if hop.gateway else "") + f"dev {hop.ifindex}" for hop in self.body.nexthops
        )
        metric = f" metric {self.metric}" if self.metric else ""
        return f"{self.destination} {hops or 'nowhere'} table {self.table}{metric}"


@attrs.frozen(slots=True)
class Link:
    """One network interface, as the kernel last described it."""

    ifindex: int
    name: str
    flags: int
    mtu: int = 0
    arp_type: int = 1
    kind: str = ""
    master: int = 0
    group: int = 0
    address: bytes = b""
    vrf_table: int = 0

    IFF_UP = 0x1
    IFF_LOOPBACK = 0x8
    IFF_POINTOPOINT = 0x10
    IFF_RUNNING = 0x40
    IFF_NOARP = 0x80
    IFF_LOWER_UP = 0x10000

    @property
    def up(self) -> bool:
        """Whether the link is administratively up (IFF_UP)."""
        return bool(self.flags & self.IFF_UP)

    @property
    def carrier(self) -> bool:
        """Whether there is carrier: IFF_LOWER_UP and IFF_RUNNING both."""
        return self.flags & (self.IFF_LOWER_UP | self.IFF_RUNNING) == self.IFF_LOWER_UP | self.IFF_RUNNING

    @property
    def dead(self) -> bool:
        """Whether nothing can pass: down, or without carrier."""
        return not (self.up and self.carrier)

    @classmethod
    def of(cls, message: LinkMessage) -> Link:
        """Keep of a message what routing needs."""
        return cls(
            ifindex=message.ifindex,
            name=message.name,
            flags=message.flags,
            mtu=message.mtu,
            arp_type=message.arp_type,
            kind=message.kind,
            master=message.master,
            group=message.group,
            address=message.address,
            vrf_table=message.vrf_table,
        )


@attrs.frozen(slots=True)
class Address:
    """One address of one interface.

    Attributes:
      prefix_length: Bits of the on-link prefix.
      flags: IFA_F_* (tentative 0x40, deprecated 0x20, dadfailed 0x08, secondary/temporary 0x01).
      preferred_lifetime: Seconds when last announced; None is for ever.
      valid_lifetime: Seconds when last announced; None is for ever.
    """

    ifindex: int
    address: IPAddress
    prefix_length: int
    flags: int = 0
    scope: int = 0
    peer: IPAddress | None = None
    preferred_lifetime: int | None = attrs.field(default=None, eq=False)  # a refreshed lifetime is not a change
    valid_lifetime: int | None = attrs.field(default=None, eq=False)


Rule: TypeAlias = RuleMessage


# Not frozen, which would make a lookup an eighth longer: setting nine attributes past a lock takes 0.5 µs more.
@attrs.define(slots=True, unsafe_hash=True)
class Resolution:
    """The cache's answer for one flow. A value like the others: never changed, though nothing prevents it.

    Attributes:
      outcome: How the lookup ended.
      kind: What the destination is, where it is routed.
      route: The route that answered; None where a rule or nothing did.
      rule: The rule that led there; None where no rule matched.
      hops: The possible next hops: one, or the usable members of a multipath route.
      multipath: Whether the kernel chooses among `hops` by hash.
      source: The source address that the kernel would choose (or that was given); None where it has none.
      generation: The cache's generation when this was looked up.
      refused: The error where the kernel refuses the question itself: EINVAL for an address that can be no
        source or no destination, ENODEV for a device that is not there. 0 where it looks up; the outcome of
        a refusal is NO_ROUTE.
    """

    outcome: Outcome
    kind: Kind = Kind.UNICAST
    route: Route | None = None
    rule: Rule | None = None
    hops: tuple[NextHop, ...] = ()
    multipath: bool = False
    source: IPAddress | None = None
    generation: int = attrs.field(default=0, eq=False)
    refused: int = 0

    @property
    def errno(self) -> int:
        """The error that a connect() would give, 0 if none.

        Not quite the outcome's: a *rule's* "unreachable" is ENETUNREACH, a route's EHOSTUNREACH
        (fib4_rule_action, fib_props).
        """
        if self.refused:
            return self.refused
        if self.outcome is Outcome.UNREACHABLE and self.route is None:
            return errno.ENETUNREACH
        return self.outcome.errno

    @property
    def gateways(self) -> tuple[IPAddress, ...]:
        """The gateways among the possible next hops."""
        return tuple(hop.gateway for hop in self.hops if hop.gateway is not None)

    def __str__(self) -> str:
        if self.outcome is not Outcome.ROUTED:
            return str(self.outcome.value)
        ways = " or ".join(
            f"via {hop.gateway!s} on link {hop.ifindex}" if hop.gateway else f"on link {hop.ifindex}"
            for hop in self.hops
        )
        return f"{self.kind.value} {ways}"
