"""Asking the far side by keepalive, and what else proves that a connection lives, on real TCP connections.

Every situation is played for IPv4 and IPv6 where it is the same, all at once (`_situations.py`), under the default policy:
1 s of settling, then the kernel is asked. Numbers are the rows of docs/verdicts.md. Each has controls that must live:
connections to a neighbour, over loopback, and by the other uplink.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
from ipaddress import ip_address

import pytest
import trio

from tests.kernel._situations import OPTIONS, PROBING, Play, Situations, options_of, two_uplinks
from tests.kernel._world import Pair
from tests.lab.waiting import until
from trio_routes import Policy, RouteLostError, Standing, Verdict, open_pt
from trio_routes.connections._tcp_info import read_tcp_info
from trio_routes.testing import Hop

pytestmark = pytest.mark.netns

_probe = Situations()
situation = _probe.situation

BY_KEEPALIVE = ["the far side, asked by keepalive"]
BY_DATA = ["acknowledged data"]
SLACK = 3.0  # upper bounds only: for a machine that is busy otherwise

NAT = two_uplinks(nat=True)
NAT_AND_SPARE = two_uplinks(nat=True, spare_gateway=True)
ROUTED = two_uplinks(nat=False)
ROUTED_AND_SPARE = two_uplinks(nat=False, spare_gateway=True)


def open_files() -> set[str]:
    """What this process's descriptors lead to."""
    found = set[str]()
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # the one that listed them
            found.add(os.readlink(f"/proc/self/fd/{number}"))
    return found


def probes_of(pair: Pair) -> int:
    """Unanswered probes in a row, as the kernel counts them."""
    info = read_tcp_info(pair.near.socket)
    assert info is not None
    return info.probes


def move_to_lte(play: Play) -> float:
    play.world.device.replace_route("default", via=play.world.lte, metric=100)
    return trio.current_time()


def move_back(play: Play) -> None:
    play.world.device.replace_route("default", via=play.world.wifi, metric=100)


def move_to_spare(play: Play) -> float:
    play.world.device.replace_route("default", via=play.world.spare, metric=100)
    return trio.current_time()


def refuse_at_lte(play: Play) -> None:
    """As a router with strict source checks: rp_filter, of which there is none for IPv6, or BCP 38."""
    router = play.net.lte_router
    router.refuse_foreign_sources(router.links["lan0"])


def accept_at_lte(play: Play) -> None:
    play.net.lte_router.delete_rule(11, action="blackhole", family=play.family)


# ---- the path moves, and the far side answers, resets, or is silent ------------------------------------------


def let_resets_back(play: Play) -> None:
    """The other router knows the way to the address that it translates, as where both have the same private prefix."""
    lan = play.net.lte_router.links["lan0"]
    way = play.net.wwan0_addresses[play.family]
    play.net.lte_router.add_route(play.net.wlan0_addresses[play.family], via=way, device=lan)


@situation("5, 8: other uplink, other NAT: reset", NAT)
async def other_nat(play: Play) -> None:
    let_resets_back(play)
    pair = await play.world.connect()
    saved = options_of(pair)
    since = move_to_lte(play)
    await play.suspect(pair, Verdict.EGRESS_CHANGED)
    error = await play.loses(pair, Verdict.EGRESS_CHANGED, after=0.95, within=1.3 + SLACK, since=since)
    assert "reset" in error.loss.evidence and "RTM_NEWROUTE" in error.loss.cause
    assert options_of(pair) == saved
    await play.world.the_healthy_live(lost=1)


@situation("6: there and back in half a second", NAT)
async def flip(play: Play) -> None:
    let_resets_back(play)
    pair, early = await play.world.connect(), await play.world.connect()
    await trio.sleep(1.1)  # the kernel probes what has been idle for TCP_KEEPIDLE
    since = move_to_lte(play)
    # Somebody else's impatience, on another connection in the same flip: that is what settling is for.
    for option, value in zip(OPTIONS, (1, 1, 1, 127, 0), strict=True):
        early.near.socket.setsockopt(*option, value)
    await trio.sleep(0.5)
    move_back(play)
    await play.recovers(pair, within=1, since=since)
    with pytest.raises(trio.BrokenResourceError):
        await early.exchange()
    await trio.sleep(3)
    await play.world.the_healthy_live(pair, lost=play.world.pt.statistics().lost)
    assert play.acquitted_by(pair) == ["its path is back"] and play.asked == 0


@situation("7: a second link to the same LAN, one NAT", NAT)
async def same_router(play: Play) -> None:
    device, pair = play.world.device, await play.world.connect()
    address = ip_address(play.net.wlan0_addresses[play.family]) + 1
    device.plug(play.net.wlan0.network, name="wired", addresses=[f"{address}/{24 if play.family == 4 else 64}"])
    device.add_route("default", via=play.world.wifi, device="wired", metric=50)
    since = trio.current_time()
    await play.suspect(pair, Verdict.EGRESS_CHANGED)
    await play.recovers(pair, within=4 + SLACK, since=since)
    assert play.acquitted_by(pair) == BY_KEEPALIVE
    await play.world.the_healthy_live(pair, lost=0)


@situation("9: other uplink, routed", ROUTED)
async def routed(play: Play) -> None:
    pair = await play.world.connect()
    for option, value in zip(OPTIONS[1:], (77, 33, 5, 4321), strict=True):
        pair.near.socket.setsockopt(*option, value)
    saved = options_of(pair)
    since = move_to_lte(play)
    await play.suspect(pair, Verdict.EGRESS_CHANGED)
    took = await play.recovers(pair, within=4 + SLACK, since=since)
    assert took >= 1.9, "two answers: one may be of the old path"
    assert options_of(pair) == saved
    assert play.acquitted_by(pair) == BY_KEEPALIVE
    await play.world.the_healthy_live(pair, lost=0)
    # It is the baseline from now on; and so is the old one, still.
    move_back(play)
    await play.world.applied()
    assert (pair.standing, pair.near.connection.verdict) == (Standing.GOOD, Verdict.UNCHANGED)
    assert play.asked == 1
    await pair.exchange()


@situation("9: other uplink, whose router checks sources: silence", ROUTED)
async def source_check(play: Play) -> None:
    refuse_at_lte(play)
    pair = await play.world.connect()
    saved = options_of(pair)
    since = move_to_lte(play)
    error = await play.loses(pair, Verdict.EGRESS_CHANGED, after=3.95, within=4.5 + SLACK, since=since)
    assert "no answer" in error.loss.evidence
    assert options_of(pair) == saved
    await play.world.the_healthy_live(lost=1)


@situation("10: other uplink, our own rp_filter is strict", ROUTED, families=(4,))
async def own_source_check(play: Play) -> None:
    play.world.device.sysctl("net.ipv4.conf.all.rp_filter", 1)
    pair = await play.world.connect()
    # The answers would come in by the old link: the server's way back is the Wi-Fi.
    since = move_to_lte(play)
    await play.loses(pair, Verdict.EGRESS_CHANGED, after=3.95, within=4.5 + SLACK, since=since)
    await play.world.the_healthy_live(lost=1)


@situation("18: full tunnel by two halves: silence", ROUTED)
async def halves(play: Play) -> None:
    refuse_at_lte(play)
    pair, patient = await play.world.connect(), await play.world.connect(policy=Policy.patient())
    both = ("0.0.0.0/1", "128.0.0.0/1") if play.family == 4 else ("::/1", "8000::/1")
    for half in both:
        play.world.device.add_route(half, via=play.world.lte)
    since = trio.current_time()
    await play.loses(pair, Verdict.EGRESS_CHANGED, after=3.95, within=4.5 + SLACK, since=since)
    for half in both:
        play.world.device.delete_route(half)
    await play.recovers(patient, within=6 + SLACK, since=since)
    await play.world.the_healthy_live(patient, lost=1)


@situation("47: another gateway on the link, each with its own NAT: reset", NAT_AND_SPARE)
async def other_gateway_nat(play: Play) -> None:
    pair = await play.world.connect()
    since = move_to_spare(play)
    await play.loses(pair, Verdict.GATEWAY_CHANGED, after=0.95, within=1.3 + SLACK, since=since)
    await play.world.the_healthy_live(lost=1)


@situation("48: another gateway on the link, routed", ROUTED_AND_SPARE)
async def other_gateway_routed(play: Play) -> None:
    pair = await play.world.connect()
    since = move_to_spare(play)
    await play.suspect(pair, Verdict.GATEWAY_CHANGED)
    await play.recovers(pair, within=4 + SLACK, since=since)
    assert play.acquitted_by(pair) == BY_KEEPALIVE
    await play.world.the_healthy_live(pair, lost=0)


@situation("49: the same router by another address, with NAT", NAT)
async def same_router_renamed(play: Play) -> None:
    pair = await play.world.connect()
    other = ip_address(play.world.wifi) + 8
    play.net.wifi_router.links["lan0"].add_address(f"{other}/{24 if play.family == 4 else 64}")
    play.world.device.replace_route("default", via=str(other), metric=100)
    since = trio.current_time()
    await play.suspect(pair, Verdict.GATEWAY_CHANGED)
    await play.recovers(pair, within=4 + SLACK, since=since)
    await play.world.the_healthy_live(pair, lost=0)


@situation("50: the source is on lo", ROUTED)
async def source_on_lo(play: Play) -> None:
    service, world = {4: "192.0.2.1", 6: "2001:db8:5::1"}[play.family], play.world
    await world.device.run(["ip", "address", "add", f"{service}/{32 if play.family == 4 else 128}", "dev", "lo"])
    for router, back in ((play.net.wifi_router, "wlan0"), (play.net.lte_router, "wwan0")):
        router.add_route(service, via=getattr(play.net, f"{back}_addresses")[play.family])
    play.net.server.add_route(service, via={4: "198.51.100.1", 6: "2001:db8:f::1"}[play.family])
    await world.applied()
    pair = await world.connect(local_address=service)
    move_to_lte(play)
    await world.applied()
    assert (pair.standing, pair.near.connection.verdict) == (Standing.GOOD, Verdict.REROUTED)
    await trio.sleep(2)
    await world.the_healthy_live(pair, lost=0)
    assert play.asked == 0


@situation("52: ECMP over two NATs loses the member in use", NAT)
async def ecmp_member(play: Play) -> None:
    """IPv4 uses the member whose address is the source; IPv6 uses either, and only asking tells which it was."""
    device, world = play.world.device, play.world
    let_resets_back(play)
    both = [Hop(via=world.wifi, device="wlan0"), Hop(via=world.lte, device="wwan0")]
    prefix = f"{world.server}/{32 if play.family == 4 else 128}"
    device.add_route(prefix, nexthops=both)
    await world.applied()
    pair = await world.connect(local_address=play.net.wlan0_addresses[play.family])
    device.replace_route(prefix, nexthops=both[1:])
    await play.suspect(pair, Verdict.EGRESS_CHANGED)
    await until(lambda: pair.standing is not Standing.SUSPECT, seconds=6)
    assert play.asked == 1
    lost = pair.near.connection.loss is not None
    if play.family == 4:
        assert lost
    if not lost:
        await pair.exchange()  # it went by the other member all the time
    await world.the_healthy_live(lost=int(lost))


@situation("52: ECMP gains a member, routed", ROUTED)
async def ecmp_grows(play: Play) -> None:
    device, world = play.world.device, play.world
    both = [Hop(via=world.wifi, device="wlan0"), Hop(via=world.lte, device="wwan0")]
    prefix = f"{world.server}/{32 if play.family == 4 else 128}"
    device.add_route(prefix, nexthops=both[:1])
    await world.applied()
    pair = await world.connect(local_address=play.net.wlan0_addresses[play.family])
    device.replace_route(prefix, nexthops=both)
    since = trio.current_time()
    await world.applied()
    if play.family == 6:
        await play.suspect(pair, Verdict.EGRESS_CHANGED)
        await play.recovers(pair, within=4 + SLACK, since=since)
    assert play.asked == (play.family == 6)
    await world.the_healthy_live(pair, lost=0)


# ---- data that nobody has acknowledged -----------------------------------------------------------------------


@situation("9 with unacknowledged data: retransmission does the work", ROUTED)
async def unacknowledged_alive(play: Play) -> None:
    refuse_at_lte(play)
    pair = await play.world.connect()
    since = move_to_lte(play)
    await trio.sleep(0.7)
    await pair.near.send_all(b"into the hole")
    await trio.sleep(0.6)  # now it is being asked, with data under way
    assert pair.standing is Standing.SUSPECT
    accept_at_lte(play)
    await play.recovers(pair, within=8 + SLACK, since=since)
    assert play.acquitted_by(pair) == BY_KEEPALIVE
    assert await pair.far.receive_some() == b"into the hole"
    await play.world.the_healthy_live(pair, lost=0)


@situation("9 with unacknowledged data that never arrives", ROUTED)
async def unacknowledged_dead(play: Play) -> None:
    refuse_at_lte(play)
    pair = await play.world.connect()
    since = move_to_lte(play)
    await trio.sleep(0.7)
    await pair.near.send_all(b"into the hole")
    await play.loses(pair, Verdict.EGRESS_CHANGED, after=3.95, within=14 + SLACK, since=since)
    await play.world.the_healthy_live(lost=1)


@situation("8 with an application that sends by the other NAT", NAT)
async def reset_before_asking(play: Play) -> None:
    """The application's own task has the reset first: R30."""
    let_resets_back(play)
    pair, bare = await play.world.connect(), await play.world.connect()
    stream = bare.near.inner
    move_to_lte(play)
    await play.suspect(pair, Verdict.EGRESS_CHANGED)

    async def guarded_body() -> None:
        with pytest.raises(RouteLostError) as caught, play.world.pt.guard(stream):
            await stream.send_all(b"who are you?")
            await stream.receive_some()
        assert caught.value.verdict is Verdict.EGRESS_CHANGED
        assert "reset" in caught.value.loss.evidence

    # A reset by the peer itself, while nothing is wrong with the way to it, stays what it is.
    neighbour = play.world.healthy.pop(0)
    neighbour.far.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    neighbour.far.socket.close()
    with pytest.raises(trio.BrokenResourceError) as plain, play.world.pt.guard(neighbour.near.inner):
        await neighbour.near.inner.receive_some()
    assert not isinstance(plain.value, RouteLostError)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(guarded_body)
        await pair.near.send_all(b"who are you?")
        error = await pair.lost()
        assert error.verdict is Verdict.EGRESS_CHANGED
        assert "reset while suspect" in error.loss.evidence, "nobody waited for the end of settling"
    await play.world.the_healthy_live(lost=2)


# ---- evidence against the model ------------------------------------------------------------------------------


async def _chatter(pair: Pair) -> None:
    """A byte there each 50 ms, read by nobody in particular: the acknowledgement is the kernel's."""
    while True:
        await pair.near.send_all(b".")
        await trio.sleep(0.05)


@situation("84: bound to a link whose route goes, IPv4 finds the peer by ARP", ROUTED, families=(4,))
async def bound_by_arp(play: Play) -> None:
    """One connection that sends, and is acquitted by what is acknowledged; an idle one has nothing to show."""
    play.net.wifi_router.sysctl("net.ipv4.conf.lan0.proxy_arp", 1)
    pair, idle = await play.world.connect(device="wlan0"), await play.world.connect(device="wlan0")
    verdict = Verdict.NO_ROUTE
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_chatter, pair)
        await trio.sleep(0.2)
        play.world.device.delete_route("default", via=play.world.wifi)
        since = trio.current_time()
        await play.suspect(pair, verdict)
        await play.loses(idle, verdict, after=0.95, within=1.3 + SLACK, since=since)
        took = await play.recovers(pair, within=1.3 + SLACK, since=since)
        assert took >= 0.95
        await trio.sleep(2)
        assert (pair.standing, pair.near.connection.verdict) == (Standing.GOOD, verdict)
        nursery.cancel_scope.cancel()
    assert play.acquitted_by(pair) == BY_DATA
    await play.world.the_healthy_live(lost=1)


@situation("85: a mark that nftables sets on output", ROUTED)
async def marked(play: Play) -> None:
    device, world = play.world.device, play.world
    rules = "add table inet m; add chain inet m out { type route hook output priority mangle; }; "
    rules += f"add rule inet m out {'ip' if play.family == 4 else 'ip6'} daddr {world.server} meta mark set 7"
    await device.run(["nft", rules])
    device.add_route("default", via=world.wifi, table=77)
    device.add_rule(50, mark=7, table=77, family=play.family)
    refuse_at_lte(play)
    await world.applied()
    pair, idle = await world.connect(), await world.connect()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_chatter, pair)
        await trio.sleep(0.2)
        since = move_to_lte(play)  # so says the lookup, and there it would be dead
        await play.suspect(pair, Verdict.EGRESS_CHANGED)
        await play.recovers(pair, within=1.3 + SLACK, since=since)
        await play.recovers(idle, within=4 + SLACK, since=since)
        nursery.cancel_scope.cancel()
    assert (play.acquitted_by(pair), play.acquitted_by(idle)) == (BY_DATA, BY_KEEPALIVE)
    assert play.asked == 1, "who has evidence is not asked"
    await world.the_healthy_live(idle, lost=0)


@situation("21: a better route in a table whose rule was there, IPv6", ROUTED, families=(6,))
async def stale_ipv6(play: Play) -> None:
    """The socket stays on its old route, and answers there: not a new baseline."""
    refuse_at_lte(play)
    device, world = play.world.device, play.world
    device.add_rule(50, table=52, family=6)
    await world.applied()
    pair = await world.connect()
    device.add_route(world.server, via=world.lte, table=52)
    since = trio.current_time()
    await play.suspect(pair, Verdict.EGRESS_CHANGED)
    await play.recovers(pair, within=4 + SLACK, since=since)
    assert pair.near.connection.verdict is Verdict.EGRESS_CHANGED
    # An unrelated route in the old table, and the kernel moves it.
    device.add_route("2001:db8:77::/48", via=world.wifi)
    since = trio.current_time()
    await play.loses(pair, Verdict.EGRESS_CHANGED, after=3.9, within=4.5 + SLACK, since=since)
    assert play.asked == 2
    await world.the_healthy_live(lost=1)


@situation("22: an unreachable default in such a table, IPv6", ROUTED, families=(6,))
async def stale_rejected(play: Play) -> None:
    device, world = play.world.device, play.world
    device.add_rule(50, table=52, family=6)
    await world.applied()
    pair = await world.connect()
    device.add_route(world.server, type="unreachable", table=52)
    since = trio.current_time()
    await play.suspect(pair, Verdict.REJECTED)
    await play.recovers(pair, within=4 + SLACK, since=since)
    assert (play.acquitted_by(pair), pair.near.connection.verdict) == (BY_KEEPALIVE, Verdict.REJECTED)
    await world.the_healthy_live(pair, lost=0)


@situation("94: registered though the model sees no route", ROUTED, families=(4,))
async def born_broken(play: Play) -> None:
    play.net.wifi_router.sysctl("net.ipv4.conf.lan0.proxy_arp", 1)
    device, world = play.world.device, play.world
    pair, dead = await world.connect(device="wlan0"), await world.connect()
    inner, dead_inner = pair.near.inner, dead.near.inner
    # Its wrapper goes, the socket stays: whoever guards it next finds it without a route.
    await world.applied()
    device.delete_route("default", via=world.wifi)
    pair.near._release()
    dead.near._release()
    device.add_route(world.server, type="unreachable")
    await world.applied()
    again, dead_again = world.pt.guard_stream(inner), world.pt.guard_stream(dead_inner)
    since = trio.current_time()
    found = Pair(again, pair.far)
    assert found.standing is Standing.SUSPECT
    await until(lambda: found.standing is not Standing.SUSPECT, seconds=4 + SLACK)
    assert (found.standing, again.connection.verdict) == (Standing.GOOD, Verdict.UNJUDGED)
    with trio.fail_after(4.5 + SLACK), pytest.raises(RouteLostError):
        await dead_again.receive_some()
    assert trio.current_time() - since >= 3.9, "asked, though certain: the model might not fit"
    await found.exchange()
    await world.the_healthy_live(lost=1)


# ---- what is borrowed is given back --------------------------------------------------------------------------


@situation("an application's TCP_USER_TIMEOUT shorter than the silence", ROUTED)
async def user_timeout(play: Play) -> None:
    refuse_at_lte(play)
    pair = await play.world.connect()
    pair.near.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 500)
    saved = options_of(pair)
    since = move_to_lte(play)
    await play.asking(pair)
    asked_at = trio.current_time()
    await until(lambda: probes_of(pair) == 2)  # one was not answered: with that timeout the kernel ends it then
    assert pair.standing is Standing.SUSPECT
    accept_at_lte(play)
    if trio.current_time() - asked_at < 1.9:  # else the machine was too busy for a third probe in the window
        await play.recovers(pair, within=8 + SLACK, since=since)
        await play.world.the_healthy_live(pair, lost=0)
    assert options_of(pair) == saved


@situation("an application's own keepalive, and a path that is back", ROUTED)
async def own_keepalive(play: Play) -> None:
    """The kernel's count of unanswered probes is one for both: given back too early, the application's would end it."""
    refuse_at_lte(play)
    pair = await play.world.connect()
    for option, value in zip(OPTIONS, (1, 2, 1, 1, 0), strict=True):
        pair.near.socket.setsockopt(*option, value)
    saved = options_of(pair)
    since = move_to_lte(play)
    await play.asking(pair)
    await until(lambda: probes_of(pair) > 0)
    move_back(play)
    await play.recovers(pair, within=4 + SLACK, since=since)
    await until(lambda: options_of(pair) == saved, seconds=3)
    await trio.sleep(3)
    await play.world.the_healthy_live(pair, lost=0)


@situation("guards left, sockets closed, duplicates kept, while asking", ROUTED)
async def on_every_way_out(play: Play) -> None:
    refuse_at_lte(play)
    world = play.world
    left, closed, guarded = [await world.connect() for _ in range(3)]
    saved = options_of(left)
    duplicate = closed.near.socket.dup()
    bare = guarded.near.socket
    inode = os.fstat(bare.fileno()).st_ino
    with world.pt.guard(bare):
        guarded.near._release()
        move_to_lte(play)
        for pair in (left, closed, guarded):
            await play.asking(pair)
        left.near._release()
        assert options_of(left) == saved, "at once"
        await closed.near.aclose()
        bare.close()  # without telling anybody
        spare = [duplicate.getsockopt(*option) for option in OPTIONS]
        assert spare == saved
        await until(lambda: f"socket:[{inode}]" not in open_files())  # the duplicate that asking held
    duplicate.close()
    move_back(play)
    await left.exchange()
    await world.the_healthy_live(lost=0)


@situation("the pt closes while asking", ROUTED)
async def pt_closes(play: Play) -> None:
    refuse_at_lte(play)
    world = play.world
    (listener,) = play.net.server.listen(0, world.server)
    async with listener:
        stream = await world.device.open_tcp_stream(world.server, listener.socket.getsockname()[1])
        far = await listener.accept()
    saved = [stream.socket.getsockopt(*option) for option in OPTIONS]
    async with open_pt(netns=world.device.netns) as pt:
        with pt.guard(stream) as connection:
            move_to_lte(play)
            await until(lambda: [stream.socket.getsockopt(*option) for option in OPTIONS] == PROBING)
    assert [stream.socket.getsockopt(*option) for option in OPTIONS] == saved
    assert connection.loss is None
    accept_at_lte(play)
    await stream.send_all(b"alive")
    with trio.fail_after(5):
        assert await far.receive_some() == b"alive"
    await far.aclose()
    await stream.aclose()
    await world.the_healthy_live(lost=0)


# ---- the tests -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def outcomes(request: pytest.FixtureRequest) -> dict[tuple[str, int], BaseException | None]:
    """What became of all situations that are asked for in this run."""
    chosen = {item.name for item in request.session.items if item.path == request.path}
    return _probe.play([case for case in _probe.cases if f"test_row[{_name(case)}]" in chosen and _can_play(case)])


def _name(case: tuple[str, int]) -> str:
    return f"{case[0]}-IPv{case[1]}"


def _can_play(case: tuple[str, int]) -> bool:
    return not case[0].startswith("85") or shutil.which("nft") is not None


@pytest.mark.parametrize("case", _probe.cases, ids=_name)
def test_row(case: tuple[str, int], outcomes: dict[tuple[str, int], BaseException | None]) -> None:
    if not _can_play(case):
        pytest.skip("marking needs the program nft")
    error = outcomes[case]
    if error is not None:
        raise error
