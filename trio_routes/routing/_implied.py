"""What the kernel does to routes without saying so, derived from the messages that it does send.

Measured in docs/kernel.md; in short, for plain unicast routes:

    message                          IPv4                                      IPv6
    ------------------------------   ---------------------------------------   -------------------------------
    link down                        routes with no way left go; `local` stay  routes by it go (announced later
                                     multipath: that way is dead               too); a group when its last way dies
    link up                          multipath ways come alive                 once it has carrier and its ff00::/8
    link gone                        as down, and multipath with any way       that way leaves its group
                                     there goes as a whole
    carrier lost, link down or gone  nexthop objects on it go, groups shrink; routes that used them go
    last address of a link removed   routes by it go, multipath ways are dead  (nothing like it)
    address added again              multipath ways come alive                 (nothing like it)
    ff00::/8 of a link removed                                                 IPv6 is off there: ways are dead

A next hop's being dead for its link's sake is never stored: `State.alive` reads it off the link. Ways
that are dead while the link is up are in `State.dead_ways`. What the kernel announces later is by
then unknown to the cache and ignored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import attrs

from ..netlink import (
    AF_INET,
    AF_INET6,
    RT_SCOPE_HOST,
    RT_TABLE_LOCAL,
    RTN_MULTICAST,
    IPAddress,
    RouteBody,
)
from ..netlink._route import RTAX_MTU
from ._editor import Editor
from ._nodes import bodies
from ._staging import Part
from ._state import LEAST_IPV6_MTU, State, way_of
from ._tables import NodeKey, RouteTables
from ._values import Address, Link

_LOWER_UP = Link.IFF_LOWER_UP
# ff00::/8, which every link has in table 255 while IPv6 is on there (addrconf_add_mroute).
_MULTICAST_KEY: NodeKey = (RT_TABLE_LOCAL, 8, 0xFF << 120)
_OBJECTS_AND_ROUTES = (Part.NEXTHOPS, Part.IPV4_ROUTES, Part.IPV6_ROUTES)


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


def by_link(editor: Editor, ifindex: int, old: Link | None, new: Link | None, cause: str) -> None:
    """Do what a link's change implies."""
    if new is None:
        editor.contest(*_OBJECTS_AND_ROUTES)
        _forget_link(editor, ifindex, cause)
        return
    if old is None or old.flags != new.flags:
        editor.doubt_ways(ifindex)
    was_up, had_carrier = (False, False) if old is None else (old.up, bool(old.flags & _LOWER_UP))
    has_carrier = bool(new.flags & _LOWER_UP)
    if (was_up and not new.up) or (had_carrier and not has_carrier):
        editor.contest(*_OBJECTS_AND_ROUTES)
        _without_nexthops_on(editor, ifindex, cause)
    if was_up and not new.up:
        _drop_dead(editor, AF_INET, ifindex, cause, stays=_is_local_ipv4)
        _drop_dead(editor, AF_INET6, ifindex, cause)
        _let_ways_die(editor, AF_INET6, ifindex)
    if old is not None and old.mtu != new.mtu:
        # IPv6 routes' own MTUs follow their link's, silently (rt6_mtu_change). Of too small a one all of them go, with
        # net.ipv6.route.skip_notify_on_dev_down silently too.
        without_ipv6 = new.mtu < LEAST_IPV6_MTU <= old.mtu
        if without_ipv6 or _has_mtu_metrics(editor.state, ifindex):
            editor.suspect.add(Part.IPV6_ROUTES)
    if new.up and not was_up:
        editor.revive_ways(AF_INET, ifindex)
    if _is_ready(new) and not (old is not None and _is_ready(old)) and _has_ipv6(editor.state, ifindex):
        editor.revive_ways(AF_INET6, ifindex)
    if (new.up and not was_up) or (has_carrier and not had_carrier):
        _note_revived(editor, ifindex)


def by_address(editor: Editor, ifindex: int, address: IPAddress, new: Address | None) -> None:
    """Do what an address's coming (`new`) or going (None) implies."""
    state = editor.state
    if address.version == 6:
        if new is None and any(body.prefsrc == address for body in state.tables[AF_INET6].bodies()):
            # Routes that prefer it lose that preference silently, unless another link has the address.
            editor.suspect.add(Part.IPV6_ROUTES)
        elif new is None:
            _doubt_ipv6(editor, ifindex)
        return
    if new is not None:
        if any(way[1] == ifindex and way[0].family == AF_INET for way in state.dead_ways):
            editor.revive_ways(AF_INET, ifindex)
            _note_revived(editor, ifindex)
        return
    if any(True for _ in state.addresses.on_link(ifindex, AF_INET)):
        return
    # The last IPv4 address of a link takes IPv4 itself off it (fib_disable_ip): every route through it
    # goes silently, in every table; only routes that name a nexthop object stay. Routes that are
    # added afterwards live.
    editor.contest(Part.IPV4_ROUTES)
    link = state.links.get(ifindex)
    name = ifindex if link is None else link.name
    _drop_dead(editor, AF_INET, ifindex, f"the last IPv4 address of link {name} was removed")
    _let_ways_die(editor, AF_INET, ifindex)


def by_route(editor: Editor, key: NodeKey, body: RouteBody, gone: bool) -> None:
    """Do what a route's coming or going implies: a link's ff00::/8 tells whether IPv6 is on there."""
    if body.type != RTN_MULTICAST or key != _MULTICAST_KEY or body.family != AF_INET6:
        return
    for hop in body.nexthops:
        if gone:
            _let_ways_die(editor, AF_INET6, hop.ifindex)
            _doubt_ipv6(editor, hop.ifindex)
            continue
        link = editor.state.links.get(hop.ifindex)
        if link is None or _is_ready(link):
            editor.revive_ways(AF_INET6, hop.ifindex)
            _note_revived(editor, hop.ifindex)


def _is_ready(link: Link) -> bool:
    """Whether IPv6 begins to work on a link, and ways by it come alive (addrconf_link_ready, addrconf_notify).

    An address added by hand brings ff00::/8 to a link without carrier, too, but no way comes alive by that.
    """
    return link.up and bool(link.flags & Link.IFF_RUNNING)


def _has_ipv6(state: State, ifindex: int) -> bool:
    multicast = bodies(state.tables[AF_INET6].get(_MULTICAST_KEY))
    return any(hop.ifindex == ifindex for body in multicast for hop in body.nexthops)


def _doubt_ipv6(editor: Editor, ifindex: int) -> None:
    """Have the routes dumped again where IPv6 may be off on a link, and its routes or others' ways by it with it.

    Nothing says so but the going of the link's ff00::/8, which can be deleted by hand as well, or be deleted already,
    or go without a word as all routes do with net.ipv6.route.skip_notify_on_dev_down; then there are only the
    addresses, which go too when IPv6 is switched off, and not only then.
    """
    state = editor.state
    if any(True for _ in state.addresses.on_link(ifindex, AF_INET6)):
        return
    if any(map(_is_plain, state.tables[AF_INET6].bodies_by(ifindex))):
        editor.suspect.add(Part.IPV6_ROUTES)


def _several_by(tables: RouteTables, ifindex: int) -> list[RouteBody]:
    """The routes with a next hop on a link that have others beside."""
    return [body for body in tables.bodies_by(ifindex) if _is_plain(body) and len(body.nexthops) > 1]


def without_nexthops(editor: Editor, ids: Iterable[int], cause: str) -> None:
    """Remove nexthop objects, take them out of groups, and remove the routes that are left with none."""
    known = editor.state.nexthops
    gone = {number for number in ids if number in known}
    if not gone:
        return
    editor.remember_gateways_by_objects()
    for number in gone:
        del known[number]
    for number, message in list(known.items()):
        if not message.group:
            continue
        left = tuple(member for member in message.group if member[0] not in gone)
        if not left:
            del known[number]
            gone.add(number)
        elif left != message.group:
            known[number] = attrs.evolve(message, group=left)
            editor.touch(Part.NEXTHOPS, number)
    for number in gone:
        editor.touch(Part.NEXTHOPS, number)
    for family, tables in editor.state.tables.items():
        naming = dict.fromkeys((body for number in gone for body in tables.bodies_naming(number)), None)
        editor.change_routes(family, naming, cause)
    editor.batch.everything = True


def _without_nexthops_on(editor: Editor, ifindex: int, cause: str) -> None:
    objects = editor.state.nexthops.items()
    without_nexthops(editor, [number for number, message in objects if message.ifindex == ifindex], cause)


def _forget_link(editor: Editor, ifindex: int, cause: str) -> None:
    state = editor.state
    _without_nexthops_on(editor, ifindex, cause)
    ipv4, ipv6 = (filter(_is_plain, state.tables[family].bodies_by(ifindex)) for family in (AF_INET, AF_INET6))
    editor.change_routes(AF_INET, dict.fromkeys(ipv4, None), cause)
    editor.change_routes(AF_INET6, {body: _without_link(body, ifindex) for body in ipv6}, cause)
    for key, address in state.addresses.by_key().items():
        if address.ifindex == ifindex:
            editor.touch(Part.ADDRESSES, key)
            editor.set_address(key, None, cause)
    state.failed -= {known for known in state.failed if known[0] == ifindex}
    state.dead_ways -= {way for way in state.dead_ways if way[1] == ifindex}
    state.ignoring_linkdown -= {(AF_INET, ifindex), (AF_INET6, ifindex)}


def _without_link(body: RouteBody, ifindex: int) -> RouteBody | None:
    """What a link's going leaves of an IPv6 route: the siblings that were on other links."""
    left = tuple(hop for hop in body.nexthops if hop.ifindex != ifindex)
    return attrs.evolve(body, nexthops=left, multipath=len(left) > 1) if left else None


def _has_mtu_metrics(state: State, ifindex: int) -> bool:
    return any(
        (body.nexthop_id or _uses(body, ifindex)) and any(metric == RTAX_MTU for metric, _ in body.metrics)
        for body in state.tables[AF_INET6].bodies()
    )


def _let_ways_die(editor: Editor, family: int, ifindex: int) -> None:
    """Mark the ways by a link, of routes that have others beside, as dead until something revives them."""
    editor.doubt_ways(ifindex)
    several = _several_by(editor.state.tables[family], ifindex)
    editor.state.dead_ways.update(
        way_of(body, hop) for body in several for hop in body.nexthops if hop.ifindex == ifindex
    )


def _never(_: RouteBody) -> bool:
    return False


def _drop_dead(
    editor: Editor, family: int, ifindex: int, cause: str, *, stays: Callable[[RouteBody], bool] = _never
) -> None:
    """Remove the routes whose last living next hop was on this link. LINKDOWN alone does not remove a route."""
    dead = editor.state.dead

    def dies(body: RouteBody) -> bool:
        return (
            _is_plain(body)
            and not stays(body)
            and all(hop.ifindex == ifindex or dead(body, hop) for hop in body.nexthops)
        )

    dying = dict.fromkeys(filter(dies, editor.state.tables[family].bodies_by(ifindex)), None)
    editor.change_routes(family, dying, cause)


def _note_revived(editor: Editor, ifindex: int) -> None:
    for family, tables in editor.state.tables.items():
        revived = tables.through_link(ifindex, lambda body: len(body.nexthops) > 1)
        editor.note_revived(family, [key for key, _ in revived])


def _uses(body: RouteBody, ifindex: int) -> bool:
    return not body.nexthop_id and any(hop.ifindex == ifindex for hop in body.nexthops)


def _is_plain(body: RouteBody) -> bool:
    return not body.nexthop_id


def _is_local_ipv4(body: RouteBody) -> bool:
    return body.scope == RT_SCOPE_HOST
