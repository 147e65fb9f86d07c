"""The decoder of the hot path gives what the ordinary walk gives, and one object for equal bodies."""

from __future__ import annotations

import gc
import itertools
import weakref
from collections.abc import Callable, Iterable
from ipaddress import IPv4Address, IPv6Address
from typing import TypeAlias

import pytest
from hypothesis import given, settings, strategies as st

from tests.netlink.recording import DATAGRAMS, MESSAGES, damaged, recorded
from trio_routes._errors import NetlinkDecodeError
from trio_routes.netlink import (
    AF_INET,
    AF_INET6,
    NLM_F_DUMP_INTR,
    NLM_F_MULTI,
    MessageType,
    NextHop,
    RouteBatch,
    RouteBody,
    RouteDecoder,
    RouteMessage,
    attribute,
    build_message,
    decode_route,
    encode_done,
    encode_route,
    iter_messages,
)
from trio_routes.netlink._route_decoder import _A_ROW

any_time = settings(deadline=None)
ROUTES = [message.payload for message in recorded(MessageType.RTM_NEWROUTE)]
ROUTE_DATAGRAMS = [data for name in ("routes-4", "routes-6", "changes") for data in DATAGRAMS[name]]


def walk(payload: bytes) -> tuple[int, RouteBody] | None:
    """Return what the ordinary walk makes of a payload, None for an error."""
    try:
        message = decode_route(payload, 0, len(payload))
    except NetlinkDecodeError:
        return None
    return message.destination, message.body


def fast(decoder: RouteDecoder, payload: bytes) -> tuple[int, RouteBody] | None:
    try:
        return decoder.decode(payload, 0, len(payload))
    except NetlinkDecodeError:
        return None


def routes_of(batch: RouteBatch) -> list[tuple[int, RouteBody]]:
    """Write a batch's runs out, route by route."""
    return [(destination, body) for body, destinations in batch.runs for destination in destinations]


# What is kept of the order of routes: that of the same prefix, of any source.
Prefix: TypeAlias = tuple[int, int, int, int]


def by_prefix(routes: Iterable[tuple[int, RouteBody]]) -> dict[Prefix, list[RouteBody]]:
    found: dict[Prefix, list[RouteBody]] = {}
    for destination, body in routes:
        found.setdefault((body.family, body.table, body.prefix_length, destination), []).append(body)
    return found


def written_out(batch: RouteBatch) -> tuple[dict[Prefix, list[RouteBody]], int, int]:
    assert batch.messages == len(routes_of(batch))
    return by_prefix(routes_of(batch)), batch.end, batch.flags


def walk_datagram(data: bytes) -> tuple[dict[Prefix, list[RouteBody]], int, int]:
    """Do slowly what decode_many promises."""
    routes: list[tuple[int, RouteBody]] = []
    flags, first = 0, None
    for header, start, end in iter_messages(data):
        first = first or (header.sequence, header.port)
        if header.type != MessageType.RTM_NEWROUTE or (header.sequence, header.port) != first:
            return by_prefix(routes), start - 16, flags
        message = decode_route(data, start, end)
        routes.append((message.destination, message.body))
        flags |= header.flags
    return by_prefix(routes), len(data), flags


def route(destination: int = 10 << 24, **changes: int) -> bytes:
    body = RouteBody(AF_INET, 254, 8, priority=changes.get("priority", 0), nexthops=(NextHop(3),))
    return encode_route(RouteMessage(body, destination))


def test_real_routes_are_decoded_alike_the_first_time_and_the_second() -> None:
    decoder = RouteDecoder()
    for payload in ROUTES * 2:
        assert fast(decoder, payload) == walk(payload)


@pytest.mark.slow  # some thirty thousand decodings, each by both ways
def test_no_octet_of_a_known_route_is_overlooked() -> None:
    # Every octet of every recorded route, changed in three ways, after its key was learnt.
    decoder = RouteDecoder()
    for payload in ROUTES:
        decoder.decode(payload, 0, len(payload))
    for payload in ROUTES:
        for offset in range(len(payload)):
            for mask in (0x01, 0x80, 0xFF):
                changed = bytearray(payload)
                changed[offset] ^= mask
                assert fast(decoder, bytes(changed)) == walk(bytes(changed)), (payload, offset, mask)


@any_time
@given(st.lists(damaged(ROUTES) | st.sampled_from(ROUTES), max_size=6), st.integers(1, 3))
def test_damaged_routes_are_decoded_alike_in_any_order(payloads: list[bytes], most_keys: int) -> None:
    decoder = RouteDecoder(most_keys)
    for payload in payloads * 2:
        assert fast(decoder, payload) == walk(payload)


@any_time
@given(st.lists(damaged(ROUTE_DATAGRAMS) | st.sampled_from(ROUTE_DATAGRAMS), min_size=1, max_size=3), st.integers(0, 5))
def test_damaged_datagrams_are_decoded_alike(datagrams: list[bytes], start: int) -> None:
    decoder = RouteDecoder()
    for data in datagrams:
        buffer = bytearray(bytes(start) + data + b"what was there before")
        try:
            routes, end, flags = walk_datagram(data)
        except NetlinkDecodeError:
            with pytest.raises(NetlinkDecodeError) as caught:
                decoder.decode_many(buffer, start, start + len(data))
            assert start <= caught.value.offset <= start + len(data)
        else:
            assert written_out(decoder.decode_many(buffer, start, start + len(data))) == (routes, start + end, flags)


@pytest.mark.parametrize("name", ["routes-4", "routes-6"])
def test_a_real_dump_gives_its_routes_and_then_its_end(name: str) -> None:
    decoder = RouteDecoder()
    batches = [decoder.decode_many(data) for data in DATAGRAMS[name]]
    routes = [route for batch in batches for route in routes_of(batch)]
    assert routes == [walk(message.payload) for message in recorded(MessageType.RTM_NEWROUTE, name)]
    assert [batch.end for batch in batches[:-1]] == [len(data) for data in DATAGRAMS[name][:-1]]
    last = DATAGRAMS[name][-1]
    ((header, _, _),) = iter_messages(last, batches[-1].end)
    assert header.type == MessageType.DONE


def test_a_batch_ends_at_another_message_and_says_whether_the_dump_is_torn() -> None:
    decoder = RouteDecoder()
    whole = build_message(MessageType.RTM_NEWROUTE, NLM_F_MULTI, 7, route())
    torn = build_message(MessageType.RTM_NEWROUTE, NLM_F_MULTI | NLM_F_DUMP_INTR, 7, route(11 << 24))
    other = build_message(MessageType.RTM_NEWROUTE, 0, 0, route(12 << 24))
    flags, payload = encode_done()
    end = build_message(MessageType.DONE, flags, 7, payload)
    batch = decoder.decode_many(whole + torn + end)
    assert [destination for destination, _ in routes_of(batch)] == [10 << 24, 11 << 24]
    assert (batch.end, batch.flags) == (len(whole + torn), NLM_F_MULTI | NLM_F_DUMP_INTR)
    assert decoder.decode_many(whole + other).end == len(whole), "a notification is no part of the dump"
    assert decoder.decode_many(torn + whole).flags == NLM_F_MULTI | NLM_F_DUMP_INTR
    assert decoder.decode_many(end) == ([], 0, 0, 0)
    assert decoder.decode_many(b"") == ([], 0, 0, 0)


@pytest.mark.parametrize("name", ["routes-4", "routes-6"])
def test_a_datagram_cut_off_anywhere_gives_the_same_as_the_walk(name: str) -> None:
    decoder = RouteDecoder()
    messages = [message.whole for message in MESSAGES if message.name == name]
    for pair in itertools.pairwise(messages):
        data = b"".join(pair)
        decoder.decode_many(data)
        for end in range(len(data)):
            try:
                expected = walk_datagram(data[:end])
            except NetlinkDecodeError:
                with pytest.raises(NetlinkDecodeError):
                    decoder.decode_many(data, 0, end)
            else:
                assert written_out(decoder.decode_many(data, 0, end)) == expected


def test_a_second_destination_in_one_message_is_not_cut_at_the_first() -> None:
    # The last of two counts; a cut would take the first for the changing part, and the second for the route.
    decoder = RouteDecoder()
    for last in (b"\x0b\0\0\0", b"\x0c\0\0\0"):
        for first in (10 << 24, 13 << 24):
            payload = route(first) + attribute(1, last)
            assert fast(decoder, payload) == walk(payload)
            assert decoder.decode(payload, 0, len(payload))[0] == int.from_bytes(last, "big")


def test_routes_of_both_families_and_one_length_can_share_a_datagram() -> None:
    decoder = RouteDecoder()
    ipv6 = encode_route(RouteMessage(RouteBody(AF_INET6, 254, 32, nexthops=(NextHop(3),)), 0x20010DB8 << 96))
    ipv4 = route()
    ipv4 += attribute(99, bytes(len(ipv6) - len(ipv4) - 4))
    assert len(ipv4) == len(ipv6)
    data = b"".join(build_message(MessageType.RTM_NEWROUTE, 0, 0, payload) for payload in (ipv4, ipv6) * 3)
    for _ in range(2):
        assert written_out(decoder.decode_many(data)) == walk_datagram(data)
        assert [body.family for _, body in routes_of(decoder.decode_many(data))] == [AF_INET, AF_INET6] * 3
        assert [body for _, body in routes_of(decoder.decode_many(data))[:2]] == [
            decoder.decode(payload, 0, len(payload))[1] for payload in (ipv4, ipv6)
        ]


def test_expiry_of_an_ipv6_route_is_told_but_not_its_seconds() -> None:
    body = RouteBody(AF_INET6, 254, 32, nexthops=(NextHop(3),), expires=True)
    payload = bytearray(encode_route(RouteMessage(body, 0x20010DB8 << 96)))
    expires = len(payload) - 40 + 8
    decoder = RouteDecoder()
    seen: list[RouteBody] = []
    for hundredths in (100, 300, 0, -5, 2**31 - 1, 0):
        payload[expires : expires + 4] = hundredths.to_bytes(4, "little", signed=True)
        seen.append(decoder.decode(payload, 0, len(payload))[1])
    assert [one.expires for one in seen] == [True, True, False, True, True, False]
    assert len({id(one) for one in seen}) == 2


def test_equal_bodies_are_one_object_however_they_came() -> None:
    decoder = RouteDecoder()
    plain = route()
    with_unknown_attribute = plain + attribute(99, b"a newer kernel")
    body = decoder.decode(plain, 0, len(plain))[1]
    assert decoder.decode(with_unknown_attribute, 0, len(with_unknown_attribute))[1] is body
    other = route(11 << 24)
    datagram = build_message(MessageType.RTM_NEWROUTE, 0, 0, other)
    assert routes_of(decoder.decode_many(datagram)) == [(11 << 24, body)]
    assert decoder.decode_many(datagram).runs[0][0] is body
    assert decoder.intern(RouteBody(AF_INET, 254, 8, nexthops=(NextHop(3),))) is body


def test_a_body_in_use_stays_the_one_object_when_the_keys_overflow() -> None:
    decoder = RouteDecoder(most_keys=2)
    payload = route()
    body = decoder.decode(payload, 0, len(payload))[1]
    for priority in range(1, 10):
        other = route(priority=priority)
        decoder.decode(other, 0, len(other))
    assert decoder.decode(payload, 0, len(payload))[1] is body


def test_bodies_that_nobody_uses_are_forgotten() -> None:
    decoder = RouteDecoder(most_keys=4)
    bodies: list[weakref.ref[RouteBody]] = []
    for priority in range(100):
        payload = route(priority=priority)
        bodies.append(weakref.ref(decoder.decode(payload, 0, len(payload))[1]))
    gc.collect()
    assert sum(body() is not None for body in bodies) <= 4


# ---- rows: many messages with one header behind one another --------------------------------------------------------


def dumped(body: RouteBody, destination: int, flags: int = NLM_F_MULTI, sequence: int = 7) -> bytes:
    return build_message(MessageType.RTM_NEWROUTE, flags, sequence, encode_route(RouteMessage(body, destination)))


def body4(gateway: int = 1, prefix_length: int = 24, table: int = 254, tos: int = 0, priority: int = 0) -> RouteBody:
    hops = (NextHop(3, IPv4Address((10 << 24) + gateway)),)
    return RouteBody(AF_INET, table, prefix_length, tos=tos, priority=priority, nexthops=hops)


def body6(gateway: int = 1, prefix_length: int = 48, priority: int = 0, *, expires: bool = False) -> RouteBody:
    hops = (NextHop(3, IPv6Address((0xFE80 << 112) + gateway)),)
    return RouteBody(
        AF_INET6, 254, prefix_length, priority=priority, nexthops=hops, preference=gateway & 3, expires=expires
    )


# Of one length, mostly: such that make rows together.
KINDS = [
    [
        *(body4(gateway) for gateway in (1, 2)),
        *(body4(1, length, table) for length in (8, 32) for table in (254, 1000)),
    ],
    [body4(1), body4(2), body4(tos=16), body4(prefix_length=16), body4(table=255)],
    [body6(), body6(expires=True), body6(2), body6(prefix_length=64)],
    [
        body4(),
        body4(priority=1),
        body6(),
        body6(priority=1),
        RouteBody(AF_INET, 254, 8, nexthops=(NextHop(3), NextHop(4)), multipath=True),
        body4(prefix_length=0),  # without RTA_DST, and so never cut
    ],
]
FEW = st.integers(0, 3).map(lambda number: number << 24)


@st.composite
def parts_of_dumps(draw: st.DrawFn) -> bytes:
    """Datagrams with rows in them, of routes that take turns; what breaks a row; and sometimes no end."""
    parts: list[bytes] = []
    for _ in range(draw(st.integers(1, 4))):
        turns = draw(st.lists(st.sampled_from(draw(st.sampled_from(KINDS))), min_size=1, max_size=3))
        first, step = draw(FEW), draw(st.sampled_from([0, 1, 1 << 8]))
        flags = draw(st.sampled_from([NLM_F_MULTI, NLM_F_MULTI, NLM_F_MULTI | NLM_F_DUMP_INTR]))
        for number in range(draw(st.integers(1, 2 * _A_ROW + 5))):
            body = turns[number % len(turns)]
            destination = first + number * step if body.prefix_length else 0
            parts.append(dumped(body, destination if body.family == AF_INET else destination << 96, flags))
        other = draw(st.none() | st.sampled_from([damaged_route, foreign, done]))
        if other is not None:
            parts.insert(draw(st.integers(0, len(parts))), other(draw(st.integers(0, 100))))
    data = b"".join(parts)
    return data[: draw(st.just(len(data)) | st.integers(0, len(data)))]


def damaged_route(number: int) -> bytes:
    data = bytearray(dumped(body4(), 10 << 24))
    data[number % len(data)] ^= 0x11
    return bytes(data)


def foreign(number: int) -> bytes:
    return dumped(body4(), number, sequence=number)


def done(number: int) -> bytes:
    flags, payload = encode_done()
    return build_message(MessageType.DONE, flags, 7, payload)


@any_time
@given(st.lists(parts_of_dumps(), min_size=1, max_size=3), st.integers(1, 4) | st.just(1000))
def test_rows_are_decoded_as_their_messages_one_by_one(datagrams: list[bytes], most_keys: int) -> None:
    decoder = RouteDecoder(most_keys)
    for data in datagrams * 2:
        try:
            expected = walk_datagram(data)
        except NetlinkDecodeError:
            with pytest.raises(NetlinkDecodeError):
                decoder.decode_many(data)
        else:
            assert written_out(decoder.decode_many(data)) == expected


@pytest.mark.parametrize("make", [body4, body6])
def test_a_row_gives_one_run_for_each_body(make: Callable[[int], RouteBody]) -> None:
    shift = 0 if make is body4 else 96
    data = b"".join(dumped(make(number % 3), number << 8 + shift) for number in range(300))
    for decoder in (RouteDecoder(),) * 2:
        runs = decoder.decode_many(data).runs
        assert [body.nexthops[0].gateway for body, _ in runs] == [make(turn).nexthops[0].gateway for turn in range(3)]
        assert [list(these) for _, these in runs] == [
            [number << 8 + shift for number in range(turn, 300, 3)] for turn in range(3)
        ]


def test_routes_of_one_prefix_stay_in_order_though_others_change_places() -> None:
    # The second route of each prefix has the body that the first of the next one has.
    data = b"".join(
        dumped(body4(gateway), number << 8) for number in range(100) for gateway in (number % 2, 1 - number % 2)
    )
    found = by_prefix(routes_of(RouteDecoder().decode_many(data)))
    assert len(found) == 100
    for (_, _, _, destination), bodies in found.items():
        turn = (destination >> 8) % 2
        assert bodies == [body4(turn), body4(1 - turn)]


def test_the_first_torn_message_in_a_row_ends_it_and_is_not_overlooked() -> None:
    whole = b"".join(dumped(body4(), number << 8) for number in range(100))
    torn = b"".join(dumped(body4(), number << 8, NLM_F_MULTI | NLM_F_DUMP_INTR) for number in range(100, 150))
    batch = RouteDecoder().decode_many(whole + torn)
    assert batch.flags == NLM_F_MULTI | NLM_F_DUMP_INTR
    assert sum(len(these) for _, these in batch.runs) == 150


def test_what_expires_in_a_row_is_told_from_what_does_not() -> None:
    data = b"".join(dumped(body6(expires=number % 3 == 2), number << 96) for number in range(100))
    for body, destinations in RouteDecoder().decode_many(data).runs:
        assert {(destination >> 96) % 3 == 2 for destination in destinations} == {body.expires}


def test_a_message_of_another_family_in_a_row_is_not_cut_like_its_neighbours() -> None:
    ipv6 = encode_route(RouteMessage(body6(), 0x20010DB8 << 96))
    padding = len(ipv6) - len(encode_route(RouteMessage(body4(), 0)))
    ipv4 = [
        encode_route(RouteMessage(body4(), number << 8)) + attribute(99, bytes(padding - 4)) for number in range(99)
    ]
    decoder = RouteDecoder()
    for payloads in (ipv4, [*ipv4[:50], ipv6, *ipv4[50:]], [ipv6] * 99, [*[ipv6] * 50, *ipv4]):
        data = b"".join(build_message(MessageType.RTM_NEWROUTE, 0, 7, payload) for payload in payloads)
        assert written_out(decoder.decode_many(data)) == walk_datagram(data)
