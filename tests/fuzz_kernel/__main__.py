"""`make fuzz-kernel SECONDS=60 SEED=n`: runs of random steps, each with a seed of its own, until the time is over.

Exits with 1 at the first run that shows an unexplained difference, and prints its seed and a short sequence of steps that
shows it too, as a test.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from random import Random

import trio

from ._fuzz import LOOKUPS, fuzz, shrunk
from ._run import Count, Mismatch
from ._shrink import as_test


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="make fuzz-kernel", description="Hold the routing cache against the kernel.")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=None, help="the first run's; chosen and printed if not given")
    parser.add_argument("--lookups", type=int, default=LOOKUPS, help="after each step")
    options = parser.parse_args(arguments)
    seed = options.seed if options.seed is not None else Random().randrange(1_000_000)
    began = time.monotonic()
    until = began + options.seconds
    count = Count()
    print(f"seed {seed}, {options.seconds:.0f} s")
    wrong = 0
    while not wrong and time.monotonic() < until:
        try:
            fuzz(seed, until=until, count=count, lookups=options.lookups)
        except Mismatch as mismatch:
            wrong = 1
            print(f"\nseed {seed}, step {len(mismatch.steps)}: {mismatch}\n\nshrinking ...", flush=True)
            steps, last = shrunk(mismatch)
            print(f"\n{as_test(f'found_by_seed_{seed}', steps)}\n\n{last}\n")
        seed += 1
    passed = time.monotonic() - began
    print(
        f"{count.operations} operations, {count.lookups} lookups, {count.dumps} dumps compared in {passed:.0f} s; "
        f"{count.asked_again} times the cache asked for a dump"
    )
    for name, times in sorted(count.known.items()):
        print(f"{times:8} {name}")
    print(f"{wrong:8} unexplained")
    return wrong


async def _in_trio() -> int:
    # A socket is closed in a task only.
    return main()


if __name__ == "__main__":
    sys.exit(trio.run(_in_trio))
