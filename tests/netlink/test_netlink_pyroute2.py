"""pyroute2 as a second opinion: the same bytes, decoded by other hands, field by field."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Protocol, cast

import pytest
from pyroute2.netlink.rtnl.fibmsg import fibmsg  # type: ignore[import-untyped]  # pyroute2 has no types
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg  # type: ignore[import-untyped]  # likewise
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg  # type: ignore[import-untyped]  # likewise
from pyroute2.netlink.rtnl.ndmsg import ndmsg  # type: ignore[import-untyped]  # likewise
from pyroute2.netlink.rtnl.rtmsg import rtmsg  # type: ignore[import-untyped]  # likewise

from tests.netlink.recording import Recorded, recorded
from trio_routes.netlink import (
    AF_INET,
    AF_INET6,
    MessageType,
    NextHop,
    decode_address,
    decode_link,
    decode_neighbour,
    decode_route,
    decode_rule,
)


class Message(Protocol):
    """As much of a pyroute2 message as is used here."""

    def __getitem__(self, key: str) -> object: ...

    def get_attr(self, name: str, default: object = None) -> object: ...

    def decode(self) -> None: ...


def theirs(kind: type, message: Recorded) -> Message:
    decoded = cast(Message, kind(message.whole))
    decoded.decode()
    return decoded


def number(message: Message, name: str) -> int:
    value = message.get_attr(name, 0)
    assert isinstance(value, int)
    return value


def address(text: object) -> IPv4Address | IPv6Address | None:
    return None if text is None else ip_address(str(text))


def ids(message: Recorded) -> str:
    return f"{message.name}-{message.header.type}"


@pytest.mark.parametrize("message", recorded(MessageType.RTM_NEWROUTE), ids=ids)
def test_routes_agree(message: Recorded) -> None:
    ours = decode_route(message.payload, 0, len(message.payload))
    other = theirs(rtmsg, message)
    body = ours.body
    # pyroute2 0.9 knows neither RTA_NH_ID nor RTA_UID; what was configured is compared elsewhere.
    assert body.family == other["family"]
    assert body.prefix_length == other["dst_len"]
    assert body.source_length == other["src_len"]
    assert body.tos == other["tos"]
    assert body.protocol == other["proto"]
    assert body.scope == other["scope"]
    assert body.type == other["type"]
    assert body.table == number(other, "RTA_TABLE")
    assert body.priority == number(other, "RTA_PRIORITY")
    assert body.flow == number(other, "RTA_FLOW")
    assert body.mark == number(other, "RTA_MARK")
    assert body.preference == number(other, "RTA_PREF")
    assert body.prefsrc == address(other.get_attr("RTA_PREFSRC"))
    zero = "0.0.0.0" if body.family == AF_INET else "::"
    assert ours.destination == int(ip_address(str(other.get_attr("RTA_DST") or zero)))
    assert body.source == int(ip_address(str(other.get_attr("RTA_SRC") or zero)))
    cacheinfo = cast("Mapping[str, int]", other.get_attr("RTA_CACHEINFO") or {"rta_expires": 0})
    assert body.expires == bool(cacheinfo["rta_expires"])
    several = cast("list[Message] | None", other.get_attr("RTA_MULTIPATH"))
    assert body.multipath == (several is not None)
    if several is None:
        low = body.nexthops[0].flags if body.nexthops else 0
        assert body.flags | low == other["flags"]
        assert_same_hop(body.nexthops[0] if body.nexthops else NextHop(0), other, number(other, "RTA_OIF"))
    else:
        assert len(body.nexthops) == len(several)
        for hop, member in zip(body.nexthops, several, strict=True):
            assert hop.weight == cast(int, member["hops"]) + 1
            assert hop.flags == member["flags"]
            assert hop.flow == number(member, "RTA_FLOW")
            assert_same_hop(hop, member, cast(int, member["oif"]))
    assert_same_metrics(dict(body.metrics), other)


def assert_same_hop(hop: NextHop, other: Message, ifindex: int) -> None:
    assert hop.ifindex == ifindex
    via = cast("Mapping[str, str] | None", other.get_attr("RTA_VIA"))
    assert hop.gateway == address(via["addr"] if via is not None else other.get_attr("RTA_GATEWAY"))
    assert (hop.encap[0] if hop.encap else None) == other.get_attr("RTA_ENCAP_TYPE")


RTAX = {1: "LOCK", 2: "MTU", 8: "ADVMSS", 11: "INITCWND", 13: "RTO_MIN", 15: "QUICKACK"}


def assert_same_metrics(ours: dict[int, int | str], other: Message) -> None:
    metrics = cast("Message | None", other.get_attr("RTA_METRICS"))
    assert bool(ours) == (metrics is not None)
    if metrics is not None:
        named = {RTAX[kind]: value for kind, value in ours.items() if kind != 16}
        assert {name: number(metrics, f"RTAX_{name}") for name in named} == named
        assert len(cast("list[object]", metrics["attrs"])) == len(ours)


@pytest.mark.parametrize("message", recorded(MessageType.RTM_NEWLINK), ids=ids)
def test_links_agree(message: Recorded) -> None:
    ours = decode_link(message.payload, 0, len(message.payload))
    other = theirs(ifinfmsg, message)
    assert (ours.family, ours.ifindex, ours.arp_type) == (other["family"], other["index"], other["ifi_type"])
    assert (ours.flags, ours.change) == (other["flags"], other["change"])
    assert ours.name == other.get_attr("IFLA_IFNAME")
    assert ours.mtu == number(other, "IFLA_MTU")
    assert ours.master == number(other, "IFLA_MASTER")
    assert ours.link == number(other, "IFLA_LINK")
    assert ours.group == number(other, "IFLA_GROUP")
    assert ours.link_netnsid == other.get_attr("IFLA_LINK_NETNSID")
    assert ours.alias == (other.get_attr("IFLA_IFALIAS") or "")
    assert ours.address.hex(":") == (other.get_attr("IFLA_ADDRESS") or "")
    assert ours.broadcast.hex(":") == (other.get_attr("IFLA_BROADCAST") or "")
    info = cast("Message | None", other.get_attr("IFLA_LINKINFO"))
    assert ours.kind == ((info.get_attr("IFLA_INFO_KIND") if info else None) or "")
    assert ours.slave_kind == ((info.get_attr("IFLA_INFO_SLAVE_KIND") if info else None) or "")
    states = ("UNKNOWN", "NOTPRESENT", "DOWN", "LOWERLAYERDOWN", "TESTING", "DORMANT", "UP")
    assert states[ours.operstate] == (other.get_attr("IFLA_OPERSTATE") or "UNKNOWN")


@pytest.mark.parametrize("message", recorded(MessageType.RTM_NEWADDR), ids=ids)
def test_addresses_agree(message: Recorded) -> None:
    ours = decode_address(message.payload, 0, len(message.payload))
    other = theirs(ifaddrmsg, message)
    assert (ours.family, ours.ifindex) == (other["family"], other["index"])
    assert (ours.prefix_length, ours.scope) == (other["prefixlen"], other["scope"])
    assert ours.flags == number(other, "IFA_FLAGS")
    named, local = address(other.get_attr("IFA_ADDRESS")), address(other.get_attr("IFA_LOCAL"))
    assert ours.address == (local or named)
    assert ours.peer == (named if local not in (None, named) else None)
    assert ours.broadcast == address(other.get_attr("IFA_BROADCAST"))
    assert ours.label == (other.get_attr("IFA_LABEL") or "")
    assert ours.priority == number(other, "IFA_RT_PRIORITY")
    cacheinfo = cast("Mapping[str, int]", other.get_attr("IFA_CACHEINFO"))
    lifetimes = [
        None if seconds == 2**32 - 1 else seconds for seconds in (cacheinfo["ifa_preferred"], cacheinfo["ifa_valid"])
    ]
    assert [ours.preferred_lifetime, ours.valid_lifetime] == lifetimes


@pytest.mark.parametrize("message", recorded(MessageType.RTM_NEWNEIGH), ids=ids)
def test_neighbours_agree(message: Recorded) -> None:
    ours = decode_neighbour(message.payload, 0, len(message.payload))
    other = theirs(ndmsg, message)
    assert (ours.family, ours.ifindex, ours.state) == (other["family"], other["ifindex"], other["state"])
    assert (ours.flags, ours.type) == (other["flags"], other["ndm_type"])
    if ours.family in (AF_INET, AF_INET6):
        assert ours.destination == address(other.get_attr("NDA_DST"))
    assert ours.lladdr.hex(":") == (other.get_attr("NDA_LLADDR") or "")


@pytest.mark.parametrize("message", recorded(MessageType.RTM_NEWRULE), ids=ids)
def test_rules_agree(message: Recorded) -> None:
    ours = decode_rule(message.payload, 0, len(message.payload))
    other = theirs(fibmsg, message)
    assert (ours.family, ours.action, ours.flags) == (other["family"], other["action"], other["flags"])
    assert (ours.source_length, ours.destination_length, ours.tos) == (other["src_len"], other["dst_len"], other["tos"])
    assert ours.invert == bool(cast(int, other["flags"]) & 2)
    assert ours.priority == number(other, "FRA_PRIORITY")
    assert ours.table == number(other, "FRA_TABLE")
    assert ours.mark == number(other, "FRA_FWMARK")
    assert ours.mask == number(other, "FRA_FWMASK")
    assert ours.goto == number(other, "FRA_GOTO")
    assert ours.flow == number(other, "FRA_FLOW")
    assert ours.protocol == number(other, "FRA_PROTOCOL")
    assert ours.ip_proto == number(other, "FRA_IP_PROTO")
    assert ours.l3mdev == bool(number(other, "FRA_L3MDEV"))
    assert ours.tun_id == number(other, "FRA_TUN_ID")
    assert (ours.iif, ours.oif) == (other.get_attr("FRA_IIFNAME") or "", other.get_attr("FRA_OIFNAME") or "")
    assert ours.source == int(ip_address(str(other.get_attr("FRA_SRC") or "0.0.0.0")))
    assert ours.destination == int(ip_address(str(other.get_attr("FRA_DST") or "0.0.0.0")))
    for mine, name in ((ours.suppress_prefixlength, "PREFIXLEN"), (ours.suppress_ifgroup, "IFGROUP")):
        assert (2**32 - 1 if mine is None else mine) == cast(int, other.get_attr(f"FRA_SUPPRESS_{name}", -1)) % 2**32
    for pair, name in ((ours.uid_range, "UID_RANGE"), (ours.sport, "SPORT_RANGE"), (ours.dport, "DPORT_RANGE")):
        assert pair == their_range(other.get_attr(f"FRA_{name}"))


def their_range(value: object) -> tuple[int, int] | None:
    if value is None:
        return None
    if isinstance(value, str):
        first, last = value.split(":")
        return int(first), int(last)
    bounds = cast("Mapping[str, int]", value)
    return bounds["start"], bounds["end"]
