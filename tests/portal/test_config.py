"""What may be configured, and that a mistake is told where it was made."""

from __future__ import annotations

import h11
import pytest
from hypothesis import example, given, strategies as st

from trio_routes.portal import Endpoint, Evidence, LinkHints, PortalConfig, Question, Way


@pytest.mark.parametrize(
    ("url", "host", "port", "authority", "target"),
    [
        ("http://a.example/generate_204", "a.example", 80, "a.example", "/generate_204"),
        ("http://a.example", "a.example", 80, "a.example", "/"),
        ("http://A.example:8080/x?y=1", "a.example", 8080, "A.example:8080", "/x?y=1"),
        ("http://192.0.2.1/", "192.0.2.1", 80, "192.0.2.1", "/"),
        ("https://a.example/x", "a.example", 443, "a.example", "/x"),
        ("https://a.example:8443/x", "a.example", 8443, "a.example:8443", "/x"),
        ("http://[2001:db8::1]:81/", "2001:db8::1", 81, "[2001:db8::1]:81", "/"),
    ],
)
def test_an_endpoint_knows_whom_to_ask_for_what(url: str, host: str, port: int, authority: str, target: str) -> None:
    endpoint = Endpoint(url)
    assert (endpoint.host, endpoint.port, endpoint.authority, endpoint.target) == (host, port, authority, target)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("ftp://a.example/", "scheme"),
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
    for wrong in ([], several, [several[0], several[0]]):
        with pytest.raises(ValueError, match="endpoint"):
            PortalConfig(endpoints=wrong)


def test_the_default_asks_by_each_kind() -> None:
    kinds = [endpoint.question for endpoint in PortalConfig().endpoints]
    assert kinds == [Question.HTTP_204, Question.HTTP_BODY, Question.HTTPS_204]
    assert PortalConfig().per_link


def test_probes_of_ones_own_may_stand_in_for_the_endpoints_and_count_with_them() -> None:
    async def own(way: Way) -> Evidence:
        raise NotImplementedError

    assert PortalConfig(endpoints=(), probes=[own]).probes == (own,)
    with pytest.raises(ValueError, match="1 to 5 endpoints and probes, not 6"):
        PortalConfig(probes=[own] * 3)


def test_a_body_goes_with_plain_http_and_has_a_size() -> None:
    assert Endpoint("http://a.example/", body=b"x").question is Question.HTTP_BODY
    with pytest.raises(ValueError, match="only http endpoints"):
        Endpoint("https://a.example/", body=b"x")
    for body in (b"", b"x" * 65537):
        with pytest.raises(ValueError, match="1 to 65536 bytes"):
            Endpoint("http://a.example/", body=body)


def test_hints_are_checked_where_they_are_given() -> None:
    hints = LinkHints(api_url="https://a.example/api", resolvers=["192.0.2.53", "2001:db8::53"])
    assert [str(address) for address in hints.resolvers] == ["192.0.2.53", "2001:db8::53"]
    with pytest.raises(ValueError, match="must be https"):
        LinkHints(api_url="http://a.example/api")
    with pytest.raises(ValueError, match="does not appear to be"):
        LinkHints(resolvers=["dns.example"])
