"""Random changes, as lines for `Ground.do`. Few prefixes, metrics and gateways, so that changes meet each other."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import TypeAlias

Step: TypeAlias = tuple[str, ...]

_TABLES = ("main", "main", "main", "100", "1000")
_PREFIXES = {
    4: ("default", "198.51.100.0/24", "198.51.100.0/25", "203.0.113.7/32", "10.0.1.0/24"),
    6: ("default", "2001:db8:f::/48", "2001:db8:f:1::/64", "2001:db8:1::/64", "2001:db8:f::7/128"),
}
_METRICS = {4: ("", "", " metric 10", " metric 20"), 6: ("", " metric 10", " metric 10", " metric 20")}
_RULES = (
    "fwmark 7 lookup 100",
    "iif d0 lookup 100",
    "oif d1 lookup 1000",
    "oif x1 lookup 100",
    "tos 0x10 prohibit",
    "goto 300",
    "nop",
    "lookup main suppress_prefixlength 0",
    "unreachable",
    "blackhole",
    "not fwmark 7 lookup 1000",
    "uidrange 0-10 lookup 100",
    "ipproto tcp dport 443 lookup 100",
    "lookup 1000",
    "iif lo lookup 1000",
    "fwmark 0x3/0x5 lookup 100",
    "lookup 1000 suppress_prefixlength 24",
)
# Of either family; what they select by is an address.
_ADDRESS_RULES = {
    4: ("from 10.0.0.0/24 lookup 100", "to 198.51.100.0/24 lookup 1000", "not from 10.0.1.0/24 lookup 100"),
    6: ("from 2001:db8:0::/64 lookup 100", "to 2001:db8:f::/48 lookup 1000", "not from 2001:db8:1::/64 lookup 100"),
}


class Changes:
    """Makes random steps.

    Args:
      random: Where the chance comes from.
    """

    def __init__(self, random: Random) -> None:
        self._random = random
        self._kinds: tuple[tuple[int, Callable[[], str]], ...] = (
            (30, self._route),
            (12, self._delete_route),
            (7, self._up_or_down),
            (6, self._carrier),
            (10, self._address),
            (6, self._rule),
            (8, self._nexthop),
            (5, self._sysctl),
            (2, self._plug),
            (2, self._rename),
            (2, self._mtu),
            (1, self._flush),
        )

    def step(self) -> Step:
        """A change, or a burst of them."""
        count = 1 if self._random.random() < 0.7 else self._random.randint(2, 8)
        lines = [self._change() for _ in range(count)]
        if self._random.random() < 0.04:
            lines = [self._change() for _ in range(12)]
            lines.insert(self._random.randrange(3), self._random.choice(("audit", "audit", "lose")))
        return tuple(lines)

    def _change(self) -> str:
        (kind,) = self._random.choices([kind for _, kind in self._kinds], [weight for weight, _ in self._kinds])
        return kind()

    def _one(self, *of: str) -> str:
        return self._random.choice(of)

    def _perhaps(self, chance: float, what: str) -> str:
        return f" {what}" if self._random.random() < chance else ""

    def _family(self) -> int:
        return self._random.choice((4, 6))

    def _link(self) -> int:
        return self._random.randrange(3)

    def _own(self, family: int, at: int) -> str:
        last = self._random.randint(10, 13)
        return f"10.0.{at}.{last}" if family == 4 else f"2001:db8:{at}::{last}"

    def _way(self, family: int) -> str:
        at, last = self._link(), self._random.randint(1, 2)
        return f"via 10.0.{at}.{last} dev d{at}" if family == 4 else f"via 2001:db8:{at}::{last} dev d{at}"

    def _ways(self, family: int) -> str:
        ways = sorted({self._way(family) for _ in range(self._random.randint(2, 3))})
        return " ".join(f"nexthop {way}" + self._perhaps(0.2, "weight 3") for way in ways)

    def _route(self) -> str:
        family = self._family()
        verb = self._one("add", "add", "replace", "append", "append", "prepend", "change")
        prefix, table = self._one(*_PREFIXES[family]), self._one(*_TABLES)
        choice = self._random.randrange(12)
        kind = options = ways = ""
        if choice < 5:
            ways = self._way(family)
        elif choice < 8:
            ways = self._ways(family)
        elif choice == 8:
            ways = f"dev d{self._link()}"
        elif choice == 9:
            ways = f"nhid {self._random.randint(1, 5) if family == 4 else self._random.randint(4, 9)}"
        elif choice == 10:
            kind = self._one("unreachable", "blackhole", "prohibit", "throw") + " "
        else:
            ways = self._way(family) + " onlink"
        options = self._one(*_METRICS[family])
        if kind == "":
            options += self._perhaps(0.12, f"src {self._own(family, self._link())}")
            options += self._perhaps(0.08, "mtu 1400") + self._perhaps(0.05, "proto 42")
        if family == 4:
            options += self._perhaps(0.08, "tos 0x10")
        else:
            options += self._perhaps(0.05, "pref high") + self._perhaps(0.03, "expires 1000")
            options += self._perhaps(0.04, f"from 2001:db8:{self._link()}::/64")
        return f"-{family} route {verb} {kind}{prefix} table {table}{options} {ways}".strip()

    def _delete_route(self) -> str:
        family = self._family()
        prefix, table = self._one(*_PREFIXES[family]), self._one(*_TABLES)
        rest = self._one("", "", self._one(*_METRICS[family]), f" {self._way(family)}", f" dev d{self._link()}")
        return f"-{family} route del {prefix} table {table}{rest}"

    def _up_or_down(self) -> str:
        link = "lo" if self._random.random() < 0.03 else f"{self._one('d', 'd', 'd', 'x')}{self._link()}"
        return f"link set {link} {self._one('up', 'up', 'down')}"

    def _carrier(self) -> str:
        return f"far link set p{self._link()} {self._one('up', 'up', 'down')}"

    def _address(self) -> str:
        family, at = self._family(), self._link()
        own = self._own(family, at)
        if family == 6:
            verb = self._one("add", "add", "del")
            rest = " nodad" + self._perhaps(0.1, "noprefixroute") if verb == "add" else ""
            return f"-6 addr {verb} {own}/64 dev d{at}{rest}"
        choice = self._random.randrange(10)
        if choice == 0:
            return f"addr flush dev d{at}"
        if choice == 1:
            return f"addr {self._one('add', 'del')} {own} peer 10.9.{at}.1/32 dev d{at}"
        return f"addr {self._one('add', 'add', 'del')} {own}/{self._one('24', '24', '25')} dev d{at}"

    def _rule(self) -> str:
        family = self._family()
        if self._random.random() < 0.03:
            return f"-{family} rule flush"
        what = f"pref {self._one('100', '200', '300')} {self._one(*_RULES, *_ADDRESS_RULES[family])}"
        return f"-{family} rule {self._one('add', 'add', 'del', 'del')} {what}"

    def _nexthop(self) -> str:
        number, verb = self._random.randint(1, 9), self._one("add", "replace", "del")
        if verb == "del":
            return f"nexthop del id {number}"
        if number == 9:
            return f"nexthop {verb} id 9 group {self._one('6/7', '6,3/7', '7', '4/6')}"
        if number == 8:
            return f"-6 nexthop {verb} id 8 {self._one(self._way(6), 'blackhole')}"
        if number in (6, 7):
            return f"-6 nexthop {verb} id {number} {self._way(6)}"
        if number == 5:
            return f"nexthop {verb} id 5 group {self._one('1/2', '1,3/2', '2', '3/4')}"
        if number == 4:
            return f"-6 nexthop {verb} id 4 {self._way(6)}"
        if number == 3:
            return f"nexthop {verb} id 3 {self._one(self._way(4), f'dev d{self._link()}', 'blackhole')}"
        return f"nexthop {verb} id {number} {self._way(4)}"

    def _sysctl(self) -> str:
        at, value = self._link(), self._random.randint(0, 1)
        return "sysctl " + self._one(
            f"net.ipv4.conf.{self._one('all', f'd{at}')}.ignore_routes_with_linkdown={value}",
            f"net.ipv6.conf.{self._one('all', f'd{at}')}.ignore_routes_with_linkdown={value}",
            f"net.ipv6.conf.d{at}.disable_ipv6={value}",
            f"net.ipv4.conf.{self._one('all', f'd{at}')}.promote_secondaries={value}",
            f"net.ipv4.conf.{self._one('all', f'd{at}')}.forwarding={value}",
            f"net.ipv6.conf.{self._one('all', f'd{at}')}.forwarding={value}",
            f"net.ipv6.conf.d{at}.keep_addr_on_down={value}",
            f"net.ipv6.conf.all.disable_ipv6={value}",
        )

    def _plug(self) -> str:
        at = self._link()
        return self._one(f"link del d{at}", f"plug d{at}", f"plug d{at}", f"plug d{at}")

    def _rename(self) -> str:
        at = self._link()
        return self._one(f"link set d{at} name x{at}", f"link set x{at} name d{at}", f"link set x{at} name d{at}")

    def _mtu(self) -> str:
        return f"link set d{self._link()} mtu {self._one('1500', '1300', '1500', '1200')}"

    def _flush(self) -> str:
        family = self._family()
        return f"-{family} route flush {self._one('table 100', 'proto 42', f'dev d{self._link()}')}"
