"""``trio-routes routes``: the routing cache, as ``ip route show table all`` prints the kernel's tables."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable

import trio

from ..netlink import AF_INET
from ..routing import Cache, Route
from ._arguments import add_family, add_json, unsigned32
from ._iproute_json import JsonObject, route_as_json
from ._iproute_text import TABLES, route_text
from ._status import ExitStatus
from ._tables import names_in, read_cache

_NUMBERS = {name: int(number) for number, name in TABLES.items()}


def table(text: str) -> int | None:
    """Read a table: a number, "main", "local" or "default"; "all" is None."""
    if text == "all":
        return None
    try:
        return _NUMBERS[text] if text in _NUMBERS else unsigned32(text)
    except argparse.ArgumentTypeError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no table: give its number, main, local, default or all"
        ) from None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.description = "Print the routes of all tables, as trio_routes read them from the kernel."
    add_json(parser, "print an array with the keys and values of `ip -j -d -N route show table all`")
    add_family(parser)
    parser.add_argument("--table", type=table, metavar="N|all", help="only this table (default: all)")


def run(arguments: argparse.Namespace) -> int:
    """Print the routes."""
    cache = trio.run(read_cache)
    forms = routes_as_json(cache, arguments.table, arguments.family)
    if arguments.json:
        # An array as of ip(8), and yet a line for each route.
        print("[" + ",\n ".join(map(json.dumps, forms)) + "]")
    else:
        for form in forms:
            print(route_text(form))
    return ExitStatus.OK


def routes_as_json(cache: Cache, table_number: int | None = None, version: int | None = None) -> Iterable[JsonObject]:
    """Yield the routes of a cache in iproute2's form: IPv4 first, by table, by destination.

    Args:
      cache: The tables.
      table_number: Only this table; None is all of them.
      version: Only IPv4 (4) or IPv6 (6); None is both.
    """
    chosen = [
        route
        for route in cache.routes()
        if table_number in (None, route.table) and version in (None, 4 if route.body.family == AF_INET else 6)
    ]
    chosen.sort(key=_place)  # stable: routes of one prefix stay in the order in which the kernel tries them
    name_of = names_in(cache)
    return (route_as_json(route, name_of, cache) for route in chosen)


def _place(route: Route) -> tuple[bool, int, int, int]:
    return route.body.family != AF_INET, route.table, route.address, route.body.prefix_length
