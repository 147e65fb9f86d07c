"""What a lookup is asked about: the fields of a flow that rules and tables look at."""

from __future__ import annotations

import attrs

from ..netlink import IPAddress


@attrs.frozen(slots=True)
class Query:
    """One question to the tables.

    Attributes:
      destination: Where to.
      source: The source address, where one is chosen already; a rule's `from` matches nothing before.
      oif: The device that the flow is bound to, as ifindex; 0 is none.
      iif: The device it came in by; 0 means that it is sent by this host (a rule's `iif lo`).
      protocol: IPPROTO_*; 0 where it is not said, as for `sport` and `dport`, the ports.
      strict: IPv6 only: a bound device is a condition, not a preference. True for a socket's own lookups
        (SO_BINDTODEVICE); RTM_GETROUTE is strict only when no source is given.
      any_source: The source need not be an address of this host (IP_TRANSPARENT).
      onlink_fallback: IPv4 only: with `oif` given and no route, the destination counts as on that link, as
        RTM_GETROUTE answers and as the kernel in fact sends.
    """

    destination: IPAddress
    source: IPAddress | None = None
    mark: int = 0
    oif: int = 0
    iif: int = 0
    tos: int = 0
    uid: int = 0
    protocol: int = 0
    sport: int = 0
    dport: int = 0
    strict: bool = False
    any_source: bool = False
    onlink_fallback: bool = True
