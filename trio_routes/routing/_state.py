"""What the cache knows, and the small questions that lookups ask of it."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv6Address

import attrs

from ..netlink import (
    AF_INET,
    AF_INET6,
    IFA_F_DADFAILED,
    NETCONFA_IFINDEX_ALL,
    IPAddress,
    NetconfMessage,
    NextHop,
    NexthopMessage,
)
from ._tables import RouteTables
from ._values import Address, Link, Rule

_IFF_LOWER_UP = Link.IFF_LOWER_UP


def family_of(address: IPAddress) -> int:
    """AF_INET or AF_INET6."""
    return AF_INET if address.version == 4 else AF_INET6


def bare(address: IPAddress) -> IPAddress:
    """An address without its scope id: the kernel keeps the link beside a link-local address, not in it."""
    if isinstance(address, IPv6Address) and address.scope_id is not None:
        return IPv6Address(int(address))
    return address


class Addresses:
    """The addresses of all links, found by (link, address, prefix length), by address and by link."""

    def __init__(self) -> None:
        self._by_key: dict[tuple[int, IPAddress, int], Address] = {}
        self._by_address: dict[IPAddress, dict[tuple[int, IPAddress, int], Address]] = {}

    @staticmethod
    def key(address: Address) -> tuple[int, IPAddress, int]:
        """What makes an address of a link one entry: announced again, it is a refresh."""
        return address.ifindex, address.address, address.prefix_length

    def get(self, key: tuple[int, IPAddress, int]) -> Address | None:
        """The entry under a key."""
        return self._by_key.get(key)

    def put(self, key: tuple[int, IPAddress, int], address: Address | None) -> None:
        """Set or, with None, remove an entry."""
        if address is not None:
            self._by_key[key] = address
            self._by_address.setdefault(key[1], {})[key] = address
        elif key in self._by_key:
            del self._by_key[key]
            same = self._by_address[key[1]]
            del same[key]
            if not same:
                del self._by_address[key[1]]

    def of(self, address: IPAddress) -> tuple[Address, ...]:
        """This address wherever a link has it."""
        return tuple(self._by_address.get(bare(address), {}).values())

    def on_link(self, ifindex: int, family: int) -> Iterator[Address]:
        """The addresses of one link and family, in the kernel's order."""
        version = 4 if family == AF_INET else 6
        return (a for a in self._by_key.values() if a.ifindex == ifindex and a.address.version == version)

    def items(self) -> Iterator[tuple[tuple[int, IPAddress, int], Address]]:
        """All keys and entries."""
        return iter(self._by_key.items())

    def __iter__(self) -> Iterator[Address]:
        return iter(self._by_key.values())

    def __len__(self) -> int:
        return len(self._by_key)


def _both_families() -> dict[int, RouteTables]:
    return {AF_INET: RouteTables(AF_INET), AF_INET6: RouteTables(AF_INET6)}


def _no_rules() -> dict[int, tuple[Rule, ...]]:
    return {AF_INET: (), AF_INET6: ()}


@attrs.define(eq=False, slots=True)
class State:
    """The kernel's tables as last heard.

    Attributes:
      tables: The routes, by family.
      rules: The policy rules by family, in the order in which they are tried.
      nexthops: Nexthop objects by id; routes that name one are resolved at lookup.
      switches: The netconf sysctls by (family, ifindex); ifindex -1 is "all".
      without_ipv4: Links whose last IPv4 address went: IPv4 is off there until one returns.
      failed: Neighbours whose state is FAILED, as (ifindex, address).
    """

    tables: dict[int, RouteTables] = attrs.field(factory=_both_families)
    rules: dict[int, tuple[Rule, ...]] = attrs.field(factory=_no_rules)
    links: dict[int, Link] = attrs.field(factory=dict[int, Link])
    addresses: Addresses = attrs.field(factory=Addresses)
    nexthops: dict[int, NexthopMessage] = attrs.field(factory=dict[int, NexthopMessage])
    switches: dict[tuple[int, int], NetconfMessage] = attrs.field(factory=dict[tuple[int, int], NetconfMessage])
    without_ipv4: set[int] = attrs.field(factory=set[int])
    failed: set[tuple[int, IPAddress]] = attrs.field(factory=set[tuple[int, IPAddress]])

    def ignores_linkdown(self, family: int, ifindex: int) -> bool:
        """Whether routes by a link without carrier are passed over there.

        IPv4 takes `all` OR the device's switch, IPv6 the device's only (net/ipv4/fib_semantics.c, net/ipv6/route.c).
        """
        own = self.switches.get((family, ifindex))
        if own is not None and own.ignore_routes_with_linkdown:
            return True
        if family != AF_INET:
            return False
        everywhere = self.switches.get((family, NETCONFA_IFINDEX_ALL))
        return everywhere is not None and bool(everywhere.ignore_routes_with_linkdown)

    def alive(self, family: int, hop: NextHop) -> bool:
        """Whether a next hop can be used: what the kernel's DEAD and LINKDOWN flags say, derived from the link.

        Those flags change without a notification, the link's do not; so they are never stored.
        """
        link = self.links.get(hop.ifindex)
        if link is None:
            return True  # not told of yet
        if not link.up or (family == AF_INET and hop.ifindex in self.without_ipv4):
            return False
        return bool(link.flags & _IFF_LOWER_UP) or not self.ignores_linkdown(family, hop.ifindex)

    def has_address(self, address: IPAddress, ifindex: int) -> bool:
        """Whether a link has an address that counts as there (tentative and deprecated do, DADFAILED does not)."""
        return any(
            entry.ifindex == ifindex and not entry.flags & IFA_F_DADFAILED for entry in self.addresses.of(address)
        )

    def members(self, nexthop_id: int) -> tuple[tuple[NextHop, ...], bool] | None:
        """Expand a nexthop object: (its next hops, whether it is a blackhole); None if it is unknown."""
        known = self.nexthops.get(nexthop_id)
        if known is None:
            return None
        if known.group:
            hops: list[NextHop] = []
            for member_id, weight in known.group:
                member = self.nexthops.get(member_id)
                if member is not None:
                    hops.append(NextHop(ifindex=member.ifindex, gateway=member.gateway, weight=weight))
            return tuple(hops), False
        if known.blackhole:
            return (), True
        return (NextHop(ifindex=known.ifindex, gateway=known.gateway),), False
