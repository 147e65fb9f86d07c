"""What may be configured, and that a mistake is told where it was made."""

from __future__ import annotations

import h11
import pytest
from hypothesis import example, given, strategies as st

from trio_routes.portal import Endpoint, PortalConfig


@pytest.mark.parametrize(
    ("url", "host", "port", "authority", "target"),
    [
        ("http://a.example/generate_204", "a.example", 80, "a.example", "/generate_204"),
        ("http://a.example", "a.example", 80, "a.example", "/"),
        ("http://A.example:8080/x?y=1", "a.example", 8080, "A.example:8080", "/x?y=1"),
        ("http://192.0.2.1/", "192.0.2.1", 80, "192.0.2.1", "/"),
        ("http://[2001:db8::1]:81/", "2001:db8::1", 81, "[2001:db8::1]:81", "/"),
    ],
)
def test_an_endpoint_knows_whom_to_ask_for_what(url: str, host: str, port: int, authority: str, target: str) -> None:
    endpoint = Endpoint(url)
    assert (endpoint.host, endpoint.port, endpoint.authority, endpoint.target) == (host, port, authority, target)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("https://a.example/", "scheme"),
        ("a.example/generate_204", "scheme"),
        ("", "printable"),
        ("http://a.example/a b", "printable"),
        ("http://a.example/\r\nX: y", "printable"),
        ("http://münchen.example/", "printable"),
        ("http:///generate_204", "host"),
        ("http://a..example/", "labels"),
        ("http://a.example../", "labels"),
        ("http://" + "a" * 64 + ".example/", "labels"),
        ("http://" + "a." * 130 + "example/", "labels"),
        ("http://a,b.example/", "host"),
        ("http://user:secret@a.example/", "user name"),
        ("http://a.example/#top", "fragment"),
        ("http://a.example:0/", "port 0"),
        ("http://a.example:99999/", "[Pp]ort"),
        ("http://[2001:db8::1/", "IPv6"),
        ("http://[fe80::1%eth0]/", "zone"),
    ],
)
def test_a_url_that_cannot_be_asked_is_refused_with_the_reason(url: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Endpoint(url)


@given(st.text(max_size=40) | st.from_regex(r"http://[!-~]{1,30}", fullmatch=True))
@example("http://[::1")
@example("http://[v1.x]/")
def test_an_endpoint_that_is_accepted_makes_a_request_that_h11_accepts(url: str) -> None:
    try:
        endpoint = Endpoint(url)
    except ValueError:
        return
    assert endpoint.host
    assert 0 < endpoint.port < 65536
    h11.Request(method="GET", target=endpoint.target, headers=[("Host", endpoint.authority)])
    # What getaddrinfo() does first; a UnicodeError there is no OSError.
    endpoint.host.encode("idna")


def test_a_configuration_has_one_to_five_different_endpoints() -> None:
    several = [Endpoint(f"http://a{number}.example/") for number in range(6)]
    assert PortalConfig(endpoints=several[:5]).endpoints == tuple(several[:5])
    assert len(PortalConfig().endpoints) == 1
    for wrong in ([], several, [several[0], several[0]]):
        with pytest.raises(ValueError, match="endpoint"):
            PortalConfig(endpoints=wrong)
