"""Routes and rules as tests write them, turned into pyroute2's fields."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import Literal, TypeAlias

import attrs

from ._lab_links import Link
from ._lab_words import Address, Network, parse_address, parse_prefix

Family: TypeAlias = Literal[4, 6]
RouteType: TypeAlias = Literal["unicast", "local", "blackhole", "unreachable", "prohibit", "throw"]
RuleAction: TypeAlias = Literal["lookup", "blackhole", "unreachable", "prohibit"]

# include/uapi/linux/rtnetlink.h
RT_TABLE_MAIN = 254
RTPROT_STATIC = 4

_FAMILIES: dict[Family, int] = {4: socket.AF_INET, 6: socket.AF_INET6}


@attrs.frozen
class Hop:
    """One next hop of a multipath route.

    Attributes:
      via: The gateway's address, or None for an on-link hop.
      device: The link, or None to let the kernel find it from the gateway.
      weight: 1 to 256.
    """

    via: str | Address | None = None
    device: Link | int | None = None
    weight: int = attrs.field(default=1, validator=[attrs.validators.ge(1), attrs.validators.le(256)])


def route_fields(
    destination: str | Network,
    *,
    via: str | Address | None,
    device: Link | int | None,
    metric: int | None,
    table: int | None,
    type: RouteType,
    source: str | Address | None,
    nexthops: Sequence[Hop],
    protocol: int | None,
    family: Family | None,
) -> dict[str, object]:
    """Return pyroute2's fields of a route.

    Raises:
      ValueError: Something does not parse, the family cannot be known, or a gateway and next hops are both given.
    """
    if nexthops and (via is not None or device is not None):
        raise ValueError("a multipath route has its gateways and devices in nexthops, not in via and device")
    gateway = None if via is None else parse_address(via)
    prefix = None if destination == "default" else parse_prefix(destination)
    preferred = None if source is None else parse_address(source)
    hints = [thing.version for thing in (prefix, preferred, gateway) if thing is not None]
    hints += [parse_address(hop.via).version for hop in nexthops if hop.via is not None]
    version = _family(f"route to {destination}", family, hints)
    fields: dict[str, object] = {"family": _FAMILIES[version], "dst": "default" if prefix is None else str(prefix)}
    if gateway is not None:
        fields.update(_gateway(gateway, version))
    if device is not None:
        fields["oif"] = _index(device)
    if nexthops:
        fields["multipath"] = [_hop(hop, version) for hop in nexthops]
    if preferred is not None:
        fields["prefsrc"] = str(preferred)
    optional = {"priority": metric, "table": table, "proto": protocol}
    fields.update({name: value for name, value in optional.items() if value is not None})
    if type != "unicast":
        fields["type"] = type
    elif via is None and device is not None and version == 4:
        # As ip(8): without a gateway the destination is on the link itself (RT_SCOPE_LINK).
        fields["scope"] = 253
    return fields


def rule_fields(
    *,
    priority: int,
    table: int | None,
    source: str | Network | None,
    destination: str | Network | None,
    incoming: Link | str | None,
    outgoing: Link | str | None,
    mark: int | None,
    action: RuleAction,
    family: Family | None,
) -> dict[str, object]:
    """Return pyroute2's fields of a rule.

    Raises:
      ValueError: A prefix does not parse, or the family cannot be known.
    """
    prefixes = {
        key: parse_prefix(prefix) for key, prefix in (("src", source), ("dst", destination)) if prefix is not None
    }
    version = _family(f"rule {priority}", family, [prefix.version for prefix in prefixes.values()])
    fields: dict[str, object] = {"family": _FAMILIES[version], "priority": priority}
    for key, prefix in prefixes.items():
        fields |= {key: str(prefix.network_address), f"{key}_len": prefix.prefixlen}
    if action == "lookup":
        fields["table"] = RT_TABLE_MAIN if table is None else table
    elif table is not None:
        raise ValueError(f"a rule that says {action} has no table")
    else:
        fields["action"] = action
    optional = {"iifname": _name(incoming), "oifname": _name(outgoing), "fwmark": mark}
    fields.update({name: value for name, value in optional.items() if value is not None})
    return fields


def _family(what: str, family: Family | None, hints: Sequence[int]) -> Family:
    if family is not None:
        return family
    if not hints:
        raise ValueError(f"the {what} could be IPv4 or IPv6: say family=4 or family=6")
    # The first hint is the destination's, the strongest: an IPv4 route may have an IPv6 gateway.
    return 6 if hints[0] == 6 else 4


def _gateway(gateway: Address, version: Family) -> dict[str, object]:
    if gateway.version == version:
        return {"gateway": str(gateway)}
    # RTA_VIA: a gateway of the other family
    return {"via": {"family": _FAMILIES[6 if gateway.version == 6 else 4], "addr": str(gateway)}}


def _hop(hop: Hop, version: Family) -> dict[str, object]:
    # struct rtnexthop holds the weight less one.
    fields: dict[str, object] = {"hops": hop.weight - 1}
    if hop.via is not None:
        fields.update(_gateway(parse_address(hop.via), version))
    if hop.device is not None:
        fields["oif"] = _index(hop.device)
    return fields


def _index(device: Link | int) -> int:
    return device if isinstance(device, int) else device.ifindex


def _name(device: Link | str | None) -> str | None:
    return device.name if isinstance(device, Link) else device
