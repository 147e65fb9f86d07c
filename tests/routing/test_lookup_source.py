"""The source that a lookup remembers for a route: forgotten when anything changes on which it depends."""

from __future__ import annotations

from ipaddress import ip_address

import attrs
import pytest

from trio_routes.netlink import IFA_F_DEPRECATED, IFA_F_SECONDARY, AddressMessage
from trio_routes.routing import Cache

from ._build import ETH0, ETH1, Host, hop

PEER, PEER6 = "8.8.8.8", "2001:4860::8"


@pytest.fixture
def host() -> Host:
    host = Host()
    host.address(ETH0, "10.0.0.5/24")
    host.address(ETH0, "2001:db8::5/64")
    host.add("0.0.0.0/0", hop(ETH0, "10.0.0.1"))
    host.add("::/0", hop(ETH0, "fe80::1"))
    return host


def source(host: Host, peer: str = PEER) -> str:
    return str(host.lookup(peer).source)


@attrs.frozen
class Told:
    """A message about an address of eth0."""

    address: str
    gone: bool = False
    flags: int = 0


CHANGES: dict[str, tuple[list[Told], str]] = {
    "it goes": ([Told("10.0.0.5/24", gone=True)], "None"),
    "another comes in its place": ([Told("10.0.0.6/24"), Told("10.0.0.5/24", gone=True)], "10.0.0.6"),
    "it becomes a secondary one": ([Told("10.0.0.6/24"), Told("10.0.0.5/24", flags=IFA_F_SECONDARY)], "10.0.0.6"),
}


@pytest.mark.parametrize(("told", "expected"), CHANGES.values(), ids=CHANGES)
def test_it_is_chosen_anew_when_an_address_changes(host: Host, told: list[Told], expected: str) -> None:
    assert source(host) == source(host) == "10.0.0.5"
    for each in told:
        host.address(ETH0, each.address, each.gone, each.flags)
    assert source(host) == expected


def test_a_route_by_the_same_link_to_another_gateway_has_its_own(host: Host) -> None:
    host.address(ETH0, "10.0.7.5/24")
    assert source(host) == "10.0.0.5"
    host.add("8.0.0.0/8", hop(ETH0, "10.0.7.1"))
    assert source(host) == "10.0.7.5"
    assert source(host, "9.9.9.9") == "10.0.0.5"


def test_a_route_without_an_address_on_its_link_takes_that_of_a_link_that_comes_and_goes() -> None:
    """Such a choice depends on the links too, and is not remembered."""
    host = Host()
    host.add("0.0.0.0/0", hop(ETH1, "10.0.1.1"))
    host.address(ETH0, "10.0.0.5/24")
    assert source(host) == "10.0.0.5"
    host.cache.state.links.pop(ETH0)  # the link alone, as while the messages of its going are on their way
    assert source(host) == "None"


def test_what_is_remembered_is_bounded(host: Host) -> None:
    for number in range(3000):
        host.add("8.0.0.0/8", hop(ETH0, "10.0.0.1"), priority=number)
        assert source(host) == "10.0.0.5"
        host.remove("8.0.0.0/8", hop(ETH0, "10.0.0.1"), priority=number)
    assert 0 < len(host.cache.state.addresses.chosen) <= 1024


def test_an_overlay_remembers_for_itself(host: Host) -> None:
    assert source(host) == "10.0.0.5"
    host.address(ETH0, "10.0.0.6/24")
    assert source(host) == "10.0.0.5"
    (entry,) = host.cache.addresses_of(ip_address("10.0.0.5"))
    overlay = host.cache.overlay()
    overlay.remove_address(entry, "gone")
    assert str(overlay.lookup(ip_address(PEER)).source) == "10.0.0.6"
    assert source(host) == "10.0.0.5"


def test_of_ipv6_it_is_chosen_among_the_addresses_that_are_there_now(host: Host) -> None:
    assert source(host, PEER6) == "2001:db8::5"
    host.address(ETH0, "2001:db8::6/64")
    host.address(ETH0, "2001:db8::5/64", flags=IFA_F_DEPRECATED)
    assert source(host, PEER6) == "2001:db8::6"
    host.address(ETH0, "2001:db8::6/64", gone=True)
    assert source(host, PEER6) == "2001:db8::5"
    host.address(ETH0, "2001:db8::5/64", gone=True)
    assert source(host, PEER6) == "None"


def test_ipv6_addresses_of_a_link_come_in_the_order_of_the_links_whoever_came_first() -> None:
    cache = Cache()
    for ifindex, text in ((ETH1, "2001:db8:1::5"), (ETH0, "2001:db8::5"), (ETH1, "2001:db8:1::6")):
        cache.apply_address(AddressMessage(10, ifindex, ip_address(text), 64), gone=False)
    found = [str(entry.address) for entry in cache.state.addresses.ipv6_by_link()]
    assert found == ["2001:db8::5", "2001:db8:1::5", "2001:db8:1::6"]
