"""What would become of a connection if a link, its default route or its address went: asked, not tried.

    python examples/what_if.py HOST PORT

It connects, prints how the connection stands and then, for everything that it depends on here, what would close if
that went. Nothing goes: it ends with the connection as good as it was.
"""

from __future__ import annotations

import sys

import trio

import trio_routes


def suppositions(pt: trio_routes.Pt, connection: trio_routes.Connection) -> list[tuple[str, ...]]:
    """What a connection depends on here, as words for what_if()."""
    names = [pt.routes.links[hop.ifindex].name for hop in connection.now.hops if hop.ifindex in pt.routes.links]
    default = "0.0.0.0/0" if connection.flow.family == trio.socket.AF_INET else "::/0"
    found: list[tuple[str, ...]] = [(f"address {connection.flow.local} gone",)]
    for name in names:
        found += [(f"link {name} without carrier",), (f"link {name} down",), (f"link {name} gone",)]
        found.append((f"route {default} dev {name} gone",))
    # Several things at once: everything that leads anywhere.
    found.append(tuple(f"link {link.name} down" for link in pt.routes.links.values() if link.name != "lo"))
    return found


async def main(host: str, port: int) -> None:
    """Connect, and ask."""
    async with trio_routes.open_pt() as pt, await pt.open_tcp_stream(host, port, label="example") as stream:
        print(pt.connections.explain(stream.connection), flush=True)
        for changes in suppositions(pt, stream.connection):
            try:
                print(pt.connections.what_if(*changes), flush=True)
            except ValueError as error:  # it does not depend on a default route, for one
                print(f"({error})", flush=True)
        print(f"and yet: {stream.connection.standing.value}", flush=True)
    print("done", flush=True)


if __name__ == "__main__":
    trio.run(main, sys.argv[1], int(sys.argv[2]))
