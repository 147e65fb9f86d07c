"""What was seen of one path: facts only, no opinion. `_rules` draws the conclusion."""

from __future__ import annotations

import enum

import attrs

from ..netlink import IPAddress
from ._capport import Capport

# A Location of this many characters was cut, and points nowhere; RFC 9110 §4.1 asks for 8000, no login page needs 500.
MAX_LOCATION = 2048


class Question(enum.Enum):
    """What was asked."""

    HTTP_204 = "http 204"
    """An `http:` URL whose own server answers 204 and nothing else."""
    HTTP_BODY = "http body"
    """An `http:` URL whose own server answers 200 and exactly one body."""
    HTTPS_204 = "https 204"
    """An `https:` URL whose own server answers 204: nobody in between can."""
    API = "api"
    """The network's own captive portal API (RFC 8908)."""
    NAMES = "names"
    """Whether a name that cannot exist has an address."""
    OWN = "own"
    """A probe of the application's."""
    TABLES = "tables"
    """The routing cache; nothing was sent."""


class Finding(enum.Enum):
    """What one question came to. The table in `_rules` says what each counts for."""

    PASSED = "passed"
    """The answer that only the endpoint itself gives."""
    REDIRECT = "redirect"
    """A 3xx in place of the answer; never followed."""
    LOGIN_REQUIRED = "login required"
    """511 Network Authentication Required (RFC 6585 §6)."""
    FOREIGN_BODY = "foreign body"
    """A page in place of the answer."""
    CHALLENGE_FAILED = "challenge failed"
    """The right status without the answer to the challenge, or with a wrong one: not our endpoint."""
    WRONG_STATUS = "wrong status"
    """Another status, or an empty page: somebody answers, and nobody could log in there."""

    WRONG_NAME = "wrong name"
    """HTTPS: a certificate for another name."""
    UNTRUSTED = "untrusted"
    """HTTPS: a certificate that no trusted authority vouches for, or that is not valid now."""
    NOT_TLS = "not tls"
    """HTTPS: what answered does not speak TLS, or not this one."""

    NAMES_HIJACKED = "names hijacked"
    """A name that cannot exist has the same private address as the endpoint."""
    NAMES_SANE = "names sane"
    """A name that cannot exist has no address, or another one."""
    NAME_SILENT = "name silent"
    """The resolver did not answer in time."""
    NAME_FAILED = "name failed"
    """The resolver answered that it cannot, or that there is no such name."""
    NO_SUCH_ADDRESS = "no such address"
    """The endpoint has no address of this family."""

    NO_ROUTE = "no route"
    """The kernel refused to send: unreachable, prohibited or blackholed."""
    REFUSED = "refused"
    """The TCP connection was refused."""
    TIMEOUT = "timeout"
    """Silence, or bytes too slow to matter."""
    CLOSED = "closed"
    """The connection ended before the answer did."""
    NOT_HTTP = "not http"
    """Something answered, and it was not HTTP/1."""
    TOO_MUCH = "too much"
    """The peer would not stop sending; we did stop reading."""
    CANNOT_BIND = "cannot bind"
    """The socket could not be bound to the link, so nothing was sent."""
    OTHER = "other"
    """Another error of the local system; `Evidence.detail` has its text."""

    API_CAPTIVE = "api captive"
    """The API says that traffic is held back."""
    API_OPEN = "api open"
    """The API says that it is not, which proves nothing of the Internet behind."""
    API_UNRESTRICTED = "api unrestricted"
    """The network says that it has no portal (RFC 8910 §2)."""
    API_INVALID = "api invalid"
    """The API's URL or its answer is not what RFC 8908 allows."""
    API_UNKNOWN = "api unknown"
    """Nobody has told an API's URL for this link."""

    NO_CARRIER = "no carrier"
    """The link is down or unplugged."""
    NO_ADDRESS = "no address"
    """The link has no address of this family."""
    LINK_LOCAL_ONLY = "link-local only"
    """The link has only link-local addresses of this family."""
    NO_DEFAULT_ROUTE = "no default route"
    """No route leads to the Internet by this link."""
    NOT_PROBED = "not probed"
    """A tunnel: what is behind it is another network's affair."""


@attrs.frozen(kw_only=True)
class Evidence:
    """The outcome of one question.

    Attributes:
      question: What was asked.
      finding: What it came to.
      endpoint: The URL that was asked; "" where none was.
      address: The address that gave this answer or this trouble; None where none was reached for.
      resolver: The link's own resolver that gave the address. None is the machine's resolver, which is not of one
        link, or that no name had to be looked up.
      status: The HTTP status, None without an answer. It counts even where the body was cut short.
      location: The Location header as latin-1 text, cut at 2048 characters; written by a stranger, never fetched.
      body_bytes: Length of the body as far as it was read, in bytes.
      capport: What the API said; None for other questions.
      detail: What happened, for a person to read; "" where the finding says it all.
      time: `trio.current_time()` when the outcome was known.
      seconds: How long it took, names included.
      generation: The routing cache's generation when it was asked.
    """

    question: Question
    finding: Finding
    endpoint: str = ""
    address: IPAddress | None = None
    resolver: IPAddress | None = None
    status: int | None = None
    location: str | None = None
    body_bytes: int = 0
    capport: Capport | None = None
    detail: str = ""
    time: float = 0.0
    seconds: float = 0.0
    generation: int = 0
