"""Rows 46 to 68: gateways and routes."""

from __future__ import annotations

import trio

from tests.verdicts._advertise import advertise, default_gateways
from tests.verdicts._row import BY_KEEPALIVE, BY_PATH, Acquitted, Closed, Kept, Network, NotRun, Rows
from tests.verdicts._stage import SOON, Stage
from trio_routes import Policy, Verdict
from trio_routes.testing import Hop, Host

NAT = Network(nat=True)
ROUTED = Network(nat=False)
ROUTED_AND_SPARE = Network(nat=False, spare_gateway=True)
ASKED_EGRESS = Acquitted(Verdict.EGRESS_CHANGED, BY_KEEPALIVE)
ASKED_GATEWAY = Acquitted(Verdict.GATEWAY_CHANGED, BY_KEEPALIVE)

BIRD = 12  # RTPROT_BIRD

gateways = Rows()
row = gateways.row

NOT_RUN: list[NotRun] = [
    ("52", "the same for IPv6", "it takes a member by a hash, so that its truth is not one (test_kernel_probe.py)"),
]


@row("46", "the router is replaced: same address, other MAC", ROUTED, Kept())
async def other_mac(stage: Stage) -> None:
    await stage.connect()
    await stage.ip("link", "set", "lan0", "address", "02:00:00:00:46:46", host=stage.net.wifi_router)
    await stage.ip("neigh", "flush", "dev", "wlan0")  # what its gratuitous ARP does


@row(
    "47",
    "another gateway on the link, each with its own NAT",
    Network(nat=True, spare_gateway=True),
    Closed(Verdict.GATEWAY_CHANGED, 1),
)
async def other_gateway_nat(stage: Stage) -> None:
    spare = stage.net.spare_router
    assert spare is not None
    spare.add_route({4: "10.0.1.2", 6: "2001:db8:1::2"}[stage.family], device="lan0")
    await stage.connect()
    stage.device.replace_route("default", via=stage.spare, metric=100)


@row("48", "another gateway on the link, routed", ROUTED_AND_SPARE, ASKED_GATEWAY)
async def other_gateway(stage: Stage) -> None:
    await stage.connect()
    stage.device.replace_route("default", via=stage.spare, metric=100)


@row("48", "the same, with strict rp_filter in the routers", ROUTED_AND_SPARE, ASKED_GATEWAY, families=(4,))
async def other_gateway_strict(stage: Stage) -> None:
    for router in (stage.net.wifi_router, stage.net.spare_router):
        assert router is not None
        router.sysctl("net.ipv4.conf.all.rp_filter", 1)
    await stage.connect()
    stage.device.replace_route("default", via=stage.spare, metric=100)


@row("49", "the same router under another address", NAT, ASKED_GATEWAY)
async def renamed_router(stage: Stage) -> None:
    other = stage.beside(stage.wifi, 8)
    stage.net.wifi_router.links["lan0"].add_address(f"{other}/{stage.length}")
    await stage.connect()
    stage.device.replace_route("default", via=other, metric=100)


async def _serve_from_lo(stage: Stage) -> None:
    stage.know_the_service()
    await stage.ip("address", "add", f"{stage.service}/{stage.host_length}", "dev", "lo")


@row("50", "the source is on lo: another link", ROUTED, Kept(Verdict.REROUTED))
async def anycast_egress(stage: Stage) -> None:
    await _serve_from_lo(stage)
    await stage.connect(local=stage.service)
    stage.move_to_lte()


@row("50", "the source is on lo: another gateway", ROUTED_AND_SPARE, Kept(Verdict.REROUTED))
async def anycast_gateway(stage: Stage) -> None:
    await _serve_from_lo(stage)
    await stage.connect(local=stage.service)
    stage.device.replace_route("default", via=stage.spare, metric=100)


def _members(stage: Stage, *weights: int) -> list[Hop]:
    both = (stage.wifi, "wlan0"), (stage.lte, "wwan0")
    return [Hop(via=via, device=link, weight=weight) for (via, link), weight in zip(both, weights, strict=False)]


@row("51", "the source is on lo: a member is added", ROUTED, Kept())
async def member_added(stage: Stage) -> None:
    await _serve_from_lo(stage)
    stage.device.replace_route("default", nexthops=_members(stage, 1), metric=10)
    await stage.connect(local=stage.service)
    stage.device.replace_route("default", nexthops=_members(stage, 1, 1), metric=10)


@row("51", "the source is on lo: a member goes", ROUTED, Kept())
async def member_gone(stage: Stage) -> None:
    await _serve_from_lo(stage)
    stage.device.add_route("default", nexthops=_members(stage, 1, 1), metric=10)
    await stage.connect(local=stage.service)
    stage.device.replace_route("default", nexthops=_members(stage, 1), metric=10)


@row("51", "the source is on lo: other weights", ROUTED, Kept())
async def weights(stage: Stage) -> None:
    await _serve_from_lo(stage)
    stage.device.add_route("default", nexthops=_members(stage, 1, 1), metric=10)
    await stage.connect(local=stage.service)
    stage.device.replace_route("default", nexthops=_members(stage, 1, 20), metric=10)


@row(
    "52",
    "multipath over two NATs, the member that has the source goes",
    NAT,
    Closed(Verdict.EGRESS_CHANGED, 1),
    families=(4,),
)
async def own_member_gone(stage: Stage) -> None:
    """IPv4 takes the member whose address the source is; IPv6 takes either, so that its truth is not one."""
    stage.device.add_route("default", nexthops=_members(stage, 1, 1), metric=10)
    await stage.connect()
    stage.device.replace_route("default", nexthops=_members(stage, 1, 1)[1:], metric=10)


@row("53", "a more specific route, same gateway", NAT, Kept())
async def more_specific(stage: Stage) -> None:
    await stage.connect()
    stage.device.add_route(stage.server, via=stage.wifi)


@row("54", "a more specific route by another NAT", NAT, Closed(Verdict.EGRESS_CHANGED, 1))
async def more_specific_nat(stage: Stage) -> None:
    await stage.connect()
    stage.device.add_route(stage.server, via=stage.lte)


@row("54", "a more specific route by another link, routed", ROUTED, ASKED_EGRESS)
async def more_specific_routed(stage: Stage) -> None:
    await stage.connect()
    stage.device.add_route(stage.server, via=stage.lte)


@row("55", "the first default, the peer was reached by another route", ROUTED, Kept())
async def first_default(stage: Stage) -> None:
    stage.device.delete_route("default", via=stage.wifi)
    stage.device.add_route(stage.server, via=stage.wifi)
    await stage.connect()
    stage.device.add_route("default", via=stage.lte)


@row("56", "a rule comes: another NAT", NAT, Closed(Verdict.EGRESS_CHANGED, 1))
async def rule_comes(stage: Stage) -> None:
    stage.device.add_route("default", via=stage.lte, table=100)
    await stage.connect()
    stage.device.add_rule(100, destination=stage.server, table=100)


@row("56", "a rule goes: another way, routed", ROUTED, ASKED_EGRESS)
async def rule_goes(stage: Stage) -> None:
    stage.device.add_route("default", via=stage.lte, table=100)
    stage.device.add_rule(100, destination=stage.server, table=100)
    await stage.connect()
    stage.device.delete_rule(100, destination=stage.server, table=100)


async def _multi_homed(stage: Stage) -> None:
    stage.device.add_route("default", via=stage.lte, table=100)
    stage.device.add_rule(100, source=stage.wwan0, table=100)
    await stage.connect(local=stage.wwan0)
    stage.device.delete_rule(100, source=stage.wwan0, table=100)


@row("57", "a multi-homed host loses its source rule, sources are checked", ROUTED, Closed(Verdict.EGRESS_CHANGED, 4))
async def source_rule_gone(stage: Stage) -> None:
    router = stage.net.wifi_router
    router.refuse_foreign_sources(router.links["lan0"])
    await _multi_homed(stage)


@row("57", "a multi-homed host loses its source rule, routed", ROUTED, ASKED_EGRESS)
async def source_rule_gone_routed(stage: Stage) -> None:
    await _multi_homed(stage)


@row("58", "an asymmetric host: the default moves to the source's own link", ROUTED, ASKED_EGRESS)
async def asymmetric(stage: Stage) -> None:
    await stage.connect(local=stage.wwan0)
    stage.device.replace_route("default", via=stage.lte, metric=100)


def _by_bird(stage: Stage) -> None:
    stage.device.add_route(stage.server, via=stage.wifi, protocol=BIRD)
    stage.device.delete_route("default", via=stage.wifi)


@row("59", "a routing daemon restarts: its route is gone for 3 s", ROUTED, Acquitted(Verdict.NO_ROUTE, BY_PATH))
async def daemon_restarts(stage: Stage) -> None:
    _by_bird(stage)
    await stage.connect()
    stage.device.delete_route(stage.server, via=stage.wifi)
    await trio.sleep(3)
    stage.device.add_route(stage.server, via=stage.wifi, protocol=BIRD)


@row("59", "a routing daemon ends for good", ROUTED, Closed(Verdict.NO_ROUTE, 6))
async def daemon_ends(stage: Stage) -> None:
    _by_bird(stage)
    await stage.connect()
    stage.device.delete_route(stage.server, via=stage.wifi)


@row("60", "the default route is flushed", NAT, Closed(Verdict.NO_ROUTE, 1))
async def flush(stage: Stage) -> None:
    await stage.connect()
    await stage.ip("route", "flush", "default")


@row("61", "a blackhole wins", NAT, Closed(Verdict.REJECTED, 1))
async def blackhole(stage: Stage) -> None:
    await stage.connect()
    stage.device.add_route(stage.server, type="blackhole")


@row("61", "a prohibiting route wins", NAT, Closed(Verdict.REJECTED, 1))
async def prohibit(stage: Stage) -> None:
    await stage.connect()
    stage.device.add_route(stage.server, type="prohibit")


@row("62", "unreachable default of huge metric, the real one goes", NAT, Closed(Verdict.REJECTED, 1))
async def backstop(stage: Stage) -> None:
    stage.device.add_route("default", type="unreachable", metric=4278198272, family=stage.family)
    await stage.connect()
    stage.device.delete_route("default", via=stage.wifi, metric=100)


@row("63", "unreachable route of a prefix, the longer one in it goes", NAT, Closed(Verdict.REJECTED, 1))
async def delegated(stage: Stage) -> None:
    wide, narrow = {
        4: ("198.51.0.0/16", "198.51.100.0/24"),
        6: ("2001:db8::/48", "2001:db8::/49"),
    }[stage.family]
    if stage.family == 6:
        wide, narrow = "2001:db8:e::/47", "2001:db8:f::/64"
    stage.device.add_route(wide, type="unreachable")
    stage.device.add_route(narrow, via=stage.wifi)
    await stage.connect()
    stage.device.delete_route(narrow, via=stage.wifi)


async def _learn_routers(stage: Stage, *routers: Host, preference: str = "medium") -> None:
    """Have the device take its default routes from advertisements."""
    if await default_gateways(stage.device, "static"):
        stage.device.delete_route("default", via=stage.wifi)
    count = len(await default_gateways(stage.device, "ra")) + len(routers)
    for router in routers:
        advertise(router, "lan0", lifetime=1800, preference=preference)
    with trio.fail_after(SOON):
        while len(await default_gateways(stage.device, "ra")) < count:  # noqa: ASYNC110  # asks another process
            await trio.sleep(0.02)


def _spare(stage: Stage) -> Host:
    assert stage.net.spare_router is not None
    return stage.net.spare_router


@row("64", "a router advertises lifetime 0, a second one is there", ROUTED_AND_SPARE, ASKED_GATEWAY, families=(6,))
async def lifetime_zero(stage: Stage) -> None:
    """The second one is of low preference, so that the first is the one in use."""
    await _learn_routers(stage, stage.net.wifi_router)
    await _learn_routers(stage, _spare(stage), preference="low")
    await stage.connect()
    advertise(stage.net.wifi_router, "lan0", lifetime=0)


@row("65", "a second router advertises itself, same preference", ROUTED_AND_SPARE, Kept(), families=(6,))
async def second_router(stage: Stage) -> None:
    await _learn_routers(stage, stage.net.wifi_router)
    await stage.connect()
    await _learn_routers(stage, _spare(stage))


@row("66", "a second router advertises itself, high preference", ROUTED_AND_SPARE, ASKED_GATEWAY, families=(6,))
async def better_router(stage: Stage) -> None:
    await _learn_routers(stage, stage.net.wifi_router)
    await stage.connect()
    await _learn_routers(stage, _spare(stage), preference="high")


@row("67", "the router dies silently, another is there", ROUTED_AND_SPARE, Kept(), families=(6,))
async def silent_router(stage: Stage) -> None:
    await _learn_routers(stage, stage.net.wifi_router, _spare(stage))
    await stage.connect()
    way = await stage.device.run(["ip", "-6", "route", "get", stage.server])
    for router, other in ((stage.net.wifi_router, "2001:db8:f::3"), (_spare(stage), "2001:db8:f::1")):
        shown = await router.run(["ip", "-6", "address", "show", "dev", "lan0", "scope", "link"])
        if shown.split("inet6 ")[1].split("/")[0] in way:
            stage.net.server.replace_route("2001:db8:1::/64", via=other)
            router.links["lan0"].delete()
    await stage.ip("neigh", "flush", "dev", "wlan0")
    stage.now()
    # Three questions of a second each, and then what was sent is sent again, by the other router.
    stage.patience = 20


@row("68", "the only router says lifetime 0", ROUTED, Closed(Verdict.NO_ROUTE, 1), families=(6,))
async def only_router(stage: Stage) -> None:
    await _learn_routers(stage, stage.net.wifi_router)
    await stage.connect()
    advertise(stage.net.wifi_router, "lan0", lifetime=0)


@row(
    "68",
    "the same, and it is back after 3 s, a patient policy",
    ROUTED,
    Acquitted(Verdict.NO_ROUTE, BY_PATH),
    families=(6,),
)
async def only_router_patient(stage: Stage) -> None:
    await _learn_routers(stage, stage.net.wifi_router)
    await stage.connect(policy=Policy.patient())
    advertise(stage.net.wifi_router, "lan0", lifetime=0)
    await stage.suspect()
    await trio.sleep(3)
    advertise(stage.net.wifi_router, "lan0", lifetime=1800)
