"""What routers said of a link in their advertisements: the captive portal API's URL (RFC 8910 §2.3), resolvers (RFC 8106).

An option 37 has no lifetime, so what it said is kept until the link, the router that said it, or the default route by that
router goes. Every advertisement repeats it: only what differs is news. The network writes it: a URL that cannot be one is
dropped here, and `https` is asked for before it is used.

Nothing comes of links that systemd-networkd or NetworkManager run: they set accept_ra=0 and take advertisements
themselves (both run and measured).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from ipaddress import IPv6Address

import attrs

from ..netlink import ICMPV6_ROUTER_ADVERTISEMENT, ND_OPT_CAPTIVE_PORTAL, ND_OPT_RDNSS, IPAddress, NdUserOption

_MAX_URL = 2048
_MOST_ROUTERS = 16  # of one link; a machine that sends advertisements in the name of thousands must not fill the memory
_MOST_RESOLVERS = 8  # of one router

_RDNSS = struct.Struct("!2xI")


@attrs.define(eq=False)
class _Said:
    url: str | None = None
    resolvers: dict[IPv6Address, float] = attrs.field(factory=dict[IPv6Address, float])  # until when each is good
    led: bool = False  # a default route went by this router

    def good(self, now: float) -> tuple[IPv6Address, ...]:
        return tuple(one for one, until in self.resolvers.items() if until > now)

    def renew(self, resolvers: Iterable[IPv6Address], lifetime: float, now: float) -> None:
        # Each has a lifetime of its own (RFC 8106 §5.1): one advertisement may carry several options, and the second
        # must not undo the first, or each repetition of both would look like news twice.
        renewed = self.resolvers | dict.fromkeys(resolvers, now + lifetime)
        good = [(one, until) for one, until in renewed.items() if until > now]
        self.resolvers = dict(good[:_MOST_RESOLVERS])


class Advertised:
    """What routers said, by link and router."""

    def __init__(self) -> None:
        self._said: dict[int, dict[IPv6Address, _Said]] = {}

    def take(self, option: NdUserOption, now: float) -> bool:
        """Take an option in; returns whether it says something new of its link.

        Args:
          option: As the kernel passed it on.
          now: `trio.current_time()`, for lifetimes.
        """
        if option.icmp_type != ICMPV6_ROUTER_ADVERTISEMENT or option.router is None:
            return False
        if option.type not in (ND_OPT_CAPTIVE_PORTAL, ND_OPT_RDNSS):
            return False
        routers = self._said.setdefault(option.ifindex, {})
        if option.router not in routers and len(routers) >= _MOST_ROUTERS:
            return False
        said = routers.setdefault(option.router, _Said())
        before = (said.url, said.good(now))
        if option.type == ND_OPT_CAPTIVE_PORTAL:
            said.url = captive_portal_url(option.body)
        else:
            lifetime, resolvers = name_servers(option.body)
            said.renew(resolvers, lifetime, now)
        return before != (said.url, said.good(now))

    def api_url(self, ifindex: int) -> str | None:
        """The URL that the first router of a link told; None without one."""
        return next((said.url for said in self._said.get(ifindex, {}).values() if said.url), None)

    def resolvers(self, ifindex: int, now: float) -> tuple[IPAddress, ...]:
        """The resolvers of a link that are still good, in the order in which they were told."""
        all_said = self._said.get(ifindex, {}).values()
        return tuple(dict.fromkeys(one for said in all_said for one in said.good(now)))

    def drop(self, ifindex: int) -> None:
        """Forget a link that went, or lost its carrier."""
        self._said.pop(ifindex, None)

    def led_by(self, ifindex: int, gateways: Iterable[IPAddress]) -> None:
        """Learn by whom a link leads on now: a router that did and does no more has nothing to say any longer."""
        gateways = frozenset(gateways)
        routers = self._said.get(ifindex, {})
        for router, said in list(routers.items()):
            if router in gateways:
                said.led = True
            elif said.led:
                del routers[router]


def captive_portal_url(body: bytes) -> str | None:
    """Read an option 37's body: a URI, padded with NULs. None for what is no printable ASCII text without spaces."""
    text = body.rstrip(b"\0")
    if not 0 < len(text) <= _MAX_URL or not all(0x20 < byte < 0x7F for byte in text):
        return None
    return text.decode("ascii")


def name_servers(body: bytes) -> tuple[float, tuple[IPv6Address, ...]]:
    """Read an option 25's body: the lifetime in seconds (infinity is a large number), and the resolvers."""
    if len(body) < _RDNSS.size:
        return 0.0, ()
    (lifetime,) = _RDNSS.unpack_from(body)
    starts = range(_RDNSS.size, len(body) - 15, 16)
    addresses = [IPv6Address(body[start : start + 16]) for start in starts[:_MOST_RESOLVERS]]
    return float(lifetime), tuple(address for address in addresses if not address.is_unspecified)
