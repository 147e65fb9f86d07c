"""What an audit finds: one entry of which the cache and the kernel's dump give different answers, in words."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address
from typing import cast

import attrs

from ..netlink import AF_INET
from ._tables import NodeKey

# Characters of one answer in a log line; a rule or a route in full has some hundreds.
_LONGEST = 240


@attrs.frozen
class Prefix:
    """A prefix of one table, for messages."""

    family: int
    key: NodeKey

    def __str__(self) -> str:
        table, length, destination = self.key
        # Not ip_network(): with a small number it would make an IPv4 network of ::/0.
        address = IPv4Address(destination) if self.family == AF_INET else IPv6Address(destination)
        return f"{address}/{length} table {table}"


@attrs.frozen
class Difference:
    """One entry, and both answers.

    Attributes:
      part: What kind of entry, in words.
      subject: Which one; has a `str()`.
      cached: What the cache said: a value, several of them in a tuple, or None for nothing.
      dumped: What the kernel's dump said.
    """

    part: str
    subject: object
    cached: object
    dumped: object

    def __str__(self) -> str:
        cached, dumped = _contrast(_several(self.cached), _several(self.dumped))
        return f"{self.part}, {self.subject}: the cache has {_cut(cached)}, the kernel {_cut(dumped)}"


def _several(answer: object) -> tuple[object, ...]:
    if answer is None:
        return ()
    return cast(tuple[object, ...], answer) if isinstance(answer, tuple) else (answer,)


def _contrast(cached: tuple[object, ...], dumped: tuple[object, ...]) -> tuple[str, str]:
    """Say only what is on one side: what both have tells nothing, and the lines are long."""
    ours = [each for each in cached if each not in dumped]
    theirs = [each for each in dumped if each not in cached]
    if not ours and not theirs:
        return _list(cached), f"the same in another order: {_list(dumped)}"
    if len(ours) == len(theirs) == 1:
        return _fields(ours[0], theirs[0]), _fields(theirs[0], ours[0])
    return _list(ours), _list(theirs)


def _fields(value: object, other: object) -> str:
    """The fields of a value in which it differs from another of its class; else all of it."""
    kind = type(value)
    if kind is not type(other) or not attrs.has(kind):
        return repr(value)
    names = [field.name for field in attrs.fields(kind) if field.eq]
    return ", ".join(f"{name} {getattr(value, name)}" for name in names if getattr(value, name) != getattr(other, name))


def _list(values: tuple[object, ...] | list[object]) -> str:
    return " and ".join(map(repr, values)) or "nothing"


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
