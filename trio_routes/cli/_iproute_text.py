"""Routes for people: iproute2's words, made from its JSON form."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import cast

from ._iproute_json import Json, JsonObject

TABLES = {"253": "default", "254": "main", "255": "local"}
_TYPES = {
    "1": "unicast",
    "2": "local",
    "3": "broadcast",
    "4": "anycast",
    "5": "multicast",
    "6": "blackhole",
    "7": "unreachable",
    "8": "prohibit",
    "9": "throw",
}
# linux/rtnetlink.h; as in iproute2's own rt_protos.
_PROTOCOLS = {
    "0": "unspec",
    "1": "redirect",
    "2": "kernel",
    "3": "boot",
    "4": "static",
    "8": "gated",
    "9": "ra",
    "10": "mrt",
    "11": "zebra",
    "12": "bird",
    "13": "dnrouted",
    "14": "xorp",
    "15": "ntk",
    "16": "dhcp",
    "18": "keepalived",
    "42": "babel",
    "99": "openr",
    "186": "bgp",
    "187": "isis",
    "188": "ospf",
    "189": "rip",
    "192": "eigrp",
}
_SCOPES = {"0": "global", "200": "site", "253": "link", "254": "host", "255": "nowhere"}
# (key, word, names, the value that goes without saying).
_NAMED = (("table", "table", TABLES, "254"), ("protocol", "proto", _PROTOCOLS, "3"), ("scope", "scope", _SCOPES, "0"))
_UNICAST = "1"
_MILLISECONDS = frozenset({"rtt", "rttvar", "rto_min"})


def route_text(said: JsonObject, between: str = "\n\t") -> str:
    """Return the text of a route or answer, as ``ip route show table all`` would print it.

    Args:
      said: Its JSON form.
      between: What stands before each of several next hops.
    """
    line = " ".join(_words(said))
    members = cast(Sequence[JsonObject], said.get("nexthops", ()))
    return between.join([line, *(" ".join(("nexthop", *_member_words(member))) for member in members)])


def type_text(number: int) -> str:
    """The name of an RTN_* type."""
    return _TYPES.get(str(number), str(number))


def table_text(number: int) -> str:
    """The name of a table, or its number."""
    return TABLES.get(str(number), str(number))


def _words(said: JsonObject) -> Iterator[str]:
    if said["type"] != _UNICAST:
        yield _name(_TYPES, said["type"])
    yield str(said["dst"])
    if said.get("from", "::") != "::":
        yield f"from {said['from']}"
    yield from _plain_words(said, "nhid", "tos")
    yield from _way_words(said)
    for key, word, names, usual in _NAMED:
        if said.get(key, usual) != usual:
            yield f"{word} {_name(names, said[key])}"
    if "prefsrc" in said:
        yield f"src {said['prefsrc']}"
    yield from _plain_words(said, "metric")
    yield from cast(Sequence[str], said["flags"])
    yield from _plain_words(said, "mark", "uid")
    yield from _realm_words(said)
    for metrics in cast(Sequence[JsonObject], said.get("metrics", ())):
        yield from _metric_words(metrics)
    yield from _plain_words(said, "pref")


def _plain_words(said: JsonObject, *keys: str) -> Iterator[str]:
    return (f"{key} {said[key]}" for key in keys if key in said)


def _member_words(said: JsonObject) -> Iterator[str]:
    yield from _way_words(said)
    yield from _realm_words(said)
    yield f"weight {said['weight']}"
    yield from cast(Sequence[str], said["flags"])


def _way_words(said: JsonObject) -> Iterator[str]:
    if "encap" in said:
        yield f"encap {said['encap']}"
    if "gateway" in said:
        yield f"via {said['gateway']}"
    if "via" in said:
        via = cast(Mapping[str, str], said["via"])
        yield f"via {via['family']} {via['host']}"
    if "dev" in said:
        yield f"dev {said['dev']}"


def _realm_words(said: JsonObject) -> Iterator[str]:
    flow = cast(Mapping[str, str], said.get("flow", {}))
    if "from" in flow:
        yield f"realms {flow['from']}/{flow['to']}"
    elif flow:
        yield f"realm {flow['to']}"


def _metric_words(metrics: JsonObject) -> Iterator[str]:
    for name, value in metrics.items():
        if name == "ecn":
            yield "features ecn"
        elif name == "congestion":
            yield f"congctl {value}"
        else:
            yield f"{name} {value}{'ms' if name in _MILLISECONDS else ''}"


def _name(names: Mapping[str, str], number: Json) -> str:
    return names.get(str(number), str(number))
