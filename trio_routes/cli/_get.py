"""``trio-routes get``: the lookup that judges connections, for one packet, as ``ip route get`` asks the kernel."""

from __future__ import annotations

import argparse
import json
import os
from ipaddress import IPv6Address
from typing import Unpack

import attrs
import trio

from ..netlink import AF_INET, RTN_LOCAL, IPAddress, NextHop
from ..routing import Cache, Explanation, Kind, Link, LookupOptions, Outcome, Resolution
from ._arguments import CommandFailedError, UsageError, add_json, ip_address, ip_protocol, port, unsigned8, unsigned32
from ._iproute_json import Asked, JsonObject, answer_as_json, prefix_text
from ._iproute_text import route_text, table_text, type_text
from ._status import ExitStatus
from ._tables import names_in, read_cache


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.description = (
        "Say which route a packet sent by this host would take, from trio_routes' own copy of the tables. "
        f"Exit status {ExitStatus.NO_ROUTE.value}: none, or one that rejects."
    )
    parser.add_argument("address", type=ip_address, metavar="ADDRESS", help="where to; fe80::1%%eth0 implies --oif")
    parser.add_argument("--from", dest="source", type=ip_address, metavar="ADDRESS", help="the source address")
    parser.add_argument("--mark", type=unsigned32, default=0, metavar="N", help="the packet's mark (SO_MARK)")
    parser.add_argument("--oif", metavar="DEV", help="the link that the socket is bound to (SO_BINDTODEVICE)")
    parser.add_argument("--uid", type=unsigned32, metavar="N", help="the user who sends (default: you)")
    parser.add_argument("--tos", type=unsigned8, default=0, metavar="N", help="the TOS byte or traffic class")
    parser.add_argument(
        "--ipproto", type=ip_protocol, default=0, metavar="PROTO", help="tcp, udp or the like, or a number"
    )
    parser.add_argument(
        "--sport", type=port, default=0, metavar="PORT", help="the source port, where rules select by it"
    )
    parser.add_argument("--dport", type=port, default=0, metavar="PORT", help="the destination port, likewise")
    parser.add_argument(
        "--explain", action="store_true", help="say which rules and routes were tried, and what became of each"
    )
    add_json(
        parser, "print an array with the keys and values of `ip -j -d -N route get`; with --explain, `steps` besides"
    )


def run(arguments: argparse.Namespace) -> int:
    """Print the answer."""
    uid = os.getuid() if arguments.uid is None else arguments.uid
    scope = arguments.address.scope_id if isinstance(arguments.address, IPv6Address) else None
    asked = Asked(_bare(arguments.address), arguments.source, arguments.mark, uid)
    if asked.source is not None and asked.source.version != asked.destination.version:
        raise UsageError(f"--from {asked.source} is not of the same family as {asked.destination}")
    cache = trio.run(read_cache)
    explanation = explain(
        cache,
        asked,
        arguments.oif or scope,
        tos=arguments.tos,
        ip_proto=arguments.ipproto,
        sport=arguments.sport,
        dport=arguments.dport,
    )
    resolution = explanation.resolution
    steps = explanation if arguments.explain else None
    if arguments.json:
        said = resolution_as_json(cache, asked, resolution)
        print(json.dumps([said if steps is None else said | {"steps": steps_as_json(steps)}]))
    else:
        print(resolution_text(cache, asked, resolution))
        if steps is not None:
            print(steps.steps_text())
    return ExitStatus.OK if resolution.outcome is Outcome.ROUTED else ExitStatus.NO_ROUTE


def look_up(cache: Cache, asked: Asked, device: str | None = None, **others: Unpack[LookupOptions]) -> Resolution:
    """Ask the cache.

    Raises:
      CommandFailedError: There is no link ``device``.
    """
    return cache.lookup(asked.destination, **_options(cache, asked, device, others))


def explain(cache: Cache, asked: Asked, device: str | None = None, **others: Unpack[LookupOptions]) -> Explanation:
    """Ask the cache as `look_up` does, and how the answer came about. Raises likewise."""
    return cache.explain(asked.destination, **_options(cache, asked, device, others))


def _options(cache: Cache, asked: Asked, device: str | None, others: LookupOptions) -> LookupOptions:
    oif = None if device is None else _ifindex(cache, device)
    return {"source": asked.source, "mark": asked.mark, "oif": oif, "uid": asked.uid, **others}


def steps_as_json(explanation: Explanation) -> list[JsonObject]:
    """Return the steps of a lookup: each with ``why``, a word; ``text``, a sentence; and the rule and route that it is of."""
    steps: list[JsonObject] = []
    for step in explanation.steps:
        said: JsonObject = {"why": step.why.name.lower(), "text": str(step)}
        if step.rule is not None:
            said["rule"] = step.rule.priority
        if step.route is not None:
            body = step.route.body
            said["table"] = str(body.table)
            said["dst"] = prefix_text(body.family, step.route.address, body.prefix_length)
        steps.append(said)
    return steps


def resolution_as_json(cache: Cache, asked: Asked, resolution: Resolution) -> JsonObject:
    """Return the answer in iproute2's form, or ``dst``, ``type`` and ``error`` where there is no way."""
    if resolution.outcome is not Outcome.ROUTED:
        return {"dst": str(asked.destination), "type": resolution.outcome.value, "error": error_text(resolution)}
    body = None if resolution.route is None else resolution.route.body
    hops = tuple(_as_sent(cache, hop, resolution) for hop in resolution.hops)
    return answer_as_json(asked, body, hops, resolution.source, names_in(cache))


def error_text(resolution: Resolution) -> str:
    """What connect() would fail with, in the words of strerror(3)."""
    return os.strerror(resolution.errno)


def resolution_text(cache: Cache, asked: Asked, resolution: Resolution) -> str:
    """Return the answer and its reason in one line."""
    said = resolution_as_json(cache, asked, resolution)
    if resolution.outcome is not Outcome.ROUTED:
        return f"{said['dst']} {said['type']}: {said['error']}{_reason(resolution)}"
    return route_text(said, " ") + _reason(resolution)


def _reason(resolution: Resolution) -> str:
    reasons: list[str] = []
    route, rule = resolution.route, resolution.rule
    if route is not None:
        body = route.body
        kind = "" if resolution.outcome is Outcome.ROUTED else f"{type_text(body.type)} "
        prefix = prefix_text(body.family, route.address, body.prefix_length)
        reasons.append(f"by {kind}{prefix} of table {table_text(body.table)}")
    elif resolution.kind is Kind.LOCAL and resolution.outcome is Outcome.ROUTED:
        reasons.append("that is this host itself")
    elif resolution.outcome is Outcome.ROUTED:
        reasons.append("no route, so taken to be on the link asked for")
    if rule is not None:
        reasons.append(f"rule {rule.priority}")
    return f" ({', '.join(reasons)})" if reasons else ""


def _as_sent(cache: Cache, hop: NextHop, resolution: Resolution) -> NextHop:
    """Send what is for this host itself through ``lo``, whichever link has the address, as the kernel does.

    ip_route_output_key_hash_rcu() and ip6_rt_get_dev_rcu(); IPv6 keeps the link of an address that means nothing without it.
    """
    route = resolution.route
    if resolution.kind is not Kind.LOCAL or route is None or route.body.type != RTN_LOCAL:
        return hop
    if route.body.family != AF_INET and IPv6Address(route.address).is_link_local:
        return hop
    loopback = next((link for link in cache.links.values() if link.flags & Link.IFF_LOOPBACK), None)
    return hop if loopback is None else attrs.evolve(hop, ifindex=loopback.ifindex)


def _ifindex(cache: Cache, device: str) -> int:
    for link in cache.links.values():
        if link.name == device or str(link.ifindex) == device:
            return link.ifindex
    raise CommandFailedError(f"there is no link {device!r}")


def _bare(address: IPAddress) -> IPAddress:
    return IPv6Address(int(address)) if isinstance(address, IPv6Address) else address
