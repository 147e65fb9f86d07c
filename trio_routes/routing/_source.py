"""Source address selection: which address the kernel puts on a packet that has none yet.

IPv4 follows inet_select_addr() (net/ipv4/devinet.c): on the outgoing link the first primary
address of fitting scope, one in the gateway's subnet before others; then `lo`; then any link.
IPv6 follows RFC 6724 section 5, rules 1, 2, 3, 5 and 8 (own address, scope, not deprecated,
outgoing link, longest common prefix); labels, home addresses and temporary addresses are not
weighed.
"""

from __future__ import annotations

from ipaddress import IPv6Address, ip_network

from ..netlink import AF_INET, IFA_F_DADFAILED, IFA_F_DEPRECATED, IFA_F_SECONDARY, IFA_F_TENTATIVE, IPAddress, NextHop
from ._state import State
from ._values import Address, Link

_RT_SCOPE_LINK = 253


def select_source(state: State, destination: IPAddress, hop: NextHop, scope: int) -> IPAddress | None:
    """Choose the source address for a destination by one next hop; None where there is none.

    Args:
      state: The tables.
      destination: Where the packet goes.
      hop: The way it goes.
      scope: The route's scope (RT_SCOPE_*), which an IPv4 address must reach.
    """
    if destination.version == 4:
        return _ipv4(state, hop, scope)
    return _ipv6(state, IPv6Address(int(destination)), hop)


def _ipv4(state: State, hop: NextHop, scope: int) -> IPAddress | None:
    near = [a for a in state.addresses.on_link(hop.ifindex, AF_INET) if _fits(a, scope)]
    if hop.gateway is not None:
        for entry in near:
            on_link = ip_network(f"{entry.peer or entry.address}/{entry.prefix_length}", strict=False)
            if hop.gateway.version == 4 and hop.gateway in on_link:
                return entry.address
    if near:
        return near[0].address
    loopbacks = [link for link in state.links.values() if link.flags & Link.IFF_LOOPBACK]
    others = [link for link in state.links.values() if not link.flags & Link.IFF_LOOPBACK]
    for link in (*loopbacks, *others):
        for entry in state.addresses.on_link(link.ifindex, AF_INET):
            if _fits(entry, scope) and entry.scope != _RT_SCOPE_LINK:
                return entry.address
    return None


def _fits(entry: Address, scope: int) -> bool:
    # The kernel's localnet_scope makes 127/8 on other links usable within the host only.
    return not entry.flags & IFA_F_SECONDARY and entry.scope <= scope


def _ipv6(state: State, destination: IPv6Address, hop: NextHop) -> IPAddress | None:
    best: tuple[tuple[int, ...], IPAddress] | None = None
    wanted = _scope(destination)
    for entry in state.addresses:
        if entry.address.version != 6 or entry.flags & (IFA_F_TENTATIVE | IFA_F_DADFAILED):
            continue
        own = _scope(entry.address)
        on_way = entry.ifindex == hop.ifindex
        if wanted <= 2 and not on_way:
            continue  # a link-local destination means nothing on another link; of a source the kernel does not ask that
        rank = (
            entry.address == destination,
            # Rule 2: the smallest scope that still reaches; too small a one only when nothing else is there.
            1000 - own if own >= wanted else own,
            not entry.flags & IFA_F_DEPRECATED,
            on_way,
            _common(entry.address, destination, entry.prefix_length),
        )
        if best is None or rank > best[0]:
            best = rank, entry.address
    return None if best is None else best[1]


def _scope(address: IPAddress) -> int:
    """RFC 4291's scope numbers: 1 interface, 2 link, 5 site, 14 global."""
    value = int(address)
    if address.is_multicast:
        return (value >> 112) & 0xF
    if address.is_loopback or address.is_link_local:
        return 2
    return 5 if value >> 118 == 0x3FB else 14


def _common(one: IPAddress, other: IPAddress, limit: int) -> int:
    return min(limit, 128 - (int(one) ^ int(other)).bit_length())
