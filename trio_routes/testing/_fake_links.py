"""Links and their addresses in a fake kernel: their states, and how they are told of."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface, ip_interface
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

import attrs

from ..netlink import (
    AF_INET,
    AF_INET6,
    ARPHRD_ETHER,
    ARPHRD_LOOPBACK,
    IF_OPER_DOWN,
    IF_OPER_LOWERLAYERDOWN,
    IF_OPER_UNKNOWN,
    IF_OPER_UP,
    IFA_F_PERMANENT,
    IFF_BROADCAST,
    IFF_LOOPBACK,
    IFF_LOWER_UP,
    IFF_MULTICAST,
    IFF_RUNNING,
    IFF_UP,
    NUD_FAILED,
    NUD_INCOMPLETE,
    NUD_PERMANENT,
    NUD_REACHABLE,
    NUD_STALE,
    RT_SCOPE_HOST,
    RT_SCOPE_LINK,
    RT_SCOPE_UNIVERSE,
    RTNH_F_DEAD,
    RTNH_F_LINKDOWN,
    AddressMessage,
    IPAddress,
    LinkMessage,
)

if TYPE_CHECKING:
    from ._fake_network import FakeNetwork

Interface: TypeAlias = IPv4Interface | IPv6Interface
NeighbourState: TypeAlias = Literal["incomplete", "reachable", "stale", "failed", "permanent"]

NEIGHBOUR_STATES: Final[dict[NeighbourState, int]] = {
    "incomplete": NUD_INCOMPLETE,
    "reachable": NUD_REACHABLE,
    "stale": NUD_STALE,
    "failed": NUD_FAILED,
    "permanent": NUD_PERMANENT,
}


@attrs.define(eq=False)
class LinkState:
    """What a fake kernel knows of one link.

    Attributes:
      ipv4: Whether IPv4 passes: off when the link goes down and when it loses its last IPv4 address, on when
        it goes up and when it is given an address.
      ipv6: Whether IPv6 passes: off when the link goes down, on once it is up and has carrier. Later carrier
        losses leave it on.
      neighbours: State (NUD_*) by address.
    """

    ifindex: int
    name: str
    kind: str
    mtu: int
    loopback: bool = False
    up: bool = False
    carrier: bool = False
    ipv4: bool = False
    ipv6: bool = False
    addresses: list[AddressMessage] = attrs.field(factory=list[AddressMessage])
    neighbours: dict[IPAddress, int] = attrs.field(factory=dict[IPAddress, int])

    def of_family(self, family: int) -> Iterator[AddressMessage]:
        """The link's addresses of one family, in the kernel's order."""
        return (address for address in self.addresses if address.family == family)

    def hop_flags(self, family: int) -> int:
        """RTNH_F_DEAD and RTNH_F_LINKDOWN of next hops on this link."""
        passes = self.ipv4 if family == AF_INET else self.ipv6
        if not passes:
            return RTNH_F_DEAD | RTNH_F_LINKDOWN
        return 0 if self.carrier else RTNH_F_LINKDOWN

    def message(self, *, running: bool | None = None) -> LinkMessage:
        """Describe the link as a NEWLINK does; `running` False while it is just coming up."""
        running = self.up and self.carrier if running is None else running
        flags = IFF_LOOPBACK if self.loopback else IFF_BROADCAST | IFF_MULTICAST
        flags |= IFF_UP if self.up else 0
        flags |= IFF_LOWER_UP if self.up and self.carrier else 0
        flags |= IFF_RUNNING if running else 0
        if self.loopback:
            operstate = IF_OPER_UNKNOWN
        elif not self.up:
            operstate = IF_OPER_DOWN
        else:
            operstate = IF_OPER_UP if running else IF_OPER_LOWERLAYERDOWN
        return LinkMessage(
            ifindex=self.ifindex,
            name=self.name,
            flags=flags,
            arp_type=ARPHRD_LOOPBACK if self.loopback else ARPHRD_ETHER,
            mtu=self.mtu,
            kind=self.kind,
            operstate=operstate,
            address=bytes(6) if self.loopback else b"\x02\0\0" + self.ifindex.to_bytes(3, "big"),
            broadcast=bytes(6) if self.loopback else b"\xff" * 6,
        )


class FakeLink:
    """One link of a `FakeKernel`. Made by `FakeKernel.add_link`; what is done to it is announced at once."""

    def __init__(self, network: FakeNetwork, state: LinkState) -> None:
        self._network = network
        self._state = state

    @property
    def name(self) -> str:
        """The link's name."""
        return self._state.name

    @property
    def ifindex(self) -> int:
        """The link's number."""
        return self._state.ifindex

    @property
    def up(self) -> bool:
        """Whether it was set up."""
        return self._state.up

    @property
    def carrier(self) -> bool:
        """Whether the cable is plugged in."""
        return self._state.carrier

    def set_up(self) -> None:
        """`ip link set up`: connected routes come back, static ones do not."""
        self._network.set_up(self._state)

    def set_down(self) -> None:
        """`ip link set down`: IPv4 routes go without a word, IPv6 routes and addresses are announced."""
        self._network.set_down(self._state)

    def set_carrier(self, carrier: bool) -> None:
        """Plug the cable in, or pull it: only the link itself is told of."""
        self._network.set_carrier(self._state, carrier)

    def delete(self) -> None:
        """Remove the link, with all that is on it."""
        self._network.delete_link(self._state)

    def add_address(self, address: str) -> None:
        """Add an address with its prefix length ("192.0.2.2/24"), and the routes that come with it.

        Raises:
          ValueError: Not an address with a prefix length.
          FileExistsError: It is there.
          OSError: ENETDOWN for an IPv6 address where IPv6 does not pass yet; what the kernel does then (tentative
            until carrier comes) is not played.
        """
        self._network.add_address(self._state, parse_interface(address))

    def delete_address(self, address: str) -> None:
        """Remove an address and the routes that came with it. Raises OSError (EADDRNOTAVAIL) if it is not there."""
        self._network.delete_address(self._state, parse_interface(address))

    def set_neighbour(self, address: str | IPAddress, state: NeighbourState) -> None:
        """Tell in what state a neighbour is, as ARP and neighbour discovery do."""
        self._network.set_neighbour(self._state, address, NEIGHBOUR_STATES[state])

    def __repr__(self) -> str:
        return f"<FakeLink {self.name} ({self.ifindex})>"


def parse_interface(text: str) -> Interface:
    """Read "192.0.2.2/24". Raises ValueError without a prefix length: a forgotten one would mean /32."""
    if "/" not in text:
        raise ValueError(f"{text!r} has no prefix length: write 192.0.2.2/24")
    return ip_interface(text)


def address_message(link: LinkState, address: Interface, flags: int = 0) -> AddressMessage:
    """Describe an address as a NEWADDR does."""
    ipv4 = isinstance(address, IPv4Interface)
    if link.loopback:
        scope = RT_SCOPE_HOST
    else:
        scope = RT_SCOPE_LINK if not ipv4 and address.ip.is_link_local else RT_SCOPE_UNIVERSE
    return AddressMessage(
        family=AF_INET if ipv4 else AF_INET6,
        ifindex=link.ifindex,
        address=bare_address(address),
        prefix_length=address.network.prefixlen,
        flags=IFA_F_PERMANENT | flags,
        scope=scope,
        label=link.name if ipv4 else "",
    )


def bare_address(address: Interface) -> IPAddress:
    """Return an interface's own address as a plain IPv4Address or IPv6Address."""
    return IPv4Address(int(address)) if isinstance(address, IPv4Interface) else IPv6Address(int(address))


def link_local(ifindex: int) -> IPv6Interface:
    """Return the link-local address that belongs to the hardware address 02:00:00:xx:xx:xx (RFC 4291 appendix A)."""
    return IPv6Interface((0xFE80 << 112 | 0xFFFE << 24 | ifindex, 64))
