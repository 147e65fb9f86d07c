"""The cache against the kernel: random changes, and after each of them it equals a fresh dump and routes alike.

Left out of the generator are the cases in which only a re-dump is exact, or in which the dump itself is not
(docs/kernel.md): IPv6 routes with a preferred source whose address goes; groups of IPv6 siblings whose attributes
differ, and other routes of the metric of such a group; expiring routes; lowered MTUs.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from trio_routes import testing
from trio_routes.routing import FOUND_BY_DUMP

from ._kernel import assert_agrees, assert_exact, following, ip

LINKS = ("d0", "d1", "d2")
TABLES = ("main", "main", "main", "100", "101")
PREFIXES = {
    4: ("default", "198.51.100.0/24", "198.51.100.0/25", "203.0.113.7/32"),
    6: ("default", "2001:db8:f::/48", "2001:db8:f:1::/64"),
}
DESTINATIONS = ("198.51.100.1", "198.51.100.200", "203.0.113.7", "8.8.8.8", "10.0.1.99", "2001:db8:f::1", "2001:db9::1")


class Changes:
    """Random changes of a host with three links."""

    def __init__(self, host: testing.Host, links: list[testing.Link], seed: int) -> None:
        self.host = host
        self.links = links
        self.random = random.Random(seed)
        self.kinds: list[tuple[int, Callable[[], str]]] = [
            (14, self.route),
            (6, self.delete_route),
            (3, self.up_or_down),
            (3, self.carrier),
            (4, self.address),
            (3, self.rule),
            (2, self.nexthop),
            (1, self.switch),
            (1, self.ipv6),
            (1, self.unplug),
        ]

    def one(self) -> str:
        weights = [weight for weight, _ in self.kinds]
        kinds = [kind for _, kind in self.kinds]
        (kind,) = self.random.choices(kinds, weights)
        return kind()

    def ip(self, command: str) -> str:
        refused = ip(self.host, command)
        return f"ip {command}" + (f" ({refused})" if refused else "")

    def gateway(self, family: int) -> tuple[str, str]:
        at = self.random.randrange(3)
        last = self.random.randint(1, 3)
        return f"d{at}", f"10.0.{at}.{last}" if family == 4 else f"2001:db8:{at}::{last}"

    def way(self, family: int) -> str:
        """The rest of a route's command: where it leads, and its metric, which for IPv6 depends on what it is."""
        choice = self.random.randrange(10)
        device, via = self.gateway(family)
        if choice < 4:
            return f"via {via} dev {device} metric {self.random.choice((10, 20))}"
        if choice < 7:
            hops = " ".join(
                f"nexthop via {via} dev {device}" for device, via in {self.gateway(family) for _ in range(2)}
            )
            return f"metric {self.random.choice((10, 20))} {hops}"
        if choice == 7:
            return f"dev {device} metric {self.random.choice((30, 31))}"
        if choice == 8:
            return f"metric {self.random.choice((40, 41))} nhid {self.random.randint(1, 4)}"
        return "metric 50"

    def route(self) -> str:
        family = self.random.choice((4, 6))
        verb = self.random.choice(("add", "add", "replace", "append", "prepend", "change"))
        way = self.way(family)
        kind = self.random.choice(("unreachable", "blackhole", "prohibit", "throw")) if way == "metric 50" else ""
        tos = " tos 0x10" if family == 4 and self.random.random() < 0.1 else ""
        prefix, table = self.random.choice(PREFIXES[family]), self.random.choice(TABLES)
        return self.ip(f"-{family} route {verb} {kind} {prefix} table {table}{tos} {way}".replace("  ", " "))

    def delete_route(self) -> str:
        family = self.random.choice((4, 6))
        prefix, table = self.random.choice(PREFIXES[family]), self.random.choice(TABLES)
        rest = self.random.choice(("", "", f"metric {self.random.choice((10, 20, 30, 40))}", self.way(family)))
        return self.ip(f"-{family} route del {prefix} table {table} {rest}")

    def up_or_down(self) -> str:
        link = self.random.choice(self.links)
        if self.random.random() < 0.6:
            link.up()
            return f"{link.name} up"
        link.down()
        return f"{link.name} down"

    def carrier(self) -> str:
        link = self.random.choice(self.links)
        on = self.random.random() < 0.6
        link.carrier(on)
        return f"{link.name} carrier {on}"

    def address(self) -> str:
        at, last = self.random.randrange(3), self.random.randint(10, 12)
        if self.random.random() < 0.4:
            return self.ip(f"-6 addr {self.random.choice(('add', 'del'))} 2001:db8:{at}::{last}/64 dev d{at} nodad")
        return self.ip(f"addr {self.random.choice(('add', 'add', 'del'))} 10.0.{at}.{last}/24 dev d{at}")

    def rule(self) -> str:
        family, priority = self.random.choice((4, 6)), self.random.choice((100, 200, 300))
        what = self.random.choice(
            ("fwmark 7 lookup 100", "iif d0 lookup 101", "oif d9 lookup 100", "tos 0x10 prohibit", "goto 300", "nop")
        )
        return self.ip(f"-{family} rule {self.random.choice(('add', 'add', 'del'))} pref {priority} {what}")

    def nexthop(self) -> str:
        number = self.random.randint(1, 4)
        if number == 4:
            return self.ip(f"nexthop {self.random.choice(('add', 'replace', 'del'))} id 4 group 1/2")
        if self.random.random() < 0.3:
            return self.ip(f"nexthop del id {number}")
        device, via = self.gateway(4)
        return self.ip(f"nexthop {self.random.choice(('add', 'replace'))} id {number} via {via} dev {device}")

    def switch(self) -> str:
        name = f"net.ipv4.conf.{self.random.choice(('d0', 'd1', 'all'))}.ignore_routes_with_linkdown"
        value = self.random.randint(0, 1)
        self.host.sysctl(name, value)
        return f"{name}={value}"

    def ipv6(self) -> str:
        name, value = f"net.ipv6.conf.{self.random.choice(LINKS)}.disable_ipv6", self.random.randint(0, 1)
        self.host.sysctl(name, value)
        return f"{name}={value}"

    def unplug(self) -> str:
        at = self.random.randrange(3)
        network = self.links[at].network
        self.links[at].delete()
        self.links[at] = plug(self.host, network, at)
        return f"{LINKS[at]} deleted and made again"


def plug(host: testing.Host, network: testing.Network, at: int) -> testing.Link:
    return host.plug(network, name=LINKS[at], addresses=[f"10.0.{at}.10/24", f"2001:db8:{at}::10/64"])


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_after_every_random_change_the_cache_equals_a_fresh_dump(lab: testing.Lab, seed: int) -> None:
    host = lab.host("device")
    links = [plug(host, lab.network(f"n{at}"), at) for at in range(3)]
    changes = Changes(host, links, seed)
    done: list[str] = []
    async with following(host) as followed:
        try:
            for _ in range(100):
                done.append(changes.one())
                await assert_exact(followed, host, done[-1])
                for destination in DESTINATIONS:
                    assert_agrees(followed, host, destination, done[-1])
                # No dump had to help: what the cache knew, it knew from the notifications and what they imply.
                found = [
                    change for batch in followed.batches for change in batch.routes if change.cause == FOUND_BY_DUMP
                ]
                assert not found
        except AssertionError as error:
            error.add_note(f"seed {seed}; the last changes:\n" + "\n".join(done[-25:]))
            raise
        assert followed.follower.statistics.resyncs == 0
