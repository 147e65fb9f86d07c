"""The requests, as bytes and as the running kernel understands them (it is only asked, nothing is changed)."""

from __future__ import annotations

import errno
import socket
import sys
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest

from tests.netlink.recording import CODECS
from trio_routes.netlink import (
    AF_INET,
    AF_INET6,
    NLM_F_DUMP,
    NLM_F_MULTI,
    NLM_F_REQUEST,
    RT_TABLE_COMPAT,
    RT_TABLE_LOCAL,
    RT_TABLE_MAIN,
    RTM_F_FIB_MATCH,
    RTM_F_LOOKUP_TABLE,
    Attributes,
    Header,
    LinkMessage,
    MessageType,
    Request,
    RouteDecoder,
    RouteMessage,
    decode_done,
    decode_error,
    decode_route,
    dump_addresses,
    dump_links,
    dump_neighbours,
    dump_netconf,
    dump_nexthops,
    dump_routes,
    dump_rules,
    get_route,
    iter_messages,
)

IFLA_AF_SPEC, IFLA_INET6_STATS, IFLA_INET6_ICMP6STATS = 26, 3, 6

linux = pytest.mark.skipif(sys.platform != "linux", reason="asks the Linux kernel")
DUMPS = [
    dump_links(),
    dump_addresses(),
    dump_nexthops(),
    *(
        make(family)
        for make in (dump_addresses, dump_rules, dump_neighbours, dump_netconf, dump_routes)
        for family in (AF_INET, AF_INET6)
    ),
    dump_routes(AF_INET, RT_TABLE_LOCAL),
]


@pytest.fixture
def rtnetlink() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as sock:
        sock.settimeout(10)
        sock.setsockopt(270, 12, 1)  # SOL_NETLINK, NETLINK_GET_STRICT_CHK
        sock.setsockopt(270, 11, 1)  # NETLINK_EXT_ACK
        yield sock


def ask(sock: socket.socket, request: Request) -> list[tuple[Header, bytes]]:
    """Return the messages of the answer: header and payload; fails the test where the kernel refuses."""
    sock.send(request.message(7))
    answer: list[tuple[Header, bytes]] = []
    while True:
        data = sock.recv(1 << 16)
        for header, start, end in iter_messages(data):
            if header.type == MessageType.DONE:
                assert decode_done(data, start, end).errno == 0, decode_done(data, start, end)
                return answer
            assert header.type != MessageType.ERROR, decode_error(data, start, end)
            answer.append((header, data[start:end]))
            if not header.flags & NLM_F_MULTI:
                return answer


@linux
@pytest.mark.parametrize("request_", DUMPS, ids=lambda request: request.description)
def test_the_kernel_accepts_every_dump_and_its_answer_is_understood(
    rtnetlink: socket.socket, request_: Request
) -> None:
    decoders = {codec.kind: codec.decode for codec in CODECS}
    kind = MessageType(request_.type - 2)
    answer = ask(rtnetlink, request_)
    for header, payload in answer:
        assert header.type == kind
        decoders[kind](payload, 0, len(payload))
    assert request_.flags == NLM_F_REQUEST | NLM_F_DUMP


@linux
def test_links_come_without_the_counters_of_ipv6(rtnetlink: socket.socket) -> None:
    answer = ask(rtnetlink, dump_links())
    decoders = {codec.kind: codec.decode for codec in CODECS}
    links = [decoders[MessageType.RTM_NEWLINK](payload, 0, len(payload)) for _, payload in answer]
    assert "lo" in [link.name for link in links if isinstance(link, LinkMessage)]
    for _, payload in answer:
        ipv6 = Attributes(payload, 16, len(payload)).nested(IFLA_AF_SPEC).nested(AF_INET6)
        assert not {IFLA_INET6_STATS, IFLA_INET6_ICMP6STATS} & set(ipv6)


@linux
def test_a_dump_can_be_of_one_table(rtnetlink: socket.socket) -> None:
    answer = ask(rtnetlink, dump_routes(AF_INET, RT_TABLE_LOCAL))
    assert {decode_route(payload, 0, len(payload)).body.table for _, payload in answer} <= {RT_TABLE_LOCAL}


@linux
@pytest.mark.parametrize("family", [AF_INET, AF_INET6])
def test_the_dump_of_a_table_that_does_not_exist_ends_with_enoent(rtnetlink: socket.socket, family: int) -> None:
    rtnetlink.send(dump_routes(family, 123_456).message(7))
    data = rtnetlink.recv(1 << 16)
    ((header, start, end),) = iter_messages(data)
    assert header.type == MessageType.DONE
    assert decode_done(data, start, end).errno == errno.ENOENT


@linux
@pytest.mark.parametrize("fib_match", [False, True])
def test_the_kernel_answers_for_one_address(rtnetlink: socket.socket, fib_match: bool) -> None:
    # 127.0.0.1 has a route wherever lo is up; elsewhere the refusal is an answer as well.
    rtnetlink.send(get_route(IPv4Address("127.0.0.1"), mark=1, uid=0, tos=8, fib_match=fib_match).message(7))
    data = rtnetlink.recv(1 << 16)
    ((header, start, end),) = iter_messages(data)
    if header.type == MessageType.ERROR:
        assert decode_error(data, start, end).errno != errno.EINVAL, "the request is well-formed"
        pytest.skip("lo is down here")
    answer = decode_route(data, start, end)
    assert (answer.destination, answer.body.prefix_length) == (0x7F000001, 32)
    # Until an IPv4 rule is added, local and main are one trie, and the kernel calls it 254.
    assert answer.body.table in (RT_TABLE_LOCAL, RT_TABLE_MAIN)
    assert RouteDecoder().decode(data, start, end) == (answer.destination, answer.body)


@linux
def test_the_kernel_understands_a_request_for_an_ipv6_address(rtnetlink: socket.socket) -> None:
    request = get_route(IPv6Address("::1"), source=IPv6Address("::1"), mark=1, uid=0, tos=8, fib_match=True)
    rtnetlink.send(request.message(7))
    data = rtnetlink.recv(1 << 16)
    ((header, start, end),) = iter_messages(data)
    if header.type == MessageType.ERROR:
        assert decode_error(data, start, end).errno != errno.EINVAL, decode_error(data, start, end)
    else:
        assert isinstance(decode_route(data, start, end), RouteMessage)


def test_a_table_over_255_is_in_the_attribute_only() -> None:
    payload = dump_routes(AF_INET, 1000).payload
    assert payload[4] == RT_TABLE_COMPAT
    assert decode_route(payload, 0, len(payload)).body.table == 1000


def test_a_request_for_one_address_carries_what_decides_its_route() -> None:
    source = ip_address("2001:db8::1")
    request = get_route(ip_address("2001:db8::2"), source=source, oif=3, mark=5, tos=4, uid=6, fib_match=True)
    message = decode_route(request.payload, 0, len(request.payload))
    body = message.body
    assert message.destination == int(ip_address("2001:db8::2"))
    assert (body.source, body.source_length, body.prefix_length) == (int(source), 128, 128)
    assert (body.nexthops[0].ifindex, body.mark, body.tos, body.uid) == (3, 5, 4, 6)
    assert body.flags == RTM_F_FIB_MATCH
    ipv4 = get_route(ip_address("192.0.2.1"))
    assert decode_route(ipv4.payload, 0, len(ipv4.payload)).body.flags == RTM_F_LOOKUP_TABLE
    assert (request.flags, request.description) == (NLM_F_REQUEST, "route to 2001:db8::2")


def test_a_source_of_the_other_family_is_refused() -> None:
    with pytest.raises(ValueError, match="not of the same family"):
        get_route(ip_address("192.0.2.1"), source=ip_address("::1"))


def test_requests_say_in_words_what_they_ask() -> None:
    assert dump_routes(AF_INET6, 100).description == "dump of IPv6 routes of table 100"
    assert dump_neighbours().description == "dump of neighbours"
