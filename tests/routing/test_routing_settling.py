"""What of a dump can be believed, whatever came between its parts."""

from __future__ import annotations

from collections.abc import Callable, Generator
from ipaddress import ip_address
from typing import TypeAlias, TypeVar

import attrs
import pytest
from hypothesis import given, strategies as st

from trio_routes.netlink import (
    AF_INET,
    AF_INET6,
    NLM_F_APPEND,
    NLM_F_CREATE,
    NLM_F_EXCL,
    NLM_F_REPLACE,
    NUD_FAILED,
    RTNH_F_DEAD,
    RTNH_F_LINKDOWN,
    AddressMessage,
    LinkMessage,
    NeighbourMessage,
    NetconfMessage,
    NextHop,
    NexthopMessage,
    RouteBody,
    RuleMessage,
)
from trio_routes.routing import (
    EVERYTHING,
    FOUND_BY_DUMP,
    NO_DOUBTS,
    Cache,
    Doubts,
    Part,
    Staging,
    _settling_routes,
    _tables,
)
from trio_routes.routing._nodes import add_ipv4, remove_ipv4
from trio_routes.routing._staging import weigh

from ._build import CARRIER, ETH0, ETH1, ETH2, UP, Host, body, hop

_T = TypeVar("_T")
KEYS = st.sets(st.integers(0, 5))


@given(differing=KEYS, touched=KEYS, contested=st.booleans(), doubts=st.none() | KEYS)
def test_every_difference_is_taken_or_kept_and_only_doubtful_ones_stay_open(
    differing: set[int], touched: set[int], contested: bool, doubts: set[int] | None
) -> None:
    taken, kept, still = weigh(differing, touched, contested, doubts)
    assert sorted(taken + kept) == sorted(differing)
    assert still <= set(kept)
    assert not set(taken) & touched
    assert all(doubts is None or key in doubts for key in still)
    assert all(key in still for key in kept if doubts is None or key in doubts)


def take(staging: Staging, *routes: tuple[int, RouteBody]) -> None:
    """Take routes in as a dump brings them, one after the other."""
    for destination, route in routes:
        staging.take_route(destination, route)


class FakeKernel:
    """One prefix after the other is dumped; between them, routes change, and are spoken of."""

    def __init__(self) -> None:
        self.routes: dict[int, tuple[RouteBody, ...]] = {}

    def change(self, destination: int, route: RouteBody, flags: int | None) -> bool:
        before = self.routes.get(destination, ())
        if flags is None:
            after = remove_ipv4(before, route).routes
        elif route in before:
            return False  # EEXIST
        else:
            after = add_ipv4(before, route, flags).routes
        self.routes[destination] = after
        return after != before


ADD, PREPEND, APPEND = NLM_F_EXCL | NLM_F_CREATE, NLM_F_CREATE, NLM_F_CREATE | NLM_F_APPEND
DESTINATIONS = (1 << 24, 2 << 24, 3 << 24)


def route_of(gateway: str, priority: int) -> RouteBody:
    return RouteBody(AF_INET, 254, 8, priority=priority, nexthops=(hop(2, gateway),))


Change: TypeAlias = tuple[int, RouteBody, int | None]
changes = st.tuples(
    st.sampled_from(DESTINATIONS),
    st.builds(route_of, st.sampled_from(("10.0.0.1", "10.0.0.2")), st.sampled_from((0, 10))),
    st.sampled_from((ADD, PREPEND, APPEND, NLM_F_REPLACE, None)),
)
some = st.lists(changes, max_size=3)


def result_of(pieces: Generator[None, None, _T]) -> _T:
    """What a generator returns, once it has gone through all its pieces."""
    while True:
        try:
            next(pieces)
        except StopIteration as end:
            result: _T = end.value
            return result


def settle_one_by_one(
    cache: Cache, staging: Staging, changes: list[list[Change]], happen: Callable[[list[Change]], None], decided: int
) -> Doubts:
    """Settle in pieces of one prefix, or a few, and have something happen after each; what is left over, at the end."""
    meanwhile = iter(changes)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_tables, "PIECE", 1)
        patch.setattr(_settling_routes, "PIECE", 1)
        patch.setattr(_settling_routes, "DECIDED", decided)
        pieces = cache.settle_in_pieces(staging)
        while True:
            try:
                next(pieces)
            except StopIteration as end:
                still: Doubts = end.value
                for late in meanwhile:
                    happen(late)
                return still
            happen(next(meanwhile, list[Change]()))


@given(
    before=st.lists(changes, max_size=8),
    missed=st.lists(changes, max_size=4),
    passes=st.lists(st.lists(some, min_size=14, max_size=14), max_size=3),
    known=st.booleans(),
    recording=st.booleans(),
    decided=st.integers(1, 4),
)
def test_once_nothing_is_doubtful_the_cache_equals_the_kernel(
    *,
    before: list[Change],
    missed: list[Change],
    passes: list[list[list[Change]]],
    known: bool,
    recording: bool,
    decided: int,
) -> None:
    kernel, cache = FakeKernel(), Cache()
    if recording:
        cache.start_recording()

    def happen(what: list[Change], *, heard: bool = True) -> None:
        for destination, route, flags in what:
            if kernel.change(destination, route, flags) and heard:
                if flags is None:
                    cache.remove_route(destination, route)
                else:
                    cache.add_route(destination, route, flags)

    happen(before)
    if not known:  # an audit starts from a cache that has missed nothing; everything else from one that may have
        happen(missed, heard=False)
    doubts: Doubts = NO_DOUBTS if known else EVERYTHING
    undisturbed: list[list[Change]] = [[] for _ in range(8)]
    for between in (*passes, undisturbed):
        staging = cache.stage(Part.IPV4_ROUTES, doubts)
        happen(between[0])
        for destination, then in zip(DESTINATIONS, between[1:4], strict=True):
            take(staging, *((destination, route) for route in kernel.routes.get(destination, ())))
            happen(then)
        doubts = settle_one_by_one(cache, staging, between[4:], happen, decided)
        assert doubts is not EVERYTHING
        if not doubts:
            break
    assert not doubts
    followed: dict[int, tuple[RouteBody, ...]] = {}
    for route in cache.routes():
        followed[route.address] = (*followed.get(route.address, ()), route.body)
    assert followed == {destination: routes for destination, routes in kernel.routes.items() if routes}


def test_a_dump_of_nothing_known_that_the_kernel_contradicted_is_not_believed() -> None:
    host = Host()
    staging = host.cache.stage(Part.IPV4_ROUTES, EVERYTHING)
    take(staging, body("192.0.2.0/24", hop(ETH0)))
    host.link(ETH0, 0)  # takes the route away without a word
    assert host.cache.settle(staging) is EVERYTHING
    assert host.way("192.0.2.1") == "no route"


def test_an_audit_that_a_link_contradicted_keeps_what_the_cache_derived() -> None:
    host = Host()
    host.add("192.0.2.0/24", hop(ETH0))
    host.cache.take_changes()
    staging = host.cache.stage(Part.IPV4_ROUTES, NO_DOUBTS)
    take(staging, body("192.0.2.0/24", hop(ETH0)), body("198.51.100.0/24", hop(ETH1)))
    host.link(ETH0, 0)
    assert not host.cache.settle(staging)
    assert host.way("192.0.2.1") == "no route" and host.way("198.51.100.1") == (ETH1, None)


def test_what_an_audit_says_of_ways_by_a_link_that_came_up_meanwhile_does_not_count() -> None:
    host = Host()
    host.link(ETH0, 0)
    dead = [NextHop(ifindex, None, flags=RTNH_F_DEAD | RTNH_F_LINKDOWN) for ifindex in (ETH0, ETH1)]
    host.add("192.0.2.0/24", hop(ETH0), hop(ETH1), hop(ETH2))
    staging = host.cache.stage(Part.IPV4_ROUTES, NO_DOUBTS)
    take(staging, body("192.0.2.0/24", *dead, hop(ETH2)))
    host.link(ETH0, UP | CARRIER)
    host.cache.settle(staging)
    assert [way.ifindex for way in host.lookup("192.0.2.1").hops] == [ETH0, ETH2]


def test_what_a_contested_dump_says_of_doubtful_entries_stays_open() -> None:
    host = Host()
    destination, route = body("192.0.2.0/24", hop(ETH0))
    staging = host.cache.stage(Part.IPV4_ROUTES, {(254, 24, destination)})
    take(staging, (destination, route))
    host.link(ETH0, 0)
    assert host.cache.settle(staging) == {(254, 24, destination)}


def test_a_dump_replaces_every_other_part_too_and_says_what_was_different() -> None:
    host = Host()
    host.address(ETH0, "10.0.0.5/24")
    host.cache.take_changes()
    cache = host.cache

    staging = cache.stage(Part.LINKS, EVERYTHING)
    staging.take_link(LinkMessage(1, "lo", UP | CARRIER | 8))
    staging.take_link(LinkMessage(ETH0, "eth0", UP))
    staging.take_link(LinkMessage(9, "port", UP, family=7))
    assert not cache.settle(staging)
    assert set(cache.links) == {1, ETH0} and cache.links[ETH0].flags == UP

    staging = cache.stage(Part.ADDRESSES, EVERYTHING)
    staging.take_address(AddressMessage(AF_INET6, ETH0, ip_address("fd00::5"), 64))
    assert not cache.settle(staging)
    assert [str(address.address) for address in cache.addresses()] == ["fd00::5"]

    staging = cache.stage(Part.IPV4_SWITCHES, EVERYTHING)
    staging.take_switches(NetconfMessage(AF_INET, ETH0, ignore_routes_with_linkdown=1))
    staging.take_switches(NetconfMessage(AF_INET, ETH1, ignore_routes_with_linkdown=0))
    assert not cache.settle(staging)
    assert cache.state.ignoring_linkdown == {(AF_INET, ETH0)}

    staging = cache.stage(Part.NEXTHOPS, EVERYTHING)
    staging.take_nexthop(NexthopMessage(5, AF_INET, ifindex=ETH0))
    assert not cache.settle(staging)
    assert set(cache.state.nexthops) == {5}

    staging = cache.stage(Part.IPV4_RULES, EVERYTHING)
    staging.take_rule(RuleMessage(AF_INET, 7, 100))
    staging.take_rule(RuleMessage(128, 7, 100))
    assert not cache.settle(staging)
    assert [rule.priority for rule in cache.rules(AF_INET)] == [7]
    assert len(cache.rules(AF_INET6)) == 2

    staging = cache.stage(Part.NEIGHBOURS, EVERYTHING)
    staging.take_neighbour(NeighbourMessage(AF_INET, ETH0, ip_address("10.0.0.9"), NUD_FAILED))
    assert not cache.settle(staging)
    assert cache.neighbour_failed(ETH0, ip_address("10.0.0.9"))

    batch = cache.take_changes()
    causes = [change.cause for change in batch.links]
    causes += [change.cause for change in batch.addresses]
    causes += [change.cause for change in batch.rules]
    assert set(causes) == {FOUND_BY_DUMP}
    assert (len(batch.links), len(batch.addresses), len(batch.rules), len(batch.neighbours)) == (3, 2, 3, 1)
    assert batch.everything


def test_rules_that_changed_under_their_dump_are_dumped_again_unless_they_are_known() -> None:
    host = Host()
    for doubts, expected in ((EVERYTHING, {"rules"}), (NO_DOUBTS, set[str]())):
        staging = host.cache.stage(Part.IPV4_RULES, doubts)
        staging.take_rule(RuleMessage(AF_INET, 7, 100))
        host.rule(RuleMessage(AF_INET, 8, 100), gone=doubts is NO_DOUBTS)
        assert host.cache.settle(staging) == expected
        assert 7 not in [rule.priority for rule in host.cache.rules(AF_INET)]


def test_an_audit_finds_what_was_missed() -> None:
    host = Host()
    missed, stale, changed = body("192.0.2.0/24", hop(ETH0)), "198.51.100.0/24", "203.0.113.0/24"
    host.add(stale, hop(ETH0))
    host.add(changed, hop(ETH0))
    host.cache.take_changes()
    staging = host.cache.stage(Part.IPV4_ROUTES, NO_DOUBTS)
    take(staging, missed, body(changed, hop(ETH1)))
    host.cache.settle(staging)
    batch = host.cache.take_changes()
    kinds = sorted((change.old is not None, change.new is not None) for change in batch.routes)
    assert kinds == [(False, True), (True, False), (True, True)]
    assert host.way("192.0.2.1") == (ETH0, None) and host.way("203.0.113.1") == (ETH1, None)
    assert host.way("198.51.100.1") == "no route"


def test_a_default_gateway_that_a_dump_corrects_is_a_gateway_change() -> None:
    host = Host()
    host.add("0.0.0.0/0", hop(ETH0, "10.0.0.1"))
    host.cache.take_changes()
    staging = host.cache.stage(Part.IPV4_ROUTES, EVERYTHING)
    take(staging, body("0.0.0.0/0", hop(ETH0, "10.0.0.2")))
    host.cache.settle(staging)
    (change,) = host.cache.take_changes().gateways
    assert [str(way.gateway) for way in change.after] == ["10.0.0.2"]


def test_a_route_that_the_kernels_dump_hides_is_kept_by_an_audit_only() -> None:
    # A route between two siblings of its metric is left out of the dump, and is there nevertheless.
    for doubts, expected in ((NO_DOUBTS, 2), (EVERYTHING, 1)):
        host = Host()
        group = body("2001:db8::/32", hop(ETH0, "fe80::1"), hop(ETH1, "fe80::2"))
        host.add("2001:db8::/32", *group[1].nexthops)
        host.add("2001:db8::/32", hop(ETH0), flags=NLM_F_APPEND)
        host.cache.take_changes()
        staging = host.cache.stage(Part.IPV6_ROUTES, doubts)
        take(staging, group)
        host.cache.settle(staging)
        assert len(host.routes("2001:db8::/32")) == expected
        assert len(host.cache.take_changes().routes) == 2 - expected


@pytest.mark.parametrize("believed", [True, False])
def test_what_a_dump_leaves_behind_is_freed_piece_by_piece_whether_it_was_believed_or_not(
    monkeypatch: pytest.MonkeyPatch, believed: bool
) -> None:
    # A hundred thousand entries freed in one go stop the loop for 20 ms.
    monkeypatch.setattr(_settling_routes, "PIECE", 4)
    host = Host()
    living = host.cache.state.tables[AF_INET]
    staging = host.cache.stage(Part.IPV4_ROUTES, EVERYTHING)
    staged = staging.state.tables[AF_INET]
    for number in range(20):
        host.add(f"10.0.{number}.0/24", hop(ETH0))
        staging.take_route(*body(f"10.1.{number}.0/24", hop(ETH0)))
    if not believed:
        host.link(ETH1, 0)  # its routes went without a word, whichever they were
    pieces = host.cache.settle_in_pieces(staging)
    left = [(unused.prefixes(), len(staging.touched)) for _ in pieces for unused in [living if believed else staged]]
    assert host.cache.state.tables[AF_INET] is (staged if believed else living)
    assert left[-1] == (0, 4)


def test_much_that_is_doubtful_is_decided_in_pieces_also_where_hardly_a_route_is_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # After a storm in which all that came has gone again: forty thousand prefixes took a single step of 50 ms.
    monkeypatch.setattr(_settling_routes, "PIECE", 8)
    monkeypatch.setattr(_settling_routes, "DECIDED", 2)
    cache = Cache()
    few, many = ({(254, 24, number << 8) for number in range(count)} for count in (6, 20))
    assert [len(list(cache.settle_in_pieces(cache.stage(Part.IPV4_ROUTES, doubts)))) for doubts in (few, many)] == [
        0,
        10,
    ]


def test_routes_of_another_family_in_a_dump_are_left_out() -> None:
    # A kernel without IPv6 answers a request for IPv6 routes with those of all families.
    cache = Cache()
    staging = cache.stage(Part.IPV6_ROUTES, EVERYTHING)
    take(staging, body("192.0.2.0/24", hop(ETH0)))
    cache.settle(staging)
    assert not list(cache.routes())


def test_after_a_resync_only_the_net_difference_is_a_change() -> None:
    host = Host()
    host.address(ETH0, "10.0.0.5/24")
    host.address(ETH0, "10.0.0.6/24")
    host.add("192.0.2.0/24", hop(ETH0))
    host.add("0.0.0.0/0", hop(ETH0, "10.0.0.1"))
    host.cache.take_changes()
    host.remove("192.0.2.0/24", hop(ETH0))
    host.add("192.0.2.0/24", hop(ETH0))
    host.remove("0.0.0.0/0", hop(ETH0, "10.0.0.1"))
    host.add("0.0.0.0/0", hop(ETH0, "10.0.0.2"))
    host.address(ETH0, "10.0.0.5/24", gone=True)
    host.address(ETH0, "10.0.0.5/24")
    host.link(ETH1, 0)
    host.link(ETH1, UP | CARRIER)
    host.rule(RuleMessage(AF_INET, 7, 100))
    host.rule(RuleMessage(AF_INET, 7, 100), gone=True)
    for state in (NUD_FAILED, 2):
        host.cache.apply_neighbour(NeighbourMessage(AF_INET, ETH0, ip_address("10.0.0.9"), state), gone=False)
    batch = result_of(host.cache.take_net_changes("for a test"))
    assert not (batch.links or batch.addresses or batch.rules or batch.neighbours)
    (replaced,) = batch.routes
    assert replaced.old_route is not None and replaced.new_route is not None
    assert replaced.old_route.gateways == (ip_address("10.0.0.1"),)
    assert replaced.new_route.gateways == (ip_address("10.0.0.2"),)
    assert batch.resynced == "for a test" and batch.everything and batch.generation == host.cache.generation


@pytest.mark.parametrize("prefix", ["192.0.2.0/24", "2001:db8::/32"])
def test_a_repeated_message_in_a_dump_is_one_route(prefix: str) -> None:
    cache = Cache()
    part = Part.IPV4_ROUTES if "." in prefix else Part.IPV6_ROUTES
    staging = cache.stage(part, EVERYTHING)
    destination, route = body(prefix, hop(ETH0))
    take(staging, (destination, route), (destination, attrs.evolve(route)), (destination, route))
    cache.settle(staging)
    assert len(list(cache.routes())) == 1
