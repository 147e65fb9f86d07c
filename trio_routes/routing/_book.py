"""The nodes that a family's tables hold, each once and with a number: a table is then a dict of integers.

The garbage collector walks through every dict that holds an object which could be part of a cycle, a route's body
among them, at each of its full passes: 75 to 120 ms with a million routes. A dict of integers it leaves alone
(CPython up to 3.13; later ones walk again). So the tables hold numbers, and the objects are here, a few hundred
whatever the number of routes.

A node lives as long as some prefix has its number (`uses`); then the number is free for the next one. A number stands
for one *object* too, the integer that `number_of` hands out: the tables store references to it, not copies of 32 bytes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

import attrs

from ..netlink import RouteBody
from ._nodes import Node, bodies, node_of


@attrs.define(slots=True, eq=False)
class _Entry:
    """A body, and the numbers of the nodes that hold it, in the order in which they came."""

    body: RouteBody
    numbers: dict[int, None] = attrs.field(factory=dict[int, None])


class Book:
    """The nodes of one family's tables, by number.

    Attributes:
      nodes: The node of each number; () where a number is free. The list stays the same object.
      uses: How many prefixes have each number, and who else holds it.
    """

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.uses: list[int] = []
        self._numbers: dict[Node, int] = {}
        self._free: list[int] = []
        self._entries: dict[RouteBody, _Entry] = {}
        # Dicts for sets, here and above: whatever is derived from a link comes in the same order in every run.
        self._by_link: dict[int, dict[RouteBody, None]] = {}
        self._by_nexthop: dict[int, dict[RouteBody, None]] = {}

    def find(self, node: Node) -> int | None:
        """The number of a node, None if no prefix has such a one."""
        return self._numbers.get(node)

    def number_of(self, routes: tuple[RouteBody, ...]) -> int:
        """The number of the node of some routes (one or more); its uses are for the caller to count."""
        node = node_of(routes)
        assert node is not None
        known = self._numbers.get(node)
        return self._enter(routes) if known is None else known

    def _enter(self, routes: tuple[RouteBody, ...]) -> int:
        number = self._free.pop() if self._free else len(self.nodes)
        entries = [self._entry_of(body) for body in routes]
        node = node_of(tuple(entry.body for entry in entries))
        assert node is not None
        if number == len(self.nodes):
            self.nodes.append(node)
            self.uses.append(0)
        else:
            self.nodes[number] = node
        self._numbers[node] = number
        for entry in entries:
            entry.numbers[number] = None
        return number

    def _entry_of(self, body: RouteBody) -> _Entry:
        entry = self._entries.get(body)
        if entry is None:
            entry = self._entries[body] = _Entry(body)
            for hop in body.nexthops:
                self._by_link.setdefault(hop.ifindex, {})[body] = None
            if body.nexthop_id:
                self._by_nexthop.setdefault(body.nexthop_id, {})[body] = None
        return entry

    def release(self, number: int, count: int = 1) -> None:
        """Count so many uses less; the last one frees the number, and the bodies that no other node has."""
        self.uses[number] -= count
        if self.uses[number]:
            return
        node = self.nodes[number]
        del self._numbers[node]
        self.nodes[number] = ()
        self._free.append(number)
        for body in bodies(node):
            entry = self._entries[body]
            del entry.numbers[number]
            if not entry.numbers:
                self._forget(body)

    def _forget(self, body: RouteBody) -> None:
        del self._entries[body]
        for ifindex in {hop.ifindex for hop in body.nexthops}:
            _take_out(self._by_link, ifindex, body)
        if body.nexthop_id:
            _take_out(self._by_nexthop, body.nexthop_id, body)

    def __contains__(self, body: RouteBody) -> bool:
        return body in self._entries

    def bodies(self) -> Collection[RouteBody]:
        """All bodies that some route has."""
        return self._entries.keys()

    def by_link(self, ifindex: int) -> Collection[RouteBody]:
        """Of `bodies()`, those with a next hop on a link."""
        return self._by_link.get(ifindex, {}).keys()

    def by_nexthop(self, number: int) -> Collection[RouteBody]:
        """Of `bodies()`, those that name a nexthop object."""
        return self._by_nexthop.get(number, {}).keys()

    def holding(self, sought: Iterable[RouteBody]) -> dict[tuple[int, int], set[int]]:
        """The numbers of the nodes that hold one of some bodies, by (table, prefix length), in the order of those."""
        found: dict[tuple[int, int], set[int]] = {}
        for body in sought:
            entry = self._entries.get(body)
            if entry is not None:
                found.setdefault((body.table, body.prefix_length), set()).update(entry.numbers)
        return dict(sorted(found.items()))


def _take_out(index: dict[int, dict[RouteBody, None]], key: int, body: RouteBody) -> None:
    del index[key][body]
    if not index[key]:
        del index[key]
