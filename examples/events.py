"""What happens to the way to one address: a line for every change of it.

    python examples/events.py ADDRESS [CHANGES]

It prints which way packets to ADDRESS go now. Change routes, addresses or links meanwhile: for each change that moves
the way it prints the new answer; a change elsewhere (a container's bridge, another prefix) prints nothing. It ends
after CHANGES (default 3).
"""

from __future__ import annotations

import sys
from functools import partial

import trio

import trio_routes


def way(pt: trio_routes.Pt, address: str) -> str:
    """Say which way packets go, in words."""
    resolution = pt.routes.lookup(address)
    if resolution.outcome is not trio_routes.Outcome.ROUTED:
        return str(resolution)
    names = [pt.routes.links[hop.ifindex].name for hop in resolution.hops if hop.ifindex in pt.routes.links]
    gateways = [f" via {hop.gateway}" for hop in resolution.hops if hop.gateway is not None]
    return f"by {', '.join(names) or resolution.kind.value}{''.join(gateways)}"


async def main(address: str, changes: int = 3) -> None:
    """Print so many changes."""
    async with trio_routes.open_pt() as pt:
        # Subscribed first, looked up second, no `await` between: nothing falls into a gap.
        with pt.subscribe() as events:
            known = way(pt, address)
            print(f"{address}: {known}", flush=True)
            # An event says that something changed; the tables say what is true now. Several events may have come
            # together, so the answer is not pinned on one of them. Lagged, too, is just a reason to look.
            async for _event in events:
                now = way(pt, address)
                if now == known:
                    continue
                known = now
                print(f"{address}: {known}", flush=True)
                changes -= 1
                if changes == 0:
                    break
    print("done", flush=True)


if __name__ == "__main__":
    trio.run(partial(main, sys.argv[1], *map(int, sys.argv[2:3])))
