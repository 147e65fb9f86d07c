"""Captive portals as they are met: real servers, on the real kernel, asked by sockets that are bound to the link."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import Any, cast

import attrs
import pytest
import trio

from tests.kernel import _captive
from tests.kernel._captive import (
    CHECKED,
    DEAD,
    GATEWAY,
    HIJACKING,
    HONEST,
    LOGIN,
    NAME,
    Captive,
    advertisement,
    advertising,
    captive,
    captive_portal_option,
    resolver_option,
)
from tests.kernel._world import SOON, next_of
from tests.lab.waiting import until
from trio_routes import (
    Endpoint,
    Finding,
    LinkHints,
    LinkPortalChanged,
    PortalChanged,
    PortalConfig,
    PortalExpiring,
    PortalKind,
    PortalState,
    Question,
    open_pt,
)
from trio_routes.cli import ExitStatus
from trio_routes.testing import Lab

pytestmark = [pytest.mark.netns, _captive.needs_servers()]


@attrs.frozen
class Row:
    """One portal: where it is asked, and what must come of it.

    Attributes:
      findings: Of the 204, the body, the 204 over TLS.
    """

    kind: PortalKind
    findings: tuple[Finding, Finding, Finding]
    http: int = 8000
    https: int = 8443
    resolver: dict[int, str] = attrs.field(factory=lambda: HONEST)
    url: str | None = None


F = Finding
ROWS = {
    "none": Row(PortalKind.ONLINE, (F.PASSED, F.PASSED, F.PASSED)),
    "redirect, HTTPS dropped": Row(
        PortalKind.PORTAL, (F.REDIRECT, F.REDIRECT, F.TIMEOUT), http=8001, https=9001, url=LOGIN
    ),
    "redirect, HTTPS refused": Row(
        PortalKind.PORTAL, (F.REDIRECT, F.REDIRECT, F.REFUSED), http=8001, https=9002, url=LOGIN
    ),
    "redirect, HTTPS prohibited": Row(
        PortalKind.PORTAL, (F.REDIRECT, F.REDIRECT, F.NO_ROUTE), http=8001, https=9003, url=LOGIN
    ),
    "redirect that HTTPS passes": Row(PortalKind.PORTAL, (F.REDIRECT, F.REDIRECT, F.PASSED), http=8001, url=LOGIN),
    "page": Row(PortalKind.PORTAL, (F.FOREIGN_BODY, F.FOREIGN_BODY, F.TIMEOUT), http=8002, https=9001),
    "511": Row(PortalKind.PORTAL, (F.LOGIN_REQUIRED, F.LOGIN_REQUIRED, F.TIMEOUT), http=8003, https=9001),
    "TLS interception": Row(PortalKind.PORTAL, (F.REDIRECT, F.REDIRECT, F.UNTRUSTED), http=8001, https=8444, url=LOGIN),
    "TLS of another name": Row(PortalKind.PARTIAL, (F.PASSED, F.PASSED, F.WRONG_NAME), https=8445),
    "no TLS at all": Row(PortalKind.PARTIAL, (F.PASSED, F.PASSED, F.NOT_TLS), https=8000),
    "drops all but DNS": Row(PortalKind.OFFLINE, (F.TIMEOUT, F.TIMEOUT, F.TIMEOUT), http=9001, https=9001),
    "hijacked names": Row(
        PortalKind.PORTAL, (F.FOREIGN_BODY, F.FOREIGN_BODY, F.REFUSED), http=80, https=9002, resolver=HIJACKING
    ),
    "hijacked names, forged answers": Row(
        PortalKind.PORTAL, (F.PASSED, F.PASSED, F.REFUSED), https=9002, resolver=HIJACKING
    ),
    "dead DNS": Row(PortalKind.NO_DNS, (F.NAME_SILENT, F.NAME_SILENT, F.NAME_SILENT), resolver=DEAD),
    "walled garden": Row(PortalKind.PARTIAL, (F.PASSED, F.PASSED, F.TIMEOUT), https=9001),
}
_PROBES = {Question.HTTP_204, Question.HTTP_BODY, Question.HTTPS_204}


async def found(net: Captive, row: Row) -> PortalState:
    """Ask once, in a pt of its own."""
    async with open_pt(netns=net.device.netns, portal=net.config(row.http, row.https, resolver=row.resolver)) as pt:
        state = await pt.portal.check()
        families = pt.portal.links[net.wlan0.ifindex].families
        # The other family was not asked: IPv6 has a link-local address, IPv4 none.
        other = {4: (6, PortalKind.UNKNOWN), 6: (4, PortalKind.NO_LINK)}[net.family]
        assert {family: link.kind for family, link in families.items()} == dict([(net.family, row.kind), other])
        return state


@pytest.mark.slow  # silence takes 3 s
async def test_each_portal_is_told_apart_with_its_evidence(lab: Lab, family: int, tmp_path: Path) -> None:
    states: dict[str, PortalState] = {}
    async with captive(lab, family, tmp_path) as net, trio.open_nursery() as nursery:

        async def one(name: str, row: Row) -> None:
            states[name] = await found(net, row)

        with trio.fail_after(SOON):
            async with trio.open_nursery() as rows:
                for name, row in ROWS.items():
                    rows.start_soon(one, name, row)
        nursery.cancel_scope.cancel()
    for name, row in ROWS.items():
        state = states[name]
        probes = tuple(one for one in state.evidence if one.question in _PROBES)
        assert tuple(one.finding for one in probes) == row.findings, name
        assert (state.kind, state.url) == (row.kind, row.url), name
        names = [one.finding for one in state.evidence if one.question is Question.NAMES]
        assert names == {HIJACKING[4]: [F.NAMES_HIJACKED], DEAD[4]: []}.get(row.resolver[4], [F.NAMES_SANE]), name
        if row.resolver is not DEAD:
            assert {one.resolver for one in probes} == {ip_address(row.resolver[family])}, name
            wanted = GATEWAY if row.resolver is HIJACKING else CHECKED
            assert {one.address for one in probes} == {ip_address(wanted[family])}, name


async def test_a_portal_of_two_stages_opens_and_the_recheck_finds_it(lab: Lab, tmp_path: Path) -> None:
    async with captive(lab, 4, tmp_path) as net:
        config = attrs.evolve(net.config(8004), on_demand=False)
        async with open_pt(netns=net.device.netns, portal=config) as pt:
            with pt.subscribe(PortalChanged) as events:
                first = await next_of(events, PortalChanged)
                assert (first.state.kind, first.state.url) == (PortalKind.PORTAL, LOGIN)
                (net.folder / "stage1").touch()
                second = await next_of(events, PortalChanged)  # another page: no redirect any more
                assert (second.state.kind, second.state.url) == (PortalKind.PORTAL, None)
                (net.folder / "open").touch()
                with trio.fail_after(SOON):
                    await pt.portal.wait_online()


@pytest.mark.slow  # an advertisement that says something new is answered a second later
async def test_an_advertised_api_is_asked_by_the_link_and_its_session_minded(lab: Lab, tmp_path: Path) -> None:
    url = f"https://{NAME}:8443/api"
    portal, venue = "https://portal.example/", "https://venue.example/"
    async with captive(lab, 6, tmp_path) as net:
        api = net.folder / "api"
        said = {"captive": True, "user-portal-url": portal, "venue-info-url": venue}
        api.write_text(json.dumps(said))
        config = attrs.evolve(net.config(resolver=None), on_demand=False, hints={})
        async with (
            advertising(net.gateway, net.gateway.links["lan0"]) as router,
            open_pt(netns=net.device.netns, portal=config) as pt,
        ):
            with pt.subscribe(LinkPortalChanged, PortalExpiring) as events:
                options = captive_portal_option(url), resolver_option(HONEST[6])
                await router.send(advertisement(*options))
                captive_state = await next_of(
                    events, LinkPortalChanged, lambda event: event.state.kind is PortalKind.PORTAL
                )
                state = captive_state.state
                assert (captive_state.ifindex, captive_state.family) == (net.wlan0.ifindex, 6)
                # All probes passed: only the API knows better.
                assert {one.finding for one in state.evidence if one.question in _PROBES} == {F.PASSED}
                assert (state.url, state.venue) == (portal, venue)
                (said_by,) = (one for one in state.evidence if one.question is Question.API)
                assert (said_by.finding, said_by.endpoint) == (F.API_CAPTIVE, url)
                assert said_by.resolver == ip_address(HONEST[6])  # from the same advertisement
                assert "a router advertisement" in said_by.detail
                said = {"captive": False, "venue-info-url": venue, "seconds-remaining": 30}
                api.write_text(json.dumps(said))
                expiring = await next_of(events, PortalExpiring)
                assert expiring.state.kind is PortalKind.ONLINE
                assert expiring.state.expires_at is not None
                assert expiring.state.expires_at - trio.current_time() == pytest.approx(30, abs=5)


@_captive.needs_servers(radvd="radvd")
@pytest.mark.slow  # what is new of an advertisement is answered a second later
async def test_resolvers_that_radvd_advertises_are_the_links_own_and_their_repetition_asks_nobody(
    lab: Lab, tmp_path: Path
) -> None:
    async with captive(lab, 6, tmp_path) as net:
        config = attrs.evolve(net.config(resolver=None), on_demand=False, hints={})
        async with open_pt(netns=net.device.netns, portal=config) as pt:
            with pt.subscribe(LinkPortalChanged) as events:
                # Two lifetimes are two options, which the kernel passes on one by one.
                _captive.start_radvd(net.gateway, tmp_path, {HONEST[6]: 300, HIJACKING[6]: 600})
                changed = await next_of(events, LinkPortalChanged, lambda event: event.state.kind is PortalKind.ONLINE)
                probes = [one for one in changed.state.evidence if one.question in _PROBES]
                assert {one.resolver for one in probes} == {ip_address(HONEST[6])}
                state = pt.portal.links[net.wlan0.ifindex].families[6]
                heard = pt.statistics().datagrams
                # Two of each repetition, three times a second; what they say anew is asked about a second later.
                await until(lambda: pt.statistics().datagrams >= heard + 14)
                assert pt.portal.links[net.wlan0.ifindex].families[6] is state  # not asked again


async def test_the_apis_url_may_come_from_the_application_and_must_be_trusted(lab: Lab, tmp_path: Path) -> None:
    async with captive(lab, 4, tmp_path) as net:
        (net.folder / "api").write_text('{"captive": true}')
        for port, finding in ((8443, F.API_CAPTIVE), (8444, F.UNTRUSTED), (8445, F.WRONG_NAME)):
            config = net.config(api_url=f"https://{NAME}:{port}/api")
            async with open_pt(netns=net.device.netns, portal=config) as pt:
                with trio.fail_after(SOON):
                    state = await pt.portal.check()
                assert state.evidence[0].finding is finding
                assert state.kind is (PortalKind.PORTAL if finding is F.API_CAPTIVE else PortalKind.ONLINE)


async def test_what_networkd_keeps_of_a_link_is_its_resolver_and_its_api(lab: Lab, family: int, tmp_path: Path) -> None:
    async with captive(lab, family, tmp_path) as net:
        (net.folder / "api").write_text('{"captive": true, "user-portal-url": "https://portal.example/"}')
        links = tmp_path / "run/systemd/netif/links"
        links.mkdir(parents=True)
        url = f"https://{NAME}:8443/api"
        (links / str(net.wlan0.ifindex)).write_text(f"DNS={HONEST[family]}\nCAPTIVE_PORTAL={url}\n")
        config = attrs.evolve(net.config(resolver=None), hints={}, run_directory=tmp_path / "run")
        async with open_pt(netns=net.device.netns, portal=config) as pt:
            with trio.fail_after(SOON):
                state = await pt.portal.check()
            assert (state.kind, state.url) == (PortalKind.PORTAL, "https://portal.example/")
            said_by = next(one for one in state.evidence if one.question is Question.API)
            assert (said_by.endpoint, said_by.resolver) == (url, ip_address(HONEST[family]))
            assert "systemd-networkd" in said_by.detail


@pytest.mark.slow  # starts the command three times
async def test_the_command_finds_a_portal_by_a_link_whose_resolver_it_is_told(
    lab: Lab, family: int, tmp_path: Path
) -> None:
    async with captive(lab, family, tmp_path) as net:
        api = f"https://{NAME}:8443/api"
        (net.folder / "api").write_text('{"captive": true}')

        async def asked(interface: str, port: int, *words: str) -> tuple[int, dict[str, Any]]:
            said = ["--json", "--interface", interface, "--resolver", HONEST[family], "--ca", str(tmp_path / "ca.pem")]
            words = (*said, "--endpoint", f"http://{NAME}:{port}/generate_204", *words)
            command = [sys.executable, "-m", "trio_routes", "portal", *words]
            process = net.device.start(command, stdout=subprocess.PIPE)
            assert process.stdout is not None
            with trio.fail_after(4 * SOON):  # Python has to start
                printed = b"".join([bytes(part) async for part in process.stdout])
                return await process.wait(), cast(dict[str, Any], json.loads(printed))

        for interface, port, words, status, finding in (
            ("wlan0", 8001, (), ExitStatus.PORTAL, F.REDIRECT),
            (str(net.wlan0.ifindex), 8000, (), ExitStatus.OK, F.PASSED),
            ("wlan0", 8000, ("--api", api), ExitStatus.PORTAL, F.PASSED),
        ):
            ended, told = await asked(interface, port, *words)
            (probe,) = (one for one in told["evidence"] if one["question"] == Question.HTTP_204.value)
            assert (ended, probe["finding"], probe["resolver"]) == (status, finding.value, HONEST[family])
            assert {link["ifname"] for link in told["links"]} == {"wlan0"}


_PLACE = {4: "198.18.0.7", 6: "2001:db8:18::7"}


async def test_two_links_of_which_one_is_captive_are_told_apart_by_bound_sockets(lab: Lab, family: int) -> None:
    """The endpoint's address is at both gateways, so only the link decides who answers."""
    net = lab.two_uplinks(nat=True, lte_metric=200, spare_gateway=True)
    assert net.spare_router is not None
    counts = {"wlan0": 0, "wwan0": 0, "spare": 0}

    async def serve(name: str, answer: bytes, stream: trio.SocketStream) -> None:
        counts[name] += 1
        await stream.receive_some()
        await stream.send_all(answer)

    ok = b"HTTP/1.1 204 No Content\r\n\r\n"
    to_login = b"HTTP/1.1 302 Found\r\nLocation: http://login.example/\r\nContent-Length: 0\r\n\r\n"
    host = _PLACE[family] if family == 4 else f"[{_PLACE[family]}]"
    config = PortalConfig(endpoints=[Endpoint(f"http://{host}/generate_204")])
    async with trio.open_nursery() as nursery:
        for router, name, answer in (
            (net.wifi_router, "wlan0", to_login),
            (net.lte_router, "wwan0", ok),
            (net.spare_router, "spare", ok),
        ):
            router.links["core0"].add_address(f"{_PLACE[family]}/{32 if family == 4 else 128}")
            await nursery.start(partial(trio.serve_listeners, partial(serve, name, answer), router.listen(80)))
        async with open_pt(netns=net.device.netns, portal=attrs.evolve(config, on_demand=True)) as pt:
            with trio.fail_after(SOON):
                state = await pt.portal.check()
            links = {link.name: link.families[family].kind for link in pt.portal.links.values()}
            assert (links["wlan0"], links["wwan0"], links["eth0"]) == (
                PortalKind.PORTAL,
                PortalKind.ONLINE,
                PortalKind.OFFLINE,  # no way out by it: not asked
            )
            assert state.kind is PortalKind.PORTAL  # the default path is the Wi-Fi
            assert counts == {"wlan0": 1, "wwan0": 1, "spare": 0}
        async with open_pt(netns=net.device.netns, portal=config) as pt:
            with pt.subscribe(PortalChanged) as events:
                if pt.portal.state.kind is not PortalKind.PORTAL:
                    await next_of(events, PortalChanged)
                asked = dict(counts)
                # One change of one gateway: one question by that link, none by the other.
                net.device.replace_route("default", via=net.spare_gateways[family], metric=100)
                changed = await next_of(events, PortalChanged, lambda event: event.state.kind is PortalKind.ONLINE)
                assert counts["spare"] == 1
                assert counts["wwan0"] == asked["wwan0"]
                # The default path moves to the other link, which is known: no question at all.
                before = dict(counts)
                net.device.delete_route("default", via=net.spare_gateways[family])
                await pt.wait_routable(_PLACE[family], device="wwan0")
                with trio.fail_after(SOON):
                    await pt.portal.wait_online()
                assert counts == before
                assert changed.state.evidence
        nursery.cancel_scope.cancel()


async def test_a_link_without_resolvers_of_its_own_is_told_so(lab: Lab, tmp_path: Path) -> None:
    async with captive(lab, 4, tmp_path) as net:
        config = attrs.evolve(net.config(resolver=None), hints={"wlan0": LinkHints(resolvers=["127.0.0.53"])})
        async with open_pt(netns=net.device.netns, portal=config) as pt:
            with trio.fail_after(SOON):
                state = await pt.portal.check()
            # The lab's host has no resolver either, so nothing is found, by nobody of the link's.
            assert state.kind is PortalKind.NO_DNS
            probes = [one for one in state.evidence if one.question in _PROBES]
            assert all(one.resolver is None and "the machine's resolver" in one.detail for one in probes)
            assert len(probes) == 3
