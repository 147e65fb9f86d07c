"""Rows 1 to 15: Wi-Fi, mobile and Ethernet."""

from __future__ import annotations

import trio

from tests.verdicts._row import BY_KEEPALIVE, BY_PATH, Acquitted, Closed, Kept, Network, NotRun, Rows
from tests.verdicts._stage import Stage
from trio_routes import Verdict

NAT = Network(nat=True)
ROUTED = Network(nat=False)

uplinks = Rows()
row = uplinks.row

NOT_RUN: list[NotRun] = [
    ("1", "Wi-Fi roams in its subnet, carrier stays", "nothing changes that the kernel tells"),
]


@row("2", "roams with reassociation: carrier lost for a second", NAT, Acquitted(Verdict.CARRIER_LOST, BY_PATH))
async def roams(stage: Stage) -> None:
    await stage.connect()
    stage.net.wlan0.carrier(False)
    await stage.suspect()
    await trio.sleep(1)
    stage.net.wlan0.carrier(True)


def _forget_wifi(stage: Stage) -> None:
    """What systemd-networkd does at once when the carrier goes."""
    stage.device.delete_route("default", via=stage.wifi, metric=100)
    stage.net.wlan0.delete_address(f"{stage.wlan0}/{stage.length}")


def _restore_wifi(stage: Stage) -> None:
    stage.net.wlan0.add_address(f"{stage.wlan0}/{stage.length}")
    stage.device.add_route("default", via=stage.wifi, metric=100)


@row("3", "carrier, address and routes gone for 3 s", NAT, Acquitted(Verdict.SOURCE_GONE, BY_PATH))
async def networkd_flap(stage: Stage) -> None:
    await stage.connect()
    stage.net.wlan0.carrier(False)
    await stage.suspect()
    _forget_wifi(stage)
    await trio.sleep(3)
    stage.net.wlan0.carrier(True)
    _restore_wifi(stage)


@row("4", "Wi-Fi to LTE, the old address deleted", NAT, Closed(Verdict.SOURCE_GONE, 1))
async def address_deleted(stage: Stage) -> None:
    await stage.connect()
    stage.move_to_lte()
    stage.now()
    stage.net.wlan0.delete_address(f"{stage.wlan0}/{stage.length}")


@row("4", "the same, the carrier lost before", NAT, Closed(Verdict.SOURCE_GONE, 6))
async def address_deleted_without_carrier(stage: Stage) -> None:
    await stage.connect()
    stage.net.wlan0.carrier(False)
    await stage.suspect()
    _forget_wifi(stage)
    stage.move_to_lte()


@row("5", "Wi-Fi to LTE with its own NAT, the old address stays", NAT, Closed(Verdict.EGRESS_CHANGED, 1))
async def other_nat(stage: Stage) -> None:
    await stage.connect()
    stage.device.replace_route("default", via=stage.lte, metric=100)


@row("6", "as 5, and back within half a second", NAT, Acquitted(Verdict.EGRESS_CHANGED, BY_PATH))
async def flip(stage: Stage) -> None:
    """Idle for long enough that the kernel would probe at once if it were asked to: the other NAT would reset it."""
    await stage.connect()
    await trio.sleep(1.1)
    stage.now()
    stage.move_to_lte()
    await trio.sleep(0.5)
    stage.move_back()


async def _second_link(stage: Stage) -> None:
    stage.device.plug(
        stage.net.wlan0.network, name="wired", addresses=[f"{stage.beside(stage.wlan0, 1)}/{stage.length}"]
    )
    await stage.connect()
    stage.device.add_route("default", via=stage.wifi, device="wired", metric=50)


ASKED = Acquitted(Verdict.EGRESS_CHANGED, BY_KEEPALIVE)


@row("7", "a second link to the same LAN, one NAT", NAT, ASKED)
async def same_router(stage: Stage) -> None:
    await _second_link(stage)


@row("7", "the same, our rp_filter is strict", NAT, ASKED, families=(4,))
async def same_router_strict(stage: Stage) -> None:
    stage.device.sysctl("net.ipv4.conf.all.rp_filter", 1)
    await _second_link(stage)


@row("7", "the same, our rp_filter is loose", NAT, ASKED, families=(4,))
async def same_router_loose(stage: Stage) -> None:
    stage.device.sysctl("net.ipv4.conf.all.rp_filter", 2)
    await _second_link(stage)


@row("8", "a better default by another NAT", NAT, Closed(Verdict.EGRESS_CHANGED, 1))
async def better_default(stage: Stage) -> None:
    await stage.connect()
    stage.move_to_lte()


@row("9", "as 8, routed", ROUTED, ASKED)
async def routed(stage: Stage) -> None:
    await stage.connect()
    stage.move_to_lte()


@row("9", "as 8, routed, the router checks sources", ROUTED, Closed(Verdict.EGRESS_CHANGED, 4))
async def source_check(stage: Stage) -> None:
    stage.refuse_at_lte()
    await stage.connect()
    stage.move_to_lte()


@row("9", "as 8, routed, the router's rp_filter is strict", ROUTED, Closed(Verdict.EGRESS_CHANGED, 4), families=(4,))
async def strict_router(stage: Stage) -> None:
    stage.net.lte_router.sysctl("net.ipv4.conf.lan0.rp_filter", 1)
    await stage.connect()
    stage.move_to_lte()


@row("10", "as 9, our own rp_filter is strict", ROUTED, Closed(Verdict.EGRESS_CHANGED, 4), families=(4,))
async def own_source_check(stage: Stage) -> None:
    stage.device.sysctl("net.ipv4.conf.all.rp_filter", 1)
    await stage.connect()
    stage.move_to_lte()


@row("10", "the same, undone", ROUTED, Acquitted(Verdict.EGRESS_CHANGED, BY_PATH), families=(4,))
async def own_source_check_undone(stage: Stage) -> None:
    stage.device.sysctl("net.ipv4.conf.all.rp_filter", 1)
    await stage.connect()
    stage.move_to_lte()
    await trio.sleep(2)  # it is being asked by now
    stage.move_back()


@row("10", "as 9, our own rp_filter is loose", ROUTED, ASKED, families=(4,))
async def own_loose_source_check(stage: Stage) -> None:
    stage.device.sysctl("net.ipv4.conf.all.rp_filter", 2)
    await stage.connect()
    stage.move_to_lte()


@row("11", "as 8, with a rule for the source", NAT, Kept())
async def source_rule(stage: Stage) -> None:
    stage.device.add_route("default", via=stage.wifi, table=100)
    stage.device.add_rule(100, source=stage.wlan0, table=100)
    await stage.connect()
    stage.move_to_lte()


@row(
    "12",
    "undocked: the address is deleted, another way is there",
    Network(nat=True, lte_metric=600),
    Closed(Verdict.SOURCE_GONE, 1),
)
async def undocked(stage: Stage) -> None:
    await stage.connect()
    _forget_wifi(stage)


def _penalise(stage: Stage) -> None:
    """NetworkManager's penalty for a link that does not reach the world."""
    stage.device.add_route("default", via=stage.wifi, metric=20100)
    stage.device.delete_route("default", via=stage.wifi, metric=100)


@row("13", "only the metric changes, one link", NAT, Kept())
async def metric(stage: Stage) -> None:
    await stage.connect()
    _penalise(stage)


@row(
    "14",
    "a metric changes, another NAT is better now",
    Network(nat=True, lte_metric=600),
    Closed(Verdict.EGRESS_CHANGED, 1),
)
async def metric_moves(stage: Stage) -> None:
    await stage.connect()
    _penalise(stage)


@row("14", "a metric changes, another way is better now, routed", Network(nat=False, lte_metric=600), ASKED)
async def metric_moves_routed(stage: Stage) -> None:
    await stage.connect()
    _penalise(stage)


@row("15", "NetworkManager's reapply: all gone for 27 ms", NAT, Acquitted(Verdict.SOURCE_GONE, BY_PATH))
async def reapply(stage: Stage) -> None:
    await stage.connect()
    _forget_wifi(stage)
    await trio.sleep(0.027)
    _restore_wifi(stage)
