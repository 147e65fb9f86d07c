"""The table of `_rules`, row by row and then for anything at all."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest
from hypothesis import example, given, strategies as st

from trio_routes.portal import Evidence, PortalKind, PortalState, Trouble
from trio_routes.portal._rules import judge, kind_of, login_url, same_finding, unknown

URL = "http://check.example/generate_204"
ONLINE, PORTAL, OFFLINE = PortalKind.ONLINE, PortalKind.PORTAL, PortalKind.OFFLINE


def seen(
    status: int | None = None, *, body: int = 0, trouble: Trouble | None = None, location: str | None = None
) -> Evidence:
    return Evidence(endpoint=URL, status=status, body_bytes=body, trouble=trouble, location=location)


@pytest.mark.parametrize(
    ("evidence", "kind"),
    [
        (seen(204), ONLINE),
        (seen(204, trouble=Trouble.CLOSED), ONLINE),
        (seen(511, body=900), PORTAL),
        (seen(302, location="http://login.example/"), PORTAL),
        (seen(307), PORTAL),
        (seen(302, trouble=Trouble.CLOSED), PORTAL),
        (seen(200, body=1), PORTAL),
        (seen(200, trouble=Trouble.TIMEOUT), PORTAL),
        (seen(203, body=12), PORTAL),
        (seen(200), OFFLINE),
        (seen(205), OFFLINE),
        (seen(403, body=50), OFFLINE),
        (seen(404, body=50), OFFLINE),
        (seen(500, body=50), OFFLINE),
        (seen(510, body=50), OFFLINE),
        (seen(503, location="http://login.example/"), OFFLINE),
        *((seen(trouble=trouble), OFFLINE) for trouble in Trouble),
    ],
)
def test_each_row_of_the_table(evidence: Evidence, kind: PortalKind) -> None:
    assert kind_of(evidence) is kind
    assert judge([evidence], 7).kind is kind


@pytest.mark.parametrize(
    ("several", "kind"),
    [
        ([seen(204), seen(302)], PORTAL),
        ([seen(302), seen(204)], PORTAL),
        ([seen(trouble=Trouble.TIMEOUT), seen(204)], ONLINE),
        ([seen(404), seen(trouble=Trouble.DNS)], OFFLINE),
        ([], PortalKind.UNKNOWN),
    ],
)
def test_how_several_endpoints_combine(several: list[Evidence], kind: PortalKind) -> None:
    assert judge(several, 7) == PortalState(kind, None, tuple(several), 7)


def test_the_login_page_is_that_of_a_portal_and_of_the_first_that_names_one() -> None:
    state = judge(
        [seen(404, location="http://not.example/"), seen(511, body=9), seen(302, location="http://login.example/")], 1
    )
    assert state.url == "http://login.example/"


@pytest.mark.parametrize(
    ("location", "url"),
    [
        ("http://login.example/?a=1#b", "http://login.example/?a=1#b"),
        ("https://login.example", "https://login.example"),
        ("/login", "http://check.example/login"),
        ("//login.example/x", "http://login.example/x"),
        ("http://login.example/caf\xc3\xa9 a", "http://login.example/caf%C3%A9%20a"),
        ("http://login.example/%C3%A9", "http://login.example/%C3%A9"),
        (None, None),
        ("", None),
        ("javascript:alert(1)", None),
        ("file:///etc/passwd", None),
        ("ftp://login.example/", None),
        ("https:///login", None),
        ("http://[2001:db8::1", None),
        ("http://login.example:99999/", None),
        ("http://login.example/" + "a/../" * 500, None),
    ],
)
def test_which_locations_are_login_pages(location: str | None, url: str | None) -> None:
    assert login_url(seen(302, location=location)) == url


@given(
    st.builds(
        Evidence,
        endpoint=st.just(URL),
        status=st.none() | st.integers(-1, 1100),
        location=st.none() | st.text(max_size=60) | st.text("htp:/[]%?#@.1 ", max_size=30),
        body_bytes=st.integers(0, 3),
        trouble=st.none() | st.sampled_from(Trouble),
    )
)
@example(seen(302, location="http://[::1]x/"))
def test_any_evidence_has_a_conclusion_and_no_url_but_a_usable_one(evidence: Evidence) -> None:
    state = judge([evidence], 1)
    assert state.result == {ONLINE: "OK", PORTAL: "Captive", OFFLINE: "No internet"}[state.kind]
    if state.url is not None:
        assert state.kind is PORTAL
        assert state.url.isascii()
        assert state.url.isprintable()
        assert " " not in state.url
        assert urlsplit(state.url).scheme in {"http", "https"}
        assert urlsplit(state.url).hostname


@given(st.lists(st.sampled_from([seen(204), seen(302), seen(200), seen(trouble=Trouble.DNS)]), min_size=1, max_size=5))
def test_the_order_of_the_endpoints_does_not_matter(several: list[Evidence]) -> None:
    assert judge(several, 1).kind is judge(several[::-1], 1).kind


def test_unknown_promises_nothing() -> None:
    assert unknown(3).result == "No internet"
    assert unknown(3) == judge([], 3)


def test_a_fresh_token_in_the_login_url_is_no_news_and_another_page_is() -> None:
    def at(url: str) -> PortalState:
        return judge([seen(302, location=url)], 1)

    assert same_finding(at("http://login.example/x?token=1"), at("http://login.example/x?token=2"))
    assert not same_finding(at("http://login.example/x"), at("http://login.example/y"))
    assert not same_finding(at("http://login.example/x"), judge([seen(204)], 1))
    assert not same_finding(judge([seen(511)], 1), at("http://login.example/x"))
