"""The tables of one family: longest prefix first, and finding what uses a link without looking at all the rest."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

import pytest
from hypothesis import given, strategies as st

from trio_routes.netlink import AF_INET, RouteBody
from trio_routes.routing import _tables
from trio_routes.routing._nodes import bodies
from trio_routes.routing._tables import RouteTables

from ._build import body, hop


def network_of(address: int, length: int) -> IPv4Network:
    return IPv4Network((address, length), strict=False)


networks = st.builds(
    network_of,
    st.sampled_from([0, 0x0A000000, 0x0A000001, 0x0A800000, 0xC0A80101]),
    st.integers(0, 32),
)


@given(st.lists(networks, max_size=12), st.sampled_from([0x0A000001, 0x0A800001, 0xC0A80101, 0x08080808]))
def test_the_search_yields_all_covering_prefixes_longest_first(known: list[IPv4Network], sought: int) -> None:
    tables = RouteTables(AF_INET)
    for network in known:
        destination, route = body(str(network), hop(2))
        tables.put((254, network.prefixlen, destination), (route,))
    found = [length for length, _ in tables.matching(254, sought)]
    covering = {network.prefixlen for network in known if IPv4Address(sought) in network}
    assert found == sorted(covering, reverse=True)
    assert not list(tables.matching(100, sought))


def test_equal_bodies_are_one_object_however_they_came() -> None:
    tables = RouteTables(AF_INET)
    for last in range(3):
        destination, route = body(f"10.0.{last}.0/24", hop(2, "10.9.0.1"))
        tables.put((254, 24, destination), (route,))
    assert len({id(route.body) for route in tables}) == 1


def test_nodes_are_found_by_link_and_by_nexthop_object() -> None:
    tables = RouteTables(AF_INET)

    def put(prefix: str, *routes: RouteBody) -> tuple[int, int, int]:
        network = IPv4Network(prefix)
        key = (254, network.prefixlen, int(network.network_address))
        tables.put(key, routes)
        return key

    one = put("10.0.0.0/24", body("10.0.0.0/24", hop(2))[1])
    two = put("10.0.1.0/24", body("10.0.1.0/24", hop(3))[1], body("10.0.1.0/24", hop(2), priority=7)[1])
    three = put("10.0.2.0/25", body("10.0.2.0/25", nexthop_id=9)[1])
    assert {key for key, _ in tables.through_link(2, lambda _: True)} == {one, two}
    assert {key for key, _ in tables.through_link(2, lambda route: route.priority == 7)} == {two}
    assert {key for key, _ in tables.by_nexthop({9})} == {three}
    assert tables.through_link(4, lambda _: True) == []
    assert (tables.prefixes(), len(tables)) == (3, 4)


def test_a_prefix_without_routes_is_gone() -> None:
    tables = RouteTables(AF_INET)
    destination, route = body("10.0.0.0/24", hop(2))
    tables.put((254, 24, destination), (route,))
    tables.put((254, 24, destination), ())
    tables.put((99, 24, destination), ())
    assert tables.get((254, 24, destination)) is None and not list(tables) and tables.prefixes() == 0


@pytest.mark.parametrize("piece", [1, 1000])
def test_comparing_names_the_prefixes_that_are_not_the_same(piece: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_tables, "PIECE", piece)
    ours, theirs = RouteTables(AF_INET), RouteTables(AF_INET)
    same, changed = body("10.0.0.0/24", hop(2)), body("10.0.1.0/24", hop(2))
    other = body("10.0.1.0/24", hop(3))[1]
    only = body("10.0.2.0/25", hop(2))
    for tables, routes in ((ours, (same, changed)), (theirs, (same, (changed[0], other), only))):
        for destination, route in routes:
            tables.put((254, route.prefix_length, destination), (route,))
    expected = {(254, 24, changed[0]), (254, 25, only[0])}
    for one, other_one in ((ours, theirs), (theirs, ours)):
        assert {key for keys in one.compare(other_one) for key in keys} == expected
    assert bodies(ours.get((254, 24, changed[0]))) == (changed[1],)


def test_a_prefix_that_is_missing_is_found_although_others_come_and_go_between_the_pieces(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_tables, "PIECE", 2)
    ours, theirs = RouteTables(AF_INET), RouteTables(AF_INET)
    for third in range(10):
        destination, route = body(f"10.0.{third}.0/24", hop(2))
        ours.put((254, 24, destination), (route,))
        if third != 9:
            theirs.put((254, 24, destination), (route,))
    (first, route), (missing, _) = body("10.0.0.0/24", hop(2)), body("10.0.9.0/24", hop(2))
    found = set[tuple[int, int, int]]()
    for turn, keys in enumerate(ours.compare(theirs)):
        found.update(keys)
        # One goes, so that the counts are equal again; and the dict must not be walked while it changes.
        ours.put((254, 24, first), () if turn % 2 == 0 else (route,))
    assert (254, 24, missing) in found


def test_tables_are_taken_apart_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_tables, "PIECE", 2)
    tables = RouteTables(AF_INET)
    for third in range(10):
        destination, route = body(f"10.0.{third}.0/24", hop(2))
        tables.put((254, 24, destination), (route,))
    assert [tables.prefixes() for _ in tables.take_apart()] == [8, 6, 4, 2, 0]
