"""A program of its own that takes the time of each of the kernel's messages: what the demo's figures are measured from.

Run by its path, isolated, with nothing but the standard library, so that it starts in some 20 ms. It writes "ready",
then for every datagram a line: CLOCK_MONOTONIC in nanoseconds, which is what `time.perf_counter()` reads as well. In the
demo's own process a second thread would wait for the interpreter while the loop is busy ending connections.
"""

import socket
import time

_SOL_NETLINK = 270
_NETLINK_ADD_MEMBERSHIP = 1
# Links, IPv4 and IPv6 addresses and routes; linux/rtnetlink.h.
_GROUPS = (1, 5, 7, 9, 11)


def main() -> None:
    """Watch until killed."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as netlink:
        netlink.bind((0, 0))
        for group in _GROUPS:
            netlink.setsockopt(_SOL_NETLINK, _NETLINK_ADD_MEMBERSHIP, group)
        print("ready", flush=True)
        while True:
            netlink.recv(65536)
            print(time.monotonic_ns(), flush=True)


if __name__ == "__main__":
    main()
