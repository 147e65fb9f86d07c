"""From evidence to a state: pure, no clock and no socket.

One probe of a URL whose own server answers 204:

    status                        body           says      why
    ----------------------------  -------------  --------  -----------------------------------------------------
    204                           any            ONLINE    only the endpoint answers so
    511                           any            PORTAL    RFC 6585 §6, made for this
    3xx                           any            PORTAL    the endpoint never redirects; Location is the login page
    other 2xx                     some, or torn  PORTAL    a login page in the endpoint's place
    other 2xx                     whole, empty   OFFLINE   nobody can log in on an empty page: a broken proxy
    4xx, 5xx, anything else       any            OFFLINE   somebody answers, but this is no way to the Internet
    none (see Trouble)            -              OFFLINE   DNS error, no route, refused, silence, not HTTP

Several endpoints: PORTAL beats ONLINE beats OFFLINE. A walled garden may let one well-known check through, so
one foreign answer outweighs a right one (Android and Tailscale do the same); a filter that blocks one endpoint
must not make the machine look offline, so one right answer outweighs failures.

The three results are libwebsockets' ("OK", "Captive", "No internet"). It has no word for a question that is still
open. UNKNOWN reads "No internet" there, the one result that promises nothing; no event is published for UNKNOWN.
"""

from __future__ import annotations

import enum
import string
from collections.abc import Sequence
from urllib.parse import quote, urljoin, urlsplit

import attrs

from ._evidence import MAX_LOCATION, Evidence


class PortalKind(enum.Enum):
    """What is behind the gateway."""

    UNKNOWN = "unknown"
    """Nobody has asked since the gateway changed."""
    ONLINE = "online"
    PORTAL = "portal"
    OFFLINE = "offline"


_RESULTS = {
    PortalKind.UNKNOWN: "No internet",
    PortalKind.ONLINE: "OK",
    PortalKind.PORTAL: "Captive",
    PortalKind.OFFLINE: "No internet",
}


@attrs.frozen
class PortalState:
    """What is behind the gateway, and how that is known. Advice, never a gate: a network may lie both ways.

    Attributes:
      kind: The conclusion.
      url: Where to log in, an absolute http or https URL; None where the portal did not say. Written by a stranger.
      evidence: One entry for each endpoint that was asked.
      generation: The routing cache's generation when the asking began.
    """

    kind: PortalKind
    url: str | None
    evidence: tuple[Evidence, ...]
    generation: int

    @property
    def result(self) -> str:
        """The model's word for it: "OK", "Captive" or "No internet"."""
        return _RESULTS[self.kind]


def unknown(generation: int) -> PortalState:
    """The state before anybody has asked."""
    return PortalState(PortalKind.UNKNOWN, None, (), generation)


def judge(evidence: Sequence[Evidence], generation: int) -> PortalState:
    """Draw the conclusion from one run's evidence, by the table above.

    Args:
      evidence: What each endpoint's probe saw; none at all concludes UNKNOWN.
      generation: The routing cache's generation when the run began.
    """
    kinds = [kind_of(one) for one in evidence]
    url = None
    if PortalKind.PORTAL in kinds:
        kind = PortalKind.PORTAL
        portals = (one for one, its_kind in zip(evidence, kinds, strict=True) if its_kind is kind)
        url = next(filter(None, map(login_url, portals)), None)
    elif PortalKind.ONLINE in kinds:
        kind = PortalKind.ONLINE
    elif kinds:
        kind = PortalKind.OFFLINE
    else:
        kind = PortalKind.UNKNOWN
    return PortalState(kind, url, tuple(evidence), generation)


def kind_of(evidence: Evidence) -> PortalKind:
    """What one probe says by itself."""
    status = evidence.status
    if status is None:
        return PortalKind.OFFLINE
    if status == 204:
        return PortalKind.ONLINE
    if status == 511 or 300 <= status < 400:
        return PortalKind.PORTAL
    if 200 <= status < 300 and (evidence.body_bytes or evidence.trouble):
        return PortalKind.PORTAL
    return PortalKind.OFFLINE


def login_url(evidence: Evidence) -> str | None:
    """The login page that a Location header names, as an absolute URL; None where it names none of use."""
    if not evidence.location or len(evidence.location) >= MAX_LOCATION:
        return None
    # Portals put raw UTF-8 and spaces there; what is left of them is ASCII, as RFC 3986 wants it.
    location = quote(evidence.location.encode("latin-1", "replace"), safe=string.punctuation)
    try:
        url = urljoin(evidence.endpoint, location)
        parts = urlsplit(url)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:  # brackets or a port that urllib cannot read
        return None
    return url if usable else None


def same_finding(one: PortalState, other: PortalState) -> bool:
    """Whether two states say the same to somebody who waits for a change.

    The query of a login URL does not count: most portals put a fresh token there with every answer, and each
    recheck would look like news.
    """
    return one.kind is other.kind and _without_query(one.url) == _without_query(other.url)


def _without_query(url: str | None) -> str | None:
    return url if url is None else url.partition("?")[0]
