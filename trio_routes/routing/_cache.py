"""The routing cache: messages in, facts and changes out. Pure; the follow task feeds it.

Between dumps the kernel's notifications keep it exact, together with what they imply but do
not say (`_implied.py`). A dump is *staged* beside the living tables and *settled* when it is
complete: for everything that no notification touched meanwhile the dump's word is taken; what
was touched must already agree, or is doubtful and has to be dumped again.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import TypeVar

import attrs

from ..netlink import (
    AF_INET,
    AF_INET6,
    NUD_FAILED,
    RTNH_F_DEAD,
    RTNH_F_LINKDOWN,
    AddressMessage,
    IPAddress,
    LinkMessage,
    NeighbourMessage,
    NetconfMessage,
    NextHop,
    NexthopMessage,
    RouteBody,
    RuleMessage,
)
from . import _implied as implied
from ._changes import (
    AddressChange,
    ChangeBatch,
    GatewayChange,
    LinkChange,
    NeighbourChange,
    RouteChange,
    RuleChange,
)
from ._lookup import expand, local_route, resolve
from ._nodes import Edit, Node, add_ipv4, add_ipv6, bodies, remove_ipv4, remove_ipv6
from ._query import Query
from ._rules import in_order, without_state
from ._state import Addresses, State, bare
from ._tables import NodeKey, RouteTables
from ._values import Address, Link, Resolution, Route, Rule

_K = TypeVar("_K", bound=Hashable)
_V = TypeVar("_V")
# The cause of a change that no notification told of.
FOUND_BY_DUMP = "found by a dump"
_STATE_FLAGS = RTNH_F_DEAD | RTNH_F_LINKDOWN


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


class Staging:
    """One part's dump while it comes in, and what notifications touched of that part meanwhile.

    Attributes:
      part: Which part.
      routes: The staged tables, of a part that holds routes.
      entries: The staged entries, in the dump's order, of any other part.
      touched: Prefixes that a notification spoke of since the dump began.
      contested: True once something happened that the dump may or may not show as a whole.
    """

    def __init__(self, part: Part) -> None:
        self.part = part
        self.routes = {Part.IPV4_ROUTES: RouteTables(AF_INET), Part.IPV6_ROUTES: RouteTables(AF_INET6)}.get(part)
        self.entries: list[object] = []
        self.touched: set[NodeKey] = set()
        self.contested = False


class Cache:
    """A live copy of the kernel's routing state, and the answers it gives.

    Attributes:
      generation: Counts the batches that changed something.
      resyncing: True while the tables are read anew after a loss; what is answered meanwhile may be old.
      state: The tables themselves; read only for everybody else.
    """

    def __init__(self) -> None:
        self.generation = 0
        self.resyncing = False
        self.state = State()
        self._batch = ChangeBatch()
        self._gateways_before: dict[tuple[int, int], frozenset[NextHop]] = {}
        self._staging: Staging | None = None
        self._plain: dict[RouteBody, RouteBody] = {}

    # ---- questions -------------------------------------------------------------------------

    def lookup(
        self,
        destination: IPAddress,
        *,
        source: IPAddress | None = None,
        mark: int = 0,
        oif: int | None = None,
        iif: int | None = None,
        tos: int = 0,
        uid: int | None = None,
        strict: bool = False,
        any_source: bool = False,
        onlink_fallback: bool = True,
    ) -> Resolution:
        """Answer which way a flow goes now; see `Query` for the arguments. Not a checkpoint."""
        query = Query(
            destination=destination,
            source=source,
            mark=mark,
            oif=oif or 0,
            iif=iif or 0,
            tos=tos,
            uid=uid or 0,
            strict=strict,
            any_source=any_source,
            onlink_fallback=onlink_fallback,
        )
        return resolve(self.state, query, self.generation)

    @property
    def links(self) -> Mapping[int, Link]:
        """The links by ifindex."""
        return self.state.links

    def link(self, ifindex: int) -> Link | None:
        """One link, or None if there is none of that number."""
        return self.state.links.get(ifindex)

    def has_address(self, address: IPAddress, ifindex: int) -> bool:
        """Whether a link has an address that counts as there (not DADFAILED)."""
        return self.state.has_address(address, ifindex)

    def addresses_of(self, address: IPAddress) -> tuple[Address, ...]:
        """This address wherever a link has it."""
        return self.state.addresses.of(address)

    def local_route(self, address: IPAddress) -> Route | None:
        """The `local` route of table 255 that covers an address, or None."""
        return local_route(self.state, address)

    def neighbour_failed(self, ifindex: int, address: IPAddress) -> bool:
        """Whether the kernel has given up resolving a neighbour (NUD_FAILED)."""
        return (ifindex, bare(address)) in self.state.failed

    def routes(self) -> Iterator[Route]:
        """All routes of all tables, IPv4 first."""
        for tables in self.state.tables.values():
            yield from tables

    def rules(self, family: int) -> Sequence[Rule]:
        """The policy rules of a family, in the order in which they are tried."""
        return self.state.rules[family]

    def addresses(self) -> Iterator[Address]:
        """All addresses of all links."""
        return iter(self.state.addresses)

    # ---- changes ---------------------------------------------------------------------------

    def take_changes(self) -> ChangeBatch:
        """Hand over what changed since the last call, as one batch with a generation of its own."""
        for (family, table), before in self._gateways_before.items():
            after = self._gateways(family, table)
            if after != before:
                self._batch.gateways.append(GatewayChange(family, table, before, after))
        self._gateways_before.clear()
        batch, self._batch = self._batch, ChangeBatch()
        if batch:
            self.generation += 1
        batch.generation = self.generation
        return batch

    def _gateways(self, family: int, table: int) -> frozenset[NextHop]:
        return self._gateways_in(self.state.tables[family].get((table, 0, 0)))

    def _gateways_in(self, node: Node | None) -> frozenset[NextHop]:
        return frozenset(hop for body in bodies(node) for hop in expand(self.state, body)[0] if hop.gateway is not None)

    def note_everything(self) -> None:
        """Record that any answer may differ now."""
        self._batch.everything = True

    def note_resynced(self, reason: str) -> None:
        """Record that the tables were read anew, and why."""
        self._batch.resynced = reason

    def _touch(self, part: Part, key: NodeKey | None = None) -> None:
        """Record that a notification spoke of `part` while it is being dumped."""
        staging = self._staging
        if staging is None or staging.part is not part:
            return
        if key is None:
            staging.contested = True
        else:
            staging.touched.add(key)

    # ---- routes ----------------------------------------------------------------------------

    def plain(self, body: RouteBody) -> RouteBody:
        """The body without the DEAD and LINKDOWN flags, which change without a word and so are derived."""
        known = self._plain.get(body)
        if known is None:
            if len(self._plain) > 65_536:
                self._plain.clear()
            hops = tuple(
                attrs.evolve(hop, flags=hop.flags & ~_STATE_FLAGS) if hop.flags & _STATE_FLAGS else hop
                for hop in body.nexthops
            )
            known = body if hops == body.nexthops else attrs.evolve(body, nexthops=hops)
            self._plain[body] = known
        return known

    def add_route(self, destination: int, body: RouteBody, flags: int) -> None:
        """Apply an RTM_NEWROUTE notification; `flags` are the header's NLM_F_* flags."""
        body = self.plain(body)
        add = add_ipv4 if body.family == AF_INET else add_ipv6
        self._edit_route(destination, body, lambda routes: add(routes, body, flags), "RTM_NEWROUTE")

    def remove_route(self, destination: int, body: RouteBody) -> None:
        """Apply an RTM_DELROUTE notification."""
        body = self.plain(body)
        remove = remove_ipv4 if body.family == AF_INET else remove_ipv6
        self._edit_route(destination, body, lambda routes: remove(routes, body), "RTM_DELROUTE")

    def _edit_route(
        self, destination: int, body: RouteBody, edit: Callable[[tuple[RouteBody, ...]], Edit], cause: str
    ) -> None:
        tables = self.state.tables.get(body.family)
        if tables is None:
            return  # MPLS and multicast routing
        key = (body.table, body.prefix_length, destination)
        self._touch(ROUTES_OF[body.family], key)
        before = bodies(tables.get(key))
        after = edit(before)
        if after.routes != before:
            self.set_routes(body.family, key, after.routes)
            self._batch.routes.append(RouteChange(destination, after.old, after.new, cause))

    def set_routes(self, family: int, key: NodeKey, routes: tuple[RouteBody, ...]) -> None:
        """Put a node's routes in place, remembering the gateways that a default route had before."""
        tables = self.state.tables[family]
        if key[1] == 0:
            self._gateways_before.setdefault((family, key[0]), self._gateways_in(tables.get(key)))
        tables.put(key, routes)

    def drop_routes(self, family: int, dying: list[tuple[NodeKey, tuple[RouteBody, ...]]], cause: str) -> None:
        """Remove routes that the kernel removed without a word: (prefix, routes of it that went)."""
        if dying:
            self._touch(ROUTES_OF[family])
        for key, gone in dying:
            left = tuple(body for body in bodies(self.state.tables[family].get(key)) if body not in gone)
            self.set_routes(family, key, left)
            self._batch.routes.extend(RouteChange(key[2], body, None, cause) for body in gone)

    def replace_routes(self, family: int, changing: list[tuple[NodeKey, RouteBody, RouteBody]], cause: str) -> None:
        """Replace routes that the kernel changed without a word: (prefix, route before, route after)."""
        if changing:
            self._touch(ROUTES_OF[family])
        for key, old, new in changing:
            routes = bodies(self.state.tables[family].get(key))
            self.set_routes(family, key, tuple(new if body == old else body for body in routes))
            self._batch.routes.append(RouteChange(key[2], old, new, cause))

    def note_revived(self, family: int, keys: list[NodeKey]) -> None:
        """Record that routes came to life again without a word."""
        self._batch.revived.extend((family, destination, length) for _, length, destination in keys)

    # ---- everything else -------------------------------------------------------------------

    def apply_link(self, message: LinkMessage, gone: bool) -> None:
        """Apply RTM_NEWLINK or RTM_DELLINK."""
        if message.family != 0:
            return  # AF_BRIDGE and AF_INET6 speak of a port's or a family's settings; a DELLINK there is no link going
        self._touch(Part.LINKS)
        old = self.state.links.get(message.ifindex)
        new = None if gone else Link.of(message)
        if old == new:
            return
        if new is None:
            del self.state.links[message.ifindex]
        else:
            self.state.links[message.ifindex] = new
        cause = implied.describe_link_change(old, new)
        self._batch.links.append(LinkChange(old, new, cause))
        implied.by_link(self, old, new, cause)

    def apply_address(self, message: AddressMessage, gone: bool) -> None:
        """Apply RTM_NEWADDR or RTM_DELADDR."""
        self._touch(Part.ADDRESSES)
        entry = address_of(message)
        self.set_address(Addresses.key(entry), None if gone else entry, "RTM_DELADDR" if gone else "RTM_NEWADDR")

    def set_address(self, key: tuple[int, IPAddress, int], entry: Address | None, cause: str) -> None:
        """Put an address in place or, with None, remove it; and do what that implies."""
        old = self.state.addresses.get(key)
        if old is None and entry is None:
            return
        self.state.addresses.put(key, entry)
        if old == entry:
            return  # refreshed lifetimes are not a change
        self._batch.addresses.append(AddressChange(old, entry, cause))
        implied.by_address(self, key[0], old, entry)

    def apply_rule(self, rule: Rule, gone: bool) -> None:
        """Apply RTM_NEWRULE or RTM_DELRULE."""
        if rule.family not in RULES_OF:
            return  # multicast routing has rules of its own
        self._touch(RULES_OF[rule.family])
        rule = without_state(rule)
        known = self.state.rules[rule.family]
        if gone == (rule not in known):
            return
        if gone:
            at = known.index(rule)
            self.state.rules[rule.family] = (*known[:at], *known[at + 1 :])
        else:
            self.state.rules[rule.family] = in_order((*known, rule))
        cause = "RTM_DELRULE" if gone else "RTM_NEWRULE"
        self._batch.rules.append(RuleChange(rule, None, cause) if gone else RuleChange(None, rule, cause))
        self.note_everything()

    def apply_nexthop(self, message: NexthopMessage, gone: bool) -> None:
        """Apply RTM_NEWNEXTHOP or RTM_DELNEXTHOP."""
        self._touch(Part.NEXTHOPS)
        if gone:
            implied.without_nexthops(self, {message.id}, f"nexthop object {message.id} was deleted")
        else:
            self.state.nexthops[message.id] = message
            self.note_everything()

    def apply_switches(self, message: NetconfMessage, gone: bool) -> None:
        """Apply RTM_NEWNETCONF or RTM_DELNETCONF."""
        if message.family not in SWITCHES_OF:
            return
        self._touch(SWITCHES_OF[message.family])
        key = (message.family, message.ifindex)
        old = self.state.switches.get(key)
        before = None if old is None else old.ignore_routes_with_linkdown
        if gone:
            self.state.switches.pop(key, None)
        elif message.ignore_routes_with_linkdown is not None or old is None:
            # A notification names only the switch that was turned; of those, routing depends on this one.
            self.state.switches[key] = message
            if message.ignore_routes_with_linkdown != before:
                self.note_everything()

    def apply_neighbour(self, message: NeighbourMessage, gone: bool) -> None:
        """Apply RTM_NEWNEIGH or RTM_DELNEIGH; only whether a neighbour is FAILED is kept."""
        if message.destination is None:
            return
        key = (message.ifindex, message.destination)
        failed = not gone and bool(message.state & NUD_FAILED)
        if failed == (key in self.state.failed):
            return
        if failed:
            self.state.failed.add(key)
        else:
            self.state.failed.discard(key)
        self._batch.neighbours.append(NeighbourChange(message.ifindex, message.destination, failed))

    # ---- dumps -----------------------------------------------------------------------------

    def stage(self, part: Part) -> Staging:
        """Begin to take in a dump of one part; notifications from here on are held against it."""
        self._staging = Staging(part)
        return self._staging

    def abandon(self) -> None:
        """Forget a dump that is incomplete."""
        self._staging = None

    def settle(self, staging: Staging, doubtful: set[NodeKey] | None) -> set[NodeKey] | None:
        """Take a complete dump's word, and say what of it could not be taken.

        Args:
          staging: The complete dump.
          doubtful: The prefixes of this part that an earlier dump left open; None where nothing of it is known for
            sure (the first dump, or one after notifications were lost).

        Returns:
          The prefixes that are still open; None where the whole part has to be dumped again; empty when it is exact.
        """
        self._staging = None
        if staging.contested:
            return None
        if staging.routes is None:
            self._settle_entries(staging)
            return set()
        return self._settle_routes(staging.routes, staging.touched, doubtful)

    def _settle_routes(self, staged: RouteTables, touched: set[NodeKey], doubtful: set[NodeKey] | None) -> set[NodeKey]:
        family = staged.family
        living = self.state.tables[family]
        if not len(living.dicts()) and not touched:
            self.state.tables[family] = staged  # the first dump, undisturbed: nothing to compare with
            return set()
        still: set[NodeKey] = set()
        for key in _differing(living, staged):
            if key in touched:
                # Followed from a known state, the notifications are right and the dump's part was merely older;
                # from an unknown one, neither can be trusted.
                if doubtful is None or key in doubtful:
                    still.add(key)
                continue
            before, after = bodies(living.get(key)), bodies(staged.get(key))
            self.set_routes(family, key, after)
            for old in before:
                if old not in after:
                    self._batch.routes.append(RouteChange(key[2], old, None, FOUND_BY_DUMP))
            for new in after:
                if new not in before:
                    self._batch.routes.append(RouteChange(key[2], None, new, FOUND_BY_DUMP))
        living.forget_unused_bodies()
        return still

    def _settle_entries(self, staging: Staging) -> None:
        entries = staging.entries
        match staging.part:
            case Part.LINKS:
                self._settle_links({link.ifindex: link for link in entries if isinstance(link, Link)})
            case Part.ADDRESSES:
                self._settle_addresses({Addresses.key(entry): entry for entry in entries if isinstance(entry, Address)})
            case Part.IPV4_RULES | Part.IPV6_RULES:
                family = AF_INET if staging.part is Part.IPV4_RULES else AF_INET6
                self._settle_rules(family, [entry for entry in entries if isinstance(entry, RuleMessage)])
            case Part.IPV4_SWITCHES | Part.IPV6_SWITCHES:
                family = AF_INET if staging.part is Part.IPV4_SWITCHES else AF_INET6
                others = {key: known for key, known in self.state.switches.items() if key[0] != family}
                found = {(m.family, m.ifindex): m for m in entries if isinstance(m, NetconfMessage)}
                self.state.switches = others | found
            case Part.NEXTHOPS:
                self.state.nexthops = {m.id: m for m in entries if isinstance(m, NexthopMessage)}
            case Part.NEIGHBOURS:
                self._settle_neighbours([m for m in entries if isinstance(m, NeighbourMessage)])
            case _:
                raise AssertionError(f"{staging.part} is staged as routes")

    def _settle_links(self, found: dict[int, Link]) -> None:
        for ifindex, old, new in list(_differences(self.state.links, found)):
            self._batch.links.append(LinkChange(old, new, FOUND_BY_DUMP))
            if new is None:
                del self.state.links[ifindex]
            else:
                self.state.links[ifindex] = new

    def _settle_addresses(self, found: dict[tuple[int, IPAddress, int], Address]) -> None:
        for key, old, new in list(_differences(dict(self.state.addresses.items()), found)):
            self.state.addresses.put(key, new)
            self._batch.addresses.append(AddressChange(old, new, FOUND_BY_DUMP))

    def _settle_rules(self, family: int, found: list[Rule]) -> None:
        before = self.state.rules[family]
        rules = in_order(tuple(without_state(rule) for rule in found if rule.family == family))
        if rules == before:
            return
        for _, gone, came in _differences({rule: rule for rule in before}, {rule: rule for rule in rules}):
            self._batch.rules.append(RuleChange(gone, came, FOUND_BY_DUMP))
        self.state.rules[family] = rules
        self.note_everything()

    def _settle_neighbours(self, found: list[NeighbourMessage]) -> None:
        failed = {(m.ifindex, m.destination) for m in found if m.destination is not None and m.state & NUD_FAILED}
        for ifindex, address in failed ^ self.state.failed:
            self._batch.neighbours.append(NeighbourChange(ifindex, address, (ifindex, address) in failed))
        self.state.failed = failed


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


def _differences(old: Mapping[_K, _V], new: Mapping[_K, _V]) -> Iterator[tuple[_K, _V | None, _V | None]]:
    for key in [*old, *(key for key in new if key not in old)]:
        if old.get(key) != new.get(key):
            yield key, old.get(key), new.get(key)


def _differing(living: RouteTables, staged: RouteTables) -> list[NodeKey]:
    """The prefixes under which two sets of tables differ."""
    found: list[NodeKey] = []
    ours, theirs = living.dicts(), staged.dicts()
    for table, length in {**ours, **theirs}:
        left, right = ours.get((table, length), {}), theirs.get((table, length), {})
        if left == right:  # at C speed: bodies are shared, so equal ones are mostly the same object
            continue
        changed = [d for d, node in left.items() if right.get(d) != node]
        changed += [d for d in right if d not in left]
        found.extend((table, length, destination) for destination in changed)
    return found
