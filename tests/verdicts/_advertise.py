"""Router advertisements, made by hand (RFC 4861 §4.2): what radvd sends, at the moment that a row wants it."""

from __future__ import annotations

import json
import re
import socket
import struct
from ipaddress import IPv6Address

import trio

from trio_routes.testing import Host

_ALL_NODES = "ff02::1"
_MULTICAST_HOPS = 255  # RFC 4861 §6.1.2: others are dropped
_PREFERENCE = {"low": 0b11, "medium": 0b00, "high": 0b01}  # RFC 4191 §2.1


def advertise(router: Host, link: str, *, lifetime: int, preference: str = "medium", options: bytes = b"") -> None:
    """Send an advertisement.

    Args:
      router: Who sends it.
      link: By which of its links.
      lifetime: Of the router as a default router, in seconds.
      preference: "low", "medium" or "high".
      options: Of the advertisement.
    """
    # Type, code, checksum (the kernel's), hop limit, flags; lifetime; reachable and retransmission time.
    message = struct.pack("!BBHBBHII", 134, 0, 0, 64, _PREFERENCE[preference] << 3, lifetime, 0, 0) + options
    with router.entered():
        index = socket.if_nametoindex(link)
        with socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6) as sender:
            sender.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, _MULTICAST_HOPS)
            sender.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, link.encode())
            sender.sendto(message, (_ALL_NODES, 0, 0, index))


def advertise_prefix(router: Host, link: str, prefix: str, *, preferred: int) -> None:
    """Send a /64 for automatic addresses, as no default router; `preferred` is in seconds."""
    # Type, length in eights, prefix length, flags on-link and autonomous, valid and preferred lifetime (§4.6.2).
    option = struct.pack("!BBBBIII", 3, 4, 64, 0xC0, 7200, preferred, 0) + IPv6Address(prefix).packed
    advertise(router, link, lifetime=0, options=option)


async def automatic_address(host: Host, link: str, prefix: str) -> str:
    """Wait until a link has an address that it made itself of a prefix, and return it."""
    wanted = IPv6Address(prefix).packed[:8]
    with trio.fail_after(10):
        while True:
            (found,) = json.loads(await host.run(["ip", "-6", "-j", "address", "show", "dev", link, "-tentative"]))
            for info in found.get("addr_info", ()):
                if info.get("dynamic") and IPv6Address(info["local"]).packed[:8] == wanted:
                    return str(info["local"])
            await trio.sleep(0.05)


async def default_gateways(host: Host, protocol: str) -> list[str]:
    """The gateways of a host's IPv6 default routes of a protocol, as iproute2 calls it ("ra", "static")."""
    shown = await host.run(["ip", "-6", "route", "show", "default", "proto", protocol])
    return re.findall(r" via (\S+)", shown)
