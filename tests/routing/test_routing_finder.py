"""The search that is written out for a table: what it answers while the table changes under it, and what it is made of."""

from __future__ import annotations

from ipaddress import ip_network

import pytest
from hypothesis import given, settings, strategies as st

from trio_routes.netlink import AF_INET, AF_INET6
from trio_routes.routing import _tables
from trio_routes.routing._finder import finder
from trio_routes.routing._nodes import Node, node_of
from trio_routes.routing._overlaid_tables import OverlaidTables
from trio_routes.routing._places import BUCKETS, Search
from trio_routes.routing._tables import NodeKey, RouteTables

from ._build import body, hop, wide_body

# Lengths that can be split and such that cannot; addresses that share few bits, in several buckets.
LENGTHS = {AF_INET: (0, 8, 16, 24, 32), AF_INET6: (0, 32, 48, 64, 128)}
edits = st.lists(
    st.tuples(st.sampled_from([0, 1, 2, 3, 4]), st.integers(0, 11), st.sampled_from([0, 2, 3])), max_size=60
)


def address_of(number: int, family: int) -> int:
    """One of a dozen addresses."""
    shift = 0 if family == AF_INET else 64
    return (number << 24 | number << 16 | number << 8 | number) << shift


@settings(deadline=None)
@given(edits, st.sampled_from([AF_INET, AF_INET6]), st.booleans())
def test_it_finds_the_longest_prefix_after_every_change_of_the_table(
    made: list[tuple[int, int, int]], family: int, overlaid: bool
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_tables, "SPLIT", 3)
        tables, plain = RouteTables(family), dict[NodeKey, Node]()
        width = tables.width
        for at, number, ifindex in made:
            length = LENGTHS[family][at]
            key = (254, length, address_of(number, family) >> (width - length) << (width - length))
            route = (
                wide_body(length, hop(ifindex)) if family == AF_INET6 else body(f"0.0.0.0/{length}", hop(ifindex))[1]
            )
            routes = (route,) if ifindex else ()
            tables.put(key, routes)
            plain.pop(key, None)
            node = node_of(routes)
            if node is not None:
                plain[key] = node
            asked = OverlaidTables(tables) if overlaid else tables
            for sought in range(12):
                address = address_of(sought, family)
                assert asked.finder(254)(address) == longest(plain, address, width)
                assert asked.finder(253)(address) is None


def longest(plain: dict[NodeKey, Node], address: int, width: int) -> Node | None:
    for (_, length, destination), node in sorted(plain.items(), key=lambda item: -item[0][1]):
        if destination >> width - length == address >> width - length:
            return node
    return None


def test_one_that_was_built_before_a_routes_change_sees_the_change() -> None:
    """The dicts stay the same: what was built for a table need not be built again for each message."""
    tables = RouteTables(AF_INET)
    network = ip_network("192.0.2.0/24")
    first, second = body(str(network), hop(2))[1], body(str(network), hop(3))[1]
    key, address = (254, 24, int(network.network_address)), int(network.network_address) + 7
    tables.put(key, (first,))
    find = tables.finder(254)
    assert find(address) is first
    tables.put(key, (second,))
    assert find(address) is second and tables.finder(254) is find
    tables.put(key, ())
    assert find(address) is None


def test_a_length_that_is_split_is_asked_in_the_addresss_own_bucket() -> None:
    node = body("0.0.0.0/24", hop(2))[1]
    mask, default = 0xFFFFFF00, dict[int, int]()
    dicts = [dict[int, int]() for _ in range(BUCKETS)]
    dicts[5][5 << 16] = 0
    dicts[6][5 << 16] = 1  # in the wrong one
    buckets = [[(mask, nodes), (0, default)] for nodes in dicts]
    find = finder(Search(16, buckets, [node]))
    assert find((5 << 16) + 9) is node
    assert find((6 << 16) + 9) is None
    default[0] = 0
    assert find((6 << 16) + 9) is node
