"""Events for people: one line each, a mark, what it is about, and the rest."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from .._events import (
    AddressAdded,
    AddressRemoved,
    Event,
    GatewayChanged,
    Lagged,
    LinkDown,
    LinkPortalChanged,
    LinkUp,
    PortalChanged,
    PortalExpiring,
    Resynced,
    RouteAdded,
    RouteRemoved,
    RouteReplaced,
    RuleChanged,
    Woke,
)
from ..netlink import AF_INET, FR_ACT_TO_TBL, NextHop
from ..routing import Address, Route, Rule
from ._event_json import RULE_ACTIONS, rule_as_json
from ._iproute_json import NameOf, route_as_json
from ._iproute_text import route_text, table_text
from ._portal_forms import state_as_text


class Line(NamedTuple):
    """A line about an event.

    Attributes:
      mark: "+" something came, "-" something went, "~" it changed, "!" what is shown is incomplete, was read anew or will
        not last.
      subject: What the event is about.
      text: The rest.
    """

    mark: str
    subject: str
    text: str


def event_line(event: Event, name_of: NameOf) -> Line:
    """Say an event in one line; ``name_of`` names links."""
    match event:
        case RouteAdded():
            return Line("+", "route", _route(event.route, name_of) + _because(event.cause))
        case RouteRemoved():
            return Line("-", "route", _route(event.route, name_of) + _because(event.cause))
        case RouteReplaced():
            texts = f"{_route(event.old, name_of)} is now {_route(event.route, name_of)}"
            return Line("~", "route", texts + _because(event.cause))
        case LinkUp():
            return Line("+", "link", f"{event.link.name} is up")
        case LinkDown():
            return Line("-", "link", f"{event.link.name} carries nothing any more{_because(event.cause)}")
        case AddressAdded():
            return Line("+", "address", _address(event.address, name_of))
        case AddressRemoved():
            return Line("-", "address", _address(event.address, name_of) + _because(event.cause))
        case RuleChanged():
            rules = [_rule(rule) for rule in (event.old, event.new) if rule is not None]
            return Line("~" if len(rules) == 2 else "+" if event.old is None else "-", "rule", " is now ".join(rules))
        case GatewayChanged():
            return Line("~", "gateway", _gateways(event, name_of))
        case Resynced():
            return Line("!", "tables", f"were read anew: {event.reason}; {event.differences} differences, shown above")
        case Lagged():
            return Line("!", "events", f"{event.missed} came too fast to be shown")
        case _:
            return _line_beyond_routing(event, name_of)


def _line_beyond_routing(event: Event, name_of: NameOf) -> Line:
    match event:
        case PortalChanged():
            return Line("~", "portal", _behind("the default path", event))
        case LinkPortalChanged():
            return Line("~", "portal", _behind(f"{name_of(event.ifindex)} by IPv{event.family}", event))
        case PortalExpiring():
            return Line("!", "portal", _expiring(event, name_of))
        case Woke():
            return Line("!", "machine", f"slept for {event.slept_seconds:.0f} s")
        case _:
            return Line("!", type(event).__name__, "")


def _because(cause: str) -> str:
    # Of a notification of the kernel the line says all already.
    return "" if not cause or cause.startswith("RTM_") else f" ({cause})"


def _route(route: Route, name_of: NameOf) -> str:
    return route_text(route_as_json(route, name_of), " ")


def _address(address: Address, name_of: NameOf) -> str:
    return f"{address.address}/{address.prefix_length} on {name_of(address.ifindex)}"


def _rule(rule: Rule) -> str:
    said = rule_as_json(rule)
    selectors = [f"{rule.priority}:", "not" if rule.invert else "", f"from {said['src']}"]
    selectors += [f"to {said['dst']}"] if "dst" in said else []
    if "fwmark" in said:
        selectors.append(f"fwmark {said['fwmark']}" + (f"/{said['fwmask']}" if "fwmask" in said else ""))
    selectors += [f"{key} {said[key]}" for key in ("tos", "iif", "oif") if key in said]
    if rule.uid_range is not None:
        selectors.append("uidrange {}-{}".format(*rule.uid_range))
    action = RULE_ACTIONS.get(rule.action, str(rule.action))
    target = table_text(rule.table) if rule.action == FR_ACT_TO_TBL else str(said.get("goto", ""))
    return " ".join(filter(None, (*selectors, action, target)))


def _gateways(event: GatewayChanged, name_of: NameOf) -> str:
    family = "IPv4" if event.family == AF_INET else "IPv6"
    before, after = _ways(event.before, name_of), _ways(event.after, name_of)
    return f"of {family} in table {table_text(event.table)}: {before} is now {after}"


def _ways(hops: Iterable[NextHop], name_of: NameOf) -> str:
    return ", then ".join(f"{hop.gateway} by {name_of(hop.ifindex)}" for hop in hops) or "none"


def _behind(path: str, event: PortalChanged | LinkPortalChanged) -> str:
    return f"behind {path}: {event.before.kind.value} is now {state_as_text(event.state, event.time)}"


def _expiring(event: PortalExpiring, name_of: NameOf) -> str:
    path = f"{name_of(event.ifindex)} by IPv{event.family}" if event.ifindex else "the default path"
    state = event.state
    left = [] if state.expires_at is None else [f"in {max(state.expires_at - event.time, 0):.0f} s"]
    left += [] if state.bytes_remaining is None else [f"after {state.bytes_remaining:.0f} bytes"]
    return f"behind {path}: the network ends the session " + " or ".join(left)
