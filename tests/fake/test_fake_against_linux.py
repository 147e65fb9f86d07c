"""The fake kernel against the real one: the same operations, and every message and table compared, in order.

A real kernel tells of carrier from a worker, up to a second later; so each step waits until all was said that the
fake kernel says, three seconds at most.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import closing
from typing import Literal, Protocol, TypeAlias

import attrs
import pytest
import trio

from tests.fake._hearing import Hearing
from trio_routes import testing
from trio_routes.netlink import LinuxKernel

How: TypeAlias = Literal["add", "replace", "delete"]


class AnyLink(Protocol):
    """What a script does to a link, of either world."""

    def up(self) -> None: ...
    def down(self) -> None: ...
    def carrier(self, on: bool) -> None: ...
    def add_address(self, address: str) -> None: ...
    def delete_address(self, address: str) -> None: ...
    def delete(self) -> None: ...


class World(Protocol):
    """What a script works on."""

    def plug(self, name: str) -> AnyLink: ...
    def route(self, how: How, to: str, nexthops: tuple[str, ...], **options: object) -> None: ...
    def rule(self, how: Literal["add", "delete"], table: int, source: str) -> None: ...


@attrs.define
class FakeLinkHere:
    link: testing.FakeLink

    def up(self) -> None:
        self.link.set_up()

    def down(self) -> None:
        self.link.set_down()

    def carrier(self, on: bool) -> None:
        self.link.set_carrier(on)

    def add_address(self, address: str) -> None:
        self.link.add_address(address)

    def delete_address(self, address: str) -> None:
        self.link.delete_address(address)

    def delete(self) -> None:
        self.link.delete()


@attrs.define
class FakeWorld:
    kernel: testing.FakeKernel

    def plug(self, name: str) -> AnyLink:
        return FakeLinkHere(self.kernel.add_link(name))

    def route(self, how: How, to: str, nexthops: tuple[str, ...], **options: object) -> None:
        if nexthops:
            options["nexthops"] = nexthops
        getattr(self.kernel, f"{how}_route")(to, **options)

    def rule(self, how: Literal["add", "delete"], table: int, source: str) -> None:
        if how == "add":
            self.kernel.add_rule(source=source, table=table, priority=1000)
        else:
            self.kernel.delete_rule(next(rule for rule in self.kernel.rules() if rule.table == table))


@attrs.define
class RealLinkHere:
    link: testing.Link

    def up(self) -> None:
        self.link.up()

    def down(self) -> None:
        self.link.down()

    def carrier(self, on: bool) -> None:
        self.link.carrier(on)

    def add_address(self, address: str) -> None:
        self.link.add_address(address)

    def delete_address(self, address: str) -> None:
        self.link.delete_address(address)

    def delete(self) -> None:
        self.link.delete()


@attrs.define
class RealWorld:
    lab: testing.Lab
    host: testing.Host

    def plug(self, name: str) -> AnyLink:
        return RealLinkHere(self.host.plug(self.lab.network(f"net-{name}"), name=name))

    def route(self, how: How, to: str, nexthops: tuple[str, ...], **options: object) -> None:
        if nexthops:
            options["nexthops"] = [testing.Hop(via=gateway) for gateway in nexthops]
        getattr(self.host, f"{how}_route")(to, **options)

    def rule(self, how: Literal["add", "delete"], table: int, source: str) -> None:
        getattr(self.host, f"{how}_rule")(1000, source=source, table=table)


Step: TypeAlias = Callable[[World, dict[str, AnyLink]], None]


def step(name: str, *arguments: object) -> Step:
    """One call of a method of a link."""

    def do(world: World, links: dict[str, AnyLink]) -> None:
        link, method = name.split(".")
        getattr(links[link], method)(*arguments)

    do.__name__ = f"{name}{arguments}"
    return do


def plug(name: str) -> Step:
    def do(world: World, links: dict[str, AnyLink]) -> None:
        links[name] = world.plug(name)

    do.__name__ = f"plug {name}"
    return do


def route(how: How, to: str, *, nexthops: tuple[str, ...] = (), **options: object) -> Step:
    def do(world: World, links: dict[str, AnyLink]) -> None:
        world.route(how, to, nexthops, **options)

    do.__name__ = f"{how} {to} {options}"
    return do


def rule(how: Literal["add", "delete"], table: int, source: str) -> Step:
    def do(world: World, links: dict[str, AnyLink]) -> None:
        world.rule(how, table, source)

    do.__name__ = f"{how} rule {source}"
    return do


TWO_LINKS = (
    plug("wlan0"),
    step("wlan0.add_address", "192.0.2.2/24"),
    step("wlan0.add_address", "2001:db8::2/64"),
    plug("eth0"),
    step("eth0.add_address", "198.51.100.2/24"),
    step("eth0.add_address", "2001:db8:1::2/64"),
)

SCRIPTS: Mapping[str, tuple[Step, ...]] = {
    "routes come and go": (
        *TWO_LINKS,
        route("add", "default", via="192.0.2.1"),
        route("add", "default", via="2001:db8::1"),
        route("add", "default", via="198.51.100.1", metric=100),
        route("add", "203.0.113.0/24", via="192.0.2.1", metric=5),
        route("add", "203.0.113.0/24", via="192.0.2.1", metric=7, table=100),
        route("replace", "203.0.113.0/24", via="192.0.2.3", metric=5),
        route("replace", "203.0.113.0/24", via="192.0.2.3", metric=5),
        route("replace", "203.0.114.0/24", via="192.0.2.3"),
        route("add", "203.0.115.0/24", type="unreachable"),
        route("add", "203.0.116.0/24", type="blackhole"),
        route("add", "203.0.117.9", device="wlan0"),
        route("add", "2001:db8:5::/48", type="unreachable"),
        route("add", "2001:db8:6::/48", via="2001:db8::5"),
        route("replace", "2001:db8:6::/48", via="2001:db8::6"),
        route("replace", "2001:db8:6::/48", via="2001:db8::6"),
        route("replace", "2001:db8:7::/48", via="2001:db8::6"),
        route("delete", "203.0.113.0/24", via="192.0.2.3"),
        route("delete", "203.0.115.0/24"),
        route("delete", "default", via="192.0.2.1"),
        route("delete", "default", via="2001:db8::1"),
        rule("add", 100, "192.0.2.2/32"),
        rule("delete", 100, "192.0.2.2/32"),
    ),
    "a link goes down and up": (
        *TWO_LINKS,
        route("add", "default", via="192.0.2.1"),
        route("add", "default", via="2001:db8::1"),
        route("add", "203.0.113.0/24", via="192.0.2.1", table=100),
        step("wlan0.down"),
        step("wlan0.up"),
    ),
    "a link with members of multipath routes goes down and up": (
        *TWO_LINKS,
        route("add", "default", nexthops=("192.0.2.1", "198.51.100.1")),
        route("add", "default", nexthops=("2001:db8::1", "2001:db8:1::1")),
        step("wlan0.down"),
        step("wlan0.up"),
        step("wlan0.down"),
        step("eth0.down"),
    ),
    "a link is deleted": (
        *TWO_LINKS,
        route("add", "default", via="192.0.2.1"),
        route("add", "default", via="2001:db8::1"),
        step("wlan0.delete"),
        step("eth0.down"),
        step("eth0.delete"),
    ),
    "a link with members of multipath routes is deleted": (
        *TWO_LINKS,
        route("add", "default", nexthops=("192.0.2.1", "198.51.100.1")),
        route("add", "default", nexthops=("2001:db8::1", "2001:db8:1::1")),
        step("wlan0.delete"),
    ),
    "carrier is lost and returns": (
        *TWO_LINKS,
        route("add", "default", nexthops=("192.0.2.1", "198.51.100.1")),
        route("add", "203.0.113.0/24", via="192.0.2.1"),
        route("add", "2001:db8:6::/48", via="2001:db8::5"),
        step("wlan0.carrier", False),
        step("wlan0.carrier", True),
    ),
    "addresses come and go": (
        *TWO_LINKS,
        step("wlan0.add_address", "192.0.2.5/24"),
        step("wlan0.delete_address", "192.0.2.5/24"),
        step("wlan0.add_address", "192.0.2.5/24"),
        step("wlan0.add_address", "203.0.113.2/32"),
        step("wlan0.add_address", "203.0.114.2/31"),
        step("wlan0.delete_address", "192.0.2.2/24"),
        step("wlan0.add_address", "2001:db8::3/64"),
        step("wlan0.delete_address", "2001:db8::2/64"),
        step("wlan0.delete_address", "2001:db8::3/64"),
        step("wlan0.add_address", "2001:db8:2::9/128"),
        step("wlan0.delete_address", "2001:db8:2::9/128"),
    ),
    "the last IPv4 address goes and one returns": (
        *TWO_LINKS,
        route("add", "default", nexthops=("192.0.2.1", "198.51.100.1")),
        route("add", "203.0.113.0/24", via="192.0.2.1"),
        step("wlan0.delete_address", "192.0.2.2/24"),
        step("wlan0.add_address", "192.0.2.2/24"),
    ),
    "a preferred source goes": (
        *TWO_LINKS,
        step("wlan0.add_address", "10.0.0.2/24"),
        step("wlan0.add_address", "2001:db8:2::2/64"),
        route("add", "203.0.113.0/24", via="192.0.2.1", source="10.0.0.2"),
        route("add", "203.0.114.0/24", via="192.0.2.1", source="10.0.0.2", table=100),
        route("add", "2001:db8:9::/48", via="2001:db8::1", source="2001:db8:2::2"),
        step("wlan0.delete_address", "10.0.0.2/24"),
        step("wlan0.delete_address", "2001:db8:2::2/64"),
    ),
    "a route takes the place of one of its kind": (
        *TWO_LINKS,
        route("replace", "fe80::/64", via="2001:db8::5", metric=256),
        route("replace", "fe80::/64", device="eth0", metric=256),
        route("replace", "fe80::/64", via="2001:db8:1::5", metric=256),
    ),
    "a sibling goes": (
        *TWO_LINKS,
        route("add", "default", nexthops=("2001:db8::1", "2001:db8:1::1")),
        route("delete", "default", via="2001:db8::1"),
    ),
}


def in_order(lines: list[str]) -> list[str]:
    """What was said, without a link's second "I am up": the worker that says it runs beside the address's own."""
    return [line for index, line in enumerate(lines) if not (line.startswith("NEWLINK") and line in lines[:index])]


@pytest.mark.netns
@pytest.mark.parametrize("script", SCRIPTS.values(), ids=SCRIPTS)
async def test_says_and_shows_what_linux_says_and_shows(script: tuple[Step, ...], lab: testing.Lab) -> None:
    kernel = testing.FakeKernel()
    fake, fake_links = Hearing.of(kernel.open_netlink()), dict[str, AnyLink]()
    host = lab.host("host")
    with closing(LinuxKernel(host.netns)) as linux, closing(linux.open_netlink()) as socket:
        real, real_links = Hearing.of(socket), dict[str, AnyLink]()
        fake_world, real_world = FakeWorld(kernel), RealWorld(lab, host)
        for each in script:
            each(fake_world, fake_links)
            each(real_world, real_links)
            expected = fake.heard()
            said: list[str] = real.heard()
            with trio.move_on_after(3):
                while sorted(said) != sorted(expected):
                    await real.socket.wait_readable()
                    said += real.heard()
            assert in_order(said) == in_order(expected), each.__name__
            assert real.state() == fake.state(), each.__name__
