"""`pt.routes`: what applications see of the routing cache."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from ipaddress import ip_address
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
          destination: Where to.
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
          ValueError: An address that is none.
        """
        return self._cache.lookup(
            _address(destination),
            source=None if source is None else _address(source),
            mark=mark,
            oif=oif,
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
          ValueError: An address that is none.
        """
        source = as_lookup.get("source")
        return self._cache.explain(
            _address(destination),
            source=None if source is None else _address(source),
            mark=as_lookup.get("mark", 0),
            oif=as_lookup.get("oif"),
            iif=as_lookup.get("iif"),
            tos=as_lookup.get("tos", 0),
            uid=as_lookup.get("uid"),
            ip_proto=as_lookup.get("ip_proto", 0),
            sport=as_lookup.get("sport", 0),
            dport=as_lookup.get("dport", 0),
            strict=as_lookup.get("strict", False),
            onlink_fallback=not as_lookup.get("strict", False),
        )

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
