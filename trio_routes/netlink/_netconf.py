"""Per-interface switches of IPv4 and IPv6: RTM_NEWNETCONF and RTM_DELNETCONF (linux/netconf.h).

The fixed part is one byte, the family; attributes begin at the next multiple of 4. A notification
carries only the switch that changed.
"""

from __future__ import annotations

from typing import Final

import attrs

from ._attributes import Attributes, Buffer, attribute_s32, check_fixed_part

NETCONFA_IFINDEX_ALL: Final = -1
NETCONFA_IFINDEX_DEFAULT: Final = -2

NETCONF_HEADER_SIZE: Final = 4

_NETCONFA_IFINDEX = 1


@attrs.frozen(slots=True)
class NetconfMessage:
    """What one message tells of an interface's switches; None where it does not tell.

    Attributes:
      family: AF_INET or AF_INET6.
      ifindex: The interface; NETCONFA_IFINDEX_ALL or NETCONFA_IFINDEX_DEFAULT for those two sets.
      forwarding: Whether packets are forwarded.
      rp_filter: Reverse path filter, 0 to 2.
      mc_forwarding: Whether multicast is forwarded.
      proxy_neigh: Proxy ARP or NDP.
      ignore_routes_with_linkdown: Whether a route without carrier is passed over in lookups.
      input: Whether MPLS is accepted.
      bc_forwarding: Whether directed broadcasts are forwarded.
      force_forwarding: IPv6, Linux 6.17: forwarding of this interface whatever "all" says.
    """

    family: int
    ifindex: int
    forwarding: int | None = None
    rp_filter: int | None = None
    mc_forwarding: int | None = None
    proxy_neigh: int | None = None
    ignore_routes_with_linkdown: int | None = None
    input: int | None = None
    bc_forwarding: int | None = None
    force_forwarding: int | None = None


# Their attribute numbers (NETCONFA_*).
_FORWARDING, _RP_FILTER, _MC_FORWARDING, _PROXY_NEIGH = 2, 3, 4, 5
_IGNORE_ROUTES_WITH_LINKDOWN, _INPUT, _BC_FORWARDING, _FORCE_FORWARDING = 6, 7, 8, 9


def decode_netconf(data: Buffer, start: int, end: int) -> NetconfMessage:
    """Decode the payload ``data[start:end]`` of a netconf message.

    Raises:
      NetlinkDecodeError: The framing is broken, or a value too short.
    """
    attributes = check_fixed_part(data, start, end, 1, "a netconf message")
    found = Attributes(data, attributes, end)

    def switch(type: int) -> int | None:
        return found.s32(type) if type in found else None

    return NetconfMessage(
        family=data[start],
        ifindex=found.s32(_NETCONFA_IFINDEX),
        forwarding=switch(_FORWARDING),
        rp_filter=switch(_RP_FILTER),
        mc_forwarding=switch(_MC_FORWARDING),
        proxy_neigh=switch(_PROXY_NEIGH),
        ignore_routes_with_linkdown=switch(_IGNORE_ROUTES_WITH_LINKDOWN),
        input=switch(_INPUT),
        bc_forwarding=switch(_BC_FORWARDING),
        force_forwarding=switch(_FORCE_FORWARDING),
    )


def encode_netconf(message: NetconfMessage) -> bytes:
    """Return the payload of a netconf message, its attributes in the kernel's own order (inet_netconf_fill_devconf)."""
    switches = (
        (_FORWARDING, message.forwarding),
        (_RP_FILTER, message.rp_filter),
        (_MC_FORWARDING, message.mc_forwarding),
        (_BC_FORWARDING, message.bc_forwarding),
        (_PROXY_NEIGH, message.proxy_neigh),
        (_IGNORE_ROUTES_WITH_LINKDOWN, message.ignore_routes_with_linkdown),
        (_INPUT, message.input),
        (_FORCE_FORWARDING, message.force_forwarding),
    )
    told = b"".join(attribute_s32(type, value) for type, value in switches if value is not None)
    header = bytes([message.family]).ljust(NETCONF_HEADER_SIZE, b"\0")
    return header + attribute_s32(_NETCONFA_IFINDEX, message.ifindex) + told
