"""The captive portal API's answer (RFC 8908 §5). Pure.

    key                 type                     kept if it is not that
    ------------------  -----------------------  ----------------------------------------
    captive             boolean, required        no: the whole answer is refused
    user-portal-url     https URL                left out
    venue-info-url      https URL                left out
    can-extend-session  boolean                  left out
    seconds-remaining   number, finite, >= 0     left out
    bytes-remaining     number, finite, >= 0     left out

A server that gets an optional key wrong still knows whether it holds traffic back, so only `captive` decides. RFC 8908
§4.1 has both URLs be https "to allow" a secure page; in the field user-portal-url is often http, and it is only shown to
a person, so http is let through for it.
"""

from __future__ import annotations

import json
import math
from typing import Final, TypeGuard, cast
from urllib.parse import urlsplit

import attrs

MEDIA_TYPE: Final = "application/captive+json"
UNRESTRICTED: Final = "urn:ietf:params:capport:unrestricted"
"""In place of an API's URL: this network has no captive portal (RFC 8910 §2)."""

_MAX_URL = 2048


@attrs.frozen(kw_only=True)
class Capport:
    """What a captive portal API says of this client.

    Attributes:
      captive: Whether its traffic is held back.
      portal_url: The page to log in at.
      venue_url: A page about the place.
      can_extend: Whether the session can be prolonged at `portal_url`; None if not told.
      seconds_remaining: Until the session ends; None if it does not, or is not told.
      bytes_remaining: Until the session ends; likewise.
    """

    captive: bool
    portal_url: str | None = None
    venue_url: str | None = None
    can_extend: bool | None = None
    seconds_remaining: float | None = None
    bytes_remaining: float | None = None


def parse_capport(content_type: str, body: bytes) -> Capport:
    """Read an answer of the API.

    Args:
      content_type: The Content-Type header.
      body: The whole body.

    Raises:
      ValueError: It is not the API's media type, not JSON, no object, or has no boolean `captive`.
    """
    media_type = content_type.partition(";")[0].strip().lower()
    if media_type != MEDIA_TYPE:
        raise ValueError(f"the content type is {media_type[:80]!r}, not {MEDIA_TYPE}")
    try:
        said: object = json.loads(body)
    except (ValueError, RecursionError) as error:  # bad UTF-8 is a ValueError too; 64 KiB of "[" recurse
        raise ValueError(f"no JSON: {error}") from error
    if not isinstance(said, dict):
        raise ValueError("the JSON is no object")
    keys = cast(dict[str, object], said)
    captive = keys.get("captive")
    if not isinstance(captive, bool):
        raise ValueError("no boolean 'captive'")
    extend = keys.get("can-extend-session")
    return Capport(
        captive=captive,
        portal_url=_url(keys.get("user-portal-url"), ("https", "http")),
        venue_url=_url(keys.get("venue-info-url"), ("https",)),
        can_extend=extend if isinstance(extend, bool) else None,
        seconds_remaining=_amount(keys.get("seconds-remaining")),
        bytes_remaining=_amount(keys.get("bytes-remaining")),
    )


def _url(value: object, schemes: tuple[str, ...]) -> str | None:
    if not isinstance(value, str) or len(value) > _MAX_URL or not value.isprintable() or " " in value:
        return None
    try:
        parts = urlsplit(value)
        usable = parts.scheme in schemes and bool(parts.hostname) and parts.port != 0
    except ValueError:  # brackets or a port that urllib cannot read
        return None
    return value if usable else None


def _amount(value: object) -> float | None:
    if not _is_number(value):
        return None
    try:
        amount = float(value)
    except OverflowError:
        return None
    return amount if math.isfinite(amount) and amount >= 0 else None


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)
