"""What the kernel does to routes without saying so, derived from the messages that it does send.

Measured in docs/kernel.md; in short, for plain unicast routes:

    message                          IPv4                                      IPv6
    ------------------------------   ---------------------------------------   -------------------------------
    link down                        routes with no way left go; `local` stay  routes by it go (announced later
                                     multipath: that way is dead               too); a group when its last way dies
    link up                          multipath ways come alive                 the same
    link gone                        as down, and multipath with any way there that way leaves its group
    carrier lost, link down or gone  nexthop objects on it go, groups shrink; routes that used them go
    last address of a link removed   routes by it go, multipath ways are dead  (nothing like it)
    address added again              multipath ways come alive                 (nothing like it)

A next hop's being dead is never stored: `State.alive` reads it off the link. What is announced
later is by then unknown to the cache and ignored.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import attrs

from ..netlink import AF_INET, AF_INET6, RT_SCOPE_HOST, RouteBody
from ._nodes import bodies
from ._values import Address, Link

if TYPE_CHECKING:
    from ._cache import Cache
    from ._tables import NodeKey

_LOWER_UP = Link.IFF_LOWER_UP


def describe_link_change(old: Link | None, new: Link | None) -> str:
    """Say in words what happened to a link."""
    if new is None:
        return f"link {old.name} was removed" if old is not None else "a link was removed"
    if old is None:
        return f"link {new.name} appeared"
    if old.up != new.up:
        return f"link {new.name} was set {'up' if new.up else 'down'}"
    if old.carrier != new.carrier:
        return f"link {new.name} {'got its carrier back' if new.carrier else 'lost its carrier'}"
    if old.name != new.name:
        return f"link {old.name} was renamed to {new.name}"
    return f"link {new.name} changed"


def by_link(cache: Cache, old: Link | None, new: Link | None, cause: str) -> None:
    """Do what a link's change implies."""
    if old is None:
        return
    ifindex = old.ifindex
    if new is None:
        _forget_link(cache, ifindex, cause)
        return
    if old.up and not new.up:
        _without_nexthops_on(cache, ifindex, cause)
        _drop_dead(cache, AF_INET, ifindex, cause, _stays_ipv4)
        _drop_dead(cache, AF_INET6, ifindex, cause, _never)
    elif old.flags & _LOWER_UP and not new.flags & _LOWER_UP:
        _without_nexthops_on(cache, ifindex, cause)
    if (new.up and not old.up) or (new.flags & _LOWER_UP and not old.flags & _LOWER_UP):
        _revive(cache, ifindex)


def by_address(cache: Cache, ifindex: int, old: Address | None, new: Address | None) -> None:
    """Do what an address's coming or going implies."""
    entry = new or old
    if entry is None or entry.address.version != 4:
        return
    state = cache.state
    if new is not None:
        if ifindex in state.without_ipv4:
            state.without_ipv4.discard(ifindex)
            _revive(cache, ifindex)
        return
    if any(True for _ in state.addresses.on_link(ifindex, AF_INET)):
        return
    # The last IPv4 address of a link takes IPv4 itself off it: every route through it goes
    # silently, in every table; only routes that name a nexthop object stay.
    state.without_ipv4.add(ifindex)
    link = state.links.get(ifindex)
    name = ifindex if link is None else link.name
    _drop_dead(cache, AF_INET, ifindex, f"the last IPv4 address of link {name} was removed", _never)


def without_nexthops(cache: Cache, ids: set[int], cause: str) -> None:
    """Remove nexthop objects, take them out of groups, and remove the routes that are left with none."""
    known = cache.state.nexthops
    gone = {number for number in ids if known.pop(number, None) is not None}
    if not gone:
        return
    for number, message in list(known.items()):
        if not message.group:
            continue
        left = tuple(member for member in message.group if member[0] not in gone)
        if not left:
            del known[number]
            gone.add(number)
        elif left != message.group:
            known[number] = attrs.evolve(message, group=left)
    for family, tables in cache.state.tables.items():
        dying = [
            (key, tuple(body for body in bodies(node) if body.nexthop_id in gone))
            for key, node in tables.by_nexthop(gone)
        ]
        cache.drop_routes(family, dying, cause)
    cache.note_everything()


def _without_nexthops_on(cache: Cache, ifindex: int, cause: str) -> None:
    without_nexthops(cache, {n for n, message in cache.state.nexthops.items() if message.ifindex == ifindex}, cause)


def _forget_link(cache: Cache, ifindex: int, cause: str) -> None:
    state = cache.state
    _without_nexthops_on(cache, ifindex, cause)
    tables = state.tables[AF_INET]
    cache.drop_routes(AF_INET, _each(tables.through_link(ifindex, _plain), lambda body: _uses(body, ifindex)), cause)
    # The siblings of an IPv6 group that were on other links stay.
    gone: list[tuple[NodeKey, tuple[RouteBody, ...]]] = []
    shrunk: list[tuple[NodeKey, RouteBody, RouteBody]] = []
    for key, node in state.tables[AF_INET6].through_link(ifindex, _plain):
        for body in bodies(node):
            if not _uses(body, ifindex):
                continue
            left = tuple(hop for hop in body.nexthops if hop.ifindex != ifindex)
            if left:
                shrunk.append((key, body, attrs.evolve(body, nexthops=left, multipath=len(left) > 1)))
            else:
                gone.append((key, (body,)))
    cache.drop_routes(AF_INET6, gone, cause)
    cache.replace_routes(AF_INET6, shrunk, cause)
    for address_key in [item[0] for item in state.addresses.items() if item[1].ifindex == ifindex]:
        cache.set_address(address_key, None, cause)
    state.without_ipv4.discard(ifindex)
    state.failed = {known for known in state.failed if known[0] != ifindex}
    for family in (AF_INET, AF_INET6):
        state.switches.pop((family, ifindex), None)


def _drop_dead(cache: Cache, family: int, ifindex: int, cause: str, stays: Callable[[RouteBody], bool]) -> None:
    """Remove the routes by a link that have no living next hop left."""
    alive = cache.state.alive

    def dies(body: RouteBody) -> bool:
        # LINKDOWN alone does not remove a route, so `alive` may call a way dead that the kernel only
        # passes over; among several ways on other links without carrier that distinction matters.
        return _uses(body, ifindex) and not stays(body) and not any(alive(family, hop) for hop in body.nexthops)

    cache.drop_routes(family, _each(cache.state.tables[family].through_link(ifindex, _plain), dies), cause)


def _revive(cache: Cache, ifindex: int) -> None:
    for family, tables in cache.state.tables.items():
        revived = tables.through_link(ifindex, lambda body: len(body.nexthops) > 1)
        cache.note_revived(family, [key for key, _ in revived])


def _each(
    nodes: list[tuple[NodeKey, RouteBody | tuple[RouteBody, ...]]], wanted: Callable[[RouteBody], bool]
) -> list[tuple[NodeKey, tuple[RouteBody, ...]]]:
    found = [(key, tuple(body for body in bodies(node) if wanted(body))) for key, node in nodes]
    return [(key, chosen) for key, chosen in found if chosen]


def _uses(body: RouteBody, ifindex: int) -> bool:
    return not body.nexthop_id and any(hop.ifindex == ifindex for hop in body.nexthops)


def _plain(body: RouteBody) -> bool:
    return not body.nexthop_id


def _stays_ipv4(body: RouteBody) -> bool:
    return body.scope == RT_SCOPE_HOST


def _never(body: RouteBody) -> bool:
    return False
