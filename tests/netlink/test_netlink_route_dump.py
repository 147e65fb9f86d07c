"""The routes of a dump, decoded a datagram at a time, are those of its messages one by one."""

from __future__ import annotations

import itertools
import random
import sys
import weakref
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address
from typing import TypeAlias

import pytest
from hypothesis import given, settings, strategies as st

from tests.netlink.recording import DATAGRAMS, damaged, recorded
from trio_routes._errors import NetlinkDecodeError
from trio_routes.netlink import (
    AF_INET,
    AF_INET6,
    HEADER_SIZE,
    NLM_F_DUMP_INTR,
    NLM_F_MULTI,
    DumpDecoder,
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
from trio_routes.netlink._route_dump import PORTION

ROUTE_HEADER_SIZE = 12  # struct rtmsg
FAMILIES = {"routes-4": AF_INET, "routes-6": AF_INET6}


def dump_decoder(
    family: int = AF_INET, decoder: RouteDecoder | None = None, most_keys: int = 1000, portion: int = 1000
) -> DumpDecoder[RouteBody]:
    """Return a decoder in which a body stands for itself."""
    return DumpDecoder(decoder or RouteDecoder(), family, lambda body: body, most_keys=most_keys, portion=portion)


# The routes of a datagram, in order; where they end; and the flags of the dump so far.
Decoded: TypeAlias = tuple[list[tuple[int, RouteBody]], int, int]


def decode_whole(decoder: DumpDecoder[RouteBody], data: bytes) -> Decoded:
    """Decode a datagram portion by portion."""
    routes: list[tuple[int, RouteBody]] = []
    at = 0
    while True:
        batch = decoder.decode(data[at:])
        routes += routes_of(batch)
        at += batch.end
        if not batch.is_portion:
            return routes, at, batch.flags
        assert batch.values and at < len(data)


def written_out(batch: RouteBatch[RouteBody]) -> Decoded:
    return list(zip(batch.destinations, batch.values, strict=True)), batch.end, batch.flags


def routes_of(batch: RouteBatch[RouteBody]) -> list[tuple[int, RouteBody]]:
    return written_out(batch)[0]


class Walk:
    """Does slowly, one message after the other, what a `DumpDecoder` promises."""

    def __init__(self, family: int = AF_INET) -> None:
        self._family = family
        self._first: tuple[int, int] | None = None
        self._flags = 0

    def decode(self, data: bytes) -> Decoded:
        routes: list[tuple[int, RouteBody]] = []
        for header, start, end in iter_messages(data):
            self._first = self._first or (header.sequence, header.port)
            whole = end - start >= ROUTE_HEADER_SIZE
            if header.type != MessageType.RTM_NEWROUTE or (header.sequence, header.port) != self._first:
                return routes, start - HEADER_SIZE, self._flags
            if whole and data[start] != self._family:
                return routes, start - HEADER_SIZE, self._flags
            self._flags |= header.flags if whole else 0
            message = decode_route(data, start, end)
            routes.append((message.destination, message.body))
        return routes, len(data), self._flags


def assert_alike(decoder: DumpDecoder[RouteBody], walk: Walk, data: bytes) -> None:
    """Decode a datagram both ways: the same must come of it, or an error."""
    try:
        expected = walk.decode(data)
    except NetlinkDecodeError:
        with pytest.raises(NetlinkDecodeError) as caught:
            decode_whole(decoder, data)
        assert 0 <= caught.value.offset <= len(data)
    else:
        assert decode_whole(decoder, data) == expected


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


# Bodies that take turns. Lengths differ within most lists, and some messages are never known by a key.
KINDS: dict[int, list[list[RouteBody]]] = {
    AF_INET: [
        [body4(1), body4(2), body4(1, 8), body4(1, 32, 1000), body4(tos=16)],
        [body4(), body4(priority=1), body4(2, priority=7)],
        [
            body4(),
            RouteBody(AF_INET, 254, 24, nexthops=(NextHop(3), NextHop(4)), multipath=True),
            body4(prefix_length=0),  # without RTA_DST
        ],
    ],
    AF_INET6: [
        [body6(), body6(expires=True), body6(2), body6(prefix_length=64)],
        [body6(), body6(priority=1), body6(prefix_length=0)],
    ],
}


def unknown_attribute(number: int) -> bytes:
    """A route with a long attribute that nobody knows: too long to be learnt where the number is large."""
    payload = encode_route(RouteMessage(body4(), number << 8)) + attribute(99, bytes(5 * number))
    return build_message(MessageType.RTM_NEWROUTE, NLM_F_MULTI, 7, payload)


def message_within(number: int) -> bytes:
    """A route that holds another message, header and all, in an attribute."""
    payload = encode_route(RouteMessage(body4(), number << 8)) + attribute(99, dumped(body4(2), number << 8))
    return build_message(MessageType.RTM_NEWROUTE, NLM_F_MULTI, 7, payload)


def unaligned(number: int) -> bytes:
    """A route whose length leaves out the padding behind its last attribute."""
    whole = dumped(body4(), number << 8) + bytes.fromhex("0500 6300 01 000000")  # 5 bytes of type 99, and padding
    return (len(whole) - 3).to_bytes(4, sys.byteorder) + whole[4:]


def damaged_route(number: int) -> bytes:
    data = bytearray(dumped(body4(), 10 << 24))
    data[number % len(data)] ^= 0x11
    return bytes(data)


def other_family(number: int) -> bytes:
    return dumped(body6() if number % 2 else body4(), number << 8)


def other_family_of_one_length(number: int) -> bytes:
    """IPv4 as long as IPv6, or the other way round, where the length fits."""
    ipv4, ipv6 = (encode_route(RouteMessage(body, number << 8)) for body in (body4(), body6()))
    ipv4 += attribute(99, bytes(len(ipv6) - len(ipv4) - 4))
    return build_message(MessageType.RTM_NEWROUTE, NLM_F_MULTI, 7, ipv4)


def twice_a_destination(number: int) -> bytes:
    payload = encode_route(RouteMessage(body4(), number << 8)) + attribute(1, bytes((10, number, 0, 0)))
    return build_message(MessageType.RTM_NEWROUTE, NLM_F_MULTI, 7, payload)


def foreign(number: int) -> bytes:
    return dumped(body4(), number, sequence=number)


def done(number: int) -> bytes:
    flags, payload = encode_done(ext_ack="so it is" * (number % 2))
    return build_message(MessageType.DONE, flags, 7, payload)


def too_short(number: int) -> bytes:
    return build_message(MessageType.RTM_NEWROUTE, NLM_F_MULTI, 7, bytes([AF_INET]) * (number % 12))


def nothing(number: int) -> bytes:
    return bytes(number % 24)


ODD: list[Callable[[int], bytes]] = [
    damaged_route,
    done,
    foreign,
    message_within,
    nothing,
    other_family,
    other_family_of_one_length,
    too_short,
    twice_a_destination,
    unaligned,
    unknown_attribute,
]


@st.composite
def datagrams_of(draw: st.DrawFn, family: int) -> bytes:
    """Routes that take turns; other things among them, which may end them; and sometimes the end is missing."""
    parts: list[bytes] = []
    for _ in range(draw(st.integers(1, 3))):
        kinds = draw(st.sampled_from(KINDS[family]))
        choose = random.Random(draw(st.integers(0, 1000)))
        first, step = draw(st.integers(0, 3)) << 24, draw(st.sampled_from([0, 1, 1 << 8]))
        flags = draw(st.sampled_from([NLM_F_MULTI, NLM_F_MULTI, NLM_F_MULTI | NLM_F_DUMP_INTR]))
        for number in range(draw(st.integers(0, 40))):
            body = choose.choice(kinds)
            destination = first + number * step if body.prefix_length else 0
            parts.append(dumped(body, destination if family == AF_INET else destination << 96, flags))
    for odd in draw(st.lists(st.sampled_from(ODD), max_size=3)):
        parts.insert(draw(st.integers(0, len(parts))), odd(draw(st.integers(0, 100))))
    data = b"".join(parts)
    return data[: draw(st.just(len(data)) | st.integers(0, len(data)))]


@settings(deadline=None, max_examples=300)
@given(
    st.data(),
    st.sampled_from([AF_INET, AF_INET6]),
    st.integers(1, 4) | st.just(1000),
    st.integers(1, 4) | st.just(PORTION),
)
def test_datagrams_are_decoded_as_their_messages_one_by_one(
    data: st.DataObject, family: int, most_keys: int, portion: int
) -> None:
    datagrams = data.draw(st.lists(datagrams_of(family), min_size=1, max_size=3))
    decoder, walk = dump_decoder(family, most_keys=most_keys, portion=portion), Walk(family)
    for datagram in datagrams * 2:
        assert_alike(decoder, walk, datagram)


ROUTE_DATAGRAMS = {
    family: [data for name in (name, "changes") for data in DATAGRAMS[name]] for name, family in FAMILIES.items()
}


@settings(deadline=None)
@given(st.data(), st.sampled_from([AF_INET, AF_INET6]))
def test_damaged_datagrams_are_decoded_alike(data: st.DataObject, family: int) -> None:
    recorded_ones = ROUTE_DATAGRAMS[family]
    decoder, walk = dump_decoder(family), Walk(family)
    for datagram in data.draw(
        st.lists(damaged(recorded_ones) | st.sampled_from(recorded_ones), min_size=1, max_size=4)
    ):
        assert_alike(decoder, walk, datagram)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_datagram_cut_off_anywhere_gives_the_same_as_the_walk(name: str) -> None:
    messages = [message.whole for message in recorded(MessageType.RTM_NEWROUTE, name)]
    for pair in itertools.pairwise(messages):
        decoder, walk = dump_decoder(FAMILIES[name]), Walk(FAMILIES[name])
        data = b"".join(pair)
        for end in (len(data), *range(len(data))):
            assert_alike(decoder, walk, data[:end])


@pytest.mark.slow  # some thirty thousand datagrams, each decoded both ways
@pytest.mark.parametrize("name", FAMILIES)
def test_no_octet_of_a_known_route_is_overlooked(name: str) -> None:
    # Every octet of every recorded route, its header's included, changed in three ways after its key was learnt. A
    # neighbour follows, which is found only where the change left the length alone.
    whole = [message.whole for message in recorded(MessageType.RTM_NEWROUTE, name)]
    decoder, walk = dump_decoder(FAMILIES[name]), Walk(FAMILIES[name])
    for data in whole:
        assert_alike(decoder, walk, data)
    for data in whole:
        for offset in range(len(data)):
            for mask in (0x01, 0x80, 0xFF):
                changed = bytearray(data)
                changed[offset] ^= mask
                assert_alike(decoder, walk, bytes(changed) + whole[0])


@pytest.mark.parametrize("name", FAMILIES)
def test_a_real_dump_gives_its_routes_and_then_its_end(name: str) -> None:
    decoder = dump_decoder(FAMILIES[name])
    batches = [decoder.decode(data) for data in DATAGRAMS[name]]
    routes = [route for batch in batches for route in routes_of(batch)]
    messages = (decode_route(each.payload, 0, len(each.payload)) for each in recorded(MessageType.RTM_NEWROUTE, name))
    assert routes == [(message.destination, message.body) for message in messages]
    assert [batch.end for batch in batches[:-1]] == [len(data) for data in DATAGRAMS[name][:-1]]
    last = DATAGRAMS[name][-1]
    ((header, _, _),) = iter_messages(last, batches[-1].end)
    assert header.type == MessageType.DONE


def test_a_batch_ends_at_another_message_and_says_whether_the_dump_is_torn() -> None:
    whole, torn = dumped(body4(), 10 << 24), dumped(body4(), 11 << 24, NLM_F_MULTI | NLM_F_DUMP_INTR)
    decoder = dump_decoder()
    batch = decoder.decode(whole + torn + done(0))
    assert batch.destinations == [10 << 24, 11 << 24]
    assert (batch.end, batch.flags) == (len(whole + torn), NLM_F_MULTI | NLM_F_DUMP_INTR)
    assert decoder.decode(whole).flags == NLM_F_MULTI | NLM_F_DUMP_INTR, "the dump is still torn"
    for other in (done(0), done(1), foreign(0), dumped(body6(), 0)):
        assert dump_decoder().decode(whole + other + whole) == RouteBatch(
            [body4()], [10 << 24], len(whole), NLM_F_MULTI
        )
    assert dump_decoder().decode(done(0)) == RouteBatch([], [], 0, 0)
    assert dump_decoder().decode(b"") == RouteBatch([], [], 0, 0)


def test_another_dump_is_none_of_this_one_also_where_its_datagram_begins_with_it() -> None:
    decoder = dump_decoder()
    assert len(decoder.decode(dumped(body4(), 0)).values) == 1
    assert decoder.decode(foreign(8) + dumped(body4(), 0)) == RouteBatch([], [], 0, NLM_F_MULTI)


@pytest.mark.parametrize("make", [body4, body6])
def test_what_stands_for_a_body_is_asked_once(make: Callable[[int], RouteBody]) -> None:
    met: list[RouteBody] = []

    def meet(body: RouteBody) -> int:
        met.append(body)
        return len(met)

    shift = 0 if make is body4 else 96
    data = b"".join(dumped(make(number % 3), number << 8 + shift) for number in range(300))
    family = make(0).family
    decoder = DumpDecoder(RouteDecoder(), family, meet)
    for _ in range(2):
        batch = decoder.decode(data)
        assert batch.values == [1, 2, 3] * 100
        assert batch.destinations == [number << 8 + shift for number in range(300)]
    assert met == [make(number) for number in range(3)]


def test_of_messages_that_are_not_known_only_a_portion_is_decoded_at_once() -> None:
    data = b"".join(dumped(body4(number), number << 8) for number in range(10))
    decoder = dump_decoder(portion=4)
    sizes: list[int] = []
    rest, portion = data, True
    while portion:
        batch = decoder.decode(rest)
        sizes.append(len(batch.values))
        rest, portion = rest[batch.end :], batch.is_portion
    assert sizes == [4, 4, 2] and rest == b""
    assert len(decoder.decode(data).values) == 10, "all are known now"


def test_equal_bodies_are_one_object_whatever_their_messages() -> None:
    routes = RouteDecoder()
    batch = dump_decoder(decoder=routes).decode(dumped(body4(), 0) + unknown_attribute(1) + unknown_attribute(120))
    payload = encode_route(RouteMessage(body4(), 5 << 8))
    assert {*map(id, batch.values)} == {id(routes.decode(payload, 0, len(payload))[1])}


def test_what_expires_is_told_from_what_does_not() -> None:
    data = b"".join(dumped(body6(expires=number % 3 == 2), number << 96) for number in range(100))
    batch = dump_decoder(AF_INET6).decode(data)
    assert [body.expires for body in batch.values] == [number % 3 == 2 for number in range(100)]
    assert len({*map(id, batch.values)}) == 2


def test_a_message_within_a_message_is_part_of_it() -> None:
    data = dumped(body4(), 0) + b"".join(message_within(number) for number in range(1, 50))
    assert dump_decoder().decode(data).destinations == [number << 8 for number in range(50)]


class Standin:
    """What stands for a body, and for nothing else."""


def test_what_was_learnt_is_bounded_and_long_messages_are_not_learnt() -> None:
    made: list[weakref.ref[Standin]] = []

    def meet(_: RouteBody) -> Standin:
        standin = Standin()
        made.append(weakref.ref(standin))
        return standin

    def alive() -> int:
        return sum(standin() is not None for standin in made)

    decoder = DumpDecoder(RouteDecoder(), AF_INET, meet, most_keys=4)
    for priority in range(100):
        decoder.decode(dumped(body4(priority=priority), 0))
    assert len(made) == 100 and alive() <= 4
    long_ones = DumpDecoder(RouteDecoder(), AF_INET, meet)
    before = alive()
    for _ in range(3):
        long_ones.decode(unknown_attribute(100))
    assert alive() == before
