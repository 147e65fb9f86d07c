"""Taking the word of a complete dump of routes, in pieces: a million of them take seconds.

    compare    the living tables with the staged ones: which prefixes differ
    decide     for each of those whose word is taken, and what changes by that
    decide     again for what a notification spoke of meanwhile, until that is little
    swap       in one step: the last of those, the tables, the changes into the batch

The living tables stay as they are, and exact as far as notifications go, until the swap: a lookup
in between never sees half of either. A prefix of which the living tables know better is put into
the staged ones when that is decided, and once more if it changes again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Iterable, Iterator
from itertools import chain, islice
from typing import cast

from ..netlink import AF_INET6, RouteBody
from ._changes import FOUND_BY_DUMP, RouteChange
from ._differences import Difference, Prefix
from ._editor import Editor
from ._nodes import bodies, joins_siblings, slot_of, unexpanded
from ._staging import EVERYTHING, Doubts, Staging, weigh
from ._tables import PIECE, NodeKey, RouteTables

# Prefixes of which the word is decided in one go; some 3 ms. More than are notified of in one turn of the loop, so that
# what is spoken of meanwhile becomes less.
DECIDED = 512
# Rounds of that, after which the rest is decided in one step, however much it is.
_ROUNDS = 32


def settle_routes(editor: Editor, staging: Staging) -> Generator[None, None, Doubts]:
    """Settle routes as `settle_in_pieces` does all parts."""
    living, staged = editor.state.tables[staging.family], staging.state.tables[staging.family]
    yield from staged.loaded()
    decision = _Decision(editor, staging, living, staged)
    # Of small tables, too, there can be much to decide: of what came and went again, each prefix may be doubtful.
    spoken_of = len(staging.touched) + len(staging.doubts or ())
    at_once = living.prefixes() + staged.prefixes() + spoken_of < PIECE
    for _ in decision.pieces():
        if not at_once:
            yield
    editor.staging = None
    still = decision.carry_out()
    if not at_once:
        yield from (living if editor.state.tables[staging.family] is staged else staged).take_apart()
        yield from decision.take_apart()
    return still


class _Decision:
    """Whose word is taken for each prefix that differs."""

    def __init__(self, editor: Editor, staging: Staging, living: RouteTables, staged: RouteTables) -> None:
        self._editor = editor
        self._staging = staging
        self._living = living
        self._staged = staged
        self._contested = staging.contested
        # Where the dump's word is taken: what changes; of default routes more depends on it; and what is said of it.
        self._taken: dict[NodeKey, tuple[RouteChange, ...]] = {}
        self._defaults: set[NodeKey] = set()
        self._found: dict[NodeKey, Difference] = {}
        self._open: set[NodeKey] = set()

    def pieces(self) -> Iterator[None]:
        """Find what differs, and decide; yields between the pieces."""
        staging = self._staging
        # Before the tables are known for the first time nothing is a change, and differences need not be found.
        for found in self._living.compare(self._staged) if self._editor.recording else ():
            staging.differing.update(dict.fromkeys(found))
            yield
        yield from self._decide_all()
        for _ in range(_ROUNDS):
            if self._contested != staging.contested:  # which changes what was decided of all that is doubtful
                self._contested = staging.contested
                yield from self._decide_all()
            if len(staging.late) < DECIDED or self._is_void():
                return
            late, staging.late = staging.late, set()
            yield from self._decide_each(late)

    def _decide_all(self) -> Iterator[None]:
        staging = self._staging
        staging.late = set()
        yield from self._decide_each(staging.differing)
        yield from self._decide_each({*staging.touched})
        yield from self._decide_each(staging.doubts or ())

    def _decide_each(self, keys: Iterable[object]) -> Iterator[None]:
        # What is touched or doubtful of a part with routes are prefixes.
        rest = cast(Iterator[NodeKey], iter(keys))
        while piece := list(islice(rest, DECIDED)):
            if self._is_void():
                return
            self._decide(piece)
            yield

    def _is_void(self) -> bool:
        """Whether the dump is worth nothing: all was doubtful, and more than notifications name has changed since."""
        staging = self._staging
        return bool(staging.contested or staging.ways) and staging.doubts is EVERYTHING

    def carry_out(self) -> Doubts:
        """Swap the staged tables in, and put into the batch what changes by that; returns what is doubtful still."""
        editor, staging = self._editor, self._staging
        if self._is_void():
            return EVERYTHING
        self._decide(cast(Iterable[NodeKey], staging.late))
        for key in sorted(self._defaults & self._taken.keys()):
            editor.set_routes(staging.family, key, self._staged.at(key))  # remembers the gateways
        staging.found += self._found.values()
        editor.batch.routes += chain.from_iterable(self._taken.values())
        editor.state.tables[staging.family] = self._staged
        editor.see_dumped_flags(staging)
        return self._open

    def _decide(self, keys: Iterable[NodeKey]) -> None:
        """Decide of some prefixes, anew if it was decided of them before."""
        living, staged, staging = self._living, self._staged, self._staging
        audited = staging.family == AF_INET6 and staging.doubts is not EVERYTHING
        differing: dict[NodeKey, tuple[tuple[RouteBody, ...], tuple[RouteBody, ...]]] = {}
        for key in keys:
            self._taken.pop(key, None)
            self._found.pop(key, None)
            before, after = living.at(key), staged.at(key)
            if before == after or (audited and _explain(staging, key, before)):
                continue
            if _are_alike(before, after):
                if key in staging.touched:
                    staged.put(key, before)  # of two forms of the same, that of the notification is the newer one
                continue
            differing[key] = before, staged.at(key)  # which `_explain` may have changed
        taken, kept, still_open = weigh(differing, staging.touched, staging.contested, staging.doubts, staging.confirm)
        # Open is what was once: the dump that settles it must begin later.
        self._open |= still_open
        for key in kept:
            staged.put(key, differing[key][0])
        for key in taken if self._editor.recording else ():
            before, after = differing[key]
            self._taken[key] = tuple(_changes_of(key[2], before, after))
            if key[1] == 0:
                self._defaults.add(key)
            if staging.doubts is not EVERYTHING:
                self._found[key] = staging.difference(Prefix(staging.family, key), before, after)

    def take_apart(self) -> Iterator[None]:
        """Forget it all a piece at a time: to free a hundred thousand entries at once takes 10 ms."""
        for entries in (self._taken, self._found, self._staging.differing):
            while len(entries) > PIECE:
                for _ in range(PIECE):
                    entries.popitem()
                yield
        for keys in (self._staging.touched, self._staging.late):
            while len(keys) > PIECE:
                for _ in range(PIECE):
                    keys.pop()
                yield


def _are_alike(before: Iterable[RouteBody], after: Iterable[RouteBody]) -> bool:
    """Whether routes differ only in how nexthop objects were expanded when they were shown."""
    return list(map(unexpanded, before)) == list(map(unexpanded, after))


def _changes_of(destination: int, before: tuple[RouteBody, ...], after: tuple[RouteBody, ...]) -> Iterator[RouteChange]:
    gone = [body for body in before if body not in after]
    came = [body for body in after if body not in before]
    if not gone and not came:
        # Only the order differs, and of equals the first is in use: each place has another route now.
        moved = [(old, new) for old, new in zip(before, after, strict=True) if old != new]
        yield from (RouteChange(destination, old, new, FOUND_BY_DUMP) for old, new in moved)
    elif len(gone) == len(came) == 1:
        yield RouteChange(destination, gone[0], came[0], FOUND_BY_DUMP)
    else:
        yield from (RouteChange(destination, body, None, FOUND_BY_DUMP) for body in gone)
        yield from (RouteChange(destination, None, body, FOUND_BY_DUMP) for body in came)


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
    return Counter(map(unexpanded, before)) == Counter(map(unexpanded, after))


def _hidden(before: tuple[RouteBody, ...], after: tuple[RouteBody, ...]) -> list[RouteBody]:
    """The known routes that a dump leaves out although they are there.

    From the first sibling of a group the kernel's dump goes on behind the last one (rt6_dump_route), and so skips
    what lies between and is none. Such a route is in use nevertheless, and shows up when the group is gone
    (docs/kernel.md). What stands before the group, or has no group in its slot, is not skipped.
    """
    groups = {slot_of(body) for body in after if joins_siblings(body) and len(body.nexthops) > 1}
    shown = set(map(unexpanded, after))
    passed: set[tuple[int, int, int]] = set()
    hidden: list[RouteBody] = []
    for body in before:
        if joins_siblings(body):
            passed.add(slot_of(body))
        elif unexpanded(body) not in shown and slot_of(body) in groups & passed:
            hidden.append(body)
    return hidden
