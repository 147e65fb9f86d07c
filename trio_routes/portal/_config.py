"""What a user may set: whom to ask, and what he knows of the links. A bad value is a ValueError that names what is wrong.

The kinds of endpoint, told by what is given:

    url      body     asked   what only the endpoint itself answers
    -------  -------  ------  --------------------------------------------------------------------------------------
    http:    None     plain   204; a portal can answer in its place, and that false answer is what is looked for
    http:    bytes    plain   200 and exactly this body; a proxy that knows 204 checks does not know this one
    https:   None     TLS     204 under the endpoint's own certificate, which nobody in between can forge

With `challenge` the endpoint has to repeat a random word too, which catches forged 204s over plain HTTP.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Awaitable, Callable, Iterable, Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias
from urllib.parse import urlsplit

import attrs

from ..netlink import IPAddress
from ._evidence import Evidence, Question

if TYPE_CHECKING:
    from ._way import Way

# As many as are asked at once, so that one path's run does not wait for itself.
MAX_ENDPOINTS = 5
# A longer answer is not read, so it could not be compared either.
MAX_BODY = 64 * 1024

# RFC 1035 §2.3.4. A longer label makes the standard library's IDNA codec raise UnicodeError in the midst of a
# look-up, long after the mistake was made.
_MAX_NAME, _MAX_LABEL = 253, 63

_NAME = re.compile(r"[A-Za-z0-9._-]+", re.ASCII)
_PRINTABLE = re.compile(r"[\x21-\x7e]+", re.ASCII)


def _check_url(url: str) -> None:
    """Say in a ValueError what is wrong with an endpoint's URL."""
    problem = _problem_of(url)
    if problem is not None:
        raise ValueError(f"portal endpoint {url!r}: {problem}")


def _problem_of(url: str) -> str | None:
    if not _PRINTABLE.fullmatch(url):
        return "must be printable ASCII without spaces"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        return str(error)
    if parts.scheme not in ("http", "https"):
        return "the scheme must be http or https"
    if parts.username is not None or parts.password is not None:
        return "must not carry a user name or password"
    if parts.fragment:
        return "must not have a fragment"
    if port == 0:
        return "port 0 cannot be connected to"
    return _problem_of_host(parts.hostname or "")


def _problem_of_host(host: str) -> str | None:
    if ":" in host:  # urlsplit() has checked what is inside the brackets, but lets a zone through
        return "a zone index (%) has no meaning in a URL" if "%" in host else None
    if not _NAME.fullmatch(host):
        return "needs a host: a name or an address"
    labels = host.removesuffix(".").split(".")
    if len(host) > _MAX_NAME or not all(0 < len(label) <= _MAX_LABEL for label in labels):
        return f"a host name has labels of 1 to {_MAX_LABEL} characters and at most {_MAX_NAME} in all"
    return None


@attrs.frozen
class Endpoint:
    """A URL whose own server gives one known answer; any other answer came from something in between.

    Attributes:
      url: An `http:` or `https:` URL. Whoever ships devices should run endpoints of their own (`trio-routes portal
        serve` is one): the default ones are other people's.
      body: The exact body of its 200, at most 64 KiB; None for a 204.
      challenge: Whether its server answers the header X-Trio-Routes-Challenge, as `trio-routes portal serve` does.

    Raises:
      ValueError: The URL cannot be asked, or does not go with the body; the message says why.
    """

    url: str = attrs.field(validator=lambda _self, _field, url: _check_url(url))
    body: bytes | None = None
    challenge: bool = False

    def __attrs_post_init__(self) -> None:
        if self.body is not None and self.question is Question.HTTPS_204:
            raise ValueError(f"portal endpoint {self.url!r}: only http endpoints have a body")
        if self.body is not None and not 0 < len(self.body) <= MAX_BODY:
            raise ValueError(f"portal endpoint {self.url!r}: a body has 1 to {MAX_BODY} bytes")

    @property
    def question(self) -> Question:
        """What kind of endpoint it is."""
        if self.secure:
            return Question.HTTPS_204
        return Question.HTTP_204 if self.body is None else Question.HTTP_BODY

    @property
    def secure(self) -> bool:
        """Whether it is asked over TLS."""
        return urlsplit(self.url).scheme == "https"

    @property
    def host(self) -> str:
        """The name or address to connect to; an IPv6 address without its brackets."""
        return urlsplit(self.url).hostname or ""

    @property
    def literal(self) -> IPAddress | None:
        """The address that the URL names; None for a name."""
        try:
            return ip_address(self.host)
        except ValueError:
            return None

    @property
    def port(self) -> int:
        """The TCP port, 80 or 443 where the URL names none."""
        return urlsplit(self.url).port or (443 if self.secure else 80)

    @property
    def authority(self) -> str:
        """What the Host header carries: host, and port where the URL names one."""
        return urlsplit(self.url).netloc

    @property
    def target(self) -> str:
        """What the request line carries: path and query."""
        parts = urlsplit(self.url)
        return (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


DEFAULT_ENDPOINTS = (
    Endpoint("http://connectivitycheck.gstatic.com/generate_204"),
    Endpoint("http://detectportal.firefox.com/success.txt", body=b"success\n"),
    Endpoint("https://www.gstatic.com/generate_204"),
)

PortalProbe: TypeAlias = "Callable[[Way], Awaitable[Evidence]]"
"""A probe of one's own: asks whom it likes over the `Way` it is given, and says what it found.

`Finding.PASSED` counts as proof of the Internet. What it raises is evidence of `Finding.OTHER`; after 10 s it is cancelled.
"""


def _addresses(values: Iterable[str | IPAddress]) -> tuple[IPAddress, ...]:
    return tuple(value if isinstance(value, IPv4Address | IPv6Address) else ip_address(value) for value in values)


def _check_api_url(url: str | None) -> None:
    if url is not None and (_problem_of(url) is not None or urlsplit(url).scheme != "https"):
        raise ValueError(f"captive portal API {url!r}: {_problem_of(url) or 'the scheme must be https (RFC 8908 §4)'}")


@attrs.frozen(kw_only=True)
class LinkHints:
    """What the application knows of one link, from its DHCP client or its own settings. It goes before all other sources.

    Attributes:
      api_url: The URL of the captive portal API (DHCP option 114, RFC 8910); None is not known.
      resolvers: The link's own name servers, of either family; empty is not known.

    Raises:
      ValueError: A URL that is not https, or a resolver that is no address.
    """

    api_url: str | None = attrs.field(default=None, validator=lambda _self, _field, url: _check_api_url(url))
    resolvers: tuple[IPAddress, ...] = attrs.field(default=(), converter=_addresses)


Hints: TypeAlias = Mapping[str, LinkHints]


def _as_tuple(endpoints: Iterable[Endpoint]) -> tuple[Endpoint, ...]:
    return tuple(endpoints)


def _probes_as_tuple(probes: Iterable[PortalProbe]) -> tuple[PortalProbe, ...]:
    return tuple(probes)


@attrs.frozen(kw_only=True)
class PortalConfig:
    """Turns portal detection on where `open_pt(portal=...)` is given one.

    Attributes:
      endpoints: Whom to ask, at most 5 together with `probes`. Every run asks all of them, and how their answers combine
        is said in `trio_routes.portal._rules`.
      probes: Probes of one's own, beside the endpoints or in their place.
      on_demand: Whether it only asks when `check()` is called, as without a configuration.
      per_link: Whether each link is probed by itself. If not, only the default path is.
      hints: What is known of links, by name; see `LinkHints`.
      run_directory: Where systemd-networkd and NetworkManager keep what they know of links (`systemd/netif/links`,
        `NetworkManager/devices`). None is /run, and nothing for a pt that lives in another network namespace than its
        process (`open_pt(netns=...)`), or than process 1 as far as that may be seen, because these files count links as
        their own namespace does.
      tls: How `https:` endpoints and the captive portal API are verified; None is the system's authorities.

    Raises:
      ValueError: Nobody to ask, more than 5, or the same endpoint twice.
    """

    endpoints: tuple[Endpoint, ...] = attrs.field(default=DEFAULT_ENDPOINTS, converter=_as_tuple)
    probes: tuple[PortalProbe, ...] = attrs.field(default=(), converter=_probes_as_tuple)
    on_demand: bool = False
    per_link: bool = True
    hints: Hints = attrs.field(factory=dict[str, LinkHints])
    run_directory: Path | None = None
    tls: ssl.SSLContext | None = None

    def __attrs_post_init__(self) -> None:
        asked = len(self.endpoints) + len(self.probes)
        if not 1 <= asked <= MAX_ENDPOINTS:
            raise ValueError(f"a portal configuration has 1 to {MAX_ENDPOINTS} endpoints and probes, not {asked}")
        if len({endpoint.url for endpoint in self.endpoints}) < len(self.endpoints):
            raise ValueError("a portal configuration names an endpoint twice")
