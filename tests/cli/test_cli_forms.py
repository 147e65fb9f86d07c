"""The forms in which the commands print routes, answers and events: pure."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from ipaddress import IPv4Address, IPv6Address, ip_address

import attrs
import pytest

from trio_routes._events import (
    AddressAdded,
    AddressRemoved,
    Event,
    GatewayChanged,
    Lagged,
    LinkDown,
    LinkPortalChanged,
    LinkUp,
    PortalChanged,
    PortalExpiring,
    Resynced,
    RouteAdded,
    RouteRemoved,
    RouteReplaced,
    RuleChanged,
    Woke,
)
from trio_routes.cli._event_json import event_as_json
from trio_routes.cli._event_text import event_line
from trio_routes.cli._iproute_json import Asked, answer_as_json, flags_text, hop_flags, route_as_json
from trio_routes.cli._iproute_text import route_text
from trio_routes.cli._watch import Names
from trio_routes.netlink import (
    AF_INET,
    AF_INET6,
    FR_ACT_GOTO,
    FR_ACT_PROHIBIT,
    RT_SCOPE_HOST,
    RT_SCOPE_LINK,
    RTN_BLACKHOLE,
    RTN_LOCAL,
    RTNH_F_ONLINK,
    NetconfMessage,
    NextHop,
    NexthopMessage,
    RouteBody,
    RuleMessage,
)
from trio_routes.portal import Evidence, Finding, PortalKind, PortalState, Question
from trio_routes.routing import Address, Cache, Link, Route

AT = datetime(2026, 3, 4, 5, 6, 7, 89000, tzinfo=UTC)
UP, NO_CARRIER, DOWN = 0x11043, 0x1003, 0x1002
GATEWAY = IPv4Address("10.0.1.1")
DEFAULT = Route(RouteBody(AF_INET, 254, 0, protocol=4, nexthops=(NextHop(2, GATEWAY),)), 0)
LOOPBACK = Link(1, "lo", 0x10049, arp_type=772)
WLAN = Link(2, "wlan0", UP, mtu=1500, address=b"\x02\0\0\0\0\x01")


def name_of(ifindex: int) -> str:
    return {1: "lo", 2: "wlan0", 3: "lte0"}.get(ifindex, f"if{ifindex}")


def cache_with(*links: Link) -> Cache:
    cache = Cache()
    cache.state.links.update({link.ifindex: link for link in links})
    return cache


# ---- routes ----------------------------------------------------------------------------------------


def test_a_default_route_has_the_keys_of_ip() -> None:
    assert route_as_json(DEFAULT, name_of) == {
        "type": "1",
        "dst": "default",
        "gateway": "10.0.1.1",
        "dev": "wlan0",
        "table": "254",
        "protocol": "4",
        "scope": "0",
        "flags": [],
    }
    assert route_text(route_as_json(DEFAULT, name_of)) == "default via 10.0.1.1 dev wlan0 proto static"


def test_an_ipv6_route_has_a_metric_and_a_preference_always() -> None:
    body = RouteBody(AF_INET6, 255, 128, type=RTN_LOCAL, protocol=2, nexthops=(NextHop(1),))
    said = route_as_json(Route(body, 1), name_of)
    assert (said["dst"], said["metric"], said["pref"]) == ("::1", 0, "medium")
    assert route_text(said) == "local ::1 dev lo table local proto kernel metric 0 pref medium"


def test_a_gateway_of_the_other_family_is_a_via() -> None:
    body = RouteBody(AF_INET, 70000, 24, nexthops=(NextHop(9, IPv6Address("fe80::1"), flags=RTNH_F_ONLINK),))
    said = route_as_json(Route(body, int(IPv4Address("192.0.2.0"))), name_of)
    assert said["via"] == {"family": "inet6", "host": "fe80::1"}
    assert route_text(said) == "192.0.2.0/24 via inet6 fe80::1 dev if9 table 70000 proto unspec onlink"


def test_a_multipath_route_has_a_list_even_of_one() -> None:
    hops = (NextHop(2, GATEWAY, weight=3, flow=9 << 16 | 3),)
    said = route_as_json(Route(RouteBody(AF_INET, 254, 0, nexthops=hops, multipath=True), 0), name_of)
    assert "dev" not in said
    assert said["nexthops"] == [
        {"gateway": "10.0.1.1", "dev": "wlan0", "flow": {"from": "9", "to": "3"}, "weight": 3, "flags": []}
    ]
    assert route_text(said, " ") == "default proto unspec nexthop via 10.0.1.1 dev wlan0 realms 9/3 weight 3"


def test_metrics_are_in_the_units_of_ip() -> None:
    # rtt in eighths and rttvar in quarters of a millisecond, a lock without a value, ECN and one unknown feature, no hop limit.
    metrics = ((1, 1 << 8), (2, 1400), (4, 400), (5, 80), (10, 0xFFFFFFFF), (12, 9), (16, "bbr"), (99, 1))
    said = route_as_json(Route(RouteBody(AF_INET, 254, 0, metrics=metrics), 0), name_of)
    assert said["metrics"] == [
        {"mtu": 1400, "rtt": 50, "rttvar": 20, "advmss": 0, "ecn": None, "features": "0x9", "congestion": "bbr"}
    ]
    assert "mtu 1400 rtt 50ms rttvar 20ms advmss 0 features ecn features 0x9 congctl bbr" in route_text(said)


@pytest.mark.parametrize(
    ("link_flags", "ignored", "expected"),
    [
        (UP, False, []),
        (UP, True, []),
        (NO_CARRIER, False, ["linkdown"]),
        (NO_CARRIER, True, ["dead", "linkdown"]),
        (DOWN, False, ["dead", "linkdown"]),
    ],
)
@pytest.mark.parametrize("family", [AF_INET, AF_INET6])
def test_dead_and_linkdown_are_read_off_the_link(
    family: int, link_flags: int, ignored: bool, expected: list[str]
) -> None:
    cache = cache_with(Link(2, "wlan0", link_flags))
    cache.apply_switches(NetconfMessage(family, 2, ignore_routes_with_linkdown=ignored), gone=False)
    hop = NextHop(2, flags=RTNH_F_ONLINK)
    body = RouteBody(family, 254, 24, scope=RT_SCOPE_LINK if family == AF_INET else 0, nexthops=(hop,))
    flags = flags_text(hop_flags(cache, body, hop))
    assert sorted(flags) == sorted(["onlink", *expected])
    assert flags_text(hop_flags(None, body, hop)) == ["onlink"]


@pytest.mark.parametrize(
    "body",
    [
        RouteBody(AF_INET, 255, 32, type=RTN_LOCAL, scope=RT_SCOPE_HOST),
        RouteBody(AF_INET6, 255, 128, type=RTN_LOCAL),
        RouteBody(AF_INET6, 254, 48, type=RTN_BLACKHOLE),
    ],
    ids=["local", "local6", "blackhole6"],
)
def test_routes_to_the_host_itself_and_rejects_are_of_no_link(body: RouteBody) -> None:
    assert hop_flags(cache_with(Link(2, "wlan0", DOWN)), body, NextHop(2)) == 0


def test_a_route_whose_every_way_is_without_carrier_says_so_itself() -> None:
    links = [Link(2, "wlan0", NO_CARRIER), Link(3, "lte0", NO_CARRIER)]
    body = RouteBody(AF_INET, 254, 0, nexthops=(NextHop(2, GATEWAY), NextHop(3, GATEWAY)), multipath=True)
    assert route_as_json(Route(body, 0), name_of, cache_with(*links))["flags"] == ["linkdown"]
    assert route_as_json(Route(body, 0), name_of, cache_with(WLAN, links[1]))["flags"] == []


def test_a_group_that_shrank_is_shown_as_it_is_now() -> None:
    cache = cache_with(WLAN)
    hops = (NextHop(2, GATEWAY), NextHop(3, GATEWAY))
    body = RouteBody(AF_INET, 254, 0, nexthops=hops, multipath=True, nexthop_id=12)
    cache.state.nexthops[10] = NexthopMessage(10, AF_INET, RT_SCOPE_LINK, ifindex=2, gateway=GATEWAY)
    cache.state.nexthops[12] = NexthopMessage(12, group=((10, 4),))
    said = route_as_json(Route(body, 0), name_of, cache)
    assert (said["gateway"], said["dev"]) == ("10.0.1.1", "wlan0")
    assert "nexthops" not in said
    assert said["nh_info"] == {
        "id": 12,
        "group": [{"id": 10, "weight": 4}],
        "scope": "0",
        "protocol": "0",
        "flags": [],
    }
    ipv6 = RouteBody(AF_INET6, 254, 0, nexthops=hops, multipath=True, nexthop_id=12)
    assert len(route_as_json(Route(ipv6, 0), name_of, cache)["nexthops"]) == 1  # type: ignore[arg-type]  # a list


# ---- answers ---------------------------------------------------------------------------------------


def test_an_answer_repeats_the_question() -> None:
    asked = Asked(IPv4Address("8.8.8.8"), mark=31, uid=1000)
    said = answer_as_json(asked, DEFAULT.body, DEFAULT.nexthops, IPv4Address("10.0.1.2"), name_of)
    assert said == {
        "type": "1",
        "dst": "8.8.8.8",
        "gateway": "10.0.1.1",
        "dev": "wlan0",
        "prefsrc": "10.0.1.2",
        "flags": [],
        "uid": 1000,
        "mark": 31,
        "table": "254",
    }


def test_the_source_that_was_given_is_not_told_as_chosen() -> None:
    source = IPv4Address("10.0.1.2")
    said = answer_as_json(Asked(IPv4Address("8.8.8.8"), source), DEFAULT.body, DEFAULT.nexthops, source, name_of)
    assert said["from"] == "10.0.1.2"
    assert "prefsrc" not in said


def test_several_next_hops_are_a_list_without_the_source_of_one() -> None:
    hops = (NextHop(2, GATEWAY), NextHop(3, IPv4Address("10.0.2.1"), weight=5))
    body = RouteBody(AF_INET, 254, 0, nexthops=hops, multipath=True)
    said = answer_as_json(Asked(IPv4Address("8.8.8.8")), body, hops, IPv4Address("10.0.1.2"), name_of)
    assert "prefsrc" not in said
    assert said["nexthops"] == [
        {"gateway": "10.0.1.1", "dev": "wlan0", "weight": 1, "flags": []},
        {"gateway": "10.0.2.1", "dev": "lte0", "weight": 5, "flags": []},
    ]


# ---- events ----------------------------------------------------------------------------------------

ADDRESS = Address(2, ip_address("192.0.2.7"), 24)
RULE = RuleMessage(AF_INET, 50, table=7, source=int(IPv4Address("10.0.0.0")), source_length=8, mark=3, mask=0xFF)
EVIDENCE = Evidence(question=Question.HTTP_204, finding=Finding.REDIRECT, location="/login")
ONLINE = PortalState(kind=PortalKind.ONLINE, generation=3)
PORTAL = PortalState(
    kind=PortalKind.PORTAL,
    generation=4,
    url="http://login.example/",
    expires_at=31.5,
    bytes_remaining=5e3,
    evidence=(EVIDENCE,),
)
ROUTE_6 = Route(RouteBody(AF_INET6, 254, 64, protocol=2, priority=256, nexthops=(NextHop(3),)), 0xFE80 << 112)
HOPS = (NextHop(2, GATEWAY),)
NONE: tuple[NextHop, ...] = ()


def about(kind: type[Event], **facts: object) -> Event:
    return kind(generation=5, time=1.5, **facts)


EVENTS = [
    (about(RouteAdded, route=DEFAULT, cause="RTM_NEWROUTE"), "+ route default via 10.0.1.1 dev wlan0 proto static"),
    (
        about(RouteRemoved, route=ROUTE_6, cause="link lte0 was set down"),
        "- route fe80::/64 dev lte0 proto kernel metric 256 pref medium (link lte0 was set down)",
    ),
    (
        about(RouteReplaced, old=DEFAULT, route=DEFAULT, cause="RTM_NEWROUTE"),
        "~ route default via 10.0.1.1 dev wlan0 proto static is now default via 10.0.1.1 dev wlan0 proto static",
    ),
    (about(LinkUp, link=WLAN), "+ link wlan0 is up"),
    (
        about(LinkDown, link=WLAN, cause="link wlan0 lost its carrier"),
        "- link wlan0 carries nothing any more (link wlan0 lost its carrier)",
    ),
    (about(AddressAdded, address=ADDRESS), "+ address 192.0.2.7/24 on wlan0"),
    (about(AddressRemoved, address=ADDRESS, cause="RTM_DELADDR"), "- address 192.0.2.7/24 on wlan0"),
    (about(RuleChanged, old=None, new=RULE), "+ rule 50: from 10.0.0.0/8 fwmark 0x3/0xff lookup 7"),
    (
        about(RuleChanged, old=RuleMessage(AF_INET6, 9, action=FR_ACT_PROHIBIT, iif="lte0", invert=True), new=None),
        "- rule 9: not from all iif lte0 prohibit",
    ),
    (
        about(RuleChanged, old=None, new=RuleMessage(AF_INET, 9, action=FR_ACT_GOTO, goto=99, uid_range=(5, 6))),
        "+ rule 9: from all uidrange 5-6 goto 99",
    ),
    (
        about(GatewayChanged, family=AF_INET, table=254, before=HOPS, after=NONE),
        "~ gateway of IPv4 in table main: 10.0.1.1 by wlan0 is now none",
    ),
    (
        about(Resynced, reason="the receive buffer overflowed", differences=2),
        "! tables were read anew: the receive buffer overflowed; 2 differences, shown above",
    ),
    (about(Lagged, missed=3), "! events 3 came too fast to be shown"),
    (
        about(PortalChanged, before=ONLINE, state=PORTAL),
        "~ portal behind the default path: online is now portal, at http://login.example/, ends in 30 s",
    ),
    (
        about(LinkPortalChanged, ifindex=2, family=6, before=PORTAL, state=ONLINE),
        "~ portal behind wlan0 by IPv6: portal is now online",
    ),
    (
        about(PortalExpiring, ifindex=2, family=4, state=PORTAL),
        "! portal behind wlan0 by IPv4: the network ends the session in 30 s or after 5000 bytes",
    ),
    (
        about(PortalExpiring, ifindex=0, family=0, state=attrs.evolve(PORTAL, expires_at=None)),
        "! portal behind the default path: the network ends the session after 5000 bytes",
    ),
    (about(Woke, slept_seconds=61.5), "! machine slept for 62 s"),
]


@pytest.mark.parametrize(("event", "expected"), EVENTS, ids=[type(event).__name__ for event, _ in EVENTS])
def test_an_event_is_one_line_for_people_and_one_for_programs(event: Event, expected: str) -> None:
    assert " ".join(event_line(event, name_of)) == expected
    said = json.loads(json.dumps(event_as_json(event, name_of, AT)))
    assert list(said)[:3] == ["event", "generation", "time"]
    assert (said["event"], said["generation"], said["time"]) == (type(event).__name__, 5, "2026-03-04T05:06:07.089Z")
    assert said["smd"] == event.as_smd()
    # Every field of the event is there, and nothing is Python's repr of an object.
    assert set(said) == {"event", "smd", *(field.name for field in attrs.fields(type(event)))}
    assert "(" not in json.dumps(said)


def test_every_event_that_the_pt_announces_has_words() -> None:
    for event, _ in EVENTS:
        assert event_line(event, name_of).subject != type(event).__name__


def test_a_link_keeps_its_name_after_it_has_gone() -> None:
    links = {2: WLAN}
    names = Names(links)
    links[3] = Link(3, "lte0", UP)
    assert [names(number) for number in (2, 3, 4)] == ["wlan0", "lte0", "if4"]
    links.clear()
    assert [names(number) for number in (2, 3, 4)] == ["wlan0", "lte0", "if4"]
    links[2] = Link(2, "wan", UP)
    assert names(2) == "wan"
