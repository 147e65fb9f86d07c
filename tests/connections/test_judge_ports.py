"""Policy rules that select by what is the socket's own: the judge asks as the connection's own socket does."""

from __future__ import annotations

from ipaddress import ip_address

import attrs
import pytest

from tests.routing._build import ETH0, ETH1, LO, Host, hop
from trio_routes.connections._flow import Flow
from trio_routes.connections._judge import resolve, source_there
from trio_routes.netlink import RTN_LOCAL, RuleMessage

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


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
@pytest.mark.parametrize(
    ("selectors", "own"),
    [({"mark": 7, "mask": 0xFF}, {"mark": 7}), ({"uid_range": (7, 7)}, {"uid": 7}), ({"tos": 0x10}, {"tos": 0x10})],
    ids=["mark", "user", "type of service"],
)
def test_a_connection_goes_by_the_rule_that_selects_its_own_mark_user_or_service(
    peer: str, selectors: dict[str, object], own: dict[str, int], protocol: str
) -> None:
    host, family = Host(), 2 if "." in peer else 10
    default = "0.0.0.0/0" if family == 2 else "::/0"
    host.add(default, hop(ETH0))
    host.add(default, hop(ETH1), table=100)
    host.rule(RuleMessage(family, 100, 100, **selectors))  # type: ignore[arg-type]  # names of RuleMessage
    flow = Flow(peer=ip_address(peer), peer_port=5432, local_port=40000, protocol=protocol)
    (other,) = resolve(flow, host.cache).hops
    assert other.ifindex == ETH0
    mine = attrs.evolve(flow, **own)  # type: ignore[arg-type]  # names of Flow
    (way,) = resolve(mine, host.cache).hops
    # An established IPv6 TCP socket is looked up without its traffic class (tests/verdicts, row 56).
    ignored = family == 10 and protocol == "tcp" and "tos" in own
    assert way.ifindex == (ETH0 if ignored else ETH1)


@pytest.mark.parametrize("own", [{"mark": 7}, {"uid": 7}])
def test_an_ipv6_source_may_be_local_by_a_rule_that_selects_the_socket(own: dict[str, int]) -> None:
    host = Host()
    host.add("2001:db8:5::/64", hop(LO), table=100, type=RTN_LOCAL)
    host.rule(RuleMessage(10, 100, 100, mark=7, mask=0xFF))
    host.rule(RuleMessage(10, 101, 100, uid_range=(7, 7)))
    flow = Flow(peer=ip_address("2001:db8::7"), local=ip_address("2001:db8:5::1"))
    assert not source_there(flow, host.cache)
    mine = attrs.evolve(flow, **own)  # type: ignore[arg-type]  # names of Flow
    assert source_there(mine, host.cache)
