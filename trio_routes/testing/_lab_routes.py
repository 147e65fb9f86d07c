"""Routes and rules as tests write them, turned into pyroute2's fields."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from typing import Literal, TypeAlias, TypedDict

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
    device: Link | str | None = None
    weight: int = attrs.field(default=1, validator=[attrs.validators.ge(1), attrs.validators.le(256)])


class RouteOptions(TypedDict, total=False):
    """How to write a route.

    Attributes:
      via: The gateway; of the other family too.
      device: A link or its name.
      metric: Without one the kernel chooses (0; IPv6: 1024).
      table: Main (254) by default.
      type: "unicast", or what is to be answered instead.
      source: The preferred source address.
      nexthops: Of a multipath route, in place of ``via`` and ``device``.
      protocol: Who made it, as RTPROT_* of linux/rtnetlink.h (4: static, the default; 16: a DHCP client).
      family: 4 or 6; needed only where no address tells.
    """

    via: str | Address | None
    device: Link | str | None
    metric: int | None
    table: int | None
    type: RouteType
    source: str | Address | None
    nexthops: Sequence[Hop]
    protocol: int | None
    family: Family | None


class RuleOptions(TypedDict, total=False):
    """How to write a rule.

    Attributes:
      table: Where to look; main by default.
      source: A prefix of source addresses.
      destination: A prefix.
      incoming: The link by which a packet came; "lo" for the host's own.
      outgoing: The link to which the socket is bound.
      mark: The socket's or packet's mark, all 32 bits.
      action: "lookup" in the table, or what is to be answered.
      family: 4 or 6; needed only where no prefix tells.
    """

    table: int | None
    source: str | Network | None
    destination: str | Network | None
    incoming: Link | str | None
    outgoing: Link | str | None
    mark: int | None
    action: RuleAction
    family: Family | None


def route_fields(
    destination: str | Network,
    adding: bool,
    index_of: Callable[[str], int],
    *,
    via: str | Address | None = None,
    device: Link | str | None = None,
    metric: int | None = None,
    table: int | None = None,
    type: RouteType = "unicast",  # the kernel's word, in RouteOptions and so here
    source: str | Address | None = None,
    nexthops: Sequence[Hop] = (),
    protocol: int | None = None,
    family: Family | None = None,
) -> dict[str, object]:
    """Return pyroute2's fields of a route written as ``RouteOptions``.

    With ``adding``, defaults are filled in; a deletion matches only what is given. ``index_of`` gives the index of a
    link's name.

    Raises:
      ValueError: Something does not parse, the family cannot be known, or a gateway and next hops are both given.
      OSError: There is no such device.
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
        fields["oif"] = _index(device, index_of)
    if nexthops:
        fields["multipath"] = [_hop(hop, version, index_of) for hop in nexthops]
    if preferred is not None:
        fields["prefsrc"] = str(preferred)
    if adding and protocol is None:
        protocol = RTPROT_STATIC
    optional = {"priority": metric, "table": table, "proto": protocol}
    fields.update({name: value for name, value in optional.items() if value is not None})
    if type != "unicast":
        fields["type"] = type
        if type == "local":
            fields["scope"] = 254  # RT_SCOPE_HOST, as ip(8); without it the kernel answers EINVAL
    elif via is None and device is not None and version == 4:
        # As ip(8): without a gateway the destination is on the link itself (RT_SCOPE_LINK).
        fields["scope"] = 253
    return fields


def rule_fields(
    priority: int,
    *,
    table: int | None = None,
    source: str | Network | None = None,
    destination: str | Network | None = None,
    incoming: Link | str | None = None,
    outgoing: Link | str | None = None,
    mark: int | None = None,
    action: RuleAction = "lookup",
    family: Family | None = None,
) -> dict[str, object]:
    """Return pyroute2's fields of a rule; see ``RuleOptions``.

    Raises:
      ValueError: A prefix does not parse, the family cannot be known, or there is a table and no lookup.
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


def _hop(hop: Hop, version: Family, index_of: Callable[[str], int]) -> dict[str, object]:
    # struct rtnexthop holds the weight less one.
    fields: dict[str, object] = {"hops": hop.weight - 1}
    if hop.via is not None:
        fields.update(_gateway(parse_address(hop.via), version))
    if hop.device is not None:
        fields["oif"] = _index(hop.device, index_of)
    return fields


def _index(device: Link | str, index_of: Callable[[str], int]) -> int:
    return index_of(device) if isinstance(device, str) else device.ifindex


def _name(device: Link | str | None) -> str | None:
    return device.name if isinstance(device, Link) else device
