"""An HTTP poller that neither hangs in a dead connection nor misses the network's return; httpx2, HTTP/2 if there is.

    python examples/http_client.py URL [POLLS]

It asks for URL every half second and prints what it gets, with the seconds since its start. Take the route to the
server away: a request in flight fails a second later ("lost:"), one that comes later at once ("no route:"). Add a
route: it goes on at once ("back:"), over a new connection, because its pool lends none that has lost its path. It
ends after POLLS answers (default 20). Needs `pip install 'trio-routes[httpx2]'`.
"""

from __future__ import annotations

import sys
from functools import partial

import httpx2
import trio

import trio_routes
from trio_routes.integrations.httpx2 import GuardedTransport


async def main(url: str, polls: int = 20) -> None:
    """Poll so many times."""
    began = trio.current_time()

    def say(what: str) -> None:
        print(f"{what} ({trio.current_time() - began:.2f} s)", flush=True)

    async with trio_routes.open_pt() as pt:
        transport = GuardedTransport(pt, http2=True)
        async with httpx2.AsyncClient(transport=transport) as client:
            while polls:
                try:
                    response = await client.get(url)
                    say(f"{response.http_version} {response.status_code}: {response.text.strip()}")
                    polls -= 1
                    await trio.sleep(0.5)
                except trio_routes.RouteLostError as error:  # an httpx2.TransportError, too
                    say(f"lost: {error}")
                except httpx2.ConnectError as error:
                    if not isinstance(error.__cause__, trio_routes.NoRouteError):
                        raise
                    say(f"no route: {error}")
                    await pt.wait_routable(httpx2.URL(url).host)  # for the network, not for a timer
                    say("back:")
    say("done")


if __name__ == "__main__":
    trio.run(partial(main, sys.argv[1], *map(int, sys.argv[2:3])))
