"""`pt.routes`: what applications see of the routing cache."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from ipaddress import IPv6Address, ip_address
from typing import TypedDict, Unpack

import attrs

from .netlink import AF_INET, AF_INET6, IPAddress
from .routing import Address, Cache, Explanation, Link, Resolution, Route, Rule


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
          ValueError: An address that is none, a source of the other family, or the zone of no link.
        """
        to, by, device = self._asked(destination, source, oif)
        return self._cache.lookup(
            to,
            source=by,
            mark=mark,
            oif=device,
            iif=iif,
            tos=tos,
            uid=uid,
            ip_proto=ip_proto,
            sport=sport,
            dport=dport,
            strict=strict,
            onlink_fallback=not strict,
        )

    def explain(self, destination: str | IPAddress, **as_lookup: Unpack[LookupArguments]) -> Explanation:
        """Look up as `lookup` does, and say which rules and routes were tried, and why each did not answer.

        Its `str()` is several lines for people. Not a checkpoint.

        Args:
          destination: Where to.
          **as_lookup: As for `lookup`.

        Raises:
          ValueError: As for `lookup`.
        """
        to, by, device = self._asked(destination, as_lookup.get("source"), as_lookup.get("oif"))
        return self._cache.explain(
            to,
            source=by,
            mark=as_lookup.get("mark", 0),
            oif=device,
            iif=as_lookup.get("iif"),
            tos=as_lookup.get("tos", 0),
            uid=as_lookup.get("uid"),
            ip_proto=as_lookup.get("ip_proto", 0),
            sport=as_lookup.get("sport", 0),
            dport=as_lookup.get("dport", 0),
            strict=as_lookup.get("strict", False),
            onlink_fallback=not as_lookup.get("strict", False),
        )

    def _asked(
        self, destination: str | IPAddress, source: str | IPAddress | None, oif: int | None
    ) -> tuple[IPAddress, IPAddress | None, int | None]:
        to = _address(destination)
        by = None if source is None else _address(source)
        if by is not None and by.version != to.version:
            raise ValueError(f"the source {by} is of another family than {to}")
        if oif is None and isinstance(to, IPv6Address) and to.scope_id is not None and _is_of_a_link(to):
            oif = self._link_named(to.scope_id)
        return to, by, oif

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


def _address(value: str | IPAddress) -> IPAddress:
    return ip_address(value) if isinstance(value, str) else value


def _is_of_a_link(address: IPv6Address) -> bool:
    """Whether an address means something on one link only (__ipv6_addr_needs_scope_id)."""
    return address.is_link_local or (address.is_multicast and int(address) >> 112 & 0xF in (1, 2))
