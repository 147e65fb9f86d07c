"""What is compared of a recording: the events, a line each, and the tables, as ip(8) prints them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any

from trio_routes import Event, LinkDown, LinkUp, RouteAdded, RouteRemoved, RouteReplaced
from trio_routes._routes import Routes
from trio_routes.cli._event_json import rule_as_json
from trio_routes.cli._event_text import event_line
from trio_routes.cli._routes import routes_as_json
from trio_routes.netlink import AF_INET, RuleMessage

# JSON of ip(8) or of ours.
Said = Mapping[str, Any]
RTPROT_RA = "9"  # linux/rtnetlink.h, as ip -N prints it
# ip(8)'s words for each table, the options without which names and details would be left out among them.
COMMANDS = {
    "ipv4 routes": ["ip", "-j", "-d", "-N", "-4", "route", "show", "table", "all"],
    "ipv6 routes": ["ip", "-j", "-d", "-N", "-6", "route", "show", "table", "all"],
    "ipv4 rules": ["ip", "-j", "-N", "-4", "rule"],
    "ipv6 rules": ["ip", "-j", "-N", "-6", "rule"],
    "addresses": ["ip", "-j", "addr"],
}


def event_lines(events: Iterable[Event], routes: Routes) -> list[str]:
    """Each event's type and key facts, and the cause of what the kernel did not announce.

    Routes that change together, by one cause that the cache derived or by a dump, do so in no particular order.
    """
    events = list(events)
    names = {link.ifindex: link.name for link in routes.links.values()}
    # Of a link that is gone in the end, its own events tell the name.
    names |= {event.link.ifindex: event.link.name for event in events if isinstance(event, LinkUp | LinkDown)}

    def line(event: Event) -> str:
        return f"{type(event).__name__}: {event_line(event, lambda ifindex: names.get(ifindex, f'if{ifindex}')).text}"

    groups = ([line(event) for event in group] for _, group in groupby(events, _cause_in_common))
    return [one for group in groups for one in sorted(group)]


def _cause_in_common(event: Event) -> object:
    if isinstance(event, RouteAdded | RouteRemoved | RouteReplaced) and not event.cause.startswith("RTM_"):
        return event.generation, event.cause
    return event


def our_tables(routes: Routes) -> dict[str, list[str]]:
    """The tables, comparable with `their_tables`."""
    cache = routes._cache
    links = routes.links
    return {
        "ipv4 routes": _lines(routes_as_json(cache, version=4)),
        "ipv6 routes": _lines(routes_as_json(cache, version=6)),
        "ipv4 rules": _lines(_rule(rule) for rule in routes.rules if rule.family == AF_INET),
        "ipv6 rules": _lines(_rule(rule) for rule in routes.rules if rule.family != AF_INET),
        "addresses": sorted(f"{a.address}/{a.prefix_length} dev {links[a.ifindex].name}" for a in routes.addresses),
    }


def their_tables(printed: Mapping[str, Sequence[Said]]) -> dict[str, list[str]]:
    """What the commands printed, without what counts down and without an order where there is none."""
    tables = {name: _lines(said) for name, said in printed.items() if name != "addresses"}
    tables["addresses"] = sorted(
        f"{entry['local']}/{entry['prefixlen']} dev {link['ifname']}"
        for link in printed["addresses"]
        for entry in link.get("addr_info", ())
        if entry
    )
    return tables


def _rule(rule: RuleMessage) -> Said:
    said = {key: value for key, value in rule_as_json(rule).items() if key != "family"}
    if rule.suppress_prefixlength is not None:
        said["suppress_prefixlen"] = rule.suppress_prefixlength
    return said


def _lines(said: Iterable[Said]) -> list[str]:
    return sorted(map(_line, said))


def _line(said: Said) -> str:
    left = {key: value for key, value in said.items() if key != "expires"}  # it counts down
    if left.get("protocol") == RTPROT_RA:
        # The kernel announces the route and then sets its hop limit, without a word (ndisc_router_discovery() in
        # net/ipv6/ndisc.c); an audit finds it.
        left.pop("metrics", None)
    if "pref" in left and "nexthops" in left:  # IPv6, whose siblings are a set
        left["nexthops"] = sorted(left["nexthops"], key=lambda hop: json.dumps(hop, sort_keys=True))
    return json.dumps(left, sort_keys=True)
