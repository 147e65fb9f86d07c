"""The decoder of route messages gives what the ordinary walk gives, and one object for equal bodies."""

from __future__ import annotations

import gc
import weakref

import pytest
from hypothesis import given, settings, strategies as st

from tests.netlink.recording import damaged, recorded
from trio_routes._errors import NetlinkDecodeError
from trio_routes.netlink import (
    AF_INET,
    AF_INET6,
    DumpDecoder,
    MessageType,
    NextHop,
    RouteBody,
    RouteDecoder,
    RouteMessage,
    attribute,
    build_message,
    decode_route,
    encode_route,
)

any_time = settings(deadline=None)
ROUTES = [message.payload for message in recorded(MessageType.RTM_NEWROUTE)]


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


def test_a_second_destination_in_one_message_is_not_cut_at_the_first() -> None:
    # The last of two counts; a cut would take the first for the changing part, and the second for the route.
    decoder = RouteDecoder()
    for last in (b"\x0b\0\0\0", b"\x0c\0\0\0"):
        for first in (10 << 24, 13 << 24):
            payload = route(first) + attribute(1, last)
            assert fast(decoder, payload) == walk(payload)
            assert decoder.decode(payload, 0, len(payload))[0] == int.from_bytes(last, "big")


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
    dump = DumpDecoder(decoder, AF_INET, lambda body: body)
    assert dump.decode(build_message(MessageType.RTM_NEWROUTE, 0, 0, other)).values[0] is body
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
