"""Neighbours (ARP and NDP entries): RTM_NEWNEIGH and RTM_DELNEIGH (struct ndmsg, linux/neighbour.h)."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

import attrs

from ._attributes import (
    Attributes,
    Buffer,
    IPAddress,
    address_size,
    attribute,
    attribute_u8,
    check_fixed_part,
)

# States; exactly one is set, or none.
NUD_NONE: Final = 0x00
NUD_INCOMPLETE: Final = 0x01
NUD_REACHABLE: Final = 0x02
NUD_STALE: Final = 0x04
NUD_DELAY: Final = 0x08
NUD_PROBE: Final = 0x10
NUD_FAILED: Final = 0x20
NUD_NOARP: Final = 0x40
NUD_PERMANENT: Final = 0x80

NTF_USE: Final = 0x01
NTF_SELF: Final = 0x02
NTF_MASTER: Final = 0x04
NTF_PROXY: Final = 0x08
NTF_EXT_LEARNED: Final = 0x10
NTF_OFFLOADED: Final = 0x20
NTF_STICKY: Final = 0x40
NTF_ROUTER: Final = 0x80

NEIGHBOUR_HEADER: Final = struct.Struct("=BxxxiHBB")

_NDA_DST = 1
_NDA_LLADDR = 2
_NDA_PROTOCOL = 12


@attrs.frozen(slots=True)
class NeighbourMessage:
    """One neighbour.

    Attributes:
      family: AF_INET or AF_INET6; AF_BRIDGE for an entry of a bridge's forwarding table.
      ifindex: The interface.
      destination: The neighbour's IP address; None where there is none (a bridge's entry).
      state: NUD_*.
      flags: NTF_*; NTF_ROUTER is the peer's own word (NDP).
      type: RTN_*, what kind of address it is.
      lladdr: Its hardware address; b"" while unknown.
      protocol: RTPROT_*, who made the entry; 0 if not told.
    """

    family: int
    ifindex: int
    destination: IPAddress | None
    state: int = NUD_NONE
    flags: int = 0
    type: int = 0
    lladdr: bytes = b""
    protocol: int = 0


def decode_neighbour(data: Buffer, start: int, end: int) -> NeighbourMessage:
    """Decode the payload ``data[start:end]`` of a neighbour message.

    Raises:
      NetlinkDecodeError: The framing is broken, or an address has a wrong length.
    """
    attributes = check_fixed_part(data, start, end, NEIGHBOUR_HEADER.size, "a neighbour")
    family, ifindex, state, flags, type = NEIGHBOUR_HEADER.unpack_from(data, start)
    found = Attributes(data, attributes, end)
    # Other families have neighbours with addresses of their own kinds (AF_BRIDGE: a VXLAN's peer).
    known = bool(address_size(family)) or len(found.raw(_NDA_DST)) in (4, 16)
    return NeighbourMessage(
        family=family,
        ifindex=ifindex,
        destination=found.address(_NDA_DST, family) if known else None,
        state=state,
        flags=flags,
        type=type,
        lladdr=found.raw(_NDA_LLADDR),
        protocol=found.u8(_NDA_PROTOCOL),
    )


def encode_neighbour(message: NeighbourMessage) -> bytes:
    """Return the payload of a neighbour message, without the kernel's counters and times."""
    header = NEIGHBOUR_HEADER.pack(message.family, message.ifindex, message.state, message.flags, message.type)
    return header + b"".join(_encode_attributes(message))


def _encode_attributes(message: NeighbourMessage) -> Iterator[bytes]:
    if message.destination is not None:
        yield attribute(_NDA_DST, message.destination.packed)
    if message.lladdr:
        yield attribute(_NDA_LLADDR, message.lladdr)
    if message.protocol:
        yield attribute_u8(_NDA_PROTOCOL, message.protocol)
