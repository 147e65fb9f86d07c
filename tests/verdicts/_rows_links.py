"""Rows 69 to 77: links."""

from __future__ import annotations

import trio

from tests.verdicts._row import BY_KEEPALIVE, BY_PATH, Acquitted, Closed, Kept, Network, NotRun, Rows
from tests.verdicts._stage import Stage
from trio_routes import Policy, Verdict

NAT = Network(nat=True)
ROUTED = Network(nat=False)

links = Rows()
row = links.row

NOT_RUN: list[NotRun] = [
    ("70", "bond failover", "this kernel has no bond"),
    ("77", "suspend and resume", "a test cannot suspend the machine; tests/test_waking.py moves the clock instead"),
]


@row(
    "69",
    "the link is enslaved to a bridge, address and default move to it",
    ROUTED,
    Acquitted(Verdict.SOURCE_GONE, BY_KEEPALIVE),
)
async def enslaved(stage: Stage) -> None:
    words = [
        "link add br0 type bridge",
        f"address delete {stage.wlan0}/{stage.length} dev wlan0",
        "link set wlan0 master br0",
        "link set br0 up",
        f"address add {stage.wlan0}/{stage.length} dev br0" + (" nodad" if stage.family == 6 else ""),
        f"route replace default via {stage.wifi} dev br0 metric 100",
    ]
    await stage.connect()
    for line in words:
        await stage.ip(*line.split())


async def _macvlan(stage: Stage) -> None:
    """The connection is by a child of the Wi-Fi link."""
    address = stage.beside(stage.wlan0, 20)
    await stage.ip("link", "add", "mv0", "link", "wlan0", "type", "macvlan", "mode", "bridge")
    await stage.ip("link", "set", "mv0", "up")
    await stage.ip("address", "add", f"{address}/{stage.length}", "dev", "mv0", *(["nodad"] * (stage.family == 6)))
    stage.device.add_route(stage.server, via=stage.wifi, device="mv0")
    await stage.connect(local=address)


@row("71", "a macvlan's parent goes down", ROUTED, Closed(Verdict.CARRIER_LOST, 6))
async def parent_down(stage: Stage) -> None:
    await _macvlan(stage)
    stage.net.wlan0.down()


@row("71", "the same, and up again", ROUTED, Acquitted(Verdict.CARRIER_LOST, BY_PATH))
async def parent_flaps(stage: Stage) -> None:
    await _macvlan(stage)
    stage.net.wlan0.down()
    await stage.suspect()
    await trio.sleep(1)
    stage.net.wlan0.up()


@row(
    "72",
    "link down, its address kept, another way, routed",
    Network(nat=False, lte_metric=600),
    Acquitted(Verdict.EGRESS_CHANGED, BY_KEEPALIVE),
    families=(4,),
)
async def weak_host(stage: Stage) -> None:
    await stage.connect()
    # Its own way back is by the link that is down; the server's goes where the connection does.
    stage.net.server.replace_route("10.0.1.0/24", via="198.51.100.2")
    stage.net.lte_router.replace_route("10.0.1.0/24", via=stage.wwan0)
    stage.now()
    stage.net.wlan0.down()


@row(
    "73",
    "the same with keep_addr_on_down",
    Network(nat=False, lte_metric=600),
    Closed(Verdict.SOURCE_GONE, 6),
    families=(6,),
)
async def kept_address(stage: Stage) -> None:
    stage.device.sysctl("net.ipv6.conf.wlan0.keep_addr_on_down", 1)
    await stage.connect()
    stage.net.server.replace_route("2001:db8:1::/64", via="2001:db8:f::2")
    stage.net.lte_router.replace_route("2001:db8:1::/64", via=stage.wwan0)
    stage.now()
    stage.net.wlan0.down()


BOTH_NAT = Network(nat=True, lte_metric=600)


@row("74", "carrier lost, a worse default by another link", BOTH_NAT, Closed(Verdict.CARRIER_LOST, 6))
async def carrier_lost(stage: Stage) -> None:
    await stage.connect()
    stage.net.wlan0.carrier(False)


def _ignore_linkdown(stage: Stage) -> None:
    stage.device.sysctl(f"net.ipv{stage.family}.conf.all.ignore_routes_with_linkdown", 1)
    stage.device.sysctl(f"net.ipv{stage.family}.conf.wlan0.ignore_routes_with_linkdown", 1)


@row("74", "the same, ignore_routes_with_linkdown", BOTH_NAT, Closed(Verdict.EGRESS_CHANGED, 9))
async def carrier_lost_ignoring(stage: Stage) -> None:
    _ignore_linkdown(stage)
    await stage.connect()
    stage.net.wlan0.carrier(False)


@row("74", "the same, and the carrier returns after 2 s", BOTH_NAT, Acquitted(Verdict.EGRESS_CHANGED, BY_PATH))
async def carrier_flaps_ignoring(stage: Stage) -> None:
    _ignore_linkdown(stage)
    await stage.connect()
    stage.net.wlan0.carrier(False)
    await stage.suspect()
    await trio.sleep(2)
    stage.net.wlan0.carrier(True)


@row(
    "75",
    "modem reset: same address on another link after 7 s, a policy that waits",
    ROUTED,
    Acquitted(Verdict.SOURCE_GONE, BY_KEEPALIVE),
)
async def modem_reset(stage: Stage) -> None:
    """Longer than the default policy's 6 s; then the new link settles for 6 s, and the far side is asked."""
    await stage.connect(policy=Policy(source_gone=20.0))
    network = stage.net.wlan0.network
    stage.net.wlan0.delete()
    await trio.sleep(7)
    stage.device.plug(network, name="wlan0", addresses=[f"{stage.wlan0}/{stage.length}"])
    stage.device.add_route("default", via=stage.wifi, metric=100)


@row("76", "the link is renamed while it is up", NAT, Kept())
async def rename(stage: Stage) -> None:
    await stage.connect()
    await stage.ip("link", "set", "wlan0", "name", "radio0")
