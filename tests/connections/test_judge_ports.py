"""Policy rules that select by protocol and port: the judge asks as the connection's own socket does."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from tests.routing._build import ETH0, ETH1, Host, hop
from trio_routes.connections._flow import Flow
from trio_routes.connections._judge import resolve
from trio_routes.netlink import RuleMessage

TCP, UDP = 6, 17


@pytest.fixture(params=["192.0.2.7", "2001:db8::7"])
def peer(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize(
    ("selectors", "protocol", "met"),
    [
        ({"ip_proto": TCP}, "tcp", True),
        ({"ip_proto": TCP}, "udp", False),
        ({"ip_proto": UDP}, "udp", True),
        ({"dport": (5000, 6000)}, "tcp", True),
        ({"dport": (80, 80)}, "tcp", False),
        ({"sport": (40000, 40000)}, "udp", True),
        ({"sport": (40001, 50000)}, "tcp", False),
        ({"ip_proto": TCP, "dport": (5432, 5432), "sport": (1, 65535)}, "tcp", True),
    ],
)
def test_a_connection_goes_by_the_rule_that_selects_its_protocol_and_ports(
    peer: str, selectors: dict[str, object], protocol: str, met: bool
) -> None:
    host, family = Host(), 2 if "." in peer else 10
    host.add("0.0.0.0/0" if family == 2 else "::/0", hop(ETH0))
    host.add("0.0.0.0/0" if family == 2 else "::/0", hop(ETH1), table=100)
    host.rule(RuleMessage(family, 100, 100, **selectors))  # type: ignore[arg-type]  # names of RuleMessage
    flow = Flow(peer=ip_address(peer), peer_port=5432, local_port=40000, protocol=protocol)
    (way,) = resolve(flow, host.cache).hops
    assert way.ifindex == (ETH1 if met else ETH0)
