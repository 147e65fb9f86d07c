"""Adds and deletes many routes as fast as the kernel takes them, in a process of its own: what fills tables, and storms.

    python -m benchmarks.route_sender fill SHAPE VERSION SIZE     adds them
    python -m benchmarks.route_sender storm SIZE                  waits for a line, then adds and deletes them, IPv4
    python -m benchmarks.route_sender blink SIZE                  the same in turns, each added and at once deleted;
                                                                  others than `fill` adds

Prepared messages, many to a system call and none acknowledged, are several times faster than ip(8)'s batches. Errors
still come back; the first ends the program.
"""

from __future__ import annotations

import errno
import socket
import struct
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from ipaddress import IPv4Address, IPv6Address
from typing import cast

from benchmarks.prefixes import GATEWAYS, IPV4_FIRST, Shape, prefixes
from trio_routes.netlink import (
    AF_INET,
    AF_INET6,
    NLM_F_APPEND,
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

DEVICE = "bench0"
_SENT_AT_ONCE = 128 * 1024
# A destination that stands for the one to come, in a template; of the first family's 4 bytes, of the second's 16.
_MARKERS = {AF_INET: 0xDEADBE00, AF_INET6: 0xDEADBEEFDEADBEEF << 64}


def gateway(number: int, family: int) -> IPv4Address | IPv6Address:
    """The address of one of the gateways, all of them on DEVICE."""
    if family == AF_INET:
        return IPv4Address((10 << 24) + 2 + number)
    return IPv6Address((0xFD00 << 112) + 2 + number)


def bodies(number: int, length: int, shape: Shape, family: int, ifindex: int) -> Iterator[RouteBody]:
    """What the `number`th prefix of a shape leads to: one route, or two of different metrics."""

    def hop(at: int) -> NextHop:
        return NextHop(ifindex, gateway(at % GATEWAYS[shape], family))

    several = shape == "mixed" and number % 32 == 5
    ways = (hop(number), hop(number + 1)) if several else (hop(number),)
    yield RouteBody(
        family,
        RT_TABLE_MAIN,
        length,
        protocol=RTPROT_STATIC,
        scope=RT_SCOPE_UNIVERSE,
        type=RTN_UNICAST,
        nexthops=ways,
        multipath=several,
    )
    if shape == "mixed" and number % 16 == 3:
        yield RouteBody(
            family,
            RT_TABLE_MAIN,
            length,
            protocol=RTPROT_STATIC,
            scope=RT_SCOPE_UNIVERSE,
            type=RTN_UNICAST,
            priority=100,
            nexthops=(hop(number + 7),),
        )


def routes(size: int, shape: Shape, family: int, ifindex: int) -> Iterator[tuple[int, RouteBody]]:
    """Yield (destination, body) of a whole table, `size` prefixes; equal bodies are mostly one object."""
    several = 32 * GATEWAYS[shape]

    @cache
    def known(turn: int, length: int) -> tuple[RouteBody, ...]:
        return tuple(bodies(turn, length, shape, family, ifindex))

    for number, (destination, length) in enumerate(prefixes(size, shape, 4 if family == AF_INET else 6)):
        for body in known(number % several, length):
            yield destination, body


class Messages:
    """Makes route messages out of templates, one for each body: a message in the time of a slice."""

    def __init__(self, kind: int, flags: int) -> None:
        self._kind = kind
        self._flags = flags
        self._templates: dict[RouteBody, tuple[bytes, bytes]] = {}

    def of(self, destination: int, body: RouteBody) -> bytes:
        """Return the whole message about one route."""
        template = self._templates.get(body)
        width = 4 if body.family == AF_INET else 16
        if template is None:
            marker = _MARKERS[body.family]
            whole = build_message(self._kind, self._flags, 1, encode_route(RouteMessage(body, marker)))
            before, _, after = whole.partition(marker.to_bytes(width, "big"))
            template = self._templates[body] = before, after
        return destination.to_bytes(width, "big").join(template)


def adding(flags: int = NLM_F_REQUEST | NLM_F_CREATE | NLM_F_APPEND) -> Messages:
    return Messages(MessageType.RTM_NEWROUTE, flags)


def deleting(flags: int = NLM_F_REQUEST) -> Messages:
    return Messages(MessageType.RTM_DELROUTE, flags)


class Sender:
    """A netlink socket that sends many messages to a call."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * _SENT_AT_ONCE)

    def send(self, messages: Iterable[bytes]) -> None:
        """Send; returns when the kernel has carried out all. Raises OSError for the first that it refused."""
        waiting: list[bytes] = []
        octets = 0
        for message in messages:
            waiting.append(message)
            octets += len(message)
            if octets > _SENT_AT_ONCE:
                self._flush(waiting)
                waiting, octets = [], 0
        self._flush(waiting)

    def _flush(self, messages: list[bytes]) -> None:
        if not messages:
            return
        # The kernel carries requests out within send(); only refusals are answered.
        self._socket.send(b"".join(messages))
        try:
            answer = self._socket.recv(65536, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        number = -struct.unpack_from("=i", answer, 16)[0]
        raise OSError(number, f"the kernel refused a route: {errno.errorcode.get(number, number)}")


def main(arguments: list[str]) -> None:
    ifindex = socket.if_nametoindex(DEVICE)
    sender = Sender()
    match arguments:
        case ["fill", shape, version, size]:
            family = AF_INET if version == "4" else AF_INET6
            # The cast: a command line's strings are strings.
            table = routes(int(size), cast(Shape, shape), family, ifindex)
            make = adding()
            sender.send(make.of(*route) for route in table)
        case ["storm" | "blink" as how, size]:
            wanted = list(routes(int(size), "uniform", AF_INET, ifindex))
            add, delete = adding(), deleting()
            if how == "storm":
                messages = [add.of(*route) for route in wanted] + [delete.of(*route) for route in wanted]
            else:
                aside = 0xC0000000 - IPV4_FIRST
                messages = [make.of(route + aside, body) for route, body in wanted for make in (add, delete)]
            print("ready", flush=True)
            sys.stdin.readline()
            sender.send(messages)
            print("done", flush=True)
        case _:
            raise SystemExit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
