"""What the cache knows, and the small questions that lookups ask of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from ipaddress import IPv6Address
from typing import TYPE_CHECKING, TypeAlias

import attrs

from ..netlink import (
    AF_INET,
    AF_INET6,
    IFA_F_DADFAILED,
    IFA_F_SECONDARY,
    NETCONFA_IFINDEX_ALL,
    RTN_ANYCAST,
    RTN_BLACKHOLE,
    RTN_LOCAL,
    RTN_PROHIBIT,
    RTN_THROW,
    RTN_UNREACHABLE,
    IPAddress,
    NextHop,
    NexthopMessage,
    RouteBody,
)
from ._tables import RouteTables
from ._values import Address, Link, Rule

if TYPE_CHECKING:
    from ._rules import Step

# What makes an address of a link one entry: (ifindex, address, prefix length).
AddressKey: TypeAlias = tuple[int, IPAddress, int]
# One next hop of a route: (route, ifindex, gateway). Two by one link can differ in being dead.
Way: TypeAlias = tuple[RouteBody, int, "IPAddress | None"]

_UP_WITH_CARRIER = Link.IFF_UP | Link.IFF_LOWER_UP


# IPV6_MIN_MTU: a link of less has no IPv6 (addrconf_notify).
LEAST_IPV6_MTU = 1280


def family_of(address: IPAddress) -> int:
    """AF_INET or AF_INET6."""
    return AF_INET if address.version == 4 else AF_INET6


def way_of(body: RouteBody, hop: NextHop) -> Way:
    """What tells a next hop of a route from the others."""
    return body, hop.ifindex, hop.gateway


def bare(address: IPAddress) -> IPAddress:
    """An address without its scope id: the kernel keeps the link beside a link-local address, not in it."""
    if isinstance(address, IPv6Address) and address.scope_id is not None:
        return IPv6Address(int(address))
    return address


class Addresses:
    """The addresses of all links, found by key, by address and by link.

    Attributes:
      chosen: The source addresses that were chosen among these for routes (`_source.py`); empty after each change.
    """

    def __init__(self) -> None:
        self._by_key: dict[AddressKey, Address] = {}
        self._by_address: dict[IPAddress, dict[AddressKey, Address]] = {}
        self._by_link: dict[tuple[int, int], dict[AddressKey, Address]] = {}
        self.chosen: dict[RouteBody, IPAddress] = {}
        self._ipv6_by_link: tuple[Address, ...] | None = None

    @staticmethod
    def key(address: Address) -> AddressKey:
        """What makes an address of a link one entry: announced again, it is a refresh."""
        return address.ifindex, address.address, address.prefix_length

    def get(self, key: AddressKey) -> Address | None:
        """The entry under a key."""
        return self._by_key.get(key)

    def put(self, key: AddressKey, address: Address | None) -> None:
        """Set or, with None, remove an entry."""
        self.chosen.clear()
        self._ipv6_by_link = None
        link = key[0], family_of(key[1])
        if address is not None:
            known = self._by_key.get(key)
            if known is not None and known.flags & ~address.flags & IFA_F_SECONDARY:
                del self._by_key[key], self._by_link[link][key]  # promoted, it goes to the end (__inet_del_ifa)
            self._by_key[key] = address
            self._by_address.setdefault(key[1], {})[key] = address
            self._by_link.setdefault(link, {})[key] = address
        elif key in self._by_key:
            del self._by_key[key]
            same = self._by_address[key[1]]
            del same[key]
            if not same:
                del self._by_address[key[1]]
            del self._by_link[link][key]

    def of(self, address: IPAddress) -> tuple[Address, ...]:
        """This address wherever a link has it."""
        return tuple(self._by_address.get(bare(address), {}).values())

    def on_link(self, ifindex: int, family: int) -> Iterable[Address]:
        """The addresses of one link and family, in the kernel's order among the primary ones (__inet_insert_ifa).

        That is the order in which they came, but of IPv4 those of a narrower scope before the others.
        """
        found = self._by_link.get((ifindex, family), {}).values()
        if family == AF_INET and any(entry.scope for entry in found):
            return sorted(found, key=lambda entry: -entry.scope)
        return found

    def ipv6_by_link(self) -> tuple[Address, ...]:
        """All IPv6 addresses in the order of their links' numbers, those of one link in the order in which they came."""
        known = self._ipv6_by_link
        if known is None:
            ipv6 = [entry for entry in self if entry.address.version == 6]
            known = self._ipv6_by_link = tuple(sorted(ipv6, key=lambda entry: entry.ifindex))
        return known

    def by_key(self) -> dict[AddressKey, Address]:
        """All entries by their keys, in a dict of the caller's own."""
        return dict(self._by_key)

    def __iter__(self) -> Iterator[Address]:
        return iter(self._by_key.values())

    def __len__(self) -> int:
        return len(self._by_key)


def _both_families() -> dict[int, RouteTables]:
    return {AF_INET: RouteTables(AF_INET), AF_INET6: RouteTables(AF_INET6)}


def _no_rules() -> dict[int, tuple[Rule, ...]]:
    return {AF_INET: (), AF_INET6: ()}


def _none_prepared() -> dict[int, tuple[tuple[Rule, ...], tuple[Step, ...]]]:
    return {}


# IPv6 routes that are there without carrier, and on a link that is down: those to the host itself, which come and go
# with its addresses (fib6_ifdown, fc_ignore_dev_down), and those that reject, which can be made while `lo` is down.
_NEEDING_NO_LINK = frozenset({RTN_LOCAL, RTN_ANYCAST, RTN_BLACKHOLE, RTN_UNREACHABLE, RTN_PROHIBIT, RTN_THROW})


def _needs_no_link(body: RouteBody) -> bool:
    return body.family == AF_INET6 and body.type in _NEEDING_NO_LINK


@attrs.define(eq=False, slots=True)
class State:
    """The kernel's tables as last heard.

    Attributes:
      tables: The routes, by family.
      rules: The policy rules by family, in the order in which they are tried.
      links: The links by ifindex.
      addresses: The addresses of all links.
      nexthops: Nexthop objects by id; routes that name one are resolved at lookup.
      ignoring_linkdown: Where the netconf switch ignore_routes_with_linkdown is on: (family, ifindex), -1 for "all".
      failed: Neighbours whose state is FAILED, as (ifindex, address).
      dead_ways: Next hops that are dead although their link is up: the link was without IPv4 address, or without
        IPv6, for a moment, and nothing has revived them yet.
      unruled: Families of whose rules the kernel takes no notice: it looks into the tables 255 and 254. For IPv6 that is
        so until a rule is added (fib6_has_custom_rules); for a kernel without policy rules, always.
      prepared_rules: By family, the rules that were prepared for lookups, and what came of it (`_rules.py`).
    """

    tables: dict[int, RouteTables] = attrs.field(factory=_both_families)
    rules: dict[int, tuple[Rule, ...]] = attrs.field(factory=_no_rules)
    links: dict[int, Link] = attrs.field(factory=dict[int, Link])
    addresses: Addresses = attrs.field(factory=Addresses)
    nexthops: dict[int, NexthopMessage] = attrs.field(factory=dict[int, NexthopMessage])
    ignoring_linkdown: set[tuple[int, int]] = attrs.field(factory=set[tuple[int, int]])
    failed: set[tuple[int, IPAddress]] = attrs.field(factory=set[tuple[int, IPAddress]])
    dead_ways: set[Way] = attrs.field(factory=set[Way])
    unruled: set[int] = attrs.field(factory=lambda: {AF_INET6})
    prepared_rules: dict[int, tuple[tuple[Rule, ...], tuple[Step, ...]]] = attrs.field(factory=_none_prepared)

    def passes_over_linkdown(self, family: int, ifindex: int) -> bool:
        """Whether routes by a link without carrier are passed over there.

        IPv4 takes `all` OR the device's switch, IPv6 the device's only (net/ipv4/fib_semantics.c, net/ipv6/route.c).
        """
        if (family, ifindex) in self.ignoring_linkdown:
            return True
        return family == AF_INET and (family, NETCONFA_IFINDEX_ALL) in self.ignoring_linkdown

    def dead(self, body: RouteBody, hop: NextHop) -> bool:
        """Whether a next hop has RTNH_F_DEAD for its own sake, which removes the route once all of its have it."""
        link = self.links.get(hop.ifindex)
        if link is not None and not link.up and not _needs_no_link(body):
            return True
        return bool(self.dead_ways) and way_of(body, hop) in self.dead_ways

    def alive(self, body: RouteBody, hop: NextHop) -> bool:
        """Whether a next hop can be used: what the kernel's DEAD and LINKDOWN flags say, derived from the link.

        Those flags change without a notification, the link's do not; so they are not stored with the route.
        """
        if self.dead_ways and way_of(body, hop) in self.dead_ways:
            return False
        link = self.links.get(hop.ifindex)
        if link is None:  # not told of yet
            return True
        if body.family == AF_INET6 and 0 < link.mtu < LEAST_IPV6_MTU:
            return False  # there is no IPv6; of the routes by it only those that name a nexthop object stay
        flags = link.flags
        if flags & _UP_WITH_CARRIER == _UP_WITH_CARRIER or _needs_no_link(body):
            return True
        return bool(flags & Link.IFF_UP) and not self.passes_over_linkdown(body.family, hop.ifindex)

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
            members = ((self.nexthops.get(member_id), weight) for member_id, weight in known.group)
            found = [(member, weight) for member, weight in members if member is not None]
            # A blackhole is the only member that its group may have (nh_check_attr_group).
            if any(member.blackhole for member, _ in found):
                return (), True
            return tuple(NextHop(member.ifindex, member.gateway, weight) for member, weight in found), False
        if known.blackhole:
            return (), True
        return (NextHop(ifindex=known.ifindex, gateway=known.gateway),), False

    def expand(self, body: RouteBody) -> tuple[tuple[NextHop, ...], bool]:
        """A route's next hops, through its nexthop object where it names one; and whether that is a blackhole."""
        if body.nexthop_id:
            members = self.members(body.nexthop_id)
            if members is not None:
                return members
        return body.nexthops, False
