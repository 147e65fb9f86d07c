"""The overlay: what would be if something went is what then is, and asking for it changes nothing.

The yardstick is the cache itself, given the messages that a kernel sends for such a change.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from ipaddress import ip_address, ip_interface

import attrs
import pytest
from hypothesis import given, settings, strategies as st

from trio_routes.netlink import (
    AF_INET,
    AF_INET6,
    NUD_FAILED,
    RT_SCOPE_HOST,
    RTN_BLACKHOLE,
    RTN_LOCAL,
    RTPROT_KERNEL,
    NeighbourMessage,
    NexthopMessage,
    RouteBody,
)
from trio_routes.routing import Cache, Kind, Outcome, Overlay, Resolution, Route

from ._build import ETH0, ETH1, ETH2, UP, Host, body, hop

LINKS = (ETH0, ETH1, ETH2)
ADDRESSES = {
    ETH0: ("10.0.0.5/24", "10.0.0.6/24", "10.9.0.5/24", "2001:db8:a::5/64", "2001:db8:a::6/64"),
    ETH1: ("10.0.1.5/24", "2001:db8:b::5/64", "10.0.0.5/32"),
    ETH2: ("10.0.2.5/24", "2001:db8:c::5/64"),
}
GATEWAYS = {
    ETH0: {4: "10.0.0.1", 6: "fe80::a"},
    ETH1: {4: "10.0.1.1", 6: "fe80::b"},
    ETH2: {4: "10.0.2.1", 6: "fe80::c"},
}
PREFIXES = ("0.0.0.0/0", "192.0.0.0/8", "192.0.2.0/24", "192.0.2.7/32", "::/0", "2001:db8::/32", "2001:db8:f::/48")
PEERS = (
    *("192.0.2.7", "192.0.2.8", "192.9.9.9", "8.8.8.8", "10.0.0.9", "10.0.1.9", "10.9.0.9"),
    *("2001:db8:f::7", "2001:db8:e::7", "2001:db8:a::9", "2001:db8:b::9", "2a00::1"),
    *("10.0.0.5", "10.0.1.5", "2001:db8:a::5"),
)


def give_address(host: Host, ifindex: int, text: str, *, gone: bool = False) -> None:
    """An address as the kernel announces it: with its local route, and the route of its prefix."""
    interface = ip_interface(text)
    whole = interface.ip.max_prefixlen
    mine = interface.ip if interface.version == 4 else None
    scope = RT_SCOPE_HOST if interface.version == 4 else 0
    local = body(
        f"{interface.ip}/{whole}", hop(ifindex), table=255, type=RTN_LOCAL, scope=scope, prefsrc=mine, protocol=2
    )
    prefix = body(
        str(interface.network),
        hop(ifindex),
        protocol=RTPROT_KERNEL,
        prefsrc=mine,
        priority=0 if interface.version == 4 else 256,
    )
    if not gone:
        host.address(ifindex, text)
        host.cache.add_route(*local, 0)
        if interface.network.prefixlen < whole and not any(
            Route(prefix[1], prefix[0]).destination == route.destination for route in host.cache.routes()
        ):
            host.cache.add_route(*prefix, 0)
        return
    others = [
        entry
        for entry in host.cache.addresses()
        if entry.ifindex == ifindex and entry.address != interface.ip and entry.address in interface.network
    ]
    host.address(ifindex, text, gone=True)
    held = bool(host.cache.addresses_of(interface.ip))
    host.cache.remove_route(*local)
    if not others:
        host.cache.remove_route(*prefix)
    for route in list(host.cache.routes()):  # fib_sync_down_addr()
        if (
            mine is not None
            and not held
            and route.body.prefsrc == mine
            and not (others and route.body.protocol == RTPROT_KERNEL)
        ):
            host.cache.remove_route(route.address, route.body)


@attrs.frozen
class Spec:
    """One route to be added: by how many links, or by a nexthop object, or rejecting."""

    prefix: str
    ways: tuple[int, ...]
    priority: int
    table: int
    kind: str


routes = st.builds(
    Spec,
    st.sampled_from(PREFIXES),
    st.lists(st.sampled_from(LINKS), min_size=1, max_size=3, unique=True).map(tuple),
    st.integers(1, 3),
    st.sampled_from((254, 254, 100)),
    st.sampled_from(("plain", "plain", "plain", "object", "group", "blackhole", "prefers")),
)


def add(host: Host, spec: Spec) -> None:
    version = 6 if ":" in spec.prefix else 4
    ways = tuple(hop(ifindex, GATEWAYS[ifindex][version]) for ifindex in spec.ways)
    fields: dict[str, object] = {"priority": spec.priority, "table": spec.table}
    if spec.kind == "object":
        ways, fields = (), {**fields, "nexthop_id": 10 * version + spec.ways[0]}
    elif spec.kind == "group":
        ways, fields = (), {**fields, "nexthop_id": 10 * version}
    elif spec.kind == "blackhole":
        ways, fields = (), {**fields, "type": RTN_BLACKHOLE}
    elif spec.kind == "prefers" and version == 4:
        fields["prefsrc"] = ip_address("10.0.0.5")
    host.cache.add_route(*body(spec.prefix, *ways, **fields), 0)


def build(specs: list[Spec]) -> Host:
    host = Host()
    for ifindex in LINKS:
        for text in ADDRESSES[ifindex]:
            give_address(host, ifindex, text)
    for version, family in ((4, AF_INET), (6, AF_INET6)):
        for ifindex in LINKS:
            gateway = ip_address(GATEWAYS[ifindex][version])
            host.cache.apply_nexthop(
                NexthopMessage(10 * version + ifindex, family, ifindex=ifindex, gateway=gateway), gone=False
            )
        members = tuple((10 * version + ifindex, 1) for ifindex in (ETH0, ETH1))
        host.cache.apply_nexthop(NexthopMessage(10 * version, 0, group=members), gone=False)
    for spec in specs:
        add(host, spec)
    host.cache.take_changes()
    return host


# ---- each change twice: on an overlay, and as the kernel's messages ----------------------------------


def goes_down(host: Host, ifindex: int) -> None:
    host.link(ifindex, 0)
    for text in ADDRESSES[ifindex]:
        if ":" in text and host.cache.has_address(ip_interface(text).ip, ifindex):
            give_address(host, ifindex, text, gone=True)


def is_removed(host: Host, ifindex: int) -> None:
    for text in ADDRESSES[ifindex]:
        if host.cache.has_address(ip_interface(text).ip, ifindex):
            give_address(host, ifindex, text, gone=True)
    host.link(ifindex, 0)
    host.remove_link(ifindex)


def address_goes(overlay: Overlay, text: str, ifindex: int) -> None:
    for address in overlay.addresses_of(ip_interface(text).ip):
        if address.ifindex == ifindex:
            overlay.remove_address(address, "gone")


def route_goes(overlay: Overlay, spec: Spec) -> None:
    network = body(spec.prefix)
    prefix = Route(network[1], network[0]).destination
    for route in list(overlay.routes_of(prefix)):
        if (route.table, route.metric) == (spec.table, spec.priority):
            overlay.remove_route(route, "gone")


def route_is_deleted(host: Host, spec: Spec) -> None:
    for route in list(host.cache.routes()):
        same = (route.table, route.metric, str(route.destination)) == (spec.table, spec.priority, spec.prefix)
        if same:
            host.cache.remove_route(route.address, route.body)


Both = tuple[Callable[[Overlay], None], Callable[[Host], None]]


def of_link(ifindex: int, what: str) -> Both:
    match what:
        case "down":
            return (lambda o: o.set_down(ifindex, ""), lambda h: goes_down(h, ifindex))
        case "carrier":
            return (lambda o: o.lose_carrier(ifindex, ""), lambda h: h.link(ifindex, UP))
        case _:
            return (lambda o: o.remove_link(ifindex, ""), lambda h: is_removed(h, ifindex))


def of_address(ifindex: int, number: int) -> Both:
    text = ADDRESSES[ifindex][number % len(ADDRESSES[ifindex])]

    def goes(host: Host) -> None:
        if host.cache.has_address(ip_interface(text).ip, ifindex):
            give_address(host, ifindex, text, gone=True)

    return (lambda o: address_goes(o, text, ifindex), goes)


def of_route(spec: Spec) -> Both:
    return (lambda o: route_goes(o, spec), lambda h: route_is_deleted(h, spec))


def answers(view: Cache | Overlay) -> dict[str, object]:
    """What a judge could ask of it."""
    found: dict[str, object] = {}
    sources = [None, *(ip_interface(text).ip for texts in ADDRESSES.values() for text in texts)]
    for peer in map(ip_address, PEERS):
        for source in sources:
            if source is None or source.version == peer.version:
                for oif in (None, ETH0):
                    strict = oif is not None
                    answer = view.lookup(peer, source=source, oif=oif, strict=strict, onlink_fallback=False)
                    found[f"{peer} from {source} by {oif}"] = shown(answer)
    for texts in ADDRESSES.values():
        for address in (ip_interface(text).ip for text in texts):
            found[f"local {address}"] = view.local_route(address) is not None
            found[f"held {address}"] = sorted(entry.ifindex for entry in view.addresses_of(address))
    found["links"] = {link: view.link(link) for link in LINKS}
    return found


def shown(answer: Resolution) -> object:
    return answer.outcome, answer.kind, answer.hops, answer.multipath, answer.route


@settings(deadline=None, max_examples=150)
@given(st.lists(routes, max_size=8), st.data())
def test_what_would_be_is_what_then_is(specs: list[Spec], data: st.DataObject) -> None:
    host = build(specs)
    before = answers(host.cache)
    overlay = host.cache.overlay()
    choices: list[Both] = [of_link(ifindex, what) for ifindex in (ETH0, ETH1) for what in ("down", "carrier", "gone")]
    choices += [of_address(ifindex, number) for ifindex in (ETH0, ETH1) for number in range(5)]
    choices += [of_route(spec) for spec in specs]
    supposed, happens = data.draw(st.sampled_from(choices))
    supposed(overlay)
    would_be = answers(overlay)
    assert answers(host.cache) == before, "asking changed something"
    assert not host.cache.take_changes()
    happens(host)
    assert would_be == answers(host.cache)


hows = st.tuples(st.sampled_from(("down", "gone")), st.sampled_from(("down", "gone")))


@settings(deadline=None, max_examples=60)
@given(st.lists(routes, max_size=6), st.lists(st.tuples(st.sampled_from(LINKS), st.integers(0, 4)), max_size=4), hows)
def test_several_addresses_and_then_two_links(
    specs: list[Spec], gone: list[tuple[int, int]], how: tuple[str, str]
) -> None:
    host = build(specs)
    overlay = host.cache.overlay()
    changes = [*(of_address(*which) for which in gone), of_link(ETH0, how[0]), of_link(ETH1, how[1])]
    for supposed, _ in changes:
        supposed(overlay)
    would_be = answers(overlay)
    for _, happens in changes:
        happens(host)
    assert would_be == answers(host.cache)


def test_an_ipv6_route_loses_one_way_after_another() -> None:
    host = build([Spec("::/0", (ETH0, ETH1, ETH2), 1, 254, "plain")])
    overlay, peer = host.cache.overlay(), ip_address("2a00::1")
    for gone, left in ((ETH0, (ETH1, ETH2)), (ETH1, (ETH2,)), (ETH2, ())):
        overlay.remove_link(gone, "")
        assert tuple(way.ifindex for way in overlay.lookup(peer).hops) == left


@pytest.mark.parametrize("promoted", [True, False])
def test_a_secondary_address_outlives_the_primary_that_its_local_route_prefers(promoted: bool) -> None:
    """As the kernel has it, with promote_secondaries=1; where the other is in another prefix nothing is promoted."""
    host, primary, other = Host(), ip_address("10.0.0.5"), ip_address("10.0.0.6" if promoted else "10.1.0.6")
    for address in (primary, other):
        host.address(ETH0, f"{address}/24")
        made, kernel = {"table": 255, "type": RTN_LOCAL, "scope": RT_SCOPE_HOST}, RTPROT_KERNEL
        host.add(f"{address}/32", hop(ETH0), prefsrc=primary, protocol=kernel, **made)
    overlay = host.cache.overlay()
    (entry,) = overlay.addresses_of(primary)
    overlay.remove_address(entry, "gone")
    assert overlay.lookup(primary).outcome is Outcome.NO_ROUTE
    assert (overlay.lookup(other).kind is Kind.LOCAL) is promoted


def test_a_route_that_is_gone_is_gone_from_every_answer() -> None:
    host = build([Spec("0.0.0.0/0", (ETH0,), 1, 254, "plain"), Spec("0.0.0.0/0", (ETH1,), 2, 254, "plain")])
    first = host.lookup("8.8.8.8").route
    assert first is not None
    overlay = host.cache.overlay()
    assert overlay.has_route(first)
    overlay.remove_route(first, "gone")
    assert not overlay.has_route(first)
    assert [route.metric for route in overlay.routes_of(first.destination)] == [2]
    assert overlay.lookup(ip_address("8.8.8.8")).hops == (hop(ETH1, "10.0.1.1"),)
    assert host.cache.has_route(first)


@pytest.mark.parametrize("what", ["down", "gone", "carrier"])
def test_a_link_with_many_routes_goes_without_touching_each(what: str) -> None:
    """A hundred thousand routes by one link: no copy is made of them, and none of them is visited."""
    host = build([Spec("0.0.0.0/0", (ETH1,), 1, 254, "plain")])
    many = RouteBody(AF_INET, 254, 32, nexthops=(hop(ETH0, "10.0.0.1"),))
    for destination in range(0x64000000, 0x64000000 + 100_000):
        host.cache.add_route(destination, many, 0)
    began = time.perf_counter()
    overlay = host.cache.overlay()
    of_link(ETH0, what)[0](overlay)
    way = overlay.lookup(ip_address("100.0.0.9")).hops
    took = time.perf_counter() - began
    expected = ETH0 if what == "carrier" else ETH1
    assert [each.ifindex for each in way] == [expected]
    assert took < 0.05, "visiting each would take several times that"


def test_neighbours_that_failed_are_failed_there_too() -> None:
    host = Host()
    host.cache.apply_neighbour(NeighbourMessage(AF_INET, ETH0, ip_address("10.0.0.1"), NUD_FAILED), gone=False)
    assert host.cache.overlay().neighbour_failed(ETH0, ip_address("10.0.0.1"))
    assert not host.cache.overlay().neighbour_failed(ETH0, ip_address("10.0.0.2"))
