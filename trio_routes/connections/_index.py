"""The index: which connections a change can touch, so that the others cost it nothing.

    change                                  touches
    -------------------------------------   --------------------------------------------------------
    a route went, or changed                the connections that use it
    a route came, changed or came alive     the connections whose peer is inside its prefix
    a `local` route came or went            besides, those whose own address is inside its prefix
    a throw or source-specific route went   likewise by peer: it was in the way, and nobody used it
    a link changed                          those with a known or present next hop, or their address, on it
    an address came, went or changed        those that have it
    a neighbour failed, or recovered        those that it is the gateway of, or the peer
    rules, switches, a resync               all
    any IPv6 route changed                  those IPv6 connections that may use a stale route (rule J6)

Connections that depend on the same things are filed as one bundle: a server's hundred thousand
clients behind one default route are one entry under that route and one under its link.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple, TypeAlias, TypeVar

import attrs

from ..netlink import AF_INET, AF_INET6, RTN_ANYCAST, RTN_LOCAL, RTN_THROW, IPAddress, RouteBody

if TYPE_CHECKING:
    from ..routing import ChangeBatch, Resolution, RouteChange
    from ._connection import Connection, Record
    from ._judge import Hops

RouteKey: TypeAlias = tuple[int, int, int, int]
"""(family, table, destination, prefix length)."""

AddressKey: TypeAlias = tuple[int, int]
"""(4 or 6, the address as an integer): an address object's own hash is made of text, by a Python function."""

Touched: TypeAlias = tuple[Collection["Connection"], str]
"""Connections that a change can touch, and the cause in words."""

_K = TypeVar("_K")
_WIDTH = {AF_INET: 32, AF_INET6: 128}
_LOCAL_TYPES = (RTN_LOCAL, RTN_ANYCAST)


class Needs(NamedTuple):
    """What a connection's verdict depends on, besides the prefixes that its peer is in."""

    route: RouteKey | None
    links: tuple[int, ...]
    gateways: tuple[tuple[int, AddressKey], ...]
    local: AddressKey | None
    ipv6_routes: bool


def needs_of(
    resolution: Resolution, known: Hops, holders: Iterable[int], local: IPAddress | None, *, ipv6_routes: bool
) -> Needs:
    """Put together what a verdict was found from.

    Args:
      resolution: The lookup for the flow, now.
      known: The connection's known next hops.
      holders: The links that have its address.
      local: Its address.
      ipv6_routes: Whether any IPv6 route change may matter.
    """
    route = resolution.route
    body = route.body if route is not None else None
    links = {hop.ifindex for hop in resolution.hops}
    links.update(hop.ifindex for hop in known if hop.ifindex is not None)
    links.update(holders)
    return Needs(
        route=(body.family, body.table, route.address, body.prefix_length)
        if body is not None and route is not None
        else None,
        links=tuple(sorted(links)),
        gateways=tuple((hop.ifindex, _key(hop.gateway)) for hop in resolution.hops if hop.gateway is not None),
        local=_key(local) if local is not None else None,
        ipv6_routes=ipv6_routes,
    )


def _key(address: IPAddress) -> AddressKey:
    return address.version, int(address)


@attrs.define(eq=False)
class Bundle:
    """Connections that depend on the same things, and so have the same path: one value for them all.

    Attributes:
      needs: What they depend on.
      now: Their path, as the first of them was found to have it.
      known: The same of their known next hops.
      members: The connections. A dict serves as an ordered set, so that runs repeat.
    """

    needs: Needs
    now: Resolution
    known: Hops
    members: dict[Connection, None] = attrs.field(factory=dict["Connection", None])


class Peers:
    """The connections of one family, in the order of their peers' addresses.

    Two parallel lists, so that bisect compares integers only: 0.3 µs a search among 100 000. The serial number in
    the low bits makes each key unique, so that one of many connections to the same peer is found as fast.
    Inserting moves half of each list, some 20 µs at 100 000: a small part of what a connection costs.
    """

    _SERIAL_BITS = 64

    def __init__(self) -> None:
        self._keys: list[int] = []
        self._connections: list[Connection] = []
        self._serial = 0

    def __len__(self) -> int:
        return len(self._keys)

    def add(self, connection: Connection, peer: int) -> None:
        """Insert a connection; its place is noted in its record."""
        self._serial += 1
        place = peer << self._SERIAL_BITS | self._serial
        connection.record.place = place
        position = bisect_left(self._keys, place)
        self._keys.insert(position, place)
        self._connections.insert(position, connection)

    def remove(self, connection: Connection) -> None:
        """Take a connection out that was added."""
        position = bisect_left(self._keys, connection.record.place)
        del self._keys[position]
        del self._connections[position]

    def between(self, first: int, last: int) -> Collection[Connection]:
        """Those whose peers' addresses are from first to last, both included."""
        keys, end = self._keys, (last + 1) << self._SERIAL_BITS
        start = bisect_left(keys, first << self._SERIAL_BITS)
        if start == len(keys) or keys[start] >= end:
            return ()  # mostly; the second search is saved, which in a large list waits for memory
        return self._connections[start : bisect_left(keys, end, start)]


class Index:
    """Finds the connections that a change can touch."""

    def __init__(self) -> None:
        self._bundles: dict[Needs, Bundle] = {}
        self._by_route: dict[RouteKey, dict[Bundle, None]] = {}
        self._by_link: dict[int, dict[Bundle, None]] = {}
        self._by_gateway: dict[tuple[int, AddressKey], dict[Bundle, None]] = {}
        self._by_local: dict[AddressKey, dict[Bundle, None]] = {}
        self._by_ipv6_routes: dict[Bundle, None] = {}
        self._peers = {4: Peers(), 6: Peers()}

    def __len__(self) -> int:
        return sum(len(peers) for peers in self._peers.values())

    def __iter__(self) -> Iterator[Connection]:
        for bundle in self._bundles.values():
            yield from bundle.members

    def file(self, connection: Connection, needs: Needs) -> None:
        """File a connection, or file it elsewhere."""
        record = connection.record
        bundle = record.bundle
        if bundle is None:
            peer = connection.flow.peer
            assert peer is not None, "only judged connections are filed"
            self._peers[peer.version].add(connection, int(peer))
        elif bundle.needs == needs:
            _share(record, bundle)
            return
        else:
            self._leave(bundle, connection)
        bundle = self._bundles.get(needs)
        if bundle is None:
            bundle = self._bundles[needs] = Bundle(needs, record.now, record.known)
            self._enter_keys(bundle)
        bundle.members[connection] = None
        record.bundle = bundle
        _share(record, bundle)

    def remove(self, connection: Connection) -> None:
        """Take a connection out; one that is not filed is none."""
        bundle = connection.record.bundle
        if bundle is None:
            return
        peer = connection.flow.peer
        assert peer is not None
        self._peers[peer.version].remove(connection)
        self._leave(bundle, connection)
        connection.record.bundle = None

    def _leave(self, bundle: Bundle, connection: Connection) -> None:
        del bundle.members[connection]
        if not bundle.members:
            del self._bundles[bundle.needs]
            self._remove_keys(bundle)

    def _enter_keys(self, bundle: Bundle) -> None:
        needs = bundle.needs
        if needs.route is not None:
            self._by_route.setdefault(needs.route, {})[bundle] = None
        for ifindex in needs.links:
            self._by_link.setdefault(ifindex, {})[bundle] = None
        for gateway in needs.gateways:
            self._by_gateway.setdefault(gateway, {})[bundle] = None
        if needs.local is not None:
            self._by_local.setdefault(needs.local, {})[bundle] = None
        if needs.ipv6_routes:
            self._by_ipv6_routes[bundle] = None

    def _remove_keys(self, bundle: Bundle) -> None:
        needs = bundle.needs
        if needs.route is not None:
            _discard(self._by_route, needs.route, bundle)
        for ifindex in needs.links:
            _discard(self._by_link, ifindex, bundle)
        for gateway in needs.gateways:
            _discard(self._by_gateway, gateway, bundle)
        if needs.local is not None:
            _discard(self._by_local, needs.local, bundle)
        self._by_ipv6_routes.pop(bundle, None)

    def touched_by(self, batch: ChangeBatch) -> list[Touched]:
        """The groups of connections that a batch can touch, each with the cause; a connection may be in several.

        The groups with the most telling causes come last: a link that went explains the routes that went with it.
        """
        found: list[Touched] = []
        if not self._bundles:  # a pt that only watches the tables; a storm's changes are not looked at one by one
            return found
        if batch.everything or batch.resynced or batch.rules:
            cause = batch.rules[0].cause if batch.rules else "resync" if batch.resynced else "a kernel setting changed"
            found.append((list(self), cause))
        for neighbour in batch.neighbours:
            cause = f"neighbour {neighbour.address} {'failed' if neighbour.failed else 'is back'}"
            version, address = key = _key(neighbour.address)
            _add(found, self._by_gateway.get((neighbour.ifindex, key)), cause)
            found.append((self._peers[version].between(address, address), cause))
        for family, destination, prefix_length in batch.revived:
            found.append((self._peers_inside(family, destination, prefix_length), "a link came back"))
        for change in batch.routes:
            self._add_touched_by_route(found, change)
        for address_change in batch.addresses:
            state = address_change.new or address_change.old
            if state is not None:
                _add(found, self._by_local.get(_key(state.address)), address_change.cause)
        for link_change in batch.links:
            link = link_change.new or link_change.old
            if link is not None:
                _add(found, self._by_link.get(link.ifindex), link_change.cause)
        return found

    def _add_touched_by_route(self, found: list[Touched], change: RouteChange) -> None:
        # No generators: for a route that touches nobody they would take longer than what they do.
        old, new, destination, cause = change.old, change.new, change.destination, change.cause
        body = new or old
        if body is None:
            return
        if old is not None:
            _add(found, self._by_route.get((old.family, old.table, destination, old.prefix_length)), cause)
        if new is not None or _was_in_the_way(old):
            inside = self._peers_inside(body.family, destination, body.prefix_length)
            if inside:
                found.append((inside, cause))
        if body.type in _LOCAL_TYPES or (old is not None and old.type in _LOCAL_TYPES):
            for bundles in self._locals_inside(body.family, destination, body.prefix_length):
                _add(found, bundles, cause)
        if body.family == AF_INET6:
            _add(found, self._by_ipv6_routes, cause)

    def _peers_inside(self, family: int, destination: int, prefix_length: int) -> Collection[Connection]:
        peers = self._peers[4 if family == AF_INET else 6]
        return peers.between(destination, destination | (1 << (_WIDTH[family] - prefix_length)) - 1)

    def _locals_inside(self, family: int, destination: int, prefix_length: int) -> Iterator[dict[Bundle, None]]:
        shift = _WIDTH[family] - prefix_length
        version = 4 if family == AF_INET else 6
        if shift == 0:
            yield self._by_local.get((version, destination), {})
            return
        # Shorter ones (AnyIP) change rarely enough to walk through the addresses for them.
        for (other, address), bundles in self._by_local.items():
            if other == version and address >> shift == destination >> shift:
                yield bundles


def _share(record: Record, bundle: Bundle) -> None:
    """Replace a record's own copies by the bundle's where they are equal: that halves what a connection costs."""
    if record.now == bundle.now:
        if record.before is record.now:
            record.before = bundle.now
        record.now = bundle.now
    if record.known == bundle.known:
        if record.hops == bundle.known:
            record.hops = bundle.known
        record.known = bundle.known


def _was_in_the_way(old: RouteBody | None) -> bool:
    return old is not None and (old.type == RTN_THROW or bool(old.source_length))


def _add(found: list[Touched], bundles: dict[Bundle, None] | None, cause: str) -> None:
    if bundles:
        found += [(bundle.members, cause) for bundle in bundles]


def _discard(shelf: dict[_K, dict[Bundle, None]], key: _K, bundle: Bundle) -> None:
    bundles = shelf[key]
    del bundles[bundle]
    if not bundles:
        del shelf[key]
