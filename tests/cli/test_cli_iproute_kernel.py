"""``trio-routes routes`` and ``get`` against ip(8), on the real kernel, over every kind of route that it makes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from ipaddress import ip_address
from itertools import product
from typing import Any

import pytest

from trio_routes import testing
from trio_routes.cli import ExitStatus, _get
from trio_routes.cli._iproute_json import Asked
from trio_routes.cli._routes import routes_as_json
from trio_routes.cli._tables import read_cache
from trio_routes.routing import Cache

PYTHON = (sys.executable, "-m", "trio_routes")
# What ip(8) printed or we answered: Any, for that is what JSON is made of.
Said = dict[str, Any]

SETUP = """
ip addr add 10.0.1.9/24 dev a0; ip addr add 10.7.0.1 peer 10.7.0.2/32 dev b0
ip route add default via 10.0.1.1 metric 100
ip route add default via 10.0.2.1 metric 200 proto dhcp src 10.0.2.2
ip route add 192.0.2.0/24 nexthop via 10.0.1.1 weight 3 nexthop via 10.0.2.1 dev b0 onlink
ip route add 192.0.3.0/24 via inet6 2001:db8:1::1 dev a0
ip route add 192.0.4.0/24 nexthop via inet6 fe80::1 dev a0 nexthop via 10.0.2.1
ip nexthop add id 10 via 10.0.1.1 dev a0; ip nexthop add id 11 via 10.0.2.1 dev b0 onlink
ip nexthop add id 12 group 10/11,3; ip nexthop add id 20 blackhole; ip nexthop add id 13 group 10/11 type resilient buckets 8
ip nexthop add id 30 via 2001:db8:1::1 dev a0; ip nexthop add id 31 via 2001:db8:2::1 dev b0
ip nexthop add id 32 group 30/31; ip nexthop add id 33 via fe80::9 dev b0
ip route add 192.0.5.0/24 nhid 10; ip route add 192.0.6.0/24 nhid 12; ip route add 192.0.7.0/24 nhid 20
ip route add 192.0.8.0/24 nhid 33; ip route add 192.0.51.0/24 nhid 13
ip -6 route add 2001:db8:5::/48 nhid 30; ip -6 route add 2001:db8:6::/48 nhid 32
ip route add 192.0.9.0/24 via 10.0.1.1 mtu 1400 advmss lock 1300 initcwnd 20 rto_min 300ms congctl cubic window 1000 \
    rtt 50ms rttvar 20ms ssthresh 9 quickack 1 features ecn hoplimit 33
ip route add blackhole 192.0.10.0/24; ip route add unreachable 192.0.11.0/24 metric 5
ip route add prohibit 192.0.12.0/24; ip route add throw 192.0.13.0/24 table 77
ip route add 192.0.14.0/24 dev a0 scope link src 10.0.1.9 proto 188
ip route add 192.0.15.0/24 via 203.0.113.7 dev a0 onlink table 70000
ip route add 192.0.16.0/24 via 10.0.1.1 tos 0x10
ip route add 192.0.17.0/24 via 10.0.1.1 realm 5
ip route add 192.0.18.0/24 nexthop via 10.0.1.1 realm 7 nexthop via 10.0.2.1 realm 9/3
ip route add multicast 239.1.0.0/16 dev a0
ip route add local 198.18.0.0/15 dev lo
ip route add 192.0.20.0/24 encap ip id 100 dst 10.0.1.77 ttl 64 dev a0 || true
ip -6 route add 2001:db8:20::/48 encap seg6 mode encap segs 2001:db8::7,2001:db8::8 dev a0 || true
ip -6 route add default via 2001:db8:1::1 metric 1024 pref high
ip -6 route add 2001:db8:7::/48 nexthop via 2001:db8:1::1 weight 2 nexthop via 2001:db8:2::1
ip -6 route add 2001:db8:8::/48 from 2001:db8:1::/64 via 2001:db8:1::1
ip -6 route add 2001:db8:8::/48 from 2001:db8:1::2 via 2001:db8:1::7
ip -6 route add blackhole 2001:db8:9::/48; ip -6 route add unreachable 2001:db8:a::/48 metric 7
ip -6 route add prohibit 2001:db8:b::1 table 77; ip -6 route add throw 2001:db8:f::/48 table 300
ip -6 route add 2001:db8:c::/48 via fe80::1 dev a0 pref low expires 5000
ip -6 route add 2001:db8:d::/48 dev b0 src 2001:db8:2::2 mtu lock 1300 hoplimit 33
ip -6 route add 2001:db8:e::/48 via fe80::1 dev a0 onlink
ip -6 route add multicast ff05::/16 dev b0 table 300
ip -6 route add anycast 2001:db8:1::77 dev a0
ip -6 route add local 2001:db8:99::/48 dev lo
ip route add 192.0.30.0/24 via 10.0.3.1; ip route add 192.0.31.0/24 nexthop via 10.0.3.1 nexthop via 10.0.1.1
ip route add 192.0.32.0/24 nexthop via 10.0.3.1 nexthop via 10.0.3.7
ip -6 route add 2001:db8:30::/48 via 2001:db8:3::1
ip -6 route add 2001:db8:31::/48 nexthop via 2001:db8:3::1 nexthop via 2001:db8:1::1
ip rule add fwmark 7 lookup 77; ip rule add fwmark 8 unreachable; ip rule add fwmark 9 blackhole
ip rule add fwmark 10 lookup 70000; ip rule add from 10.0.2.2 lookup 70000
ip -6 rule add fwmark 7 unreachable; ip -6 rule add fwmark 8 prohibit; ip -6 rule add fwmark 9 blackhole
ip -6 rule add fwmark 10 lookup 300
"""


@pytest.fixture
async def host(lab: testing.Lab) -> testing.Host:
    """A host with three links, ``a0``, ``b0`` and ``c0``, of which the last has lost its carrier, and all those routes."""
    host = lab.host("device")
    for number, name in enumerate(("a0", "b0", "c0"), 1):
        addresses = [f"10.0.{number}.2/24", f"2001:db8:{number}::2/64"]
        host.plug(lab.network(f"net{number}"), name=name, addresses=addresses)
    await host.run(["sh", "-ec", SETUP])
    host.links["c0"].carrier(False)
    await wait_for_carrier_loss(host, "c0")
    return host


async def wait_for_carrier_loss(host: testing.Host, name: str) -> None:
    # The kernel says so up to a second late (linkwatch).
    await host.run(["sh", "-ec", f"until ip link show {name} | grep -q NO-CARRIER; do sleep 0.01; done"])


async def cache_of(host: testing.Host) -> Cache:
    with host.inside():
        return await read_cache()


def comparable(said: Mapping[str, Any]) -> str:
    """A route without what `_iproute_json` leaves out."""
    left = {key: value for key, value in said.items() if key != "expires"}
    if "encap" in left:
        tunnel = {"id", "src", "dst", "ttl", "tos", "mode", "segs"}
        left = {key: value for key, value in left.items() if key not in tunnel}
    if "nh_info" in left:
        left["nh_info"] = {key: value for key, value in left["nh_info"].items() if key != "resilient_args"}
    if "pref" in left and "nexthops" in left:  # IPv6, whose siblings are a set
        left["nexthops"] = sorted(left["nexthops"], key=lambda hop: json.dumps(hop, sort_keys=True))
    return json.dumps(left, sort_keys=True)


async def assert_equal_routes(host: testing.Host) -> list[Said]:
    cache = await cache_of(host)
    ours: list[Said] = []
    for version in (4, 6):
        listed = await host.run(["ip", "-j", "-d", "-N", f"-{version}", "route", "show", "table", "all"])
        mine = [dict(said) for said in routes_as_json(cache, version=version)]
        assert sorted(map(comparable, mine)) == sorted(map(comparable, json.loads(listed)))
        ours += mine
    return ours


async def test_every_kind_of_route_is_told_as_ip_tells_it(host: testing.Host) -> None:
    ours = await assert_equal_routes(host)
    # That two lists are equal shows something only of what is in them.
    assert {said["type"] for said in ours} == set("123456789")
    told = {key for said in ours for key in said}
    assert told >= {"from", "nhid", "nh_info", "via", "tos", "flow", "metrics", "pref", "nexthops", "prefsrc"}
    assert any("linkdown" in said["flags"] for said in ours)
    assert any("linkdown" in hop["flags"] for said in ours for hop in said.get("nexthops", ()))


async def test_routes_stay_equal_while_their_links_change(host: testing.Host) -> None:
    host.sysctl("net.ipv4.conf.all.ignore_routes_with_linkdown", 1)
    host.sysctl("net.ipv6.conf.c0.ignore_routes_with_linkdown", 1)
    ours = await assert_equal_routes(host)
    assert any("dead" in said["flags"] for said in ours)
    host.links["b0"].down()
    ours = await assert_equal_routes(host)
    assert any("dead" in hop["flags"] for said in ours for hop in said.get("nexthops", ()))
    host.sysctl("net.ipv4.nexthop_compat_mode", 0)
    ours = await assert_equal_routes(host)
    assert any("nhid" in said and "dev" not in said for said in ours)
    await host.run(["ip", "link", "set", "lo", "down"])
    await assert_equal_routes(host)


async def test_the_command_prints_what_the_functions_say(host: testing.Host) -> None:
    printed = json.loads(await host.run([*PYTHON, "routes", "--json"]))
    assert list(map(comparable, printed)) == list(map(comparable, routes_as_json(await cache_of(host))))
    only = json.loads(await host.run([*PYTHON, "routes", "--json", "--table", "77", "-4"]))
    assert [(said["dst"], said["type"]) for said in only] == [("192.0.13.0/24", "9")]
    text = await host.run([*PYTHON, "routes", "--table", "main"])
    assert "\ndefault via 10.0.2.1 dev b0 proto dhcp src 10.0.2.2 metric 200\n" in text
    assert "192.0.2.0/24\n\tnexthop via 10.0.1.1 dev a0 weight 3\n\tnexthop via 10.0.2.1 dev b0 weight 1 onlink" in text
    assert await host.run([*PYTHON, "routes", "--table", "4711"]) == ""


# ---- answers ---------------------------------------------------------------------------------------

IPV4 = (
    *(f"192.0.{number}.3" for number in (*range(2, 19), 20, 30, 31, 51)),
    *("8.8.8.8", "10.0.1.77", "10.0.1.2", "10.0.1.255", "127.0.0.5", "198.18.0.7", "10.7.0.2", "10.7.0.1", "10.0.3.9"),
)
# 2001:db8:6:: is not asked for: of two routes by one nexthop object RTM_GETROUTE names the one that was used first.
IPV6 = (
    *(f"2001:db8:{number}::1" for number in (*"12359abcdef78", 20, 30, 31)),
    *("2001:4860::1", "2001:db8:1::2", "::1", "2001:db8:1::77", "2001:db8:99::7", "fe80::77"),
)
SOURCES = {4: ("10.0.2.2", "10.0.1.9", "10.9.9.9"), 6: ("2001:db8:1::2", "2001:db8:2::2", "2001:db8:1::55")}
Question = dict[str, str | int]


def questions() -> Iterator[tuple[str, Question]]:
    for address in (*IPV4, *IPV6):
        options: list[Question] = [{"mark": mark} for mark in (7, 8, 9, 10, 11)]
        sources = SOURCES[ip_address(address).version]
        options.extend({"oif": device} for device in ("a0", "b0", "c0", "lo"))
        options.extend({"from": source} for source in sources)
        options.append({"from": sources[0], "oif": "b0"})
        if address != "fe80::77":  # without a link it may be any
            yield address, {}
        else:
            options = [option for option in options if "oif" in option]
        yield from product([address], options)
    yield "192.0.16.3", {"tos": 0x10}


def ask_ip(host: testing.Host, address: str, question: Question) -> Said:
    # ip(8) reads a TOS as hexadecimal, whatever it looks like.
    words = [hex(word) if isinstance(word, int) else word for item in question.items() for word in item]
    with host.entered():
        done = subprocess.run(
            ["ip", "-j", "-d", "-N", "route", "get", address, *words], capture_output=True, text=True, check=False
        )
    if done.returncode:
        return {"error": done.stderr.strip().removeprefix("RTNETLINK answers: ")}
    (said,) = json.loads(done.stdout)
    said.pop("cache", None)
    # ip(8) takes RTCF_MULTICAST for a route's flag of the same bit.
    said["flags"] = [flag for flag in said["flags"] if flag != "rt_offload_failed"]
    return dict(said)


def ask_us(cache: Cache, address: str, question: Question) -> Said:
    source = question.get("from")
    asked = Asked(
        ip_address(address), None if source is None else ip_address(source), int(question.get("mark", 0)), uid=0
    )
    device = question.get("oif")
    resolution = _get.look_up(cache, asked, None if device is None else str(device), tos=int(question.get("tos", 0)))
    return dict(_get.resolution_as_json(cache, asked, resolution))


def difference(address: str, question: Question, ours: Said, theirs: Said) -> str | None:
    """What the two answers disagree on, as text; None if on nothing that can be compared."""
    if "error" in theirs or "error" in ours:
        return None if ours.get("error") == theirs.get("error") else f"ours {ours}, ip's {theirs}"
    if ":" in address and "from" in question:
        theirs.pop("prefsrc", None)  # the source that it would choose if it were not given one
    if "nexthops" in ours:
        hop = {key: theirs.pop(key) for key in ("gateway", "via", "dev", "flow") if key in theirs}
        ways = [{k: v for k, v in way.items() if k not in ("weight", "flags")} for way in ours.pop("nexthops")]
        if hop not in ways:
            return f"ip's next hop {hop} is none of {ways}"
        if "prefsrc" not in ours:
            theirs.pop("prefsrc", None)
    if theirs["type"] != "1":
        # One trie for the tables 254 and 255, until an IPv4 rule was ever added: then ip(8) calls both 254.
        del ours["table"], theirs["table"]
    if comparable(ours) == comparable(theirs):
        return None
    return f"ours {ours}, ip's {theirs}"


async def test_every_answer_is_the_kernels(host: testing.Host) -> None:
    cache = await cache_of(host)
    answers = [(*asked, ask_us(cache, *asked)) for asked in questions()]
    assert sum("error" in ours for *_, ours in answers) > 50
    assert any("nexthops" in ours for *_, ours in answers)
    wrong = [
        f"{address} {question}: {found}"
        for address, question, ours in answers
        if (found := difference(address, question, ours, ask_ip(host, address, question))) is not None
    ]
    assert not wrong, f"{len(wrong)} of {len(answers)}\n" + "\n".join(wrong)


async def test_get_prints_the_answer_and_its_reason(host: testing.Host) -> None:
    (said,) = json.loads(await host.run([*PYTHON, "get", "--json", "8.8.8.8"]))
    assert (said["gateway"], said["dev"], said["prefsrc"]) == ("10.0.1.1", "a0", "10.0.1.2")
    assert await host.run([*PYTHON, "get", "8.8.8.8", "--uid", "0"]) == (
        "8.8.8.8 via 10.0.1.1 dev a0 src 10.0.1.2 uid 0 (by default of table main, rule 32766)\n"
    )
    assert "0.0.0.0 dev lo src 127.0.0.1" in (text := await host.run([*PYTHON, "get", "0.0.0.0"]))
    assert text.endswith(" (that is this host itself)\n")
    text = await host.run([*PYTHON, "get", "fe80::77%a0"])
    assert text.startswith("fe80::77 dev a0 ")
    assert " nexthop via 10.0.1.1 dev a0 weight 3 nexthop via 10.0.2.1" in await host.run([*PYTHON, "get", "192.0.2.1"])


@pytest.mark.parametrize(
    ("words", "status", "out", "err"),
    [
        (["192.0.11.1"], ExitStatus.NO_ROUTE, "unreachable: No route to host (by unreachable 192.0.11.0/24 of ", ""),
        (["8.8.8.8", "--mark", "8"], ExitStatus.NO_ROUTE, "unreachable: Network is unreachable (rule ", ""),
        (["8.8.8.8", "--from", "10.9.9.9"], ExitStatus.NO_ROUTE, "8.8.8.8 no route: Network is unreachable", ""),
        (["8.8.8.8", "--oif", "x"], ExitStatus.FAILED, "", "trio-routes get: there is no link 'x'\n"),
        (["8.8.8.8", "--from", "::1"], ExitStatus.USAGE, "", "--from ::1 is not of the same family as 8.8.8.8"),
        (["8.8.8.8", "--tos", "256"], ExitStatus.USAGE, "", "256 is not within 0 and 255"),
        (["8.8.8"], ExitStatus.USAGE, "", "'8.8.8' is not an IPv4 or IPv6 address"),
    ],
)
async def test_exit_statuses_of_get(
    host: testing.Host, words: list[str], status: ExitStatus, out: str, err: str
) -> None:
    with pytest.raises(subprocess.CalledProcessError) as ended:
        await host.run([*PYTHON, "get", *words])
    assert ended.value.returncode == status
    assert out in ended.value.stdout.decode()
    assert err in ended.value.stderr.decode()
