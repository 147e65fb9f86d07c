"""What may be asked of `pt.routes`: a mistake is named, and is never answered with a route."""

from __future__ import annotations

from ipaddress import IPv4Interface, ip_address
from typing import cast

import pytest

from tests.routing._build import ETH0, Host, hop
from trio_routes._routes import LookupArguments, Routes

LAST = {"mark": 2**32, "tos": 2**8, "uid": 2**32, "ip_proto": 2**8, "sport": 2**16, "dport": 2**16, "oif": 2**31}
LAST["iif"] = LAST["oif"]


@pytest.fixture
def routes() -> Routes:
    host = Host()
    host.address(ETH0, "10.0.0.5/24")
    host.add("0.0.0.0/0", hop(ETH0, "10.0.0.1"))
    return Routes(host.cache)


def argument(name: str, value: object) -> LookupArguments:
    return cast("LookupArguments", {name: value})


@pytest.mark.parametrize("name", LAST)
@pytest.mark.parametrize("beyond", ["below", "above"])
def test_a_number_out_of_its_range_is_refused_by_name(routes: Routes, name: str, beyond: str) -> None:
    number = -1 if beyond == "below" else LAST[name]
    message = rf"^{name} is a number from 0 to {LAST[name] - 1}, not {number}$"
    with pytest.raises(ValueError, match=message):
        routes.lookup("8.8.8.8", **argument(name, number))
    with pytest.raises(ValueError, match=message):
        routes.explain("8.8.8.8", **argument(name, number))


@pytest.mark.parametrize("name", LAST)
def test_the_last_number_of_its_range_is_taken(routes: Routes, name: str) -> None:
    assert (
        routes.lookup("8.8.8.8", **argument(name, LAST[name] - 1))
        == routes.explain("8.8.8.8", **argument(name, LAST[name] - 1)).resolution
    )


@pytest.mark.parametrize("name", LAST)
@pytest.mark.parametrize("wrong", ["7", "eth0", 7.5, b"7", ""])
def test_what_is_no_number_is_refused_by_name(routes: Routes, name: str, wrong: object) -> None:
    what = "an ifindex" if name in ("oif", "iif") else "a number"
    with pytest.raises(TypeError, match=rf"^{name} is {what}, not {wrong!r}$"):
        routes.lookup("8.8.8.8", **argument(name, wrong))


@pytest.mark.parametrize("name", ["mark", "tos", "ip_proto", "sport", "dport"])
def test_none_is_no_number_where_zero_says_none(routes: Routes, name: str) -> None:
    with pytest.raises(TypeError, match=rf"^{name} is a number, not None$"):
        routes.lookup("8.8.8.8", **argument(name, None))


@pytest.mark.parametrize("text", ["", "8.8.8", "8.8.8.300", "8.8.8.8/32", "example.org", "fe80::1%"])
def test_text_that_is_no_address_is_refused_each_time(routes: Routes, text: str) -> None:
    for _ in range(2):
        with pytest.raises(ValueError, match=r"does not appear to be|Invalid IPv6|not permitted"):
            routes.lookup(text)
        with pytest.raises(ValueError, match=r"does not appear to be|Invalid IPv6|not permitted"):
            routes.lookup("8.8.8.8", source=text)


@pytest.mark.parametrize("wrong", [None, 0x08080808, b"\x08\x08\x08\x08", ("8.8.8.8", 53)])
def test_what_is_neither_an_address_nor_text_is_refused_by_name(routes: Routes, wrong: object) -> None:
    with pytest.raises(TypeError, match=r"^destination is an address, or the text of one, not "):
        routes.lookup(cast("str", wrong))
    if wrong is not None:
        with pytest.raises(TypeError, match=r"^source is an address, or the text of one, not "):
            routes.lookup("8.8.8.8", **argument("source", wrong))


def test_an_interfaces_address_is_an_address(routes: Routes) -> None:
    assert (
        routes.lookup(IPv4Interface("8.8.8.8/24")) == routes.lookup("8.8.8.8") == routes.lookup(ip_address("8.8.8.8"))
    )
    assert str(routes.lookup("8.8.8.8", source="10.0.0.5").source) == "10.0.0.5"
