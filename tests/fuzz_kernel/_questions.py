"""Random lookups, asked of a cache and of the kernel (RTM_GETROUTE)."""

from __future__ import annotations

import errno
from ipaddress import ip_address
from random import Random
from typing import Final

import attrs

from trio_routes.netlink import (
    RTN_ANYCAST,
    RTN_BROADCAST,
    RTN_LOCAL,
    RTN_MULTICAST,
    RTN_UNICAST,
    IPAddress,
    LinuxKernel,
    MessageType,
    RouteBody,
    decode_error,
    decode_route,
    get_route,
    iter_messages,
)
from trio_routes.routing import Cache, Kind, Outcome, Resolution

from ._ground import Ground
from ._known import Question, explain_answer

_DESTINATIONS: Final = tuple(
    ip_address(text)
    for text in (
        *(
            "198.51.100.1",
            "198.51.100.200",
            "203.0.113.7",
            "8.8.8.8",
            "10.0.1.99",
            "10.0.0.1",
            "10.0.2.10",
            "10.0.1.255",
        ),
        *("2001:db8:f::1", "2001:db8:f:1::1", "2001:db8:f::7", "2001:db9::1", "2001:db8:1::99", "2001:db8:0::10"),
    )
)
_KINDS: Final = {
    RTN_UNICAST: Kind.UNICAST,
    RTN_LOCAL: Kind.LOCAL,
    RTN_ANYCAST: Kind.LOCAL,
    RTN_BROADCAST: Kind.BROADCAST,
    RTN_MULTICAST: Kind.MULTICAST,
}


@attrs.frozen
class Asked:
    """What came of a question: an agreement, a known difference, or a wrong answer, in words."""

    known: str = ""
    wrong: str = ""


class Asker:
    """Asks the kernel and a cache the same."""

    def __init__(self, ground: Ground) -> None:
        self._kernel = LinuxKernel(ground.here.fileno())
        self._wire = self._kernel.open_netlink()
        self._buffer = bytearray(16384)

    def ask(self, question: Question, cache: Cache) -> Asked:
        """Ask one question."""
        number, body = self._of_kernel(question)
        mine = cache.lookup(
            question.destination,
            source=question.source,
            mark=question.mark,
            oif=question.oif or None,
            tos=question.tos,
        )
        wrong = _compare(question, mine, number, body)
        if not wrong:
            return Asked()
        known = explain_answer(cache.state, question, mine, number, body)
        if known:
            return Asked(known=known)
        return Asked(
            wrong=f"IPv{question.destination.version} lookup: {wrong}\n    {question}\n    cache  {mine!r}\n    kernel {number} {body}"
        )

    def choose(self, random: Random, cache: Cache) -> Question:
        """Choose a question at random."""
        destination = random.choice(_DESTINATIONS)
        source: IPAddress | None = None
        if random.random() < 0.4:
            own = [entry.address for entry in cache.addresses() if entry.address.version == destination.version]
            source = random.choice(own) if own else None
        return Question(
            destination,
            source,
            mark=random.choice((0, 0, 7)),
            oif=random.choice((0, 0, 0, random.choice([ifindex for ifindex in cache.links if ifindex > 1] or [0]))),
            tos=random.choice((0, 0, 0x10)),
        )

    def _of_kernel(self, question: Question) -> tuple[int, RouteBody | None]:
        self._wire.send(
            get_route(
                question.destination,
                source=question.source,
                mark=question.mark,
                oif=question.oif,
                tos=question.tos,
            ).message(1)
        )
        length, _, _ = self._wire.receive_into(self._buffer)  # the kernel answers before send() returns
        data = bytes(self._buffer[:length])
        ((header, start, end),) = iter_messages(data)
        if header.type == MessageType.ERROR:
            return decode_error(data, start, end).errno, None
        return 0, decode_route(data, start, end).body

    def close(self) -> None:
        self._wire.close()
        self._kernel.close()


def _errno(mine: Resolution) -> int:
    """The error number of an answer: a rule's `unreachable` is another one than a route's (fib4_rule_action)."""
    if mine.outcome is Outcome.UNREACHABLE and mine.route is None:
        return errno.ENETUNREACH
    return mine.outcome.errno


def _compare(question: Question, mine: Resolution, number: int, body: RouteBody | None) -> str:
    """Say in words what of an answer is wrong; "" if nothing is."""
    if body is None:
        if _errno(mine) == number:
            return ""
        return "another error"
    if mine.outcome is not Outcome.ROUTED:
        return "no way here"
    kind = _KINDS.get(body.type)
    if mine.kind is not kind:
        return "another kind"
    if kind is Kind.LOCAL:
        return ""
    (way,) = body.nexthops
    if (way.ifindex, way.gateway) not in {(hop.ifindex, hop.gateway) for hop in mine.hops}:
        return "another next hop"
    if question.source is None and mine.source != body.prefsrc and len(mine.hops) == 1:
        return "another source"
    return ""
