"""What callers of the lab may write for addresses, prefixes and names, and what they are told if it is wrong."""

from __future__ import annotations

import ipaddress

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Interface = ipaddress.IPv4Interface | ipaddress.IPv6Interface
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

# include/uapi/linux/if.h: IFNAMSIZ is 16 with the final NUL
_NAME_MAX_BYTES = 15


def parse_address(text: str | Address) -> Address:
    """Parse an address.

    Raises:
      ValueError: It is none.
    """
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        raise ValueError(f"{text!r} is not an IPv4 or IPv6 address") from None


def parse_interface(text: str | Interface) -> Interface:
    """Parse an address with its prefix length, as a link has it: "192.0.2.7/24".

    Raises:
      ValueError: It is none, or has no prefix length.
    """
    if isinstance(text, str) and "/" not in text:
        raise ValueError(f"{text!r} has no prefix length: a link's address is written like 192.0.2.7/24")
    try:
        return ipaddress.ip_interface(text)
    except ValueError:
        raise ValueError(f"{text!r} is not an IPv4 or IPv6 address with a prefix length") from None


def parse_prefix(text: str | Network) -> Network:
    """Parse a prefix, or an address as a prefix of its whole length.

    Raises:
      ValueError: It is none, or has bits set behind its length.
    """
    try:
        return ipaddress.ip_network(text)
    except ValueError as error:
        raise ValueError(f"{text!r} is not a prefix: {error}") from None


def check_link_name(name: str) -> None:
    """Refuse what the kernel would refuse as a link's name (dev_valid_name() in net/core/dev.c).

    Raises:
      ValueError: With what is wrong.
    """
    length = len(name.encode())
    if length > _NAME_MAX_BYTES:
        raise ValueError(f"the link name {name!r} has {length} bytes, and Linux allows {_NAME_MAX_BYTES}")
    if not name or name in (".", "..") or any(c in "/:" or c.isspace() for c in name):
        raise ValueError(f"{name!r} cannot be a link's name: it is empty, '.', '..', or has a slash, colon or space")
