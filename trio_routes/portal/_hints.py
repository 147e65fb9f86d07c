"""What is known of one link, from whom, and who goes before whom.

    source                                  API's URL                     resolvers
    --------------------------------------  ----------------------------  ---------------------------------------
    the application (`LinkHints`)           its DHCP client's option 114  what it knows
    router advertisements (`_advertised`)   option 37                     option 25; not on managed links
    systemd-networkd, /run/systemd/netif/
      links/<ifindex>                       CAPTIVE_PORTAL= (not in 252)  DNS=
    NetworkManager, /run/NetworkManager/
      devices/<ifindex>                     not kept                      [dhcp4] domain_name_servers=

The first that knows the URL is believed; resolvers are those of the first that knows any. Both daemons call these files
private: a missing file, a missing key and an odd value are normal, and silent.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import ip_address
from pathlib import Path

import attrs

from ..netlink import IPAddress

_MAX_FILE = 64 * 1024


@attrs.frozen(kw_only=True)
class Known:
    """What one source, or all of them, know of one link.

    Attributes:
      api_url: The captive portal API's URL, or the urn that there is none; None is not known.
      api_source: Who said so, in words.
      resolvers: The link's own name servers.
    """

    api_url: str | None = None
    api_source: str = ""
    resolvers: tuple[IPAddress, ...] = ()


def first_known(sources: Iterable[Known]) -> Known:
    """Merge what several sources know; those that come first are believed first.

    Resolvers on this machine's loopback are left out: they are not of one link, and cannot be reached by one.
    """
    url, source = None, ""
    resolvers: tuple[IPAddress, ...] = ()
    for known in sources:
        if url is None and known.api_url:
            url, source = known.api_url, known.api_source
        resolvers = resolvers or tuple(address for address in known.resolvers if not address.is_loopback)
    return Known(api_url=url, api_source=source, resolvers=resolvers)


def machines_run_directory(proc: Path = Path("/proc")) -> Path | None:
    """Return /run, or None if this process is seen to be in another network namespace than those who write there.

    `ip netns exec` leaves /run as it is, whose files count the machine's links and not ours: another link's resolvers would
    pass for this one's. Process 1 is where they are, in a container too; only root may look, and others take it for so.

    Args:
      proc: Where procfs is.
    """
    try:
        ours, theirs = ((proc / which / "ns" / "net").readlink() for which in ("thread-self", "1"))
    except OSError:
        return Path("/run")
    return Path("/run") if ours == theirs else None


def read_state_files(run_directory: Path, ifindex: int) -> list[Known]:
    """Read what systemd-networkd and NetworkManager keep of a link; nothing of files that are not there.

    Args:
      run_directory: Usually /run.
      ifindex: The link's number, as their own network namespace counts.
    """
    networkd = _read(run_directory / "systemd" / "netif" / "links" / str(ifindex))
    manager = _read(run_directory / "NetworkManager" / "devices" / str(ifindex))
    return [parse_networkd(networkd), parse_networkmanager(manager)]


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(_MAX_FILE).decode("utf-8", "replace")
    except OSError:
        return ""


def parse_networkd(text: str) -> Known:
    """Read a file of /run/systemd/netif/links: `KEY=value` lines."""
    url = _value(text, "CAPTIVE_PORTAL")
    return Known(api_url=url or None, api_source="systemd-networkd", resolvers=_addresses(_value(text, "DNS")))


def parse_networkmanager(text: str) -> Known:
    """Read a file of /run/NetworkManager/devices: a keyfile whose section [dhcp4] has the lease's options."""
    _, _, lease = text.partition("[dhcp4]\n")
    return Known(resolvers=_addresses(_value(lease.partition("\n[")[0], "(?:dhcp4\\.)?domain_name_servers")))


def _value(text: str, key: str) -> str:
    found = re.search(f"^{key}=(.*)$", text, re.MULTILINE)
    return found[1].strip() if found else ""


def _addresses(text: str) -> tuple[IPAddress, ...]:
    """Read addresses with spaces between; networkd may add a port, a link and a name (`[::1]:53%2#dns.example`)."""
    found: list[IPAddress] = []
    for word in text.split():
        bare = re.sub(r"#.*$|%.*$", "", word)
        try:
            found.append(ip_address(bare))
        except ValueError:
            continue
    return tuple(found)
