"""What a deadline brings, by what is known of the connection: rules J1, J5, J6 and J8 without a socket or a clock."""

from __future__ import annotations

import math

import attrs
import pytest

from tests.connections.network import C1, C2, Site
from trio_routes.connections import Policy, Standing, Verdict
from trio_routes.connections._clock import Decision, Stand
from trio_routes.connections._decide import Circumstances, decide
from trio_routes.connections._judge import hops_of, resolve
from trio_routes.netlink import RTN_UNREACHABLE

UNASKED = Policy(ask_kernel=False)
CLOSE, ASK, LEAVE = Decision.CLOSE, Decision.ASK, Decision.LEAVE


@pytest.fixture
def site(family: int) -> Site:
    return Site(family)


def case(site: Site, verdict: Verdict, policy: Policy, *, born_broken: bool = False) -> Circumstances:
    """A connection between private addresses, so that nothing says that it is translated."""
    flow = site.flow(peer="10.9.9.9") if site.family == 4 else site.flow()
    now = resolve(flow, site.network)
    hops = hops_of(now, flow, site.network)
    stand = Stand(Standing.SUSPECT, verdict)
    return Circumstances(flow=flow, policy=policy, stand=stand, before=now, now=now, hops=hops, born_broken=born_broken)


@pytest.mark.parametrize(
    ("verdict", "policy", "asked", "unasked"),
    [
        (Verdict.NO_ROUTE, Policy(), CLOSE, CLOSE),
        (Verdict.REJECTED, Policy(), CLOSE, CLOSE),
        (Verdict.CARRIER_LOST, Policy(), CLOSE, CLOSE),
        (Verdict.EGRESS_CHANGED, Policy(), ASK, LEAVE),
        (Verdict.GATEWAY_CHANGED, UNASKED, ASK, LEAVE),
        # Waiting for nothing is not yet asking nobody, nor is it the other way round.
        (Verdict.EGRESS_CHANGED, Policy(egress_changed=0.0), ASK, LEAVE),
        (Verdict.EGRESS_CHANGED, Policy(egress_changed=0.0, ask_kernel=False), ASK, CLOSE),
        (Verdict.EGRESS_CHANGED, Policy.immediate(), ASK, CLOSE),
        (Verdict.GATEWAY_FAILED, Policy(gateway_failed=5.0), ASK, CLOSE),
    ],
)
def test_each_class_of_verdict_with_and_without_somebody_to_ask(
    site: Site, verdict: Verdict, policy: Policy, asked: Decision, unasked: Decision
) -> None:
    of = case(site, verdict, policy)
    assert decide(of, site.network, can_ask=True) is asked
    assert decide(of, site.network, can_ask=False) is unasked


def test_what_was_broken_from_the_start_is_asked_about_and_closed_where_nobody_can_be(site: Site) -> None:
    of = case(site, Verdict.NO_ROUTE, Policy(), born_broken=True)
    assert decide(of, site.network, can_ask=True) is ASK
    assert decide(of, site.network, can_ask=False) is CLOSE


def test_row_22_an_ipv6_socket_that_may_be_past_a_rejecting_route_is_asked_about(site: Site) -> None:
    of = case(site, Verdict.REJECTED, Policy())
    site.network.add_route(site.default, table=52, kind=RTN_UNREACHABLE)
    site.network.put_rule(52)
    of = attrs.evolve(of, now=resolve(of.flow, site.network), hops=())
    stale = site.family == 6
    assert decide(of, site.network, can_ask=True) is (ASK if stale else CLOSE)
    assert decide(of, site.network, can_ask=False) is (LEAVE if stale else CLOSE)
    at_once = attrs.evolve(of, policy=Policy.immediate())
    assert decide(at_once, site.network, can_ask=False) is CLOSE
    site.network.delete_route(site.default, metric=100)
    assert decide(of, site.network, can_ask=True) is CLOSE, "its own route is gone as well"


def test_a_slow_cause_does_not_make_an_immediate_policy_leave_anybody(site: Site) -> None:
    policy = Policy(egress_changed=0.0, link_cause=6.0, ask_kernel=False)
    of = case(site, Verdict.EGRESS_CHANGED, policy)
    site.network.link_is(C1, None)
    site.network.add_route(site.default, via=site.gw2, dev=C2)
    assert decide(of, site.network, can_ask=False) is CLOSE
    patient = attrs.evolve(of, policy=attrs.evolve(policy, egress_changed=math.inf))
    assert decide(patient, site.network, can_ask=False) is LEAVE
