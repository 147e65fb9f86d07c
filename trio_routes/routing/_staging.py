"""A dump while it comes in, and what of it can be believed once it is complete.

A dump takes time, and notifications arrive between its parts. A part of the dump may have been
made before or after such a change; nothing in it says which. So for every entry that differs:

    living tables        a notification spoke of it   none did
    -----------------    --------------------------   -----------------------------------------
    known to be true     they are right               the dump is right: something had been missed
    doubtful             neither is: dump it again    the dump is right

Everything is doubtful at first and after a loss; what a later dump settles is known from then on,
because from a true state the notifications lead to a true state. What an audit contradicts of it
becomes doubtful first, and is dumped again a moment later: the notification may be on its way.
Changes that the kernel makes without naming the entries (a link goes down) *contest* a dump as a
whole: entries that are doubtful then stay so.
"""

from __future__ import annotations

import enum
from collections.abc import Hashable, Iterable, Set as AbstractSet
from typing import TypeAlias, TypeVar

import attrs

from ..netlink import (
    AF_INET,
    AF_INET6,
    NETCONFA_IFINDEX_DEFAULT,
    NUD_FAILED,
    NUD_INCOMPLETE,
    RTNH_F_DEAD,
    RTNH_F_LINKDOWN,
    AddressMessage,
    IPAddress,
    LinkMessage,
    NeighbourMessage,
    NetconfMessage,
    NexthopMessage,
    RouteBody,
    RuleMessage,
)
from ._differences import Difference
from ._rules import in_order, without_state
from ._state import Addresses, State
from ._tables import Home, NodeKey
from ._values import Address, Link

_K = TypeVar("_K", bound=Hashable)


class Part(enum.Enum):
    """The parts of the kernel's state, in the order in which they are dumped: what is referred to, first."""

    LINKS = "links"
    ADDRESSES = "addresses"
    IPV4_SWITCHES = "IPv4 netconf"
    IPV6_SWITCHES = "IPv6 netconf"
    NEXTHOPS = "nexthop objects"
    IPV4_RULES = "IPv4 rules"
    IPV6_RULES = "IPv6 rules"
    NEIGHBOURS = "neighbours"
    IPV4_ROUTES = "IPv4 routes"
    IPV6_ROUTES = "IPv6 routes"


ROUTES_OF = {AF_INET: Part.IPV4_ROUTES, AF_INET6: Part.IPV6_ROUTES}
RULES_OF = {AF_INET: Part.IPV4_RULES, AF_INET6: Part.IPV6_RULES}
SWITCHES_OF = {AF_INET: Part.IPV4_SWITCHES, AF_INET6: Part.IPV6_SWITCHES}
_ROUTES = frozenset(ROUTES_OF.values())
_FAMILY_OF = {part: family for parts in (ROUTES_OF, RULES_OF, SWITCHES_OF) for family, part in parts.items()}

# Which entries of a part are not known to be true; None is every one, also those that nobody has heard of.
Doubts: TypeAlias = AbstractSet[Hashable] | None
NO_DOUBTS: frozenset[Hashable] = frozenset()
EVERYTHING: Doubts = None

# A key of its own for the rules: their order counts, so the list as a whole is one entry.
ALL_RULES = "rules"
_STATE_FLAGS = RTNH_F_DEAD | RTNH_F_LINKDOWN


def has_state(body: RouteBody) -> bool:
    """Whether a body as received has DEAD or LINKDOWN flags, its own (all of its ways are so) or a next hop's."""
    flags = body.flags
    for hop in body.nexthops:  # no generator: this is asked of every notification
        flags |= hop.flags
    return bool(flags & _STATE_FLAGS)


def plain(body: RouteBody) -> RouteBody:
    """The body as the cache knows it, the same in every message that speaks of the route.

    Without the DEAD and LINKDOWN flags, which change without a word and so are derived; and with IPv6 siblings in an
    order of our own: a notification lists the newest first, a dump the oldest.
    """
    hops = body.nexthops
    stateless = not has_state(body)
    if stateless and (len(hops) < 2 or body.family != AF_INET6):
        return body
    if not stateless:
        hops = tuple(attrs.evolve(hop, flags=hop.flags & ~_STATE_FLAGS) for hop in hops)
    if body.family == AF_INET6 and len(hops) > 1:
        hops = tuple(sorted(hops, key=lambda hop: (hop.ifindex, 0 if hop.gateway is None else int(hop.gateway))))
    if hops == body.nexthops and not body.flags & _STATE_FLAGS:
        return body
    return attrs.evolve(body, flags=body.flags & ~_STATE_FLAGS, nexthops=hops)


def address_of(message: AddressMessage) -> Address:
    """Keep of a message what routing needs."""
    return Address(
        ifindex=message.ifindex,
        address=message.address,
        prefix_length=message.prefix_length,
        flags=message.flags,
        scope=message.scope,
        peer=message.peer,
        preferred_lifetime=message.preferred_lifetime,
        valid_lifetime=message.valid_lifetime,
    )


class Staging:
    """One part's dump while it comes in.

    Attributes:
      part: Which part.
      doubts: What of that part was doubtful when the dump began.
      state: What the dump says; only that part of it is filled in.
      flagged: Bodies as the dump showed them, with DEAD or LINKDOWN flags; some perhaps more than once.
      touched: Entries that a notification spoke of since the dump began.
      late: Those of them that are to be decided of anew, since settling began.
      differing: Prefixes under which the complete dump was found to differ from the living tables.
      ways: Links by which next hops died or came alive meanwhile; NETCONFA_IFINDEX_ALL is any.
      contested: Whether the kernel changed something meanwhile without naming the entries.
      absent: Whether the kernel said that it has nothing of this kind.
      confirm: Whether what differs is only to become doubtful: nothing has suggested that the cache is wrong.
      retried: Neighbours that the kernel is asking for again; they are FAILED until they answer.
      found: What the dump's word was taken for against the cache's; not kept where everything was doubtful.
      exceptions: Where the dump is known to be wrong, and the cache's word stands.
    """

    def __init__(self, part: Part, doubts: Doubts = EVERYTHING, *, confirm: bool = False) -> None:
        self.part = part
        self.family: int = _FAMILY_OF.get(part, 0)
        self.doubts = doubts
        self.confirm = confirm
        self.absent = False
        self.retried: set[tuple[int, IPAddress]] = set()
        self.found: list[Difference] = []
        self.exceptions: list[Difference] = []
        self.state: State = State()
        self.flagged: list[RouteBody] = []
        self.touched: set[Hashable] = set()
        self.late: set[Hashable] = set()
        self.differing: dict[NodeKey, None] = {}
        self.ways: set[int] = set()
        self.contested = False

    def touch(self, key: Hashable) -> None:
        """A notification spoke of an entry."""
        self.touched.add(key)
        self.late.add(key)

    def note(self, subject: object, cached: object, dumped: object) -> None:
        """Note a difference of which the dump's word is taken."""
        if self.doubts is not EVERYTHING:
            self.found.append(self.difference(subject, cached, dumped))

    def difference(self, subject: object, cached: object, dumped: object) -> Difference:
        """One difference of this part."""
        return Difference(self.part.value, subject, cached, dumped)

    def note_exception(self, subject: object, cached: object, dumped: object) -> None:
        """Note a difference in which the dump is wrong."""
        self.exceptions.append(Difference(self.part.value, subject, cached, dumped))

    @property
    def holds_routes(self) -> bool:
        """Whether the part is routes, of one family."""
        return self.part in _ROUTES

    def home_of(self, received: RouteBody) -> Home:
        """Where the routes of a body of this family go, for `take_routes`."""
        if has_state(received):
            self.flagged.append(received)
        return self.state.tables[self.family].home_of(plain(received))

    def take_routes(self, homes: Iterable[Home], destinations: Iterable[int]) -> None:
        """Take routes in, by the homes of their bodies, each behind those of its prefix."""
        self.state.tables[self.family].load(homes, destinations)

    def take_route(self, destination: int, body: RouteBody) -> None:
        """Take one route in, behind those of its prefix."""
        # A kernel without IPv6 answers a request for IPv6 routes with those of all families.
        if self.holds_routes and body.family == self.family:
            self.take_routes([self.home_of(body)], [destination])

    def take_link(self, message: LinkMessage) -> None:
        """Take a link in."""
        if message.family == 0:
            self.state.links[message.ifindex] = Link.of(message)

    def take_address(self, message: AddressMessage) -> None:
        """Take an address in."""
        address = address_of(message)
        self.state.addresses.put(Addresses.key(address), address)

    def take_rule(self, rule: RuleMessage) -> None:
        """Take a rule in."""
        if rule.family == self.family:
            self.state.rules[rule.family] = in_order((*self.state.rules[rule.family], without_state(rule)))

    def take_nexthop(self, message: NexthopMessage) -> None:
        """Take a nexthop object in."""
        self.state.nexthops[message.id] = message

    def take_switches(self, message: NetconfMessage) -> None:
        """Take an interface's switches in."""
        if message.family != self.family or message.ifindex == NETCONFA_IFINDEX_DEFAULT:
            return
        if message.ignore_routes_with_linkdown:
            self.state.ignoring_linkdown.add((message.family, message.ifindex))

    def take_neighbour(self, message: NeighbourMessage) -> None:
        """Take a neighbour in."""
        if message.destination is None:
            return
        if message.state & NUD_FAILED:
            self.state.failed.add((message.ifindex, message.destination))
        elif message.state & NUD_INCOMPLETE:
            self.retried.add((message.ifindex, message.destination))


def weigh(
    differing: Iterable[_K],
    touched: AbstractSet[Hashable],
    contested: bool,
    doubts: Doubts,
    confirm: bool = False,
) -> tuple[list[_K], list[_K], set[_K]]:
    """Sort the entries in which a complete dump differs from the living tables; see the table above.

    Args:
      differing: Those entries.
      touched: Entries that a notification spoke of since the dump began.
      contested: Whether the kernel changed something meanwhile without naming the entries.
      doubts: What was doubtful.
      confirm: Whether a difference is to be seen twice.

    Returns:
      Those of which the dump's word is taken; those of which the living tables' word stands, for good or for now;
      and which of the latter are still open.
    """
    taken: list[_K] = []
    kept: list[_K] = []
    still_open: set[_K] = set()
    for key in differing:
        doubtful = doubts is None or key in doubts
        spoken_of = key in touched
        if not spoken_of and not confirm and not (contested and doubtful):
            taken.append(key)
            continue
        kept.append(key)
        if doubtful or (confirm and not spoken_of):
            still_open.add(key)
    return taken, kept, still_open
