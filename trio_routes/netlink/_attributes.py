"""The attributes after a message's fixed part, and the few kinds of value that they hold.

     0        2      4
     +--------+------+---------+~~~~~~~+
     | length | type | payload | pad   |   length counts the first 4 bytes, not the padding to 4
     +--------+------+---------+~~~~~~~+

The two upper bits of the type are flags (NLA_F_NESTED, NLA_F_NET_BYTEORDER), set by some senders
and not by others, so they are masked off. Values are in the host's byte order, except addresses
and the few that say otherwise (linux/netlink.h). Where a type occurs twice the last one counts, as
in the kernel's nla_parse().

A payload longer than the value is accepted and its first bytes taken, as the kernel's own policy
does for integers: newer kernels lengthen attributes. A shorter one is an error.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address
from typing import Final, TypeAlias

from .._errors import NetlinkDecodeError

# collections.abc.Buffer came with Python 3.12.
Buffer: TypeAlias = bytes | bytearray | memoryview
IPAddress: TypeAlias = IPv4Address | IPv6Address

# Address families as netlink numbers them, the same on every Linux (linux/socket.h).
AF_UNSPEC: Final = 0
AF_INET: Final = 2
AF_BRIDGE: Final = 7
AF_INET6: Final = 10

ATTRIBUTE: Final = struct.Struct("=HH")
_TYPE_MASK = 0x3FFF  # without NLA_F_NESTED (0x8000) and NLA_F_NET_BYTEORDER (0x4000)

_U8 = struct.Struct("=B")
_U16 = struct.Struct("=H")
_U32 = struct.Struct("=I")
_S32 = struct.Struct("=i")


def align(length: int) -> int:
    """Round up to the 4 bytes to which messages, attributes and next hops are all aligned."""
    return (length + 3) & ~3


def address_size(family: int) -> int:
    """Return how many bytes an address of AF_INET or AF_INET6 has; 0 for other families."""
    return {AF_INET: 4, AF_INET6: 16}.get(family, 0)


def check_fixed_part(data: Buffer, start: int, end: int, size: int, what: str) -> int:
    """Return where the attributes begin after a fixed part of ``size`` bytes at ``start``.

    Raises:
      NetlinkDecodeError: ``data[start:end]`` is shorter than that, or not inside ``data``.
    """
    if start < 0 or end > len(data) or end - start < size:
        raise NetlinkDecodeError(f"{what} is cut off", start)
    return min(start + align(size), end)


def iter_attributes(data: Buffer, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Yield ``(type, start, end)`` of each attribute, where start and end bound its payload in ``data``.

    Args:
      data: One whole datagram, as received.
      start: Offset in bytes of the first attribute.
      end: Offset in bytes just past the last one; inside ``data``.

    Raises:
      NetlinkDecodeError: An attribute's header is cut off, or a length is under 4 or runs past ``end``;
        nothing after it was looked at.
    """
    while start < end:
        if start + 4 > end:
            raise NetlinkDecodeError(f"{end - start} bytes are left, too few for an attribute", start)
        length, type = ATTRIBUTE.unpack_from(data, start)
        past = start + length
        if length < 4 or past > end:
            raise NetlinkDecodeError(f"an attribute claims {length} bytes of {end - start}", start)
        yield type & _TYPE_MASK, start + 4, past
        start += (length + 3) & ~3


class Attributes:
    """The attributes of one message, or inside one attribute, by type.

    Args:
      data: One whole datagram, as received.
      start: Offset in bytes of the first attribute.
      end: Offset in bytes just past the last one.

    Raises:
      NetlinkDecodeError: The framing is broken, here or when a value is read that is too short.
    """

    __slots__ = ("_data", "_spans")

    def __init__(self, data: Buffer, start: int, end: int) -> None:
        if start > end or end > len(data):
            raise NetlinkDecodeError("attributes begin past the end", start)
        self._data = data
        self._spans = {type: (first, past) for type, first, past in iter_attributes(data, start, end)}

    def __contains__(self, type: int) -> bool:
        return type in self._spans

    def __iter__(self) -> Iterator[int]:
        return iter(self._spans)

    def raw(self, type: int) -> bytes:
        """Return the payload as bytes, b"" where there is none."""
        start, end = self._spans.get(type, (0, 0))
        return bytes(self._data[start:end])

    def span(self, type: int) -> tuple[int, int] | None:
        """Return where the payload begins and ends, None where there is none."""
        return self._spans.get(type)

    def u8(self, type: int, default: int = 0) -> int:
        """Return an unsigned 8-bit integer."""
        return self._integer(type, _U8, default)

    def u16(self, type: int, default: int = 0) -> int:
        """Return an unsigned 16-bit integer."""
        return self._integer(type, _U16, default)

    def u32(self, type: int, default: int = 0) -> int:
        """Return an unsigned 32-bit integer."""
        return self._integer(type, _U32, default)

    def s32(self, type: int, default: int = 0) -> int:
        """Return a signed 32-bit integer."""
        return self._integer(type, _S32, default)

    def big_endian(self, type: int, size: int) -> int:
        """Return an unsigned integer of ``size`` bytes in network byte order, 0 where there is none."""
        span = self._spans.get(type)
        return 0 if span is None else int.from_bytes(self._bytes(span, size), "big")

    def string(self, type: int) -> str:
        """Return text up to its NUL, "" where there is none. Bytes that are not UTF-8 survive as surrogates.

        Interface names may hold any bytes but "/", ":" and white space (dev_valid_name).
        """
        return self.raw(type).split(b"\0", 1)[0].decode("utf-8", "surrogateescape")

    def address(self, type: int, family: int = AF_UNSPEC) -> IPAddress | None:
        """Return an IP address of the family, or of the one that its length tells; None where there is none.

        Raises:
          NetlinkDecodeError: The payload is not of an address's length.
        """
        span = self._spans.get(type)
        return None if span is None else decode_ip(self._data, *span, family)

    def nested(self, type: int) -> Attributes:
        """Return the attributes inside an attribute; none where it is missing."""
        return Attributes(self._data, *self._spans.get(type, (0, 0)))

    def _integer(self, type: int, kind: struct.Struct, default: int) -> int:
        span = self._spans.get(type)
        if span is None:
            return default
        start, end = span
        if end - start < kind.size:
            raise NetlinkDecodeError(f"attribute {type} is too short for an integer of {kind.size} bytes", start)
        value: int = kind.unpack_from(self._data, start)[0]
        return value

    def _bytes(self, span: tuple[int, int], size: int) -> bytes:
        start, end = span
        if end - start < size:
            raise NetlinkDecodeError(f"{end - start} bytes where {size} are due", start)
        return bytes(self._data[start : start + size])


def decode_ip(data: Buffer, start: int, end: int, family: int = AF_UNSPEC) -> IPAddress:
    """Return the IP address in ``data[start:end]``.

    Raises:
      NetlinkDecodeError: The length is neither 4 nor 16 bytes, or not the family's.
    """
    size = end - start
    if size not in (4, 16) or size != (address_size(family) or size):
        raise NetlinkDecodeError(f"an address of {size} bytes", start)
    packed = bytes(data[start:end])
    return IPv4Address(packed) if size == 4 else IPv6Address(packed)


def attribute(type: int, payload: bytes) -> bytes:
    """Return one attribute, padded to 4 bytes. The payload may be attributes again."""
    length = 4 + len(payload)
    return ATTRIBUTE.pack(length, type) + payload + bytes(align(length) - length)


def attribute_u8(type: int, value: int) -> bytes:
    """Return an attribute with an unsigned 8-bit integer."""
    return attribute(type, _U8.pack(value))


def attribute_u16(type: int, value: int) -> bytes:
    """Return an attribute with an unsigned 16-bit integer."""
    return attribute(type, _U16.pack(value))


def attribute_u32(type: int, value: int) -> bytes:
    """Return an attribute with an unsigned 32-bit integer."""
    return attribute(type, _U32.pack(value))


def attribute_s32(type: int, value: int) -> bytes:
    """Return an attribute with a signed 32-bit integer."""
    return attribute(type, _S32.pack(value))


def attribute_string(type: int, text: str) -> bytes:
    """Return an attribute with text and its final NUL."""
    return attribute(type, text.encode("utf-8", "surrogateescape") + b"\0")
