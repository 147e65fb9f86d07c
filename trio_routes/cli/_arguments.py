"""Arguments that several commands take, and the errors they end with.

The converters are for ``add_argument(type=...)``: argparse shows an ``ArgumentTypeError``'s text to the user as it is, while it
turns a bare ValueError into "invalid ip_address value", which does not say what is wrong.
"""

import argparse
import ipaddress
import math
from ipaddress import IPv4Address, IPv6Address


class UsageError(Exception):
    """Arguments that do not go together; the text goes to stderr and the exit status is ``ExitStatus.USAGE``."""


class CommandFailedError(Exception):
    """A command cannot do what was asked; its text goes to stderr and the exit status is ``ExitStatus.FAILED``."""


def ip_address(text: str) -> IPv4Address | IPv6Address:
    """Read an address, of either family."""
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not an IPv4 or IPv6 address") from None


def unsigned32(text: str) -> int:
    """Read a 32-bit number, decimal or with ``0x``: a firewall mark, a table, a uid."""
    return _unsigned(text, 32)


def unsigned8(text: str) -> int:
    """Read a byte, decimal or with ``0x``: a TOS."""
    return _unsigned(text, 8)


def port(text: str) -> int:
    """Read a TCP or UDP port; 0 is any."""
    return _unsigned(text, 16)


# netinet/in.h: those that have ports, and those that people ask about without.
_PROTOCOLS = {"icmp": 1, "tcp": 6, "udp": 17, "ipv6-icmp": 58, "sctp": 132}


def ip_protocol(text: str) -> int:
    """Read the protocol above IP, by number or one of the usual names."""
    known = _PROTOCOLS.get(text.lower())
    if known is None and not text[:1].isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number nor one of {', '.join(_PROTOCOLS)}")
    return _unsigned(text, 8) if known is None else known


def _unsigned(text: str, bits: int) -> int:
    try:
        number = int(text, 0)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None
    if not 0 <= number < 2**bits:
        raise argparse.ArgumentTypeError(f"{text} is not within 0 and {2**bits - 1}")
    return number


def positive(text: str) -> int:
    """Read a number of things, 1 or more."""
    number = unsigned32(text)
    if not number:
        raise argparse.ArgumentTypeError("it takes at least 1")
    return number


def seconds(text: str) -> float:
    """Read a duration in seconds, finite and not negative."""
    try:
        number = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds") from None
    if not (math.isfinite(number) and number >= 0):
        raise argparse.ArgumentTypeError(f"{text} is not a finite number of seconds, 0 or more")
    return number


def add_json(parser: argparse.ArgumentParser, form: str = "print JSON, one object a line") -> None:
    """Add ``--json``, ``form`` saying of what form: ``arguments.json`` is True if it is given."""
    parser.add_argument("--json", action="store_true", help=form)


def add_family(parser: argparse.ArgumentParser) -> None:
    """Add ``-4`` and ``-6``: ``arguments.family`` is 4, 6 or None for both."""
    group = parser.add_mutually_exclusive_group()
    group.add_argument("-4", dest="family", action="store_const", const=4, help="IPv4 only")
    group.add_argument("-6", dest="family", action="store_const", const=6, help="IPv6 only")
