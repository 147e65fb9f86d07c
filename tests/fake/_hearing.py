"""Listening to a netlink socket, a fake kernel's or a real one's, and writing down what it says in comparable form."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from ipaddress import IPv4Address, IPv6Address, IPv6Network
from typing import Final, TypeAlias

import attrs

from trio_routes.netlink import (
    AF_INET,
    AF_INET6,
    IFF_LOWER_UP,
    IFF_UP,
    NLM_F_DUMP_INTR,
    RTNLGRP_IPV4_IFADDR,
    RTNLGRP_IPV4_ROUTE,
    RTNLGRP_IPV4_RULE,
    RTNLGRP_IPV6_IFADDR,
    RTNLGRP_IPV6_ROUTE,
    RTNLGRP_IPV6_RULE,
    RTNLGRP_LINK,
    IPAddress,
    MessageType,
    NetlinkSocket,
    NextHop,
    Request,
    decode_address,
    decode_link,
    decode_route,
    decode_rule,
    dump_addresses,
    dump_links,
    dump_routes,
    dump_rules,
    iter_messages,
)

GROUPS: Final = (
    RTNLGRP_LINK,
    RTNLGRP_IPV4_IFADDR,
    RTNLGRP_IPV4_ROUTE,
    RTNLGRP_IPV4_RULE,
    RTNLGRP_IPV6_IFADDR,
    RTNLGRP_IPV6_ROUTE,
    RTNLGRP_IPV6_RULE,
)
DUMPS: Final = (
    dump_links(),
    dump_addresses(AF_INET),
    dump_addresses(AF_INET6),
    dump_rules(AF_INET),
    dump_rules(AF_INET6),
    dump_routes(AF_INET),
    dump_routes(AF_INET6),
)
LINK_LOCAL: Final = IPv6Network("fe80::/64")
_MOST_WORDS = 100

Describe: TypeAlias = Callable[[bytes, int, int], str]


@attrs.define
class Hearing:
    """What a socket said, each message in one line."""

    socket: NetlinkSocket
    _buffer: bytearray = attrs.field(factory=lambda: bytearray(65536))
    _names: dict[int, str] = attrs.field(factory=lambda: {1: "lo"})
    _sequence: int = 0

    @classmethod
    def of(cls, socket: NetlinkSocket) -> Hearing:
        """Join the groups, and learn the links' names."""
        hearing = cls(socket)
        for group in GROUPS:
            socket.join(group)
        hearing.dump(dump_links())
        return hearing

    def datagrams(self) -> list[bytes]:
        """What is waiting, as it came."""
        found: list[bytes] = []
        while True:
            try:
                length, truncated, sender = self.socket.receive_into(self._buffer)
            except BlockingIOError:
                return found
            assert not truncated
            assert sender == 0
            found.append(bytes(self._buffer[:length]))

    def heard(self) -> list[str]:
        """What is waiting."""
        return [line for data in self.datagrams() for line in self._lines(data)]

    def dump(self, request: Request) -> list[str]:
        """Ask for a table, and return its lines. Only where nothing else is waiting and nothing changes."""
        self._sequence += 1
        self.socket.send(request.message(self._sequence))
        lines = self.heard()
        assert lines.pop() == "DONE", lines
        return lines

    def state(self) -> dict[str, list[str]]:
        """All tables, by what was asked."""
        # Sorted: the kernel has link-local addresses in an order that is as random as they are.
        return {request.description: sorted(self.dump(request)) for request in DUMPS}

    def _lines(self, data: bytes) -> list[str]:
        lines: list[str] = []
        for header, start, end in iter_messages(data):
            if header.type == MessageType.DONE:
                lines.append("DONE")
                continue
            assert not header.flags & NLM_F_DUMP_INTR
            describe: Mapping[int, Describe] = {
                MessageType.RTM_NEWLINK: self._link,
                MessageType.RTM_DELLINK: self._link,
                MessageType.RTM_NEWADDR: self._address,
                MessageType.RTM_DELADDR: self._address,
                MessageType.RTM_NEWROUTE: self._route,
                MessageType.RTM_DELROUTE: self._route,
                MessageType.RTM_NEWRULE: self._rule,
                MessageType.RTM_DELRULE: self._rule,
            }
            name = MessageType(header.type).name.removeprefix("RTM_")
            flags = f" {header.flags:#x}" if header.type == MessageType.RTM_NEWROUTE else ""
            lines.append(f"{name}{flags} {describe[header.type](data, start, end)}")
        return lines

    def _link(self, data: bytes, start: int, end: int) -> str:
        link = decode_link(data, start, end)
        self._names[link.ifindex] = link.name
        # Not RUNNING: while a link comes up it lags behind LOWER_UP, by chance.
        words = {"UP": IFF_UP, "LOWER_UP": IFF_LOWER_UP}
        return " ".join([link.name, *(word for word, bit in words.items() if link.flags & bit)])

    def _address(self, data: bytes, start: int, end: int) -> str:
        address = decode_address(data, start, end)
        where = f"{self._named(address.address, address.ifindex)}/{address.prefix_length}"
        return f"{where} {self._names[address.ifindex]} flags {address.flags:#x} scope {address.scope}"

    def _route(self, data: bytes, start: int, end: int) -> str:
        message = decode_route(data, start, end)
        body = message.body
        kind = IPv4Address if body.family == AF_INET else IPv6Address
        ifindex = body.nexthops[0].ifindex if body.nexthops else 0
        words = [
            f"{self._named(kind(message.destination), ifindex)}/{body.prefix_length}",
            *map(self._hop, body.nexthops),
        ]
        defaults = {"scope": body.scope, "metric": body.priority, "flags": body.flags, "src": body.prefsrc}
        words += [f"{name} {value}" for name, value in defaults.items() if value]
        return " ".join([*words, f"table {body.table} type {body.type} proto {body.protocol}"])

    def _rule(self, data: bytes, start: int, end: int) -> str:
        return str(attrs.asdict(decode_rule(data, start, end)))

    def _hop(self, hop: NextHop) -> str:
        via = f"via {hop.gateway} " if hop.gateway is not None else ""
        flags = f" [{hop.flags:#x}]" if hop.flags else ""
        return f"{via}dev {self._names.get(hop.ifindex, hop.ifindex)}{flags}"

    def _named(self, address: IPAddress, ifindex: int) -> str:
        """An address as text; link-local ones by their link, because they are made of random hardware addresses."""
        if isinstance(address, IPv6Address) and address in LINK_LOCAL and address != LINK_LOCAL.network_address:
            return f"fe80::{self._names.get(ifindex, ifindex)}"
        return str(address)
