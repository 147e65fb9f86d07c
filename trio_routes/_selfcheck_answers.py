"""Whether the kernel's answer to RTM_GETROUTE is that of a lookup, and where it need not be. Pure.

What is compared is how the lookup ended and the next hop, which must be among those of the resolution. Table, prefix
and source are not: the kernel's answer cannot be trusted for them where two IPv6 routes share a nexthop object, nor for
the table of an address of this host.

Where the two differ for a reason that lies with the question or with the kernel, `exemption` names it (docs/kernel.md):

    an address of this host       the kernel says "by lo", whatever link has the address
    multicast, broadcast          decided by memberships and by the link, not by routes
    a shared nexthop object       the kernel names the route that used it first
    a redirect                    an ICMP redirect is no route of any table
    a route with a lifetime       once that has passed the kernel does not use it, and deletes it later
    a rule of an l3mdev           tables of VRFs; not modelled by measurement
    a link without carrier        ignore_routes_with_linkdown switched on after the carrier was lost: the hash still
                                  picks the next hop there, until the kernel weighs them anew
    a failed neighbour            IPv6 passes over a router that does not answer
    IPv6 routes of one metric     the state of neighbours picks; and one of them may lie between siblings, where
                                  no dump shows it
"""

from __future__ import annotations

import errno

import attrs

from ._errors import NetlinkDecodeError
from .netlink import (
    AF_INET,
    AF_INET6,
    RTN_ANYCAST,
    RTN_BROADCAST,
    RTN_LOCAL,
    RTN_MULTICAST,
    IPAddress,
    MessageType,
    NextHop,
    Request,
    RouteBody,
    decode_error,
    decode_route,
    get_route,
    iter_messages,
)
from .routing import Cache, Kind, Outcome, Resolution

# How a lookup can end badly. Any other error is about the question (ENODEV, EOPNOTSUPP, ENOMEM), and no answer.
_ENDINGS = (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EACCES, errno.EINVAL)
# rtm_flags of an IPv4 answer that comes from an ICMP redirect (linux/in_route.h).
_RTCF_REDIRECTED = 0x0004_0000


@attrs.frozen
class Question:
    """What both sides are asked; the fields are those of a lookup."""

    destination: IPAddress
    source: IPAddress | None = None
    oif: int = 0
    mark: int = 0
    tos: int = 0
    uid: int = 0

    @property
    def family(self) -> int:
        """AF_INET or AF_INET6."""
        return AF_INET if self.destination.version == 4 else AF_INET6

    def request(self) -> Request:
        """The question to the kernel."""
        return get_route(self.destination, source=self.source, oif=self.oif, mark=self.mark, tos=self.tos, uid=self.uid)

    def ask(self, cache: Cache) -> Resolution:
        """Ask the cache, in the form that equals RTM_GETROUTE's."""
        return cache.lookup(
            self.destination, source=self.source, oif=self.oif, mark=self.mark, tos=self.tos, uid=self.uid
        )

    def __str__(self) -> str:
        parts = [str(self.destination)]
        parts += [f"from {self.source}"] if self.source is not None else []
        parts += [f"{name} {value}" for name in ("oif", "mark", "tos", "uid") if (value := getattr(self, name))]
        return " ".join(parts)


@attrs.frozen
class Answer:
    """The kernel's: an error, or a route for this one destination."""

    errno: int = 0
    body: RouteBody | None = None

    def __str__(self) -> str:
        if self.body is None:
            return errno.errorcode.get(self.errno, str(self.errno))
        hops = " or ".join(
            f"via {hop.gateway} on link {hop.ifindex}" if hop.gateway else f"on link {hop.ifindex}"
            for hop in self.body.nexthops
        )
        return f"type {self.body.type} {hops} metric {self.body.priority}"


def read_answer(data: bytes) -> Answer | None:
    """Read a reply to RTM_GETROUTE; None where it says nothing about a route."""
    try:
        for header, start, end in iter_messages(data):
            if header.type == MessageType.ERROR:
                return Answer(errno=decode_error(data, start, end).errno)
            if header.type == MessageType.RTM_NEWROUTE:
                return Answer(body=decode_route(data, start, end).body)
    except NetlinkDecodeError:
        pass
    return None


def is_answer(answer: Answer) -> bool:
    """Whether it is about the route, and not about the question."""
    return answer.body is not None or answer.errno in _ENDINGS


def agree(resolution: Resolution, answer: Answer) -> bool:
    """Whether both say the same: the same error, or one of the resolution's next hops."""
    if answer.body is None:
        return _errno_of(resolution) == answer.errno
    if resolution.outcome is not Outcome.ROUTED or _is_local(answer) != (resolution.kind is Kind.LOCAL):
        return False
    return _ways(answer.body.nexthops) <= _ways(resolution.hops)


def _errno_of(resolution: Resolution) -> int:
    if resolution.outcome is Outcome.UNREACHABLE and resolution.route is None:
        return errno.ENETUNREACH  # a rule says so (fib4_rule_action); a route would say EHOSTUNREACH
    return resolution.outcome.errno


def _is_local(answer: Answer) -> bool:
    return answer.body is not None and answer.body.type in (RTN_LOCAL, RTN_ANYCAST)


def _ways(hops: tuple[NextHop, ...]) -> set[tuple[int, IPAddress | None]]:
    return {(hop.ifindex, hop.gateway) for hop in hops}


def exemption(question: Question, resolution: Resolution, answer: Answer, cache: Cache) -> str:
    """Why the two may differ although the cache is right; "" where there is no such reason."""
    body = answer.body
    if _is_local(answer) and resolution.kind is Kind.LOCAL:
        return "an address of this host"
    if resolution.kind in (Kind.MULTICAST, Kind.BROADCAST) or (
        body is not None and body.type in (RTN_MULTICAST, RTN_BROADCAST)
    ):
        return "multicast or broadcast"
    if any(rule.l3mdev for rule in cache.rules(question.family)):
        return "a rule of an l3mdev"
    if resolution.route is not None and resolution.route.body.expires:
        return "a route with a lifetime"  # which may have passed: the kernel does not use it, and deletes it later
    if body is None:
        return ""
    if question.family == AF_INET and body.flags & _RTCF_REDIRECTED:
        return "a redirect"
    return _exemption_by_route(question, resolution, body, cache)


def _exemption_by_route(question: Question, resolution: Resolution, answered: RouteBody, cache: Cache) -> str:
    """The reasons that take the resolution's own route to see."""
    if resolution.route is None:
        return ""
    state, own = cache.state, resolution.route.body
    ways = _ways(answered.nexthops)
    members, _ = state.expand(own)
    if ways and ways <= _ways(tuple(hop for hop in members if not _has_carrier(cache, hop))):
        return "a link without carrier"
    if question.family == AF_INET:
        return ""
    if own.nexthop_id and len(state.tables[AF_INET6].by_nexthop({own.nexthop_id})) > 1:
        return "a shared nexthop object"
    if any(
        hop.gateway is not None and cache.neighbour_failed(hop.ifindex, hop.gateway)
        for hop in (*resolution.hops, *answered.nexthops)
    ):
        return "a failed neighbour"
    if _among_equals(resolution, answered, cache):
        return "IPv6 routes of one metric"
    return ""


def _has_carrier(cache: Cache, hop: NextHop) -> bool:
    link = cache.link(hop.ifindex)
    return link is None or link.carrier


def _among_equals(resolution: Resolution, answered: RouteBody, cache: Cache) -> bool:
    """Whether the kernel took another route of the same prefix and metric, which we know or which no dump shows."""
    route = resolution.route
    if route is None or answered.priority != route.metric:
        return False
    key = route.table, route.body.prefix_length, route.address
    others = [body for body in cache.state.tables[AF_INET6].at(key) if body != route.body]
    if len(route.body.nexthops) > 1 and all(hop.gateway is None for hop in answered.nexthops):
        return True  # between siblings there can be a route without a gateway
    return any(
        body.priority == route.metric and _ways(answered.nexthops) <= _ways(cache.state.expand(body)[0])
        for body in others
    )
