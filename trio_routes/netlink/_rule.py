"""Policy rules: RTM_NEWRULE and RTM_DELRULE (struct fib_rule_hdr, linux/fib_rules.h).

A rule is selectors, all of which must match a packet, and an action. Interfaces are selected by
name, not by number: a rule outlives its interface, and the kernel's DETACHED flags follow it
without a notification, as UNRESOLVED follows the target of a goto.
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
    address_size,
    attribute,
    attribute_string,
    attribute_u8,
    attribute_u16,
    attribute_u32,
    check_fixed_part,
)
from ._route import RT_TABLE_COMPAT

# Actions.
FR_ACT_UNSPEC: Final = 0
FR_ACT_TO_TBL: Final = 1
FR_ACT_GOTO: Final = 2
FR_ACT_NOP: Final = 3
FR_ACT_BLACKHOLE: Final = 6
FR_ACT_UNREACHABLE: Final = 7
FR_ACT_PROHIBIT: Final = 8

# Flags.
FIB_RULE_PERMANENT: Final = 0x1
FIB_RULE_INVERT: Final = 0x2
FIB_RULE_UNRESOLVED: Final = 0x4
FIB_RULE_IIF_DETACHED: Final = 0x8
FIB_RULE_OIF_DETACHED: Final = 0x10
FIB_RULE_FIND_SADDR: Final = 0x10000

RULE_HEADER: Final = struct.Struct("=BBBBBxxBI")
_PORTS = struct.Struct("=HH")
_UIDS = struct.Struct("=II")
_NONE = 0xFFFFFFFF  # of the suppressors: -1, off

_FRA_DST = 1
_FRA_SRC = 2
_FRA_IIFNAME = 3
_FRA_GOTO = 4
_FRA_PRIORITY = 6
_FRA_FWMARK = 10
_FRA_FLOW = 11
_FRA_TUN_ID = 12
_FRA_SUPPRESS_IFGROUP = 13
_FRA_SUPPRESS_PREFIXLEN = 14
_FRA_TABLE = 15
_FRA_FWMASK = 16
_FRA_OIFNAME = 17
_FRA_L3MDEV = 19
_FRA_UID_RANGE = 20
_FRA_PROTOCOL = 21
_FRA_IP_PROTO = 22
_FRA_SPORT_RANGE = 23
_FRA_DPORT_RANGE = 24
# Newer than many installed headers: Linux 6.13 (DSCP), 6.14 (flow label), 6.15 (masks).
_FRA_DSCP = 25
_FRA_FLOWLABEL = 26
_FRA_FLOWLABEL_MASK = 27
_FRA_SPORT_MASK = 28
_FRA_DPORT_MASK = 29
_FRA_DSCP_MASK = 30


@attrs.frozen(slots=True)
class RuleMessage:
    """One policy rule.

    Attributes:
      family: AF_INET or AF_INET6.
      priority: Rules are tried in ascending order; the local table's rule has 0.
      table: Where FR_ACT_TO_TBL looks, of 32 bits; with `l3mdev` the VRF's own table is taken instead.
      action: FR_ACT_*.
      source: The prefix's address as an integer, for `source_length` bits; 0 bits match everything.
      source_length: Bits.
      destination: As for `source`.
      destination_length: Bits.
      tos: The TOS byte selected; 0 is any.
      iif: Name of the incoming interface ("lo": sent by this host); "" is any.
      oif: Name of the outgoing interface, to which a socket is bound; "" is any.
      mark: Selects packets with ``packet's mark & mask == mark``; with a mask of 0, any.
      mask: See `mark`.
      invert: "not": the rule applies where its selectors do not match.
      flags: FIB_RULE_*, as received, the invert bit among them.
      suppress_prefixlength: A route of at most so many bits, found by this rule, is passed over; None: off.
      suppress_ifgroup: A route through an interface of this group is passed over; None: off.
      goto: Priority of the rule that FR_ACT_GOTO jumps to; 0 if none.
      ip_proto: IPPROTO_*; 0 is any.
      sport: ``(first, last)`` source port; None is any.
      dport: ``(first, last)`` destination port; None is any.
      sport_mask: Where given, ports match by mask instead of by range.
      dport_mask: As `sport_mask`.
      uid_range: ``(first, last)`` user id; None is any.
      l3mdev: Whether the table is that of the flow's VRF.
      tun_id: Tunnel id selected; 0 is any.
      protocol: RTPROT_*, who installed the rule.
      flow: The realms to set (IPv4); 0 if none.
      dscp: The DSCP selected, of 6 bits; None is any. It excludes `tos`.
      dscp_mask: Which bits of the DSCP count; None where the kernel tells none: all.
      flow_label: The IPv6 flow label selected; None is any.
      flow_label_mask: Which bits of it count; None as for `dscp_mask`.
    """

    family: int
    priority: int = 0
    table: int = 0
    action: int = FR_ACT_TO_TBL
    source: int = 0
    source_length: int = 0
    destination: int = 0
    destination_length: int = 0
    tos: int = 0
    iif: str = ""
    oif: str = ""
    mark: int = 0
    mask: int = 0
    invert: bool = False
    flags: int = 0
    suppress_prefixlength: int | None = None
    suppress_ifgroup: int | None = None
    goto: int = 0
    ip_proto: int = 0
    sport: tuple[int, int] | None = None
    dport: tuple[int, int] | None = None
    sport_mask: int | None = None
    dport_mask: int | None = None
    uid_range: tuple[int, int] | None = None
    l3mdev: bool = False
    tun_id: int = 0
    protocol: int = 0
    flow: int = 0
    dscp: int | None = None
    dscp_mask: int | None = None
    flow_label: int | None = None
    flow_label_mask: int | None = None


def decode_rule(data: Buffer, start: int, end: int) -> RuleMessage:
    """Decode the payload ``data[start:end]`` of a rule message.

    Raises:
      NetlinkDecodeError: The framing is broken, an address has a wrong length, or a prefix is longer than an address.
    """
    attributes = check_fixed_part(data, start, end, RULE_HEADER.size, "a rule")
    family, destination_length, source_length, tos, table, action, flags = RULE_HEADER.unpack_from(data, start)
    # Families other than IP (multicast routing, 128 and 129) have rules too, with the same kinds of address.
    bits = 8 * address_size(family) or 128
    if max(destination_length, source_length) > bits:
        raise NetlinkDecodeError(f"a prefix of {max(destination_length, source_length)} bits", start)
    found = Attributes(data, attributes, end)
    return RuleMessage(
        family=family,
        priority=found.u32(_FRA_PRIORITY),
        table=found.u32(_FRA_TABLE, table),
        action=action,
        source=_address(found, _FRA_SRC, family),
        source_length=source_length,
        destination=_address(found, _FRA_DST, family),
        destination_length=destination_length,
        tos=tos,
        iif=found.string(_FRA_IIFNAME),
        oif=found.string(_FRA_OIFNAME),
        mark=found.u32(_FRA_FWMARK),
        # A mark without a mask means all of its bits (fib_nl2rule).
        mask=found.u32(_FRA_FWMASK, _NONE if _FRA_FWMARK in found else 0),
        invert=bool(flags & FIB_RULE_INVERT),
        flags=flags,
        suppress_prefixlength=_suppressor(found, _FRA_SUPPRESS_PREFIXLEN),
        suppress_ifgroup=_suppressor(found, _FRA_SUPPRESS_IFGROUP),
        goto=found.u32(_FRA_GOTO),
        ip_proto=found.u8(_FRA_IP_PROTO),
        sport=_range(data, found, _FRA_SPORT_RANGE, _PORTS),
        dport=_range(data, found, _FRA_DPORT_RANGE, _PORTS),
        sport_mask=found.u16(_FRA_SPORT_MASK) if _FRA_SPORT_MASK in found else None,
        dport_mask=found.u16(_FRA_DPORT_MASK) if _FRA_DPORT_MASK in found else None,
        uid_range=_range(data, found, _FRA_UID_RANGE, _UIDS),
        l3mdev=bool(found.u8(_FRA_L3MDEV)),
        tun_id=found.big_endian(_FRA_TUN_ID, 8),
        protocol=found.u8(_FRA_PROTOCOL),
        flow=found.u32(_FRA_FLOW),
        dscp=found.u8(_FRA_DSCP) if _FRA_DSCP in found else None,
        dscp_mask=found.u8(_FRA_DSCP_MASK) if _FRA_DSCP_MASK in found else None,
        flow_label=found.big_endian(_FRA_FLOWLABEL, 4) if _FRA_FLOWLABEL in found else None,
        flow_label_mask=found.big_endian(_FRA_FLOWLABEL_MASK, 4) if _FRA_FLOWLABEL_MASK in found else None,
    )


def _address(found: Attributes, type: int, family: int) -> int:
    address = found.address(type, family)
    return 0 if address is None else int(address)


def _suppressor(found: Attributes, type: int) -> int | None:
    value = found.u32(type, _NONE)
    return None if value == _NONE else value


def _range(data: Buffer, found: Attributes, type: int, kind: struct.Struct) -> tuple[int, int] | None:
    span = found.span(type)
    if span is None:
        return None
    start, end = span
    if end - start < kind.size:
        raise NetlinkDecodeError("a range is cut off", start)
    first, last = kind.unpack_from(data, start)
    return first, last


def encode_rule(message: RuleMessage) -> bytes:
    """Return the payload of a rule message, its attributes in the kernel's own order (fib_nl_fill_rule).

    `RuleMessage.invert` is what counts, not the bit in its flags.
    """
    flags = message.flags & ~FIB_RULE_INVERT | (FIB_RULE_INVERT if message.invert else 0)
    header = RULE_HEADER.pack(
        message.family,
        message.destination_length,
        message.source_length,
        message.tos,
        message.table if message.table < 256 else RT_TABLE_COMPAT,
        message.action,
        flags,
    )
    return header + b"".join((*_encode_common(message), *_encode_ranges(message), *_encode_of_family(message)))


def _encode_common(message: RuleMessage) -> Iterator[bytes]:
    yield attribute_u32(_FRA_TABLE, message.table)
    suppress = message.suppress_prefixlength
    yield attribute_u32(_FRA_SUPPRESS_PREFIXLEN, _NONE if suppress is None else suppress)
    yield attribute_u8(_FRA_PROTOCOL, message.protocol)
    if message.iif:
        yield attribute_string(_FRA_IIFNAME, message.iif)
    if message.oif:
        yield attribute_string(_FRA_OIFNAME, message.oif)
    if message.priority:
        yield attribute_u32(_FRA_PRIORITY, message.priority)
    if message.mark:
        yield attribute_u32(_FRA_FWMARK, message.mark)
    if message.mark or message.mask:
        yield attribute_u32(_FRA_FWMASK, message.mask)
    if message.goto:
        yield attribute_u32(_FRA_GOTO, message.goto)
    if message.tun_id:
        yield attribute(_FRA_TUN_ID, message.tun_id.to_bytes(8, "big"))
    if message.l3mdev:
        yield attribute_u8(_FRA_L3MDEV, 1)


def _encode_ranges(message: RuleMessage) -> Iterator[bytes]:
    if message.uid_range is not None:
        yield attribute(_FRA_UID_RANGE, _UIDS.pack(*message.uid_range))
    if message.sport is not None:
        yield attribute(_FRA_SPORT_RANGE, _PORTS.pack(*message.sport))
    if message.sport_mask is not None:
        yield attribute_u16(_FRA_SPORT_MASK, message.sport_mask)
    if message.dport is not None:
        yield attribute(_FRA_DPORT_RANGE, _PORTS.pack(*message.dport))
    if message.dport_mask is not None:
        yield attribute_u16(_FRA_DPORT_MASK, message.dport_mask)
    if message.ip_proto:
        yield attribute_u8(_FRA_IP_PROTO, message.ip_proto)
    if message.suppress_ifgroup is not None:
        yield attribute_u32(_FRA_SUPPRESS_IFGROUP, message.suppress_ifgroup)


def _encode_of_family(message: RuleMessage) -> Iterator[bytes]:
    if message.dscp is not None:
        yield attribute_u8(_FRA_DSCP, message.dscp)
    if message.dscp_mask is not None:
        yield attribute_u8(_FRA_DSCP_MASK, message.dscp_mask)
    if message.flow_label is not None:
        yield attribute(_FRA_FLOWLABEL, message.flow_label.to_bytes(4, "big"))
    if message.flow_label_mask is not None:
        yield attribute(_FRA_FLOWLABEL_MASK, message.flow_label_mask.to_bytes(4, "big"))
    size = address_size(message.family) or 16
    if message.destination_length:
        yield attribute(_FRA_DST, message.destination.to_bytes(size, "big"))
    if message.source_length:
        yield attribute(_FRA_SRC, message.source.to_bytes(size, "big"))
    if message.flow:
        yield attribute_u32(_FRA_FLOW, message.flow)
