"""The far side of bench-judge, in a namespace of its own: takes connections to whatever address is routed to it, and holds them.

python -m benchmarks.judge_peer        prints "here", waits for a line (its link has been moved in by then),
                                       prints "ready"; then for each line closes what it holds and prints "closed"
"""

import resource
import selectors
import socket
import struct
import sys

from benchmarks.judge_network import CROWD, PEER_ADDRESS, PEER_LINK, PORT, VICTIM
from benchmarks.namespace import ip

_LINGER_NOTHING = struct.pack("ii", 1, 0)


def main() -> None:
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    print("here", flush=True)
    sys.stdin.readline()
    ip("link set dev lo up", f"link set dev {PEER_LINK} up", f"address add {PEER_ADDRESS}/16 dev {PEER_LINK}")
    ip(*(f"route add local {network} dev lo" for network in (CROWD, VICTIM)))
    with socket.create_server(("", PORT), backlog=4096) as listener, selectors.DefaultSelector() as selector:
        listener.setblocking(False)
        selector.register(listener, selectors.EVENT_READ)
        selector.register(sys.stdin, selectors.EVENT_READ)
        print("ready", flush=True)
        held: list[socket.socket] = []
        while True:
            for key, _ in selector.select():
                if key.fileobj is listener:
                    _take(listener, held)
                    continue
                if not sys.stdin.readline():
                    return
                _take(listener, held)
                for sock in held:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOTHING)
                    sock.close()
                held.clear()
                print("closed", flush=True)


def _take(listener: socket.socket, held: list[socket.socket]) -> None:
    while True:
        try:
            held.append(listener.accept()[0])
        except BlockingIOError:
            return


if __name__ == "__main__":
    main()
