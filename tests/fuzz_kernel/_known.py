"""The classes of differences in which the kernel's own dump or answer is not the truth, each recognised here.

What is not recognised is a defect. The classes are those of docs/kernel.md ("Where the dump itself is wrong", "Known
limits"), under the names that a run prints.
"""

from __future__ import annotations

import errno
from itertools import product
from typing import Final

import attrs

from trio_routes.netlink import AF_INET, AF_INET6, IPAddress, NextHop, RouteBody
from trio_routes.routing import Address, Link, Resolution, Route
from trio_routes.routing._nodes import bodies, joins_siblings, slot_of
from trio_routes.routing._state import State

HIDDEN: Final = "IPv6 route hidden between siblings"
EXPIRY: Final = "IPv6 expiry refreshed or cleared without a word"


BORROWED_SOURCE: Final = "IPv4 source of another link: the order of links is not told"
SOURCE_TIE: Final = "IPv6 source: a tie between addresses"
SIBLING: Final = "IPv6 sibling with a source of its own: a dump tells the first one's"
TOO_SMALL: Final = "IPv6 by a nexthop object on a link without IPv6, while no rule was ever added"
STALE_HASH: Final = "multipath hash takes a member without carrier until it is rebalanced"
LOST_SUBTREE: Final = "IPv6 source-specific route that the kernel loses with the plain one beside it"
LOOPBACK_SOURCE: Final = "IPv4 loopback source on another link (EINVAL)"


@attrs.frozen
class Question:
    """What a lookup was asked; what is 0 or None was not said."""

    destination: IPAddress
    source: IPAddress | None = None
    mark: int = 0
    oif: int = 0
    tos: int = 0


def explain_answer(
    state: State, question: Question, mine: Resolution, number: int, body: RouteBody | None
) -> str | None:
    """Name the class of a lookup's difference from RTM_GETROUTE's answer; None if it is none that is known."""
    if question.source is not None and question.source.version == 4 and question.source.is_loopback:
        # __mkroute_output(): no route is at fault, and no socket can be bound so.
        return LOOPBACK_SOURCE if number == errno.EINVAL else None
    if body is not None and body.family == AF_INET6 and _is_hidden(state, question, body):
        return HIDDEN
    if body is not None and body.family == AF_INET6 and any(_is_too_small(state, hop) for hop in body.nexthops):
        return TOO_SMALL
    if mine.route is not None and _is_lost_subtree(state, mine.route):
        return LOST_SUBTREE
    if body is not None and mine.route is not None and _is_stale_hash(state, mine.route, body):
        return STALE_HASH
    ways = {(hop.ifindex, hop.gateway) for hop in mine.hops}
    if body is None or not ways >= {(hop.ifindex, hop.gateway) for hop in body.nexthops}:
        return None
    # It is about the source, then.
    if mine.source is None or body.prefsrc is None or mine.source == body.prefsrc:
        return None
    if mine.route is not None and body.family == AF_INET6 and len(mine.route.nexthops) > 1:
        return SIBLING
    ours, theirs = state.addresses.of(mine.source), state.addresses.of(body.prefsrc)
    if question.destination.version == 4:
        own = [entry for entry in state.addresses.on_link(mine.hops[0].ifindex, AF_INET) if entry.scope == 0]
        return None if own or not theirs else BORROWED_SOURCE
    way = mine.hops[0].ifindex
    for one, other in product(ours, theirs):
        if (one.ifindex == way) == (other.ifindex == way) and _rank(question, one) == _rank(question, other):
            return SOURCE_TIE  # the kernel takes the first in its lists of links and addresses
    return None


def _is_lost_subtree(state: State, route: Route) -> bool:
    """Whether a source-specific route is alone under its prefix, with longer prefixes in it.

    fib6_repair_tree() gives the node a leaf of a longer prefix when the plain route goes; fib6_node_lookup_1() then
    compares the destination with that one.
    """
    body, tables = route.body, state.tables[route.body.family]
    if not body.source_length:
        return False
    if any(not beside.source_length for beside in bodies(tables.get((body.table, body.prefix_length, route.address)))):
        return False
    shift = tables.width - body.prefix_length
    return any(
        table == body.table and length > body.prefix_length and destination >> shift == route.address >> shift
        for (table, length, destination), _ in tables.items()
    )


def _is_stale_hash(state: State, route: Route, found: RouteBody) -> bool:
    """Whether the kernel took a member without carrier, of a multipath route that it has not rebalanced since.

    fib_select_multipath() and fib6_select_path() go by the bounds that were set when the carrier was lost.
    """
    members = {(hop.ifindex, hop.gateway): hop for hop in state.expand(route.body)[0]}
    taken = [members.get((hop.ifindex, hop.gateway)) for hop in found.nexthops]
    return len(members) > 1 and all(hop is not None and _is_passed_over(state, route.body, hop) for hop in taken)


def _is_passed_over(state: State, body: RouteBody, hop: NextHop) -> bool:
    """Whether a next hop cannot be used for want of carrier, and for nothing else."""
    link = state.links.get(hop.ifindex)
    without_carrier = link is not None and link.up and not link.flags & Link.IFF_LOWER_UP
    return without_carrier and state.passes_over_linkdown(body.family, hop.ifindex) and not state.dead(body, hop)


def _is_too_small(state: State, hop: NextHop) -> bool:
    link = state.links.get(hop.ifindex)
    return link is not None and link.mtu < 1280


def _is_hidden(state: State, question: Question, found: RouteBody) -> bool:
    """Whether the route that answered is beside a sibling group of its own metric, and in no dump for that."""
    for _, node in state.tables[AF_INET6].matching(found.table, int(question.destination)):
        beside = [body for body in bodies(node) if body.priority == found.priority]
        shown = {(hop.ifindex, hop.gateway) for body in beside for hop in body.nexthops}
        if any(joins_siblings(body) and len(body.nexthops) > 1 for body in beside):
            return not shown >= {(hop.ifindex, hop.gateway) for hop in found.nexthops}
    return False


def _rank(question: Question, entry: Address) -> tuple[int, int]:
    """What RFC 6724 weighs: scope, and the bits that the address has of the destination, as far as its prefix goes."""
    differing = int(entry.address) ^ int(question.destination)
    return entry.scope, min(entry.prefix_length, 128 - differing.bit_length())


def explain_routes(family: int, mine: tuple[RouteBody, ...], theirs: tuple[RouteBody, ...]) -> str | None:
    """Name the class of a difference between two nodes, followed and dumped; None if there is none."""
    if family != AF_INET6:
        return None
    groups = {slot_of(body) for body in theirs if joins_siblings(body) and len(body.nexthops) > 1}
    if groups:
        shown = tuple(body for body in mine if body in theirs or joins_siblings(body) or slot_of(body) not in groups)
        if shown == theirs:
            return HIDDEN
    if _without_expiry(mine) == _without_expiry(theirs):
        return EXPIRY
    return None


def _without_expiry(routes: tuple[RouteBody, ...]) -> tuple[RouteBody, ...]:
    return tuple(attrs.evolve(body, expires=False) for body in routes)
