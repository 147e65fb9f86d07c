"""The state of a fake kernel: links, addresses, routes and rules, and what a change of one does to the others.

Pure: every change says what a real kernel would say, in its order, through `announce`; what the
kernel does silently is done silently (docs/kernel.md has both, measured on Linux 6.18). Not
played: multicast memberships, router advertisements, duplicate address detection (an address is
usable at once), nexthop objects, VRFs, promotion of secondary addresses.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator, Sequence
from ipaddress import IPv4Interface, IPv4Network, IPv6Interface, IPv6Network, ip_address
from typing import Final

import attrs

from ..netlink import (
    AF_INET,
    AF_INET6,
    IFA_F_NODAD,
    IFA_F_SECONDARY,
    NETCONFA_IFINDEX_ALL,
    NETCONFA_IFINDEX_DEFAULT,
    RT_SCOPE_HOST,
    RT_SCOPE_LINK,
    RT_SCOPE_UNIVERSE,
    RT_TABLE_DEFAULT,
    RT_TABLE_LOCAL,
    RT_TABLE_MAIN,
    RTN_BROADCAST,
    RTN_LOCAL,
    RTN_MULTICAST,
    RTN_UNICAST,
    RTPROT_KERNEL,
    AddressMessage,
    IPAddress,
    MessageType,
    NetconfMessage,
    NextHop,
    RouteBody,
    RuleMessage,
)
from ._fake_links import FakeLink, Interface, LinkState, address_message, link_local
from ._fake_notices import Announce, Notices, family_of, netconf_message
from ._fake_routes import FakeRoutes, refuse

FAMILIES: Final = (AF_INET, AF_INET6)
LOOPBACK_IFINDEX: Final = 1
# IPv6 gives the routes that it makes itself a metric of their own (IP6_RT_PRIO_ADDRCONF).
_PREFIX_ROUTE_METRIC = 256
_MULTICAST = IPv6Network("ff00::/8")
_LINK_LOCAL = IPv6Network("fe80::/64")


class FakeNetwork:
    """Everything that a fake kernel's netlink sockets tell of.

    Attributes:
      links: By ifindex.
      routes: By family.
      rules: Of both families, by priority.
    """

    def __init__(self, announce: Announce) -> None:
        self._notices = Notices(announce)
        self._next_ifindex = LOOPBACK_IFINDEX
        self.links: dict[int, LinkState] = {}
        self.routes: dict[int, FakeRoutes] = {family: self._tables(family) for family in FAMILIES}
        self.rules: list[RuleMessage] = [
            RuleMessage(family, priority, table, protocol=RTPROT_KERNEL)
            for family, table_of in (
                (AF_INET, {0: RT_TABLE_LOCAL, 32766: RT_TABLE_MAIN, 32767: RT_TABLE_DEFAULT}),
                (AF_INET6, {0: RT_TABLE_LOCAL, 32766: RT_TABLE_MAIN}),
            )
            for priority, table in table_of.items()
        ]
        self._add_loopback()

    def _tables(self, family: int) -> FakeRoutes:
        return FakeRoutes(family, self._notices.route, lambda ifindex: self._hop_flags(family, ifindex))

    def _hop_flags(self, family: int, ifindex: int) -> int:
        return self.links[ifindex].hop_flags(family) if ifindex in self.links else 0

    def _add_loopback(self) -> None:
        lo = self._new_link("lo", kind="", mtu=65536)
        lo.loopback = lo.up = lo.carrier = lo.ipv4 = lo.ipv6 = True
        self._add_ipv4(lo, IPv4Interface("127.0.0.1/8"))
        self._add_own_ipv6(lo, address_message(lo, IPv6Interface("::1/128")))

    # ---- links -----------------------------------------------------------------------------

    def add_link(self, name: str, *, up: bool, carrier: bool, kind: str, mtu: int) -> FakeLink:
        """Make a link. Raises FileExistsError if the name is taken, ValueError if it is none."""
        if not 0 < len(name.encode()) < 16:
            raise ValueError(f"{name!r} is no name for a link: 1 to 15 bytes")
        if self.named(name) is not None:
            raise refuse(errno.EEXIST, f"there is a link {name}")
        link = self._new_link(name, kind, mtu)
        for family in FAMILIES:
            self._notices.netconf(MessageType.RTM_NEWNETCONF, family, link.ifindex)
        self._notices.link(MessageType.RTM_NEWLINK, link)
        link.carrier = carrier
        if up:
            self.set_up(link)
        return FakeLink(self, link)

    def _new_link(self, name: str, kind: str, mtu: int) -> LinkState:
        link = LinkState(self._next_ifindex, name, kind, mtu)
        self._next_ifindex += 1  # never used again, as in the kernel (until it wraps)
        self.links[link.ifindex] = link
        return link

    def named(self, name: str) -> LinkState | None:
        """The link of a name, if there is one."""
        return next((link for link in self.links.values() if link.name == name), None)

    def set_up(self, link: LinkState) -> None:
        """Set a link up."""
        if link.up:
            return
        link.up = link.ipv4 = True
        # Carrier is there before the link counts as running: the kernel's second NEWLINK tells of that.
        self._notices.link(MessageType.RTM_NEWLINK, link, running=False)
        for address in link.of_family(AF_INET):
            if not address.flags & IFA_F_SECONDARY:
                self._add_connected_ipv4(link, address)
        if link.carrier:
            self._start_ipv6(link)
            self._notices.link(MessageType.RTM_NEWLINK, link)
            self._give_link_local(link)

    def set_down(self, link: LinkState) -> None:
        """Set a link down."""
        if not link.up:
            return
        link.up = link.ipv4 = link.ipv6 = False
        self._notices.link(MessageType.RTM_NEWLINK, link)
        self.routes[AF_INET].link_stopped(link.ifindex)
        self._forget_neighbours(link, 4)
        self.routes[AF_INET6].link_stopped(link.ifindex)
        self._forget_neighbours(link, 6)
        for address in list(link.of_family(AF_INET6)):
            link.addresses.remove(address)
            self._notices.address(MessageType.RTM_DELADDR, address)

    def set_carrier(self, link: LinkState, carrier: bool) -> None:
        """Give a link carrier or take it away."""
        if link.carrier == carrier:
            return
        link.carrier = carrier
        if not link.up:
            return
        starts = carrier and not link.ipv6
        if starts:
            self._start_ipv6(link)
        self._notices.link(MessageType.RTM_NEWLINK, link)
        if starts:
            self._give_link_local(link)

    def delete_link(self, link: LinkState) -> None:
        """Remove a link, and everything that is on it."""
        if link.loopback:
            raise refuse(errno.EOPNOTSUPP, "the loopback link stays")
        if link.ifindex not in self.links:
            raise refuse(errno.ENODEV, link.name)
        self.set_down(link)
        for address in list(link.of_family(AF_INET)):
            self._drop_ipv4(link, address)
        self.routes[AF_INET].link_deleted(link.ifindex)
        self._notices.netconf(MessageType.RTM_DELNETCONF, AF_INET, link.ifindex)
        self.routes[AF_INET6].link_deleted(link.ifindex)
        self._notices.netconf(MessageType.RTM_DELNETCONF, AF_INET6, link.ifindex)
        del self.links[link.ifindex]
        self._notices.link(MessageType.RTM_DELLINK, link)

    def _start_ipv6(self, link: LinkState) -> None:
        link.ipv6 = True
        for network, table, kind in (
            (_MULTICAST, RT_TABLE_LOCAL, RTN_MULTICAST),
            (_LINK_LOCAL, RT_TABLE_MAIN, RTN_UNICAST),
        ):
            self._kernel_route(
                link, network.network_address, network.prefixlen, table=table, kind=kind, metric=_PREFIX_ROUTE_METRIC
            )

    def _give_link_local(self, link: LinkState) -> None:
        # A real kernel takes one to two seconds for it: duplicate address detection.
        self._add_own_ipv6(link, address_message(link, link_local(link.ifindex)))

    def set_neighbour(self, link: LinkState, address: str | IPAddress, state: int) -> None:
        """Set the state of a neighbour."""
        neighbour = ip_address(address) if isinstance(address, str) else address
        link.neighbours[neighbour] = state
        self._notices.neighbour(MessageType.RTM_NEWNEIGH, link, neighbour, state)

    def _forget_neighbours(self, link: LinkState, version: int) -> None:
        for address in [address for address in link.neighbours if address.version == version]:
            self._notices.neighbour(MessageType.RTM_DELNEIGH, link, address, link.neighbours.pop(address))

    # ---- addresses -------------------------------------------------------------------------

    def add_address(self, link: LinkState, address: Interface) -> None:
        """Add an address to a link."""
        self._must_exist(link)
        if self._address(link, address) is not None:
            raise refuse(errno.EEXIST, f"{address} is on {link.name} already")
        if isinstance(address, IPv4Interface):
            self._add_ipv4(link, address)
        elif not link.ipv6:
            raise refuse(errno.ENETDOWN, f"IPv6 does not pass on {link.name}: set it up and give it carrier first")
        else:
            self._add_ipv6(link, address)

    def _add_ipv4(self, link: LinkState, address: IPv4Interface) -> None:
        primary = next((each for each in link.of_family(AF_INET) if _covers(each, address)), None)
        message = address_message(link, address, IFA_F_SECONDARY if primary is not None else 0)
        link.addresses.insert(len(list(link.of_family(AF_INET))), message)
        if link.up:
            link.ipv4 = True  # dead next hops on the link come to life again
        self._notices.address(MessageType.RTM_NEWADDR, message)
        source = message.address if primary is None else primary.address
        self._kernel_route(
            link, message.address, 32, table=RT_TABLE_LOCAL, kind=RTN_LOCAL, scope=RT_SCOPE_HOST, source=source
        )
        if link.up and primary is None:
            self._add_connected_ipv4(link, message)

    def _add_connected_ipv4(self, link: LinkState, address: AddressMessage) -> None:
        for destination, length, table, kind, scope in _connected(link, address):
            self._kernel_route(link, destination, length, table=table, kind=kind, scope=scope, source=address.address)

    def _add_ipv6(self, link: LinkState, address: Interface) -> None:
        message = address_message(link, address, IFA_F_NODAD)
        network = address.network
        if all(_network(each) != network for each in link.of_family(AF_INET6)):
            self._kernel_route(
                link, network.network_address, network.prefixlen, table=RT_TABLE_MAIN, metric=_PREFIX_ROUTE_METRIC
            )
        self._add_own_ipv6(link, message)

    def _add_own_ipv6(self, link: LinkState, address: AddressMessage) -> None:
        # The widest scope first, and of one scope the newest (ipv6_link_dev_addr).
        ahead = sum(each.family == AF_INET or each.scope < address.scope for each in link.addresses)
        link.addresses.insert(ahead, address)
        self._notices.address(MessageType.RTM_NEWADDR, address)
        self._kernel_route(link, address.address, 128, table=RT_TABLE_LOCAL, kind=RTN_LOCAL)

    def delete_address(self, link: LinkState, address: Interface) -> None:
        """Take an address from a link."""
        self._must_exist(link)
        message = self._address(link, address)
        if message is None:
            raise refuse(errno.EADDRNOTAVAIL, f"{address} is not on {link.name}")
        if message.family == AF_INET:
            self._delete_ipv4(link, message)
        else:
            self._delete_ipv6(link, message)

    def _delete_ipv4(self, link: LinkState, address: AddressMessage) -> None:
        if not address.flags & IFA_F_SECONDARY:
            for secondary in [each for each in link.of_family(AF_INET) if _network(each) == _network(address)]:
                if secondary.flags & IFA_F_SECONDARY:
                    self._drop_ipv4(link, secondary)
        self._drop_ipv4(link, address)
        if next(link.of_family(AF_INET), None) is None:
            link.ipv4 = False
            self.routes[AF_INET].link_stopped(link.ifindex)
            self._forget_neighbours(link, 4)

    def _drop_ipv4(self, link: LinkState, address: AddressMessage) -> None:
        link.addresses.remove(address)
        self._notices.address(MessageType.RTM_DELADDR, address)
        if not address.flags & IFA_F_SECONDARY:
            for destination, length, table, kind, _ in _connected(link, address):
                self._delete_kernel_route(link, destination, length, table=table, kind=kind)
        self._delete_kernel_route(link, address.address, 32, table=RT_TABLE_LOCAL, kind=RTN_LOCAL)
        if not self.has_address(address.address):
            self.routes[AF_INET].source_deleted(address.address)

    def _delete_ipv6(self, link: LinkState, address: AddressMessage) -> None:
        link.addresses.remove(address)
        self._notices.address(MessageType.RTM_DELADDR, address)
        self._delete_kernel_route(link, address.address, 128, table=RT_TABLE_LOCAL, kind=RTN_LOCAL)
        network = _network(address)
        if all(_network(each) != network for each in link.of_family(AF_INET6)):
            self._delete_kernel_route(
                link, network.network_address, network.prefixlen, table=RT_TABLE_MAIN, kind=RTN_UNICAST
            )
        if not self.has_address(address.address):
            self.routes[AF_INET6].source_deleted(address.address)

    def has_address(self, address: IPAddress) -> bool:
        """Whether any link has this address."""
        return any(each.address == address for each in self.addresses())

    def addresses(self, family: int = 0) -> Iterator[AddressMessage]:
        """All addresses, of one family or (0) of both."""
        for link in self.links.values():
            yield from (each for each in link.addresses if family in (0, each.family))

    def _address(self, link: LinkState, address: Interface) -> AddressMessage | None:
        wanted = address_message(link, address)
        return next(
            (
                each
                for each in link.addresses
                if (each.address, each.prefix_length) == (wanted.address, wanted.prefix_length)
            ),
            None,
        )

    def _must_exist(self, link: LinkState) -> None:
        if link.ifindex not in self.links:
            raise refuse(errno.ENODEV, f"{link.name} was deleted")

    # ---- routes and rules ------------------------------------------------------------------

    def hop(self, gateway: IPAddress | None, link: LinkState | None, family: int, weight: int = 1) -> NextHop:
        """Make a next hop as the kernel would: the link, where none is given, is the one that leads to the gateway.

        Raises:
          OSError: ENETUNREACH for a gateway on no link, ENETDOWN for a link that is down, ENODEV for none at all.
        """
        if gateway is not None and link is None:
            link = self._link_of(gateway)
            if link is None:
                raise refuse(errno.ENETUNREACH, f"no link leads to the gateway {gateway}")
        if link is None:
            raise refuse(errno.ENODEV, "a route needs a gateway or a device")
        self._must_exist(link)
        if not link.up or (family == AF_INET6 and not link.ipv6):
            raise refuse(errno.ENETDOWN, link.name)
        return NextHop(link.ifindex, gateway, weight)

    def _link_of(self, gateway: IPAddress) -> LinkState | None:
        for link in self.links.values():
            for address in link.of_family(family_of(gateway)):
                if gateway in _network(address) and gateway != address.address:
                    return link
        return None

    def add_rule(self, rule: RuleMessage) -> RuleMessage:
        """Add a rule. Without a priority it comes just before the family's second one, as the kernel has it."""
        same_family = [each for each in self.rules if each.family == rule.family]
        if not rule.priority and len(same_family) > 1:
            rule = attrs.evolve(rule, priority=max(same_family[1].priority - 1, 0))
        if any(attrs.evolve(each, protocol=rule.protocol) == rule for each in same_family):
            raise refuse(errno.EEXIST, "there is such a rule")
        self.rules.append(rule)
        self.rules.sort(key=lambda each: each.priority)  # stable: after those of its priority, as in the kernel
        self._notices.rule(MessageType.RTM_NEWRULE, rule)
        return rule

    def delete_rule(self, rule: RuleMessage) -> None:
        """Remove a rule. Raises FileNotFoundError if there is none such."""
        if rule not in self.rules:
            raise refuse(errno.ENOENT, "no such rule")
        self.rules.remove(rule)
        self._notices.rule(MessageType.RTM_DELRULE, rule)

    def netconf(self, family: int) -> Sequence[NetconfMessage]:
        """The switches of a family: of all links, of new ones, of each."""
        numbers = (NETCONFA_IFINDEX_ALL, NETCONFA_IFINDEX_DEFAULT, *self.links)
        return [netconf_message(family, number) for number in numbers]

    def _kernel_route(
        self,
        link: LinkState,
        destination: IPAddress,
        prefix_length: int,
        *,
        table: int,
        kind: int = RTN_UNICAST,
        scope: int = RT_SCOPE_UNIVERSE,
        metric: int = 0,
        source: IPAddress | None = None,
    ) -> None:
        family = family_of(destination)
        body = RouteBody(
            family,
            table,
            prefix_length,
            type=kind,
            protocol=RTPROT_KERNEL,
            scope=scope,
            priority=metric,
            nexthops=(NextHop(link.ifindex),),
            prefsrc=source,
        )
        self.routes[family].add(body, int(destination), kernels_own=True)

    def _delete_kernel_route(
        self, link: LinkState, destination: IPAddress, prefix_length: int, *, table: int, kind: int
    ) -> None:
        def is_it(body: RouteBody) -> bool:
            ours = any(hop.ifindex == link.ifindex for hop in body.nexthops)
            return ours and body.type == kind and body.protocol == RTPROT_KERNEL

        self.routes[family_of(destination)].delete((table, prefix_length, int(destination)), is_it)


def _network(address: AddressMessage) -> IPv4Network | IPv6Network:
    kind = IPv4Network if address.family == AF_INET else IPv6Network
    return kind((int(address.address), address.prefix_length), strict=False)


def _covers(primary: AddressMessage, address: IPv4Interface) -> bool:
    return not primary.flags & IFA_F_SECONDARY and _network(primary) == address.network


def _connected(link: LinkState, address: AddressMessage) -> Iterator[tuple[IPAddress, int, int, int, int]]:
    """Yield destination, prefix length, table, type and scope of the routes beside an IPv4 address's local one."""
    network = _network(address)
    if network.prefixlen == 32:
        return
    if link.loopback:
        yield network.network_address, network.prefixlen, RT_TABLE_LOCAL, RTN_LOCAL, RT_SCOPE_HOST
    else:
        yield network.network_address, network.prefixlen, RT_TABLE_MAIN, RTN_UNICAST, RT_SCOPE_LINK
    if network.prefixlen < 31:
        yield network.broadcast_address, 32, RT_TABLE_LOCAL, RTN_BROADCAST, RT_SCOPE_LINK
