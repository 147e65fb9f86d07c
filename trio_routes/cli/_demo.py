"""``trio-routes demo``: the main job, on the real kernel, in network namespaces of its own."""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import Literal

import trio

from ..testing import Lab, LabUnavailable, become_lab_root
from ._arguments import CommandFailedError, add_family, add_json
from ._demo_acts import LOSSES, Say, find_the_portal, lose_the_wifi, reapply
from ._demo_report import ActResult, summary
from ._status import ExitStatus

_STORY = """\
A device with two uplinks, Wi-Fi and LTE, each behind a router that translates addresses; a server behind both.
Five times the Wi-Fi goes away, each time in another way, while connections only wait in receive_some().
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.description = (
        "Build a small network in namespaces of its own, take the Wi-Fi away in five ways and show what becomes of "
        "guarded and plain connections. Takes some 15 seconds; needs no rights but user namespaces. "
        "The exit status is 0 only if everything went as expected."
    )
    add_json(parser, "print one JSON object with everything observed; the story goes to stderr")
    add_family(parser)


def run(arguments: argparse.Namespace) -> int:
    """Play the demo."""
    try:
        become_lab_root()
    except LabUnavailable as error:
        raise CommandFailedError(f"the demo needs network namespaces: {error}") from None
    reason = Lab.unavailable()
    if reason is not None:
        raise CommandFailedError(f"the demo needs network namespaces: {reason}")
    family: Literal[4, 6] = 6 if arguments.family == 6 else 4
    out = sys.stderr if arguments.json else sys.stdout
    started = time.perf_counter()

    def say(line: str) -> None:
        print(f"{time.perf_counter() - started:7.3f} s  {line}", file=out, flush=True)

    print(_STORY, file=out, flush=True)
    results = trio.run(_play, family, say)
    seconds = time.perf_counter() - started
    ok = all(result.ok for result in results)
    print(f"\n{summary(results)}\n", file=out)
    print("Everything went as expected." if ok else "Not everything went as expected.", file=out, flush=True)
    if arguments.json:
        acts = [result.as_json() for result in results]
        print(json.dumps({"ok": ok, "family": family, "seconds": round(seconds, 2), "acts": acts}), flush=True)
    return ExitStatus.OK if ok else ExitStatus.FAILED


async def _play(family: Literal[4, 6], say: Say) -> list[ActResult]:
    results: list[ActResult] = []
    for loss in LOSSES:
        say(f"--- {loss.name}")
        results.append(await lose_the_wifi(loss, family, say))
    say("--- the Wi-Fi is reconfigured, under the default policy")
    results.append(await reapply(family, say))
    say("--- what is behind the new gateway?")
    results.append(await find_the_portal(family, say))
    return results
