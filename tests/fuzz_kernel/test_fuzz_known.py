"""The known limits (docs/kernel.md): each comes up, is recognised for what it is, and nothing else is wrong."""

from __future__ import annotations

import pytest

from . import _known
from ._changes import Step
from ._run import replay

pytestmark = pytest.mark.netns

_PREFIX = "2001:db8:f::/48 metric 10"


@pytest.mark.parametrize(
    ("limit", "steps"),
    [
        pytest.param(
            _known.HIDDEN,
            [
                (f"-6 route add {_PREFIX} via 2001:db8:0::1 dev d0",),
                (f"-6 route append {_PREFIX} dev d1",),
                (f"-6 route append {_PREFIX} via 2001:db8:2::1 dev d2",),
            ],
            id="hidden",
        ),
        pytest.param(
            _known.EXPIRY,
            [
                (f"-6 route add {_PREFIX} expires 1000 via 2001:db8:0::1 dev d0",),
                (f"-6 route append {_PREFIX} via 2001:db8:0::1 dev d0",),
            ],
            id="expiry",
        ),
        pytest.param(
            _known.SOURCE_TIE,
            [("-6 addr add 2001:db8:1::11/64 dev d1 nodad", "-6 route add default via 2001:db8:1::1 dev d1")],
            id="tie",
        ),
        pytest.param(
            _known.BORROWED_SOURCE,
            [("addr flush dev d0", "link del d1", "plug d1", "addr add 10.0.1.10/24 dev d1", "lose")],
            id="borrowed",
        ),
        pytest.param(
            _known.TOO_SMALL,
            [
                ("-6 nexthop replace id 4 via 2001:db8:2::1 dev d2", "link set d2 mtu 1200"),
                ("-6 route add 2001:db8:f::/48 nhid 4",),
            ],
            id="too small",
        ),
        pytest.param(
            _known.LOST_SUBTREE,
            [
                ("-6 route replace 2001:db8:f::/48 metric 10 dev d1",),
                ("-6 route replace 2001:db8:f::7/128 metric 10 via 2001:db8:0::2 dev d0 onlink",),
                ("-6 route add 2001:db8:f::/48 metric 10 from 2001:db8:1::/64 dev d0",),
                ("-6 route flush dev d1",),
            ],
            id="lost subtree",
        ),
        pytest.param(
            _known.STALE_HASH,
            [
                ("far link set p1 down",),
                ("-4 route add 203.0.113.7/32 nexthop via 10.0.0.2 dev d0 nexthop via 10.0.1.1 dev d1 weight 3",),
                ("sysctl net.ipv4.conf.d1.ignore_routes_with_linkdown=1",),
            ],
            id="stale hash",
        ),
        pytest.param(
            _known.STALE_HASH,
            [
                (f"-6 route add {_PREFIX} nexthop via 2001:db8:0::1 dev d0 nexthop via 2001:db8:1::1 dev d1 weight 9",),
                ("far link set p1 down",),
                ("sysctl net.ipv6.conf.d1.ignore_routes_with_linkdown=1",),
            ],
            id="stale hash of IPv6",
        ),
        pytest.param(_known.LOOPBACK_SOURCE, [("-4 route add default via 10.0.0.1 dev d0",)], id="loopback"),
    ],
)
async def test_a_known_limit_is_recognised(limit: str, steps: list[Step]) -> None:
    assert set(replay(*steps).known) >= {limit}


async def test_what_the_dump_hides_is_used_and_comes_out_again() -> None:
    count = replay(
        (f"-6 route add {_PREFIX} via 2001:db8:0::1 dev d0",),
        (f"-6 route append {_PREFIX} dev d1",),
        (f"-6 route append {_PREFIX} via 2001:db8:2::1 dev d2",),
        ("lose",),  # everything is dumped, the hidden route is not in it, and lookups can miss it
        (f"-6 route del {_PREFIX} via 2001:db8:2::1 dev d2",),
    )
    assert count.known[_known.HIDDEN]
