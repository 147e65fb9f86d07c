"""Our values as iproute2's JSON: the keys and values of ``ip -j -d -N route``, so that what reads the one reads the other.

The shape was found by running ip(8) 6.1 over every kind of route that the kernel makes, and the tests hold it against the
ip(8) that is installed. Numbers that have names (type, table, protocol, scope) are text with digits, as ``-N`` prints them.

Left out, or not equal, because it cannot be or tells nothing of where a packet goes:

* ``expires`` of an IPv6 route, which counts down, and ``cache`` of an answer;
* what is inside a tunnel: ip(8) writes the encapsulation's keys among the route's own, so that a second ``dst`` replaces the
  route's. ``encap`` names its kind here, and no more is said;
* the order of an IPv6 route's next hops: they are a set, which the kernel lists in the order in which they came to be;
* the timers of a resilient group (``resilient_args``), which the decoder does not keep.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from ipaddress import IPv4Address, IPv6Address
from typing import TypeAlias

import attrs

from ..netlink import (
    AF_INET,
    AF_INET6,
    RT_SCOPE_HOST,
    RTM_F_NOTIFY,
    RTM_F_OFFLOAD,
    RTM_F_OFFLOAD_FAILED,
    RTM_F_TRAP,
    RTN_ANYCAST,
    RTN_BLACKHOLE,
    RTN_LOCAL,
    RTN_PROHIBIT,
    RTN_THROW,
    RTN_UNICAST,
    RTN_UNREACHABLE,
    RTNH_F_DEAD,
    RTNH_F_LINKDOWN,
    RTNH_F_OFFLOAD,
    RTNH_F_ONLINK,
    RTNH_F_PERVASIVE,
    RTNH_F_TRAP,
    RTNH_F_UNRESOLVED,
    IPAddress,
    NextHop,
    NexthopMessage,
    RouteBody,
)
from ..routing import Cache, Link, Route

Json: TypeAlias = "bool | int | float | str | Sequence[Json] | Mapping[str, Json] | None"
JsonObject: TypeAlias = dict[str, Json]
# The name of a link, by its ifindex.
NameOf: TypeAlias = Callable[[int], str]

# In the order in which print_rt_flags() of ip/iproute.c lists them.
_FLAGS = (
    (RTNH_F_DEAD, "dead"),
    (RTNH_F_ONLINK, "onlink"),
    (RTNH_F_PERVASIVE, "pervasive"),
    (RTNH_F_OFFLOAD, "offload"),
    (RTNH_F_TRAP, "trap"),
    (RTM_F_NOTIFY, "notify"),
    (RTNH_F_LINKDOWN, "linkdown"),
    (RTNH_F_UNRESOLVED, "unresolved"),
    (RTM_F_OFFLOAD, "rt_offload"),
    (RTM_F_TRAP, "rt_trap"),
    (RTM_F_OFFLOAD_FAILED, "rt_offload_failed"),
)
_STATE = RTNH_F_DEAD | RTNH_F_LINKDOWN
_REJECTS = frozenset({RTN_BLACKHOLE, RTN_UNREACHABLE, RTN_PROHIBIT, RTN_THROW})
_PREFERENCES = {0: "medium", 1: "high", 3: "low"}
# The LWTUNNEL_ENCAP_* of linux/lwtunnel.h, as ip(8) names them.
_ENCAPSULATIONS = {
    1: "mpls",
    2: "ip",
    3: "ila",
    4: "ip6",
    5: "seg6",
    6: "bpf",
    7: "seg6local",
    8: "rpl",
    9: "ioam6",
    10: "xfrm",
}
# The RTAX_* of linux/rtnetlink.h, as ip(8) names them.
_METRICS = {
    2: "mtu",
    3: "window",
    4: "rtt",
    5: "rttvar",
    6: "ssthresh",
    7: "cwnd",
    8: "advmss",
    9: "reordering",
    10: "hoplimit",
    11: "initcwnd",
    12: "features",
    13: "rto_min",
    14: "initrwnd",
    15: "quickack",
    16: "congestion",
    17: "fastopen_no_cookie",
}
_RTAX_LOCK, _RTAX_RTT, _RTAX_RTTVAR, _RTAX_HOPLIMIT, _RTAX_FEATURES, _RTAX_CC_ALGO = 1, 4, 5, 10, 12, 16
_RTAX_FEATURE_ECN = 1
_GROUP_TYPES = {0: "mpath", 1: "resilient"}


def route_as_json(route: Route, name_of: NameOf, cache: Cache | None = None) -> JsonObject:
    """Return a route as an element of ``ip -j -d -N route show table all``.

    Args:
      route: The route.
      name_of: Names links.
      cache: Where the route lies: tells which next hops are dead, and what a nexthop object is. None for a route that is in
        no table any more; it is told as it was announced.
    """
    body = route.body
    hops, multipath = _ways(body, cache)
    single = hops[0] if hops and not multipath else None
    said: JsonObject = {"type": str(body.type), "dst": prefix_text(body.family, route.address, body.prefix_length)}
    if body.source_length:
        said["from"] = prefix_text(body.family, body.source, body.source_length)
    if body.nexthop_id:
        said["nhid"] = body.nexthop_id
    if body.tos:
        said["tos"] = f"{body.tos:#04x}"
    if single is not None:
        said.update(_way(single, body.family, name_of))
    said["table"] = str(body.table)
    said["protocol"] = str(body.protocol)
    said["scope"] = str(body.scope)
    if body.prefsrc is not None:
        said["prefsrc"] = str(body.prefsrc)
    if body.priority or body.family != AF_INET:
        said["metric"] = body.priority
    said["flags"] = flags_text(_route_flags(cache, body, hops, single))
    said.update(_characteristics(body, body.flow))
    nexthop = None if cache is None else cache.state.nexthops.get(body.nexthop_id)
    if nexthop is not None:
        said["nh_info"] = _nexthop_as_json(nexthop, name_of)
    if multipath:
        said["nexthops"] = [member_as_json(hop, body.family, name_of, hop_flags(cache, body, hop)) for hop in hops]
    return said


def _characteristics(body: RouteBody, flow: int) -> JsonObject:
    """What a route has besides ways: the same in a table as in an answer."""
    said: JsonObject = {}
    if flow:
        said["flow"] = _realms(flow)
    if body.metrics:
        said["metrics"] = [dict(_metrics(body.metrics))]
    if body.family != AF_INET:
        said["pref"] = _PREFERENCES.get(body.preference, str(body.preference))
    return said


# ---- next hops -------------------------------------------------------------------------------------


def _ways(body: RouteBody, cache: Cache | None) -> tuple[tuple[NextHop, ...], bool]:
    """The next hops to show, and whether as a list."""
    nexthops = {} if cache is None else cache.state.nexthops
    known = nexthops.get(body.nexthop_id)
    if known is None or known.blackhole or not body.nexthops:
        # Without an expansion the kernel was told to give none (net.ipv4.nexthop_compat_mode=0).
        return body.nexthops, body.multipath
    if not known.group:
        return (_hop_of(known),), False
    # A group shrinks without a word about the routes that name it: what they were announced with is out of date.
    hops = tuple(_hop_of(nexthops[number], weight) for number, weight in known.group if number in nexthops)
    return hops, len(hops) > 1 or body.family != AF_INET  # the one member left is a list of one in IPv6 only


def _hop_of(message: NexthopMessage, weight: int = 1) -> NextHop:
    return NextHop(message.ifindex, message.gateway, weight, message.flags & ~_STATE, message.encap)


def _way(hop: NextHop, family: int, name_of: NameOf) -> Iterator[tuple[str, Json]]:
    """Yield what single routes, members and answers have alike: encapsulation, gateway, device."""
    if hop.encap is not None:
        yield "encap", _ENCAPSULATIONS.get(hop.encap[0], str(hop.encap[0]))
    if hop.gateway is not None:
        if (hop.gateway.version == 4) == (family == AF_INET):
            yield "gateway", str(hop.gateway)
        else:
            yield "via", {"family": f"inet{'6' if hop.gateway.version == 6 else ''}", "host": str(hop.gateway)}
    if hop.ifindex:
        yield "dev", name_of(hop.ifindex)


def member_as_json(hop: NextHop, family: int, name_of: NameOf, flags: int) -> JsonObject:
    """Return one of several next hops as an element of ``nexthops``."""
    said = dict(_way(hop, family, name_of))
    if hop.flow:
        said["flow"] = _realms(hop.flow)
    return said | {"weight": hop.weight, "flags": flags_text(flags)}


def hop_flags(cache: Cache | None, body: RouteBody, hop: NextHop) -> int:
    """The RTNH_F_* flags of a next hop now: DEAD and LINKDOWN are not stored but read off the link.

    As fib_sync_down_dev() and fib6_ifdown() set them and fib_nexthop_info() shows them: a link that is down takes both; one
    without carrier LINKDOWN, and DEAD too where ignore_routes_with_linkdown is on. Routes to this host itself keep out of
    it, and so do those that reject, whose device stands for nothing.
    """
    steady = hop.flags & ~_STATE
    link = None if cache is None else cache.link(hop.ifindex)
    if cache is None or link is None or _is_of_no_link(body):
        return steady
    if not cache.state.alive(body, hop):
        return steady | _STATE
    return steady | (0 if link.flags & Link.IFF_LOWER_UP else RTNH_F_LINKDOWN)


def _is_of_no_link(body: RouteBody) -> bool:
    if body.type in _REJECTS:
        return True
    return body.scope == RT_SCOPE_HOST if body.family == AF_INET else body.type in (RTN_LOCAL, RTN_ANYCAST)


def _route_flags(cache: Cache | None, body: RouteBody, hops: Sequence[NextHop], single: NextHop | None) -> int:
    steady = body.flags & ~_STATE
    if single is not None:
        return steady | hop_flags(cache, body, single)
    if body.family == AF_INET and hops and all(hop_flags(cache, body, hop) & RTNH_F_LINKDOWN for hop in hops):
        return steady | RTNH_F_LINKDOWN  # fib_sync_down_dev() marks the route once its last way is
    return steady


# ---- details ---------------------------------------------------------------------------------------


def prefix_text(family: int, address: int, length: int) -> str:
    """A prefix as ip(8) writes it: "default", and no length behind a host's address."""
    if not length:
        return "default"
    text = str(IPv4Address(address) if family == AF_INET else IPv6Address(address))
    return text if length == (32 if family == AF_INET else 128) else f"{text}/{length}"


def flags_text(flags: int) -> list[str]:
    """The names of RTNH_F_* and RTM_F_* flags."""
    return [name for bit, name in _FLAGS if flags & bit]


def _realms(flow: int) -> JsonObject:
    origin: JsonObject = {"from": str(flow >> 16)} if flow >> 16 else {}
    return origin | {"to": str(flow & 0xFFFF)}


def _metrics(metrics: tuple[tuple[int, int | str], ...]) -> Iterator[tuple[str, Json]]:
    known = dict(metrics)
    locked = known.get(_RTAX_LOCK, 0)
    assert isinstance(locked, int)
    for number, name in _METRICS.items():
        value = known.get(number, 0)
        if number not in known and (number == _RTAX_CC_ALGO or not locked >> number & 1):
            continue
        if isinstance(value, str):
            yield name, value
        elif number == _RTAX_FEATURES:
            yield from _features(value)
        elif number == _RTAX_RTT:
            yield name, value // 8  # the kernel counts eighths of a millisecond
        elif number == _RTAX_RTTVAR:
            yield name, value // 4
        elif number != _RTAX_HOPLIMIT or value != 0xFFFFFFFF:  # -1: the host's own
            yield name, value


def _features(bits: int) -> Iterator[tuple[str, Json]]:
    if bits & _RTAX_FEATURE_ECN:
        yield "ecn", None
    if bits & ~_RTAX_FEATURE_ECN:
        yield "features", f"{bits:#x}"


def _nexthop_as_json(message: NexthopMessage, name_of: NameOf) -> JsonObject:
    said: JsonObject = {"id": message.id}
    if message.group:
        said["group"] = [
            {"id": number} | ({"weight": weight} if weight > 1 else {}) for number, weight in message.group
        ]
    if message.group_type:
        said["type"] = _GROUP_TYPES.get(message.group_type, "<unknown type>")
    if message.encap is not None:
        said["encap"] = _ENCAPSULATIONS.get(message.encap[0], str(message.encap[0]))
    if message.gateway is not None:
        said["gateway"] = str(message.gateway)
    if message.ifindex:
        said["dev"] = name_of(message.ifindex)
    said["scope"] = str(message.scope)
    if message.blackhole:
        said["blackhole"] = None
    return said | {"protocol": str(message.protocol), "flags": flags_text(message.flags)}


# ---- answers ---------------------------------------------------------------------------------------


@attrs.frozen
class Asked:
    """What was asked besides the destination, for an answer repeats it.

    Attributes:
      destination: Where to, without a scope.
      source: The source address that was given, or None.
      mark: The packet's mark.
      uid: The user.
    """

    destination: IPAddress
    source: IPAddress | None = None
    mark: int = 0
    uid: int = 0


def answer_as_json(
    asked: Asked, body: RouteBody | None, hops: tuple[NextHop, ...], source: IPAddress | None, name_of: NameOf
) -> JsonObject:
    """Return what ``ip -j -d -N route get`` answers.

    Args:
      asked: The question.
      body: The route that answers; None where an IPv4 destination was taken to be on the link that was asked for.
      hops: The next hop; or several, where the kernel would take any by hash. They are ``nexthops`` then, and as each has a
        source address of its own, ``prefsrc`` is there only if the route has it.
      source: The source address that the kernel would choose.
      name_of: Names links.
    """
    ipv4 = asked.destination.version == 4
    family = AF_INET if ipv4 else AF_INET6
    said: JsonObject = {"type": str(RTN_UNICAST if body is None else body.type), "dst": str(asked.destination)}
    if asked.source is not None or not ipv4:
        said["from"] = str(asked.source or IPv6Address(0))
    if len(hops) == 1:
        said.update(_way(hops[0], family, name_of))
    else:
        source = None if body is None else body.prefsrc
        said["nexthops"] = [member_as_json(hop, family, name_of, hop.flags & ~_STATE) for hop in hops]
    if source is not None and asked.source is None:
        said["prefsrc"] = str(source)
    said["flags"] = []
    if ipv4:
        said |= {"uid": asked.uid} | ({"mark": asked.mark} if asked.mark else {})
    if body is not None:
        said |= _answering(body, hops)
    return said


def _answering(body: RouteBody, hops: tuple[NextHop, ...]) -> JsonObject:
    """What an answer tells of the route that gave it; IPv6 tells more."""
    said: JsonObject = {"table": str(body.table)}
    if body.family != AF_INET:
        said |= {"protocol": str(body.protocol), "scope": str(body.scope), "metric": body.priority}
    if body.tos:
        said["tos"] = f"{body.tos:#04x}"
    # The realm is the route's, or that of the one member that was chosen.
    return said | _characteristics(body, hops[0].flow or body.flow if len(hops) == 1 else 0)
