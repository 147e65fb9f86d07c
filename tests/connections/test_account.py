"""What `explain` says of a connection, word for word, in each state that one can be in."""

from __future__ import annotations

import math
import textwrap

import pytest
import trio
from trio.testing import MockClock

from tests.connections._watch import FAR, Watch, register
from tests.connections.network import C1, C2, NO_CARRIER
from trio_routes.connections import Connection, Flow, Policy, Standing, Verdict
from trio_routes.connections._account import account_of

CONNECTION = "tcp 10.0.1.2:40000 -> 198.51.100.7:443"
BY_DEFAULT = "via 10.0.1.1 dev link2, by 0.0.0.0/0 metric 100 in table 254"


@pytest.fixture
async def watch(nursery: trio.Nursery) -> Watch:
    watch = Watch(4)
    await nursery.start(watch.reassessor.run)
    return watch


def explained(watch: Watch, connection: Connection) -> str:
    return str(account_of(connection, watch.registry.court))


def lines(text: str) -> str:
    return textwrap.dedent(text).strip("\n")


async def test_a_good_connection(watch: Watch, autojump_clock: MockClock) -> None:
    assert explained(watch, watch.register()) == lines(
        f"""
        {CONNECTION}: good
          path     {BY_DEFAULT}
          judged   unchanged: a next hop of now is one that is known to carry it
          awaited  nothing
        """
    )


async def test_one_without_a_route(watch: Watch, autojump_clock: MockClock) -> None:
    connection = watch.register()
    watch.route_goes()
    await watch.change()
    await trio.sleep(0.3)
    assert explained(watch, connection) == lines(
        f"""
        {CONNECTION}: suspect
          path     none: no route
          before   {BY_DEFAULT}
          changed  its route 0.0.0.0/0 via 10.0.1.1 dev link2 metric 100 in table 254 went (RTM_DELROUTE)
          judged   no route: a lookup for this very flow finds nothing (rule J1)
          awaited  that this is undone within 0.7 s; else it is ended
        """
    )
    await trio.sleep(1)
    said = explained(watch, connection)
    assert f"{CONNECTION}: lost" in said
    assert "awaited  nothing: it was ended 0.3 s ago" in said
    assert "changed  its route 0.0.0.0/0 via 10.0.1.1 dev link2 metric 100 in table 254 went (RTM_DELROUTE)" in said


async def test_a_better_route_and_an_address_that_went(watch: Watch, autojump_clock: MockClock) -> None:
    connection = watch.register()
    watch.network.add_route(watch.site.near_peer, via=watch.site.gw2, dev=C2)
    await watch.change()
    decides = "changed  route 198.51.100.0/24 via 10.0.2.1 dev link3 in table 254 decides now (RTM_NEWROUTE)"
    assert decides in explained(watch, connection)
    watch.network.delete_address(watch.site.s1, C1)
    await watch.change()
    assert "changed  its address 10.0.1.2 went (RTM_DELADDR)" in explained(watch, connection)


async def test_one_whose_link_is_the_cause(watch: Watch, autojump_clock: MockClock) -> None:
    connection = watch.register()
    watch.network.link_is(C1, NO_CARRIER, cause="link wlan0 lost its carrier")
    await watch.change()
    said = explained(watch, connection)
    assert "changed  link wlan0 lost its carrier" in said
    assert "judged   carrier lost: its path is as it was, and the link is down or without carrier" in said
    assert "awaited  that this is undone within 6.0 s; else it is ended" in said
    watch.route_goes()
    await watch.change()
    assert "It waits longer because a link or a routing daemon is the cause (rule J3)" in explained(watch, connection)


async def test_one_that_is_going_to_be_asked_about_and_is(watch: Watch, autojump_clock: MockClock) -> None:
    connection, _ = register(watch, "silence")
    watch.gateway_moves()
    await watch.change()
    said = explained(watch, connection)
    assert "path     via 10.0.1.254 dev link2, by 0.0.0.0/0 metric 100 in table 254" in said
    assert f"before   {BY_DEFAULT}" in said
    assert "awaited  that this is undone within 1.0 s; else the far side is asked (rule J5)" in said
    await trio.sleep(2)
    assert "awaited  the far side's answer to keepalive for 2.0 s; silence ends it (rule J5)" in explained(
        watch, connection
    )
    await trio.sleep(3)
    assert "no answer when it was asked" in explained(watch, connection)


async def test_one_whose_own_probe_is_asked(watch: Watch, autojump_clock: MockClock) -> None:
    async def silent(connection: Connection) -> bool:
        await trio.sleep_forever()
        raise AssertionError

    connection = watch.register(probe=silent)
    watch.gateway_moves()
    await watch.change()
    assert "else its own probe is asked (rule J5)" in explained(watch, connection)
    await trio.sleep(2)
    assert "awaited  its own probe's answer for 9.0 s" in explained(watch, connection)


async def test_one_about_which_nobody_can_be_asked(watch: Watch, autojump_clock: MockClock) -> None:
    near, far = watch.register(), watch.register(watch.site.flow(peer=FAR))
    watch.gateway_moves()
    await watch.change()
    assert "else it is left as it is, for nobody can be asked (rule J8)" in explained(watch, near)
    assert "else it is ended (rule J8)" in explained(watch, far)
    await trio.sleep(2)
    assert "awaited  a change, or a sign of life: nobody can be asked" in explained(watch, near)


async def test_one_that_its_policy_does_not_end(watch: Watch, autojump_clock: MockClock) -> None:
    patient, careless = watch.register(policy=Policy(no_route=math.inf)), watch.register(policy=Policy(no_route=None))
    watch.route_goes()
    await watch.change()
    assert "awaited  a change, or a sign of life: its policy does not end it for this" in explained(watch, patient)
    assert "finds nothing (rule J1); its policy ignores that" in explained(watch, careless)


async def test_one_that_evidence_acquitted(autojump_clock: MockClock) -> None:
    watch = Watch(6)
    async with trio.open_nursery() as nursery:
        await nursery.start(watch.reassessor.run)
        watch.network.put_rule(52)
        connection, _ = register(watch, "ack")
        watch.network.add_route(watch.site.default, via=watch.site.gw2, dev=C2, table=52)
        await watch.change()
        await trio.sleep(3)
        account = account_of(connection, watch.registry.court)
        assert (account.standing, account.verdict) == (Standing.GOOD, Verdict.EGRESS_CHANGED)
        assert account.judgement.endswith("overruled by the far side, asked by keepalive (rule J4)")
        assert account.awaited == "the next change of an IPv6 route, at which its socket may take another way (rule J6)"
        nursery.cancel_scope.cancel()


async def test_those_that_are_not_judged(watch: Watch, autojump_clock: MockClock) -> None:
    loopback = watch.register(Flow(peer=None, protocol="unix"))
    said = explained(watch, loopback)
    assert "path     not looked up" in said
    assert "judged   unjudged: unix is neither TCP nor UDP" in said
    watch.monitoring = False
    assert "the kernel's tables are not followed" in explained(watch, watch.register())


async def test_during_a_resync_it_says_what_is_awaited(watch: Watch, autojump_clock: MockClock) -> None:
    connection = watch.register()
    watch.route_goes()
    await watch.change()
    watch.network.resyncing = True
    assert "awaited  that the kernel's tables are known again" in explained(watch, connection)
