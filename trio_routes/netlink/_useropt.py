"""Options of router advertisements that the kernel passes on unread: RTM_NEWNDUSEROPT (struct nduseroptmsg, linux/rtnetlink.h).

     0       1       2               4                               8
    +-------+-------+---------------+-------------------------------+
    | family| pad   | opts_len      | ifindex                       |
    +-------+-------+---------------+-------------------------------+
    | type  | code  | pad                                           |   ICMPv6's: 134, 0
    +-------+-------+-----------------------------------------------+
    | one neighbour discovery option, opts_len bytes: type u8, length u8 in units of 8 bytes, body, padding |
    +-----------------------------------------------------------------------------------------------------+
    | attributes: 1 (NDUSEROPT_SRCADDR) is the router's link-local address                                |
    +-----------------------------------------------------------------------------------------------------+

The kernel has checked hop limit, source and the option's length against the packet (ndisc_router_discovery,
ndisc_ra_useropt), and nothing of its body. It sends one message for each option of each advertisement, also of those that
say what the last one did, and has no dump. Nothing comes from a link with accept_ra=0.
"""

from __future__ import annotations

import struct
from ipaddress import IPv6Address
from typing import Final

import attrs

from .._errors import NetlinkDecodeError
from ._attributes import AF_INET6, Attributes, Buffer, attribute, check_fixed_part

ICMPV6_ROUTER_ADVERTISEMENT: Final = 134
ND_OPT_RDNSS: Final = 25
ND_OPT_CAPTIVE_PORTAL: Final = 37

USEROPT_HEADER: Final = struct.Struct("=BxHiBB6x")

_NDUSEROPT_SRCADDR = 1


@attrs.frozen(slots=True)
class NdUserOption:
    """One option of one router advertisement.

    Attributes:
      ifindex: The interface it came in by.
      router: Who sent it.
      type: ND_OPT_*.
      body: The option without its type and length, padding included.
      icmp_type: ICMPV6_ROUTER_ADVERTISEMENT; the kernel passes on no others today.
    """

    ifindex: int
    router: IPv6Address | None
    type: int
    body: bytes
    icmp_type: int = ICMPV6_ROUTER_ADVERTISEMENT


def decode_nd_user_option(data: Buffer, start: int, end: int) -> NdUserOption:
    """Decode the payload ``data[start:end]`` of an RTM_NEWNDUSEROPT message.

    Raises:
      NetlinkDecodeError: The framing is broken: the option is cut off, or its length is 0 or not that of the message.
    """
    options = check_fixed_part(data, start, end, USEROPT_HEADER.size, "a neighbour discovery option")
    _family, length, ifindex, icmp_type, _code = USEROPT_HEADER.unpack_from(data, start)
    attributes = options + length
    if length < 8 or attributes > end or data[options + 1] * 8 != length:
        raise NetlinkDecodeError(f"a neighbour discovery option of {length} bytes", options)
    found = Attributes(data, attributes, end)
    router = found.address(_NDUSEROPT_SRCADDR, AF_INET6)
    return NdUserOption(
        ifindex=ifindex,
        router=router if isinstance(router, IPv6Address) else None,
        type=data[options],
        body=bytes(data[options + 2 : attributes]),
        icmp_type=icmp_type,
    )


def encode_nd_user_option(option: NdUserOption) -> bytes:
    """Return the payload of an RTM_NEWNDUSEROPT message; the body is padded to the option's units of 8 bytes."""
    length = (2 + len(option.body) + 7) // 8 * 8
    told = bytes([option.type, length // 8]) + option.body.ljust(length - 2, b"\0")
    header = USEROPT_HEADER.pack(AF_INET6, length, option.ifindex, option.icmp_type, 0)
    router = b"" if option.router is None else attribute(_NDUSEROPT_SRCADDR, option.router.packed)
    return header + told + router
