"""The routes of one prefix in one table, in the kernel's order, and what a message does to them.

A *node* is what a table holds under one prefix: a single `RouteBody` in nearly every case, a
tuple of them in the kernel's order otherwise. All functions here are pure: a node and a message
in, the new node and what changed out.

IPv4 (net/ipv4/fib_trie.c, fib_table_insert): ordered by tos descending, then priority
ascending, then position. Within one (tos, priority):

    flags                 effect
    REPLACE               takes the place of the first; with an nhid already there, of that one
    APPEND                after the last
    otherwise             before the first

IPv6 (net/ipv6/ip6_fib.c, fib6_add_rt2node): ordered by metric. The routes of one metric that
have a gateway, no nexthop object and no router-advertisement origin form one sibling group,
which is one multipath body here; a message about it lists the whole resulting group. Others
are entries beside it, each known by its next hop.

A route that names a nexthop object is shown with what the object leads to, or without
(net.ipv4.nexthop_compat_mode), and a group shrinks without a word: so that expansion is no part of
what makes it the same route (`unexpanded`).

A message equal to a known entry only refreshes it. An unknown removal is normal (the cache has
derived it from a link's message already) and does nothing.
"""

from __future__ import annotations

from typing import TypeAlias

import attrs

from ..netlink import AF_INET6, NLM_F_APPEND, NLM_F_REPLACE, RTPROT_RA, RTPROT_REDIRECT, RouteBody

Node: TypeAlias = RouteBody | tuple[RouteBody, ...]

# Of rtm_flags, those that are a single next hop's.
_HOP_FLAGS = 0xFF


def bodies(node: Node | None) -> tuple[RouteBody, ...]:
    """The routes of a node, in order."""
    if node is None:
        return ()
    return node if isinstance(node, tuple) else (node,)


def node_of(routes: tuple[RouteBody, ...]) -> Node | None:
    """The smallest form of a node: nothing, a single body, or a tuple of several."""
    if len(routes) == 1:
        return routes[0]
    return routes or None


def unexpanded(body: RouteBody) -> RouteBody:
    """A body without what its nexthop object was expanded to when it was shown; of other routes it is all there is."""
    if not body.nexthop_id:
        return body
    return attrs.evolve(body, flags=body.flags & ~_HOP_FLAGS, nexthops=(), multipath=False)


def _place_of(routes: tuple[RouteBody, ...], body: RouteBody) -> int | None:
    """Where in an IPv4 node a route is, however its nexthop object was expanded; None where it is not."""
    if body in routes:
        return routes.index(body)
    if not body.nexthop_id:
        return None
    sought = unexpanded(body)
    return next((at for at, known in enumerate(routes) if unexpanded(known) == sought), None)


@attrs.frozen(slots=True)
class Edit:
    """What a message did to a node: its routes now, and the route that went and the one that came."""

    routes: tuple[RouteBody, ...]
    old: RouteBody | None = None
    new: RouteBody | None = None


def add_ipv4(routes: tuple[RouteBody, ...], body: RouteBody, flags: int) -> Edit:
    """Apply an RTM_NEWROUTE of IPv4."""
    known_at = _place_of(routes, body)
    if known_at is not None:
        if routes[known_at] == body:
            return Edit(routes)
        return Edit((*routes[:known_at], body, *routes[known_at + 1 :]), routes[known_at], body)
    slot = [i for i, known in enumerate(routes) if (known.tos, known.priority) == (body.tos, body.priority)]
    if flags & NLM_F_REPLACE and slot:
        at = slot[0]
        if body.nexthop_id:
            # With nexthop_compat_mode a replaced nexthop object is announced by a REPLACE of each route that uses it.
            at = next((i for i in slot if routes[i].nexthop_id == body.nexthop_id), at)
        return Edit((*routes[:at], body, *routes[at + 1 :]), routes[at], body)
    if slot:
        at = slot[-1] + 1 if flags & NLM_F_APPEND else slot[0]
    else:
        order = (-body.tos, body.priority)
        at = sum(1 for known in routes if (-known.tos, known.priority) < order)
    return Edit((*routes[:at], body, *routes[at:]), None, body)


def remove_ipv4(routes: tuple[RouteBody, ...], body: RouteBody) -> Edit:
    """Apply an RTM_DELROUTE of IPv4."""
    at = _place_of(routes, body)
    if at is None:
        return Edit(routes)
    return Edit((*routes[:at], *routes[at + 1 :]), routes[at], None)


def joins_siblings(body: RouteBody) -> bool:
    """Whether an IPv6 route belongs to its metric's sibling group (rt6_qualify_for_ecmp)."""
    return (
        not body.nexthop_id
        and body.protocol not in (RTPROT_RA, RTPROT_REDIRECT)
        and any(hop.gateway is not None for hop in body.nexthops)
    )


def slot_of(body: RouteBody) -> tuple[int, int, int]:
    """What routes of one IPv6 node have in common that can be siblings: source prefix and metric."""
    return body.source_length, body.source, body.priority


def _same_ipv6(one: RouteBody, other: RouteBody) -> bool:
    """Whether two entries of one node are the same route to the kernel (rt6_duplicate_nexthop)."""
    return (
        slot_of(one) == slot_of(other)
        and one.nexthop_id == other.nexthop_id
        and (
            one.nexthop_id != 0
            or [(hop.ifindex, hop.gateway) for hop in one.nexthops]
            == [(hop.ifindex, hop.gateway) for hop in other.nexthops]
        )
    )


def add_ipv6(routes: tuple[RouteBody, ...], body: RouteBody, flags: int) -> Edit:
    """Apply an RTM_NEWROUTE of IPv6."""
    slot = [i for i, known in enumerate(routes) if slot_of(known) == slot_of(body)]
    alike = [i for i in slot if joins_siblings(routes[i]) == joins_siblings(body)]
    at: int | None = None
    if flags & NLM_F_REPLACE and slot:
        at = alike[0] if alike else slot[0]
    elif joins_siblings(body):
        at = alike[0] if alike else None
        if at is not None:
            # The message carries the new sibling's attributes, a dump the first one's, and those stand for the group.
            body = attrs.evolve(routes[at], nexthops=body.nexthops, multipath=len(body.nexthops) > 1)
    else:
        at = next((i for i in slot if _same_ipv6(routes[i], body)), None)
    if at is not None:
        if routes[at] == body:
            return Edit(routes)
        return Edit((*routes[:at], body, *routes[at + 1 :]), routes[at], body)
    # Source-specific routes first, longest source first; then by metric; a new one after its equals.
    order = (-body.source_length, body.source, body.priority)
    at = sum(1 for known in routes if (-known.source_length, known.source, known.priority) <= order)
    return Edit((*routes[:at], body, *routes[at:]), None, body)


def entry_of(routes: tuple[RouteBody, ...], body: RouteBody) -> RouteBody:
    """What stands in a node for a route that was just announced: for an IPv6 sibling, its group.

    The group has the first sibling's attributes, the message the newest one's.
    """
    if body.family != AF_INET6 or body in routes or not joins_siblings(body):
        return body
    groups = (known for known in routes if slot_of(known) == slot_of(body) and joins_siblings(known))
    return next(groups, body)


def remove_ipv6(routes: tuple[RouteBody, ...], body: RouteBody) -> Edit:
    """Apply an RTM_DELROUTE of IPv6, which lists just the siblings that went."""
    if joins_siblings(body):
        gone = {(hop.ifindex, hop.gateway) for hop in body.nexthops}
        for at, known in enumerate(routes):
            if slot_of(known) != slot_of(body) or not joins_siblings(known):
                continue
            left = tuple(hop for hop in known.nexthops if (hop.ifindex, hop.gateway) not in gone)
            if len(left) == len(known.nexthops):
                continue
            if not left:
                return Edit((*routes[:at], *routes[at + 1 :]), known, None)
            smaller = attrs.evolve(known, nexthops=left, multipath=len(left) > 1)
            return Edit((*routes[:at], smaller, *routes[at + 1 :]), known, smaller)
        return Edit(routes)
    for at, known in enumerate(routes):
        if _same_ipv6(known, body):
            return Edit((*routes[:at], *routes[at + 1 :]), known, None)
    return Edit(routes)
