"""Network interfaces: RTM_NEWLINK and RTM_DELLINK (struct ifinfomsg, linux/if_link.h).

Not every such message is about an interface's life: a bridge announces its ports with ifi_family
AF_BRIDGE, and there RTM_DELLINK says only that the port left the bridge; IPv6 announces its own
settings with AF_INET6. Hence `LinkMessage.family`: 0 is the interface itself.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final

import attrs

from ._attributes import (
    AF_UNSPEC,
    Attributes,
    Buffer,
    attribute,
    attribute_s32,
    attribute_string,
    attribute_u8,
    attribute_u32,
    check_fixed_part,
    iter_attributes,
)

# ifi_flags (linux/if.h).
IFF_UP: Final = 0x1
IFF_BROADCAST: Final = 0x2
IFF_LOOPBACK: Final = 0x8
IFF_POINTOPOINT: Final = 0x10
IFF_RUNNING: Final = 0x40
IFF_NOARP: Final = 0x80
IFF_PROMISC: Final = 0x100
IFF_ALLMULTI: Final = 0x200
IFF_MASTER: Final = 0x400
IFF_SLAVE: Final = 0x800
IFF_MULTICAST: Final = 0x1000
IFF_LOWER_UP: Final = 0x10000
IFF_DORMANT: Final = 0x20000

# Operational states (RFC 2863, linux/if.h).
IF_OPER_UNKNOWN: Final = 0
IF_OPER_NOTPRESENT: Final = 1
IF_OPER_DOWN: Final = 2
IF_OPER_LOWERLAYERDOWN: Final = 3
IF_OPER_TESTING: Final = 4
IF_OPER_DORMANT: Final = 5
IF_OPER_UP: Final = 6

ARPHRD_ETHER: Final = 1
ARPHRD_LOOPBACK: Final = 772

LINK_HEADER: Final = struct.Struct("=BxHiII")

_IFLA_ADDRESS = 1
_IFLA_BROADCAST = 2
_IFLA_IFNAME = 3
_IFLA_MTU = 4
_IFLA_LINK = 5
_IFLA_MASTER = 10
_IFLA_OPERSTATE = 16
_IFLA_LINKINFO = 18
_IFLA_IFALIAS = 20
_IFLA_GROUP = 27
IFLA_EXT_MASK: Final = 29  # in requests: what to leave out
_IFLA_LINK_NETNSID = 37
_IFLA_PROP_LIST = 52
_IFLA_ALT_IFNAME = 53
_IFLA_INFO_KIND = 1
_IFLA_INFO_DATA = 2
_IFLA_INFO_SLAVE_KIND = 4
_IFLA_VRF_TABLE = 1


@attrs.frozen(slots=True)
class LinkMessage:
    """One network interface.

    Attributes:
      ifindex: Its number.
      name: Its name; "" in messages that carry none.
      flags: IFF_*. Carrier is IFF_LOWER_UP; IFF_RUNNING says that the operational state is up (or unknown).
      family: 0; AF_BRIDGE or AF_INET6 in messages that are not about the interface itself.
      change: Which flags the kernel says have changed; often all ones.
      arp_type: ARPHRD_*, the kind of hardware.
      mtu: Bytes; 0 if not told.
      master: The ifindex of the bridge, bond or VRF that it belongs to; 0 if none.
      link: The ifindex of the interface beneath it, or of its peer (IFLA_LINK), which may be in another
        network namespace (then `link_netnsid` is set); 0 if none.
      link_netnsid: The id of the namespace that `link` counts in, if another; else None.
      kind: "veth", "bridge", "vrf", "wireguard" ... (IFLA_INFO_KIND); "" for hardware.
      slave_kind: Its master's kind, if it has one; "".
      operstate: IF_OPER_*.
      address: Hardware address; its length depends on arp_type.
      broadcast: Hardware broadcast address, or the far end of a tunnel.
      group: Device group, for rules with suppress_ifgroup.
      alias: Free text of the administrator.
      alternative_names: Other names (`ip link property add altname`).
      vrf_table: The table of a VRF; 0 for other kinds.
    """

    ifindex: int
    name: str = ""
    flags: int = 0
    family: int = AF_UNSPEC
    change: int = 0
    arp_type: int = ARPHRD_ETHER
    mtu: int = 0
    master: int = 0
    link: int = 0
    link_netnsid: int | None = None
    kind: str = ""
    slave_kind: str = ""
    operstate: int = IF_OPER_UNKNOWN
    address: bytes = b""
    broadcast: bytes = b""
    group: int = 0
    alias: str = ""
    alternative_names: tuple[str, ...] = ()
    vrf_table: int = 0


def decode_link(data: Buffer, start: int, end: int) -> LinkMessage:
    """Decode the payload ``data[start:end]`` of a link message.

    Raises:
      NetlinkDecodeError: The framing is broken, or a value too short.
    """
    attributes = check_fixed_part(data, start, end, LINK_HEADER.size, "a link")
    family, arp_type, ifindex, flags, change = LINK_HEADER.unpack_from(data, start)
    found = Attributes(data, attributes, end)
    # In a bridge's message IFLA_LINKINFO and IFLA_AF_SPEC mean other things, or are absent.
    info = found.nested(_IFLA_LINKINFO)
    kind = info.string(_IFLA_INFO_KIND)
    return LinkMessage(
        ifindex=ifindex,
        name=found.string(_IFLA_IFNAME),
        flags=flags,
        family=family,
        change=change,
        arp_type=arp_type,
        mtu=found.u32(_IFLA_MTU),
        master=found.u32(_IFLA_MASTER),
        link=found.u32(_IFLA_LINK),
        link_netnsid=found.s32(_IFLA_LINK_NETNSID) if _IFLA_LINK_NETNSID in found else None,
        kind=kind,
        slave_kind=info.string(_IFLA_INFO_SLAVE_KIND),
        operstate=found.u8(_IFLA_OPERSTATE),
        address=found.raw(_IFLA_ADDRESS),
        broadcast=found.raw(_IFLA_BROADCAST),
        group=found.u32(_IFLA_GROUP),
        alias=found.string(_IFLA_IFALIAS),
        alternative_names=tuple(_decode_alternative_names(data, found)),
        vrf_table=info.nested(_IFLA_INFO_DATA).u32(_IFLA_VRF_TABLE) if kind == "vrf" else 0,
    )


def _decode_alternative_names(data: Buffer, found: Attributes) -> Iterator[str]:
    span = found.span(_IFLA_PROP_LIST)
    if span is None:
        return
    # The one list in which a type occurs more than once.
    for type, start, end in iter_attributes(data, *span):
        if type == _IFLA_ALT_IFNAME:
            yield bytes(data[start:end]).split(b"\0", 1)[0].decode("utf-8", "surrogateescape")


def encode_link(message: LinkMessage) -> bytes:
    """Return the payload of a link message: what `decode_link` reads, without the kernel's many other attributes."""
    header = LINK_HEADER.pack(message.family, message.arp_type, message.ifindex, message.flags, message.change)
    return header + b"".join(_encode_attributes(message))


def _encode_attributes(message: LinkMessage) -> Iterator[bytes]:
    if message.name:
        yield attribute_string(_IFLA_IFNAME, message.name)
    yield attribute_u8(_IFLA_OPERSTATE, message.operstate)
    numbers = (
        (_IFLA_MTU, message.mtu),
        (_IFLA_GROUP, message.group),
        (_IFLA_MASTER, message.master),
        (_IFLA_LINK, message.link),
    )
    for type, number in numbers:
        if number:
            yield attribute_u32(type, number)
    if message.link_netnsid is not None:
        yield attribute_s32(_IFLA_LINK_NETNSID, message.link_netnsid)
    for type, octets in ((_IFLA_ADDRESS, message.address), (_IFLA_BROADCAST, message.broadcast)):
        if octets:
            yield attribute(type, octets)
    if message.alias:
        yield attribute_string(_IFLA_IFALIAS, message.alias)
    info = b"".join(_encode_info(message))
    if info:
        yield attribute(_IFLA_LINKINFO, info)
    names = b"".join(attribute_string(_IFLA_ALT_IFNAME, name) for name in message.alternative_names)
    if names:
        yield attribute(_IFLA_PROP_LIST, names)


def _encode_info(message: LinkMessage) -> Iterator[bytes]:
    if message.kind:
        yield attribute_string(_IFLA_INFO_KIND, message.kind)
    if message.vrf_table:
        yield attribute(_IFLA_INFO_DATA, attribute_u32(_IFLA_VRF_TABLE, message.vrf_table))
    if message.slave_kind:
        yield attribute_string(_IFLA_INFO_SLAVE_KIND, message.slave_kind)
