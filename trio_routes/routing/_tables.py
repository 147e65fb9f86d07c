"""The routing tables of one family: prefixes to nodes, and the longest-prefix search.

For each (table, prefix length) one dict from the destination, as an integer, to the node. A
million routes are a million small dict slots and nothing for the garbage collector to walk:
one body object is shared by all routes that differ only in their destination.

What a link's going touches is found by its bodies (a few per link), then by scanning only
the dicts that such bodies live in, so a link that no route uses costs nothing. Since equal
bodies are one object here, the scan compares identities and runs no `__eq__` or `__hash__`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from random import Random
from typing import TypeAlias

from ..netlink import AF_INET, RouteBody
from ._nodes import Node, bodies, node_of
from ._values import Route

# (table, prefix length, destination)
NodeKey: TypeAlias = tuple[int, int, int]
Nodes: TypeAlias = dict[int, Node]
# One table's (mask, nodes) for each prefix length, the longest first.
Search: TypeAlias = Sequence[tuple[int, Nodes]]

# Prefixes that are compared or freed in one go; about 1 ms.
PIECE = 4096
# How far `pick` walks into a dict; some 0.3 ms.
_REACH = 50_000


def longest(search: Search, destination: int) -> Node | None:
    """The node of the longest prefix that covers a destination; None if no prefix does.

    The lookup (`_table_lookup.py`) has this loop in its own body, as it goes on to shorter prefixes where no route of
    the node answers: a generator in between would cost as much again as the loop.
    """
    for mask, nodes in search:
        node = nodes.get(destination & mask)
        if node is not None:
            return node
    return None


class RouteTables:
    """All tables of one address family.

    Attributes:
      edits: Counts the prefixes put; who walks through a dict in pieces learns from it whether it is the same still.
    """

    def __init__(self, family: int) -> None:
        self.family = family
        self.width = 32 if family == AF_INET else 128
        self.edits = 0
        self._nodes: dict[tuple[int, int], Nodes] = {}
        # Per table, longest prefix first: (mask, the nodes of that length).
        self._search: dict[int, list[tuple[int, Nodes]]] = {}
        # To each body the one object that stands for it, and the dict that its routes live in.
        self._homes: dict[RouteBody, tuple[RouteBody, Nodes]] = {}
        self._by_link: dict[int, set[RouteBody]] = {}
        self._by_nexthop: dict[int, set[RouteBody]] = {}

    def home_of(self, body: RouteBody) -> tuple[RouteBody, Nodes]:
        """The object that stands for a body here, and the dict in which its routes live."""
        home = self._homes.get(body)
        if home is None:
            home = self._homes[body] = body, self._nodes_at(body.table, body.prefix_length)
            for hop in body.nexthops:
                self._by_link.setdefault(hop.ifindex, set()).add(body)
            if body.nexthop_id:
                self._by_nexthop.setdefault(body.nexthop_id, set()).add(body)
        return home

    def _nodes_at(self, table: int, prefix_length: int) -> Nodes:
        nodes = self._nodes.get((table, prefix_length))
        if nodes is None:
            nodes = self._nodes[table, prefix_length] = {}
            mask = ((1 << prefix_length) - 1) << (self.width - prefix_length)
            search = self._search.setdefault(table, [])
            search.append((mask, nodes))
            search.sort(key=lambda entry: -entry[0])
        return nodes

    def get(self, key: NodeKey) -> Node | None:
        """The node of one prefix."""
        nodes = self._nodes.get(key[:2])
        return None if nodes is None else nodes.get(key[2])

    def at(self, key: NodeKey) -> tuple[RouteBody, ...]:
        """The routes of one prefix, in order."""
        return bodies(self.get(key))

    def pick(self, random: Random, apart_from: int) -> NodeKey | None:
        """Choose a prefix at random, of any table but one; None where there is none.

        Each table and prefix length is as likely as another, however many routes it has. Of very many the first or
        the last are chosen among: a dict cannot be entered in the middle, and nobody is to wait for this.
        """
        places = [place for place, nodes in self._nodes.items() if nodes and place[0] != apart_from]
        if not places:
            return None
        table, length = random.choice(places)
        nodes = self._nodes[table, length]
        at = random.randrange(min(len(nodes), _REACH))
        order = reversed(nodes) if random.random() < 0.5 else iter(nodes)
        return table, length, next(islice(order, at, None))

    def put(self, key: NodeKey, routes: tuple[RouteBody, ...]) -> None:
        """Set the routes of one prefix; none removes the node."""
        self.edits += 1
        node = node_of(tuple(self.home_of(body)[0] for body in routes))
        if node is not None:
            self._nodes_at(key[0], key[1])[key[2]] = node
        elif key[:2] in self._nodes:
            self._nodes[key[:2]].pop(key[2], None)

    def search(self, table: int) -> Search:
        """What the longest-prefix search goes through in one table; see `longest`."""
        return self._search.get(table, ())

    def matching(self, table: int, destination: int) -> Iterator[tuple[int, Node]]:
        """Yield (prefix length, node) of every prefix that covers `destination`, longest first."""
        for mask, nodes in self._search.get(table, ()):
            node = nodes.get(destination & mask)
            if node is not None:
                yield (node[0] if isinstance(node, tuple) else node).prefix_length, node

    def through_link(self, ifindex: int, wanted: Callable[[RouteBody], bool]) -> list[tuple[NodeKey, Node]]:
        """The nodes that hold a route with a next hop on a link, if `wanted` says yes to its body."""
        return self._holding(body for body in self._by_link.get(ifindex, ()) if wanted(body))

    def by_nexthop(self, ids: set[int]) -> list[tuple[NodeKey, Node]]:
        """The nodes that hold a route which names one of these nexthop objects."""
        return self._holding(body for number in ids for body in self._by_nexthop.get(number, ()))

    def _holding(self, bodies_sought: Iterable[RouteBody]) -> list[tuple[NodeKey, Node]]:
        sought: dict[tuple[int, int], set[int]] = {}
        for body in bodies_sought:
            sought.setdefault((body.table, body.prefix_length), set()).add(id(body))
        return [
            ((table, prefix_length, destination), node)
            for (table, prefix_length), ids in sought.items()
            for destination, node in self._nodes[table, prefix_length].items()
            if (id(node) in ids if not isinstance(node, tuple) else any(id(body) in ids for body in node))
        ]

    def bodies_by(self, ifindex: int) -> Iterable[RouteBody]:
        """Of `bodies()`, those with a next hop on a link."""
        return self._by_link.get(ifindex, ())

    def bodies(self) -> Iterable[RouteBody]:
        """All bodies that routes have, or had since the tables were last read anew."""
        return self._homes.keys()

    def defaults(self) -> Iterator[tuple[NodeKey, Node]]:
        """Every table's default route."""
        for (table, prefix_length), nodes in self._nodes.items():
            if prefix_length == 0:
                yield from (((table, 0, destination), node) for destination, node in nodes.items())

    def compare(self, other: RouteTables) -> Iterator[list[NodeKey]]:
        """Yield the prefixes under which two sets of tables differ, those of one piece of them at a time.

        Between the pieces these tables may change, the other ones may not. What is said of a prefix that changed
        meanwhile may be true no more, and it may be left out.
        """
        for place in {**self._nodes, **other._nodes}:
            ours, theirs = self._nodes.get(place, {}), other._nodes.get(place, {})
            edits, in_both = self.edits, len(theirs)
            items = iter(theirs.items())
            for _ in range(0, len(theirs), PIECE):
                # Bodies are mostly the same objects on both sides. No list of the piece itself: thousands of new
                # tuples at a time would have the garbage collector walk through everything.
                suspects = [
                    (destination, node)
                    for destination, node in islice(items, PIECE)
                    if ours.get(destination) is not node
                ]
                in_both -= sum(1 for destination, _ in suspects if destination not in ours)
                yield [(*place, destination) for destination, node in suspects if ours.get(destination) != node]
            if self.edits == edits and len(ours) == in_both:
                continue
            # The keys of a million prefixes are listed in 5 ms; a dict that changes cannot be walked in pieces.
            keys = list(ours)
            for at in range(0, len(keys), PIECE):
                yield [(*place, destination) for destination in keys[at : at + PIECE] if destination not in theirs]

    def take_apart(self) -> Iterator[None]:
        """Empty the tables a piece at a time: to free a million prefixes at once takes 15 to 30 ms."""
        for nodes in self._nodes.values():
            while nodes:
                for _ in range(min(PIECE, len(nodes))):
                    nodes.popitem()
                yield

    def items(self) -> Iterator[tuple[NodeKey, Node]]:
        """Every prefix and its node."""
        for (table, prefix_length), nodes in self._nodes.items():
            for destination, node in nodes.items():
                yield (table, prefix_length, destination), node

    def prefixes(self) -> int:
        """How many prefixes there are; cheap, as `len()` of a million routes is not."""
        return sum(map(len, self._nodes.values()))

    def __iter__(self) -> Iterator[Route]:
        for (_, _, destination), node in self.items():
            for body in bodies(node):
                yield Route(body, destination)

    def __len__(self) -> int:
        return sum(len(node) if isinstance(node, tuple) else 1 for _, node in self.items())
