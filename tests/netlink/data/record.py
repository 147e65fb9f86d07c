"""Record what the kernel says of the network in network.txt.

Run from the root as: PYTHONPATH=. unshare -Urn python tests/netlink/data/record.py

Writes recorded.json.gz beside itself: {name: [datagram as hexadecimal, ...]}. The recording in the
repository was made on Linux 6.18 with iproute2 6.1.
"""

from __future__ import annotations

import gzip
import json
import socket
import struct
import subprocess
import sys
import time
from ipaddress import ip_address
from pathlib import Path

from trio_routes.netlink import (
    AF_INET,
    AF_INET6,
    NLM_F_ACK,
    NLM_F_CREATE,
    NLM_F_EXCL,
    NLM_F_REQUEST,
    MessageType,
    Request,
    RuleMessage,
    dump_addresses,
    dump_links,
    dump_neighbours,
    dump_netconf,
    dump_nexthops,
    dump_routes,
    dump_rules,
    encode_rule,
    get_route,
)

HERE = Path(__file__).parent
SOL_NETLINK, ADD_MEMBERSHIP, CAP_ACK, EXT_ACK, STRICT_CHK = 270, 1, 10, 11, 12
GROUPS = (1, 3, 5, 7, 8, 9, 11, 12, 18, 19, 24, 25, 32)

# Rules newer than iproute2 6.1, and changes whose notifications are recorded.
NEW_RULES = (
    RuleMessage(AF_INET, priority=40, table=100, dscp=44, dscp_mask=60),
    RuleMessage(AF_INET6, priority=40, table=100, dscp=46),
    RuleMessage(AF_INET6, priority=41, table=100, flow_label=0x12300, flow_label_mask=0xFFF00),
    RuleMessage(AF_INET, priority=41, table=100, sport=(8, 8), sport_mask=0xFFF8, dport=(443, 443), dport_mask=0xFFFF),
)
CHANGES = (
    "route add 10.90.0.0/16 via 192.0.2.2",
    "route replace 10.90.0.0/16 via 192.0.2.3",
    "route append 10.90.0.0/16 via 192.0.2.4",
    "route del 10.90.0.0/16",
    "-6 route append 2001:db8:32::/48 nexthop via 2001:db8:1::3",
    "-6 route del 2001:db8:33::/48",
    "-4 rule del pref 10",
    "nexthop replace id 2 via 198.51.100.3 dev vc",
    "nexthop del id 4",
    "neigh del 192.0.2.3 dev va",
    "addr del 192.0.2.9/24 dev va",
    "link set vd nomaster",
    "link set va down",
    "link del vc",
)


def open_socket(*, ext_ack: bool = False, groups: tuple[int, ...] = ()) -> socket.socket:
    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
    sock.bind((0, 0))  # without a port of its own a socket gets no notification
    sock.settimeout(5)
    sock.setsockopt(SOL_NETLINK, STRICT_CHK, 1)
    if ext_ack:
        sock.setsockopt(SOL_NETLINK, EXT_ACK, 1)
    for group in groups:
        sock.setsockopt(SOL_NETLINK, ADD_MEMBERSHIP, group)
    return sock


def ask(request: Request, *, ext_ack: bool = True, capped: bool = False) -> list[bytes]:
    """Return the datagrams up to the DONE, the ERROR or the one answer."""
    datagrams: list[bytes] = []
    with open_socket(ext_ack=ext_ack) as sock:
        sock.setsockopt(SOL_NETLINK, CAP_ACK, capped)
        sock.send(request.message(7))
        while True:
            data = sock.recv(1 << 16)
            datagrams.append(data)
            offset = 0
            while offset < len(data):
                length, kind, flags = struct.unpack_from("=IHH", data, offset)
                if kind in (MessageType.DONE, MessageType.ERROR) or not flags & 2:
                    return datagrams
                offset += (length + 3) & ~3


def add_rule(rule: RuleMessage) -> Request:
    flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL
    return Request(MessageType.RTM_NEWRULE, flags, encode_rule(rule), "new rule")


def run(line: str) -> None:
    done = subprocess.run(["ip", *line.split()], capture_output=True, text=True, check=False)
    if done.returncode or done.stderr:
        sys.exit(f"ip {line}: {done.stderr}")


def record_changes() -> list[bytes]:
    datagrams: list[bytes] = []
    with open_socket(groups=GROUPS) as sock:
        for line in CHANGES:
            run(line)
        time.sleep(1.5)  # link state is announced up to a second late
        sock.setblocking(False)
        while True:
            try:
                datagrams.append(sock.recv(1 << 16))
            except BlockingIOError:
                return datagrams


def main() -> None:
    for line in (HERE / "network.txt").read_text().splitlines():
        run(line)
    for rule in NEW_RULES:
        answer = ask(add_rule(rule))
        if any(answer[0][16:20]):
            sys.exit(f"{rule}: {answer[0]!r}")
    time.sleep(1.5)
    v4, v6 = ip_address("10.3.0.1"), ip_address("2001:db8:32::1")
    nowhere = Request(MessageType.RTM_GETROUTE, NLM_F_REQUEST, bytes(12), "route to nothing")
    wrong_rule = add_rule(RuleMessage(AF_INET, priority=42, table=100, dscp=46, dscp_mask=60))
    wrong_dump = dump_routes(AF_INET)
    wrong_dump = wrong_dump._replace(payload=wrong_dump.payload[:1] + b"\x05" + wrong_dump.payload[2:])
    recorded = {
        "links": ask(dump_links()),
        "addresses": ask(dump_addresses()),
        "rules-4": ask(dump_rules(AF_INET)),
        "rules-6": ask(dump_rules(AF_INET6)),
        "nexthops": ask(dump_nexthops()),
        "neighbours": ask(dump_neighbours()),
        "netconf-4": ask(dump_netconf(AF_INET)),
        "netconf-6": ask(dump_netconf(AF_INET6)),
        "routes-4": ask(dump_routes(AF_INET)),
        "routes-6": ask(dump_routes(AF_INET6)),
        "routes-4-table-1000": ask(dump_routes(AF_INET, 1000)),
        "answer-4": ask(get_route(v4, source=ip_address("192.0.2.1"), mark=3, uid=0, tos=8)),
        "answer-4-match": ask(get_route(v4, fib_match=True)),
        "answer-6": ask(get_route(v6, source=ip_address("2001:db8:1::1"), mark=3, uid=0)),
        "answer-6-match": ask(get_route(v6, fib_match=True)),
        "refused": ask(get_route(ip_address("10.7.0.1"))),
        "refused-plain": ask(nowhere, ext_ack=False),
        "refused-explained": ask(wrong_rule),
        "refused-explained-capped": ask(wrong_rule, capped=True),
        "refused-dump": ask(wrong_dump),
        "acknowledged": ask(add_rule(RuleMessage(AF_INET, priority=43, table=100))),
        "changes": record_changes(),
    }
    text = json.dumps({name: [data.hex() for data in datagrams] for name, datagrams in recorded.items()})
    (HERE / "recorded.json.gz").write_bytes(gzip.compress(text.encode(), mtime=0))
    for name, datagrams in recorded.items():
        print(f"{name}: {len(datagrams)} datagrams, {sum(map(len, datagrams))} bytes")


if __name__ == "__main__":
    main()
