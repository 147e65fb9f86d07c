"""Messages that a kernel does not send, or not so: damaged, twice, out of order, of things that nobody knows."""

from __future__ import annotations

from collections import Counter
from ipaddress import ip_address

import pytest
from hypothesis import given, settings, strategies as st

from tests.fuzz_kernel._twins import picture
from tests.netlink.recording import ALL_DATAGRAMS, MESSAGES, Recorded, damaged
from trio_routes import NetlinkDecodeError
from trio_routes._announce import announce
from trio_routes._broadcast import Broadcast
from trio_routes._intake import Intake
from trio_routes.netlink import (
    AF_INET,
    AF_INET6,
    NLM_F_APPEND,
    NLM_F_CREATE,
    NLM_F_REPLACE,
    NUD_FAILED,
    RTN_MULTICAST,
    MessageType,
    NeighbourMessage,
    NetconfMessage,
    NexthopMessage,
    RouteBody,
    RuleMessage,
    attribute,
    build_message,
)
from trio_routes.routing import EVERYTHING, NO_DOUBTS, Cache, Part

from ._build import CARRIER, ETH0, ETH1, UP, Host, body, hop

DESTINATIONS = tuple(map(ip_address, ("10.0.0.1", "192.0.2.1", "2001:db8::1", "fe80::1", "255.255.255.255", "ff02::1")))
NOTIFICATIONS = [message for message in MESSAGES if message.header.type >= MessageType.RTM_NEWLINK]


def look_at_everything(cache: Cache) -> None:
    """Do what applications and the pt's other parts do with a cache."""
    announce(cache.take_changes(), Broadcast(), 0.0)
    for destination in DESTINATIONS:
        str(cache.lookup(destination))
        str(cache.lookup(destination, source=destination, oif=ETH0, mark=7, uid=1, strict=True))
        cache.local_route(destination)
    for route in cache.routes():
        str(route)
    for family in (AF_INET, AF_INET6):
        str(cache.rules(family))
    str(list(cache.addresses()))


@settings(max_examples=300, deadline=None)
@given(st.lists(damaged(ALL_DATAGRAMS) | st.binary(max_size=200), max_size=8))
def test_damaged_datagrams_end_or_raise_and_lookups_still_answer(datagrams: list[bytes]) -> None:
    host = Host()
    intake = Intake(host.cache)
    for data in datagrams:
        try:
            intake.apply(data)
        except NetlinkDecodeError:
            pass  # the follow task reads everything anew
        look_at_everything(host.cache)


@settings(max_examples=200, deadline=None)
@given(st.lists(damaged(ALL_DATAGRAMS), max_size=4), st.sampled_from(Part))
def test_damaged_dumps_end_or_raise_and_lookups_still_answer(datagrams: list[bytes], part: Part) -> None:
    host = Host()
    intake = Intake(host.cache)
    staging = host.cache.stage(part, None)
    for data in datagrams:
        try:
            intake.stage(staging, data)
        except NetlinkDecodeError:
            pass
    host.cache.settle(staging)
    look_at_everything(host.cache)


recorded = st.lists(st.sampled_from(NOTIFICATIONS), max_size=60)


@settings(max_examples=100, deadline=None)
@given(recorded)
def test_a_message_that_comes_twice_changes_nothing_the_second_time(messages: list[Recorded]) -> None:
    cache = Cache()
    cache.start_recording()
    intake = Intake(cache)
    for message in messages:  # in any order, from several recordings: DELs of things unknown are among them
        intake.apply(message.whole)
        before = picture(cache.state)
        cache.take_changes()
        intake.apply(message.whole)
        assert picture(cache.state) == before
        again = cache.take_changes()
        assert not again.routes and not again.links and not again.addresses and not again.rules
    look_at_everything(cache)


@settings(max_examples=100, deadline=None)
@given(recorded, st.integers(0x100, 0x3FFF), st.binary(max_size=40))
def test_attributes_of_unknown_types_change_nothing(messages: list[Recorded], kind: int, value: bytes) -> None:
    plain, decorated = Cache(), Cache()
    for message in messages:
        header = message.header
        payload = message.payload + b"\0" * (-len(message.payload) % 4) + attribute(kind, value)
        Intake(plain).apply(message.whole)
        Intake(decorated).apply(build_message(header.type, header.flags, header.sequence, payload, port=header.port))
    assert picture(plain.state) == picture(decorated.state)


@settings(max_examples=60, deadline=None)
@given(recorded.flatmap(lambda messages: st.tuples(st.just(messages), st.permutations(messages))))
def test_messages_in_another_order_are_put_right_by_the_next_dump(both: tuple[list[Recorded], list[Recorded]]) -> None:
    right, shuffled = Cache(), Cache()
    for cache, messages in zip((right, shuffled), both, strict=True):
        for message in messages:
            Intake(cache).apply(message.whole)
        cache.start_recording()
    missing = Counter(shuffled.routes())
    for part in (Part.IPV4_ROUTES, Part.IPV6_ROUTES):
        staging = shuffled.stage(part, EVERYTHING)
        for route in right.routes():
            staging.take_route(route.address, route.body)
        assert shuffled.settle(staging) == NO_DOUBTS
    assert Counter(shuffled.routes()) == Counter(right.routes())
    for change in shuffled.take_changes().routes:
        missing.subtract([change.old_route] if change.old_route is not None else [])
        missing.update([change.new_route] if change.new_route is not None else [])
    assert +missing == Counter(right.routes())  # nothing was changed but what was told
    look_at_everything(shuffled)


families = st.sampled_from((0, 5, AF_INET, AF_INET6, 28, 128, 129, 255))
hops = st.lists(st.builds(hop, st.integers(0, 6), st.sampled_from((None, "10.0.0.1", "fe80::1"))), max_size=3)
strange_bodies = st.builds(
    RouteBody,
    families,
    st.sampled_from((0, 254, 255, 1000, 0xFFFFFFFF)),
    st.integers(0, 32),
    type=st.integers(0, 255),
    protocol=st.integers(0, 255),
    scope=st.integers(0, 255),
    priority=st.sampled_from((0, 10, 0xFFFFFFFF)),
    nexthops=hops.map(tuple),
    multipath=st.booleans(),
    nexthop_id=st.integers(0, 3),
    preference=st.integers(0, 255),
    tos=st.integers(0, 255),
)
flags = st.sampled_from((0, NLM_F_CREATE, NLM_F_CREATE | NLM_F_APPEND, NLM_F_REPLACE, 0xFFFF))
groups = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 300)), max_size=3).map(tuple)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_strange_routes_rules_and_objects_never_break_a_lookup(data: st.DataObject) -> None:
    host = Host()
    cache = host.cache
    for _ in range(data.draw(st.integers(1, 12))):
        gone = data.draw(st.booleans())
        match data.draw(st.integers(0, 4)):
            case 0:
                cache.add_route(data.draw(st.integers(0, 2**32 - 1)), data.draw(strange_bodies), data.draw(flags))
            case 1:
                cache.remove_route(data.draw(st.integers(0, 2**32 - 1)), data.draw(strange_bodies))
            case 2:
                family, action, goto = data.draw(families), data.draw(st.integers(0, 255)), data.draw(st.integers(0, 9))
                cache.apply_rule(RuleMessage(family, goto, 254, action, goto=goto), gone)
            case 3:
                number, group = data.draw(st.integers(0, 3)), data.draw(groups)
                cache.apply_nexthop(NexthopMessage(number, ifindex=data.draw(st.integers(0, 6)), group=group), gone)
            case _:
                ifindex = data.draw(st.sampled_from((ETH0, ETH1)))
                host.link(ifindex, data.draw(st.sampled_from((0, UP, UP | CARRIER))))
        look_at_everything(cache)


def test_the_removal_of_an_address_that_nobody_has_takes_no_route() -> None:
    host = Host()
    made = host.add("192.0.2.0/24", hop(ETH0))  # a link can have routes and no address
    host.cache.take_changes()
    host.address(ETH0, "10.0.0.5/24", gone=True)
    assert host.routes("192.0.2.0/24") == [made]
    assert not host.cache.take_changes().routes
    assert host.cache.suspect == {Part.IPV4_ROUTES}


def test_nothing_of_a_link_that_is_gone_falls_to_the_next_one_of_its_number() -> None:
    host = Host()
    cache = host.cache
    host.address(ETH0, "10.0.0.5/24")
    host.add("192.0.2.0/24", hop(ETH0, "10.0.0.1"))
    host.add("198.51.100.0/24", hop(ETH0, "10.0.0.1"), hop(ETH1, "10.0.1.1"))
    host.add("2001:db8::/32", hop(ETH0, "fe80::1"), hop(ETH1, "fe80::2"))
    host.add("ff00::/8", hop(ETH0), table=255, type=RTN_MULTICAST)
    host.remove("ff00::/8", hop(ETH0), table=255, type=RTN_MULTICAST)  # its IPv6 ways are dead now
    cache.apply_nexthop(NexthopMessage(7, AF_INET, ifindex=ETH0, gateway=ip_address("10.0.0.1")), gone=False)
    cache.apply_neighbour(
        NeighbourMessage(AF_INET, ETH0, state=NUD_FAILED, destination=ip_address("10.0.0.1")), gone=False
    )
    cache.apply_switches(NetconfMessage(AF_INET6, ETH0, ignore_routes_with_linkdown=1), gone=False)
    host.remove_link(ETH0)
    host.link(ETH0, UP | CARRIER)
    assert not list(cache.state.addresses.on_link(ETH0, AF_INET))
    assert not cache.state.nexthops and not cache.state.ignoring_linkdown and not cache.state.dead_ways
    assert not cache.neighbour_failed(ETH0, ip_address("10.0.0.1"))
    assert [str(route) for route in cache.routes()] == [f"2001:db8::/32 via fe80::2 dev {ETH1} table 254"]


@pytest.mark.parametrize("family", [AF_INET, AF_INET6])
def test_the_removal_of_an_unknown_route_takes_no_other(family: int) -> None:
    host = Host()
    prefix, gateway, other = (
        ("192.0.2.0/24", "10.0.0.1", "10.0.0.2") if family == AF_INET else ("2001:db8::/48", "fe80::1", "fe80::2")
    )
    made = host.add(prefix, hop(ETH0, gateway), priority=10)
    for strange in (
        body(prefix, hop(ETH0, other), priority=10),
        body(prefix, hop(ETH1, gateway), priority=10),
        body(prefix, hop(ETH0, gateway), priority=11),
        body(prefix, hop(ETH0, gateway), priority=10, table=1000),
        body(prefix, priority=10, nexthop_id=9),
    ):
        host.cache.remove_route(*strange)
    assert host.routes(prefix) == [made]
