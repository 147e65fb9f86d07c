"""Taking a complete dump's word: into the tables, and into the batch what it showed to be different."""

from __future__ import annotations

from collections.abc import Generator, Hashable, Iterable, Mapping
from typing import TypeVar

from ..netlink import AF_INET
from ._changes import FOUND_BY_DUMP, LinkChange, NeighbourChange, RuleChange
from ._editor import Editor
from ._rules import are_usual
from ._settling_routes import settle_routes
from ._staging import ALL_RULES, EVERYTHING, ROUTES_OF, Doubts, Part, Staging, weigh
from ._values import Link

_K = TypeVar("_K", bound=Hashable)
_V = TypeVar("_V")


def settle_in_pieces(editor: Editor, staging: Staging) -> Generator[None, None, Doubts]:
    """Take a complete dump's word where it can be taken; returns what of that part is doubtful still.

    Yields now and then, because a million routes take a while: notifications may be applied meanwhile, and are held
    against the dump like those that came before its end. Small tables are settled without a pause.
    """
    if staging.part is ROUTES_OF.get(staging.family):
        return (yield from settle_routes(editor, staging))
    editor.staging = None
    return _settle(editor, staging)


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
            raise AssertionError("routes are settled in pieces")


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
    if staging.absent:
        editor.state.unruled.add(staging.family)
    elif staging.family == AF_INET or not are_usual(after):
        editor.state.unruled.discard(staging.family)
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
