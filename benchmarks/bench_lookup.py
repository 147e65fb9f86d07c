"""How long a lookup takes: in one table, by the rules with everything that a user gets, and explained.

The reference for one table is the least that a longest-prefix search in Python can be: for each prefix length, longest
first, one ``dict.get``. No namespace and no kernel: the tables are made here, of /24 to /16 in equal parts
and a default route.
"""

import random
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from ipaddress import IPv4Address, IPv6Address, ip_address

from benchmarks.table import Row, best_of
from trio_routes._routes import Routes
from trio_routes.netlink import (
    AF_INET,
    AF_INET6,
    RT_SCOPE_HOST,
    RTN_LOCAL,
    AddressMessage,
    LinkMessage,
    NextHop,
    RouteBody,
    RuleMessage,
)
from trio_routes.routing import Cache
from trio_routes.routing._query import Query
from trio_routes.routing._table_lookup import search_ipv4

NAME = "Lookups"
SIZES = {"1 k": 1_000, "100 k": 100_000, "1 M": 1_000_000}
LENGTHS = (24, 23, 22, 20, 16)
ASKED = 1_000
ROUNDS = 300
_UP = 0x10043  # IFF_UP, IFF_BROADCAST, IFF_LOWER_UP; IFF_RUNNING is 0x40


def run() -> Sequence[Row]:
    rows: list[Row] = []
    for name, size in SIZES.items():
        cache = host(size)
        asked = [random.Random(1).getrandbits(32) for _ in range(ASKED)]
        tables = cache.state.tables[AF_INET]
        queries = [Query(IPv4Address(address)) for address in asked]
        ways: dict[str, tuple[Callable[..., object], Sequence[object]]] = {
            "one dict per prefix length, the bare loop": (partial(bare_loop, bare_table(cache)), asked),
            "ours, longest prefix of one table": (tables.finder(254), asked),
            "ours, the route of one table by its tos and next hops": (partial(search_ipv4, cache.state, 254), queries),
        }
        rows += [Row(f"{name} routes: {way}", value) for way, value in side_by_side(ways).items()]
    routes = Routes(host(10))
    return [*rows, *public(routes)]


def public(routes: Routes) -> Sequence[Row]:
    ipv4, ipv6 = IPv4Address("8.8.8.8"), IPv6Address("2001:4860::8")
    own4, own6 = IPv4Address("10.0.0.5"), IPv6Address("2001:db8::5")
    calls: dict[str, Callable[[], object]] = {
        "lookup(), IPv4, source given, as a connection is judged": lambda: routes.lookup(ipv4, source=own4),
        "lookup(), IPv4, source chosen": lambda: routes.lookup(ipv4),
        "lookup(), IPv4, of text": lambda: routes.lookup("8.8.8.8"),
        "lookup(), IPv6, source given": lambda: routes.lookup(ipv6, source=own6),
        "lookup(), IPv6, source chosen": lambda: routes.lookup(ipv6),
        "explain(), IPv4, source given": lambda: routes.explain(ipv4, source=own4),
    }
    return [Row(name, best_of(call, repeats=3)) for name, call in calls.items()]


def side_by_side(ways: Mapping[str, tuple[Callable[..., object], Sequence[object]]]) -> dict[str, float]:
    """Return the seconds of one call of each function: the least of the means over its arguments.

    In turns, a millisecond each: what else this machine does then hits all of them alike.
    """
    least = dict.fromkeys(ways, float("inf"))
    for _ in range(ROUNDS):
        for name, (function, arguments) in ways.items():
            started = time.perf_counter()
            for argument in arguments:
                function(argument)
            least[name] = min(least[name], (time.perf_counter() - started) / len(arguments))
    return least


def bare_loop(lengths: Sequence[tuple[int, dict[int, RouteBody]]], address: int) -> RouteBody | None:
    for mask, routes in lengths:
        found = routes.get(address & mask)
        if found is not None:
            return found
    return None


def bare_table(cache: Cache) -> Sequence[tuple[int, dict[int, RouteBody]]]:
    table = {length: dict[int, RouteBody]() for length in (*LENGTHS, 0)}
    for route in cache.routes():
        if route.table == 254 and route.body.family == AF_INET:
            table[route.body.prefix_length][route.address] = route.body
    return [(((1 << length) - 1) << (32 - length), routes) for length, routes in table.items()]


def host(size: int) -> Cache:
    """A host with one uplink, the usual rules, and so many IPv4 routes besides."""
    cache = Cache()
    for family, rules in ((AF_INET, ((0, 255), (32766, 254), (32767, 253))), (AF_INET6, ((0, 255), (32766, 254)))):
        for priority, table in rules:
            cache.apply_rule(RuleMessage(family, priority, table), gone=False)
    cache.apply_link(LinkMessage(1, "lo", _UP | 0x48), gone=False)
    cache.apply_link(LinkMessage(2, "eth0", _UP | 0x40), gone=False)
    for family, address, length in (
        (AF_INET, "10.0.0.5", 24),
        (AF_INET6, "2001:db8::5", 64),
        (AF_INET6, "fe80::5", 64),
    ):
        own = ip_address(address)
        cache.apply_address(AddressMessage(family, 2, own, length), gone=False)
        local = RouteBody(family, 255, own.max_prefixlen, RTN_LOCAL, scope=RT_SCOPE_HOST, nexthops=(NextHop(2),))
        cache.add_route(int(own), local, 0)
    for family, gateway in ((AF_INET, "10.0.0.1"), (AF_INET6, "fe80::1")):
        way = NextHop(2, ip_address(gateway))
        cache.add_route(0, RouteBody(family, 254, 0, priority=100, nexthops=(way,)), 0)
    dice = random.Random(2)
    ways = [NextHop(2, IPv4Address(f"10.0.0.{number}")) for number in range(1, 17)]
    bodies = [RouteBody(AF_INET, 254, length, nexthops=(way,)) for length in LENGTHS for way in ways]
    for body in dice.choices(bodies, k=size):
        shift = 32 - body.prefix_length
        cache.state.tables[AF_INET].put((254, body.prefix_length, dice.getrandbits(32) >> shift << shift), (body,))
    cache.start_recording()
    return cache
