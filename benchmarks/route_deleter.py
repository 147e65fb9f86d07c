"""Deletes and restores one IPv4 route, in a process of its own, and tells when: the stimulus of the latency benchmarks.

    python -m benchmarks.route_deleter 192.0.2.0/24 bench0 10.0.0.2

For each line that it reads it deletes the route ("delete") or adds it again ("add"), and prints the time just before
the system call, CLOCK_MONOTONIC in nanoseconds. Plain sockets and prepared bytes, so that nothing but the kernel lies
between the time and the notification.
"""

import socket
import struct
import sys
import time
from ipaddress import IPv4Address, IPv4Network

from trio_routes.netlink import (
    AF_INET,
    NLM_F_ACK,
    NLM_F_CREATE,
    NLM_F_REQUEST,
    RT_SCOPE_UNIVERSE,
    RT_TABLE_MAIN,
    RTN_UNICAST,
    RTPROT_STATIC,
    MessageType,
    NextHop,
    RouteBody,
    RouteMessage,
    build_message,
    encode_route,
)


def main(destination: IPv4Network, link: str, gateway: IPv4Address) -> None:
    body = RouteBody(
        family=AF_INET,
        table=RT_TABLE_MAIN,
        prefix_length=destination.prefixlen,
        type=RTN_UNICAST,
        protocol=RTPROT_STATIC,
        scope=RT_SCOPE_UNIVERSE,
        nexthops=(NextHop(socket.if_nametoindex(link), gateway),),
    )
    payload = encode_route(RouteMessage(body=body, destination=int(destination.network_address)))
    delete = build_message(MessageType.RTM_DELROUTE, NLM_F_REQUEST | NLM_F_ACK, 1, payload)
    add = build_message(MessageType.RTM_NEWROUTE, NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE, 2, payload)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as netlink:
        print("ready", flush=True)
        for request in iter(sys.stdin.readline, ""):
            message = delete if request == "delete\n" else add
            before = time.monotonic_ns()
            netlink.send(message)
            errno = -struct.unpack_from("=i", netlink.recv(4096), 16)[0]
            if errno:
                raise OSError(errno, "the kernel refused the route")
            print(before, flush=True)


if __name__ == "__main__":
    main(IPv4Network(sys.argv[1]), sys.argv[2], IPv4Address(sys.argv[3]))
