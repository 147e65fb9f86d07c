"""What a user may set: which addresses to ask. A bad value is a ValueError that names what is wrong.

Plain HTTP only, and on purpose: a portal can answer in the endpoint's place only where nothing is
authenticated, and that false answer is what the detector looks for.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import urlsplit

import attrs

# Every run asks all endpoints at once, so this is also the number of connections that a run may open.
MAX_ENDPOINTS = 5

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
    if parts.scheme != "http":
        return "the scheme must be http; over https a portal cannot answer in the endpoint's place"
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
    """An HTTP URL whose own server answers 204 and nothing else; any other answer came from something in between.

    Attributes:
      url: An `http:` URL. Whoever ships devices should run an endpoint of their own: the default one is Google's.

    Raises:
      ValueError: The URL cannot be asked; the message says why.
    """

    url: str = attrs.field(validator=lambda _self, _field, url: _check_url(url))

    @property
    def host(self) -> str:
        """The name or address to connect to; an IPv6 address without its brackets."""
        return urlsplit(self.url).hostname or ""

    @property
    def port(self) -> int:
        """The TCP port, 80 where the URL names none."""
        return urlsplit(self.url).port or 80

    @property
    def authority(self) -> str:
        """What the Host header carries: host, and port where the URL names one."""
        return urlsplit(self.url).netloc

    @property
    def target(self) -> str:
        """What the request line carries: path and query."""
        parts = urlsplit(self.url)
        return (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


DEFAULT_ENDPOINTS = (Endpoint("http://connectivitycheck.gstatic.com/generate_204"),)


def _as_tuple(endpoints: Iterable[Endpoint]) -> tuple[Endpoint, ...]:
    return tuple(endpoints)


def _check_endpoints(endpoints: tuple[Endpoint, ...]) -> None:
    if not 1 <= len(endpoints) <= MAX_ENDPOINTS:
        raise ValueError(f"a portal configuration has 1 to {MAX_ENDPOINTS} endpoints, not {len(endpoints)}")
    if len(set(endpoints)) < len(endpoints):
        raise ValueError("a portal configuration names an endpoint twice")


@attrs.frozen(kw_only=True)
class PortalConfig:
    """Turns portal detection on where `open_pt(portal=...)` is given one.

    Attributes:
      endpoints: Whom to ask, 1 to 5. Every run asks all of them, and how their answers combine is said in
        `trio_routes.portal._rules`.

    Raises:
      ValueError: No endpoint, more than 5, or the same one twice.
    """

    endpoints: tuple[Endpoint, ...] = attrs.field(
        default=DEFAULT_ENDPOINTS,
        converter=_as_tuple,
        validator=lambda _self, _field, endpoints: _check_endpoints(endpoints),
    )
