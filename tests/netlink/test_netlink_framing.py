"""Messages in a datagram, attributes in a message, and the control messages."""

from __future__ import annotations

import errno
import struct
from ipaddress import IPv6Address

import pytest
from hypothesis import given, settings, strategies as st

from tests.netlink.recording import ALL_DATAGRAMS, DATAGRAMS, damaged
from trio_routes._errors import NetlinkDecodeError
from trio_routes.netlink import (
    AF_INET,
    NLM_F_ACK,
    NLM_F_ACK_TLVS,
    NLM_F_CAPPED,
    NLM_F_REQUEST,
    Attributes,
    ErrorMessage,
    Header,
    MessageType,
    attribute,
    attribute_string,
    attribute_u8,
    attribute_u16,
    attribute_u32,
    build_message,
    decode_done,
    decode_error,
    encode_done,
    encode_error,
    iter_attributes,
    iter_messages,
)

any_time = settings(deadline=None)


def only_message(name: str) -> tuple[bytes, int, int]:
    (data,) = DATAGRAMS[name]
    ((_, start, end),) = iter_messages(data)
    return data, start, end


@any_time
@given(st.binary(max_size=200) | damaged(ALL_DATAGRAMS))
def test_any_bytes_are_messages_inside_the_buffer_or_an_error(data: bytes) -> None:
    past = 0
    error: NetlinkDecodeError | None = None
    try:
        for header, start, end in iter_messages(data):
            assert start == past + 16
            assert end - start == header.length - 16
            assert end <= len(data)
            past = (end + 3) & ~3
    except NetlinkDecodeError as broken:
        error = broken
    assert past >= len(data) if error is None else error.offset == past < len(data)


@any_time
@given(st.binary(max_size=100), st.integers(0, 100), st.integers(0, 100))
def test_any_bytes_are_attributes_inside_the_bounds_or_an_error(data: bytes, start: int, end: int) -> None:
    start, end = sorted((min(start, len(data)), min(end, len(data))))
    try:
        spans = list(iter_attributes(data, start, end))
    except NetlinkDecodeError:
        return
    assert all(start + 4 <= first <= past <= end for _, first, past in spans)
    assert spans == sorted(spans, key=lambda span: span[1])


@any_time
@given(
    st.lists(
        st.tuples(
            st.integers(0, 65535),
            st.integers(0, 65535),
            st.integers(0, 2**32 - 1),
            st.integers(0, 2**32 - 1),
            st.binary(max_size=9),
        )
    )
)
def test_messages_that_were_built_are_read_back(messages: list[tuple[int, int, int, int, bytes]]) -> None:
    data = b"".join(
        build_message(type, flags, sequence, payload, port=port) for type, flags, sequence, port, payload in messages
    )
    assert [
        (header.type, header.flags, header.sequence, header.port, data[start:end])
        for header, start, end in iter_messages(data)
    ] == messages


@any_time
@given(st.lists(st.tuples(st.integers(0, 0x3FFF), st.binary(max_size=9))))
def test_attributes_that_were_built_are_read_back(attributes: list[tuple[int, bytes]]) -> None:
    data = b"".join(attribute(type, payload) for type, payload in attributes)
    assert [(type, data[start:end]) for type, start, end in iter_attributes(data, 0, len(data))] == attributes


def test_a_part_of_a_larger_buffer_can_be_read() -> None:
    first, second = build_message(1, 0, 5, b"abcd"), build_message(2, 0, 5, b"efgh")
    buffer = bytearray(first + second + b"an older datagram")
    spans = list(iter_messages(buffer, len(first), len(first) + len(second)))
    assert [(header.type, bytes(buffer[start:end])) for header, start, end in spans] == [(2, b"efgh")]
    with pytest.raises(NetlinkDecodeError, match="outside the buffer"):
        list(iter_messages(buffer, 0, len(buffer) + 1))


@pytest.mark.parametrize(
    ("data", "offset"),
    [
        (b"\x0f\0\0\0" + bytes(12), 0),
        (bytes(16), 0),
        (b"\x11\0\0\0" + bytes(12), 0),
        (b"\x10\0\0\0" + bytes(12) + bytes(15), 16),
    ],
    ids=["length 15", "length 0, which would never end", "past the end", "half a header"],
)
def test_a_broken_message_is_an_error_that_says_where(data: bytes, offset: int) -> None:
    with pytest.raises(NetlinkDecodeError) as caught:
        list(iter_messages(data))
    assert caught.value.offset == offset


@pytest.mark.parametrize("length", [0, 3, 9, 0xFFFF])
def test_an_attribute_with_a_wrong_length_is_an_error(length: int) -> None:
    with pytest.raises(NetlinkDecodeError, match=f"claims {length} bytes of 8"):
        Attributes(struct.pack("=HHI", length, 1, 0), 0, 8)


def test_attributes_give_values_and_defaults() -> None:
    data = (
        attribute_u8(1, 200)
        + attribute_u16(2, 60_000)
        + attribute_u32(3, 2**32 - 1)
        + attribute_string(4, "eth0")
        + attribute(5, IPv6Address("2001:db8::1").packed)
        + attribute(6 | 0x8000, attribute_u32(1, 7))
        + attribute_u32(7 | 0x4000, 1)
        + attribute_u32(7, 2)
    )
    found = Attributes(data, 0, len(data))
    assert (found.u8(1), found.u16(2), found.u32(3), found.s32(3)) == (200, 60_000, 2**32 - 1, -1)
    assert found.string(4) == "eth0"
    assert found.address(5) == IPv6Address("2001:db8::1")
    assert found.nested(6).u32(1) == 7
    assert found.u32(7) == 2, "of two the last counts"
    assert (found.u32(99), found.u32(99, 5), found.string(99), found.raw(99), found.address(99)) == (
        0,
        5,
        "",
        b"",
        None,
    )
    assert list(found.nested(99)) == []


def test_a_value_that_is_too_short_or_of_the_wrong_family_is_an_error() -> None:
    data = attribute(1, b"abc") + attribute(2, bytes(4))
    found = Attributes(data, 0, len(data))
    with pytest.raises(NetlinkDecodeError, match="too short"):
        found.u32(1)
    with pytest.raises(NetlinkDecodeError, match="an address of 3 bytes"):
        found.address(1)
    with pytest.raises(NetlinkDecodeError, match="an address of 4 bytes"):
        found.address(2, 10)
    assert found.address(2, AF_INET) is not None


def test_a_name_that_is_not_utf8_survives() -> None:
    data = attribute(1, b"\xff\xfe0\0")
    name = Attributes(data, 0, len(data)).string(1)
    assert attribute_string(1, name) == data


def test_an_explanation_is_found_behind_the_quoted_request_and_without_it() -> None:
    whole = decode_error(*only_message("refused-explained"))
    capped = decode_error(*only_message("refused-explained-capped"))
    assert whole == capped
    assert (whole.errno, whole.ext_ack, whole.offset) == (errno.EINVAL, "Invalid DSCP mask", 68)
    assert (whole.request.type, whole.request.sequence, whole.request.length) == (MessageType.RTM_NEWRULE, 7, 76)
    flags = [
        next(iter_messages(DATAGRAMS[name][0]))[0].flags for name in ("refused-explained", "refused-explained-capped")
    ]
    assert flags == [NLM_F_ACK_TLVS, NLM_F_ACK_TLVS | NLM_F_CAPPED], "the recording holds both forms"


def test_a_refusal_without_explanation_and_an_acknowledgement_are_read() -> None:
    plain = decode_error(*only_message("refused-plain"))
    assert (plain.errno, plain.ext_ack, plain.offset) == (errno.EOPNOTSUPP, "", None)
    refused = decode_error(*only_message("refused"))
    assert (refused.errno, refused.request.type) == (errno.EHOSTUNREACH, MessageType.RTM_GETROUTE)
    done = decode_error(*only_message("acknowledged"))
    assert (done.errno, done.request.type, done.request.flags & NLM_F_ACK) == (0, MessageType.RTM_NEWRULE, NLM_F_ACK)


def test_the_end_of_a_dump_says_how_it_went() -> None:
    failed = decode_done(*only_message("refused-dump"))
    assert (failed.errno, failed.ext_ack) == (errno.EINVAL, "Invalid values in header for FIB dump request")
    assert failed.request.sequence == 7
    *_, (header, start, end) = iter_messages(DATAGRAMS["routes-4"][-1])
    assert decode_done(DATAGRAMS["routes-4"][-1], start, end) == ErrorMessage(0, header)
    empty = build_message(MessageType.DONE, 0, 3, b"")
    assert decode_done(empty, 16, 16).errno == 0


@any_time
@given(
    st.integers(0, 133),
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])),
    st.none() | st.integers(0, 99),
)
def test_errors_that_were_built_are_read_back(number: int, ext_ack: str, offset: int | None) -> None:
    request = Header(36, MessageType.RTM_GETROUTE, NLM_F_REQUEST, 9, 0)
    flags, payload = encode_error(number, request, ext_ack, offset)
    message = build_message(MessageType.ERROR, flags, 9, payload)
    assert decode_error(message, 16, 16 + len(payload)) == ErrorMessage(number, request, ext_ack, offset)
    flags, payload = encode_done(number, ext_ack)
    message = build_message(MessageType.DONE, flags, 9, payload)
    done = decode_done(message, 16, 16 + len(payload))
    assert (done.errno, done.ext_ack) == (number, ext_ack)


def test_what_a_quoted_request_claims_of_its_length_is_not_believed() -> None:
    words = attribute_string(1, "no")
    for length, expected in ((0, "no"), (15, "no"), (16, "no"), (2**32 - 1, None), (40, None)):
        request = struct.pack("=iIHHII", -22, length, 26, 1, 9, 0)
        message = build_message(MessageType.ERROR, NLM_F_ACK_TLVS, 9, request + words)
        if expected is None:
            with pytest.raises(NetlinkDecodeError, match="past the end"):
                decode_error(message, 16, len(message))
        else:
            assert decode_error(message, 16, len(message)).ext_ack == expected


def test_attributes_past_the_buffer_are_an_error() -> None:
    with pytest.raises(NetlinkDecodeError):
        Attributes(attribute_u32(1, 2), 0, 12)
    with pytest.raises(NetlinkDecodeError):
        Attributes(bytes(16), 8, 4)


CONTROL = [DATAGRAMS[name][0] for name in DATAGRAMS if name.startswith(("refused", "acknowledged"))]


@any_time
@given(st.binary(min_size=16, max_size=90) | damaged(CONTROL))
def test_any_bytes_are_an_error_message_or_an_error(data: bytes) -> None:
    for decode in (decode_error, decode_done):
        try:
            message = decode(data, 16, len(data))
        except NetlinkDecodeError:
            continue
        assert message.errno >= 0


@pytest.mark.parametrize("data", CONTROL)
def test_an_error_message_cut_off_anywhere_is_an_error(data: bytes) -> None:
    ((header, _, _),) = iter_messages(data)
    decode = decode_done if header.type == MessageType.DONE else decode_error
    whole = decode(data, 16, header.length)
    for end in range(header.length):
        if (header.type, end) == (MessageType.DONE, 16):
            continue  # an empty DONE is whole: other netlink families end their dumps so
        try:
            part = decode(data, 16, end)
        except NetlinkDecodeError:
            continue
        # Cut between two attributes, or before the first: what is left is right as far as it goes.
        assert (part.errno, part.request) == (whole.errno, whole.request)
        assert part.ext_ack in ("", whole.ext_ack)
        assert part.offset in (None, whole.offset)
