"""Hosts, networks, links and addresses."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import cast

import pytest
import trio

from trio_routes import testing
from trio_routes._errors import KernelRefusedError


async def addresses_of(host: testing.Host, link: str) -> set[str]:
    listed = cast(list[dict[str, object]], json.loads(await host.run(["ip", "-json", "address", "show", "dev", link])))
    found = cast(list[dict[str, object]], listed[0]["addr_info"])
    return {f"{address['local']}/{address['prefixlen']}" for address in found}


async def flags_of(host: testing.Host, link: str) -> set[str]:
    listed = cast(list[dict[str, object]], json.loads(await host.run(["ip", "-json", "link", "show", "dev", link])))
    return set(cast(list[str], listed[0]["flags"]))


async def wait_for_flag(host: testing.Host, link: str, flag: str, *, present: bool) -> None:
    with trio.fail_after(5):
        while True:
            if (flag in await flags_of(host, link)) is present:
                return


async def test_a_new_host_has_its_loopback_up_and_nothing_else(lab: testing.Lab) -> None:
    host = lab.host("device")
    assert await addresses_of(host, "lo") == {"127.0.0.1/8", "::1/128"}
    assert len(json.loads(await host.run(["ip", "-json", "link"]))) == 1


async def test_two_hosts_on_one_network_reach_each_other(lab: testing.Lab, family: int) -> None:
    a, b = lab.host("a"), lab.host("b")
    wifi = lab.network("wifi")
    a.plug(wifi, name="wlan0", addresses=["192.0.2.1/24", "2001:db8::1/64"])
    b.plug(wifi, name="wlan0", addresses=["192.0.2.2/24", "2001:db8::2/64"])
    listeners = b.listen(80)
    with trio.fail_after(5):
        async with await a.open_tcp_stream({4: "192.0.2.2", 6: "2001:db8::2"}[family], 80) as stream:
            accepted = await listeners[family == 6].accept()
            await accepted.send_all(b"hello")
            assert await stream.receive_some() == b"hello"
            await accepted.aclose()
    for listener in listeners:
        await listener.aclose()


async def test_an_ipv6_address_is_usable_at_once(lab: testing.Lab) -> None:
    host = lab.host("a")
    link = host.plug(lab.network("wifi"), name="wlan0", addresses=["2001:db8::1/64"])
    listed = await host.run(["ip", "-6", "address", "show", "dev", "wlan0"])
    assert "tentative" not in listed
    assert "fe80::" in listed  # the link-local one too, which the kernel makes: accept_dad
    link.add_address("2001:db8::5/64")
    (listener,) = host.listen(0, "2001:db8::5")
    await listener.aclose()


async def test_a_link_knows_its_name_index_and_addresses(lab: testing.Lab) -> None:
    host = lab.host("a")
    link = host.plug(lab.network("wifi"), name="wlan0", addresses=["192.0.2.1/24"])
    listed = json.loads(await host.run(["ip", "-json", "link", "show", "dev", "wlan0"]))
    assert (link.name, link.ifindex) == (listed[0]["ifname"], listed[0]["ifindex"])
    assert host.links == {"wlan0": link}
    link.add_address("2001:db8::1/64")
    assert [str(address) for address in link.addresses] == ["192.0.2.1/24", "2001:db8::1/64"]
    assert await addresses_of(host, "wlan0") >= {"192.0.2.1/24", "2001:db8::1/64"}
    link.delete_address("192.0.2.1/24")
    assert [str(address) for address in link.addresses] == ["2001:db8::1/64"]
    assert "192.0.2.1/24" not in await addresses_of(host, "wlan0")


async def test_down_and_up(lab: testing.Lab) -> None:
    host = lab.host("a")
    link = host.plug(lab.network("wifi"), name="wlan0", addresses=["192.0.2.1/24", "2001:db8::1/64"])
    assert "UP" in await flags_of(host, "wlan0")
    link.down()
    assert "UP" not in await flags_of(host, "wlan0")
    assert await addresses_of(host, "wlan0") == {"192.0.2.1/24"}
    link.up()
    assert "UP" in await flags_of(host, "wlan0")


async def test_a_link_may_start_down(lab: testing.Lab) -> None:
    host = lab.host("a")
    host.plug(lab.network("wifi"), name="wlan0", up=False)
    assert "UP" not in await flags_of(host, "wlan0")


async def test_a_pulled_cable_takes_the_carrier_and_leaves_addresses_and_the_far_host(lab: testing.Lab) -> None:
    a, b = lab.host("a"), lab.host("b")
    wifi = lab.network("wifi")
    link = a.plug(wifi, name="wlan0", addresses=["192.0.2.1/24", "2001:db8::1/64"])
    b.plug(wifi, name="wlan0")
    await wait_for_flag(a, "wlan0", "LOWER_UP", present=True)
    before = await addresses_of(a, "wlan0")
    link.carrier(on=False)
    await wait_for_flag(a, "wlan0", "LOWER_UP", present=False)
    assert "UP" in await flags_of(a, "wlan0")
    assert await addresses_of(a, "wlan0") == before
    assert "LOWER_UP" in await flags_of(b, "wlan0")
    link.carrier(on=True)
    await wait_for_flag(a, "wlan0", "LOWER_UP", present=True)


async def test_a_deleted_link_is_gone_and_its_name_free(lab: testing.Lab) -> None:
    host = lab.host("a")
    wifi = lab.network("wifi")
    link = host.plug(wifi, name="wlan0")
    link.delete()
    assert host.links == {}
    for use in (link.up, link.down, link.delete, lambda: link.carrier(on=False)):
        with pytest.raises(trio.ClosedResourceError, match="wlan0"):
            use()
    host.plug(wifi, name="wlan0")


async def test_the_bridges_say_nothing(lab: testing.Lab) -> None:
    network = lab.network("wifi")
    with network.wires.namespace.entered():
        assert Path("/proc/thread-self/net/if_inet6").read_text() == ""


async def test_names_of_two_labs_never_clash(lab: testing.Lab) -> None:
    async with testing.Lab() as other:
        for each in (lab, other):
            each.host("a").plug(each.network("wifi"), name="wlan0", addresses=["192.0.2.1/24"])


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("a-name-too-long-", "16 bytes"),
        ("äöüäöüäö", "16 bytes"),
        ("", "empty"),
        ("..", "cannot be"),
        ("a/b", "slash"),
        ("a b", "space"),
    ],
)
async def test_a_name_that_no_link_can_have_is_refused(lab: testing.Lab, name: str, complaint: str) -> None:
    host, network = lab.host("a"), lab.network("wifi")
    with pytest.raises(ValueError, match=complaint):
        host.plug(network, name=name)
    host.plug(network, name="a-name-of-15-by")


async def test_names_are_given_once(lab: testing.Lab) -> None:
    host, network = lab.host("a"), lab.network("wifi")
    host.plug(network, name="wlan0")
    for name in ("wlan0", "lo"):
        with pytest.raises(ValueError, match=f"'a' has a link '{name}' already"):
            host.plug(network, name=name)
    with pytest.raises(ValueError, match="host 'a' already"):
        lab.host("a")
    with pytest.raises(ValueError, match="network 'wifi' already"):
        lab.network("wifi")


@pytest.mark.parametrize("address", ["192.0.2.1", "192.0.2.256/24", "192.0.2.1/33", "wifi", "2001:db8::1/129"])
async def test_an_address_that_does_not_parse_is_refused_and_leaves_no_link(lab: testing.Lab, address: str) -> None:
    host, network = lab.host("a"), lab.network("wifi")
    with pytest.raises(ValueError, match=address):
        host.plug(network, name="wlan0", addresses=["192.0.2.9/24", address])
    assert host.links == {}
    assert len(json.loads(await host.run(["ip", "-json", "link"]))) == 1


async def test_what_the_kernel_refuses_names_the_request(lab: testing.Lab) -> None:
    link = lab.host("a").plug(lab.network("wifi"), name="wlan0", addresses=["192.0.2.1/24"])
    with pytest.raises(KernelRefusedError, match=r"address 192\.0\.2\.1/24") as caught:
        link.add_address("192.0.2.1/24")
    assert caught.value.errno == errno.EEXIST
    with pytest.raises(KernelRefusedError) as caught:
        link.delete_address("192.0.2.5/24")
    assert caught.value.errno == errno.EADDRNOTAVAIL
