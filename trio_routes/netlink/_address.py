"""Addresses of interfaces: RTM_NEWADDR and RTM_DELADDR (struct ifaddrmsg, linux/if_addr.h).

Two attributes name an address. On a point-to-point link IFA_LOCAL is our own and IFA_ADDRESS the
peer's; elsewhere they are equal (IPv4) or IFA_LOCAL is absent (IPv6).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

import attrs

from .._errors import NetlinkDecodeError
from ._attributes import (
    Attributes,
    Buffer,
    IPAddress,
    address_size,
    attribute,
    attribute_string,
    attribute_u8,
    attribute_u32,
    check_fixed_part,
)

IFA_F_SECONDARY: Final = 0x01  # IPv4
IFA_F_TEMPORARY: Final = 0x01  # IPv6: the same bit
IFA_F_NODAD: Final = 0x02
IFA_F_OPTIMISTIC: Final = 0x04
IFA_F_DADFAILED: Final = 0x08
IFA_F_HOMEADDRESS: Final = 0x10
IFA_F_DEPRECATED: Final = 0x20
IFA_F_TENTATIVE: Final = 0x40
IFA_F_PERMANENT: Final = 0x80
IFA_F_MANAGETEMPADDR: Final = 0x100
IFA_F_NOPREFIXROUTE: Final = 0x200
IFA_F_MCAUTOJOIN: Final = 0x400
IFA_F_STABLE_PRIVACY: Final = 0x800

ADDRESS_HEADER: Final = struct.Struct("=BBBBI")
_CACHEINFO = struct.Struct("=IIII")
_FOREVER = 0xFFFFFFFF  # INFINITY_LIFE_TIME

_IFA_ADDRESS = 1
_IFA_LOCAL = 2
_IFA_LABEL = 3
_IFA_BROADCAST = 4
_IFA_CACHEINFO = 6
_IFA_FLAGS = 8
_IFA_RT_PRIORITY = 9
_IFA_PROTO = 11


@attrs.frozen(slots=True)
class AddressMessage:
    """One address of one interface.

    Attributes:
      family: AF_INET or AF_INET6.
      ifindex: The interface.
      address: Our own address.
      prefix_length: Bits of the on-link prefix (of the peer's, if there is one).
      flags: IFA_F_*, all 32 bits.
      scope: RT_SCOPE_*.
      peer: The other end of a point-to-point link; None elsewhere.
      broadcast: IPv4's broadcast address, or None.
      label: IPv4's label, usually the interface's name; "" for IPv6.
      preferred_lifetime: Seconds from the message on; None is for ever.
      valid_lifetime: Seconds from the message on; None is for ever.
      priority: Metric of the prefix route; 0 if not set.
      protocol: IFAPROT_*, who set it; 0 if not told.
    """

    family: int
    ifindex: int
    address: IPAddress
    prefix_length: int
    flags: int = 0
    scope: int = 0
    peer: IPAddress | None = None
    broadcast: IPAddress | None = None
    label: str = ""
    preferred_lifetime: int | None = None
    valid_lifetime: int | None = None
    priority: int = 0
    protocol: int = 0


def decode_address(data: Buffer, start: int, end: int) -> AddressMessage:
    """Decode the payload ``data[start:end]`` of an address message.

    Raises:
      NetlinkDecodeError: The framing is broken, there is no address, or it is not of its family's length.
    """
    attributes = check_fixed_part(data, start, end, ADDRESS_HEADER.size, "an address")
    family, prefix_length, flags, scope, ifindex = ADDRESS_HEADER.unpack_from(data, start)
    found = Attributes(data, attributes, end)
    named = found.address(_IFA_ADDRESS, family)
    local = found.address(_IFA_LOCAL, family)
    address = local if local is not None else named
    if address is None:
        raise NetlinkDecodeError("an address message without an address", start)
    if prefix_length > address.max_prefixlen:
        raise NetlinkDecodeError(f"a prefix of {prefix_length} bits in family {family}", start)
    preferred, valid = _decode_lifetimes(data, found)
    return AddressMessage(
        family=family,
        ifindex=ifindex,
        address=address,
        prefix_length=prefix_length,
        flags=found.u32(_IFA_FLAGS, flags),
        scope=scope,
        peer=named if named != address else None,
        broadcast=found.address(_IFA_BROADCAST, family),
        label=found.string(_IFA_LABEL),
        preferred_lifetime=preferred,
        valid_lifetime=valid,
        priority=found.u32(_IFA_RT_PRIORITY),
        protocol=found.u8(_IFA_PROTO),
    )


def _decode_lifetimes(data: Buffer, found: Attributes) -> tuple[int | None, int | None]:
    span = found.span(_IFA_CACHEINFO)
    if span is None:
        return None, None
    start, end = span
    if end - start < _CACHEINFO.size:
        raise NetlinkDecodeError("IFA_CACHEINFO is cut off", start)
    preferred, valid, _, _ = _CACHEINFO.unpack_from(data, start)
    return None if preferred == _FOREVER else preferred, None if valid == _FOREVER else valid


def encode_address(message: AddressMessage) -> bytes:
    """Return the payload of an address message. The kernel's time stamps of the address are given as 0."""
    header = ADDRESS_HEADER.pack(
        message.family, message.prefix_length, message.flags & 0xFF, message.scope, message.ifindex
    )
    return header + b"".join(_encode_attributes(message))


def _encode_attributes(message: AddressMessage) -> Iterator[bytes]:
    peer = message.peer if message.peer is not None else message.address
    yield attribute(_IFA_ADDRESS, peer.packed)
    if message.peer is not None or address_size(message.family) == 4:
        yield attribute(_IFA_LOCAL, message.address.packed)
    if message.broadcast is not None:
        yield attribute(_IFA_BROADCAST, message.broadcast.packed)
    if message.label:
        yield attribute_string(_IFA_LABEL, message.label)
    if message.protocol:
        yield attribute_u8(_IFA_PROTO, message.protocol)
    yield attribute_u32(_IFA_FLAGS, message.flags)
    if message.priority:
        yield attribute_u32(_IFA_RT_PRIORITY, message.priority)
    preferred = _FOREVER if message.preferred_lifetime is None else message.preferred_lifetime
    valid = _FOREVER if message.valid_lifetime is None else message.valid_lifetime
    yield attribute(_IFA_CACHEINFO, _CACHEINFO.pack(preferred, valid, 0, 0))
