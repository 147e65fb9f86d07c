"""What is behind a path, and how that is known, as JSON and as a line for people."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Address, IPv6Address

from ..portal import Capport, Evidence, PortalState
from ._iproute_json import Json, JsonObject


def state_as_json(state: PortalState, now: float) -> JsonObject:
    """Return a state with its evidence; times are seconds from now."""
    return _without_none(
        {
            "state": state.kind.value,
            "result": state.result,
            "url": state.url,
            "venue": state.venue,
            "expires_in": None if state.expires_at is None else round(state.expires_at - now, 3),
            "bytes_remaining": state.bytes_remaining,
            "generation": state.generation,
            "evidence": [evidence_as_json(one, now) for one in state.evidence],
        }
    )


def evidence_as_json(evidence: Evidence, now: float) -> JsonObject:
    """Return one piece of evidence; what is not known is left out, and times are seconds before now."""
    capport = evidence.capport
    return _without_none(
        {
            "question": evidence.question.value,
            "finding": evidence.finding.value,
            "endpoint": evidence.endpoint or None,
            "address": _text(evidence.address),
            "resolver": _text(evidence.resolver),
            "status": evidence.status,
            "location": evidence.location,
            "body_bytes": evidence.body_bytes or None,
            "capport": None if capport is None else _capport_as_json(capport),
            "detail": evidence.detail or None,
            "seconds_ago": round(now - evidence.time, 3),
            "seconds": round(evidence.seconds, 6),
            "generation": evidence.generation,
        }
    )


def _capport_as_json(capport: Capport) -> JsonObject:
    return _without_none(
        {
            "captive": capport.captive,
            "portal_url": capport.portal_url,
            "venue_url": capport.venue_url,
            "can_extend": capport.can_extend,
            "seconds_remaining": capport.seconds_remaining,
            "bytes_remaining": capport.bytes_remaining,
        }
    )


def _text(address: IPv4Address | IPv6Address | None) -> str | None:
    return None if address is None else str(address)


def _without_none(said: Mapping[str, Json]) -> JsonObject:
    return {key: value for key, value in said.items() if value is not None}


def state_as_text(state: PortalState, now: float) -> str:
    """Return a state in a line."""
    words = [state.kind.value]
    if state.url is not None:
        words.append(f"at {_printable(state.url)}")
    if state.venue is not None:
        words.append(f"venue {_printable(state.venue)}")
    if state.expires_at is not None:
        words.append(f"ends in {max(state.expires_at - now, 0):.0f} s")
    return ", ".join(words)


def evidence_as_text(evidence: Evidence) -> str:
    """Return one piece of evidence in a line."""
    words = [f"{evidence.question.value}: {evidence.finding.value}"]
    if evidence.endpoint:
        words.append(_printable(evidence.endpoint))
    if evidence.address is not None:
        names = f", which {evidence.resolver} resolved" if evidence.resolver is not None else ""
        words.append(f"at {evidence.address}{names}")
    if evidence.status is not None:
        words.append(f"status {evidence.status} in {evidence.seconds * 1000:.1f} ms")
    if evidence.detail:
        words.append(_printable(evidence.detail))
    return "; ".join(words)


def _printable(text: str) -> str:
    """What a stranger wrote, fit for a terminal."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)
