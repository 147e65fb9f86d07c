"""Rows 36 to 45: addresses. Those of DHCP clients, 36 and 37, are in `_rows_producers.py`."""

from __future__ import annotations

import trio

from tests.verdicts._advertise import advertise_prefix, automatic_address
from tests.verdicts._row import BY_PATH, Acquitted, Closed, Kept, Network, Rows
from tests.verdicts._stage import Stage
from trio_routes import Policy, Verdict

NAT = Network(nat=True)
ROUTED = Network(nat=False)

addresses = Rows()
row = addresses.row


def _delete(stage: Stage) -> None:
    stage.device.delete_route("default", via=stage.wifi, metric=100)
    stage.net.wlan0.delete_address(f"{stage.wlan0}/{stage.length}")


def _restore(stage: Stage) -> None:
    stage.net.wlan0.add_address(f"{stage.wlan0}/{stage.length}")
    stage.device.add_route("default", via=stage.wifi, metric=100)


@row("38", "lease lost, the same address 3 s later", NAT, Closed(Verdict.SOURCE_GONE, 1))
async def lease_lost(stage: Stage) -> None:
    await stage.connect()
    _delete(stage)


@row("38", "lease lost, the same address 3 s later, a patient policy", NAT, Acquitted(Verdict.SOURCE_GONE, BY_PATH))
async def lease_lost_patient(stage: Stage) -> None:
    await stage.connect(policy=Policy.patient())
    _delete(stage)
    await trio.sleep(3)
    _restore(stage)


@row("39", "another address in the subnet, the old one deleted", ROUTED, Closed(Verdict.SOURCE_GONE, 1))
async def other_address(stage: Stage) -> None:
    await stage.connect()
    other = f"{stage.beside(stage.wlan0, 20)}/{stage.length}"
    stage.net.wlan0.add_address(other)
    stage.now()
    stage.net.wlan0.delete_address(f"{stage.wlan0}/{stage.length}")
    if stage.family == 4:
        stage.net.wlan0.add_address(other)  # a secondary: it went with the primary
        stage.device.add_route("default", via=stage.wifi, metric=100)


@row("40", "the route's source, MTU and advertised MSS change", NAT, Kept())
async def preferred_source(stage: Stage) -> None:
    other = stage.beside(stage.wlan0, 20)
    stage.net.wlan0.add_address(f"{other}/{stage.length}")
    await stage.connect()
    words = f"replace default via {stage.wifi} dev wlan0 metric 100 src {other} mtu 1400 advmss 1300"
    await stage.ip("route", *words.split())


@row("41", "a second address, which the route now prefers", NAT, Kept())
async def second_address(stage: Stage) -> None:
    await stage.connect()
    other = stage.beside(stage.wlan0, 20)
    stage.net.wlan0.add_address(f"{other}/{stage.length}")
    await stage.ip("route", *f"replace default via {stage.wifi} dev wlan0 metric 100 src {other}".split())


@row("42", "the link restarts, all gone for 2 s", NAT, Acquitted(Verdict.SOURCE_GONE, BY_PATH))
async def restart(stage: Stage) -> None:
    await stage.connect()
    stage.net.wlan0.down()
    if stage.family == 4:
        stage.net.wlan0.delete_address(f"{stage.wlan0}/{stage.length}")
    await trio.sleep(2)
    stage.net.wlan0.up()
    _restore(stage)


async def _with_detection(stage: Stage) -> None:
    """Delete the address and add it again, to be checked for duplicates before it is used."""
    await stage.ip("address", "delete", f"{stage.wlan0}/64", "dev", "wlan0")
    await stage.ip("address", "add", f"{stage.wlan0}/64", "dev", "wlan0")


@row(
    "43",
    "the address deleted and added, checked for duplicates",
    NAT,
    Acquitted(Verdict.SOURCE_GONE, BY_PATH),
    families=(6,),
)
async def detection(stage: Stage) -> None:
    """Tentative for some 1.8 s: more than the wait, and it counts as there."""
    stage.device.sysctl("net.ipv6.conf.wlan0.accept_dad", 1)
    await stage.connect()
    await _with_detection(stage)


@row("43", "the same, and it is a duplicate", NAT, Closed(Verdict.SOURCE_GONE, 1), families=(6,))
async def duplicate(stage: Stage) -> None:
    stage.device.sysctl("net.ipv6.conf.wlan0.accept_dad", 1)
    await stage.connect()
    stage.lab.host("other").plug(stage.net.wlan0.network, name="eth0", addresses=[f"{stage.wlan0}/64"])
    await _with_detection(stage)


@row("44", "a privacy address is deprecated", NAT, Kept(), families=(6,))
async def deprecated(stage: Stage) -> None:
    await stage.connect()
    words = f"change {stage.wlan0}/64 dev wlan0 preferred_lft 0 valid_lft 1000"
    await stage.ip("address", *words.split())


@row("44", "and then deleted", NAT, Closed(Verdict.SOURCE_GONE, 1), families=(6,))
async def deprecated_and_deleted(stage: Stage) -> None:
    await stage.connect()
    words = f"change {stage.wlan0}/64 dev wlan0 preferred_lft 0 valid_lft 1000"
    await stage.ip("address", *words.split())
    stage.now()
    stage.net.wlan0.delete_address(f"{stage.wlan0}/64")


@row("45", "router advertisement with preferred lifetime 0", NAT, Kept(), families=(6,))
async def renumbering(stage: Stage) -> None:
    stage.device.sysctl("net.ipv6.conf.wlan0.autoconf", 1)
    stage.device.sysctl("net.ipv6.conf.wlan0.accept_ra_defrtr", 0)
    prefix = "2001:db8:1::"
    advertise_prefix(stage.net.wifi_router, "lan0", prefix, preferred=1000)
    await stage.connect(local=await automatic_address(stage.device, "wlan0", prefix))
    advertise_prefix(stage.net.wifi_router, "lan0", prefix, preferred=0)
