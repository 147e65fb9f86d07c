"""What is known of a link before it is asked: the tables, routers, state files, the application; and sessions that end."""

from __future__ import annotations

import math
from ipaddress import IPv6Address, ip_address
from pathlib import Path

import attrs
import pytest
from hypothesis import given, strategies as st

from trio_routes import NetlinkDecodeError
from trio_routes.netlink import (
    ND_OPT_CAPTIVE_PORTAL,
    ND_OPT_RDNSS,
    NdUserOption,
    decode_nd_user_option,
    encode_nd_user_option,
)
from trio_routes.portal import Capport, Evidence, Finding, PortalKind, PortalState, Question
from trio_routes.portal._advertised import Advertised, captive_portal_url, name_servers
from trio_routes.portal._capport import parse_capport
from trio_routes.portal._hints import (
    Known,
    first_known,
    machines_run_directory,
    parse_networkd,
    parse_networkmanager,
    read_state_files,
)
from trio_routes.portal._rules import judge
from trio_routes.portal._session import SOONEST_SECONDS, Look, look

ROUTER, OTHER = IPv6Address("fe80::1"), IPv6Address("fe80::2")
API = "https://capport.example/api"


def option(url: str = API, *, router: IPv6Address = ROUTER, ifindex: int = 7) -> NdUserOption:
    body = url.encode()
    return NdUserOption(ifindex, router, ND_OPT_CAPTIVE_PORTAL, body.ljust((len(body) + 9) // 8 * 8 - 2, b"\0"))


def rdnss(lifetime: int, *servers: str, router: IPv6Address = ROUTER) -> NdUserOption:
    packed = b"".join(IPv6Address(server).packed for server in servers)
    return NdUserOption(7, router, ND_OPT_RDNSS, b"\0\0" + lifetime.to_bytes(4, "big") + packed)


# The decoder.


def test_the_options_of_an_advertisement_as_linux_6_18_passed_them_on() -> None:
    # Taken down in a namespace, without their headers: options 37 and 25 of one hand-made advertisement.
    captive = bytes.fromhex(
        "0a001800020000008600000000000000"
        "250368747470733a2f2f6170692e6578616d706c652f0000"
        "14000100fe800000000000000000000000000001"
    )
    servers = bytes.fromhex(
        "0a001800020000008600000000000000190300000000025820010db800010000000000000000000114000100fe80000000000000"
        "0000000000000001"
    )
    decoded = decode_nd_user_option(captive, 0, len(captive))
    assert (decoded.ifindex, decoded.router, decoded.type) == (2, ROUTER, ND_OPT_CAPTIVE_PORTAL)
    assert captive_portal_url(decoded.body) == "https://api.example/"
    decoded = decode_nd_user_option(servers, 0, len(servers))
    assert (decoded.type, name_servers(decoded.body)) == (ND_OPT_RDNSS, (600.0, (IPv6Address("2001:db8:1::1"),)))


@given(st.integers(1, 2**31 - 1), st.binary(min_size=6, max_size=200), st.integers(0, 255))
def test_what_is_encoded_is_decoded(ifindex: int, body: bytes, type: int) -> None:
    padded = body.ljust((len(body) + 9) // 8 * 8 - 2, b"\0")
    sent = NdUserOption(ifindex, ROUTER, type, padded)
    data = encode_nd_user_option(sent)
    assert decode_nd_user_option(data, 0, len(data)) == sent


@given(st.binary(max_size=64))
def test_any_bytes_are_an_option_or_an_error(data: bytes) -> None:
    try:
        decoded = decode_nd_user_option(data, 0, len(data))
    except NetlinkDecodeError:
        return
    assert (len(decoded.body) + 2) % 8 == 0
    captive_portal_url(decoded.body)
    name_servers(decoded.body)


def test_an_option_that_is_cut_off_or_has_a_wrong_length_is_an_error() -> None:
    whole = encode_nd_user_option(option())
    for data in (whole[:-25], whole[:17] + b"\0" + whole[18:]):
        with pytest.raises(NetlinkDecodeError, match="neighbour discovery option"):
            decode_nd_user_option(data, 0, len(data))


# What routers say.


@pytest.mark.parametrize(
    ("body", "url"),
    [
        (b"https://a.example/\0\0\0", "https://a.example/"),
        (b"urn:ietf:params:capport:unrestricted", "urn:ietf:params:capport:unrestricted"),
        (b"", None),
        (b"\0" * 6, None),
        (b"https://a\0.example/", None),
        (b"https://a.example/ b", None),
        (b"https://caf\xc3\xa9.example/", None),
        (b"https://a.example/" + b"a" * 2048, None),
    ],
)
def test_a_url_that_cannot_be_one_is_dropped(body: bytes, url: str | None) -> None:
    assert captive_portal_url(body) == url


def test_only_what_differs_is_news() -> None:
    said = Advertised()
    assert said.take(option(), 0.0)
    assert not said.take(option(), 10.0)
    assert said.take(option("https://other.example/"), 20.0)
    assert said.api_url(7) == "https://other.example/"
    assert said.api_url(8) is None
    assert said.take(rdnss(60, "fe80::53", "2001:db8::53"), 20.0)
    assert not said.take(rdnss(60, "fe80::53", "2001:db8::53"), 40.0)  # a lifetime that is refreshed
    assert [str(one) for one in said.resolvers(7, 99.0)] == ["fe80::53", "2001:db8::53"]
    assert said.resolvers(7, 101.0) == ()
    assert said.take(rdnss(0, "fe80::53"), 30.0)
    assert [str(one) for one in said.resolvers(7, 30.0)] == ["2001:db8::53"]
    assert not said.take(NdUserOption(7, ROUTER, 3, b"\0" * 30), 30.0)  # a prefix
    assert not said.take(attrs.evolve(option("https://x.example/"), icmp_type=137), 30.0)


def test_several_resolver_options_of_one_advertisement_are_told_once() -> None:
    said = Advertised()
    options = rdnss(60, "2001:db8::53"), rdnss(120, "2001:db8::54", "2001:db8::55")
    for now in (0.0, 10.0, 20.0):
        assert [said.take(option, now) for option in options] == [now == 0.0] * 2
    assert [str(one)[-2:] for one in said.resolvers(7, 79.0)] == ["53", "54", "55"]
    assert [str(one)[-2:] for one in said.resolvers(7, 81.0)] == ["54", "55"]
    many = [f"2001:db8::{number:x}" for number in range(1, 1001)]
    for number in range(0, 1000, 100):
        said.take(rdnss(600, *many[number : number + 100]), 200.0)
    assert len(said.resolvers(7, 200.0)) == 8


def test_what_a_router_said_goes_with_the_link_the_router_or_its_default_route() -> None:
    said = Advertised()
    said.take(option(), 0.0)
    said.take(option("https://other.example/", router=OTHER), 0.0)
    said.led_by(7, [])  # no route yet: routers of a lifetime of 0 never have one
    assert said.api_url(7) == API
    said.led_by(7, [ROUTER, OTHER])
    said.led_by(7, [OTHER])
    assert said.api_url(7) == "https://other.example/"
    said.drop(7)
    assert said.api_url(7) is None


def test_a_thousand_routers_do_not_fill_the_memory() -> None:
    said = Advertised()
    news = [said.take(option(router=IPv6Address(0xFE80 << 112 | number)), 0.0) for number in range(1, 1000)]
    assert sum(news) == 16


# State files.

NETWORKD = """# This is private data. Do not parse.
ADMIN_STATE=configured
DNS=192.0.2.53 2001:db8::53 [2001:db8::54]:53%2#dns.example 127.0.0.53
CAPTIVE_PORTAL=https://capport.example/api
"""
MANAGER = """[device]
managed=true

[dhcp4]
dhcp4.domain_name_servers=192.0.2.53 192.0.2.54
dhcp4.routers=192.0.2.1

[dhcp6]
dhcp6.domain_name_servers=192.0.2.99
"""


def test_state_files_are_read_as_far_as_they_can_be(tmp_path: Path) -> None:
    assert read_state_files(tmp_path, 2) == [parse_networkd(""), parse_networkmanager("")]
    (tmp_path / "systemd/netif/links").mkdir(parents=True)
    (tmp_path / "NetworkManager/devices").mkdir(parents=True)
    (tmp_path / "systemd/netif/links/2").write_text(NETWORKD)
    (tmp_path / "NetworkManager/devices/2").write_bytes(b"\xff\n" + MANAGER.encode())
    networkd, manager = read_state_files(tmp_path, 2)
    assert (networkd.api_url, networkd.api_source) == (API, "systemd-networkd")
    assert [str(one) for one in networkd.resolvers] == ["192.0.2.53", "2001:db8::53", "127.0.0.53"]
    assert [str(one) for one in manager.resolvers] == ["192.0.2.53", "192.0.2.54"]
    assert manager.api_url is None


def test_the_machines_files_are_not_believed_in_another_network_namespace(tmp_path: Path) -> None:
    def namespace(process: str, name: str) -> None:
        (tmp_path / process / "ns").mkdir(parents=True)
        (tmp_path / process / "ns" / "net").symlink_to(name)

    namespace("thread-self", "net:[7]")
    assert machines_run_directory(tmp_path) == Path("/run")  # nobody but root may look at process 1
    namespace("1", "net:[7]")
    assert machines_run_directory(tmp_path) == Path("/run")
    (tmp_path / "1" / "ns" / "net").unlink()
    (tmp_path / "1" / "ns" / "net").symlink_to("net:[8]")
    assert machines_run_directory(tmp_path) is None


@given(st.text(max_size=200))
def test_any_state_file_is_read_without_a_complaint(text: str) -> None:
    for known in (parse_networkd(text), parse_networkmanager("[dhcp4]\n" + text)):
        assert known.api_url is None or known.api_url


def test_who_is_believed_first_and_that_a_stub_is_no_links_resolver() -> None:
    stub, own, other = (ip_address(text) for text in ("127.0.0.53", "192.0.2.53", "192.0.2.54"))
    known = first_known(
        [
            Known(resolvers=(stub,)),
            Known(api_url=API, api_source="a router advertisement"),
            Known(api_url="https://late.example/", resolvers=(stub, own)),
            Known(resolvers=(other,)),
        ]
    )
    assert known == Known(api_url=API, api_source="a router advertisement", resolvers=(own,))


# The API's answer.


def test_all_keys_of_rfc_8908_are_read() -> None:
    said = parse_capport(
        "application/captive+json",
        b'{"captive": false, "user-portal-url": "https://portal.example/", "venue-info-url": "https://venue.example/",'
        b' "can-extend-session": true, "seconds-remaining": 326, "bytes-remaining": 65536, "other": 1}',
    )
    assert said == Capport(
        captive=False,
        portal_url="https://portal.example/",
        venue_url="https://venue.example/",
        can_extend=True,
        seconds_remaining=326.0,
        bytes_remaining=65536.0,
    )


@pytest.mark.parametrize("value", ["-1", "1e999", "true", '"60"', "null", "NaN", "[]", "1" + "0" * 400])
def test_an_optional_key_that_is_wrong_is_left_out(value: str) -> None:
    said = parse_capport("application/captive+json", f'{{"captive": true, "seconds-remaining": {value}}}'.encode())
    assert said == Capport(captive=True)


@pytest.mark.parametrize("url", ["http://[", "javascript:alert(1)", "https://a.example/ b", "", "https:///x", 7])
def test_a_url_of_the_api_that_is_none_is_left_out(url: object) -> None:
    text = f'"{url}"' if isinstance(url, str) else str(url)
    said = parse_capport("application/captive+json", f'{{"captive": true, "user-portal-url": {text}}}'.encode())
    assert said.portal_url is None


@given(st.binary(max_size=60) | st.text(alphabet='{}[]":,captive tru0', max_size=60).map(str.encode))
def test_any_body_is_an_answer_or_a_value_error(body: bytes) -> None:
    try:
        assert parse_capport("application/captive+json", body).captive in (True, False)
    except ValueError:
        pass


# Sessions.


def session(*, expires_at: float | None = None, bytes_remaining: float | None = None) -> PortalState:
    return PortalState(kind=PortalKind.ONLINE, generation=1, expires_at=expires_at, bytes_remaining=bytes_remaining)


@pytest.mark.parametrize(
    ("state", "again_at", "expiring"),
    [
        (session(), math.inf, False),
        (session(expires_at=1600.0), 1540.0, False),  # a minute before the end
        (session(expires_at=1060.0), 1060.5, True),  # and after it
        (session(expires_at=1030.0), 1030.5, True),
        (session(expires_at=1000.0), 1000.0 + SOONEST_SECONDS, True),  # a network that says so for ever
        (session(expires_at=900.0), 1000.0 + SOONEST_SECONDS, True),
        (session(bytes_remaining=5e6), 1060.0, False),  # no pace is known yet
        (session(bytes_remaining=1e5), 1060.0, True),
        (session(expires_at=1600.0, bytes_remaining=5e6), 1060.0, False),
    ],
)
def test_when_a_session_is_looked_at_again_and_told(state: PortalState, again_at: float, expiring: bool) -> None:
    looked = look(state, 1000.0)
    assert (looked.again_at, looked.expiring) == (again_at, expiring)


def test_whoever_is_captive_has_no_session_that_could_end() -> None:
    said = Capport(captive=True, seconds_remaining=0.0, bytes_remaining=0.0)
    captive = Evidence(question=Question.API, finding=Finding.API_CAPTIVE, capport=said)
    assert look(judge([captive], 1), 1000.0) == Look(math.inf, expiring=False)


@pytest.mark.parametrize(
    ("left", "again_at", "expiring"),
    [
        (10e6 - 1e6, 1000 + 270, False),  # 1 MB a minute: 9 minutes, and half of that
        (5e6, 1000 + 30, False),  # 5 MB a minute: one more minute
        (4e6, 1000 + 20, True),
        (10e6, 1000 + 600, False),  # nobody uses it
        (20e6, 1000 + 600, False),  # it was topped up
    ],
)
def test_bytes_are_extrapolated_by_their_pace(left: float, again_at: float, expiring: bool) -> None:
    before = session(bytes_remaining=10e6)
    looked = look(session(bytes_remaining=left), 1000.0, before, 940.0)
    assert looked.again_at == pytest.approx(again_at)
    assert looked.expiring == expiring


@given(
    st.none() | st.floats(0, 1e9),
    st.none() | st.floats(0, 1e12),
    st.none() | st.floats(0, 1e12),
    st.floats(0, 1e6),
)
def test_no_session_is_asked_for_more_often_than_every_ten_seconds(
    expires_at: float | None, left: float | None, before: float | None, now: float
) -> None:
    looked = look(session(expires_at=expires_at, bytes_remaining=left), now, session(bytes_remaining=before), now - 10)
    assert looked.again_at >= now + SOONEST_SECONDS
