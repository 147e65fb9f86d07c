"""The book of nodes: each once, with a number, as long as somebody uses it; and what the tables make of it."""

from __future__ import annotations

import gc
import itertools
from collections import deque
from collections.abc import Iterable, Iterator
from ipaddress import ip_address

import attrs
import pytest
from hypothesis import given, settings, strategies as st

from trio_routes.netlink import AF_INET, AF_INET6, RouteBody
from trio_routes.routing import _places, _tables
from trio_routes.routing._book import Book
from trio_routes.routing._nodes import bodies
from trio_routes.routing._tables import NodeKey, RouteTables

from ._build import body, hop, wide_body

# Bodies of one prefix length, by links 2 to 4; the metrics make them different routes of one prefix.
_WAYS = [(ifindex, metric) for ifindex in (2, 3, 4) for metric in (0, 1)]
WIDE = 0x20010DB8 << 96


def route_to(length: int, ifindex: int, metric: int, family: int = AF_INET) -> RouteBody:
    if family == AF_INET:
        return body(f"0.0.0.0/{length}", hop(ifindex), priority=metric)[1]
    return wide_body(length, hop(ifindex), priority=metric)


def test_a_node_has_its_number_while_it_is_used_and_a_later_one_takes_it_over() -> None:
    book = Book()
    one, other = route_to(24, 2, 0), route_to(24, 3, 0)
    number = book.number_of((one,))
    book.uses[number] += 2
    assert book.number_of((one,)) == book.find(one) == number
    book.release(number)
    assert book.nodes[number] is one and one in book and list(book.by_link(2)) == [one]
    book.release(number)
    assert book.find(one) is None and one not in book and not book.by_link(2) and not list(book.bodies())
    assert book.number_of((other,)) == number and book.nodes[number] is other


def test_a_body_is_known_as_long_as_one_node_holds_it() -> None:
    book = Book()
    one, other = route_to(24, 2, 0), route_to(24, 3, 1)
    alone, both = book.number_of((one,)), book.number_of((one, other))
    for number in (alone, both):
        book.uses[number] += 1
    assert book.holding([one]) == {(254, 24): {alone, both}}
    book.release(alone)
    assert book.holding([one]) == {(254, 24): {both}} and one in book
    book.release(both)
    assert one not in book and other not in book


edits = st.lists(
    st.tuples(
        st.sampled_from([8, 16, 24, 32]),
        st.integers(0, 11),
        st.lists(st.sampled_from(_WAYS), max_size=2, unique=True),
    ),
    max_size=60,
)


def scattered(length: int, number: int, family: int) -> int:
    """One of a dozen prefixes of a length, in several buckets."""
    if family == AF_INET:
        return number << (24 if length == 8 else 16) if length < 24 else number << 16 | number << (32 - length)
    return WIDE | number << 80 | number


@settings(deadline=None)
@given(edits, st.sampled_from([AF_INET, AF_INET6]), st.data())
def test_tables_that_are_split_answer_as_a_plain_dict_does(
    made: list[tuple[int, int, list[tuple[int, int]]]], family: int, data: st.DataObject
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_tables, "SPLIT", 3)
        tables, plain = RouteTables(family), dict[NodeKey, tuple[RouteBody, ...]]()
        for length, number, ways in made:
            length = length if family == AF_INET else {8: 32, 16: 48, 24: 64, 32: 128}[length]
            width = 32 if family == AF_INET else 128
            destination = scattered(length, number, family) >> (width - length) << (width - length)
            routes = tuple(route_to(length, *way, family) for way in ways)
            key = (254, length, destination)
            tables.put(key, routes)
            plain.pop(key, None)
            if routes:
                plain[key] = routes
        assert_same(tables, plain)
        sought = data.draw(st.sampled_from([0, *(key[2] for key in plain)]))
        covering = sorted((key for key in plain if covers(key, sought, tables.width)), key=lambda key: -key[1])
        assert [length for length, _ in tables.matching(254, sought)] == [key[1] for key in covering]
        assert bodies(tables.finder(254)(sought)) == (plain[covering[0]] if covering else ())
        # Everything goes: nothing is left behind in the book.
        for key in list(plain):
            tables.put(key, ())
        assert not list(tables.bodies()) and not len(tables) and not tables.prefixes()
        assert all(not tables.bodies_by(ifindex) for ifindex in (2, 3, 4))


def covers(key: NodeKey, address: int, width: int) -> bool:
    shift = width - key[1]
    return key[2] >> shift == address >> shift


def assert_same(tables: RouteTables, plain: dict[NodeKey, tuple[RouteBody, ...]]) -> None:
    assert {key: bodies(node) for key, node in tables.items()} == plain
    assert all(tables.at(key) == routes for key, routes in plain.items())
    assert (tables.prefixes(), len(tables)) == (len(plain), sum(map(len, plain.values())))
    assert len(list(tables)) == len(tables)
    assert set(tables.bodies()) == {route for routes in plain.values() for route in routes}
    for ifindex in (2, 3, 4):
        held = sorted(key for key, routes in plain.items() if any(uses(route, ifindex) for route in routes))
        assert [key for key, _ in tables.through_link(ifindex, lambda _: True)] == held


def uses(route: RouteBody, ifindex: int) -> bool:
    return any(hop.ifindex == ifindex for hop in route.nexthops)


ways_to_change = st.dictionaries(st.sampled_from(_WAYS), st.none() | st.sampled_from([(5, 0), *_WAYS]), max_size=4)


@settings(deadline=None)
@given(edits, ways_to_change)
def test_bodies_are_exchanged_under_all_prefixes_as_one_by_one(
    made: list[tuple[int, int, list[tuple[int, int]]]], exchanged: dict[tuple[int, int], tuple[int, int] | None]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_tables, "SPLIT", 3)
        tables, plain = RouteTables(AF_INET), dict[NodeKey, tuple[RouteBody, ...]]()
        for length, number, ways in made:
            key = (254, length, scattered(length, number, AF_INET) >> (32 - length) << (32 - length))
            plain.pop(key, None)
            if ways:
                plain[key] = tuple(route_to(length, *way) for way in ways)
            tables.put(key, plain.get(key, ()))
        changing = {
            route_to(length, *old): None if new is None else route_to(length, *new)
            for length in (8, 16, 24, 32)
            for old, new in exchanged.items()
        }
        before = [(key, routes) for key, routes in sorted(plain.items()) if any(route in changing for route in routes)]
        seen = [
            ((each.table, each.length, destination), bodies(each.before[number]))
            for each in tables.exchange(changing)
            for destination, number in zip(each.destinations, each.numbers, strict=True)
        ]
        assert seen == before
        for key, routes in before:
            left = tuple(new for route in routes if (new := changing.get(route, route)) is not None)
            plain.pop(key)
            if left:
                plain[key] = left
        assert_same(tables, plain)


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 2), st.lists(st.integers(0, 300), min_size=1, max_size=20)), max_size=12),
    st.sampled_from([8, 8192]),
)
def test_what_is_loaded_in_runs_is_what_is_put_one_by_one(runs: list[tuple[int, list[int]]], split: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_tables, "SPLIT", split)
        tables, plain = RouteTables(AF_INET), dict[NodeKey, tuple[RouteBody, ...]]()
        routes = [route_to(24, 2, metric) for metric in range(3)]
        homes = [tables.home_of(route) for route in routes]
        for way, numbers in runs:
            # 300 neighbouring /24s, on both sides of a bucket's end.
            destinations = [0x0A00F000 + (number << 8) for number in numbers]
            tables.load([homes[way]] * len(destinations), destinations)
            for destination in destinations:
                known = plain.get((254, 24, destination), ())
                if routes[way] not in known:
                    plain[254, 24, destination] = (*known, routes[way])
        deque(tables.loaded(), 0)
        assert {key: bodies(node) for key, node in tables.items()} == plain
        assert (tables.prefixes(), len(tables)) == (len(plain), sum(map(len, plain.values())))
        assert set(tables.bodies()) == {route for known in plain.values() for route in known}
        for key in plain:
            tables.put(key, ())
        assert not list(tables.bodies())


@pytest.mark.parametrize("each", [1, 7, 400])
def test_what_was_loaded_is_counted_in_pieces_however_few_prefixes_a_dict_has(
    each: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_tables, "PIECE", 10)
    tables, loaded = RouteTables(AF_INET), 0
    for table in range(1, 1 + 400 // each):
        homes = [tables.home_of(attrs.evolve(route_to(24, 2, 0), table=table))] * each
        tables.load(homes, [number << 8 for number in range(each)])
        loaded += each
    counted = [0, *(tables.prefixes() for _ in tables.loaded()), tables.prefixes()]
    assert counted[-1] == loaded
    assert max(after - before for before, after in itertools.pairwise(counted)) <= 10


def churned() -> Iterator[tuple[int, RouteBody]]:
    for metric in range(2_000):
        yield body("10.1.0.0/16", hop(2, str(ip_address(0x0A090000 + metric))), priority=metric)


def test_bodies_that_come_and_go_for_ever_leave_nothing_behind() -> None:
    tables = RouteTables(AF_INET)
    for destination, each in churned():
        tables.put((254, 16, destination), (each,))
    *_, (_, route) = churned()
    assert len(tables._book.nodes) == 2  # the old one is released once the new one is in its place
    assert list(tables.bodies()) == [route] and list(tables.bodies_by(2)) == [route]


def walked(tables: RouteTables) -> Iterable[dict[int, int]]:
    return (nodes for place in tables._places.values() for nodes in place.dicts if gc.is_tracked(nodes))


@pytest.mark.skipif(not gc.is_tracked({0: []}) or gc.is_tracked({0: 0}), reason="this Python walks through every dict")
def test_the_collector_does_not_walk_through_the_tables() -> None:
    tables = RouteTables(AF_INET)
    tables.load([tables.home_of(route_to(24, 2, 0))] * 10_000, [number << 8 for number in range(10_000)])
    tables.put((254, 24, 0), (route_to(24, 3, 0),))
    tables.put((254, 24, 256), (route_to(24, 2, 0), route_to(24, 2, 1)))
    tables.put((254, 24, 512), ())
    assert len(tables._places[254, 24].dicts) == _places.BUCKETS
    assert list(walked(tables)) == []
