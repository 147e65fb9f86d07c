"""What one probe saw: facts only, no opinion. `_rules` draws the conclusion."""

from __future__ import annotations

import enum

import attrs

from ..netlink import IPAddress

# A Location of this many characters was cut, and points nowhere; RFC 9110 §4.1 asks for 8000, no login page needs 500.
MAX_LOCATION = 2048


class Trouble(enum.Enum):
    """Why a probe has no answer, or not the whole of one."""

    DNS = "dns"
    """The name did not resolve, or not in time."""
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
    OTHER = "other"
    """Another error of the local system; `Evidence.detail` has its text."""


@attrs.frozen(kw_only=True)
class Evidence:
    """The outcome of asking one endpoint once.

    Attributes:
      endpoint: The URL that was asked.
      address: The address that gave this answer or this trouble; None where the name did not resolve.
      status: The HTTP status, None without an answer. It counts even where `trouble` cut its body short.
      location: The Location header as latin-1 text, cut at 2048 characters; written by a stranger, never fetched.
      body_bytes: Length of the body as far as it was read, in bytes.
      trouble: What went wrong, None for a whole answer.
      detail: The same for a person to read; "" where nothing did.
      seconds: How long the probe took, names included.
    """

    endpoint: str
    address: IPAddress | None = None
    status: int | None = None
    location: str | None = None
    body_bytes: int = 0
    trouble: Trouble | None = None
    detail: str = ""
    seconds: float = 0.0
