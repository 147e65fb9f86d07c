"""``trio-routes portal``: what is behind the default path and each link, asked once; and an endpoint to ask."""

from __future__ import annotations

import argparse
import json
import socket
from collections.abc import Iterable
from functools import partial

import attrs
import trio

from .._pt import Pt, open_pt
from ..portal import LinkHints, LinkPortal, PortalConfig, PortalKind, PortalState, serve_endpoint
from ._arguments import CommandFailedError, UsageError, add_json, ip_address, port
from ._endpoints import add_endpoints, portal_config
from ._iproute_json import JsonObject
from ._portal_forms import evidence_as_text, state_as_json, state_as_text
from ._status import ExitStatus

_STATUSES = {
    PortalKind.ONLINE: ExitStatus.OK,
    PortalKind.PORTAL: ExitStatus.PORTAL,
    PortalKind.PARTIAL: ExitStatus.PARTIAL,
    PortalKind.OFFLINE: ExitStatus.OFFLINE,
    PortalKind.NO_DNS: ExitStatus.OFFLINE,
    PortalKind.NO_LINK: ExitStatus.OFFLINE,
    PortalKind.UNKNOWN: ExitStatus.NOT_KNOWN,
}
_HTTP = 80


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.description = (
        "Ask the endpoints once, by each link and family, and say what is behind: the Internet, a captive portal, half a way "
        "or nothing; and what each answer was. `serve` is an endpoint itself: it answers 204 and the challenge."
    )
    parser.add_argument("action", nargs="?", choices=("serve",), help="be an endpoint, until interrupted")
    parser.add_argument("--interface", metavar="IF", help="only by this link; the exit status is that of its state")
    parser.add_argument(
        "--resolver",
        dest="resolvers",
        action="append",
        type=ip_address,
        default=[],
        metavar="ADDRESS",
        help="with --interface: look names up there, by that link; may be given several times",
    )
    parser.add_argument(
        "--api", metavar="URL", help="with --interface: the link's captive portal API (DHCP option 114)"
    )
    add_endpoints(parser)
    parser.add_argument("--port", type=port, default=_HTTP, metavar="N", help=f"serve: listen there ({_HTTP})")
    parser.add_argument("--host", metavar="ADDRESS", help="serve: listen on this address only")
    add_json(parser, "print one JSON object: the default path's state and evidence, and the links'")


def run(arguments: argparse.Namespace) -> int:
    """Ask and print, or serve."""
    if arguments.action == "serve":
        trio.run(_serve, arguments.host, arguments.port)
        return ExitStatus.OK
    config = attrs.evolve(portal_config(arguments, on_demand=True), hints=_hints(arguments))
    asked = trio.run(_ask, config, arguments.interface)
    print(json.dumps(asked.as_json()) if arguments.json else asked.as_text())
    return _STATUSES[asked.state.kind]


def _hints(arguments: argparse.Namespace) -> dict[str, LinkHints]:
    """What was said of the link; nothing where nothing was."""
    if not (arguments.resolvers or arguments.api):
        return {}
    if arguments.interface is None:
        raise UsageError("--resolver and --api say something of one link; name it with --interface")
    try:
        return {_name(arguments.interface): LinkHints(api_url=arguments.api, resolvers=arguments.resolvers)}
    except ValueError as error:
        raise UsageError(str(error)) from None


def _name(interface: str) -> str:
    """The name of a link that is given by name or number."""
    try:
        return socket.if_indextoname(int(interface))
    except (ValueError, OSError, OverflowError):
        return interface


async def _serve(host: str | None, port: int) -> None:
    """Serve until cancelled, saying where."""
    async with trio.open_nursery() as nursery:
        listeners: list[trio.SocketListener] = await nursery.start(
            partial(trio.serve_tcp, serve_endpoint, port, host=host)
        )
        for listener in listeners:
            address, its_port = listener.socket.getsockname()[:2]
            print(f"an endpoint listens on {address} port {its_port}", flush=True)


@attrs.frozen
class Asked:
    """What was found.

    Attributes:
      state: Of the default path, or of the link asked for.
      links: All links that were looked into.
      now: `trio.current_time()` then, from which times are told.
    """

    state: PortalState
    links: tuple[LinkPortal, ...]
    now: float

    def as_json(self) -> JsonObject:
        """One object, its keys the attributes of the public classes."""
        links: list[JsonObject] = [
            {
                "ifindex": link.ifindex,
                "ifname": link.name,
                "families": {str(family): state_as_json(state, self.now) for family, state in link.families.items()},
            }
            for link in self.links
        ]
        return state_as_json(self.state, self.now) | {"links": links}

    def as_text(self) -> str:
        """Some lines for people."""
        return "\n".join(self._lines())

    def _lines(self) -> Iterable[str]:
        yield state_as_text(self.state, self.now)
        for link in self.links:
            for family, state in link.families.items():
                yield f"{link.name} IPv{family}: {state_as_text(state, self.now)}"
                yield from (f"    {evidence_as_text(one)}" for one in state.evidence)
        if not self.links:
            yield from (f"    {evidence_as_text(one)}" for one in self.state.evidence)


async def _ask(config: PortalConfig, interface: str | None) -> Asked:
    """Ask once.

    Raises:
      CommandFailedError: There is no such link.
    """
    async with open_pt(portal=config) as pt:
        ifindex = None if interface is None else _ifindex(pt, interface)
        try:
            state = await pt.portal.check(ifindex)
        except LookupError:
            raise CommandFailedError(f"link {interface} is never probed: it has no way of its own") from None
        links = tuple(link for link in pt.portal.links.values() if ifindex in (None, link.ifindex))
        return Asked(state, links, trio.current_time())


def _ifindex(pt: Pt, name: str) -> int:
    for link in pt.routes.links.values():
        if link.name == name or str(link.ifindex) == name:
            return link.ifindex
    raise CommandFailedError(f"there is no link {name!r}")
