"""Events as JSON objects, one a line: what ``trio-routes watch --json`` prints."""

from __future__ import annotations

import enum
from datetime import UTC, datetime
from typing import cast

import attrs

from .._events import Event
from ..netlink import (
    AF_INET,
    FR_ACT_BLACKHOLE,
    FR_ACT_GOTO,
    FR_ACT_NOP,
    FR_ACT_PROHIBIT,
    FR_ACT_TO_TBL,
    FR_ACT_UNREACHABLE,
    NextHop,
    RuleMessage,
)
from ..portal import PortalState
from ..routing import Address, Link, Route
from ._iproute_json import Json, JsonObject, NameOf, member_as_json, prefix_text, route_as_json
from ._portal_forms import state_as_json

# As `ip rule` names them.
RULE_ACTIONS = {
    FR_ACT_TO_TBL: "lookup",
    FR_ACT_GOTO: "goto",
    FR_ACT_NOP: "nop",
    FR_ACT_BLACKHOLE: "blackhole",
    FR_ACT_UNREACHABLE: "unreachable",
    FR_ACT_PROHIBIT: "prohibit",
}


def event_as_json(event: Event, name_of: NameOf, at: datetime) -> JsonObject:
    """Return an event's name, generation, time and fields, and the form that libwebsockets gives it.

    Routes have iproute2's keys, links and addresses those of ``ip -j link`` and ``ip -j addr``; what is behind a path has
    those of ``trio-routes portal --json``.

    Args:
      event: The event.
      name_of: Names links.
      at: The wall-clock time that its own, Trio's, stands for.
    """
    said: JsonObject = {"event": type(event).__name__, "generation": event.generation, "time": time_text(at)}
    for field in attrs.fields(type(event)):
        if field.name not in said:
            value: object = getattr(event, field.name)
            if isinstance(value, PortalState):
                said[field.name] = state_as_json(value, event.time)
            else:
                said[field.name] = _value(value, name_of)
    return said | {"smd": event.as_smd()}


def time_text(at: datetime) -> str:
    """The time in UTC, to the millisecond, as RFC 3339 writes it."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _value(value: object, name_of: NameOf) -> Json:
    match value:
        case None | bool() | int() | float() | str():
            return value
        case Route():
            return route_as_json(value, name_of)
        case Link():
            return _link_as_json(value, name_of)
        case Address():
            return _address_as_json(value, name_of)
        case RuleMessage():
            return rule_as_json(value)
        case NextHop():
            family = AF_INET if value.gateway is None or value.gateway.version == 4 else 0
            return member_as_json(value, family, name_of, value.flags)
        case enum.Enum():
            return str(value.value)
        case tuple():
            members = cast(tuple[object, ...], value)
            return [_value(member, name_of) for member in members]
        case _:
            return str(value)


def _link_as_json(link: Link, name_of: NameOf) -> JsonObject:
    said: JsonObject = {"ifindex": link.ifindex, "ifname": link.name, "mtu": link.mtu, "address": link.address.hex(":")}
    if link.kind:
        said["kind"] = link.kind
    if link.master:
        said["master"] = name_of(link.master)
    return said | {"up": link.up, "carrier": link.carrier}


def _address_as_json(address: Address, name_of: NameOf) -> JsonObject:
    return {
        "family": "inet" if address.address.version == 4 else "inet6",
        "local": str(address.address),
        "prefixlen": address.prefix_length,
        "dev": name_of(address.ifindex),
    }


def rule_as_json(rule: RuleMessage) -> JsonObject:
    """Return a rule by the keys of ``ip -j rule``; selectors that select nothing are left out."""
    said: JsonObject = {"family": "inet" if rule.family == AF_INET else "inet6", "priority": rule.priority}
    if rule.invert:
        said["not"] = None
    said["src"] = prefix_text(rule.family, rule.source, rule.source_length) if rule.source_length else "all"
    if rule.destination_length:
        said["dst"] = prefix_text(rule.family, rule.destination, rule.destination_length)
    if rule.tos:
        said["tos"] = f"{rule.tos:#04x}"
    if rule.mark or rule.mask:
        said["fwmark"] = f"{rule.mark:#x}"
        if rule.mask != 0xFFFFFFFF:
            said["fwmask"] = f"{rule.mask:#x}"
    if rule.iif:
        said["iif"] = rule.iif
    if rule.oif:
        said["oif"] = rule.oif
    if rule.uid_range is not None:
        said["uid_start"], said["uid_end"] = rule.uid_range
    if rule.action == FR_ACT_TO_TBL:
        return said | {"table": str(rule.table)}
    if rule.action == FR_ACT_GOTO:
        return said | {"goto": rule.goto}
    return said | {"action": RULE_ACTIONS.get(rule.action, str(rule.action))}
