"""The one hand that writes in the tables: it changes them, and notes what changed and what a dump may not show.

The messages (`_cache.py`), what they imply (`_implied.py`) and settled dumps (`_settling.py`) all
write through here, so that every change is in the batch and every default route's gateways are
compared with those before.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping

from ..netlink import NETCONFA_IFINDEX_ALL, RTNH_F_DEAD, RTNH_F_LINKDOWN, NextHop, RouteBody
from ._changes import AddressChange, ChangeBatch, GatewayChange, RouteChange
from ._nodes import Node, bodies
from ._staging import ROUTES_OF, Part, Staging, plain
from ._state import AddressKey, State, way_of
from ._tables import NodeKey
from ._values import Address, Link


class Editor:
    """Changes a `State` and keeps the record of it.

    Attributes:
      state: The tables.
      batch: What changed since the last `take_batch`.
      staging: The dump that is coming in, if one is.
      recording: False until the tables are complete for the first time, when everything would be a change.
      suspect: Parts that a change made doubtful in a way that no message will tell: they want a fresh dump.
    """

    def __init__(self) -> None:
        self.state = State()
        self.batch = ChangeBatch()
        self.staging: Staging | None = None
        self.recording = False
        self.suspect: set[Part] = set()
        self._gateways_before: dict[tuple[int, int], tuple[NextHop, ...]] = {}
        self._gateways_moved: set[tuple[int, int]] = set()

    def take_batch(self) -> ChangeBatch:
        """Hand over what changed since the last call."""
        for (family, table), before in self._gateways_before.items():
            after = self._gateways(self.state.tables[family].get((table, 0, 0)))
            if after != before or (family, table) in self._gateways_moved:
                self.batch.gateways.append(GatewayChange(family, table, before, after))
        self._gateways_before.clear()
        self._gateways_moved.clear()
        batch, self.batch = self.batch, ChangeBatch()
        return batch

    # ---- what a dump that is coming in may not show ------------------------------------------

    def touch(self, part: Part, key: Hashable) -> None:
        """Note that a notification spoke of an entry."""
        if self.staging is not None and self.staging.part is part:
            self.staging.touch(key)

    def contest(self, *parts: Part) -> None:
        """Note that the kernel changed entries of these parts without naming them."""
        if self.staging is not None and self.staging.part in parts:
            self.staging.contested = True

    def doubt_ways(self, ifindex: int) -> None:
        """Note that ways by a link died or came alive, or count otherwise than before; NETCONFA_IFINDEX_ALL is any."""
        if self.staging is not None and self.staging.part in (Part.IPV4_ROUTES, Part.IPV6_ROUTES):
            self.staging.ways.add(ifindex)

    # ---- routes --------------------------------------------------------------------------------

    def set_routes(self, family: int, key: NodeKey, routes: tuple[RouteBody, ...]) -> None:
        """Put a prefix's routes in place."""
        tables = self.state.tables[family]
        if key[1] == 0:
            self._remember_gateways(family, key[0], tables.get(key))
        tables.put(key, routes)
        if key[1] == 0:
            self._mind_gateways(family, key)

    def change_routes(self, family: int, changing: Mapping[RouteBody, RouteBody | None], cause: str) -> None:
        """Change or, with None, remove routes everywhere, as the kernel did without a word."""
        tables, staging, changes = self.state.tables[family], self.staging, self.batch.routes
        defaults = [key for key, node in tables.defaults() if any(body in changing for body in bodies(node))]
        for key in defaults:
            self._remember_gateways(family, key[0], tables.get(key))
        for table, length, destinations, numbers, before in tables.exchange(changing):
            if staging is not None and staging.part is ROUTES_OF[family]:
                for destination in destinations:
                    staging.touch((table, length, destination))
            steps = {
                number: [(body, changing[body]) for body in bodies(node) if body in changing]
                for number, node in before.items()
            }
            changes.extend(
                RouteChange(destination, old, new, cause)
                for destination, number in zip(destinations, numbers, strict=True)
                for old, new in steps[number]
            )
        for key in defaults:
            self._mind_gateways(family, key)
        for old, new in changing.items():
            if new is not None:
                self.move_dead_ways(old, new)
            self.forget_ways(old)

    def note_revived(self, family: int, keys: Iterable[NodeKey]) -> None:
        """Note that routes came to life again without a word."""
        self.batch.revived.extend((family, destination, length) for _, length, destination in keys)

    # ---- next hops -----------------------------------------------------------------------------

    def see_flags(self, received: RouteBody, body: RouteBody) -> None:
        """Take the word of a notification, whose next hops have their flags, for which of a route's are dead."""
        dead_ways = self.state.dead_ways
        if received.nexthop_id or not (dead_ways or any(hop.flags & RTNH_F_DEAD for hop in received.nexthops)):
            return
        for hop in received.nexthops:
            self.doubt_ways(hop.ifindex)
            if self._is_dead(body, hop):
                dead_ways.add(way_of(body, hop))
            else:
                dead_ways.discard(way_of(body, hop))

    def see_dumped_flags(self, staging: Staging) -> None:
        """Take a complete dump's word for which ways are dead, but by links of which something was heard meanwhile."""
        dead_ways, changed = self.state.dead_ways, staging.ways
        if NETCONFA_IFINDEX_ALL in changed:
            return
        dead = {
            way_of(body, hop)
            for body, received in ((plain(received), received) for received in staging.flagged)
            if not received.nexthop_id
            for hop in received.nexthops
            if hop.ifindex not in changed and self._is_dead(body, hop)
        }
        dead_ways -= {way for way in dead_ways if way[0].family == staging.family and way[1] not in changed}
        dead_ways |= dead

    def _is_dead(self, body: RouteBody, hop: NextHop) -> bool:
        """Whether a way of a route, with its flags as received, is dead for its own sake."""
        if not hop.flags & RTNH_F_DEAD:
            return False
        # Where routes without carrier are passed over, the kernel shows those as DEAD too (fib_nexthop_info). LINKDOWN
        # alone does not tell: a way whose link is down, or lost its last address, has both flags.
        link = self.state.links.get(hop.ifindex)
        without_carrier = link is not None and link.up and not link.flags & Link.IFF_LOWER_UP
        told_so = hop.flags & RTNH_F_LINKDOWN and self.state.passes_over_linkdown(body.family, hop.ifindex)
        if without_carrier and told_so:
            return way_of(body, hop) in self.state.dead_ways  # the flags do not tell; what was known stays
        return True

    def move_dead_ways(self, old: RouteBody, new: RouteBody) -> None:
        """Have a route's remaining next hops stay dead when others leave it."""
        if self.state.dead_ways:
            left = [hop for hop in new.nexthops if way_of(old, hop) in self.state.dead_ways]
            self.state.dead_ways.update(way_of(new, hop) for hop in left)

    def forget_ways(self, body: RouteBody) -> None:
        """Forget which next hops of a route were dead, if no such route is left: a like one that comes is another."""
        dead_ways = self.state.dead_ways
        if dead_ways and body not in self.state.tables[body.family].bodies():
            dead_ways.difference_update([way_of(body, hop) for hop in body.nexthops])

    def revive_ways(self, family: int, ifindex: int) -> None:
        """Forget that next hops on a link are dead for another reason than the link."""
        self.doubt_ways(ifindex)
        dead_ways = self.state.dead_ways
        dead_ways -= {way for way in dead_ways if way[0].family == family and way[1] == ifindex}

    # ---- gateways of default routes --------------------------------------------------------------

    def remember_gateways_by_objects(self) -> None:
        """Note the gateways that default routes have through nexthop objects, before an object changes."""
        for family, tables in self.state.tables.items():
            for (table, _, _), node in tables.defaults():
                if any(body.nexthop_id for body in bodies(node)):
                    self._remember_gateways(family, table, node)

    def _remember_gateways(self, family: int, table: int, node: Node | None) -> None:
        if (family, table) not in self._gateways_before:
            self._gateways_before[family, table] = self._gateways(node)

    def _mind_gateways(self, family: int, key: NodeKey) -> None:
        if self._gateways(self.state.tables[family].get(key)) != self._gateways_before[family, key[0]]:
            # Gone and back within one batch is a change as well: many networks have a gateway of the same address.
            self._gateways_moved.add((family, key[0]))

    def _gateways(self, node: Node | None) -> tuple[NextHop, ...]:
        """The gateways of a default route's node, the preferred first, each once.

        The order belongs to it: a second default route that becomes the better one changes nothing in the set,
        and everything for who is behind the gateway. Within a multipath route it means nothing, nor do weights.
        """
        found: dict[NextHop, None] = {}
        for body in bodies(node):
            ways = [NextHop(hop.ifindex, hop.gateway) for hop in self.state.expand(body)[0] if hop.gateway is not None]
            found.update(dict.fromkeys(sorted(ways, key=lambda way: (way.ifindex, str(way.gateway)))))
        return tuple(found)

    # ---- addresses -------------------------------------------------------------------------------

    def set_address(self, key: AddressKey, entry: Address | None, cause: str) -> None:
        """Put an address in place or, with None, remove it."""
        old = self.state.addresses.get(key)
        self.state.addresses.put(key, entry)
        if old != entry:  # refreshed lifetimes are not a change
            self.batch.addresses.append(AddressChange(old, entry, cause))
