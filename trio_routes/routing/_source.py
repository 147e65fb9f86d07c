"""Source address selection: which address the kernel puts on a packet that has none yet.

IPv4 follows inet_select_addr() (net/ipv4/devinet.c): on the outgoing link the first primary
address of fitting scope, one in the gateway's subnet before others; then `lo`; then any link.

IPv6 follows ipv6_dev_get_saddr() (net/ipv6/addrconf.c), which is RFC 6724 section 5: own address,
scope, not deprecated, outgoing link, label, temporary, longest common prefix; among equals the
first that the kernel comes to, an order that it does not tell. Not known here and so assumed: the
default label table (`ip addrlabel`), and that who has temporary addresses prefers them
(use_tempaddr=2). Home addresses are not weighed.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..netlink import (
    AF_INET,
    AF_INET6,
    IFA_F_DADFAILED,
    IFA_F_DEPRECATED,
    IFA_F_OPTIMISTIC,
    IFA_F_SECONDARY,
    IFA_F_TEMPORARY,
    IFA_F_TENTATIVE,
    RT_SCOPE_HOST,
    RT_SCOPE_LINK,
    IPAddress,
    NextHop,
    RouteBody,
)
from ._rules import vrf_of
from ._state import State
from ._values import Address

# ---- IPv4 ------------------------------------------------------------------------------------------

# Routes for which the source is remembered; all are forgotten when there are more, as those that went are among them.
_REMEMBERED = 1024


def source_of_ipv4(state: State, body: RouteBody, hop: NextHop) -> IPAddress | None:
    """Choose the source address for packets that go by one next hop of a route; None where there is none.

    What was chosen on the route's own link is remembered until any address changes: it depends on nothing else.
    """
    remembered = state.addresses.chosen
    known = remembered.get(body)
    if known is not None:
        return known
    chosen = _select_on_link(state, hop.ifindex, body.scope, hop.gateway)
    if chosen is None:
        return _select_elsewhere(state, hop.ifindex, body.scope)
    if len(body.nexthops) == 1 and not body.nexthop_id:
        if len(remembered) >= _REMEMBERED:
            remembered.clear()
        remembered[body] = chosen
    return chosen


def select_ipv4(state: State, ifindex: int, scope: int, gateway: IPAddress | None = None) -> IPAddress | None:
    """Choose an IPv4 source address for packets that leave by a link; None where there is none.

    Args:
      state: The tables.
      ifindex: The link.
      scope: RT_SCOPE_*: addresses whose scope is narrower (a greater number) do not serve.
      gateway: Where the packets go first: an address of its subnet is preferred.
    """
    return _select_on_link(state, ifindex, scope, gateway) or _select_elsewhere(state, ifindex, scope)


def _select_on_link(state: State, ifindex: int, scope: int, gateway: IPAddress | None) -> IPAddress | None:
    first: IPAddress | None = None
    for entry in _primary(state, ifindex):
        if min(entry.scope, RT_SCOPE_HOST) > scope:
            continue
        if gateway is None or _has_in_subnet(entry, gateway):
            return entry.address
        first = first or entry.address
    return first


def _primary(state: State, ifindex: int) -> Iterator[Address]:
    """A link's primary addresses in the kernel's order."""
    return (entry for entry in state.addresses.on_link(ifindex, AF_INET) if not entry.flags & IFA_F_SECONDARY)


def _has_in_subnet(entry: Address, gateway: IPAddress) -> bool:
    if gateway.version != 4:
        return False
    return not (int(gateway) ^ int(entry.peer or entry.address)) >> (32 - entry.prefix_length)


def _select_elsewhere(state: State, ifindex: int, scope: int) -> IPAddress | None:
    # `lo` is the first of the kernel's list, a VRF's own device takes its place; others in the order of their numbers.
    # Whether a link is up does not matter.
    vrf = vrf_of(state, ifindex)
    for other in ([vrf] if vrf else []) + sorted(state.links):
        if vrf_of(state, other) != vrf:
            continue
        for entry in _primary(state, other):
            if entry.scope != RT_SCOPE_LINK and entry.scope <= scope:
                return entry.address
    return None


# ---- IPv6 ------------------------------------------------------------------------------------------

_GLOBAL = 14  # RFC 4291's scope numbers
_LINK_LOCAL = 2


def select_ipv6(state: State, destination: int, ifindex: int) -> IPAddress | None:
    """Choose an IPv6 source address for a destination, as an integer, by a link; None where there is none."""
    candidates = _candidates(state, destination, ifindex)
    if len(candidates) > 1:
        # Mostly the first rules decide, and the labels, which take longest, need not be looked up.
        wanted = _scope(destination)
        ranks = [_first_rules(entry, destination, wanted, ifindex) for entry in candidates]
        best = max(ranks)
        candidates = [entry for entry, rank in zip(candidates, ranks, strict=True) if rank == best]
    if len(candidates) > 1:
        return max(candidates, key=lambda entry: _last_rules(entry, destination)).address
    return candidates[0].address if candidates else None


def rank_ipv6(entry: Address, destination: int, ifindex: int) -> tuple[int, ...]:
    """How well an address serves as the source for a destination by a link: greater is better."""
    first = _first_rules(entry, destination, _scope(destination), ifindex)
    return (*first, *_last_rules(entry, destination))


def _first_rules(entry: Address, destination: int, wanted: int, ifindex: int) -> tuple[int, ...]:
    value = int(entry.address)
    scope = _scope(value)
    return (
        value == destination,
        # Rule 2: the smallest scope that still reaches; too small a one only when nothing else is there.
        1000 - scope if scope >= wanted else scope,
        not entry.flags & IFA_F_DEPRECATED,
        entry.ifindex == ifindex,
    )


def _last_rules(entry: Address, destination: int) -> tuple[int, ...]:
    value = int(entry.address)
    return (
        _label(value) == _label(destination),
        bool(entry.flags & IFA_F_TEMPORARY),
        min(entry.prefix_length, 128 - (value ^ destination).bit_length()),
    )


def _candidates(state: State, destination: int, ifindex: int) -> list[Address]:
    # To a multicast group or a link-local address only the outgoing link's own addresses come into question.
    if destination >> 120 == 0xFF or _scope(destination) <= _LINK_LOCAL:
        return [entry for entry in state.addresses.on_link(ifindex, AF_INET6) if not _is_doubtful(entry.flags)]
    vrf = vrf_of(state, ifindex)
    # Addresses of links that are down count where they are kept (keep_addr_on_down).
    return [
        entry
        for entry in state.addresses.ipv6_by_link()
        if entry.ifindex in state.links and vrf_of(state, entry.ifindex) == vrf and not _is_doubtful(entry.flags)
    ]


def _is_doubtful(flags: int) -> bool:
    return bool(flags & IFA_F_DADFAILED) or flags & (IFA_F_TENTATIVE | IFA_F_OPTIMISTIC) == IFA_F_TENTATIVE


def _scope(value: int) -> int:
    """The scope of an address as a number of RFC 4291: 1 interface, 2 link, 5 site, 14 global."""
    first = value >> 118
    if first == 0x3FA or value == 1:
        return _LINK_LOCAL  # the loopback address is of link scope (__ipv6_addr_type)
    if value >> 120 == 0xFF:
        return value >> 112 & 0xF
    return 5 if first == 0x3FB else _GLOBAL


# net/ipv6/addrlabel.c, ip6addrlbl_init_table: (bits, prefix, label), the longest first. Others are of label 1.
_LABELS = (
    (128, 1, 0),
    (96, 0, 3),
    (96, 0xFFFF, 4),
    (32, 0x20010000, 6),
    (28, 0x2001001, 7),
    (16, 0x2002, 2),
    (16, 0x3FFE, 12),
    (10, 0x3FB, 11),
    (7, 0x7E, 5),
)


def _label(value: int) -> int:
    for bits, prefix, label in _LABELS:
        if value >> (128 - bits) == prefix:
            return label
    return 1
