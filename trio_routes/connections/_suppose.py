"""Suppositions: what is to be taken as gone, in words or as the thing itself, taken away from an overlay.

    link NAME down                      it was set down
    link NAME without carrier           its cable was pulled
    link NAME gone                      it was removed
    address ADDRESS [dev NAME] gone
    route PREFIX [via GATEWAY] [dev NAME] [metric N] [table N] gone

PREFIX may be `default`. Every route or address that fits goes, of both families and all tables, so
`route default dev wlan0 gone` takes an interface's default routes away.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_address, ip_network
from typing import TypeAlias

from .._events import AddressRemoved, LinkDown, RouteRemoved
from ..routing import Address, IPNetwork, Link, Overlay, Route

Change: TypeAlias = str | Route | Link | Address | RouteRemoved | LinkDown | AddressRemoved
"""What is supposed to go: words as "link wlan0 down", the thing itself, or the event of such a thing that went."""

_DEFAULTS = (ip_network("0.0.0.0/0"), ip_network("::/0"))


def suppose(overlay: Overlay, change: Change) -> str:
    """Take away from an overlay what a change says.

    Returns:
      The supposition in words.

    Raises:
      ValueError: The words are none of the above, or it names nothing that is there.
      TypeError: It is no such thing.
    """
    match change:
        case str():
            return _suppose_words(overlay, change)
        case LinkDown(link=link):
            # Told of a link as it is: down, or without carrier only; of one that was removed, as it last was.
            how = "without carrier" if link.up and not link.carrier else "down"
            return _link_goes(overlay, _number_of(overlay, link), how)
        case Link():
            return _link_goes(overlay, _number_of(overlay, change), "gone")
        case Address() | AddressRemoved():
            address = change.address if isinstance(change, AddressRemoved) else change
            return _addresses_go(overlay, [address], f"address {address.address} gone")
        case Route() | RouteRemoved():
            route = change.route if isinstance(change, RouteRemoved) else change
            return _routes_go(overlay, [route], f"route {route} gone")
        case _:
            raise TypeError(f"words, a route, a link, an address or the event of one that went, not {change!r}")


def _suppose_words(overlay: Overlay, words: str) -> str:
    match words.split():
        case ["link", name, *how] if " ".join(how) in _LINK_GOES:
            return _link_goes(overlay, _ifindex(overlay, name), " ".join(how))
        case ["address", address, *options, "gone"]:
            return _addresses_go(overlay, _addresses(overlay, address, _pairs(options, words, "dev")), words)
        case ["route", prefix, *options, "gone"]:
            pairs = _pairs(options, words, "via", "dev", "metric", "table")
            return _routes_go(overlay, _routes(overlay, prefix, pairs), words)
        case _:
            raise ValueError(
                f"what is supposed to happen? {words!r} is none of: link NAME down | without carrier | gone; "
                "address ADDRESS [dev NAME] gone; route PREFIX [via GATEWAY] [dev NAME] [metric N] [table N] gone"
            )


def _pairs(options: list[str], words: str, *known: str) -> dict[str, str]:
    names, values = options[::2], options[1::2]
    if len(names) != len(values) or not set(names) <= set(known) or len(set(names)) != len(names):
        raise ValueError(f"{words!r}: only {', '.join(known)} may stand there, each once and with its value")
    return dict(zip(names, values, strict=True))


# ---- links -------------------------------------------------------------------------------------

_LINK_GOES = {
    "down": (Overlay.set_down, "set down"),
    "without carrier": (Overlay.lose_carrier, "without carrier"),
    "gone": (Overlay.remove_link, "removed"),
}


def _link_goes(overlay: Overlay, ifindex: int, how: str) -> str:
    take_away, words = _LINK_GOES[how]
    name = overlay.links[ifindex].name
    take_away(overlay, ifindex, f"if link {name} were {words}")
    return f"link {name} {how}"


def _number_of(overlay: Overlay, link: Link) -> int:
    """The number of a link that is given itself, whatever its name is now; one that was made anew has another number."""
    return link.ifindex if link.ifindex in overlay.links else _ifindex(overlay, link.name)


def _ifindex(overlay: Overlay, name: str) -> int:
    found = next((link.ifindex for link in overlay.links.values() if link.name == name), None)
    if found is None:
        raise ValueError(f"there is no link {name!r}")
    return found


# ---- addresses ---------------------------------------------------------------------------------


def _addresses(overlay: Overlay, text: str, options: dict[str, str]) -> list[Address]:
    found = overlay.addresses_of(ip_address(text))
    if "dev" in options:
        ifindex = _ifindex(overlay, options["dev"])
        found = tuple(address for address in found if address.ifindex == ifindex)
    return list(found)


def _addresses_go(overlay: Overlay, addresses: list[Address], words: str) -> str:
    if not addresses or any(address not in overlay.addresses_of(address.address) for address in addresses):
        raise ValueError(f"{words}: there is no such address")
    for address in addresses:
        overlay.remove_address(address, f"if address {address.address} were removed")
    return words


# ---- routes ------------------------------------------------------------------------------------


def _routes(overlay: Overlay, prefix: str, options: dict[str, str]) -> list[Route]:
    prefixes: Iterable[IPNetwork] = _DEFAULTS if prefix == "default" else (ip_network(prefix),)
    ifindex = _ifindex(overlay, options["dev"]) if "dev" in options else None
    gateway = ip_address(options["via"]) if "via" in options else None
    metric, table = (int(options[name]) if name in options else None for name in ("metric", "table"))
    return [
        route
        for network in prefixes
        for route in overlay.routes_of(network)
        if metric in (None, route.metric)
        and table in (None, route.table)
        and (
            (ifindex is None and gateway is None)
            or any(ifindex in (None, hop.ifindex) and gateway in (None, hop.gateway) for hop in overlay.ways_of(route))
        )
    ]


def _routes_go(overlay: Overlay, routes: list[Route], words: str) -> str:
    if not routes or not all(overlay.has_route(route) for route in routes):
        raise ValueError(f"{words}: there is no such route")
    for route in routes:
        overlay.remove_route(route, f"if route {route.destination} were removed")
    return words
