"""Which way a fake kernel sends a new connection.

Deliberately apart from `trio_routes.routing`, and simpler: the thing under test should not answer
its own questions. Rules select by source, destination, mark, and names of devices; TOS, users,
ports, goto and suppressors are refused rather than ignored.
"""

from __future__ import annotations

import errno
from ipaddress import IPv4Network, IPv6Network

import attrs

from ..netlink import (
    AF_INET,
    FR_ACT_BLACKHOLE,
    FR_ACT_PROHIBIT,
    FR_ACT_TO_TBL,
    FR_ACT_UNREACHABLE,
    IFA_F_SECONDARY,
    RT_SCOPE_HOST,
    RT_SCOPE_LINK,
    RTN_BLACKHOLE,
    RTN_LOCAL,
    RTN_PROHIBIT,
    RTN_THROW,
    RTN_UNREACHABLE,
    AddressMessage,
    IPAddress,
    NextHop,
    RouteBody,
    RuleMessage,
)
from ._fake_network import LOOPBACK_IFINDEX, FakeNetwork
from ._fake_notices import family_of
from ._fake_routes import refuse

_NOT_PLAYED = ("tos", "dscp", "invert", "goto", "ip_proto", "sport", "dport", "uid_range", "l3mdev", "tun_id")
_RULE_ERRORS = {
    FR_ACT_BLACKHOLE: errno.EINVAL,
    FR_ACT_UNREACHABLE: errno.ENETUNREACH,
    FR_ACT_PROHIBIT: errno.EACCES,
}
_ROUTE_ERRORS = {
    RTN_BLACKHOLE: errno.EINVAL,
    RTN_UNREACHABLE: errno.EHOSTUNREACH,
    RTN_PROHIBIT: errno.EACCES,
}


@attrs.frozen
class Way:
    """How a packet leaves: by which link, by which gateway (None: on the link), from which address."""

    ifindex: int
    gateway: IPAddress | None
    source: IPAddress


@attrs.frozen
class Packet:
    """What a packet's way depends on.

    Attributes:
      destination: Where to.
      source: From which address; None lets the route choose.
      device: ifindex to which the socket is bound, 0 for none.
      mark: SO_MARK.
    """

    destination: IPAddress
    source: IPAddress | None = None
    device: int = 0
    mark: int = 0


def find_way(network: FakeNetwork, packet: Packet) -> Way:
    """Route a packet that this host sends.

    Raises:
      OSError: As connect() would: ENETUNREACH, EHOSTUNREACH, EACCES, EINVAL.
    """
    for rule in network.rules:
        if rule.family != family_of(packet.destination) or not _selects(network, rule, packet):
            continue
        if rule.action in _RULE_ERRORS:
            raise refuse(_RULE_ERRORS[rule.action], f"a rule of priority {rule.priority} says so")
        for body in network.routes[rule.family].matching(rule.table, packet.destination):
            if body.type == RTN_THROW:
                break
            if body.type in _ROUTE_ERRORS:
                raise refuse(_ROUTE_ERRORS[body.type], f"a route to {packet.destination} says so")
            hop = _usable_hop(network, body, packet.device)
            if hop is not None:
                return _way(network, body, hop, packet)
    raise refuse(errno.ENETUNREACH, f"no route to {packet.destination}")


def _selects(network: FakeNetwork, rule: RuleMessage, packet: Packet) -> bool:
    _must_be_played(rule)
    bits = packet.destination.max_prefixlen
    selected = _in_prefix(packet.destination, rule.destination, rule.destination_length, bits)
    if rule.source_length:
        # While the source is not chosen, a rule that asks for one does not match.
        source = packet.source
        selected = selected and source is not None and _in_prefix(source, rule.source, rule.source_length, bits)
    if rule.oif:
        link = network.named(rule.oif)
        selected = selected and link is not None and link.ifindex == packet.device
    # A packet of this host comes in by "lo".
    return selected and rule.iif in ("", "lo") and packet.mark & rule.mask == rule.mark & rule.mask


def _must_be_played(rule: RuleMessage) -> None:
    """Refuse a rule that selects by something that is not looked at here. `add_rule` makes none."""
    plain = RuleMessage(rule.family)
    odd = [name for name in _NOT_PLAYED if getattr(rule, name) != getattr(plain, name)]
    if odd or rule.action not in (*_RULE_ERRORS, FR_ACT_TO_TBL):
        raise NotImplementedError(f"a FakeKernel does not route by {rule}; use the namespace lab")


def _in_prefix(address: IPAddress, prefix: int, length: int, bits: int) -> bool:
    return int(address) >> (bits - length) == prefix >> (bits - length)


def _usable_hop(network: FakeNetwork, body: RouteBody, device: int) -> NextHop | None:
    # The first of several: a hash over addresses and ports would only make tests hard to read.
    usable = network.routes[body.family].usable_hops(body)
    return next((hop for hop in usable if device in (0, hop.ifindex)), None)


def _way(network: FakeNetwork, body: RouteBody, hop: NextHop, packet: Packet) -> Way:
    if body.type == RTN_LOCAL:
        # To an address of its own a host goes by "lo", and from that same address.
        return Way(LOOPBACK_IFINDEX, None, packet.source or packet.destination)
    chosen = packet.source or body.prefsrc or _choose_source(network, hop, packet.destination)
    if chosen is None:
        raise refuse(errno.EADDRNOTAVAIL, f"no address to reach {packet.destination} from")
    return Way(hop.ifindex, hop.gateway, chosen)


def _choose_source(network: FakeNetwork, hop: NextHop, destination: IPAddress) -> IPAddress | None:
    """Choose among the link's addresses, then among the others': inet_select_addr() and RFC 6724, abridged."""
    toward = hop.gateway if hop.gateway is not None and hop.gateway.version == destination.version else destination
    fit = [
        address
        for address in network.addresses(family_of(destination))
        if address.scope != RT_SCOPE_HOST and (address.scope == RT_SCOPE_LINK) == _is_on_link_only(destination)
    ]
    best = max(fit, key=lambda address: _fitness(address, hop, toward, destination), default=None)
    return None if best is None else best.address


def _is_on_link_only(address: IPAddress) -> bool:
    return address.version == 6 and address.is_link_local


def _fitness(
    address: AddressMessage, hop: NextHop, toward: IPAddress, destination: IPAddress
) -> tuple[bool, int, bool]:
    if address.family == AF_INET:
        subnet: IPv4Network | IPv6Network = IPv4Network((int(address.address), address.prefix_length), strict=False)
        closeness = int(toward in subnet)
    else:
        closeness = destination.max_prefixlen - (int(address.address) ^ int(destination)).bit_length()
    return address.ifindex == hop.ifindex, closeness, not address.flags & IFA_F_SECONDARY
