"""`pt.routes`: what applications see of the routing cache."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TypedDict, Unpack

import attrs

from .netlink import AF_INET, AF_INET6, IPAddress
from .routing import Address, Cache, Explanation, Link, Query, Resolution, Route, Rule, check_numbers, explain, resolve


class LookupArguments(TypedDict, total=False):
    """The optional arguments of `Routes.lookup`."""

    source: str | IPAddress | None
    mark: int
    oif: int | None
    iif: int | None
    tos: int
    uid: int | None
    ip_proto: int
    sport: int
    dport: int
    strict: bool


@attrs.frozen(eq=False)
class Routes:
    """A read-only view of the kernel's tables as they are now; iterates over every `Route` of every table."""

    _cache: Cache

    def lookup(
        self,
        destination: str | IPAddress,
        *,
        source: str | IPAddress | None = None,
        mark: int = 0,
        oif: int | None = None,
        iif: int | None = None,
        tos: int = 0,
        uid: int | None = None,
        ip_proto: int = 0,
        sport: int = 0,
        dport: int = 0,
        strict: bool = False,
    ) -> Resolution:
        """Tell which way a flow goes now, by policy rules and longest prefix. Not a checkpoint.

        Args:
          destination: Where to. The zone of a link-local one (``fe80::1%eth0``) is its `oif`, unless that is given.
          source: The source address, where one is chosen already; a rule's `from` matches nothing before.
          mark: The packet's mark (SO_MARK).
          oif: The device that the socket is bound to, as ifindex.
          iif: The device the packet came in by, as ifindex, of one that is forwarded; None is sent by this host.
          tos: The TOS byte or traffic class.
          uid: The user; None is 0.
          ip_proto: The protocol (IPPROTO_TCP), where rules select by it; 0 is not said.
          sport: The source port, likewise.
          dport: The destination port, likewise.
          strict: As the kernel looks up for a socket that is bound to `oif`, where IPv6 takes no other link and
            IPv4 does not fall back to "on that link"; otherwise as RTM_GETROUTE answers.

        Raises:
          ValueError: An address that is none, a source of the other family, the zone of no link, or a number that is
            out of its field's range.
          TypeError: An address or a number that is something else.
        """
        query = self._query(destination, source, mark, oif, iif, tos, uid, ip_proto, sport, dport, strict)
        return resolve(self._cache.state, query, self._cache.generation)

    def explain(self, destination: str | IPAddress, **as_lookup: Unpack[LookupArguments]) -> Explanation:
        """Look up as `lookup` does, and say which rules and routes were tried, and why each did not answer.

        Its `str()` is several lines for people. Not a checkpoint.

        Args:
          destination: Where to.
          **as_lookup: As for `lookup`.

        Raises:
          ValueError: As for `lookup`.
          TypeError: Likewise.
        """
        return explain(self._cache.state, self._query(destination, **as_lookup), self._cache.generation)

    def _query(  # noqa: PLR0917 -- by name it takes longer
        self,
        destination: str | IPAddress,
        source: str | IPAddress | None = None,
        mark: int = 0,
        oif: int | None = None,
        iif: int | None = None,
        tos: int = 0,
        uid: int | None = None,
        ip_proto: int = 0,
        sport: int = 0,
        dport: int = 0,
        strict: bool = False,
    ) -> Query:
        """Take what users give; see `lookup`."""
        to = _address("destination", destination)
        by = None
        if source is not None:
            by = _address("source", source)
            if by.version != to.version:
                raise ValueError(f"the source {by} is of another family than {to}")
        # Most give none, and a zero of any type does no harm.
        if not (mark == tos == ip_proto == sport == dport == 0 and oif is iif is uid is None):
            check_numbers(mark=mark, oif=oif, iif=iif, tos=tos, uid=uid, ip_proto=ip_proto, sport=sport, dport=dport)
        if oif is None and isinstance(to, IPv6Address) and to.scope_id is not None and _is_of_a_link(to):
            oif = self._link_named(to.scope_id)
        # By position, in the order of Query's fields: half a microsecond less than by name.
        return Query(to, by, mark, oif or 0, iif or 0, tos, uid or 0, ip_proto, sport, dport, strict, False, not strict)

    def _link_named(self, zone: str) -> int:
        for ifindex, link in self._cache.links.items():
            if zone in (link.name, str(ifindex)):
                return ifindex
        raise ValueError(f"there is no link {zone!r}")

    @property
    def links(self) -> Mapping[int, Link]:
        """The links by ifindex."""
        return self._cache.links

    @property
    def addresses(self) -> tuple[Address, ...]:
        """The addresses of all links."""
        return tuple(self._cache.addresses())

    @property
    def rules(self) -> Sequence[Rule]:
        """The policy rules in the order in which they are tried, IPv4 first."""
        return (*self._cache.rules(AF_INET), *self._cache.rules(AF_INET6))

    def __iter__(self) -> Iterator[Route]:
        return self._cache.routes()


# The same few addresses are asked for again and again, and to read one takes as long as half a lookup.
_read = lru_cache(maxsize=1024)(ip_address)


def _address(name: str, value: object) -> IPAddress:
    if isinstance(value, IPv4Address | IPv6Address):
        return value
    if isinstance(value, str):
        return _read(value)
    raise TypeError(f"{name} is an address, or the text of one, not {value!r}")


def _is_of_a_link(address: IPv6Address) -> bool:
    """Whether an address means something on one link only (__ipv6_addr_needs_scope_id)."""
    return address.is_link_local or (address.is_multicast and int(address) >> 112 & 0xF in (1, 2))
