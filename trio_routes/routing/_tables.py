"""The routing tables of one family: prefixes to nodes, and the longest-prefix search.

For each (table, prefix length) there is a dict from the destination, as an integer, to the number of
a node (`_book.py`). What a link's going touches is found by its bodies (a few per link), then by
scanning only the dicts that such bodies live in, so a link that no route uses costs nothing.

A length with very many prefixes is split into several dicts (`_places.py`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from random import Random
from typing import NamedTuple, TypeAlias

from ..netlink import AF_INET, RouteBody
from ._book import Book
from ._finder import Find, finder
from ._nodes import Node, bodies
from ._places import BUCKET, BUCKETS, Bucket, Nodes, Place, Search, held
from ._values import Route

# (table, prefix length, destination)
NodeKey: TypeAlias = tuple[int, int, int]
# Where a body's routes live while a dump comes in: the number of the node that is just it, and the dict of each bucket.
# A plain tuple, which is unpacked faster than a class of one's own.
Home: TypeAlias = tuple[int, list[Nodes]]

# Prefixes that are compared or freed in one go; about 1 ms.
PIECE = 4096
# Prefixes of one length that are kept in one dict; to split so many takes 1 to 1.5 ms.
SPLIT = 4096
# How far `pick` walks into a dict; some 0.3 ms.
_REACH = 50_000


class Exchanged(NamedTuple):
    """What was in one place before `RouteTables.exchange` changed it.

    Attributes:
      table: The table.
      length: The prefix length.
      destinations: The prefixes that were changed, in their order.
      numbers: The number that each of them had.
      before: The nodes that these numbers were.
    """

    table: int
    length: int
    destinations: list[int]
    numbers: list[int]
    before: dict[int, Node]


class RouteTables:
    """All tables of one address family.

    Attributes:
      family: AF_INET or AF_INET6.
      width: Bits of an address.
      edits: Counts the prefixes put; who walks through a dict in pieces learns from it whether it is the same still.
    """

    def __init__(self, family: int) -> None:
        self.family = family
        self.width = 32 if family == AF_INET else 128
        self.edits = 0
        self._shift = 16 if family == AF_INET else 80
        self._shortest_split = 16 if family == AF_INET else 48
        self._book = Book()
        self._places: dict[tuple[int, int], Place] = {}
        self._buckets: dict[int, list[Bucket]] = {}
        self._finders: dict[int, Find] = {}
        self._no_buckets: list[Bucket] = [[]] * BUCKETS
        # While a dump comes in: the numbers that must not be taken by other nodes, and what became of two in one prefix.
        self._pinned: list[int] = []
        self._joined: dict[tuple[int, int], int] = {}
        self._prefixes = 0
        # Routes beyond the first of each prefix.
        self._others = 0

    # ---- one prefix ------------------------------------------------------------------------------

    def get(self, key: NodeKey) -> Node | None:
        """The node of one prefix."""
        table, length, destination = key
        place = self._places.get((table, length))
        number = None if place is None else place.by_bucket[destination >> self._shift & BUCKET].get(destination)
        return None if number is None else self._book.nodes[number]

    def at(self, key: NodeKey) -> tuple[RouteBody, ...]:
        """The routes of one prefix, in order."""
        return bodies(self.get(key))

    def put(self, key: NodeKey, routes: tuple[RouteBody, ...]) -> None:
        """Set the routes of one prefix; none removes the node."""
        table, length, destination = key
        self.edits += 1
        if not routes and (table, length) not in self._places:
            return
        place = self._place_at(table, length)
        self._put(place.by_bucket[destination >> self._shift & BUCKET], destination, routes)
        if routes:
            self._mind_size(place)

    def put_another(self, key: NodeKey, body: RouteBody) -> bool:
        """Put a route under a prefix that has none, if there are such routes already; False, and nothing done, elsewhere.

        With `remove_only` the short way for notifications, which come by the hundred thousand, and nearly all are such:
        what `get` and `put` do in a third of the time. Also, a body that is known is as the tables hold bodies, without
        flags that change unheard; nobody needs to look.
        """
        table, length, destination = key
        place, book = self._places.get((table, length)), self._book
        number = book.find(body)
        if place is None or number is None:
            return False
        nodes = place.by_bucket[destination >> self._shift & BUCKET]
        if destination in nodes:
            return False
        nodes[destination] = number
        book.uses[number] += 1
        self._prefixes += 1
        self.edits += 1
        if len(nodes) > SPLIT:
            self._mind_size(place)
        return True

    def remove_only(self, key: NodeKey, body: RouteBody) -> bool:
        """Remove a route that is the only one of its prefix, as most are; False, and nothing done, elsewhere."""
        table, length, destination = key
        place = self._places.get((table, length))
        if place is None:
            return False
        nodes, book = place.by_bucket[destination >> self._shift & BUCKET], self._book
        number = nodes.get(destination)
        if number is None:
            return False
        node = book.nodes[number]
        if node is not body and node != body:
            return False
        del nodes[destination]
        self._prefixes -= 1
        self.edits += 1
        book.release(number)
        return True

    def _put(self, nodes: Nodes, destination: int, routes: tuple[RouteBody, ...]) -> None:
        book = self._book
        old = nodes.get(destination)
        if routes:
            number = book.number_of(routes)
            nodes[destination] = number
            self._count(number, 1)
        elif old is not None:
            del nodes[destination]
        if old is not None:
            self._count(old, -1)
            book.release(old)

    def _place_at(self, table: int, length: int) -> Place:
        place = self._places.get((table, length))
        if place is None:
            mask = ((1 << length) - 1) << (self.width - length)
            place = self._places[table, length] = Place(table, length, mask, length >= self._shortest_split)
            self._lay_out(table)
        return place

    def _mind_size(self, place: Place) -> None:
        if len(place.by_bucket[0]) > SPLIT and place.may_split and not place.is_split:
            place.split(self._shift)
            self._lay_out(place.table)

    def _lay_out(self, table: int) -> None:
        """Make a table's buckets."""
        places = sorted(
            (place for place in self._places.values() if place.table == table), key=lambda each: -each.length
        )
        if any(place.is_split for place in places):
            buckets = [[(place.mask, place.by_bucket[bucket]) for place in places] for bucket in range(BUCKETS)]
        else:
            buckets = [[(place.mask, place.by_bucket[0]) for place in places]] * BUCKETS
        self._buckets[table] = buckets
        self._finders.pop(table, None)

    # ---- the longest prefix ----------------------------------------------------------------------

    def search(self, table: int) -> Search:
        """What the longest-prefix search goes through in one table, until the tables change."""
        return Search(self._shift, self._buckets.get(table, self._no_buckets), self._book.nodes)

    def finder(self, table: int) -> Find:
        """The function that finds in one table the node of the longest prefix for an address, until the tables change.

        Most lookups need no more of a table; where no route of that node answers they go through `search`.
        """
        find = self._finders.get(table)
        if find is None:
            find = self._finders[table] = finder(self.search(table))
        return find

    def matching(self, table: int, destination: int) -> Iterator[tuple[int, Node]]:
        """Yield (prefix length, node) of every prefix that covers `destination`, longest first."""
        shift, buckets, known = self.search(table)
        for mask, nodes in buckets[destination >> shift & BUCKET]:
            number = nodes.get(destination & mask)
            if number is not None:
                yield mask.bit_count(), known[number]

    # ---- a dump that comes in --------------------------------------------------------------------

    def home_of(self, body: RouteBody) -> Home:
        """Where `load` puts the routes of a body. Its node is kept until `loaded`, whether any come or not."""
        number = self._book.number_of((body,))
        self._pin(number)
        return number, self._place_at(body.table, body.prefix_length).by_bucket

    def load(self, homes: Iterable[Home], destinations: Iterable[int]) -> None:
        """Take routes in, each behind those of its prefix.

        One by one: whatever finds out first which of them could be put in together takes longer (measured), as most
        of the time goes by within the dicts.

        Args:
          homes: Where each goes, as `home_of` its body said.
          destinations: Its destination; as many.
        """
        shift, bucket = self._shift, BUCKET
        for (number, by_bucket), destination in zip(homes, destinations, strict=True):
            nodes = by_bucket[destination >> shift & bucket]
            known = nodes.setdefault(destination, number)
            if known != number:
                nodes[destination] = self._joined.get((known, number)) or self._join(known, number)
        for place in self._places.values():
            self._mind_size(place)

    def _join(self, known: int, number: int) -> int:
        """The node that comes of a route behind those that its prefix has: the same few, again and again."""
        routes, (body,) = bodies(self._book.nodes[known]), bodies(self._book.nodes[number])
        joined = known if body in routes else self._book.number_of((*routes, body))
        self._joined[known, number] = joined
        self._pin(joined)
        return joined

    def _pin(self, number: int) -> None:
        self._book.uses[number] += 1
        self._pinned.append(number)

    def loaded(self) -> Iterator[None]:
        """Count what was loaded, some of it at a time, when there is no more to come. Until then nothing is counted."""
        book = self._book
        places = list(self._places.values())
        numbers = chain.from_iterable(nodes.values() for place in places for nodes in place.dicts)
        while piece := Counter(islice(numbers, PIECE)):
            for number, count in piece.items():
                self._count(number, count)
            if piece.total() == PIECE:
                yield
        self._joined.clear()
        for at, number in enumerate(self._pinned, start=1):
            book.release(number)
            if at % PIECE == 0:
                yield
        self._pinned.clear()

    # ---- what uses a link or a nexthop object ----------------------------------------------------

    def through_link(self, ifindex: int, wanted: Callable[[RouteBody], bool]) -> list[tuple[NodeKey, Node]]:
        """The nodes that hold a route with a next hop on a link, if `wanted` says yes to its body.

        By table, prefix length and destination: what is derived from a link's going comes in the same order each time.
        """
        return self._holding(body for body in self._book.by_link(ifindex) if wanted(body))

    def by_nexthop(self, ids: Iterable[int]) -> list[tuple[NodeKey, Node]]:
        """The nodes that hold a route which names one of these nexthop objects; in the same order."""
        return self._holding(body for number in ids for body in self._book.by_nexthop(number))

    def _holding(self, sought: Iterable[RouteBody]) -> list[tuple[NodeKey, Node]]:
        known = self._book.nodes
        return [
            ((place.table, place.length, each), known[place.by_bucket[each >> self._shift & BUCKET][each]])
            for place, numbers in self._places_holding(sought)
            for each in held(place, numbers)
        ]

    def _places_holding(self, sought: Iterable[RouteBody]) -> list[tuple[Place, set[int]]]:
        return [(self._places[at], numbers) for at, numbers in self._book.holding(sought).items()]

    def exchange(self, bodies_of: Mapping[RouteBody, RouteBody | None]) -> Iterator[Exchanged]:
        """Put other bodies in the place of some, or nothing (None), under all prefixes that hold them.

        As fast as it can be for a hundred thousand prefixes, since a link that goes takes them all in one step: what
        becomes of a node is found out once, and nothing is made for each prefix.

        Yields:
          What was there, by table and prefix length. To be exhausted: the changes are made on the way.
        """
        book, shift = self._book, self._shift
        for place, wanted in self._places_holding(bodies_of):
            self.edits += 1
            destinations, by_bucket = held(place, wanted), place.by_bucket
            numbers = [by_bucket[each >> shift & BUCKET][each] for each in destinations]
            before = {number: book.nodes[number] for number in wanted}
            after = {number: self._exchanged(node, bodies_of) for number, node in before.items()}
            for destination, number in zip(destinations, numbers, strict=True):
                new_number = after[number]
                if new_number is None:
                    del by_bucket[destination >> shift & BUCKET][destination]
                else:
                    by_bucket[destination >> shift & BUCKET][destination] = new_number
            counted = Counter(numbers)
            for number, count in counted.items():
                self._count(number, -count)
                new_number = after[number]
                if new_number is not None:
                    self._count(new_number, count)
            for number, count in counted.items():  # not before: what comes in its place may be among these
                book.release(number, count)
            yield Exchanged(place.table, place.length, destinations, numbers, before)

    def _exchanged(self, node: Node, bodies_of: Mapping[RouteBody, RouteBody | None]) -> int | None:
        left = (bodies_of.get(body, body) for body in bodies(node))
        routes = tuple(body for body in left if body is not None)
        return self._book.number_of(routes) if routes else None

    def _count(self, number: int, prefixes: int) -> None:
        """Count so many prefixes more, or less, of one node; its uses only if they are more."""
        self._prefixes += prefixes
        self._others += prefixes * (len(bodies(self._book.nodes[number])) - 1)
        if prefixes > 0:
            self._book.uses[number] += prefixes

    def bodies_by(self, ifindex: int) -> Collection[RouteBody]:
        """Of `bodies()`, those with a next hop on a link."""
        return self._book.by_link(ifindex)

    def bodies_naming(self, nexthop_id: int) -> Collection[RouteBody]:
        """Of `bodies()`, those that name a nexthop object."""
        return self._book.by_nexthop(nexthop_id)

    def bodies(self) -> Collection[RouteBody]:
        """All bodies that routes have."""
        return self._book.bodies()

    def defaults(self) -> Iterator[tuple[NodeKey, Node]]:
        """Every table's default route."""
        for (table, length), place in self._places.items():
            for destination, number in () if length else place.by_bucket[0].items():
                yield (table, 0, destination), self._book.nodes[number]

    # ---- all of them -----------------------------------------------------------------------------

    def compare(self, other: RouteTables) -> Iterator[list[NodeKey]]:
        """Yield the prefixes under which two sets of tables differ, those of one piece of them at a time.

        Between the pieces these tables may change, the other ones may not. What is said of a prefix that changed
        meanwhile may be true no more, and it may be left out.
        """
        # The other's numbers in these tables. A number that is free and taken again meanwhile is that of prefixes
        # that changed meanwhile.
        same: list[int] = []
        for node in other._book.nodes:
            number = self._book.find(node)
            same.append(-1 if number is None else number)
            if len(same) % PIECE == 0:
                yield []
        for table, length in {**self._places, **other._places}:
            ours, theirs = self._place_at(table, length), other._place_at(table, length)
            edits, in_both = self.edits, 0
            for nodes in theirs.dicts:
                items, in_both = iter(nodes.items()), in_both + len(nodes)
                for _ in range(0, len(nodes), PIECE):
                    suspects, missing = _differing(ours.by_bucket, self._shift, islice(items, PIECE), same)
                    in_both -= missing
                    yield [(table, length, destination) for destination in suspects]
            if self.edits == edits and sum(map(len, ours.dicts)) == in_both:
                continue
            # The keys of a dict are listed in no time; one that changes cannot be walked through in pieces.
            for keys in [list(nodes) for nodes in ours.dicts]:
                for at in range(0, len(keys), PIECE):
                    piece = keys[at : at + PIECE]
                    yield [
                        (table, length, each)
                        for each in piece
                        if each not in theirs.by_bucket[each >> self._shift & BUCKET]
                    ]

    def take_apart(self) -> Iterator[None]:
        """Empty the tables a piece at a time: to free a million prefixes at once takes 15 to 30 ms. For good."""
        for place in self._places.values():
            for nodes in place.dicts:
                while nodes:
                    count = min(PIECE, len(nodes))
                    for _ in range(count):
                        nodes.popitem()
                    self._prefixes -= count
                    yield

    def pick(self, random: Random, apart_from: int) -> NodeKey | None:
        """Choose a prefix at random, of any table but one; None where there is none.

        Each table and prefix length is as likely as another, however many routes it has. Of very many the first or
        the last are chosen among: a dict cannot be entered in the middle, and nobody is to wait for this.
        """
        places = [place for place in self._places.values() if place.table != apart_from and any(place.dicts)]
        if not places:
            return None
        place = random.choice(places)
        nodes = random.choice([nodes for nodes in place.dicts if nodes])
        at = random.randrange(min(len(nodes), _REACH))
        order = reversed(nodes) if random.random() < 0.5 else iter(nodes)
        return place.table, place.length, next(islice(order, at, None))

    def items(self) -> Iterator[tuple[NodeKey, Node]]:
        """Every prefix and its node."""
        known = self._book.nodes
        for (table, length), place in self._places.items():
            for nodes in place.dicts:
                for destination, number in nodes.items():
                    yield (table, length, destination), known[number]

    def prefixes(self) -> int:
        """How many prefixes there are. Counted already."""
        return self._prefixes

    def __iter__(self) -> Iterator[Route]:
        for (_, _, destination), node in self.items():
            for body in bodies(node):
                yield Route(body, destination)

    def __len__(self) -> int:
        """How many routes there are. Counted already."""
        return self._prefixes + self._others


def _differing(
    ours: Sequence[Nodes], shift: int, items: Iterable[tuple[int, int]], same: Sequence[int]
) -> tuple[list[int], int]:
    """The destinations of a piece of another place that are not the same in ours, and how many of them it has not."""
    # No list of the piece itself: thousands of new tuples at a time would have the garbage collector walk.
    suspects = [
        destination
        for destination, number in items
        if ours[destination >> shift & BUCKET].get(destination) != same[number]
    ]
    return suspects, sum(1 for each in suspects if each not in ours[each >> shift & BUCKET])
