"""Every message family: any bytes, cut and damaged real bytes, and there and back again."""

from __future__ import annotations

import struct
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address

import attrs
import pytest
from hypothesis import given, settings, strategies as st

from tests.netlink.recording import ALL_DATAGRAMS, CODECS, DATAGRAMS, MESSAGES, Codec, damaged, recorded
from trio_routes._errors import NetlinkDecodeError
from trio_routes.netlink import (
    AF_BRIDGE,
    AF_INET,
    AF_INET6,
    FR_ACT_GOTO,
    FR_ACT_NOP,
    NETCONFA_IFINDEX_ALL,
    RT_TABLE_LOCAL,
    RTNH_F_LINKDOWN,
    RTNH_F_ONLINK,
    AddressMessage,
    Header,
    IPAddress,
    LinkMessage,
    MessageType,
    NeighbourMessage,
    NetconfMessage,
    NextHop,
    NexthopMessage,
    RouteBody,
    RouteMessage,
    RuleMessage,
    attribute,
    attribute_u32,
    decode_address,
    decode_link,
    decode_neighbour,
    decode_netconf,
    decode_nexthop,
    decode_route,
    decode_rule,
    encode_address,
    encode_link,
    encode_neighbour,
    encode_netconf,
    encode_nexthop,
    encode_route,
    encode_rule,
    iter_messages,
)

any_time = settings(deadline=None)
each_codec = pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.kind.name)


def decode_all(kind: MessageType, within: str) -> list[object]:
    (decode,) = [codec.decode for codec in CODECS if codec.kind is kind]
    return [decode(message.payload, 0, len(message.payload)) for message in recorded(kind, within)]


def offset_of_error(decode: Callable[[], object]) -> int:
    """Return where the bytes are broken, 0 where they are not; any other exception goes to the test."""
    try:
        decode()
    except NetlinkDecodeError as error:
        return error.offset
    return 0


# Any bytes end or raise.


@each_codec
@any_time
@given(data=st.data())
def test_any_bytes_are_a_message_or_an_error(codec: Codec, data: st.DataObject) -> None:
    originals = [message.payload for message in recorded(codec.kind)]
    payload = data.draw(st.binary(max_size=120) | damaged(originals))
    assert 0 <= offset_of_error(lambda: codec.decode(payload, 0, len(payload))) <= len(payload)


@each_codec
@any_time
@given(payload=st.binary(max_size=40), start=st.integers(-3, 50), end=st.integers(-3, 50))
def test_bounds_outside_the_buffer_are_an_error(codec: Codec, payload: bytes, start: int, end: int) -> None:
    try:
        codec.decode(payload, start, end)
    except NetlinkDecodeError:
        return
    assert 0 <= start <= end <= len(payload)


@each_codec
def test_no_message_is_read_from_before_or_behind_the_buffer(codec: Codec) -> None:
    for message in recorded(codec.kind):
        size = len(message.payload)
        for start, end in (
            (-size, size),
            (-4, size),
            (-4, 0),
            (0, size + 1),
            (4, 2),
            (size, size),
            (size + 4, size + 4),
        ):
            with pytest.raises(NetlinkDecodeError):
                codec.decode(message.payload, start, end)


def hop(length: int, ifindex: int = 3) -> bytes:
    return struct.pack("=HBBi", length, 0, 0, ifindex)


V4_ROUTE = encode_route(RouteMessage(RouteBody(AF_INET, 254, 8), 10 << 24))
V6_ROUTE = encode_route(RouteMessage(RouteBody(AF_INET6, 254, 8), 0))
BROKEN = {
    "a next hop of length 0, which would never end": (decode_route, V4_ROUTE + attribute(9, hop(0)), "claims 0 bytes"),
    "a next hop shorter than its header": (decode_route, V4_ROUTE + attribute(9, hop(7)), "claims 7 bytes"),
    "a next hop past its end": (
        decode_route,
        V4_ROUTE + attribute(9, hop(12)) + attribute(99, b""),
        "claims 12 bytes of 8",
    ),
    "half a next hop": (decode_route, V4_ROUTE + attribute(9, hop(8) + bytes(4)), "too few for a next hop"),
    "RTA_VIA without an address": (decode_route, V4_ROUTE + attribute(18, b"\x0a\0"), "an address of 0 bytes"),
    "RTA_VIA without a family": (decode_route, V4_ROUTE + attribute(18, b"\x0a"), "RTA_VIA is cut off"),
    "RTA_CACHEINFO cut off": (decode_route, V6_ROUTE + attribute(12, bytes(31)), "RTA_CACHEINFO is cut off"),
    "a metric cut off": (decode_route, V4_ROUTE + attribute(8, attribute(2, b"\1")), "too short"),
    "an IPv6 destination of an IPv4 route": (
        decode_route,
        V4_ROUTE + attribute(1, bytes(16)),
        "an address of 16 bytes",
    ),
    "a port range cut off": (
        decode_rule,
        encode_rule(RuleMessage(AF_INET)) + attribute(23, bytes(2)),
        "range is cut off",
    ),
    "a uid range cut off": (
        decode_rule,
        encode_rule(RuleMessage(AF_INET)) + attribute(20, bytes(4)),
        "range is cut off",
    ),
    "a group with half a member": (
        decode_nexthop,
        encode_nexthop(NexthopMessage(1)) + attribute(2, bytes(12)),
        "last member is cut off",
    ),
    "an address message without an address": (decode_address, bytes([AF_INET]) + bytes(7), "without an address"),
    "IFA_CACHEINFO cut off": (
        decode_address,
        bytes([AF_INET]) + bytes(7) + attribute(1, bytes(4)) + attribute(6, bytes(15)),
        "IFA_CACHEINFO is cut off",
    ),
    "an address with more bits than it has": (
        decode_address,
        bytes([AF_INET, 33]) + bytes(6) + attribute(1, bytes(4)),
        "a prefix of 33 bits",
    ),
}


@pytest.mark.parametrize(("decode", "payload", "words"), BROKEN.values(), ids=BROKEN)
def test_what_is_broken_inside_an_attribute_is_an_error(
    decode: Callable[[bytes, int, int], object], payload: bytes, words: str
) -> None:
    with pytest.raises(NetlinkDecodeError, match=words) as caught:
        decode(payload, 0, len(payload))
    assert 0 <= caught.value.offset <= len(payload)


def test_a_mark_without_a_mask_means_all_its_bits() -> None:
    payload = encode_rule(RuleMessage(AF_INET)) + attribute_u32(10, 5)
    rule = decode_rule(payload, 0, len(payload))
    assert (rule.mark, rule.mask) == (5, 2**32 - 1)


def test_neighbours_of_other_families_may_have_other_addresses() -> None:
    header = encode_neighbour(NeighbourMessage(AF_BRIDGE, 3, None))
    payload = header + attribute(1, bytes(6))
    assert decode_neighbour(payload, 0, len(payload)).destination is None
    payload = header + attribute(1, bytes([192, 0, 2, 1]))
    assert decode_neighbour(payload, 0, len(payload)).destination == IPv4Address("192.0.2.1"), "a VXLAN's peer"


def test_routes_of_other_families_are_decoded_as_far_as_they_are_alike() -> None:
    multicast = b"\x80" + V4_ROUTE[1:]  # RTNL_FAMILY_IPMR: an answer to AF_UNSPEC brings such routes along
    message = decode_route(multicast, 0, len(multicast))
    assert (message.body.family, message.destination) == (128, 10 << 24)


@each_codec
def test_a_real_message_cut_off_anywhere_is_an_error_or_ends_between_attributes(codec: Codec) -> None:
    for message in recorded(codec.kind):
        payload = message.payload
        for end in range(len(payload)):
            try:
                codec.decode(payload, 0, end)
            except NetlinkDecodeError:
                continue
            # A length that only hides an attribute's padding, or whole attributes, breaks nothing.
            assert any(end <= boundary <= end + 3 for boundary in boundaries(codec, payload))


def boundaries(codec: Codec, payload: bytes) -> set[int]:
    """Return where the fixed part and each attribute end; a second, shorter reading of the lengths than iter_attributes."""
    offset = HEADER_SIZES[codec.kind]
    found = {offset}
    while offset < len(payload):
        length = int.from_bytes(payload[offset : offset + 2], "little")
        found.add(min(offset + (length + 3) // 4 * 4, len(payload)))
        offset += (length + 3) // 4 * 4
    return found


HEADER_SIZES = {
    MessageType.RTM_NEWLINK: 16,
    MessageType.RTM_NEWADDR: 8,
    MessageType.RTM_NEWROUTE: 12,
    MessageType.RTM_NEWNEIGH: 12,
    MessageType.RTM_NEWRULE: 12,
    MessageType.RTM_NEWNETCONF: 4,
    MessageType.RTM_NEWNEXTHOP: 8,
}


@pytest.mark.parametrize("name", DATAGRAMS)
def test_a_real_datagram_cut_off_anywhere_gives_its_first_messages_and_an_error(name: str) -> None:
    for data in DATAGRAMS[name]:
        whole = list(iter_messages(data))
        starts = {start - 16 for _, start, _ in whole} | {end for _, _, end in whole}
        for end in range(len(data)):
            seen: list[tuple[Header, int, int]] = []
            try:
                for span in iter_messages(data[:end]):
                    seen.append(span)  # noqa: PERF402  what came before the error is wanted
            except NetlinkDecodeError:
                assert end not in starts
            else:
                assert end in starts
            assert seen == [span for span in whole if span[2] <= end]


# There and back.


@pytest.mark.parametrize("name", ["routes-4", "rules-4", "rules-6", "netconf-4", "netconf-6", "answer-4-match"])
def test_what_the_kernel_sent_is_encoded_to_the_same_bytes(name: str) -> None:
    codecs = {codec.kind: codec for codec in CODECS}
    messages = [message for message in MESSAGES if message.name == name and message.header.type > MessageType.OVERRUN]
    assert messages
    for message in messages:
        assert codecs[MessageType(message.header.type)].encode_again(message.payload) == message.payload


def test_ipv6_routes_are_encoded_to_the_same_bytes_but_for_the_time_left() -> None:
    messages = recorded(MessageType.RTM_NEWROUTE, "routes-6")
    assert len(messages) > 40
    expiring = 0
    for message in messages:
        route = decode_route(message.payload, 0, len(message.payload))
        again = encode_route(route)
        if route.body.expires:
            expiring += 1
            at = len(again) - 40 + 8  # rta_expires, before the rest of the cacheinfo and RTA_PREF
            again = again[:at] + message.payload[at : at + 4] + again[at + 4 :]
        assert again == message.payload
    assert expiring == 2


@each_codec
def test_real_messages_survive_encoding(codec: Codec) -> None:
    messages = recorded(codec.kind)
    assert messages
    for message in messages:
        again = codec.encode_again(message.payload)
        assert codec.decode(again, 0, len(again)) == codec.decode(message.payload, 0, len(message.payload))


u8, u16, u32 = (st.integers(0, 2**bits - 1) for bits in (8, 16, 32))
names = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=15)
ipv4 = st.integers(0, 2**32 - 1).map(IPv4Address)
ipv6 = st.integers(0, 2**128 - 1).map(IPv6Address)


def addresses(family: int) -> st.SearchStrategy[IPAddress]:
    return st.one_of(ipv4) if family == AF_INET else st.one_of(ipv6)


def prefixes(family: int) -> st.SearchStrategy[tuple[int, int]]:
    """Return (address as an integer, bits); without bits there is no address."""
    bits = 32 if family == AF_INET else 128
    return st.just((0, 0)) | st.tuples(st.integers(0, 2**bits - 1), st.integers(1, bits))


encaps = st.none() | st.tuples(u16, st.binary(max_size=20))


@st.composite
def routes(draw: st.DrawFn) -> RouteMessage:
    family = draw(st.sampled_from([AF_INET, AF_INET6]))
    destination, prefix_length = draw(prefixes(family))
    source, source_length = draw(prefixes(family))
    multipath = draw(st.booleans())
    gateways = st.none() | ipv4 | ipv6
    if multipath:
        members = st.builds(NextHop, st.integers(0, 2**31 - 1), gateways, st.integers(1, 256), u8, encaps, u32)
        nexthops = tuple(draw(st.lists(members, min_size=1, max_size=3)))
    else:
        single = st.builds(NextHop, st.integers(1, 2**32 - 1), gateways, st.just(1), u8, encaps)
        nexthops = tuple(draw(st.lists(single, max_size=1)))
    metrics = st.one_of(
        st.tuples(st.integers(1, 15), u32), st.tuples(st.just(16), names), st.tuples(st.integers(17, 20), u32)
    )
    is_v6 = family == AF_INET6
    body = RouteBody(
        family=family,
        table=draw(u32),
        prefix_length=prefix_length,
        type=draw(u8),
        protocol=draw(u8),
        scope=draw(u8),
        flags=draw(u32) & (0xFFFFFF00 if nexthops and not multipath else 0xFFFFFFFF),
        priority=draw(u32),
        nexthops=nexthops,
        multipath=multipath,
        nexthop_id=draw(u32),
        prefsrc=draw(st.none() | addresses(family)),
        source=source,
        source_length=source_length,
        tos=draw(u8),
        metrics=tuple(draw(st.lists(metrics, max_size=4, unique_by=lambda metric: metric[0]))),
        preference=draw(u8) if is_v6 else 0,
        expires=draw(st.booleans()) if is_v6 else False,
        flow=draw(u32),
        iif=draw(u32),
        mark=draw(u32),
        uid=draw(st.none() | u32),
    )
    return RouteMessage(body, destination)


@any_time
@given(routes())
def test_routes_survive(message: RouteMessage) -> None:
    data = encode_route(message)
    assert decode_route(data, 0, len(data)) == message


@any_time
@given(
    st.builds(
        LinkMessage,
        ifindex=st.integers(-(2**31), 2**31 - 1),
        name=names,
        flags=u32,
        family=u8,
        change=u32,
        arp_type=u16,
        mtu=u32,
        master=u32,
        link=u32,
        link_netnsid=st.none() | st.integers(-(2**31), 2**31 - 1),
        kind=names,
        slave_kind=names,
        operstate=u8,
        address=st.binary(max_size=32),
        broadcast=st.binary(max_size=32),
        group=u32,
        alias=names,
        alternative_names=st.lists(names, max_size=3).map(tuple),
    )
)
def test_links_survive(message: LinkMessage) -> None:
    data = encode_link(message)
    assert decode_link(data, 0, len(data)) == message


def test_a_vrf_keeps_its_table() -> None:
    message = LinkMessage(9, "red", kind="vrf", vrf_table=70_000)
    data = encode_link(message)
    assert decode_link(data, 0, len(data)) == message


@st.composite
def address_messages(draw: st.DrawFn) -> AddressMessage:
    family = draw(st.sampled_from([AF_INET, AF_INET6]))
    address = draw(addresses(family))
    peer = draw(st.none() | addresses(family))
    return AddressMessage(
        family=family,
        ifindex=draw(u32),
        address=address,
        prefix_length=draw(st.integers(0, address.max_prefixlen)),
        flags=draw(u32),
        scope=draw(u8),
        peer=peer if peer != address else None,
        broadcast=draw(st.none() | addresses(family)),
        label=draw(names),
        preferred_lifetime=draw(st.none() | st.integers(0, 2**32 - 2)),
        valid_lifetime=draw(st.none() | st.integers(0, 2**32 - 2)),
        priority=draw(u32),
        protocol=draw(u8),
    )


@any_time
@given(address_messages())
def test_addresses_survive(message: AddressMessage) -> None:
    data = encode_address(message)
    assert decode_address(data, 0, len(data)) == message


@st.composite
def rules(draw: st.DrawFn) -> RuleMessage:
    family = draw(st.sampled_from([AF_INET, AF_INET6]))
    source, source_length = draw(prefixes(family))
    destination, destination_length = draw(prefixes(family))
    mark = draw(u32)
    invert = draw(st.booleans())
    ports = st.none() | st.tuples(u16, u16)
    suppressors = st.none() | st.integers(0, 2**32 - 2)
    return RuleMessage(
        family=family,
        priority=draw(u32),
        table=draw(u32),
        action=draw(u8),
        source=source,
        source_length=source_length,
        destination=destination,
        destination_length=destination_length,
        tos=draw(u8),
        iif=draw(names),
        oif=draw(names),
        mark=mark,
        mask=draw(u32),
        invert=invert,
        flags=draw(u32) & ~2 | (2 if invert else 0),
        suppress_prefixlength=draw(suppressors),
        suppress_ifgroup=draw(suppressors),
        goto=draw(u32),
        ip_proto=draw(u8),
        sport=draw(ports),
        dport=draw(ports),
        sport_mask=draw(st.none() | u16),
        dport_mask=draw(st.none() | u16),
        uid_range=draw(st.none() | st.tuples(u32, u32)),
        l3mdev=draw(st.booleans()),
        tun_id=draw(st.integers(0, 2**64 - 1)),
        protocol=draw(u8),
        flow=draw(u32),
        dscp=draw(st.none() | u8),
        dscp_mask=draw(st.none() | u8),
        flow_label=draw(st.none() | u32),
        flow_label_mask=draw(st.none() | u32),
    )


@any_time
@given(rules())
def test_rules_survive(message: RuleMessage) -> None:
    data = encode_rule(message)
    assert decode_rule(data, 0, len(data)) == message


@st.composite
def nexthops(draw: st.DrawFn) -> NexthopMessage:
    family = draw(st.sampled_from([AF_INET, AF_INET6]))
    members = st.tuples(u32, st.integers(1, 65536))
    group = tuple(draw(st.lists(members, max_size=3)))
    if group:
        return NexthopMessage(
            draw(u32), group=group, group_type=draw(u16), fdb=draw(st.booleans()), buckets=draw(u16), flags=draw(u32)
        )
    return NexthopMessage(
        id=draw(u32),
        family=family,
        scope=draw(u8),
        protocol=draw(u8),
        flags=draw(u32),
        ifindex=draw(u32),
        gateway=draw(st.none() | addresses(family)),
        blackhole=draw(st.booleans()),
        fdb=draw(st.booleans()),
        encap=draw(encaps),
    )


@any_time
@given(nexthops())
def test_nexthops_survive(message: NexthopMessage) -> None:
    data = encode_nexthop(message)
    assert decode_nexthop(data, 0, len(data)) == message


@any_time
@given(
    st.sampled_from([AF_INET, AF_INET6]).flatmap(
        lambda family: st.builds(
            NeighbourMessage,
            family=st.just(family),
            ifindex=st.integers(-(2**31), 2**31 - 1),
            destination=st.none() | addresses(family),
            state=u16,
            flags=u8,
            type=u8,
            lladdr=st.binary(max_size=32),
            protocol=u8,
        )
    )
)
def test_neighbours_survive(message: NeighbourMessage) -> None:
    data = encode_neighbour(message)
    assert decode_neighbour(data, 0, len(data)) == message


switch = st.none() | st.integers(-(2**31), 2**31 - 1)


@any_time
@given(st.builds(NetconfMessage, u8, st.integers(-(2**31), 2**31 - 1), *[switch] * 8))
def test_netconf_survives(message: NetconfMessage) -> None:
    data = encode_netconf(message)
    assert decode_netconf(data, 0, len(data)) == message


# What the kernel said of network.txt, read with the eye.


def test_the_recorded_ipv4_routes_say_what_was_configured() -> None:
    found = {
        (IPv4Address(route.destination), route.body.prefix_length, route.body.priority): route.body
        for route in decode_all(MessageType.RTM_NEWROUTE, "routes-4")
        if isinstance(route, RouteMessage) and route.body.table != RT_TABLE_LOCAL
    }
    via = IPv4Address("192.0.2.2")
    va, vc = (
        found[IPv4Address("10.0.0.0"), 8, 0].nexthops[0].ifindex,
        found[IPv4Address("198.51.100.0"), 24, 0].nexthops[0].ifindex,
    )
    assert found[IPv4Address("10.0.0.0"), 8, 0].nexthops == (NextHop(va, via),)
    assert found[IPv4Address("10.3.0.0"), 16, 0].nexthops == (
        NextHop(va, via, weight=3),
        NextHop(vc, IPv4Address("198.51.100.2")),
    )
    assert found[IPv4Address("10.4.0.0"), 16, 0].nexthops == (
        NextHop(va, via, flow=4),
        NextHop(vc, IPv6Address("2001:db8:2::2"), weight=200),
    )
    assert found[IPv4Address("10.5.0.0"), 16, 0].nexthops == (NextHop(va, IPv6Address("fe80::1")),)
    onlink = found[IPv4Address("10.6.0.0"), 16, 0]
    assert onlink.nexthops == (NextHop(vc, IPv4Address("203.0.113.1"), flags=RTNH_F_ONLINK),)
    assert (onlink.flags, onlink.flow) == (0, 3 << 16 | 5)
    # RTAX_LOCK (of rto_min, bit 13), MTU, ADVMSS, INITCWND, RTO_MIN in ms, QUICKACK, CC_ALGO.
    assert dict(onlink.metrics) == {1: 1 << 13, 2: 1300, 8: 1200, 11: 20, 13: 300, 15: 1, 16: "reno"}
    assert found[IPv4Address("10.7.0.0"), 16, 0].nexthops == ()
    assert [found[IPv4Address(f"10.7.{i}.0"), 24, priority].type for i, priority in ((1, 0), (2, 9), (3, 0))] == [
        6,
        8,
        9,
    ]
    assert found[IPv4Address("0.0.0.0"), 0, 50].table == 4_000_000_000
    assert found[IPv4Address("10.1.0.0"), 16, 100].prefsrc == IPv4Address("192.0.2.9")
    assert found[IPv4Address("10.2.0.0"), 16, 0].tos == 0x10
    assert found[IPv4Address("10.21.0.0"), 16, 0].nexthop_id == 10
    assert found[IPv4Address("10.21.0.0"), 16, 0].multipath
    encap = found[IPv4Address("10.11.0.0"), 16, 0].nexthops[0].encap
    assert encap is not None
    assert encap[0] == 2  # LWTUNNEL_ENCAP_IP


def test_the_recorded_ipv6_routes_say_what_was_configured() -> None:
    found = {
        (IPv6Address(route.destination), route.body.prefix_length): route.body
        for route in decode_all(MessageType.RTM_NEWROUTE, "routes-6")
        if isinstance(route, RouteMessage)
    }
    high = found[IPv6Address("2001:db8:31::"), 48]
    assert (high.priority, high.preference, high.prefsrc) == (5, 1, IPv6Address("2001:db8:1::1"))
    assert [hop.weight for hop in found[IPv6Address("2001:db8:32::"), 48].nexthops] == [4, 1]
    assert found[IPv6Address("2001:db8:33::"), 48].expires
    assert found[IPv6Address("2001:db8:34::"), 48].preference == 3
    sourced = found[IPv6Address("2001:db8:35::"), 48]
    assert (IPv6Address(sourced.source), sourced.source_length) == (IPv6Address("2001:db8:1::"), 64)
    # IPv6 rejects name the loopback device, unlike IPv4's.
    assert [found[IPv6Address(f"2001:db8:{i}::"), 48].type for i in (36, 37, 38, 39)] == [7, 6, 8, 9]
    assert len(found[IPv6Address("2001:db8:36::"), 48].nexthops) == 1
    assert found[IPv6Address("2001:db8:21::"), 48].nexthop_id == 11


def test_carrier_loss_is_a_flag_of_the_next_hop_and_not_of_the_route() -> None:
    payload = bytearray(encode_route(RouteMessage(RouteBody(AF_INET, 254, 8, nexthops=(NextHop(3),)), 10 << 24)))
    payload[8] |= RTNH_F_LINKDOWN
    body = decode_route(payload, 0, len(payload)).body
    assert (body.flags, body.nexthops[0].flags) == (0, RTNH_F_LINKDOWN)


def test_the_recorded_rules_say_what_was_configured() -> None:
    found = {
        rule.priority: rule for rule in decode_all(MessageType.RTM_NEWRULE, "rules-4") if isinstance(rule, RuleMessage)
    }
    assert (found[10].iif, found[10].oif, found[10].table) == ("va", "nonesuch", 100)
    assert (found[11].mark, found[11].mask, found[11].table) == (0x10, 0xF0, 1000)
    assert (found[12].mark, found[12].mask, found[12].action, found[12].goto) == (7, 2**32 - 1, FR_ACT_GOTO, 900)
    assert (found[14].uid_range, found[14].ip_proto, found[14].sport, found[14].dport) == (
        (0, 0),
        6,
        (1000, 2000),
        (443, 443),
    )
    assert (found[15].suppress_prefixlength, found[15].suppress_ifgroup) == (0, None)
    assert (found[16].suppress_prefixlength, found[16].suppress_ifgroup) == (None, 7)
    assert (found[17].tun_id, found[18].tos, found[900].action, found[1001].l3mdev) == (99, 0x10, FR_ACT_NOP, True)
    inverted = found[30]
    assert (inverted.invert, inverted.source, inverted.source_length) == (True, 10 << 24, 8)
    assert (inverted.destination, inverted.destination_length) == (int(IPv4Address("203.0.113.0")), 24)
    assert inverted.flow == 2 << 16 | 3
    assert (found[40].dscp, found[40].dscp_mask) == (44, 60)
    assert (found[41].sport, found[41].sport_mask) == ((8, 8), 0xFFF8)
    sixth = {
        rule.priority: rule for rule in decode_all(MessageType.RTM_NEWRULE, "rules-6") if isinstance(rule, RuleMessage)
    }
    assert (sixth[41].flow_label, sixth[41].flow_label_mask) == (0x12300, 0xFFF00)
    assert sixth[30].table == 4_000_000_000


def test_the_recorded_nexthop_objects_say_what_was_configured() -> None:
    found = {
        hop.id: hop for hop in decode_all(MessageType.RTM_NEWNEXTHOP, "nexthops") if isinstance(hop, NexthopMessage)
    }
    assert found[1].gateway == IPv4Address("192.0.2.2")
    assert found[3].blackhole
    assert found[4].gateway is None
    assert (found[5].gateway, found[5].flags) == (IPv6Address("2001:db8:1::2"), RTNH_F_ONLINK)
    assert found[7].encap is not None
    assert found[10].group == ((1, 1), (2, 255))
    assert found[13].group == ((1, 5), (2, 200))
    assert (found[12].group, found[12].group_type, found[12].buckets) == (((1, 7), (2, 3)), 1, 16)
    assert found[20].fdb
    assert found[21].fdb


def test_the_recorded_links_addresses_and_switches_say_what_was_configured() -> None:
    links = {link.name: link for link in decode_all(MessageType.RTM_NEWLINK, "links") if isinstance(link, LinkMessage)}
    va = links["va"]
    assert (va.kind, va.mtu, va.group, va.alias) == ("veth", 1400, 7, "first")
    assert va.alternative_names == ("first-way", "another")
    assert (va.link, links["vb"].link) == (links["vb"].ifindex, va.ifindex)
    assert (links["vd"].master, links["vd"].slave_kind) == (links["br0"].ifindex, "bridge")
    assert links["mv0"].kind == "macvlan"
    found = {
        str(a.address): a for a in decode_all(MessageType.RTM_NEWADDR, "addresses") if isinstance(a, AddressMessage)
    }
    assert found["10.9.0.1"].peer == IPv4Address("10.9.0.2")
    assert found["2001:db8:3::1"].peer == IPv6Address("2001:db8:3::2")
    assert found["192.0.2.1"].broadcast == IPv4Address("192.0.2.255")
    assert (found["192.0.2.9"].label, found["192.0.2.9"].flags & 1) == ("va:1", 1)
    aging = found["10.8.0.1"]
    assert aging.preferred_lifetime in range(1700, 1801), "seconds; the recording took some"
    assert (aging.priority, aging.flags & 0x200) == (77, 0x200)
    assert found["192.0.2.1"].valid_lifetime is None
    switches = [m for m in decode_all(MessageType.RTM_NEWNETCONF, "netconf-4") if isinstance(m, NetconfMessage)]
    (everywhere,) = [message for message in switches if message.ifindex == NETCONFA_IFINDEX_ALL]
    assert (everywhere.ignore_routes_with_linkdown, everywhere.input) == (0, None)


def test_a_prefix_longer_than_an_address_is_an_error() -> None:
    route = bytearray(encode_route(RouteMessage(RouteBody(AF_INET, 254, 8), 0)))
    rule = bytearray(encode_rule(RuleMessage(AF_INET)))
    route[1] = rule[1] = 33
    with pytest.raises(NetlinkDecodeError, match="a prefix of 33 bits"):
        decode_route(route, 0, len(route))
    with pytest.raises(NetlinkDecodeError, match="a prefix of 33 bits"):
        decode_rule(rule, 0, len(rule))


def test_messages_can_be_keys() -> None:
    one = RouteBody(AF_INET, 254, 8, nexthops=(NextHop(3, IPv4Address("192.0.2.1")),))
    assert hash(one) == hash(attrs.evolve(one))
    assert len({one, attrs.evolve(one), attrs.evolve(one, table=100)}) == 2


@any_time
@given(damaged(ALL_DATAGRAMS))
def test_a_whole_damaged_datagram_is_decoded_or_an_error(data: bytes) -> None:
    decoders = {codec.kind + delta: codec.decode for codec in CODECS for delta in (0, 1)}

    def decode() -> None:
        for header, start, end in iter_messages(data):
            if header.type in decoders:
                decoders[header.type](data, start, end)

    assert 0 <= offset_of_error(decode) <= len(data)
