"""From evidence to a state: pure, no clock and no socket.

What each finding counts for. The question matters where it says so; everything else does not.

    finding                                              counts as    why
    ---------------------------------------------------  -----------  --------------------------------------------------
    API_CAPTIVE                                          captive      RFC 8908: the network says so itself
    REDIRECT, LOGIN_REQUIRED, FOREIGN_BODY,
      CHALLENGE_FAILED                                   portal seen  somebody answers in the endpoint's place
    PASSED over HTTPS, or by a probe of one's own        secure       nobody in between can answer so
    PASSED over HTTP                                     plain        the endpoint answered, or a very good forgery
    NAME_SILENT, NAME_FAILED                             no names     the question could not even be sent
    WRONG_STATUS, WRONG_NAME, UNTRUSTED, NOT_TLS,
      NO_ROUTE, REFUSED, TIMEOUT, CLOSED, NOT_HTTP,
      TOO_MUCH, OTHER                                    failed       no way there. An HTTPS error alone is no portal:
                                                                      filters, wrong clocks and old roots make them too
    NO_DEFAULT_ROUTE                                     no way       the tables know; nothing was sent
    NO_CARRIER, NO_ADDRESS                               no link      likewise
    the API's other findings, NAMES_*, NO_SUCH_ADDRESS,
      CANNOT_BIND, LINK_LOCAL_ONLY, NOT_PROBED           nothing      says nothing of the Internet

From all of one path's evidence, the first that holds:

    1  any "captive"                              PORTAL    the API may say "captive" ...
    2  any "portal seen"                          PORTAL    ... and may not deny a portal that was seen. A walled garden
                                                            lets one well-known check through, so one foreign answer
                                                            outweighs right ones (Android and Tailscale do the same)
    3  any "secure"                               ONLINE    a filter that blocks one endpoint, or port 80, must not
                                                            make the machine look offline
    4  any "plain" from the one private address   PORTAL    not the endpoint's answer: somebody gives it in its place, as
       to which all names lead (NAMES_HIJACKED)             in CHALLENGE_FAILED. After 3, for one's own network of such
    5  any "plain", and HTTPS was asked and not   PARTIAL   half of the way is open: a garden that forges or passes the
       answered                                             check, or a network without port 443
    6  any "plain"                                ONLINE    HTTPS was not asked
    7  all that was asked is "no names"           NO_DNS
    8  any "failed" or "no names"                 OFFLINE
    9  any "no way"                               OFFLINE
    10 any "no link"                              NO_LINK
    11 otherwise                                  UNKNOWN

Several paths (the families of a link; the links of the default path): PORTAL beats ONLINE, ONLINE beats what nobody has
looked into yet, and that beats all that is worse; see `combine`.

The three results are libwebsockets' ("OK", "Captive", "No internet"). It has no words for a question that is still open
nor for half a way. Both read "No internet" there, the one result that promises nothing.
"""

from __future__ import annotations

import enum
import string
from collections.abc import Iterable, Sequence
from urllib.parse import quote, urljoin, urlsplit

import attrs

from ._evidence import MAX_LOCATION, Evidence, Finding, Question


class PortalKind(enum.Enum):
    """What is behind a path."""

    UNKNOWN = "unknown"
    """Nobody has asked since the network changed, or it cannot be asked; the evidence tells which."""
    NO_LINK = "no link"
    """No carrier, or no address."""
    NO_DNS = "no dns"
    """No name could be resolved, so nothing more is known."""
    PORTAL = "portal"
    """A captive portal."""
    PARTIAL = "partial"
    """HTTP passes and HTTPS does not."""
    ONLINE = "online"
    """The Internet."""
    OFFLINE = "offline"
    """Nothing."""


_RESULTS = {
    PortalKind.UNKNOWN: "No internet",
    PortalKind.NO_LINK: "No internet",
    PortalKind.NO_DNS: "No internet",
    PortalKind.PORTAL: "Captive",
    PortalKind.PARTIAL: "No internet",
    PortalKind.ONLINE: "OK",
    PortalKind.OFFLINE: "No internet",
}


@attrs.frozen(kw_only=True)
class PortalState:
    """What is behind a path, and how that is known. Advice, never a gate: a network may lie both ways.

    Attributes:
      kind: The conclusion.
      generation: The routing cache's generation when the asking began.
      url: Where to log in, an absolute http or https URL; None where the portal did not say. Written by a stranger.
      venue: A page about the place (RFC 8908's venue-info-url).
      expires_at: `trio.current_time()` at which the network will end the session; None where it did not say.
      bytes_remaining: Bytes until the network ends the session; None likewise.
      evidence: What was asked, and what came of it. Empty means that nobody has looked yet.
    """

    kind: PortalKind
    generation: int
    url: str | None = None
    venue: str | None = None
    expires_at: float | None = None
    bytes_remaining: float | None = None
    evidence: tuple[Evidence, ...] = ()

    @property
    def result(self) -> str:
        """The model's word for it: "OK", "Captive" or "No internet"."""
        return _RESULTS[self.kind]

    @property
    def open(self) -> bool:
        """Whether nobody has looked since the network changed."""
        return not self.evidence


class _Counts(enum.Enum):
    CAPTIVE = enum.auto()
    PORTAL_SEEN = enum.auto()
    SECURE = enum.auto()
    PLAIN = enum.auto()
    NO_NAMES = enum.auto()
    FAILED = enum.auto()
    NO_WAY = enum.auto()
    NO_LINK = enum.auto()
    NOTHING = enum.auto()


_COUNTS = {
    Finding.PASSED: _Counts.PLAIN,
    Finding.REDIRECT: _Counts.PORTAL_SEEN,
    Finding.LOGIN_REQUIRED: _Counts.PORTAL_SEEN,
    Finding.FOREIGN_BODY: _Counts.PORTAL_SEEN,
    Finding.CHALLENGE_FAILED: _Counts.PORTAL_SEEN,
    Finding.WRONG_STATUS: _Counts.FAILED,
    Finding.WRONG_NAME: _Counts.FAILED,
    Finding.UNTRUSTED: _Counts.FAILED,
    Finding.NOT_TLS: _Counts.FAILED,
    Finding.NAMES_HIJACKED: _Counts.NOTHING,
    Finding.NAMES_SANE: _Counts.NOTHING,
    Finding.NAME_SILENT: _Counts.NO_NAMES,
    Finding.NAME_FAILED: _Counts.NO_NAMES,
    Finding.NO_SUCH_ADDRESS: _Counts.NOTHING,
    Finding.NO_ROUTE: _Counts.FAILED,
    Finding.REFUSED: _Counts.FAILED,
    Finding.TIMEOUT: _Counts.FAILED,
    Finding.CLOSED: _Counts.FAILED,
    Finding.NOT_HTTP: _Counts.FAILED,
    Finding.TOO_MUCH: _Counts.FAILED,
    Finding.CANNOT_BIND: _Counts.NOTHING,
    Finding.OTHER: _Counts.FAILED,
    Finding.API_CAPTIVE: _Counts.CAPTIVE,
    Finding.API_OPEN: _Counts.NOTHING,
    Finding.API_UNRESTRICTED: _Counts.NOTHING,
    Finding.API_INVALID: _Counts.NOTHING,
    Finding.API_UNKNOWN: _Counts.NOTHING,
    Finding.NO_CARRIER: _Counts.NO_LINK,
    Finding.NO_ADDRESS: _Counts.NO_LINK,
    Finding.LINK_LOCAL_ONLY: _Counts.NOTHING,
    Finding.NO_DEFAULT_ROUTE: _Counts.NO_WAY,
    Finding.NOT_PROBED: _Counts.NOTHING,
}
_SECURE = frozenset({Question.HTTPS_204, Question.OWN})


def _counts_as(evidence: Evidence) -> _Counts:
    # The API and the names are asked beside the probes; that they do not answer says nothing of the Internet.
    if evidence.question in (Question.API, Question.NAMES) and evidence.finding is not Finding.API_CAPTIVE:
        return _Counts.NOTHING
    if evidence.finding is Finding.PASSED and evidence.question in _SECURE:
        return _Counts.SECURE
    return _COUNTS[evidence.finding]


def unknown(generation: int) -> PortalState:
    """The state before anybody has looked."""
    return PortalState(kind=PortalKind.UNKNOWN, generation=generation)


def judge(evidence: Sequence[Evidence], generation: int) -> PortalState:
    """Draw the conclusion from one path's evidence, by the tables above.

    Args:
      evidence: What was seen.
      generation: The routing cache's generation when the asking began.
    """
    capport = next((one for one in evidence if one.capport is not None), None)
    said = None if capport is None else capport.capport
    kind = _kind_of(evidence)
    url = None
    if kind is PortalKind.PORTAL:
        urls = [said.portal_url] if said is not None else []
        url = next(filter(None, [*urls, *map(login_url, evidence)]), None)
    seconds = None if said is None else said.seconds_remaining
    return PortalState(
        kind=kind,
        generation=generation,
        url=url,
        venue=None if said is None else said.venue_url,
        expires_at=None if capport is None or seconds is None else capport.time + seconds,
        bytes_remaining=None if said is None else said.bytes_remaining,
        evidence=tuple(evidence),
    )


def _kind_of(evidence: Sequence[Evidence]) -> PortalKind:
    counts = [_counts_as(one) for one in evidence]
    if _Counts.CAPTIVE in counts or _Counts.PORTAL_SEEN in counts:
        return PortalKind.PORTAL
    if _Counts.SECURE in counts:
        return PortalKind.ONLINE
    if _Counts.PLAIN in counts:
        if _is_forged(evidence):
            return PortalKind.PORTAL
        return PortalKind.PARTIAL if any(map(_is_https_failure, evidence)) else PortalKind.ONLINE
    if _Counts.NO_NAMES in counts and _Counts.FAILED not in counts:
        return PortalKind.NO_DNS
    if _Counts.NO_NAMES in counts or _Counts.FAILED in counts or _Counts.NO_WAY in counts:
        return PortalKind.OFFLINE
    return PortalKind.NO_LINK if _Counts.NO_LINK in counts else PortalKind.UNKNOWN


def _is_forged(evidence: Sequence[Evidence]) -> bool:
    """Whether a right answer came from where all names lead."""
    hijackers = {one.address for one in evidence if one.finding is Finding.NAMES_HIJACKED}
    return any(_counts_as(one) is _Counts.PLAIN and one.address in hijackers for one in evidence)


def _is_https_failure(evidence: Evidence) -> bool:
    return evidence.question is Question.HTTPS_204 and _counts_as(evidence) in (_Counts.FAILED, _Counts.NO_NAMES)


# ---- several paths -------------------------------------------------------------------------------

# The best known comes before what is still open, because it will not get worse news than a portal; what is worse than a
# whole way waits until all paths were looked into.
_RANK = (
    PortalKind.PORTAL,
    PortalKind.ONLINE,
    None,  # open
    PortalKind.PARTIAL,
    PortalKind.NO_DNS,
    PortalKind.OFFLINE,
    PortalKind.NO_LINK,
    PortalKind.UNKNOWN,
)


def combine(states: Iterable[PortalState], generation: int) -> PortalState:
    """Draw the conclusion from several paths that stand beside each other.

    Args:
      states: One for each path; none at all concludes UNKNOWN.
      generation: The routing cache's generation now.

    Returns:
      The state of the first in rank, with the evidence of all; UNKNOWN and without evidence where that is still open.
    """
    states = tuple(states)
    if not states:
        return unknown(generation)
    first = min(states, key=_rank_of)
    if first.open:
        return unknown(generation)
    return attrs.evolve(first, evidence=tuple(one for state in states for one in state.evidence))


def _rank_of(state: PortalState) -> int:
    return _RANK.index(None if state.open else state.kind)


# ---- what is news --------------------------------------------------------------------------------


def login_url(evidence: Evidence) -> str | None:
    """The login page that a Location header names, as an absolute URL; None where it names none of use."""
    if evidence.finding not in (Finding.REDIRECT, Finding.LOGIN_REQUIRED, Finding.FOREIGN_BODY):
        return None
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
    recheck would look like news. Nor does what is left of a session.
    """
    return (one.kind, _without_query(one.url), one.venue) == (other.kind, _without_query(other.url), other.venue)


def _without_query(url: str | None) -> str | None:
    return url if url is None else url.partition("?")[0]
