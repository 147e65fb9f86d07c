"""The routing tables of one family: prefixes to nodes, and the longest-prefix search.

For each (table, prefix length) one dict from the destination, as an integer, to the node. A
million routes are a million small dict slots and nothing for the garbage collector to walk:
bodies are shared among all routes that differ only in their destination.

What a link's going touches is found by its bodies (a few per link), then by scanning only
the dicts that such bodies live in, so a link that no route uses costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeAlias

from ..netlink import AF_INET, RouteBody
from ._nodes import Node, bodies, node_of
from ._values import Route

# (table, prefix length, destination)
NodeKey: TypeAlias = tuple[int, int, int]
_Nodes: TypeAlias = dict[int, Node]


class RouteTables:
    """All tables of one address family."""

    def __init__(self, family: int) -> None:
        self.family = family
        self.width = 32 if family == AF_INET else 128
        self._nodes: dict[tuple[int, int], _Nodes] = {}
        # Per table, longest prefix first: (prefix length, mask, that length's nodes).
        self._search: dict[int, list[tuple[int, int, _Nodes]]] = {}
        self._by_body: dict[RouteBody, _Nodes] = {}
        self._by_link: dict[int, set[RouteBody]] = {}
        self._by_nexthop: dict[int, set[RouteBody]] = {}

    def nodes_of(self, body: RouteBody) -> _Nodes:
        """The dict in which routes with this body live."""
        nodes = self._by_body.get(body)
        if nodes is None:
            nodes = self._by_body[body] = self._nodes_at(body.table, body.prefix_length)
            for hop in body.nexthops:
                self._by_link.setdefault(hop.ifindex, set()).add(body)
            if body.nexthop_id:
                self._by_nexthop.setdefault(body.nexthop_id, set()).add(body)
        return nodes

    def _nodes_at(self, table: int, prefix_length: int) -> _Nodes:
        nodes = self._nodes.get((table, prefix_length))
        if nodes is None:
            nodes = self._nodes[table, prefix_length] = {}
            mask = ((1 << prefix_length) - 1) << (self.width - prefix_length)
            search = self._search.setdefault(table, [])
            search.append((prefix_length, mask, nodes))
            search.sort(key=lambda entry: -entry[0])
        return nodes

    def get(self, key: NodeKey) -> Node | None:
        """The node of one prefix."""
        nodes = self._nodes.get(key[:2])
        return None if nodes is None else nodes.get(key[2])

    def put(self, key: NodeKey, routes: tuple[RouteBody, ...]) -> None:
        """Set the routes of one prefix; none removes the node."""
        nodes = self._nodes_at(key[0], key[1])
        node = node_of(routes)
        if node is None:
            nodes.pop(key[2], None)
            return
        for body in routes:
            self.nodes_of(body)
        nodes[key[2]] = node

    def append(self, destination: int, body: RouteBody) -> None:
        """Add a route behind those of its prefix, as a dump lists them."""
        nodes = self.nodes_of(body)
        known = nodes.get(destination)
        nodes[destination] = body if known is None else (*bodies(known), body)

    def matching(self, table: int, destination: int) -> Iterator[tuple[int, Node]]:
        """Yield (prefix length, node) of every prefix that covers `destination`, longest first."""
        for prefix_length, mask, nodes in self._search.get(table, ()):
            node = nodes.get(destination & mask)
            if node is not None:
                yield prefix_length, node

    def through_link(self, ifindex: int, wanted: Callable[[RouteBody], bool]) -> list[tuple[NodeKey, Node]]:
        """The nodes that hold a route with a next hop on a link, if `wanted` says yes to its body."""
        return self._holding({body for body in self._by_link.get(ifindex, ()) if wanted(body)})

    def by_nexthop(self, ids: set[int]) -> list[tuple[NodeKey, Node]]:
        """The nodes that hold a route which names one of these nexthop objects."""
        return self._holding({body for number in ids for body in self._by_nexthop.get(number, ())})

    def _holding(self, candidates: set[RouteBody]) -> list[tuple[NodeKey, Node]]:
        found: list[tuple[NodeKey, Node]] = []
        for table, prefix_length in {(body.table, body.prefix_length) for body in candidates}:
            for destination, node in self._nodes[table, prefix_length].items():
                if node in candidates if not isinstance(node, tuple) else not candidates.isdisjoint(node):
                    found.append(((table, prefix_length, destination), node))
        return found

    def forget_unused_bodies(self) -> None:
        """Drop what is remembered of bodies that no route has any more."""
        used = {body for nodes in self._nodes.values() for node in nodes.values() for body in bodies(node)}
        self._by_body = {body: nodes for body, nodes in self._by_body.items() if body in used}
        self._by_link = _only(self._by_link, used)
        self._by_nexthop = _only(self._by_nexthop, used)

    def items(self) -> Iterator[tuple[NodeKey, Node]]:
        """Every prefix and its node."""
        for (table, prefix_length), nodes in self._nodes.items():
            for destination, node in nodes.items():
                yield (table, prefix_length, destination), node

    def dicts(self) -> dict[tuple[int, int], _Nodes]:
        """The nodes by (table, prefix length); for comparing whole tables at C speed. Read only."""
        return self._nodes

    def __iter__(self) -> Iterator[Route]:
        for (_, _, destination), node in self.items():
            for body in bodies(node):
                yield Route(body, destination)

    def __len__(self) -> int:
        return sum(len(bodies(node)) for _, node in self.items())


def _only(index: dict[int, set[RouteBody]], used: set[RouteBody]) -> dict[int, set[RouteBody]]:
    left = {number: known & used for number, known in index.items()}
    return {number: known for number, known in left.items() if known}
