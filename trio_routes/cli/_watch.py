"""``trio-routes watch``: the events of this machine's routing, a line each, as they happen."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import TypeAlias

import trio

from .._events import Event
from .._pt import Pt
from ..portal import PortalConfig
from ..routing import Link
from ._arguments import CommandFailedError, UsageError, add_json, positive, seconds
from ._endpoints import add_endpoints, portal_config
from ._event_json import event_as_json, time_text
from ._event_text import Line, event_line
from ._progress import open_pt_with_progress
from ._status import ExitStatus

# An event is published with its whole batch, and a batch may flush a table: all of it waits here while a terminal scrolls.
_BUFFER = 100_000
_STYLES = {"+": "green", "-": "red", "~": "yellow", "!": "bold magenta"}

# Prints one line and flushes it: a mark, a time, what it is about, and the rest.
Print: TypeAlias = Callable[[str, Line], None]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.description = "Print what happens to this machine's routes, links, addresses and rules. Ctrl-C ends it."
    add_json(parser)
    parser.add_argument("-n", dest="count", type=positive, metavar="COUNT", help="end after so many events")
    parser.add_argument("--for", dest="seconds", type=seconds, metavar="SECONDS", help="end after so long")
    parser.add_argument(
        "--portal",
        action="store_true",
        help="ask what is behind each link, too, whenever that may have changed: the Internet, a captive portal, nothing",
    )
    add_endpoints(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print events until told to stop."""
    if not arguments.portal and (arguments.endpoints or arguments.challenge or arguments.ca):
        raise UsageError("whom to ask was said, and nobody is asked without --portal")
    portal = portal_config(arguments, on_demand=False) if arguments.portal else None
    trio.run(_watch, arguments.json, arguments.count, arguments.seconds, portal)
    return ExitStatus.OK


async def _watch(as_json: bool, count: int | None, longest: float | None, portal: PortalConfig | None) -> None:
    async with open_pt_with_progress(portal) as pt:
        if not pt.monitoring:
            raise CommandFailedError("there is nothing to watch: the kernel's routing tables cannot be followed here")
        names = Names(pt.routes.links)
        clock = WallClock()
        show = _json_lines(names, clock) if as_json else _text_lines(names, clock)
        with trio.move_on_after(float("inf") if longest is None else longest), pt.subscribe(buffer=_BUFFER) as events:
            _print_start(pt, clock, as_json)
            left = count
            async for event in events:
                show(event)
                left = None if left is None else left - 1
                if left == 0:
                    return


class Names:
    """Names links, those that have gone meanwhile too: a link's routes are told of after it."""

    def __init__(self, links: Mapping[int, Link]) -> None:
        self._links = links
        self._known = {ifindex: link.name for ifindex, link in links.items()}

    def __call__(self, ifindex: int) -> str:
        link = self._links.get(ifindex)
        if link is not None:
            self._known[ifindex] = link.name
        return self._known.get(ifindex, f"if{ifindex}")


class WallClock:
    """Tells what time it was when Trio's clock, which starts anywhere and ignores the calendar, showed some number."""

    def __init__(self) -> None:
        self._start = datetime.now(UTC) - timedelta(seconds=trio.current_time())

    def at(self, time: float) -> datetime:
        """The wall-clock time, in UTC, at ``time`` of `trio.current_time()`."""
        return self._start + timedelta(seconds=time)


def _print_start(pt: Pt, clock: WallClock, as_json: bool) -> None:
    """Say what is watched, so that silence can be told from failure."""
    routes = pt.routes
    now = clock.at(trio.current_time())
    sizes = {
        "routes": pt.statistics().routes,
        "links": len(routes.links),
        "addresses": len(routes.addresses),
        "rules": len(routes.rules),
    }
    if as_json:
        said = {"event": "Watching", "generation": pt.generation, "time": time_text(now)}
        print(json.dumps(said | sizes), flush=True)
    else:
        print("watching " + ", ".join(f"{number} {what}" for what, number in sizes.items()), flush=True)


def _json_lines(names: Names, clock: WallClock) -> Callable[[Event], None]:
    def show(event: Event) -> None:
        print(json.dumps(event_as_json(event, names, clock.at(event.time))), flush=True)

    return show


def _text_lines(names: Names, clock: WallClock) -> Callable[[Event], None]:
    print_line = _coloured() if sys.stdout.isatty() else None

    def show(event: Event) -> None:
        at = clock.at(event.time).astimezone().strftime("%H:%M:%S.%f")[:-3]
        (print_line or _plain)(at, event_line(event, names))

    return show


def _plain(at: str, line: Line) -> None:
    print(f"{at} {line.mark} {line.subject:<7} {line.text}", flush=True)


def _coloured() -> Print | None:
    """Return what prints in colours, or None where rich is not installed."""
    try:
        from rich.console import Console
        from rich.text import Text
    except ModuleNotFoundError:
        return None
    console = Console(highlight=False, soft_wrap=True)

    def print_line(at: str, line: Line) -> None:
        style = _STYLES[line.mark]
        console.print(Text.assemble((at, "dim"), f" {line.mark} ", (f"{line.subject:<7}", f"{style}"), f" {line.text}"))

    return print_line
