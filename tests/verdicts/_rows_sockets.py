"""Rows 78 to 95: sockets of special kinds, and clocks."""

from __future__ import annotations

import os
import socket

import trio

from tests.verdicts._row import BY_DATA, BY_KEEPALIVE, BY_PATH, Acquitted, Closed, Kept, Network, NotRun, Rows
from tests.verdicts._stage import SERVICE_PREFIX, Configure, Stage
from trio_routes import Verdict

NAT = Network(nat=True)
ROUTED = Network(nat=False)
ROUTED_AND_SPARE = Network(nat=False, spare_gateway=True)

# linux/in.h and in6.h: Python has no names for these.
IP_TRANSPARENT, IPV6_TRANSPARENT = 19, 75
IP_FREEBIND, IPV6_FREEBIND = 15, 78
IPPROTO_MPTCP = 262

sockets = Rows()
row = sockets.row

NOT_RUN: list[NotRun] = [
    ("82", "IP_FREEBIND, the source not local, IPv4", "connect() says ENETUNREACH: there is no connection"),
    ("92", "a socket of another namespace", "there is no verdict: registering it is a ValueError (test_flow.py)"),
]


def freebind(stage: Stage) -> Configure:
    """IPv6 binds to addresses of its own list only, unless told otherwise."""
    level, option = (socket.IPPROTO_IP, IP_FREEBIND) if stage.family == 4 else (socket.IPPROTO_IPV6, IPV6_FREEBIND)

    def configure(made: trio.socket.SocketType) -> None:
        made.setsockopt(level, option, 1)

    return configure


def bound_to(link: str) -> Configure:
    def configure(made: trio.socket.SocketType) -> None:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, link.encode())

    return configure


async def _any_ip(stage: Stage) -> None:
    """A whole prefix is local, and its addresses are on no list."""
    stage.know_the_service()
    stage.device.add_route(SERVICE_PREFIX[stage.family], type="local", device="lo", table=255)
    await stage.connect(local=stage.service, configure=freebind(stage))


@row("78", "AnyIP: the source is covered by a local prefix; another link", ROUTED, Kept(Verdict.REROUTED))
async def any_ip(stage: Stage) -> None:
    await _any_ip(stage)
    stage.move_to_lte()


def _forget_prefix(stage: Stage) -> None:
    stage.device.delete_route(SERVICE_PREFIX[stage.family], type="local", device="lo", table=255)


@row("79", "AnyIP: the local route is deleted", ROUTED, Closed(Verdict.SOURCE_GONE, 1))
async def any_ip_gone(stage: Stage) -> None:
    await _any_ip(stage)
    _forget_prefix(stage)


@row(
    "79",
    "AnyIP: the local route is deleted, and back in half a second",
    ROUTED,
    Acquitted(Verdict.SOURCE_GONE, BY_PATH),
)
async def any_ip_back(stage: Stage) -> None:
    await _any_ip(stage)
    _forget_prefix(stage)
    await trio.sleep(0.5)
    stage.device.add_route(SERVICE_PREFIX[stage.family], type="local", device="lo", table=255)


async def _move_local_route(stage: Stage) -> None:
    stage.device.add_route(SERVICE_PREFIX[stage.family], type="local", device="lo", table=100)
    stage.device.add_rule(50, table=100, family=stage.family)
    await _any_ip(stage)
    _forget_prefix(stage)


@row("80", "AnyIP: its local route is only in another table", ROUTED, Closed(Verdict.SOURCE_GONE, 1), families=(4,))
async def any_ip_ruled(stage: Stage) -> None:
    await _move_local_route(stage)


@row("80", "AnyIP: its local route is only in another table, which will do", ROUTED, Kept(), families=(6,))
async def any_ip_ruled_ipv6(stage: Stage) -> None:
    await _move_local_route(stage)


@row("81", "a transparent socket: its source is nobody's; another link", ROUTED, Kept(Verdict.REROUTED))
async def transparent(stage: Stage) -> None:
    """As TPROXY does it: what comes in for the source is delivered here, which lookups for sending do not see."""
    stage.know_the_service()
    stage.device.add_route(SERVICE_PREFIX[stage.family], type="local", device="lo", table=100)
    for link in ("wlan0", "wwan0"):
        stage.device.add_rule(50, incoming=link, table=100, family=stage.family)
    level, option = (
        (socket.IPPROTO_IP, IP_TRANSPARENT) if stage.family == 4 else (socket.IPPROTO_IPV6, IPV6_TRANSPARENT)
    )

    def configure(made: trio.socket.SocketType) -> None:
        made.setsockopt(level, option, 1)

    await stage.connect(local=stage.service, configure=configure)
    stage.move_to_lte()


@row(
    "82",
    "IPV6_FREEBIND, the source local by a rule's table; that route goes",
    ROUTED,
    Closed(Verdict.SOURCE_GONE, 1),
    families=(6,),
)
async def free(stage: Stage) -> None:
    stage.know_the_service()
    stage.device.add_route(SERVICE_PREFIX[6], type="local", device="lo", table=100)
    stage.device.add_rule(50, table=100, family=6)
    await stage.connect(local=stage.service, configure=freebind(stage))
    stage.device.delete_route(SERVICE_PREFIX[6], type="local", device="lo", table=100)


@row("83", "bound to a link, a better default by another NAT", NAT, Kept())
async def bound(stage: Stage) -> None:
    await stage.connect(configure=bound_to("wlan0"))
    stage.move_to_lte()


@row(
    "84",
    "bound to a link whose route goes, another is there",
    Network(nat=True, lte_metric=600),
    Closed(Verdict.NO_ROUTE, 1),
)
async def bound_gone(stage: Stage) -> None:
    await stage.connect(configure=bound_to("wlan0"))
    stage.device.delete_route("default", via=stage.wifi, metric=100)


@row("84", "the same, and the peer answers ARP there", ROUTED, Acquitted(Verdict.NO_ROUTE, BY_DATA), families=(4,))
async def bound_by_arp(stage: Stage) -> None:
    stage.net.wifi_router.sysctl("net.ipv4.conf.lan0.proxy_arp", 1)
    await stage.connect(configure=bound_to("wlan0"))
    stage.chatter()
    await trio.sleep(0.2)
    stage.now()
    stage.device.delete_route("default", via=stage.wifi, metric=100)


@row(
    "85",
    "marks set by nftables: the lookup names a dead gateway",
    ROUTED,
    Acquitted(Verdict.EGRESS_CHANGED, BY_KEEPALIVE),
    programs=("nft",),
)
async def marked(stage: Stage) -> None:
    rules = "add table inet m; add chain inet m out { type route hook output priority mangle; }; "
    rules += f"add rule inet m out {'ip' if stage.family == 4 else 'ip6'} daddr {stage.server} meta mark set 7"
    await stage.device.run(["nft", rules])
    stage.device.add_route("default", via=stage.wifi, table=77)
    stage.device.add_rule(50, mark=7, table=77, family=stage.family)
    stage.refuse_at_lte()
    await stage.connect()
    stage.move_to_lte()


def with_option(level: int, option: int, value: int) -> Configure:
    def configure(made: trio.socket.SocketType) -> None:
        made.setsockopt(level, option, value)

    return configure


@row("56", "another NAT, and a rule by the socket's mark stands", NAT, Kept())
async def own_mark(stage: Stage) -> None:
    stage.device.add_route("default", via=stage.wifi, table=77)
    stage.device.add_rule(50, mark=7, table=77, family=stage.family)
    await stage.connect(configure=with_option(socket.SOL_SOCKET, socket.SO_MARK, 7))
    stage.move_to_lte()


@row("56", "another NAT, and a rule by the socket's user stands", NAT, Kept())
async def own_user(stage: Stage) -> None:
    stage.device.add_route("default", via=stage.wifi, table=77)
    user = str(os.getuid())
    await stage.ip("rule", "add", "pref", "50", "to", stage.server, "uidrange", f"{user}-{user}", "table", "77")
    await stage.connect()
    stage.move_to_lte()


async def _own_service(stage: Stage) -> None:
    stage.device.add_route("default", via=stage.wifi, table=77)
    await stage.ip("rule", "add", "pref", "50", "tos", "0x10", "table", "77")
    four = stage.family == 4
    level, option = (socket.IPPROTO_IP, socket.IP_TOS) if four else (socket.IPPROTO_IPV6, socket.IPV6_TCLASS)
    await stage.connect(configure=with_option(level, option, 0x10))
    stage.move_to_lte()


@row("56", "another NAT, and a rule by the type of service stands", NAT, Kept(), families=(4,))
async def own_service(stage: Stage) -> None:
    await _own_service(stage)


@row(
    "56",
    "the same: accepted, IPv6 TCP is looked up without its class",
    NAT,
    Closed(Verdict.EGRESS_CHANGED, 1),
    families=(6,),
    sides=("server",),
)
async def own_class_accepted(stage: Stage) -> None:
    await _own_service(stage)


@row(
    "56",
    "the same: connect() looked up with the class, and that stays",
    NAT,
    Acquitted(Verdict.EGRESS_CHANGED, BY_KEEPALIVE),
    families=(6,),
    sides=("client",),
)
async def own_class_connected(stage: Stage) -> None:
    await _own_service(stage)


@row("86", "the peer is this host by another address; another link goes", ROUTED, Kept())
async def own_peer(stage: Stage) -> None:
    await stage.connect(peer=stage.wlan0, host=stage.device, local=stage.wlan0)
    stage.net.wwan0.down()


@row("86", "the same, that address's own link goes down", ROUTED, Kept(), families=(4,))
async def own_peer_down(stage: Stage) -> None:
    await stage.connect(peer=stage.wlan0, host=stage.device, local=stage.wlan0)
    stage.net.wlan0.down()


@row(
    "86",
    "the same, that address's own link goes down, and with it the address",
    ROUTED,
    Closed(Verdict.SOURCE_GONE, 6),
    families=(6,),
)
async def own_peer_down_ipv6(stage: Stage) -> None:
    await own_peer_down(stage)


@row("87", "that address is deleted", NAT, Closed(Verdict.PEER_MOVED, 1))
async def own_peer_gone(stage: Stage) -> None:
    other = stage.beside(stage.wlan0, 20)
    stage.net.wlan0.add_address(f"{other}/{stage.length}")
    await stage.connect(peer=other, host=stage.device)
    stage.net.wlan0.delete_address(f"{other}/{stage.length}")


@row("88", "the peer's address becomes this host's", NAT, Closed(Verdict.PEER_MOVED, 1))
async def peer_moves_in(stage: Stage) -> None:
    await stage.connect()
    await stage.ip("address", "add", f"{stage.server}/{stage.host_length}", "dev", "lo")


@row("89", "a service address moves away from this host", ROUTED, Closed(Verdict.SOURCE_GONE, 1))
async def service_moves(stage: Stage) -> None:
    stage.know_the_service()
    stage.net.wlan0.add_address(f"{stage.service}/{stage.host_length}")
    await stage.connect(local=stage.service)
    stage.net.wlan0.delete_address(f"{stage.service}/{stage.host_length}")


@row(
    "90",
    "the same fe80:: address on two links, deleted on the used one",
    NAT,
    Closed(Verdict.SOURCE_GONE, 1),
    families=(6,),
)
async def link_local(stage: Stage) -> None:
    for link in (stage.net.wlan0, stage.net.eth0):
        link.add_address("fe80::77/64")
    far = stage.net.wifi_router.links["lan0"]
    far.add_address("fe80::99/64")
    scopes = (stage.net.wlan0.ifindex, far.ifindex)
    await stage.connect(peer="fe80::99", host=stage.net.wifi_router, local="fe80::77", scopes=scopes)
    stage.net.wlan0.delete_address("fe80::77/64")


@row("91", "an IPv4-mapped socket: another NAT", NAT, Closed(Verdict.EGRESS_CHANGED, 1), families=(4,))
async def mapped(stage: Stage) -> None:
    await stage.connect(mapped=True)
    stage.move_to_lte()


@row(
    "91",
    "an IPv4-mapped socket: another way, routed",
    ROUTED,
    Acquitted(Verdict.EGRESS_CHANGED, BY_KEEPALIVE),
    families=(4,),
)
async def mapped_routed(stage: Stage) -> None:
    await stage.connect(mapped=True)
    stage.move_to_lte()


@row("93", "an MPTCP socket: the route goes for 2 s", NAT, Kept(Verdict.UNJUDGED))
async def multipath_tcp(stage: Stage) -> None:
    await stage.connect(protocol=IPPROTO_MPTCP)
    stage.device.delete_route("default", via=stage.wifi, metric=100)
    await trio.sleep(2)
    stage.device.add_route("default", via=stage.wifi, metric=100)


@row("94", "registered when there is no route any more", NAT, Closed(Verdict.NO_ROUTE, 4))
async def born_broken(stage: Stage) -> None:
    """Asked about though certain: the model might not fit it."""
    await stage.connect(guard_after=lambda: stage.device.delete_route("default", via=stage.wifi, metric=100))


@row(
    "95",
    "the route goes, 0.5 s later another gateway is there, routed",
    ROUTED_AND_SPARE,
    Acquitted(Verdict.GATEWAY_CHANGED, BY_KEEPALIVE),
)
async def second_verdict(stage: Stage) -> None:
    await stage.connect()
    stage.device.delete_route("default", via=stage.wifi, metric=100)
    await stage.suspect()
    await trio.sleep(0.5)
    stage.device.add_route("default", via=stage.spare, metric=100)
