"""Where the prefixes of one table and length are kept, and how an address finds the longest that covers it.

A dict that grows is copied, 3.5 ms at 87 000 entries and twice that at each doubling, and everybody
waits. So a length with more than `SPLIT` prefixes is split for good into 128 dicts, by seven bits of
the destination that all prefixes of this length or a longer one have:

    IPv4   bits 9 to 15    lengths from /16 on; of a shorter one there are at most 32 768 prefixes
    IPv6   bits 41 to 47   lengths from /48 on; of a shorter one even a full Internet table has fewer

    a table: 128 lists of (mask, dict), the longest prefix first

        bucket 0    (/32, dict) (/24, dict 0) (/8, dict)       a search shifts the address, takes one of
        bucket 1    (/32, same) (/24, dict 1) (/8, same)       the lists, and goes through that: for it a
        ...                                                    split length is as fast as any other

The price is that shift, 50 ns a search, where a table is split at all; and that prefixes which share
those bits (all the addresses of one /16) are in one dict still, which then grows as before.
"""

from __future__ import annotations

from collections.abc import Sequence, Set as AbstractSet
from typing import NamedTuple, Protocol, TypeAlias

import attrs

from ._nodes import Node

# Destinations to the numbers of their nodes.
Nodes: TypeAlias = dict[int, int]
# (mask, nodes) for each prefix length, the longest first.
Bucket: TypeAlias = list[tuple[int, Nodes]]

BUCKETS = 128
BUCKET = BUCKETS - 1
"""The bits of a bucket's number."""


class Finds(Protocol):
    """What a search asks of a dict of destinations: the number of the node, None if there is none."""

    def get(self, destination: int, /) -> int | None: ...


class Search(NamedTuple):
    """What a longest-prefix search goes through in one table: ``buckets[address >> shift & BUCKET]``.

    Attributes:
      shift: Where in an address its bucket's number is, in bits from the right.
      buckets: The dicts of each bucket, until the tables change.
      nodes: The nodes by the numbers in those dicts.
    """

    shift: int
    buckets: Sequence[Sequence[tuple[int, Finds]]]
    nodes: Sequence[Node]


@attrs.define(slots=True, eq=False)
class Place:
    """One table's prefixes of one length.

    Attributes:
      table: The table.
      length: The prefix length.
      mask: Its netmask.
      may_split: Whether it is long enough to be split.
      by_bucket: The dict of each bucket: the same one of all until they are split. The list stays the same object.
    """

    table: int
    length: int
    mask: int
    may_split: bool
    by_bucket: list[Nodes] = attrs.field(factory=lambda: [Nodes()] * BUCKETS)
    is_split: bool = False

    @property
    def dicts(self) -> Sequence[Nodes]:
        """Each dict once."""
        return self.by_bucket if self.is_split else self.by_bucket[:1]

    def split(self, shift: int) -> None:
        """Spread the one dict over all buckets."""
        nodes, by_bucket, bucket = self.by_bucket[0], self.by_bucket, BUCKET
        by_bucket[:] = [{} for _ in range(BUCKETS)]
        for destination, number in nodes.items():
            by_bucket[destination >> shift & bucket][destination] = number
        self.is_split = True


def held(place: Place, numbers: AbstractSet[int]) -> list[int]:
    """The destinations in a place whose node has one of some numbers, in their order."""
    return sorted(destination for nodes in place.dicts for destination, number in nodes.items() if number in numbers)
