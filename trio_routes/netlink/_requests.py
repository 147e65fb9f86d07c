"""What we ask of the kernel: dumps, and the route of one address.

The requests are for a socket with NETLINK_GET_STRICT_CHK, where a dump's fixed part is the whole
structure of its family and every field that is no filter must be 0. A kernel without that option
(before 4.20) reads only the family and ignores filters. What Linux 6.18 accepts of each:

    links       IFLA_EXT_MASK                 addresses   family (and ifindex)
    rules       family                        nexthops    -
    neighbours  family                        netconf     family; a payload of exactly 4 bytes
    routes      family, table
    one route   IPv6: no flag but RTM_F_FIB_MATCH; IPv4: RTM_F_LOOKUP_TABLE too
"""

from __future__ import annotations

from typing import Final, NamedTuple

from ._address import ADDRESS_HEADER
from ._attributes import AF_INET, AF_INET6, AF_UNSPEC, IPAddress, attribute, attribute_u32
from ._framing import NLM_F_DUMP, NLM_F_REQUEST, MessageType, build_message
from ._link import IFLA_EXT_MASK, LINK_HEADER
from ._neighbour import NEIGHBOUR_HEADER
from ._netconf import NETCONF_HEADER_SIZE
from ._nexthop import NEXTHOP_HEADER
from ._route import (
    ROUTE_HEADER,
    RT_TABLE_COMPAT,
    RTA_DST,
    RTA_MARK,
    RTA_OIF,
    RTA_SRC,
    RTA_TABLE,
    RTA_UID,
    RTM_F_FIB_MATCH,
    RTM_F_LOOKUP_TABLE,
)
from ._rule import RULE_HEADER

_DUMP: Final = NLM_F_REQUEST | NLM_F_DUMP
_RTEXT_FILTER_SKIP_STATS = 1 << 3
_FAMILY_NAMES = {AF_INET: "IPv4 ", AF_INET6: "IPv6 "}


class Request(NamedTuple):
    """A request but for its sequence number.

    Attributes:
      type: RTM_GET*.
      flags: NLM_F_*.
      payload: What follows the header.
      description: In words, for `KernelRefusedError.request`.
    """

    type: int
    flags: int
    payload: bytes
    description: str

    def message(self, sequence: int) -> bytes:
        """Return the whole message."""
        return build_message(self.type, self.flags, sequence, self.payload)


def dump_links() -> Request:
    """Ask for all interfaces, without the counters of IPv6 and of virtual functions.

    Those are what RTEXT_FILTER_SKIP_STATS leaves out: a quarter of the answer. The interface's own
    (IFLA_STATS64) come nevertheless.
    """
    payload = LINK_HEADER.pack(AF_UNSPEC, 0, 0, 0, 0) + attribute_u32(IFLA_EXT_MASK, _RTEXT_FILTER_SKIP_STATS)
    return Request(MessageType.RTM_GETLINK, _DUMP, payload, "dump of links")


def dump_addresses(family: int = AF_UNSPEC) -> Request:
    """Ask for all addresses, of one family or of both."""
    payload = ADDRESS_HEADER.pack(family, 0, 0, 0, 0)
    return Request(MessageType.RTM_GETADDR, _DUMP, payload, _describe(family, "addresses"))


def dump_rules(family: int) -> Request:
    """Ask for the rules of a family; AF_UNSPEC gives those of multicast routing as well."""
    payload = RULE_HEADER.pack(family, 0, 0, 0, 0, 0, 0)
    return Request(MessageType.RTM_GETRULE, _DUMP, payload, _describe(family, "rules"))


def dump_nexthops() -> Request:
    """Ask for all nexthop objects. Kernels before 5.3 have none and answer EOPNOTSUPP."""
    return Request(MessageType.RTM_GETNEXTHOP, _DUMP, NEXTHOP_HEADER.pack(0, 0, 0, 0), "dump of nexthop objects")


def dump_neighbours(family: int = AF_UNSPEC) -> Request:
    """Ask for the neighbours, of one family or of both."""
    payload = NEIGHBOUR_HEADER.pack(family, 0, 0, 0, 0)
    return Request(MessageType.RTM_GETNEIGH, _DUMP, payload, _describe(family, "neighbours"))


def dump_netconf(family: int) -> Request:
    """Ask for the switches of all interfaces, and of "all" and "default"."""
    # Padded: the kernel computes what follows the header from the unpadded length, and refuses 1 byte.
    payload = bytes([family]).ljust(NETCONF_HEADER_SIZE, b"\0")
    return Request(MessageType.RTM_GETNETCONF, _DUMP, payload, _describe(family, "interface switches"))


def dump_routes(family: int, table: int = 0) -> Request:
    """Ask for the routes of a family.

    Args:
      family: AF_INET or AF_INET6. AF_UNSPEC would bring multicast routes and MPLS along.
      table: Only this table's, where the socket checks strictly; 0 for all. The dump of a table that does
        not exist ends with ENOENT, in its DONE.
    """
    payload = ROUTE_HEADER.pack(family, 0, 0, 0, table if table < 256 else RT_TABLE_COMPAT, 0, 0, 0, 0)
    if table:
        payload += attribute_u32(RTA_TABLE, table)
    within = f" of table {table}" if table else ""
    return Request(MessageType.RTM_GETROUTE, _DUMP, payload, _describe(family, "routes") + within)


def get_route(
    address: IPAddress,
    *,
    source: IPAddress | None = None,
    oif: int = 0,
    mark: int = 0,
    tos: int = 0,
    uid: int | None = None,
    fib_match: bool = False,
) -> Request:
    """Ask how the kernel would route one packet: an RTM_NEWROUTE, or an ERROR such as ENETUNREACH.

    Args:
      address: The destination.
      source: The source, if already chosen; an IPv4 one must be an address of this host.
      oif: The interface that the socket is bound to; 0 for none.
      mark: The packet's mark.
      tos: Its TOS or traffic class.
      uid: The user; None for the one who asks.
      fib_match: Answer with the route of the table that matched, and not with the path for this address.

    Raises:
      ValueError: `source` is of the other family.
    """
    if source is not None and source.version != address.version:
        raise ValueError(f"the source {source} is not of the same family as {address}")
    family = AF_INET if address.version == 4 else AF_INET6
    flags = (RTM_F_FIB_MATCH if fib_match else 0) | (RTM_F_LOOKUP_TABLE if family == AF_INET else 0)
    source_length = source.max_prefixlen if source is not None else 0
    payload = ROUTE_HEADER.pack(family, address.max_prefixlen, source_length, tos, 0, 0, 0, 0, flags)
    payload += attribute(RTA_DST, address.packed)
    if source is not None:
        payload += attribute(RTA_SRC, source.packed)
    if oif:
        payload += attribute_u32(RTA_OIF, oif)
    if mark:
        payload += attribute_u32(RTA_MARK, mark)
    if uid is not None:
        payload += attribute_u32(RTA_UID, uid)
    return Request(MessageType.RTM_GETROUTE, NLM_F_REQUEST, payload, f"route to {address}")


def _describe(family: int, what: str) -> str:
    return f"dump of {_FAMILY_NAMES.get(family, '')}{what}"
