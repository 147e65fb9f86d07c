"""The function that finds the longest prefix for an address, written out for the prefix lengths that one table has.

A loop over the lengths spends as much on itself as on the dicts that it asks, and is what a lookup spends most on. So
it is unrolled, and compiled as attrs and `typing.NamedTuple` compile their ``__init__``; of a table with many /24 and
a default route that makes

    def build(known, get_0, get_1):
        def find(address):
            bucket = address >> 16 & 31
            number = get_0[bucket](address & 0xffffff00)
            if number is not None:
                return known[number]
            number = get_1(address & 0x0)
            if number is not None:
                return known[number]
            return None
        return find

A length that is split has a method for each bucket (`_places.py`), the others have one. Beside a plain loop over
unsplit dicts it is faster at every size; a loop over the buckets is up to 17 % slower (bench-lookup).
Nothing but numbers goes into the text, and it is compiled once for each set of lengths, not for each table.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TypeAlias

from ._nodes import Node
from ._places import BUCKET, Search

Find: TypeAlias = Callable[[int], Node | None]
_Get: TypeAlias = Callable[[int], int | None]
_Build: TypeAlias = Callable[..., Find]


def finder(search: Search) -> Find:
    """Build the function that finds the node of the longest prefix for an address.

    It is good for as long as the dicts in `search` are those of the table.
    """
    shift, buckets, known = search
    lengths: list[tuple[int, bool]] = []
    asked: list[_Get | Sequence[_Get]] = []
    for at, (mask, nodes) in enumerate(buckets[0]):
        of_bucket = [bucket[at][1] for bucket in buckets]
        is_split = any(other is not nodes for other in of_bucket)
        lengths.append((mask, is_split))
        asked.append([each.get for each in of_bucket] if is_split else nodes.get)
    return _builder(shift, tuple(lengths))(known, *asked)


@lru_cache(maxsize=256)  # a host has a handful of such sets; each takes some 5 kB
def _builder(shift: int, lengths: tuple[tuple[int, bool], ...]) -> _Build:
    """Compile `build` for (mask, whether it is split) of each prefix length, the longest first."""
    names = "".join(f", get_{at}" for at in range(len(lengths)))
    lines = [f"def build(known{names}):", " def find(address):"]
    if any(is_split for _, is_split in lengths):
        lines.append(f"  bucket = address >> {shift} & {BUCKET}")
    for at, (mask, is_split) in enumerate(lengths):
        lines += [
            f"  number = get_{at}{'[bucket]' if is_split else ''}(address & {mask:#x})",
            "  if number is not None:",
            "   return known[number]",
        ]
    lines += ["  return None", " return find"]
    made: dict[str, _Build] = {}
    exec(compile("\n".join(lines), f"<{__name__}>", "exec"), {}, made)
    return made["build"]
