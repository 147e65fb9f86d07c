"""The routes of one prefix: what each message does to their order (net/ipv4/fib_trie.c, net/ipv6/ip6_fib.c)."""

from __future__ import annotations

import attrs
from hypothesis import given, strategies as st

from trio_routes.netlink import (
    AF_INET,
    AF_INET6,
    NLM_F_APPEND,
    NLM_F_CREATE,
    NLM_F_EXCL,
    NLM_F_REPLACE,
    RTPROT_RA,
    NextHop,
    RouteBody,
)
from trio_routes.routing._nodes import (
    Edit,
    add_ipv4,
    add_ipv6,
    bodies,
    joins_siblings,
    node_of,
    remove_ipv4,
    remove_ipv6,
)

from ._build import hop

ADD, PREPEND, APPEND = NLM_F_EXCL | NLM_F_CREATE, NLM_F_CREATE, NLM_F_CREATE | NLM_F_APPEND
REPLACE = NLM_F_REPLACE


def four(last: int, priority: int = 0, tos: int = 0, nexthop_id: int = 0) -> RouteBody:
    way = hop(2, f"10.0.0.{last}")
    return RouteBody(AF_INET, 254, 24, priority=priority, tos=tos, nexthops=(way,), nexthop_id=nexthop_id)


def six(*lasts: int, priority: int = 1024, gateway: bool = True, protocol: int = 3) -> RouteBody:
    ways = tuple(hop(last, f"fe80::{last}" if gateway else None) for last in lasts)
    return RouteBody(AF_INET6, 254, 64, priority=priority, nexthops=ways, multipath=len(ways) > 1, protocol=protocol)


A, B, C = four(1), four(2), four(3)


def test_a_node_is_as_small_as_can_be() -> None:
    assert node_of(()) is None
    assert node_of((A,)) is A
    assert node_of((A, B)) == (A, B)
    assert bodies(None) == () and bodies(A) == (A,) and bodies((A, B)) == (A, B)


def test_ipv4_routes_are_ordered_by_tos_descending_then_by_metric() -> None:
    low, high, special = four(1, priority=10), four(2, priority=20), four(3, priority=30, tos=0x10)
    routes = add_ipv4((), high, ADD).routes
    routes = add_ipv4(routes, special, ADD).routes
    routes = add_ipv4(routes, low, ADD).routes
    assert routes == (special, low, high)


def test_ipv4_prepend_goes_before_its_equals_and_append_behind_them() -> None:
    assert add_ipv4((A,), B, PREPEND) == Edit((B, A), None, B)
    assert add_ipv4((A,), B, APPEND) == Edit((A, B), None, B)
    later = four(9, priority=5)
    assert add_ipv4((A, later), B, APPEND).routes == (A, B, later)


def test_ipv4_replace_takes_the_place_of_the_first_of_its_tos_and_metric() -> None:
    other = four(9, priority=5)
    assert add_ipv4((A, B, other), C, REPLACE) == Edit((C, B, other), A, C)
    assert add_ipv4((other,), C, REPLACE) == Edit((C, other), None, C)


def test_ipv4_replace_by_a_nexthop_object_that_is_there_already_refreshes_that_route() -> None:
    # With nexthop_compat_mode a replaced object is announced by a REPLACE of each route that uses it.
    old, new = four(2, nexthop_id=7), four(3, nexthop_id=7)
    assert add_ipv4((A, old), new, REPLACE) == Edit((A, new), old, new)


def test_ipv4_messages_of_known_routes_change_nothing_and_unknown_removals_neither() -> None:
    assert add_ipv4((A, B), B, APPEND) == Edit((A, B))
    assert remove_ipv4((A,), B) == Edit((A,))
    assert remove_ipv4((A, B), A) == Edit((B,), A, None)


def test_a_route_by_a_nexthop_object_is_the_same_however_the_object_is_expanded() -> None:
    # net.ipv4.nexthop_compat_mode can be turned, and a group shrinks, without a word about the routes.
    full, other = four(2, nexthop_id=7), four(2, nexthop_id=8)
    bare = attrs.evolve(full, nexthops=())
    assert remove_ipv4((A, full, other), bare) == Edit((A, other), full, None)
    assert remove_ipv4((A, bare), full) == Edit((A,), bare, None)
    assert remove_ipv4((A, other), bare) == Edit((A, other))
    assert add_ipv4((A, full), bare, APPEND) == Edit((A, bare), full, bare)
    group = attrs.evolve(six(2, 3), nexthop_id=7)
    shrunk = attrs.evolve(six(2), nexthop_id=7)
    assert remove_ipv6((six(4), group), shrunk) == Edit((six(4),), group, None)
    assert add_ipv6((group,), shrunk, ADD) == Edit((shrunk,), group, shrunk)


def test_an_ipv6_append_lists_the_whole_group_and_takes_its_place() -> None:
    one, both = six(2), six(3, 2)
    assert add_ipv6((), one, ADD).routes == (one,)
    assert add_ipv6((one,), both, APPEND) == Edit((both,), one, both)


def test_an_ipv6_removal_lists_the_siblings_that_went() -> None:
    group = six(2, 3, 4)
    shrunk = remove_ipv6((group,), six(3))
    (left,) = shrunk.routes
    assert [way.ifindex for way in left.nexthops] == [2, 4] and left.multipath
    assert (shrunk.old, shrunk.new) == (group, left)
    single = remove_ipv6(shrunk.routes, six(2)).routes[0]
    assert [way.ifindex for way in single.nexthops] == [4] and not single.multipath
    assert remove_ipv6((group,), six(4, 3, 2)) == Edit((), group, None)


def test_an_ipv6_removal_of_one_metric_leaves_the_others() -> None:
    here, there = six(2, priority=10), six(2, priority=20)
    assert remove_ipv6((here, there), there) == Edit((here,), there, None)
    assert remove_ipv6((here,), there) == Edit((here,))
    assert remove_ipv6((here,), six(5, priority=10)) == Edit((here,))


def test_ipv6_device_routes_and_those_of_routers_stand_beside_the_group() -> None:
    group, device, advertised = six(2, 3), six(4, gateway=False), six(5, protocol=RTPROT_RA)
    assert [joins_siblings(body) for body in (group, device, advertised)] == [True, False, False]
    routes = add_ipv6(add_ipv6((group,), device, APPEND).routes, advertised, APPEND).routes
    assert set(routes) == {group, device, advertised}
    assert remove_ipv6(routes, device).routes == (group, advertised)
    assert add_ipv6(routes, device, ADD) == Edit(routes)


def test_an_ipv6_replace_takes_the_first_of_its_metric_and_kind() -> None:
    group, device = six(2, 3), six(4, gateway=False)
    new_group, new_device = six(7), six(8, gateway=False)
    assert add_ipv6((device, group), new_group, REPLACE).routes == (device, new_group)
    assert add_ipv6((group, device), new_device, REPLACE).routes == (group, new_device)
    assert add_ipv6((group,), new_device, REPLACE) == Edit((new_device,), group, new_device)
    assert add_ipv6((), group, REPLACE) == Edit((group,), None, group)  # found nothing, and says REPLACE still


def test_ipv6_routes_are_ordered_by_metric_and_source_specific_ones_come_first() -> None:
    late, early = six(2, priority=20), six(3, priority=10)
    specific = attrs.evolve(six(4, priority=30), source=0x20010DB8 << 96, source_length=32)
    routes: tuple[RouteBody, ...] = ()
    for route in (late, specific, early):
        routes = add_ipv6(routes, route, ADD).routes
    assert routes == (specific, early, late)


ipv4_bodies = st.builds(four, st.integers(1, 4), st.sampled_from((0, 10)), st.sampled_from((0, 0x10)))
ipv4_steps = st.lists(st.tuples(ipv4_bodies, st.sampled_from((ADD, PREPEND, APPEND, REPLACE, None))))


@given(ipv4_steps)
def test_whatever_comes_ipv4_routes_stay_in_order_and_without_doubles(
    steps: list[tuple[RouteBody, int | None]],
) -> None:
    routes: tuple[RouteBody, ...] = ()
    for body, flags in steps:
        done = remove_ipv4(routes, body) if flags is None else add_ipv4(routes, body, flags)
        assert (body in done.routes) is (flags is not None)
        came = [done.new] if done.new is not None else []
        gone = [done.old] if done.old is not None else []
        assert sorted(map(repr, (*routes, *came))) == sorted(map(repr, (*done.routes, *gone)))
        routes = done.routes
        assert [(-known.tos, known.priority) for known in routes] == sorted(
            (-known.tos, known.priority) for known in routes
        )
        assert len(set(routes)) == len(routes)


@given(st.lists(st.tuples(st.integers(2, 5), st.booleans())))
def test_ipv6_siblings_come_and_go_as_in_the_kernel(steps: list[tuple[int, bool]]) -> None:
    siblings: list[int] = []
    routes: tuple[RouteBody, ...] = ()
    for sibling, comes in steps:
        if comes and sibling not in siblings:
            siblings.insert(0, sibling)
            routes = add_ipv6(routes, six(*siblings), APPEND).routes
        elif not comes:
            if sibling in siblings:
                siblings.remove(sibling)
            routes = remove_ipv6(routes, six(sibling)).routes
        found: list[NextHop] = [way for body in routes for way in body.nexthops]
        assert [way.ifindex for way in found] == siblings
        assert len(routes) == bool(siblings)
