"""When a lookup and the kernel's answer agree, and which differences say nothing against the cache."""

from __future__ import annotations

import errno
from ipaddress import ip_address

import pytest

from tests.routing._build import ETH0, ETH1, UP, Host, hop
from trio_routes import Flow
from trio_routes._engine import Engine
from trio_routes._selfcheck_answers import Answer, Question, agree, exemption, is_answer, read_answer
from trio_routes.connections import Policy
from trio_routes.netlink import (
    AF_INET,
    AF_INET6,
    FR_ACT_UNREACHABLE,
    NLM_F_APPEND,
    NUD_FAILED,
    RTN_BROADCAST,
    RTN_LOCAL,
    RTN_UNICAST,
    RTN_UNREACHABLE,
    NeighbourMessage,
    NextHop,
    NexthopMessage,
    RouteBody,
    RuleMessage,
)
from trio_routes.testing import FakeKernel

V4, V6 = "192.0.2.1", "2001:db8::1"
PREFIX = {V4: "192.0.2.0/24", V6: "2001:db8::/32"}


def says(*hops: NextHop, family: int = AF_INET, type: int = RTN_UNICAST, metric: int = 0, flags: int = 0) -> Answer:
    return Answer(body=RouteBody(family, 254, 32, type=type, nexthops=hops, priority=metric, flags=flags))


def weighed(host: Host, destination: str, answer: Answer) -> str:
    """`agrees`, the reason why a difference is none, or "" for a difference."""
    question = Question(ip_address(destination))
    resolution = question.ask(host.cache)
    return "agrees" if agree(resolution, answer) else exemption(question, resolution, answer, host.cache)


def test_one_of_the_next_hops_agrees_and_another_does_not() -> None:
    host = Host()
    host.add(PREFIX[V4], hop(ETH0, "10.0.0.1"), hop(ETH1, "10.0.1.1"))
    assert weighed(host, V4, says(hop(ETH1, "10.0.1.1"))) == "agrees"
    assert weighed(host, V4, says(hop(ETH1, "10.0.0.1"))) == ""
    assert weighed(host, V4, Answer(errno.ENETUNREACH)) == ""
    assert weighed(host, "8.8.8.8", says(hop(ETH1))) == ""


def test_an_unreachable_route_and_an_unreachable_rule_end_in_different_errors() -> None:
    host = Host()
    host.add(PREFIX[V4], type=RTN_UNREACHABLE)
    assert weighed(host, V4, Answer(errno.EHOSTUNREACH)) == "agrees"
    assert weighed(host, "8.8.8.8", Answer(errno.ENETUNREACH)) == "agrees"
    host.rule(RuleMessage(AF_INET, 1, action=FR_ACT_UNREACHABLE))
    assert weighed(host, V4, Answer(errno.ENETUNREACH)) == "agrees"
    assert weighed(host, V4, Answer(errno.EHOSTUNREACH)) == ""


def test_an_address_of_this_host_is_compared_as_that_and_not_by_link() -> None:
    host = Host()
    host.add("192.0.2.1/32", hop(ETH0), type=RTN_LOCAL)
    assert weighed(host, V4, says(hop(1), type=RTN_LOCAL)) == "an address of this host"
    assert weighed(host, V4, says(hop(ETH0))) == ""


def test_multicast_redirects_and_links_without_carrier_are_no_differences() -> None:
    host = Host()
    host.add(PREFIX[V4], hop(ETH0, "10.0.0.1"), hop(ETH1, "10.0.1.1"))
    assert weighed(host, V4, says(hop(ETH0), type=RTN_BROADCAST)) == "multicast or broadcast"
    assert weighed(host, V4, says(hop(ETH0, "10.0.0.9"), flags=0x40000)) == "a redirect"
    host.cache.state.ignoring_linkdown.add((AF_INET, ETH1))
    host.link(ETH1, UP)
    assert weighed(host, V4, says(hop(ETH1, "10.0.1.1"))) == "a link without carrier"
    assert weighed(host, V4, says(hop(ETH1, "10.0.1.2"))) == ""


@pytest.mark.parametrize("known", [True, False])
def test_another_route_of_the_same_ipv6_prefix_and_metric_is_no_difference(known: bool) -> None:
    host = Host()
    host.add(PREFIX[V6], hop(ETH0, "fe80::1"), hop(ETH1, "fe80::2"), priority=10)
    if known:
        host.add(PREFIX[V6], hop(ETH1), flags=NLM_F_APPEND, priority=10)
    answer = says(hop(ETH1), family=AF_INET6, metric=10)
    assert weighed(host, V6, answer) == "IPv6 routes of one metric"
    assert weighed(host, V6, says(hop(ETH1), family=AF_INET6, metric=11)) == ""
    assert weighed(host, V6, says(hop(ETH1, "fe80::9"), family=AF_INET6, metric=10)) == ""


def test_a_failed_neighbour_and_a_shared_nexthop_object_are_no_differences_of_ipv6() -> None:
    host = Host()
    host.cache.apply_nexthop(NexthopMessage(5, AF_INET6, ifindex=ETH0), gone=False)
    host.add(PREFIX[V6], nexthop_id=5)
    other = says(hop(ETH1, "fe80::2"), family=AF_INET6)
    assert weighed(host, V6, other) == ""
    host.add("2001:db9::/32", nexthop_id=5)
    assert weighed(host, V6, other) == "a shared nexthop object"
    host = Host()
    host.add(PREFIX[V6], hop(ETH0, "fe80::1"))
    assert weighed(host, V6, other) == ""
    host.cache.apply_neighbour(NeighbourMessage(AF_INET6, ETH0, ip_address("fe80::1"), NUD_FAILED), gone=False)
    assert weighed(host, V6, other) == "a failed neighbour"


def test_what_is_about_the_question_or_broken_is_no_answer() -> None:
    assert not is_answer(Answer(errno.ENODEV)) and not is_answer(Answer(errno.EOPNOTSUPP))
    assert is_answer(Answer(errno.EACCES)) and is_answer(says())
    assert read_answer(b"") is None and read_answer(b"\1\2\3") is None


async def test_connections_are_asked_about_by_what_their_path_depends_on() -> None:
    engine = Engine(FakeKernel(), Policy(), None)
    peer, local = ip_address("192.0.2.7"), ip_address("10.0.0.5")
    engine.registry.register(None, flow=Flow(peer=peer, local=local, device=3, mark=7, tos=0x10, uid=1000))
    engine.registry.register(None, flow=Flow(peer=peer, local=local, transparent=True))
    engine.registry.register(None, flow=Flow(peer=ip_address("127.0.0.1"), local=ip_address("127.0.0.1")))
    assert list(engine._questions()) == [Question(peer, local, 3, 7, 0x10, 1000)]
    engine.close()
