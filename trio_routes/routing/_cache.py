"""The routing cache: messages in, facts and changes out. Pure; the follow task feeds it.

Between dumps the kernel's notifications keep it exact, together with what they imply but do not
say (`_implied.py`). A dump is *staged* beside the living tables (`_staging.py`) and *settled* when
it is complete (`_settling.py`). All of them write through one `Editor`.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence

from ..netlink import (
    AF_INET,
    AF_INET6,
    NETCONFA_IFINDEX_DEFAULT,
    NUD_FAILED,
    RTN_MULTICAST,
    AddressMessage,
    LinkMessage,
    NeighbourMessage,
    NetconfMessage,
    NexthopMessage,
    RouteBody,
)
from . import _implied as implied
from ._changes import ChangeBatch, LinkChange, NeighbourChange, RouteChange, RuleChange, net_in_pieces
from ._editor import Editor
from ._nodes import Edit, add_ipv4, add_ipv6, entry_of, joins_siblings, remove_ipv4, remove_ipv6
from ._overlay import Overlay
from ._questions import Questions
from ._rules import in_order, without_state
from ._settling import settle_in_pieces
from ._staging import ALL_RULES, ROUTES_OF, RULES_OF, SWITCHES_OF, Doubts, Part, Staging, address_of, plain
from ._state import Addresses
from ._tables import NodeKey
from ._values import Address, Link, Route, Rule

_ADDED, _DELETED = "RTM_NEWROUTE", "RTM_DELROUTE"


class Cache(Questions):
    """A live copy of the kernel's routing state, and the answers it gives.

    Attributes:
      generation: Counts the batches that changed something.
      resyncing: True while the tables are read anew after a loss; what is answered meanwhile may be old.
    """

    def __init__(self) -> None:
        self._editor = Editor()
        super().__init__(self._editor.state)
        self.generation: int = 0
        self.resyncing: bool = False

    def overlay(self) -> Overlay:
        """A view of the tables to take things away from; it holds until they change, and changes nothing here."""
        return Overlay(self.state, self.generation)

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
        batch = self._editor.take_batch()
        return self._numbered(batch)

    def take_net_changes(self, resynced: str) -> Generator[None, None, ChangeBatch]:
        """Do the same after a resync, with only what is different in the end, and the reason; anything may differ.

        Yields now and then, as there may be hundreds of thousands; given up before its end, it has taken nothing.
        """
        yield from net_in_pieces(self._editor.batch)
        batch = self._editor.take_batch()
        batch.resynced = resynced
        batch.everything = True
        return self._numbered(batch)

    def start_recording(self) -> None:
        """The tables are complete for the first time: what changes from here on is a change."""
        self.take_changes()
        self._editor.recording = True

    def _numbered(self, batch: ChangeBatch) -> ChangeBatch:
        if batch:
            self.generation += 1
        batch.generation = self.generation
        return batch

    # ---- dumps -----------------------------------------------------------------------------

    def stage(self, part: Part, doubts: Doubts, *, confirm: bool = False) -> Staging:
        """Begin to take in a dump of one part, of which `doubts` is not known to be true.

        Notifications from here on are held against it. With `confirm`, what differs from what is known to be true
        only becomes doubtful.
        """
        self._editor.staging = staging = Staging(part, doubts, confirm=confirm)
        self._editor.suspect.discard(part)
        return staging

    def abandon(self) -> None:
        """Forget a dump that is incomplete."""
        self._editor.staging = None

    def settle(self, staging: Staging) -> Doubts:
        """Take a complete dump's word where it can be taken; returns what of that part is doubtful still."""
        pieces = self.settle_in_pieces(staging)
        while True:
            try:
                next(pieces)
            except StopIteration as end:
                still: Doubts = end.value
                return still

    def settle_in_pieces(self, staging: Staging) -> Generator[None, None, Doubts]:
        """Do the same, with pauses in which notifications may be applied; `abandon` ends it as well."""
        return settle_in_pieces(self._editor, staging)

    @property
    def suspect(self) -> frozenset[Part]:
        """Parts that a change made doubtful in a way that no message will tell: they want a fresh dump."""
        return frozenset(self._editor.suspect)

    # ---- notifications ---------------------------------------------------------------------

    def add_route(self, destination: int, received: RouteBody, flags: int) -> None:
        """Apply RTM_NEWROUTE; `flags` are the header's NLM_F_* flags."""
        editor, family = self._editor, received.family
        tables = editor.state.tables.get(family)
        if tables is None:
            return  # MPLS and multicast routing
        key = (received.table, received.prefix_length, destination)
        if editor.staging is not None:
            editor.touch(ROUTES_OF[family], key)
        # Of a prefix's first route the flags mean nothing; of a default route there is more to be noted.
        if received.prefix_length and tables.put_another(key, received):
            editor.batch.routes.append(RouteChange(destination, None, received, _ADDED))
            entry = received
        else:
            body = plain(received)
            add = add_ipv4 if family == AF_INET else add_ipv6
            done = add(tables.at(key), body, flags)
            self._carry_out(family, key, done, _ADDED)
            entry = entry_of(done.routes, body)
        if received.type == RTN_MULTICAST:
            implied.by_route(editor, key, received, gone=False)
        if editor.state.dead_ways or entry is not received:
            editor.see_flags(received, entry)

    def remove_route(self, destination: int, received: RouteBody) -> None:
        """Apply RTM_DELROUTE."""
        editor, family = self._editor, received.family
        tables = editor.state.tables.get(family)
        if tables is None:
            return
        key = (received.table, received.prefix_length, destination)
        if editor.staging is not None:
            editor.touch(ROUTES_OF[family], key)
        # Of a group of siblings some may go; then there is more to do, as there is for a default route.
        if received.prefix_length and len(received.nexthops) < 2 and tables.remove_only(key, received):
            editor.batch.routes.append(RouteChange(destination, received, None, _DELETED))
            if editor.state.dead_ways:
                editor.forget_ways(received)
        else:
            remove = remove_ipv4 if family == AF_INET else remove_ipv6
            self._carry_out(family, key, remove(tables.at(key), plain(received)), _DELETED)
        if received.type == RTN_MULTICAST:
            implied.by_route(editor, key, received, gone=True)

    def _carry_out(self, family: int, key: NodeKey, done: Edit, cause: str) -> None:
        """Put what a message did to a node into the tables and into the batch."""
        if done.old is None and done.new is None:
            return
        self._editor.set_routes(family, key, done.routes)
        self._editor.batch.routes.append(RouteChange(key[2], done.old, done.new, cause))
        if family == AF_INET6 and done.old is not None:
            self._mind_siblings(done.old, done.new)
        if done.old is not None:
            self._editor.forget_ways(done.old)

    def _mind_siblings(self, old: RouteBody, new: RouteBody | None) -> None:
        ways = 0 if new is None else len(new.nexthops)
        if not joins_siblings(old) or ways >= len(old.nexthops) or len(old.nexthops) == 1:
            return
        # A dump tells only the first sibling's attributes, and hides routes that lie between them.
        self._editor.suspect.add(Part.IPV6_ROUTES)
        if new is not None:
            self._editor.move_dead_ways(old, new)

    def apply_link(self, message: LinkMessage, gone: bool) -> None:
        """Apply RTM_NEWLINK or RTM_DELLINK."""
        if message.family != 0:
            return  # AF_BRIDGE and AF_INET6 speak of a port's or a family's settings; a DELLINK there is no link going
        editor, ifindex = self._editor, message.ifindex
        editor.touch(Part.LINKS, ifindex)
        old = self.state.links.get(ifindex)
        new = None if gone else Link.of(message)
        if old == new:
            return
        if new is None:
            del self.state.links[ifindex]
        else:
            self.state.links[ifindex] = new
        cause = implied.describe_link_change(old, new)
        editor.batch.links.append(LinkChange(old, new, cause))
        implied.by_link(editor, ifindex, old, new, cause)

    def apply_address(self, message: AddressMessage, gone: bool) -> None:
        """Apply RTM_NEWADDR or RTM_DELADDR."""
        entry = address_of(message)
        key = Addresses.key(entry)
        self._editor.touch(Part.ADDRESSES, key)
        if gone and self.state.addresses.get(key) is None:
            # Told twice, or of one that nobody heard of. What it would imply is a guess; the kernel is asked.
            part = ROUTES_OF.get(message.family)
            if part is not None:
                self._editor.contest(part)
                self._editor.suspect.add(part)
        elif gone:
            self._editor.set_address(key, None, "RTM_DELADDR")
            implied.by_address(self._editor, entry.ifindex, entry.address, None)
        else:
            self._editor.set_address(key, entry, "RTM_NEWADDR")
            implied.by_address(self._editor, entry.ifindex, entry.address, entry)

    def apply_rule(self, rule: Rule, gone: bool) -> None:
        """Apply RTM_NEWRULE or RTM_DELRULE."""
        if rule.family not in RULES_OF:
            return  # multicast routing has rules of its own
        self._editor.touch(RULES_OF[rule.family], ALL_RULES)
        if not gone:
            self.state.unruled.discard(rule.family)
        rule = without_state(rule)
        known = self.state.rules[rule.family]
        if gone != (rule in known):
            return
        batch = self._editor.batch
        if gone:
            at = known.index(rule)
            self.state.rules[rule.family] = (*known[:at], *known[at + 1 :])
            batch.rules.append(RuleChange(rule, None, "RTM_DELRULE"))
        else:
            self.state.rules[rule.family] = in_order((*known, rule))
            batch.rules.append(RuleChange(None, rule, "RTM_NEWRULE"))
        batch.everything = True

    def apply_nexthop(self, message: NexthopMessage, gone: bool) -> None:
        """Apply RTM_NEWNEXTHOP or RTM_DELNEXTHOP."""
        editor = self._editor
        editor.touch(Part.NEXTHOPS, message.id)
        if gone:
            # The routes that used it go with it; IPv4's without a word.
            editor.contest(Part.IPV4_ROUTES, Part.IPV6_ROUTES)
            implied.without_nexthops(editor, {message.id}, f"nexthop object {message.id} was deleted")
        elif self.state.nexthops.get(message.id) != message:
            editor.remember_gateways_by_objects()
            self.state.nexthops[message.id] = message
            editor.batch.everything = True

    def apply_switches(self, message: NetconfMessage, gone: bool) -> None:
        """Apply RTM_NEWNETCONF or RTM_DELNETCONF, of which routing depends on one switch."""
        part = SWITCHES_OF.get(message.family)
        switch = 0 if gone else message.ignore_routes_with_linkdown
        if part is None or switch is None:  # a notification names only the switch that was turned
            return
        if message.ifindex == NETCONFA_IFINDEX_DEFAULT:  # what links that are yet to come begin with
            return
        key = message.family, message.ifindex
        self._editor.touch(part, key)
        ignoring = self.state.ignoring_linkdown
        if (key in ignoring) == bool(switch):
            return
        ignoring ^= {key}
        self._editor.doubt_ways(message.ifindex)
        self._editor.batch.everything = True

    def apply_neighbour(self, message: NeighbourMessage, gone: bool) -> None:
        """Apply RTM_NEWNEIGH or RTM_DELNEIGH; only whether a neighbour is FAILED is kept."""
        if message.destination is None:
            return
        key = (message.ifindex, message.destination)
        self._editor.touch(Part.NEIGHBOURS, key)
        failed = not gone and bool(message.state & NUD_FAILED)
        if failed != (key in self.state.failed):
            self.state.failed ^= {key}
            self._editor.batch.neighbours.append(NeighbourChange(*key, failed))
