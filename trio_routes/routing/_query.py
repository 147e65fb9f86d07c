"""What a lookup is asked about: the fields of a flow that rules and tables look at, and what they can be."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address
from typing import TypedDict

import attrs

from ..netlink import AF_INET, AF_INET6, IPAddress


class LookupOptions(TypedDict, total=False):
    """The optional arguments of `Cache.lookup`; what they mean is said at `Query`."""

    source: IPAddress | None
    mark: int
    oif: int | None
    iif: int | None
    tos: int
    uid: int | None
    ip_proto: int
    sport: int
    dport: int
    strict: bool
    any_source: bool
    onlink_fallback: bool


# Neither frozen nor compared: one is made for every lookup, and frozen costs three times as much to build.
@attrs.define(slots=True, eq=False)
class Query:
    """One question to the tables, for one lookup: what the kernel fills in on its way is filled in here.

    Attributes:
      destination: Where to. A scope id is dropped: the kernel keeps the link beside the address, as `oif`.
      source: The source address, where one is chosen already; a rule's `from` matches nothing before.
      mark: The packet's mark.
      oif: The device that the flow is bound to, as ifindex; 0 is none.
      iif: The device it came in by; 0 means that it is sent by this host (a rule's `iif lo`). With a device,
        the packet is one that is forwarded: its source is another host's, and IPv6 prefers routes by `iif`.
      tos: The TOS byte or traffic class; the two ECN bits do not count.
      uid: The user who sends.
      ip_proto: IPPROTO_*; 0 where it is not said, as for `sport` and `dport`, the ports.
      strict: IPv6 only: a bound device is a condition, not a preference. True for a socket's own lookups
        (SO_BINDTODEVICE); RTM_GETROUTE is strict only when no source is given.
      any_source: The source need not be an address of this host (IP_TRANSPARENT).
      onlink_fallback: IPv4 only: with `oif` given and no route, the destination counts as on that link, as
        RTM_GETROUTE answers and as the kernel in fact sends.
      family: AF_INET or AF_INET6, of the destination.
      address: The destination as an integer.
      source_address: The source as an integer; 0 where none is chosen, as the kernel has it.
      vrf: The ifindex of the VRF that `oif` or `iif` is or belongs to, filled in by the lookup; 0 if none.
    """

    destination: IPAddress
    source: IPAddress | None = None
    mark: int = 0
    oif: int = 0
    iif: int = 0
    tos: int = 0
    uid: int = 0
    ip_proto: int = 0
    sport: int = 0
    dport: int = 0
    strict: bool = False
    any_source: bool = False
    onlink_fallback: bool = True
    family: int = attrs.field(init=False)
    address: int = attrs.field(init=False)
    source_address: int = attrs.field(init=False)
    vrf: int = attrs.field(init=False, default=0)

    def __attrs_post_init__(self) -> None:
        destination, source = self.destination, self.source
        self.address = int(destination)
        self.source_address = 0 if source is None else int(source)
        if not self.source_address:
            self.source = None  # the unspecified address is none
        if isinstance(destination, IPv4Address):  # a third of what its `version` takes
            self.family = AF_INET
            return
        self.family = AF_INET6
        if destination.scope_id is not None:
            self.destination = IPv6Address(self.address)
        if isinstance(source, IPv6Address) and source.scope_id is not None:
            self.source = IPv6Address(self.source_address)


# The bits of each field: of struct flowi4, of the attribute by which rules select, or of an ifindex, which is signed.
_BITS = {"mark": 32, "oif": 31, "iif": 31, "tos": 8, "uid": 32, "ip_proto": 8, "sport": 16, "dport": 16}


def check_numbers(**given: int | None) -> None:
    """See whether numbers that users give can be those of a flow; None stands for nothing given.

    Raises:
      TypeError: One is no integer.
      ValueError: One is out of its range.
    """
    for name, number in given.items():
        if number is None and name in ("oif", "iif", "uid"):
            continue
        if not isinstance(number, int):
            what = "an ifindex" if name in ("oif", "iif") else "a number"
            raise TypeError(f"{name} is {what}, not {number!r}")
        if not 0 <= number < 1 << _BITS[name]:
            raise ValueError(f"{name} is a number from 0 to {(1 << _BITS[name]) - 1}, not {number}")
