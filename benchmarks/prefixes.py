"""The prefixes that the benchmarks of the cache fill tables with; only the standard library, for every peer's Python.

shape     prefix lengths                  ways
-------   -----------------------------   --------------------------------------------------------------
uniform   /24; IPv6 /64                   one of 16 gateways
mixed     as in a full Internet table,    one of 64 gateways; every 16th prefix has a second route of
          /8 to /32, 60 % of them /24     another metric, every 32nd has two next hops
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Literal

Shape = Literal["uniform", "mixed"]

IPV4_FIRST, IPV6_FIRST = 16 << 24, 0x2001 << 112
GATEWAYS: dict[Shape, int] = {"uniform": 16, "mixed": 64}
# Prefix lengths of a full table, roughly (bgp.potaroo.net), and host routes as VPNs and clusters add them.
_LENGTHS = {8: 1, 12: 1, 16: 12, 17: 7, 18: 12, 19: 25, 20: 45, 21: 50, 22: 110, 23: 100, 24: 600, 28: 5, 32: 32}


def prefixes(size: int, shape: Shape, version: int = 4) -> Iterator[tuple[int, int]]:
    """Yield `size` different (destination, prefix length)s; the same ones on every call."""
    if shape == "uniform":
        if version == 4:
            yield from ((IPV4_FIRST + (number << 8), 24) for number in range(size))
        else:
            yield from ((IPV6_FIRST + (number << 64), 64) for number in range(size))
        return
    assert version == 4
    choose = random.Random(1)
    lengths = choose.choices(tuple(_LENGTHS), tuple(_LENGTHS.values()), k=2 * size)
    seen: set[tuple[int, int]] = set()
    for length in lengths:
        # 11.0.0.0 to 126.255.255.255: clear of the gateways' 10/8 and of loopback.
        destination = choose.randrange(11 << 24, 127 << 24) >> (32 - length) << (32 - length)
        if (destination, length) in seen or destination < 11 << 24:
            continue
        seen.add((destination, length))
        yield destination, length
        if len(seen) == size:
            return
    raise AssertionError("too few lengths were drawn")


def addresses(size: int, shape: Shape, count: int, *, hits: bool) -> list[int]:
    """IPv4 addresses to look up: below the prefixes of a table, or anywhere in 0.0.0.0/0."""
    choose = random.Random(2)
    if not hits:
        return [choose.getrandbits(32) for _ in range(count)]
    chosen = choose.choices(list(prefixes(size, shape)), k=count)
    return [
        destination | choose.getrandbits(32 - length) if length < 32 else destination for destination, length in chosen
    ]
