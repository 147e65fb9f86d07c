"""Rows 16 to 35: tunnels and containers. The LTE link, whose router refuses foreign sources, stands for the tunnel."""

from __future__ import annotations

import os

import trio

from tests.verdicts._row import BY_KEEPALIVE, BY_PATH, Acquitted, Closed, Kept, LeftSuspect, Network, NotRun, Rows
from tests.verdicts._stage import Stage
from trio_routes import Verdict
from trio_routes.testing import Host

NAT = Network(nat=True)
ROUTED = Network(nat=False)
ROUTED_AND_SPARE = Network(nat=False, spare_gateway=True)
SILENCE = Closed(Verdict.EGRESS_CHANGED, 4)

tunnels = Rows()
row = tunnels.row

NOT_RUN: list[NotRun] = [
    ("26", "IPsec by policy, no route changes", "nothing changes that the kernel tells a follower of routes"),
    ("27", "a tunnel takes its own transport in", "the kernel does what it does in row 17: the path goes into a hole"),
]


def _halves(stage: Stage) -> tuple[str, str]:
    return ("0.0.0.0/1", "128.0.0.0/1") if stage.family == 4 else ("::/1", "8000::/1")


@row("16", "split tunnel up, the peer outside it", NAT, Kept())
async def split_outside(stage: Stage) -> None:
    stage.refuse_at_lte()
    await stage.connect()
    stage.device.add_route({4: "203.0.113.0/24", 6: "2001:db8:e::/64"}[stage.family], via=stage.lte)


@row("17", "split tunnel up, the peer inside it", ROUTED, SILENCE)
async def split_inside(stage: Stage) -> None:
    stage.refuse_at_lte()
    await stage.connect()
    stage.device.add_route(stage.server, via=stage.lte)


@row("17", "the same, and down again", ROUTED, Acquitted(Verdict.EGRESS_CHANGED, BY_PATH))
async def split_inside_and_down(stage: Stage) -> None:
    stage.refuse_at_lte()
    await stage.connect()
    stage.device.add_route(stage.server, via=stage.lte)
    await trio.sleep(2)
    stage.device.delete_route(stage.server, via=stage.lte)


@row("18", "full tunnel by two halves", ROUTED, SILENCE)
async def halves(stage: Stage) -> None:
    stage.refuse_at_lte()
    await stage.connect()
    for half in _halves(stage):
        stage.device.add_route(half, via=stage.lte)


@row("18", "the same, and down again", ROUTED, Acquitted(Verdict.EGRESS_CHANGED, BY_PATH))
async def halves_and_down(stage: Stage) -> None:
    stage.refuse_at_lte()
    await stage.connect()
    for half in _halves(stage):
        stage.device.add_route(half, via=stage.lte)
    await trio.sleep(2)
    for half in _halves(stage):
        stage.device.delete_route(half, via=stage.lte)


@row("19", "full tunnel up, the peer is its server", ROUTED, Kept())
async def tunnel_server(stage: Stage) -> None:
    stage.refuse_at_lte()
    await stage.connect()
    stage.device.add_route(stage.server, via=stage.wifi)
    for half in _halves(stage):
        stage.device.add_route(half, via=stage.lte)


@row("20", "wg-quick: a table, a rule by mark, main without its default", ROUTED, SILENCE)
async def wg_quick(stage: Stage) -> None:
    stage.refuse_at_lte()
    await stage.connect()
    stage.device.add_route("default", via=stage.lte, table=51820)
    await stage.ip("rule", "add", "table", "main", "suppress_prefixlength", "0", "priority", "32764")
    stage.now()
    await stage.ip("rule", "add", "not", "fwmark", "51820", "table", "51820", "priority", "32765")


@row("21", "a route into a table whose rule stands", ROUTED, SILENCE, families=(4,))
async def ruled_table(stage: Stage) -> None:
    stage.refuse_at_lte()
    stage.device.add_rule(50, table=52, family=stage.family)
    await stage.connect()
    stage.device.add_route(stage.server, via=stage.lte, table=52)


@row(
    "21",
    "a route into a table whose rule stands: the socket stays",
    ROUTED,
    Acquitted(Verdict.EGRESS_CHANGED, BY_KEEPALIVE),
    families=(6,),
)
async def ruled_table_ipv6(stage: Stage) -> None:
    await ruled_table(stage)


@row("22", "unreachable into a table whose rule stands", ROUTED, Closed(Verdict.REJECTED, 1), families=(4,))
async def ruled_unreachable(stage: Stage) -> None:
    stage.device.add_rule(50, table=52, family=stage.family)
    await stage.connect()
    stage.device.add_route(stage.server, type="unreachable", table=52)


@row(
    "22",
    "unreachable into a table whose rule stands: the socket stays",
    ROUTED,
    Acquitted(Verdict.REJECTED, BY_KEEPALIVE),
    families=(6,),
)
async def ruled_unreachable_ipv6(stage: Stage) -> None:
    await ruled_unreachable(stage)


@row("23", "VPN down: its link goes, the connection was inside", ROUTED, Closed(Verdict.SOURCE_GONE, 6))
async def tunnel_gone(stage: Stage) -> None:
    stage.device.add_route(stage.server, via=stage.lte)
    await stage.connect(local=stage.wwan0)
    stage.net.wwan0.delete()


@row(
    "24",
    "VPN daemon restarts: same address, another link, 2 s later",
    ROUTED,
    Acquitted(Verdict.SOURCE_GONE, BY_KEEPALIVE),
)
async def tunnel_again(stage: Stage) -> None:
    stage.device.add_route(stage.server, via=stage.lte)
    await stage.connect(local=stage.wwan0)
    network = stage.net.wwan0.network
    stage.net.wwan0.delete()
    await trio.sleep(2)
    # The kernel takes a number only once: the new link's is another one.
    stage.device.plug(network, name="wwan0", addresses=[f"{stage.wwan0}/{stage.length}"])
    stage.device.add_route(stage.server, via=stage.lte)


@row("25", "kill switch: an unreachable route", NAT, Closed(Verdict.REJECTED, 1))
async def kill_switch(stage: Stage) -> None:
    await stage.connect()
    stage.device.add_route(stage.server, type="unreachable")


@row("25", "kill switch: a blackhole rule", NAT, Closed(Verdict.REJECTED, 1))
async def kill_switch_rule(stage: Stage) -> None:
    await stage.connect()
    stage.device.add_rule(100, destination=stage.server, action="blackhole")


async def _add_bridge(stage: Stage, prefix: str) -> None:
    await stage.ip("link", "add", "br-x", "type", "bridge")
    await stage.ip("link", "set", "br-x", "up")
    await stage.ip("address", "add", prefix, "dev", "br-x", *(["nodad"] if stage.family == 6 else []))


@row("28", "a container bridge appears, foreign prefix", NAT, Kept())
async def bridge(stage: Stage) -> None:
    await stage.connect()
    await _add_bridge(stage, {4: "172.17.0.1/16", 6: "fd00:17::1/64"}[stage.family])


def _covering(stage: Stage) -> str:
    """An address of our own in a prefix that covers the server, too."""
    return {4: "198.51.100.200/24", 6: "2001:db8:f::c8/64"}[stage.family]


@row("29", "a container network covers the peer", NAT, SILENCE)
async def covering(stage: Stage) -> None:
    await stage.connect()
    await _add_bridge(stage, _covering(stage))


@row("29", "the same, and removed again", NAT, Acquitted(Verdict.EGRESS_CHANGED, BY_PATH))
async def covering_removed(stage: Stage) -> None:
    await stage.connect()
    await _add_bridge(stage, _covering(stage))
    await stage.suspect()
    await trio.sleep(1)
    await stage.ip("link", "delete", "br-x")


def _pod_addresses(stage: Stage) -> tuple[str, str]:
    """A pod's address, and that of its gateway."""
    return {4: ("10.9.0.9", "169.254.1.1"), 6: ("2001:db8:9::9", "2001:db8:a9::1")}[stage.family]


@row("30", "pod with a /32: its gateway's on-link route goes", ROUTED, Kept())
async def pod(stage: Stage) -> None:
    address, gateway = _pod_addresses(stage)
    network = stage.lab.network("pods")
    stage.device.plug(network, name="pod0", addresses=[f"{address}/{stage.host_length}"])
    stage.net.wifi_router.plug(network, name="cali0", addresses=[f"{gateway}/{stage.host_length}"])
    stage.net.wifi_router.add_route(address, device="cali0")
    for host in (stage.net.server, stage.net.lte_router):
        host.add_route(address, via={4: "198.51.100.1", 6: "2001:db8:f::1"}[stage.family])
    stage.device.add_route(gateway, device="pod0")
    stage.device.add_route(stage.server, via=gateway, device="pod0")
    await stage.connect(local=address)
    stage.device.delete_route(gateway, device="pod0")


async def _node_and_pod(stage: Stage) -> str:
    address, gateway = _pod_addresses(stage)
    network, host = stage.lab.network("pods"), stage.lab.host("pod")
    stage.device.plug(network, name="cali0", addresses=[f"{gateway}/{stage.host_length}"])
    host.plug(network, name="eth0", addresses=[f"{address}/{stage.host_length}"])
    host.add_route(gateway, device="eth0")
    host.add_route(stage.wlan0, via=gateway, device="eth0")
    stage.device.add_route(address, device="cali0")
    await stage.connect(peer=address, host=host)
    return address


@row("31", "node to pod: the pod's route goes, the default takes over", NAT, SILENCE)
async def pod_route(stage: Stage) -> None:
    stage.device.delete_route(await _node_and_pod(stage), device="cali0")


@row("31", "the same, and it returns", NAT, Acquitted(Verdict.EGRESS_CHANGED, BY_PATH))
async def pod_route_returns(stage: Stage) -> None:
    address = await _node_and_pod(stage)
    stage.device.delete_route(address, device="cali0")
    await trio.sleep(1.5)
    stage.device.add_route(address, device="cali0")


@row(
    "32",
    "the peer is translated here (DNAT), the gateway changes, routed",
    ROUTED_AND_SPARE,
    Acquitted(Verdict.GATEWAY_CHANGED, BY_KEEPALIVE),
    sides=("client",),
    programs=("nft",),
)
async def cluster_address(stage: Stage) -> None:
    cluster = {4: "10.96.0.7", 6: "fd00:96::7"}[stage.family]
    family = {4: "ip", 6: "ip6"}[stage.family]
    rules = f"add table {family} n; add chain {family} n out {{ type nat hook output priority -100; }}; "
    rules += f"add rule {family} n out {family} daddr {cluster} dnat to {stage.server}"
    await stage.device.run(["nft", rules])
    await stage.connect(peer=cluster)
    stage.device.replace_route("default", via=stage.spare, metric=100)


@row("33", "a container behind a bridge stops", NAT, LeftSuspect(Verdict.GATEWAY_FAILED))
async def container_stops(stage: Stage) -> None:
    """The connection goes to a second neighbour on the wired link, whose cable is pulled."""
    host = stage.lab.host("container")
    local = stage.net.eth0_addresses[stage.family]
    address = stage.beside(local, 8)
    link = host.plug(stage.net.eth0.network, name="eth0", addresses=[f"{address}/{stage.length}"])
    await stage.connect(peer=address, host=host, local=local)
    link.delete()
    # The kernel forgets in its own time (15 to 45 s) that it knew the way: told to, it asks at once, three times.
    await stage.ip("neigh", "flush", "dev", "eth0")
    stage.now()
    stage.chatter()


@row("34", "the host end of a container's veth goes down", NAT, Closed(Verdict.CARRIER_LOST, 6))
async def veth_down(stage: Stage) -> None:
    await stage.connect()
    stage.net.wlan0.carrier(False)


@row("35", "the link moves to another namespace", NAT, Closed(Verdict.SOURCE_GONE, 6))
async def link_moves(stage: Stage) -> None:
    elsewhere: Host = stage.lab.host("elsewhere")
    await stage.connect()
    await stage.ip("link", "set", "wlan0", "netns", f"/proc/{os.getpid()}/fd/{elsewhere.netns}")
