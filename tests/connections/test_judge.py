"""The judge against the table of verdicts: each situation that leaves a trace in the tables, in both families.

The number in a situation is its row in docs/verdicts.md. Whether what the judge says is *true* of real
connections is for the kernel tests; here it is held to what the table says it should say.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path

import attrs
import pytest
from hypothesis import given, strategies as st

from tests.connections.network import C1, C2, C3, LO, MAIN, NO_CARRIER, UP, Network, Site
from trio_routes.connections import Flow, Verdict
from trio_routes.connections._judge import (
    Finding,
    Hops,
    has_slow_cause,
    hops_of,
    is_likely_translated,
    judge,
    may_be_stale,
    resolve,
)
from trio_routes.netlink import RTN_BLACKHOLE, RTN_LOCAL, RTN_PROHIBIT, RTN_UNREACHABLE
from trio_routes.routing import Link

UNCHANGED, REROUTED, UNJUDGED = Verdict.UNCHANGED, Verdict.REROUTED, Verdict.UNJUDGED
SOURCE_GONE, NO_ROUTE, REJECTED = Verdict.SOURCE_GONE, Verdict.NO_ROUTE, Verdict.REJECTED
PEER_MOVED, CARRIER_LOST, GATEWAY_FAILED = Verdict.PEER_MOVED, Verdict.CARRIER_LOST, Verdict.GATEWAY_FAILED
EGRESS, GATEWAY = Verdict.EGRESS_CHANGED, Verdict.GATEWAY_CHANGED
DOWN = 0
TENTATIVE, DEPRECATED, DADFAILED = 0x40, 0x20, 0x08

Situation = Callable[[Site], None]


def known_to(site: Site, flow: Flow) -> Hops:
    return hops_of(resolve(flow, site.network), flow, site.network)


def verdict_after(site: Site, change: Situation, flow: Flow | None = None) -> Verdict:
    """Register a flow, let the situation happen, judge."""
    flow = flow or site.flow()
    known = known_to(site, flow)
    before = judge(flow, known, site.network)
    assert before.verdict is UNCHANGED, "the situation has to begin well"
    change(site)
    return judge(flow, known, site.network, before=before.resolution).verdict


@pytest.fixture
def site(family: int) -> Site:
    return Site(family)


# ---- by name: change(site), then the verdict on the connection from the first link's address to a far peer -------


def nothing(site: Site) -> None:
    pass


def carrier_goes(site: Site) -> None:
    site.network.link_is(C1, NO_CARRIER)


def carrier_goes_and_networkd_drops_all(site: Site) -> None:
    carrier_goes(site)
    address_goes(site)


def address_goes(site: Site) -> None:
    site.network.delete_address(site.s1, C1)
    site.network.delete_route(site.lan1)
    site.network.delete_route(site.default)


def address_goes_and_another_link_takes_over(site: Site) -> None:
    address_goes(site)
    site.network.add_route(site.default, via=site.gw2, dev=C2)


def better_default_by_the_other_link(site: Site) -> None:
    site.network.add_route(site.default, via=site.gw2, dev=C2, metric=50)


def better_default_comes_and_goes(site: Site) -> None:
    better_default_by_the_other_link(site)
    site.network.delete_route(site.default, metric=50)


def default_moves_but_a_source_rule_stands(site: Site) -> None:
    better_default_by_the_other_link(site)


def metric_changes(site: Site) -> None:
    site.network.add_route(site.default, via=site.gw1, dev=C1, metric=20100)
    site.network.delete_route(site.default, metric=100)


def everything_goes_and_comes_back(site: Site) -> None:
    address_goes(site)
    site.network.add_address(site.s1, C1)
    site.network.add_route(site.lan1, dev=C1)
    site.network.add_route(site.default, via=site.gw1, dev=C1, metric=100)


def tunnel(site: Site, *prefixes: str) -> None:
    site.network.link_is(C3, UP | Link.IFF_POINTOPOINT | Link.IFF_NOARP)
    for prefix in prefixes:
        site.network.add_route(prefix, dev=C3)


def split_tunnel_elsewhere(site: Site) -> None:
    tunnel(site, site.elsewhere)


def split_tunnel_over_the_peer(site: Site) -> None:
    tunnel(site, site.near_peer)


def full_tunnel_by_halves(site: Site) -> None:
    tunnel(site, *site.halves)


def host_route_by_the_old_gateway_under_a_full_tunnel(site: Site) -> None:
    site.network.add_route(f"{site.peer}/{site.host}", via=site.gw1, dev=C1)
    full_tunnel_by_halves(site)


def full_tunnel_by_rule(site: Site) -> None:
    site.network.link_is(C3)
    site.network.add_route(site.default, dev=C3, table=51820)
    site.network.put_rule(51820)


def unreachable_default_by_rule(site: Site) -> None:
    site.network.add_route(site.default, table=52, kind=RTN_UNREACHABLE)
    site.network.put_rule(52)


def vpn_link_goes(site: Site) -> None:
    address_goes(site)
    site.network.link_is(C1, None)


def blackhole_wins(site: Site) -> None:
    site.network.add_route(site.near_peer, kind=RTN_BLACKHOLE)


def prohibit_wins(site: Site) -> None:
    site.network.add_route(site.default, kind=RTN_PROHIBIT, metric=1)


def only_the_backstop_is_left(site: Site) -> None:
    site.network.add_route(site.default, kind=RTN_UNREACHABLE, metric=4278198272)
    site.network.delete_route(site.default, metric=100)


def container_bridge_elsewhere(site: Site) -> None:
    site.network.link_is(C3, NO_CARRIER)
    site.network.add_route(site.elsewhere, dev=C3)


def container_bridge_over_the_peer(site: Site) -> None:
    site.network.link_is(C3, NO_CARRIER)
    site.network.add_route(site.near_peer, dev=C3)


def default_takes_over_on_the_link_of_the_address(site: Site) -> None:
    site.network.delete_route(site.near_peer)


def address_renewed(site: Site) -> None:
    held = site.network.held
    held.append(held.pop(0))


def prefsrc_of_the_route_changes(site: Site) -> None:
    site.network.add_route(site.default, via=site.gw1, dev=C1, metric=100, prefsrc=site.s2, replace=True)


def gateway_replaced(site: Site) -> None:
    site.network.add_route(site.default, via=site.gw1b, dev=C1, metric=100, replace=True)


def gateway_gone_peer_on_link(site: Site) -> None:
    site.network.add_route(site.default, dev=C1, metric=100, replace=True)


def second_gateway_joins(site: Site) -> None:
    hops = ((site.gw1, C1), (site.gw1b, C1))
    # Routers that advertise themselves (RTPROT_RA) are in one answer and yet no multipath route.
    site.network.add_route(site.default, hops=hops, metric=100, replace=True, protocol=9)


def more_specific_same_path(site: Site) -> None:
    site.network.add_route(site.near_peer, via=site.gw1, dev=C1)


def more_specific_other_link(site: Site) -> None:
    site.network.add_route(site.near_peer, via=site.gw2, dev=C2)


def routes_flushed(site: Site) -> None:
    site.network.delete_route(site.default)


def link_down_keeping_everything_listed(site: Site) -> None:
    # What the kernel flushes silently the cache has derived: the routes are gone with the link.
    site.network.link_is(C1, DOWN)
    site.network.delete_route(site.lan1)
    site.network.delete_route(site.default)


def renamed(site: Site) -> None:
    site.network.links[C1] = Link(C1, "wlp3s0", UP)


def enslaved_to_a_bridge(site: Site) -> None:
    address_goes(site)
    site.network.link_is(C3)
    site.network.add_address(site.s1, C3)
    site.network.add_route(site.lan1, dev=C3)
    site.network.add_route(site.default, via=site.gw1, dev=C3)


def gateway_fails(site: Site) -> None:
    site.network.neighbour_is(C1, site.gw1, failed=True)


def peer_becomes_local(site: Site) -> None:
    site.network.add_address(site.peer, C2)


def another_address_of_the_subnet_takes_over(site: Site) -> None:
    site.network.add_address(site.neighbour, C1)
    site.network.delete_address(site.s1, C1)


def member_of_a_bond_fails(site: Site) -> None:
    site.network.link_is(C3)
    site.network.link_is(C3, NO_CARRIER)


Said = Verdict | tuple[Verdict, Verdict]
TABLE: tuple[tuple[str, Situation, Said], ...] = (
    ("1,26,46", nothing, UNCHANGED),
    ("2,34,71,74", carrier_goes, CARRIER_LOST),
    ("3", carrier_goes_and_networkd_drops_all, SOURCE_GONE),
    ("12,89", address_goes, SOURCE_GONE),
    ("4", address_goes_and_another_link_takes_over, SOURCE_GONE),
    ("5,7,8,9,10,14", better_default_by_the_other_link, EGRESS),
    ("6", better_default_comes_and_goes, UNCHANGED),
    ("13", metric_changes, UNCHANGED),
    ("15,24,37,42", everything_goes_and_comes_back, UNCHANGED),
    ("16", split_tunnel_elsewhere, UNCHANGED),
    ("17", split_tunnel_over_the_peer, EGRESS),
    ("18,27", full_tunnel_by_halves, EGRESS),
    ("19", host_route_by_the_old_gateway_under_a_full_tunnel, UNCHANGED),
    ("20,21,56", full_tunnel_by_rule, EGRESS),
    ("22", unreachable_default_by_rule, REJECTED),
    ("23,35", vpn_link_goes, SOURCE_GONE),
    ("25,61", blackhole_wins, REJECTED),
    ("25,61b", prohibit_wins, REJECTED),
    ("62,63", only_the_backstop_is_left, REJECTED),
    ("28", container_bridge_elsewhere, UNCHANGED),
    ("29", container_bridge_over_the_peer, EGRESS),
    ("36", address_renewed, UNCHANGED),
    ("39", another_address_of_the_subnet_takes_over, SOURCE_GONE),
    ("40,41", prefsrc_of_the_route_changes, UNCHANGED),
    ("47,48,49,64,66", gateway_replaced, GATEWAY),
    ("47b", gateway_gone_peer_on_link, GATEWAY),
    ("65", second_gateway_joins, UNCHANGED),
    ("53", more_specific_same_path, UNCHANGED),
    ("54", more_specific_other_link, EGRESS),
    ("59,60,68", routes_flushed, NO_ROUTE),
    ("73", link_down_keeping_everything_listed, (NO_ROUTE, SOURCE_GONE)),
    ("76", renamed, UNCHANGED),
    ("70", member_of_a_bond_fails, UNCHANGED),
    ("69,75", enslaved_to_a_bridge, EGRESS),
    ("67", gateway_fails, GATEWAY_FAILED),
    ("88", peer_becomes_local, PEER_MOVED),
)

# Rows of which the tables show nothing of their own to judge, and where they are tested.
ELSEWHERE = {
    32: "the lookup is for the address that the application sees: as any row",
    38: "rows 4 and 12 with Policy.patient(): test_clock.py",
    77: "the clock's: test_clock.py, test_prober.py",
    82: "rows 78 to 80: the local route is what counts",
    85: "the judge sees no marks of nftables: evidence acquits, test_deadlines.py and the kernel tests",
    91: "an IPv4 flow: test_flow.py",
    92: "refused at registration: test_flow.py and the kernel tests",
    93: "unjudged by its flow: test_flow.py",
    95: "the clock's: test_clock.py",
}


@pytest.mark.parametrize(
    ("change", "ipv4", "ipv6"),
    [
        pytest.param(change, *(said if isinstance(said, tuple) else (said, said)), id=f"{rows}-{change.__name__}")
        for rows, change, said in TABLE
    ],
)
def test_the_table(site: Site, change: Situation, ipv4: Verdict, ipv6: Verdict) -> None:
    assert verdict_after(site, change) is (ipv4 if site.family == 4 else ipv6)


def numbers_in(text: str) -> set[int]:
    return {int(number) for number in re.findall(r"[0-9]+", text)}


def test_every_row_of_the_document_is_judged_here_or_said_to_be_elsewhere() -> None:
    document = Path(__file__).parent.parent.parent / "docs" / "verdicts.md"
    rows = {int(number) for number in re.findall(r"^\| (\d+) \|", document.read_text(), re.MULTILINE)}
    assert len(rows) == 95
    here = {number for rows_text, _, _ in TABLE for number in numbers_in(rows_text)}
    names = [name for name in globals() if re.match(r"test_rows?_[0-9]", name)]
    for name in names:
        match = re.match(r"test_rows?_([0-9_]+)", name)
        assert match is not None
        here |= numbers_in(match[1])
    assert rows - here - ELSEWHERE.keys() == set()
    assert here & ELSEWHERE.keys() == set()


def test_row_30_a_pods_on_link_helper_route_may_go(site: Site) -> None:
    gateway = "169.254.1.1" if site.family == 4 else "fe80::ee"
    site.network.add_route(f"{gateway}/{site.host}", dev=C1)
    site.network.add_route(site.default, via=gateway, dev=C1, metric=100, replace=True)
    assert verdict_after(site, lambda site: site.network.delete_route(f"{gateway}/{site.host}")) is UNCHANGED


def test_row_58_an_asymmetric_servers_default_that_moves_to_its_own_link_is_uncertain(site: Site) -> None:
    flow = site.flow(local=site.s2)

    def moves(site: Site) -> None:
        site.network.add_route(site.default, via=site.gw2, dev=C2, metric=100, replace=True)

    assert verdict_after(site, moves, flow) is EGRESS


# ---- situations with a beginning of their own ----------------------------------------------------------------


def test_row_11_a_source_rule_keeps_the_path_whatever_the_default_does(site: Site) -> None:
    site.network.add_route(site.default, via=site.gw1, dev=C1, table=100)
    site.network.put_rule(100, source=site.s1)
    assert verdict_after(site, better_default_by_the_other_link) is UNCHANGED


def test_row_57_a_source_rule_lost_changes_the_egress(site: Site) -> None:
    site.network.add_route(site.default, via=site.gw1, dev=C1, table=100)
    site.network.put_rule(100, source=site.s1)
    better_default_by_the_other_link(site)
    assert verdict_after(site, lambda site: site.network.drop_rule(100)) is EGRESS


def test_row_31_the_egress_changes_also_when_it_moves_to_the_link_that_has_the_address(site: Site) -> None:
    site.network.add_route(site.near_peer, dev=C3)
    site.network.link_is(C3)
    assert verdict_after(site, default_takes_over_on_the_link_of_the_address) is EGRESS


def test_row_33_an_on_link_peer_that_fails_is_a_hint(site: Site) -> None:
    flow = site.flow(peer=site.neighbour)

    def fails(site: Site) -> None:
        site.network.neighbour_is(C1, site.neighbour, failed=True)

    assert verdict_after(site, fails, flow) is GATEWAY_FAILED


def test_row_67_one_living_router_is_enough(site: Site) -> None:
    second_gateway_joins(site)
    assert verdict_after(site, gateway_fails) is UNCHANGED


@pytest.mark.parametrize("flags", [DEPRECATED, TENTATIVE, 0x01])
def test_rows_43_44_45_deprecated_tentative_and_temporary_addresses_are_there(site: Site, flags: int) -> None:
    def marked(site: Site) -> None:
        site.network.delete_address(site.s1, C1)
        site.network.add_address(site.s1, C1, flags=flags)

    assert verdict_after(site, marked) is UNCHANGED


def test_row_43_an_ipv6_address_whose_duplicate_detection_failed_is_gone() -> None:
    def duplicate(site: Site) -> None:
        site.network.delete_address(site.s1, C1)
        site.network.add_address(site.s1, C1, flags=DADFAILED)
        site.network.delete_route(f"{site.s1}/128", table=255)

    assert verdict_after(Site(6), duplicate) is SOURCE_GONE


@pytest.mark.parametrize("change", [better_default_by_the_other_link, gateway_replaced])
def test_row_50_an_address_on_neither_path_makes_every_move_harmless(site: Site, change: Situation) -> None:
    service = "192.0.2.1" if site.family == 4 else "2001:db8:5::1"
    site.network.add_address(service, LO)
    assert verdict_after(site, change, site.flow(local=service)) is REROUTED


def test_row_51_members_of_a_multipath_route_may_come_and_go_while_one_is_known(site: Site) -> None:
    service = "192.0.2.1" if site.family == 4 else "2001:db8:5::1"
    site.network.add_address(service, LO)
    site.network.add_route(site.default, hops=((site.gw1, C1), (site.gw2, C2)), metric=1)

    def member_goes(site: Site) -> None:
        site.network.add_route(site.default, hops=((site.gw2, C2),), metric=1, replace=True)

    assert verdict_after(site, member_goes, site.flow(local=service)) is UNCHANGED


def test_row_52_ipv4_takes_the_member_with_the_own_address(site: Site) -> None:
    site.network.add_route(site.default, hops=((site.gw1, C1), (site.gw2, C2)), metric=1)
    flow = site.flow()
    hops = {hop.ifindex for hop in known_to(site, flow)}
    assert hops == ({C1} if site.family == 4 else {C1, C2}), "IPv6 goes by a hash, whose address ever it is"


def test_row_52_losing_the_member_with_the_own_address_is_another_path_maybe(site: Site) -> None:
    site.network.add_route(site.default, hops=((site.gw1, C1), (site.gw2, C2)), metric=1)

    def own_member_goes(site: Site) -> None:
        site.network.add_route(site.default, hops=((site.gw2, C2),), metric=1, replace=True)

    assert verdict_after(site, own_member_goes) is EGRESS


@pytest.mark.parametrize("comes", [False, True])
def test_row_52_any_other_change_of_the_set_is_nothing_to_ipv4_and_uncertain_for_ipv6(site: Site, comes: bool) -> None:
    pair, own = ((site.gw1, C1), (site.gw2, C2)), ((site.gw1, C1),)
    site.network.add_route(site.default, hops=own if comes else pair, metric=1)

    def changes(site: Site) -> None:
        site.network.add_route(site.default, hops=pair if comes else own, metric=1, replace=True)

    assert verdict_after(site, changes) is (UNCHANGED if site.family == 4 else EGRESS)


def test_row_52_other_weights_are_nothing_to_ipv4_and_uncertain_for_ipv6(site: Site) -> None:
    site.network.add_route(site.default, hops=((site.gw1, C1), (site.gw2, C2)), metric=1)
    now = resolve(site.flow(), site.network)
    before = attrs.evolve(now, hops=(attrs.evolve(now.hops[0], weight=9), *now.hops[1:]))
    found = judge(site.flow(), known_to(site, site.flow()), site.network, before=before)
    assert found.verdict is (UNCHANGED if site.family == 4 else EGRESS)


def test_row_55_a_first_default_is_nothing_to_a_peer_with_a_route_of_its_own(site: Site) -> None:
    site.network.delete_route(site.default)
    site.network.add_route(site.near_peer, via=site.gw1, dev=C1)
    assert verdict_after(site, better_default_by_the_other_link) is UNCHANGED


def test_row_72_a_link_down_with_another_path_in_ipv4_is_a_change_of_egress() -> None:
    def down(site: Site) -> None:
        link_down_keeping_everything_listed(site)
        site.network.add_route(site.default, via=site.gw2, dev=C2, metric=200)

    assert verdict_after(Site(4), down) is EGRESS


def test_row_73_an_ipv6_address_on_a_link_that_is_down_does_not_count() -> None:
    def down(site: Site) -> None:
        link_down_keeping_everything_listed(site)
        site.network.delete_route(f"{site.s1}/128", table=255)  # no local route: packets to it are not ours
        site.network.add_route(site.default, via=site.gw2, dev=C2, metric=200)

    assert verdict_after(Site(6), down) is SOURCE_GONE


def test_row_74_without_carrier_and_ignore_linkdown_the_path_moves(site: Site) -> None:
    site.network.add_route(site.default, via=site.gw2, dev=C2, metric=200)
    site.network.ignore_linkdown = True
    assert verdict_after(site, carrier_goes) is EGRESS


def test_rows_78_79_an_address_covered_by_a_local_route_is_there_until_that_goes(site: Site) -> None:
    prefix, local = ("192.0.2.0/24", "192.0.2.77") if site.family == 4 else ("2001:db8:5::/64", "2001:db8:5::77")
    site.network.add_route(prefix, dev=LO, table=255, kind=RTN_LOCAL)
    flow = site.flow(local=local)
    assert verdict_after(site, nothing, flow) is UNCHANGED
    assert verdict_after(site, lambda site: site.network.delete_route(prefix, table=255), flow) is SOURCE_GONE


def test_row_80_a_local_route_in_another_table_serves_ipv6_only() -> None:
    for family, said in ((4, SOURCE_GONE), (6, UNCHANGED)):
        site = Site(family)
        prefix, local = ("192.0.2.0/24", "192.0.2.77") if family == 4 else ("2001:db8:5::/64", "2001:db8:5::77")
        site.network.add_route(prefix, dev=LO, table=77, kind=RTN_LOCAL)
        site.network.put_rule(77)
        flow = site.flow(local=local)
        assert judge(flow, known_to(site, flow), site.network).verdict is said


def test_row_81_the_source_of_a_transparent_socket_is_never_judged(site: Site) -> None:
    foreign = "192.0.2.99" if site.family == 4 else "2001:db8:9::99"
    flow = site.flow(local=foreign, transparent=True)
    assert verdict_after(site, nothing, flow) is UNCHANGED
    assert verdict_after(site, routes_flushed, flow) is NO_ROUTE


def test_row_83_a_bound_socket_does_not_see_a_better_default_elsewhere(site: Site) -> None:
    assert verdict_after(site, better_default_by_the_other_link, site.flow(device=C1)) is UNCHANGED


def test_row_84_a_bound_socket_whose_route_went_has_none(site: Site) -> None:
    better_default_by_the_other_link(site)
    assert verdict_after(
        site, lambda site: site.network.delete_route(site.default, metric=100), site.flow(device=C1)
    ) is (NO_ROUTE)


def test_row_86_a_peer_on_this_host_is_judged_by_addresses_only(site: Site) -> None:
    flow = site.flow(peer=site.s2)
    assert verdict_after(site, lambda site: site.network.link_is(C1, NO_CARRIER), flow) is UNCHANGED
    assert verdict_after(site, routes_flushed, flow) is UNCHANGED


def test_row_87_a_local_peer_whose_address_goes_has_moved(site: Site) -> None:
    flow = site.flow(peer=site.s2)
    assert verdict_after(site, lambda site: site.network.delete_address(site.s2, C2), flow) is PEER_MOVED


def test_row_90_a_link_local_address_belongs_to_its_link() -> None:
    site = Site(6)
    for link in (C1, C2):
        site.network.add_address("fe80::77", link)
    site.network.add_route("fe80::/64", dev=C1)
    flow = site.flow(local="fe80::77", peer="fe80::99", device=C1)
    assert verdict_after(site, nothing, flow) is UNCHANGED
    assert verdict_after(site, lambda site: site.network.delete_address("fe80::77", C1), flow) is SOURCE_GONE


@pytest.mark.parametrize(
    ("change", "said"), [(routes_flushed, NO_ROUTE), (blackhole_wins, REJECTED), (address_goes, SOURCE_GONE)]
)
def test_row_94_what_is_broken_from_the_start_is_no_baseline(site: Site, change: Situation, said: Verdict) -> None:
    change(site)
    assert judge(site.flow(), (), site.network).verdict is said


def test_without_a_baseline_the_first_path_that_works_becomes_it(site: Site) -> None:
    assert judge(site.flow(), (), site.network).verdict is UNCHANGED


def test_an_unjudged_flow_stays_so_and_costs_no_lookup(site: Site) -> None:
    flow = site.flow(peer="224.0.0.1" if site.family == 4 else "ff02::1")
    assert judge(flow, (), site.network).verdict is UNJUDGED
    assert site.network.lookups == 0


# ---- causes, translation, stale routes -----------------------------------------------------------------------


def test_a_link_and_a_routing_daemon_are_slow_causes_and_others_are_not(site: Site) -> None:
    before = resolve(site.flow(), site.network)
    assert not has_slow_cause(before, site.network)
    routes_flushed(site)
    assert not has_slow_cause(before, site.network)
    carrier_goes(site)
    assert has_slow_cause(before, site.network)
    site.network.link_is(C1, None)
    assert has_slow_cause(before, site.network)
    site.network.link_is(C1)
    site.network.add_route(site.default, via=site.gw1, dev=C1, protocol=12)
    before = resolve(site.flow(), site.network)
    better_default_by_the_other_link(site)
    assert not has_slow_cause(before, site.network), "the daemon's route is there still: somebody else's is better"
    site.network.delete_route(site.default, metric=0)
    assert has_slow_cause(before, site.network)


# ZEBRA, BIRD, BABEL, OPENR, BGP, ISIS, OSPF, RIP and EIGRP of linux/rtnetlink.h, and what is none: KERNEL, BOOT, STATIC,
# RA, DHCP, KEEPALIVED.
@pytest.mark.parametrize(
    ("protocol", "slow"),
    [
        *((number, True) for number in (11, 12, 42, 99, 186, 187, 188, 189, 192)),
        *((n, False) for n in (2, 3, 4, 9, 16, 18)),
    ],
)
def test_the_routes_of_these_daemons_are_waited_for(site: Site, protocol: int, slow: bool) -> None:
    site.network.delete_route(site.default)
    site.network.add_route(site.default, via=site.gw1, dev=C1, protocol=protocol)
    before = resolve(site.flow(), site.network)
    site.network.delete_route(site.default)
    assert has_slow_cause(before, site.network) is slow


def test_translation_is_likely_from_private_to_global_and_into_tunnels_only() -> None:
    site = Site(4)
    world = site.flow(peer="1.1.1.1")
    assert is_likely_translated(world, known_to(site, world), site.network)
    for own in ("10.255.0.2", "172.31.0.2", "192.168.255.2", "100.127.0.2"):
        assert is_likely_translated(site.flow(local=own, peer="1.1.1.1"), (), site.network)
    for own in ("11.0.0.2", "172.32.0.2", "192.169.0.2", "100.128.0.2"):
        assert not is_likely_translated(site.flow(local=own, peer="1.1.1.1"), (), site.network)
    inside = site.flow(peer="10.9.9.9")
    assert not is_likely_translated(inside, known_to(site, inside), site.network)
    tunnel(site, "10.9.0.0/16")
    assert is_likely_translated(inside, known_to(site, inside), site.network)
    six = Site(6)
    assert not is_likely_translated(six.flow(peer="2606:4700::1"), (), six.network)


@pytest.mark.parametrize(("family", "stale"), [(4, False), (6, True)])
def test_only_ipv6_may_go_on_by_a_route_that_another_table_has_overridden(family: int, stale: bool) -> None:
    site = Site(family)
    before = resolve(site.flow(), site.network)
    full_tunnel_by_rule(site)
    assert may_be_stale(site.flow(), before, resolve(site.flow(), site.network), site.network) is stale
    site.network.delete_route(site.default, metric=100)
    assert not may_be_stale(site.flow(), before, resolve(site.flow(), site.network), site.network), "its route is gone"
    own_table = Site(family)
    blackhole_wins(own_table)
    now = resolve(own_table.flow(), own_table.network)
    assert not may_be_stale(own_table.flow(), before, now, own_table.network)


# ---- properties ----------------------------------------------------------------------------------------------

CHANGES: tuple[Situation, ...] = (
    carrier_goes,
    better_default_by_the_other_link,
    metric_changes,
    split_tunnel_elsewhere,
    split_tunnel_over_the_peer,
    full_tunnel_by_halves,
    full_tunnel_by_rule,
    blackhole_wins,
    prohibit_wins,
    container_bridge_over_the_peer,
    gateway_replaced,
    second_gateway_joins,
    more_specific_same_path,
    more_specific_other_link,
    gateway_fails,
    peer_becomes_local,
)
INDEPENDENT: tuple[Situation, ...] = (
    carrier_goes,
    better_default_by_the_other_link,
    split_tunnel_elsewhere,
    full_tunnel_by_rule,
    blackhole_wins,
    gateway_fails,
    peer_becomes_local,
)
families = st.sampled_from([4, 6])


def finding_after(family: int, changes: tuple[Situation, ...]) -> tuple[Finding, Hops, Site]:
    site = Site(family)
    known = known_to(site, site.flow())
    for change in changes:
        change(site)
    return judge(site.flow(), known, site.network), known, site


@given(families, st.lists(st.sampled_from(CHANGES), unique=True, max_size=6).map(tuple))
def test_the_same_state_gives_the_same_verdict_however_often_it_is_asked(
    family: int, changes: tuple[Situation, ...]
) -> None:
    finding, known, site = finding_after(family, changes)
    assert judge(site.flow(), known, site.network) == finding


@given(families, st.permutations(INDEPENDENT), st.permutations(INDEPENDENT), st.integers(1, len(INDEPENDENT)))
def test_the_order_of_independent_changes_does_not_matter(
    family: int, one: list[Situation], other: list[Situation], count: int
) -> None:
    chosen = one[:count]
    first, _, _ = finding_after(family, tuple(chosen))
    last, _, _ = finding_after(family, tuple(change for change in other if change in chosen))
    assert (first.verdict, first.hops) == (last.verdict, last.hops)


@given(families, st.lists(st.sampled_from(CHANGES), unique=True, max_size=6).map(tuple))
def test_a_state_that_was_left_and_restored_is_unchanged(family: int, changes: tuple[Situation, ...]) -> None:
    _, known, _ = finding_after(family, changes)
    restored = Site(family)
    assert judge(restored.flow(), known, restored.network).verdict is UNCHANGED


@given(families, st.lists(st.sampled_from(CHANGES), unique=True, max_size=6).map(tuple), st.integers(0, 3))
def test_certain_verdicts_do_not_depend_on_what_was_known(
    family: int, changes: tuple[Situation, ...], other: int
) -> None:
    finding, _, site = finding_after(family, changes)
    strange = known_to(Site(family), site.flow(peer=(site.peer, site.neighbour, site.s2, site.gw2)[other], device=None))
    absolute = (SOURCE_GONE, NO_ROUTE, REJECTED)
    again = judge(site.flow(), strange, site.network).verdict
    assert (finding.verdict in absolute) == (again in absolute)
    if finding.verdict in absolute:
        assert again is finding.verdict


@given(families, st.lists(st.sampled_from(CHANGES), unique=True, max_size=6).map(tuple))
def test_a_path_that_was_proven_is_good_from_then_on(family: int, changes: tuple[Situation, ...]) -> None:
    finding, known, site = finding_after(family, changes)
    if finding.verdict in (EGRESS, GATEWAY):
        verdict = judge(site.flow(), (*finding.hops, *known), site.network).verdict
        assert verdict in (UNCHANGED, CARRIER_LOST, GATEWAY_FAILED)


def test_the_network_by_hand_prefers_the_longest_prefix_then_the_metric() -> None:
    network = Network()
    for ifindex in (C1, C2, C3):
        network.link_is(ifindex)
    network.add_route("0.0.0.0/0", dev=C1, metric=1)
    network.add_route("10.0.0.0/8", dev=C2, metric=9)
    network.add_route("10.0.0.0/8", dev=C3, metric=5)
    assert network.lookup(ip_address("10.1.1.1")).hops[0].ifindex == C3
    assert network.lookup(ip_address("9.1.1.1")).hops[0].ifindex == C1
    assert network.tables[-1] == (None, MAIN)
