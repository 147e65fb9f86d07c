"""Taking a complete dump's word: into the tables, and into the batch what it showed to be different."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import TypeVar

from ..netlink import AF_INET6, RouteBody
from ._changes import LinkChange, NeighbourChange, RouteChange, RuleChange
from ._editor import Editor
from ._nodes import bodies, joins_siblings, slot_of
from ._staging import ALL_RULES, EVERYTHING, Doubts, Part, Staging, weigh

_K = TypeVar("_K", bound=Hashable)
_V = TypeVar("_V")
# The cause of a change that no notification told of.
FOUND_BY_DUMP = "found by a dump"


def settle(editor: Editor, staging: Staging) -> Doubts:
    """Take a complete dump's word where it can be taken; returns what of that part is doubtful still."""
    if staging.contested and staging.doubts is EVERYTHING:
        return EVERYTHING
    match staging.part:
        case Part.LINKS:
            return _settle_links(editor, staging)
        case Part.ADDRESSES:
            return _settle_addresses(editor, staging)
        case Part.IPV4_SWITCHES | Part.IPV6_SWITCHES:
            return _settle_switches(editor, staging)
        case Part.NEXTHOPS:
            return _settle_nexthops(editor, staging)
        case Part.IPV4_RULES | Part.IPV6_RULES:
            return _settle_rules(editor, staging)
        case Part.NEIGHBOURS:
            return _settle_neighbours(editor, staging)
        case Part.IPV4_ROUTES | Part.IPV6_ROUTES:
            return _settle_routes(editor, staging)


def _settle_links(editor: Editor, staging: Staging) -> Doubts:
    links, found = editor.state.links, staging.state.links
    taken, still = _weigh_mappings(links, found, staging)
    for ifindex, old, new in taken:
        editor.batch.links.append(LinkChange(old, new, FOUND_BY_DUMP))
        _put(links, ifindex, new)
    return still


def _settle_addresses(editor: Editor, staging: Staging) -> Doubts:
    known, found = editor.state.addresses.by_key(), staging.state.addresses.by_key()
    taken, still = _weigh_mappings(known, found, staging)
    for key, _, new in taken:
        editor.set_address(key, new, FOUND_BY_DUMP)
    return still


def _settle_switches(editor: Editor, staging: Staging) -> Doubts:
    known, found = editor.state.ignoring_linkdown, staging.state.ignoring_linkdown
    differing = {key for key in known if key[0] == staging.family} ^ found
    taken, _, still = weigh(differing, staging.touched, staging.contested, staging.doubts)
    known ^= set(taken)
    editor.batch.everything |= bool(taken)
    return still


def _settle_nexthops(editor: Editor, staging: Staging) -> Doubts:
    taken, still = _weigh_mappings(editor.state.nexthops, staging.state.nexthops, staging)
    if taken:
        editor.remember_gateways_by_objects()
        editor.batch.everything = True
    for number, _, new in taken:
        _put(editor.state.nexthops, number, new)
    return still


def _settle_rules(editor: Editor, staging: Staging) -> Doubts:
    before, after = editor.state.rules[staging.family], staging.state.rules[staging.family]
    taken, _, still = weigh([ALL_RULES] if before != after else [], staging.touched, staging.contested, staging.doubts)
    if taken:
        editor.state.rules[staging.family] = after
        editor.batch.rules += [RuleChange(rule, None, FOUND_BY_DUMP) for rule in before if rule not in after]
        editor.batch.rules += [RuleChange(None, rule, FOUND_BY_DUMP) for rule in after if rule not in before]
        editor.batch.everything = True
    return still


def _settle_neighbours(editor: Editor, staging: Staging) -> Doubts:
    failed, found = editor.state.failed, staging.state.failed
    taken, _, still = weigh(failed ^ found, staging.touched, staging.contested, staging.doubts)
    failed ^= set(taken)
    editor.batch.neighbours += [NeighbourChange(*key, failed=key in found) for key in taken]
    return still


def _settle_routes(editor: Editor, staging: Staging) -> Doubts:
    """Swap the staged tables in, once what the living ones know better has been put into them."""
    family = staging.family
    living, staged = editor.state.tables[family], staging.state.tables[family]
    undisturbed = not (
        editor.recording or living.prefixes() or staging.touched
    )  # a first dump, with nothing to compare
    differing = [] if undisturbed else living.differing(staged)
    taken, kept, still = weigh(differing, staging.touched, staging.contested, staging.doubts)
    for key in kept:
        staged.put(key, bodies(living.get(key)))
    for key in taken if editor.recording else ():
        before, after = bodies(living.get(key)), bodies(staged.get(key))
        if family == AF_INET6 and staging.doubts is not EVERYTHING:
            after = _with_hidden(before, after)
            staged.put(key, after)
        if before == after:
            continue
        if key[1] == 0:
            editor.set_routes(family, key, after)  # remembers the gateways
        _note_difference(editor, key[2], before, after)
    editor.state.tables[family] = staged
    # Every way that a dump shows dead and that no link explains; the bodies with such flags are few.
    editor.state.dead_ways -= {way for way in editor.state.dead_ways if way[0].family == family}
    for received in staging.flagged:
        editor.see_flags(received)
    return still


def _note_difference(
    editor: Editor, destination: int, before: tuple[RouteBody, ...], after: tuple[RouteBody, ...]
) -> None:
    gone = [body for body in before if body not in after]
    came = [body for body in after if body not in before]
    if len(gone) == len(came) == 1:
        editor.batch.routes.append(RouteChange(destination, gone[0], came[0], FOUND_BY_DUMP))
        return
    editor.batch.routes += [RouteChange(destination, body, None, FOUND_BY_DUMP) for body in gone]
    editor.batch.routes += [RouteChange(destination, None, body, FOUND_BY_DUMP) for body in came]


def _with_hidden(before: tuple[RouteBody, ...], after: tuple[RouteBody, ...]) -> tuple[RouteBody, ...]:
    """What a dump lists, and the known routes that it leaves out.

    The kernel's dump skips a route that lies between the siblings of a group of its own metric; it is there
    nevertheless, and shows up when the group is gone (docs/kernel.md).
    """
    groups = {slot_of(body) for body in after if joins_siblings(body) and len(body.nexthops) > 1}
    hidden = [body for body in before if body not in after and not joins_siblings(body) and slot_of(body) in groups]
    return (*after, *hidden)


def _weigh_mappings(
    known: Mapping[_K, _V], found: Mapping[_K, _V], staging: Staging
) -> tuple[list[tuple[_K, _V | None, _V | None]], Doubts]:
    differing = [
        key for key in (*known, *(key for key in found if key not in known)) if known.get(key) != found.get(key)
    ]
    taken, _, still = weigh(differing, staging.touched, staging.contested, staging.doubts)
    return [(key, known.get(key), found.get(key)) for key in taken], still


def _put(mapping: dict[_K, _V], key: _K, value: _V | None) -> None:
    if value is None:
        mapping.pop(key, None)
    else:
        mapping[key] = value
