"""One family's tables as they would be without some routes, laid over the living ones and copying none of them.

A route goes in one of two ways:

    alone ................ its destination is looked up in a small dict first, and answered from there
    with all its likes ... its body is taken out of the nodes that hold it, or another put in its place

There are a few hundred bodies whatever the number of routes (`_book.py`), so the second takes a
million routes away by touching a few nodes. It answers what lookups ask, for as long as the tables
below do not change; whoever wants to walk through all routes asks those.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from ..netlink import RouteBody
from ._nodes import Node, bodies, node_of
from ._places import Finds, Search
from ._tables import NodeKey, RouteTables


class _Covered:
    """A dict of destinations with some of them answered otherwise."""

    __slots__ = ("_below", "_emptied", "_own")

    def __init__(self, below: Finds, own: Mapping[int, int | None], emptied: Collection[int]) -> None:
        self._below = below
        self._own = own
        self._emptied = emptied

    def get(self, destination: int, /) -> int | None:
        number = self._own.get(destination, -1)
        if number != -1:
            return number
        number = self._below.get(destination)
        return None if number in self._emptied else number


class OverlaidTables(RouteTables):
    """Tables from which routes are taken away without changing those below.

    Args:
      below: The living tables; not to be changed while this is in use.
    """

    def __init__(self, below: RouteTables) -> None:
        super().__init__(below.family)
        self._below = below
        self._swaps: dict[RouteBody, RouteBody | None] = {}
        self._put_in: set[RouteBody] = set()
        self._own: dict[NodeKey, tuple[RouteBody, ...]] = {}
        self._laid: dict[int, Search] = {}

    # ---- taking away -----------------------------------------------------------------------------

    def swap(self, body: RouteBody, by: RouteBody | None = None) -> None:
        """Put another body in the place of one under every prefix; with None, take it away."""
        if body in self._put_in:
            for before, after in self._swaps.items():
                if after == body:
                    self._swaps[before] = by
        if by is not None:
            self._put_in.add(by)
        self._swaps[body] = by
        self._changed()

    def put(self, key: NodeKey, routes: tuple[RouteBody, ...]) -> None:
        """Set the routes of one prefix; none takes it away."""
        self._own[key] = routes
        self._changed()

    def _changed(self) -> None:
        self.edits += 1
        self._laid.clear()
        self._finders.clear()

    # ---- what is left ----------------------------------------------------------------------------

    def get(self, key: NodeKey) -> Node | None:
        """The node of one prefix."""
        own = self._own.get(key)
        return self._swapped(own if own is not None else bodies(self._below.get(key)))

    def _swapped(self, routes: tuple[RouteBody, ...]) -> Node | None:
        left = (self._swaps.get(body, body) for body in routes)
        return node_of(tuple(body for body in left if body is not None))

    def bodies(self) -> Collection[RouteBody]:
        """All bodies that routes have."""
        return self._left(self._below.bodies())

    def bodies_by(self, ifindex: int) -> Collection[RouteBody]:
        """Of `bodies()`, those with a next hop on a link."""
        found = self._left(self._below.bodies_by(ifindex))
        return [body for body in found if any(hop.ifindex == ifindex for hop in body.nexthops)]

    def _left(self, known: Collection[RouteBody]) -> list[RouteBody]:
        left = (self._swaps.get(body, body) for body in known)
        return [body for body in left if body is not None]

    def search(self, table: int) -> Search:
        """What the longest-prefix search goes through in one table."""
        laid = self._laid.get(table)
        if laid is None:
            laid = self._laid[table] = self._lay_over(table)
        return laid

    def _lay_over(self, table: int) -> Search:
        shift, buckets, below = self._below.search(table)
        nodes = list(below)
        emptied: set[int] = set()
        if self._swaps:
            for number, node in enumerate(below):
                if any(body in self._swaps for body in bodies(node)):
                    left = self._swapped(bodies(node))
                    nodes[number] = () if left is None else left
                    if left is None:
                        emptied.add(number)
        own: dict[int, dict[int, int | None]] = {}
        for (at, length, destination), routes in self._own.items():
            if at == table:
                mine = self._swapped(routes)
                own.setdefault(((1 << length) - 1) << self.width - length, {})[destination] = (
                    None if mine is None else len(nodes)
                )
                if mine is not None:
                    nodes.append(mine)
        return Search(shift, _covered(buckets, own, emptied), nodes)


def _covered(
    buckets: Sequence[Sequence[tuple[int, Finds]]], own: dict[int, dict[int, int | None]], emptied: Collection[int]
) -> list[list[tuple[int, Finds]]]:
    # The buckets are mostly one and the same list, and share dicts where they are not.
    covers: dict[int, _Covered] = {}
    lists: dict[int, list[tuple[int, Finds]]] = {}
    for bucket in buckets:
        if id(bucket) not in lists:
            for mask, nodes in bucket:
                if id(nodes) not in covers:
                    covers[id(nodes)] = _Covered(nodes, own.get(mask, {}), emptied)
            lists[id(bucket)] = [(mask, covers[id(nodes)]) for mask, nodes in bucket]
    return [lists[id(bucket)] for bucket in buckets]
