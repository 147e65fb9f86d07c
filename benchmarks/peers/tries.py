"""pytricia and py-radix, as peers of bench-cache: insert, delete, and look up by packed addresses.

Run in a virtualenv that has them, on the same prefixes as the cache. For each prints a line:
the name, then seconds for one insert, hit, random lookup and delete.
"""

import sys
import time
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import TypeVar

from benchmarks.prefixes import Shape, addresses, prefixes

ROUNDS = 5
_T = TypeVar("_T")


def each(function: Callable[[_T], object], arguments: Sequence[_T]) -> float:
    """Seconds of one call, the least of the rounds, without what the loop itself takes."""
    best = empty = float("inf")
    for _ in range(ROUNDS):
        before = time.perf_counter()
        for argument in arguments:
            function(argument)
        between = time.perf_counter()
        for _argument in arguments:
            pass
        after = time.perf_counter()
        best, empty = min(best, between - before), min(empty, after - between)
    return (best - empty) / len(arguments)


def once(function: Callable[[_T], object], arguments: Sequence[_T]) -> float:
    before = time.perf_counter()
    for argument in arguments:
        function(argument)
    return (time.perf_counter() - before) / len(arguments)


def main(size: int, shape: Shape) -> None:
    table = [(destination.to_bytes(4, "big"), length) for destination, length in prefixes(size, shape)]
    hits, anywhere = (
        [address.to_bytes(4, "big") for address in addresses(size, shape, 10_000, hits=hits)] for hits in (True, False)
    )
    value = object()

    trie = import_module("pytricia").PyTricia(32)
    insert = once(lambda prefix: trie.insert(prefix[0], prefix[1], value), table)
    print("pytricia", insert, each(trie.get, hits), each(trie.get, anywhere), once(trie.delete, table))

    radix = import_module("radix").Radix()

    def add(prefix: tuple[bytes, int]) -> None:
        radix.add(packed=prefix[0], masklen=prefix[1]).data["route"] = value

    def search(packed: bytes) -> object:
        return radix.search_best(packed=packed)

    insert = once(add, table)

    def delete(prefix: tuple[bytes, int]) -> None:
        radix.delete(packed=prefix[0], masklen=prefix[1])

    print("py-radix", insert, each(search, hits), each(search, anywhere), once(delete, table))


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])  # type: ignore[arg-type]  # one of the two words
