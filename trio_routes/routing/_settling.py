"""Taking a complete dump's word: into the tables, and into the batch what it showed to be different."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Hashable, Iterable, Mapping
from typing import TypeVar, cast

from ..netlink import AF_INET6, RouteBody
from ._changes import LinkChange, NeighbourChange, RouteChange, RuleChange
from ._differences import Prefix
from ._editor import Editor
from ._nodes import bodies, joins_siblings, slot_of
from ._staging import ALL_RULES, EVERYTHING, ROUTES_OF, Doubts, Part, Staging, weigh
from ._tables import PIECE, NodeKey, RouteTables
from ._values import Link

_K = TypeVar("_K", bound=Hashable)
_V = TypeVar("_V")
# The cause of a change that no notification told of.
FOUND_BY_DUMP = "found by a dump"


def settle_in_pieces(editor: Editor, staging: Staging) -> Generator[None, None, Doubts]:
    """Take a complete dump's word where it can be taken; returns what of that part is doubtful still.

    Yields now and then, because to compare a million routes takes a while: notifications may be applied meanwhile,
    and are held against the dump like those that came before its end. Small tables are settled without a pause.
    """
    family = staging.family
    if staging.part is not ROUTES_OF.get(family):
        editor.staging = None
        return _settle(editor, staging)
    living, staged = editor.state.tables[family], staging.state.tables[family]
    yield from staged.loaded()
    at_once = living.prefixes() + staged.prefixes() < PIECE
    # Before the tables are known for the first time nothing is a change, and differences need not be found.
    for found in living.compare(staged) if editor.recording else ():
        staging.differing.update(found)
        if not at_once:
            yield
    editor.staging = None
    still = _settle(editor, staging)
    if editor.state.tables[family] is staged and not at_once:
        yield from living.take_apart()
    return still


def _settle(editor: Editor, staging: Staging) -> Doubts:
    if (staging.contested or staging.ways) and staging.doubts is EVERYTHING:
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
        staging.note(_name_of(old or new), old, new)
        editor.batch.links.append(LinkChange(old, new, FOUND_BY_DUMP))
        _put(links, ifindex, new)
    return still


def _settle_addresses(editor: Editor, staging: Staging) -> Doubts:
    known, found = editor.state.addresses.by_key(), staging.state.addresses.by_key()
    taken, still = _weigh_mappings(known, found, staging)
    for key, old, new in taken:
        staging.note(f"{key[1]}/{key[2]} on link {key[0]}", old, new)
        editor.set_address(key, new, FOUND_BY_DUMP)
    return still


def _settle_switches(editor: Editor, staging: Staging) -> Doubts:
    known, found = editor.state.ignoring_linkdown, staging.state.ignoring_linkdown
    differing = {key for key in known if key[0] == staging.family} ^ found
    taken, _, still = _weigh(differing, staging)
    for key in taken:
        staging.note(f"ignore_routes_with_linkdown of link {key[1]}", key in known, key in found)
    known ^= set(taken)
    editor.batch.everything |= bool(taken)
    return still


def _settle_nexthops(editor: Editor, staging: Staging) -> Doubts:
    taken, still = _weigh_mappings(editor.state.nexthops, staging.state.nexthops, staging)
    if taken:
        editor.remember_gateways_by_objects()
        editor.batch.everything = True
    for number, old, new in taken:
        staging.note(number, old, new)
        _put(editor.state.nexthops, number, new)
    return still


def _settle_rules(editor: Editor, staging: Staging) -> Doubts:
    before, after = editor.state.rules[staging.family], staging.state.rules[staging.family]
    taken, _, still = _weigh([ALL_RULES] if before != after else [], staging)
    if taken:
        staging.note("all of them", before, after)
        editor.state.rules[staging.family] = after
        editor.batch.rules += [RuleChange(rule, None, FOUND_BY_DUMP) for rule in before if rule not in after]
        editor.batch.rules += [RuleChange(None, rule, FOUND_BY_DUMP) for rule in after if rule not in before]
        editor.batch.everything = True
    return still


def _settle_neighbours(editor: Editor, staging: Staging) -> Doubts:
    failed, found = editor.state.failed, staging.state.failed
    if staging.doubts is not EVERYTHING:
        # Asked for again, a neighbour turns from FAILED to INCOMPLETE without a word, and is no nearer for it.
        for key in failed & staging.retried - staging.touched:
            staging.note_exception(f"{key[1]} on link {key[0]}", "FAILED", "INCOMPLETE")
            found.add(key)
    taken, _, still = _weigh(failed ^ found, staging)
    for key in taken:
        staging.note(
            f"{key[1]} on link {key[0]}", *(("not FAILED", "FAILED") if key in found else ("FAILED", "not so"))
        )
    failed ^= set(taken)
    editor.batch.neighbours += [NeighbourChange(*key, failed=key in found) for key in taken]
    return still


def _settle_routes(editor: Editor, staging: Staging) -> Doubts:
    """Swap the staged tables in, once what the living ones know better has been put into them."""
    family = staging.family
    living, staged = editor.state.tables[family], staging.state.tables[family]
    differing = _differing_still(living, staged, staging)
    if family == AF_INET6 and staging.doubts is not EVERYTHING:
        differing = [key for key in differing if not _explain(staging, key, bodies(living.get(key)))]
    taken, kept, still = _weigh(differing, staging)
    for key in kept:
        staged.put(key, bodies(living.get(key)))
    for key in taken if editor.recording else ():
        before, after = bodies(living.get(key)), bodies(staged.get(key))
        staging.note(Prefix(family, key), before, after)
        if key[1] == 0:
            editor.set_routes(family, key, after)  # remembers the gateways
        _note_difference(editor, key[2], before, after)
    editor.state.tables[family] = staged
    editor.see_dumped_flags(staging)
    return still


def _differing_still(living: RouteTables, staged: RouteTables, staging: Staging) -> list[NodeKey]:
    """Of the prefixes that were found to differ, and those that may do for another reason, the ones that do now."""
    doubtful = staging.doubts or ()
    # What is touched or doubtful of a part with routes are prefixes.
    others = cast(Iterable[NodeKey], (*staging.touched, *doubtful))
    return [key for key in dict.fromkeys((*staging.differing, *others)) if living.get(key) != staged.get(key)]


def _note_difference(
    editor: Editor, destination: int, before: tuple[RouteBody, ...], after: tuple[RouteBody, ...]
) -> None:
    gone = [body for body in before if body not in after]
    came = [body for body in after if body not in before]
    if not gone and not came:
        # Only the order differs, and of equals the first is in use: each place has another route now.
        moved = [(old, new) for old, new in zip(before, after, strict=True) if old != new]
        editor.batch.routes += [RouteChange(destination, old, new, FOUND_BY_DUMP) for old, new in moved]
        return
    if len(gone) == len(came) == 1:
        editor.batch.routes.append(RouteChange(destination, gone[0], came[0], FOUND_BY_DUMP))
        return
    editor.batch.routes += [RouteChange(destination, body, None, FOUND_BY_DUMP) for body in gone]
    editor.batch.routes += [RouteChange(destination, None, body, FOUND_BY_DUMP) for body in came]


def _explain(staging: Staging, key: NodeKey, before: tuple[RouteBody, ...]) -> bool:
    """Put what an IPv6 dump leaves out of a prefix into the staged tables; whether that was all that differed.

    Then neither is a difference: a route between siblings (see `_hidden`), and another order within one metric,
    where the kernel's own is taken.
    """
    staged = staging.state.tables[staging.family]
    after = bodies(staged.get(key))
    hidden = _hidden(before, after)
    if hidden:
        staging.note_exception(Prefix(staging.family, key), before, after)
        # Behind the others of its slot; the sort is stable.
        after = tuple(sorted((*after, *hidden), key=lambda body: (-body.source_length, body.source, body.priority)))
        staged.put(key, after)
    return Counter(before) == Counter(after)


def _hidden(before: tuple[RouteBody, ...], after: tuple[RouteBody, ...]) -> list[RouteBody]:
    """The known routes that a dump leaves out although they are there.

    From the first sibling of a group the kernel's dump goes on behind the last one (rt6_dump_route), and so skips
    what lies between and is none. Such a route is in use nevertheless, and shows up when the group is gone
    (docs/kernel.md). What stands before the group, or has no group in its slot, is not skipped.
    """
    groups = {slot_of(body) for body in after if joins_siblings(body) and len(body.nexthops) > 1}
    passed: set[tuple[int, int, int]] = set()
    hidden: list[RouteBody] = []
    for body in before:
        if joins_siblings(body):
            passed.add(slot_of(body))
        elif body not in after and slot_of(body) in groups & passed:
            hidden.append(body)
    return hidden


def _weigh(differing: Iterable[_K], staging: Staging) -> tuple[list[_K], list[_K], set[_K]]:
    return weigh(differing, staging.touched, staging.contested, staging.doubts, staging.confirm)


def _name_of(link: Link | None) -> str:
    return "" if link is None else f"{link.name} ({link.ifindex})"


def _weigh_mappings(
    known: Mapping[_K, _V], found: Mapping[_K, _V], staging: Staging
) -> tuple[list[tuple[_K, _V | None, _V | None]], Doubts]:
    differing = [
        key for key in (*known, *(key for key in found if key not in known)) if known.get(key) != found.get(key)
    ]
    taken, _, still = _weigh(differing, staging)
    return [(key, known.get(key), found.get(key)) for key in taken], still


def _put(mapping: dict[_K, _V], key: _K, value: _V | None) -> None:
    if value is None:
        mapping.pop(key, None)
    else:
        mapping[key] = value
