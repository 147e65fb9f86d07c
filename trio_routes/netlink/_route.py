"""Routes: RTM_NEWROUTE and RTM_DELROUTE.

The payload is a struct rtmsg and attributes (linux/rtnetlink.h):

     0        1         2         3     4       5          6       7      8       12
     +--------+---------+---------+-----+-------+----------+-------+------+-------+~~~~~~~~~~~~+
     | family | dst_len | src_len | tos | table | protocol | scope | type | flags | attributes |
     +--------+---------+---------+-----+-------+----------+-------+------+-------+~~~~~~~~~~~~+

A message is taken apart into the destination's address and all the rest, a `RouteBody`: a host with
a hundred thousand routes has a few dozen bodies, so `RouteDecoder` (in `_route_decoder.py`) hands out
one shared object for each and the cache stores an integer and a reference per route.

Three things about flags, which rtm_flags and rtnh_flags mix:

* the low byte of rtm_flags holds the RTNH_F_* flags of a single next hop (fib_nexthop_info), and is
  moved to `NextHop.flags`; where there is no next hop, or several, it stays in `RouteBody.flags`;
* the members of RTA_MULTIPATH have flags of their own;
* DEAD and LINKDOWN change without a notification, so bodies that differ only there are the same
  route; telling so is the cache's task, not the codec's.

A route that names a nexthop object (RTA_NH_ID) usually carries the object's expansion as well
(net.ipv4.nexthop_compat_mode=1); both are decoded.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from ipaddress import IPv4Address
from typing import Final

import attrs

from .._errors import NetlinkDecodeError
from ._attributes import (
    AF_INET,
    AF_INET6,
    Attributes,
    Buffer,
    IPAddress,
    address_size,
    align,
    attribute,
    attribute_string,
    attribute_u8,
    attribute_u16,
    attribute_u32,
    check_fixed_part,
    decode_ip,
)

# Types of route (rtm_type).
RTN_UNSPEC: Final = 0
RTN_UNICAST: Final = 1
RTN_LOCAL: Final = 2
RTN_BROADCAST: Final = 3
RTN_ANYCAST: Final = 4
RTN_MULTICAST: Final = 5
RTN_BLACKHOLE: Final = 6
RTN_UNREACHABLE: Final = 7
RTN_PROHIBIT: Final = 8
RTN_THROW: Final = 9

# Who installed it (rtm_protocol).
RTPROT_UNSPEC: Final = 0
RTPROT_REDIRECT: Final = 1
RTPROT_KERNEL: Final = 2
RTPROT_BOOT: Final = 3
RTPROT_STATIC: Final = 4
RTPROT_RA: Final = 9
RTPROT_DHCP: Final = 16

RT_SCOPE_UNIVERSE: Final = 0
RT_SCOPE_SITE: Final = 200
RT_SCOPE_LINK: Final = 253
RT_SCOPE_HOST: Final = 254
RT_SCOPE_NOWHERE: Final = 255

RT_TABLE_UNSPEC: Final = 0
RT_TABLE_COMPAT: Final = 252  # in rtm_table: the number is over 255 and only in RTA_TABLE
RT_TABLE_DEFAULT: Final = 253
RT_TABLE_MAIN: Final = 254
RT_TABLE_LOCAL: Final = 255

# rtm_flags of a whole route.
RTM_F_NOTIFY: Final = 0x100
RTM_F_CLONED: Final = 0x200  # an answer to RTM_GETROUTE, not a route of a table
RTM_F_PREFIX: Final = 0x800
RTM_F_LOOKUP_TABLE: Final = 0x1000
RTM_F_FIB_MATCH: Final = 0x2000
RTM_F_OFFLOAD: Final = 0x4000
RTM_F_TRAP: Final = 0x8000
RTM_F_OFFLOAD_FAILED: Final = 0x20000000

# rtnh_flags of a next hop.
RTNH_F_DEAD: Final = 1
RTNH_F_PERVASIVE: Final = 2
RTNH_F_ONLINK: Final = 4
RTNH_F_OFFLOAD: Final = 8
RTNH_F_LINKDOWN: Final = 16
RTNH_F_UNRESOLVED: Final = 32
RTNH_F_TRAP: Final = 64

# Attributes of a route.
RTA_DST: Final = 1
RTA_SRC: Final = 2
RTA_IIF: Final = 3
RTA_OIF: Final = 4
RTA_GATEWAY: Final = 5
RTA_PRIORITY: Final = 6
RTA_PREFSRC: Final = 7
RTA_METRICS: Final = 8
RTA_MULTIPATH: Final = 9
RTA_FLOW: Final = 11
RTA_CACHEINFO: Final = 12
RTA_TABLE: Final = 15
RTA_MARK: Final = 16
RTA_VIA: Final = 18
RTA_PREF: Final = 20
RTA_ENCAP_TYPE: Final = 21
RTA_ENCAP: Final = 22
RTA_UID: Final = 25
RTA_NH_ID: Final = 30

# Metrics inside RTA_METRICS that others have use for; all are kept by number.
RTAX_MTU: Final = 2
RTAX_CC_ALGO: Final = 16  # the one that is text

ROUTE_HEADER: Final = struct.Struct("=BBBBBBBBI")
_HOP_HEADER = struct.Struct("=HBBi")
_VIA_FAMILY = struct.Struct("=H")
_CACHEINFO = struct.Struct("=IIiIIIII")
_EXPIRES_OFFSET = 8
_HOP_FLAGS = 0xFF
_UNKNOWN_FAMILY_BITS = 128


@attrs.frozen(slots=True, cache_hash=True)
class NextHop:
    """One way out of a route.

    Attributes:
      ifindex: The outgoing interface; 0 if none is named.
      gateway: The router's address, of either family (RTA_GATEWAY or RTA_VIA); None where the
        destination is on the link.
      weight: Its share in a multipath route, from 1 (rtnh_hops + 1).
      flags: RTNH_F_*, as received.
      encap: ``(type, payload)`` of a lightweight tunnel (LWTUNNEL_ENCAP_*), the payload undecoded; None without.
      flow: The realm, of a member of a multipath route (RTA_FLOW); 0 if none.
    """

    ifindex: int
    gateway: IPAddress | None = None
    weight: int = 1
    flags: int = 0
    encap: tuple[int, bytes] | None = None
    flow: int = 0


@attrs.frozen(slots=True, cache_hash=True)
class RouteBody:
    """Everything of a route but its destination's address.

    Attributes:
      family: AF_INET or AF_INET6.
      table: The table's number, of 32 bits.
      prefix_length: Bits of the destination.
      type: RTN_*.
      protocol: RTPROT_*, who installed it.
      scope: RT_SCOPE_*; always 0 for IPv6.
      flags: rtm_flags without the next hop's bits (see the head of this module).
      priority: The metric, lower first; 0 if none is given.
      nexthops: One for a single route; () for a reject without a device and for a nexthop object
        without its expansion.
      multipath: Whether the next hops came as RTA_MULTIPATH, which can hold just one.
      nexthop_id: The nexthop object (RTA_NH_ID), or 0.
      prefsrc: The source address to use, or None.
      source: The source prefix (IPv6 subtrees; in an answer to RTM_GETROUTE the source asked for), as an integer.
      source_length: Bits of the source prefix.
      tos: The TOS that it serves, 0 for all.
      metrics: ``(RTAX_*, value)`` as received; the values are integers, but RTAX_CC_ALGO's is text.
      preference: RFC 4191 router preference as the kernel encodes it: 0 medium, 1 high, 3 low.
      expires: Whether it ends by itself (IPv6). How soon is not kept: that changes by the second.
      flow: The realm (RTA_FLOW), 0 if none.
      iif: In an answer to RTM_GETROUTE: the interface the packet would come in by. Otherwise 0.
      mark: In an answer to RTM_GETROUTE: the mark asked for. Otherwise 0.
      uid: In an answer to RTM_GETROUTE: the user asked for. Otherwise None.
    """

    family: int
    table: int
    prefix_length: int
    type: int = RTN_UNICAST
    protocol: int = RTPROT_UNSPEC
    scope: int = RT_SCOPE_UNIVERSE
    flags: int = 0
    priority: int = 0
    nexthops: tuple[NextHop, ...] = ()
    multipath: bool = False
    nexthop_id: int = 0
    prefsrc: IPAddress | None = None
    source: int = 0
    source_length: int = 0
    tos: int = 0
    metrics: tuple[tuple[int, int | str], ...] = ()
    preference: int = 0
    expires: bool = False
    flow: int = 0
    iif: int = 0
    mark: int = 0
    uid: int | None = None


@attrs.frozen(slots=True)
class RouteMessage:
    """A route as one message tells of it.

    Attributes:
      body: All but the destination's address.
      destination: The destination's address as an integer, host bits as received; 0 for a default route.
    """

    body: RouteBody
    destination: int


def decode_route(data: Buffer, start: int, end: int) -> RouteMessage:
    """Decode the payload ``data[start:end]`` of a route message, attribute by attribute.

    `RouteDecoder` gives the same answer sooner where it has seen a like message before.

    Raises:
      NetlinkDecodeError: The framing is broken, an address has a wrong length, or a prefix is longer than an address.
    """
    attributes = check_fixed_part(data, start, end, ROUTE_HEADER.size, "a route")
    family, prefix_length, source_length, tos, table, protocol, scope, type, flags = ROUTE_HEADER.unpack_from(
        data, start
    )
    bits = 8 * address_size(family) or _UNKNOWN_FAMILY_BITS
    if max(prefix_length, source_length) > bits:
        raise NetlinkDecodeError(f"a prefix of {max(prefix_length, source_length)} bits in family {family}", start)
    found = Attributes(data, attributes, end)
    nexthops = _decode_nexthops(data, found, family, flags)
    multipath = RTA_MULTIPATH in found
    body = RouteBody(
        family=family,
        table=found.u32(RTA_TABLE, table),
        prefix_length=prefix_length,
        type=type,
        protocol=protocol,
        scope=scope,
        flags=flags & ~_HOP_FLAGS if nexthops and not multipath else flags,
        priority=found.u32(RTA_PRIORITY),
        nexthops=nexthops,
        multipath=multipath,
        nexthop_id=found.u32(RTA_NH_ID),
        prefsrc=found.address(RTA_PREFSRC, family),
        source=_decode_prefix(found, RTA_SRC, family),
        source_length=source_length,
        tos=tos,
        metrics=tuple(_decode_metrics(found)) if RTA_METRICS in found else (),
        preference=found.u8(RTA_PREF),
        expires=_decode_expires(data, found),
        flow=found.u32(RTA_FLOW),
        iif=found.u32(RTA_IIF),
        mark=found.u32(RTA_MARK),
        uid=found.u32(RTA_UID) if RTA_UID in found else None,
    )
    return RouteMessage(body, _decode_prefix(found, RTA_DST, family))


def _decode_prefix(found: Attributes, type: int, family: int) -> int:
    span = found.span(type)
    if span is None:
        return 0
    start, end = span
    size = address_size(family)
    if size and end - start != size:
        raise NetlinkDecodeError(f"an address of {end - start} bytes", start)
    # Multicast routing (families 128 and 129) and MPLS share these messages and have prefixes of
    # other lengths. Nobody here asks for them, but an answer to AF_UNSPEC brings them along.
    return int.from_bytes(found.raw(type)[:16], "big")


def _decode_nexthops(data: Buffer, found: Attributes, family: int, flags: int) -> tuple[NextHop, ...]:
    several = found.span(RTA_MULTIPATH)
    if several is not None:
        return tuple(_iter_multipath(data, *several, family))
    if any(type in found for type in (RTA_OIF, RTA_GATEWAY, RTA_VIA, RTA_ENCAP)):
        gateway, encap = _decode_way(data, found, family)
        return (NextHop(found.u32(RTA_OIF), gateway, flags=flags & _HOP_FLAGS, encap=encap),)
    return ()


def _iter_multipath(data: Buffer, start: int, end: int, family: int) -> Iterator[NextHop]:
    while start < end:
        if start + _HOP_HEADER.size > end:
            raise NetlinkDecodeError(f"{end - start} bytes are left, too few for a next hop", start)
        length, flags, hops, ifindex = _HOP_HEADER.unpack_from(data, start)
        past = start + length
        if length < _HOP_HEADER.size or past > end:
            raise NetlinkDecodeError(f"a next hop claims {length} bytes of {end - start}", start)
        found = Attributes(data, start + _HOP_HEADER.size, past)
        gateway, encap = _decode_way(data, found, family)
        yield NextHop(ifindex, gateway, hops + 1, flags, encap, found.u32(RTA_FLOW))
        start += align(length)


def _decode_way(data: Buffer, found: Attributes, family: int) -> tuple[IPAddress | None, tuple[int, bytes] | None]:
    """Return what single routes and members of a multipath route have alike: gateway and encapsulation."""
    gateway = found.address(RTA_GATEWAY, family)
    via = found.span(RTA_VIA)
    if gateway is None and via is not None:
        gateway = _decode_via(data, *via)
    encap = (found.u16(RTA_ENCAP_TYPE), found.raw(RTA_ENCAP)) if RTA_ENCAP in found else None
    return gateway, encap


def _decode_via(data: Buffer, start: int, end: int) -> IPAddress | None:
    if end - start < _VIA_FAMILY.size:
        raise NetlinkDecodeError("RTA_VIA is cut off", start)
    (family,) = _VIA_FAMILY.unpack_from(data, start)
    if family not in (AF_INET, AF_INET6):
        return None  # a router known by its hardware address (MPLS)
    return decode_ip(data, start + _VIA_FAMILY.size, end, family)


def _decode_metrics(found: Attributes) -> Iterator[tuple[int, int | str]]:
    metrics = found.nested(RTA_METRICS)
    for type in metrics:
        yield type, metrics.string(type) if type == RTAX_CC_ALGO else metrics.u32(type)


def _decode_expires(data: Buffer, found: Attributes) -> bool:
    span = found.span(RTA_CACHEINFO)
    if span is None:
        return False
    start, end = span
    if end - start < _CACHEINFO.size:
        raise NetlinkDecodeError("RTA_CACHEINFO is cut off", start)
    return any(data[start + _EXPIRES_OFFSET : start + _EXPIRES_OFFSET + 4])


def encode_route(message: RouteMessage) -> bytes:
    """Return the payload of a route message, its attributes in the kernel's own order.

    For what a kernel can send this is the inverse of `decode_route`, byte for byte, apart from the
    seconds that an expiring IPv6 route has left: they are given as one.
    """
    body = message.body
    single = body.nexthops[0] if len(body.nexthops) == 1 and not body.multipath else None
    header = ROUTE_HEADER.pack(
        body.family,
        body.prefix_length,
        body.source_length,
        body.tos,
        body.table if body.table < 256 else RT_TABLE_COMPAT,
        body.protocol,
        body.scope,
        body.type,
        body.flags | (single.flags if single else 0),
    )
    parts = [header, attribute_u32(RTA_TABLE, body.table)]
    if body.prefix_length:
        parts.append(attribute(RTA_DST, _encode_prefix(message.destination, body.family)))
    if body.source_length:
        parts.append(attribute(RTA_SRC, _encode_prefix(body.source, body.family)))
    parts += _encode_selectors(body)
    parts += _encode_ways(body, single)
    if body.family == AF_INET6:
        seconds = 100 if body.expires else 0  # rta_expires counts hundredths (USER_HZ)
        parts.append(attribute(RTA_CACHEINFO, _CACHEINFO.pack(0, 0, seconds, 0, 0, 0, 0, 0)))
        parts.append(attribute_u8(RTA_PREF, body.preference))
    return b"".join(parts)


def _encode_prefix(address: int, family: int) -> bytes:
    return address.to_bytes(address_size(family) or 16, "big")


def _encode_selectors(body: RouteBody) -> Iterator[bytes]:
    """Yield what stands before the next hops: IPv4 puts the priority first, IPv6 last, and always."""
    if body.family == AF_INET and body.priority:
        yield attribute_u32(RTA_PRIORITY, body.priority)
    if body.metrics and body.family == AF_INET:
        yield attribute(RTA_METRICS, _encode_metrics(body))
    if body.iif:
        yield attribute_u32(RTA_IIF, body.iif)
    if body.prefsrc is not None:
        yield attribute(RTA_PREFSRC, body.prefsrc.packed)
    if body.metrics and body.family != AF_INET:
        yield attribute(RTA_METRICS, _encode_metrics(body))
    if body.family != AF_INET:
        yield attribute_u32(RTA_PRIORITY, body.priority)
    if body.mark:
        yield attribute_u32(RTA_MARK, body.mark)
    if body.uid is not None:
        yield attribute_u32(RTA_UID, body.uid)


def _encode_metrics(body: RouteBody) -> bytes:
    return b"".join(
        attribute_string(type, value) if isinstance(value, str) else attribute_u32(type, value)
        for type, value in body.metrics
    )


def _encode_ways(body: RouteBody, single: NextHop | None) -> Iterator[bytes]:
    if body.nexthop_id:
        yield attribute_u32(RTA_NH_ID, body.nexthop_id)
    if single is not None:
        yield from _encode_hop(single, body.family, with_device=bool(single.ifindex))
    elif body.nexthops:
        yield attribute(RTA_MULTIPATH, b"".join(_encode_member(hop, body.family) for hop in body.nexthops))
    if body.flow:
        yield attribute_u32(RTA_FLOW, body.flow)


def _encode_member(hop: NextHop, family: int) -> bytes:
    payload = b"".join(_encode_hop(hop, family, with_device=False))
    if hop.flow:
        payload += attribute_u32(RTA_FLOW, hop.flow)
    return _HOP_HEADER.pack(_HOP_HEADER.size + len(payload), hop.flags, hop.weight - 1, hop.ifindex) + payload


def _encode_hop(hop: NextHop, family: int, with_device: bool) -> Iterator[bytes]:
    if hop.gateway is not None:
        own = isinstance(hop.gateway, IPv4Address) == (family == AF_INET)
        gateway_family = AF_INET if isinstance(hop.gateway, IPv4Address) else AF_INET6
        via = _VIA_FAMILY.pack(gateway_family) + hop.gateway.packed
        yield attribute(RTA_GATEWAY, hop.gateway.packed) if own else attribute(RTA_VIA, via)
    if with_device:
        yield attribute_u32(RTA_OIF, hop.ifindex)
    if hop.encap is not None:
        type, payload = hop.encap
        yield attribute(RTA_ENCAP, payload)
        yield attribute_u16(RTA_ENCAP_TYPE, type)
