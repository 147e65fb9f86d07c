"""Nexthop objects, which routes name by id: RTM_NEWNEXTHOP and RTM_DELNEXTHOP (struct nhmsg, linux/nexthop.h).

An object is one next hop, a blackhole, or a group of other objects with weights. Its life is not
told in full: objects on an interface that goes down vanish without a message, and a group shrinks
without one.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

import attrs

from .._errors import NetlinkDecodeError
from ._attributes import (
    AF_UNSPEC,
    Attributes,
    Buffer,
    IPAddress,
    attribute,
    attribute_u16,
    attribute_u32,
    check_fixed_part,
)

NEXTHOP_GRP_TYPE_MPATH: Final = 0  # by hash
NEXTHOP_GRP_TYPE_RES: Final = 1  # resilient: by hash, through buckets that survive a change of members

NEXTHOP_HEADER: Final = struct.Struct("=BBBxI")
_MEMBER = struct.Struct("=IBBxx")

_NHA_ID = 1
_NHA_GROUP = 2
_NHA_GROUP_TYPE = 3
_NHA_BLACKHOLE = 4
_NHA_OIF = 5
_NHA_GATEWAY = 6
_NHA_ENCAP_TYPE = 7
_NHA_ENCAP = 8
_NHA_FDB = 11
_NHA_RES_GROUP = 12
_NHA_RES_GROUP_BUCKETS = 1


@attrs.frozen(slots=True)
class NexthopMessage:
    """One nexthop object.

    Attributes:
      id: Its number, by which routes and groups name it.
      family: AF_INET or AF_INET6; AF_UNSPEC for a group.
      scope: RT_SCOPE_*.
      protocol: RTPROT_*, who installed it.
      flags: RTNH_F_*.
      ifindex: The outgoing interface; 0 for a group or an FDB entry. A blackhole may name "lo".
      gateway: The router, or None.
      blackhole: Whether it drops what is sent to it.
      group: ``(id, weight)`` of each member, weights from 1; () if it is no group.
      group_type: NEXTHOP_GRP_TYPE_*.
      fdb: Whether it is for a bridge's or VXLAN's forwarding table, and no route's.
      encap: ``(type, payload)`` of a lightweight tunnel, the payload undecoded; None without.
      buckets: Of a resilient group; 0 for others.
    """

    id: int
    family: int = AF_UNSPEC
    scope: int = 0
    protocol: int = 0
    flags: int = 0
    ifindex: int = 0
    gateway: IPAddress | None = None
    blackhole: bool = False
    group: tuple[tuple[int, int], ...] = ()
    group_type: int = NEXTHOP_GRP_TYPE_MPATH
    fdb: bool = False
    encap: tuple[int, bytes] | None = None
    buckets: int = 0


def decode_nexthop(data: Buffer, start: int, end: int) -> NexthopMessage:
    """Decode the payload ``data[start:end]`` of a nexthop message.

    Raises:
      NetlinkDecodeError: The framing is broken, or a value has a wrong length.
    """
    attributes = check_fixed_part(data, start, end, NEXTHOP_HEADER.size, "a nexthop")
    family, scope, protocol, flags = NEXTHOP_HEADER.unpack_from(data, start)
    found = Attributes(data, attributes, end)
    return NexthopMessage(
        id=found.u32(_NHA_ID),
        family=family,
        scope=scope,
        protocol=protocol,
        flags=flags,
        ifindex=found.u32(_NHA_OIF),
        gateway=found.address(_NHA_GATEWAY, family),
        blackhole=_NHA_BLACKHOLE in found,
        group=tuple(_decode_group(data, found)),
        group_type=found.u16(_NHA_GROUP_TYPE),
        fdb=_NHA_FDB in found,
        encap=(found.u16(_NHA_ENCAP_TYPE), found.raw(_NHA_ENCAP)) if _NHA_ENCAP in found else None,
        buckets=found.nested(_NHA_RES_GROUP).u16(_NHA_RES_GROUP_BUCKETS),
    )


def _decode_group(data: Buffer, found: Attributes) -> Iterator[tuple[int, int]]:
    start, end = found.span(_NHA_GROUP) or (0, 0)
    if (end - start) % _MEMBER.size:
        raise NetlinkDecodeError("a group's last member is cut off", start)
    for offset in range(start, end, _MEMBER.size):
        # The upper byte of the weight came with Linux 6.12 and was reserved, 0, before.
        id, low, high = _MEMBER.unpack_from(data, offset)
        yield id, (high << 8 | low) + 1


def encode_nexthop(message: NexthopMessage) -> bytes:
    """Return the payload of a nexthop message, its attributes in the kernel's own order (nh_fill_node).

    Left out are a resilient group's timers and what newer kernels say of hardware counters (NHA_OP_FLAGS).
    """
    header = NEXTHOP_HEADER.pack(message.family, message.scope, message.protocol, message.flags)
    ways = _encode_group(message) if message.group else _encode_single(message)
    return header + attribute_u32(_NHA_ID, message.id) + b"".join(ways)


def _encode_group(message: NexthopMessage) -> Iterator[bytes]:
    if message.fdb:
        yield attribute(_NHA_FDB, b"")
    yield attribute_u16(_NHA_GROUP_TYPE, message.group_type)
    members = b"".join(_MEMBER.pack(id, (weight - 1) & 0xFF, (weight - 1) >> 8) for id, weight in message.group)
    yield attribute(_NHA_GROUP, members)
    if message.buckets:
        yield attribute(_NHA_RES_GROUP, attribute_u16(_NHA_RES_GROUP_BUCKETS, message.buckets))


def _encode_single(message: NexthopMessage) -> Iterator[bytes]:
    if message.blackhole:
        yield attribute(_NHA_BLACKHOLE, b"")
    if message.fdb:
        yield attribute(_NHA_FDB, b"")
    if message.ifindex:
        yield attribute_u32(_NHA_OIF, message.ifindex)
    if message.gateway is not None:
        yield attribute(_NHA_GATEWAY, message.gateway.packed)
    if message.encap is not None:
        type, payload = message.encap
        yield attribute(_NHA_ENCAP, payload)
        yield attribute_u16(_NHA_ENCAP_TYPE, type)
