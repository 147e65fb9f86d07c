"""The tables of `_rules` and `_answer`, row by row and then for anything at all."""

from __future__ import annotations

from ipaddress import ip_address
from urllib.parse import urlsplit

import attrs
import pytest
from hypothesis import example, given, strategies as st

from trio_routes.portal import Capport, Endpoint, Evidence, Finding, PortalKind, PortalState, Question
from trio_routes.portal._answer import finding_of
from trio_routes.portal._rules import combine, judge, login_url, same_finding, unknown

URL = "http://check.example/generate_204"
LOGIN = "http://login.example/"


def seen(
    finding: Finding,
    question: Question = Question.HTTP_204,
    *,
    location: str | None = None,
    capport: Capport | None = None,
    time: float = 0.0,
) -> Evidence:
    return Evidence(question=question, finding=finding, endpoint=URL, location=location, capport=capport, time=time)


PASSED = seen(Finding.PASSED)
SECURE = seen(Finding.PASSED, Question.HTTPS_204)
REDIRECT = seen(Finding.REDIRECT, location=LOGIN)
API = Question.API
TABLES = Question.TABLES


@pytest.mark.parametrize(
    ("status", "body", "torn", "finding"),
    [
        (204, 0, False, Finding.PASSED),
        (204, 0, True, Finding.PASSED),
        (511, 900, False, Finding.LOGIN_REQUIRED),
        (302, 0, False, Finding.REDIRECT),
        (307, 0, True, Finding.REDIRECT),
        (200, 1, False, Finding.FOREIGN_BODY),
        (200, 0, True, Finding.FOREIGN_BODY),
        (203, 12, False, Finding.FOREIGN_BODY),
        (200, 0, False, Finding.WRONG_STATUS),
        (205, 0, False, Finding.WRONG_STATUS),
        (400, 50, False, Finding.WRONG_STATUS),
        (403, 50, False, Finding.WRONG_STATUS),
        (500, 50, False, Finding.WRONG_STATUS),
        (510, 50, False, Finding.WRONG_STATUS),
    ],
)
def test_each_row_of_the_table_of_answers(status: int, body: int, torn: bool, finding: Finding) -> None:
    assert finding_of(Endpoint(URL), status, b"x" * body, torn=torn) is finding
    secure = finding_of(Endpoint("https://check.example/"), status, b"x" * body, torn=torn)
    assert secure is (Finding.PASSED if status == 204 else Finding.WRONG_STATUS)


# What a single piece of evidence makes of the state, HTTP_204 or the tables having been asked.
ALONE: dict[PortalKind, set[Finding]] = {
    PortalKind.PORTAL: {
        Finding.REDIRECT,
        Finding.LOGIN_REQUIRED,
        Finding.FOREIGN_BODY,
        Finding.CHALLENGE_FAILED,
        Finding.API_CAPTIVE,
    },
    PortalKind.ONLINE: {Finding.PASSED},
    PortalKind.NO_DNS: {Finding.NAME_SILENT, Finding.NAME_FAILED},
    PortalKind.OFFLINE: {
        Finding.WRONG_STATUS,
        Finding.WRONG_NAME,
        Finding.UNTRUSTED,
        Finding.NOT_TLS,
        Finding.NO_ROUTE,
        Finding.REFUSED,
        Finding.TIMEOUT,
        Finding.CLOSED,
        Finding.NOT_HTTP,
        Finding.TOO_MUCH,
        Finding.OTHER,
        Finding.NO_DEFAULT_ROUTE,
    },
    PortalKind.NO_LINK: {Finding.NO_CARRIER, Finding.NO_ADDRESS},
    PortalKind.UNKNOWN: {
        Finding.NAMES_HIJACKED,
        Finding.NAMES_SANE,
        Finding.NO_SUCH_ADDRESS,
        Finding.CANNOT_BIND,
        Finding.API_OPEN,
        Finding.API_UNRESTRICTED,
        Finding.API_INVALID,
        Finding.API_UNKNOWN,
        Finding.LINK_LOCAL_ONLY,
        Finding.NOT_PROBED,
    },
    PortalKind.PARTIAL: set(),
}


def test_each_finding_alone() -> None:
    assert set[Finding]().union(*ALONE.values()) == set(Finding)
    for kind, findings in ALONE.items():
        for finding in findings:
            assert judge([seen(finding)], 1).kind is kind, finding


@pytest.mark.parametrize(
    ("several", "kind"),
    [
        # The API says "captive" first of all, and may not deny a portal that was seen.
        ([seen(Finding.API_CAPTIVE, API), SECURE], PortalKind.PORTAL),
        ([seen(Finding.API_OPEN, API), REDIRECT], PortalKind.PORTAL),
        ([seen(Finding.API_UNRESTRICTED, API), REDIRECT, SECURE], PortalKind.PORTAL),
        ([seen(Finding.API_OPEN, API)], PortalKind.UNKNOWN),
        ([seen(Finding.API_OPEN, API), seen(Finding.TIMEOUT)], PortalKind.OFFLINE),
        # A portal seen outweighs right answers; a right one over HTTPS outweighs failures.
        ([PASSED, REDIRECT], PortalKind.PORTAL),
        ([SECURE, REDIRECT], PortalKind.PORTAL),
        ([SECURE, seen(Finding.TIMEOUT)], PortalKind.ONLINE),
        ([SECURE, seen(Finding.NAME_FAILED)], PortalKind.ONLINE),
        ([seen(Finding.PASSED, Question.OWN), seen(Finding.TIMEOUT)], PortalKind.ONLINE),
        # Half of a way.
        ([PASSED, seen(Finding.TIMEOUT, Question.HTTPS_204)], PortalKind.PARTIAL),
        ([PASSED, seen(Finding.UNTRUSTED, Question.HTTPS_204)], PortalKind.PARTIAL),
        ([PASSED, seen(Finding.NAME_FAILED, Question.HTTPS_204)], PortalKind.PARTIAL),
        ([PASSED, seen(Finding.NO_SUCH_ADDRESS, Question.HTTPS_204)], PortalKind.ONLINE),
        ([PASSED, SECURE], PortalKind.ONLINE),
        ([PASSED, seen(Finding.TIMEOUT, Question.HTTP_BODY)], PortalKind.ONLINE),
        # No names, and nothing at all.
        ([seen(Finding.NAME_SILENT), seen(Finding.NAME_FAILED)], PortalKind.NO_DNS),
        ([seen(Finding.NAME_SILENT), seen(Finding.TIMEOUT)], PortalKind.OFFLINE),
        ([seen(Finding.NAMES_HIJACKED, Question.NAMES), seen(Finding.REFUSED)], PortalKind.OFFLINE),
        # A dead API is no dead Internet, and a dead resolver for nonsense no dead DNS.
        ([seen(Finding.TIMEOUT, API), PASSED], PortalKind.ONLINE),
        ([seen(Finding.NAME_SILENT, Question.NAMES), seen(Finding.TIMEOUT)], PortalKind.OFFLINE),
        ([seen(Finding.NO_DEFAULT_ROUTE, TABLES), seen(Finding.NO_ADDRESS, TABLES)], PortalKind.OFFLINE),
        ([seen(Finding.NO_ADDRESS, TABLES), seen(Finding.NOT_PROBED, TABLES)], PortalKind.NO_LINK),
        ([], PortalKind.UNKNOWN),
    ],
)
def test_how_evidence_combines(several: list[Evidence], kind: PortalKind) -> None:
    for order in (several, several[::-1]):
        state = judge(order, 7)
        assert (state.kind, state.generation, state.evidence) == (kind, 7, tuple(order))


def test_a_right_answer_from_where_all_names_lead_is_not_the_endpoints() -> None:
    gateway, other = ip_address("10.0.0.1"), ip_address("10.0.0.2")
    hijacked = attrs.evolve(seen(Finding.NAMES_HIJACKED, Question.NAMES), address=gateway)
    forged, honest = attrs.evolve(PASSED, address=gateway), attrs.evolve(PASSED, address=other)
    refused = attrs.evolve(seen(Finding.REFUSED, Question.HTTPS_204), address=gateway)
    assert judge([forged, hijacked], 1).kind is PortalKind.PORTAL
    assert judge([forged, refused, hijacked], 1).kind is PortalKind.PORTAL
    assert judge([honest, hijacked], 1).kind is PortalKind.ONLINE
    assert judge([forged, SECURE, hijacked], 1).kind is PortalKind.ONLINE  # nobody in between can answer so
    assert judge([refused, hijacked], 1).kind is PortalKind.OFFLINE


def test_the_three_results_of_the_model() -> None:
    results = {kind: attrs.evolve(unknown(1), kind=kind).result for kind in PortalKind}
    assert results.pop(PortalKind.ONLINE) == "OK"
    assert results.pop(PortalKind.PORTAL) == "Captive"
    assert set(results.values()) == {"No internet"}
    assert len(results) == 5


def test_the_login_page_is_the_apis_or_else_that_of_the_first_portal_that_names_one() -> None:
    seen_portals = [seen(Finding.WRONG_STATUS, location="http://not.example/"), seen(Finding.LOGIN_REQUIRED), REDIRECT]
    assert judge(seen_portals, 1).url == LOGIN
    said = Capport(captive=True, portal_url="https://portal.example/", venue_url="https://venue.example/")
    state = judge([*seen_portals, seen(Finding.API_CAPTIVE, API, capport=said)], 1)
    assert (state.url, state.venue) == ("https://portal.example/", "https://venue.example/")
    online = judge([SECURE, seen(Finding.API_OPEN, API, capport=attrs.evolve(said, captive=False))], 1)
    assert (online.kind, online.url, online.venue) == (PortalKind.ONLINE, None, "https://venue.example/")


def test_a_session_ends_so_many_seconds_after_the_answer() -> None:
    said = Capport(captive=False, seconds_remaining=90.0, bytes_remaining=5e6)
    state = judge([seen(Finding.API_OPEN, API, capport=said, time=1000.0), SECURE], 1)
    assert (state.expires_at, state.bytes_remaining) == (1090.0, 5e6)
    assert judge([SECURE], 1).expires_at is None


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
    assert login_url(seen(Finding.REDIRECT, location=location)) == url


_EVIDENCE = st.builds(
    Evidence,
    question=st.sampled_from(Question),
    finding=st.sampled_from(Finding),
    endpoint=st.just(URL),
    location=st.none() | st.text(max_size=60) | st.text("htp:/[]%?#@.1 ", max_size=30),
    capport=st.none()
    | st.builds(Capport, captive=st.booleans(), portal_url=st.none() | st.just("https://portal.example/")),
)
_SEEN_BY_HTTP = st.sampled_from(
    [Finding.REDIRECT, Finding.LOGIN_REQUIRED, Finding.FOREIGN_BODY, Finding.CHALLENGE_FAILED]
)
_PORTAL = st.builds(
    seen, _SEEN_BY_HTTP, st.sampled_from([Question.HTTP_204, Question.HTTP_BODY, Question.OWN])
) | st.just(seen(Finding.API_CAPTIVE, API))


@given(st.lists(_EVIDENCE, max_size=6))
@example([seen(Finding.REDIRECT, location="http://[::1]x/")])
def test_any_evidence_has_one_conclusion_and_no_url_but_a_usable_one(several: list[Evidence]) -> None:
    state = judge(several, 1)
    assert state.kind in PortalKind
    assert state.result in {"OK", "Captive", "No internet"}
    assert judge(several[::-1], 1).kind is state.kind
    assert judge(several * 2, 1).kind is state.kind
    if state.url is not None:
        assert state.kind is PortalKind.PORTAL
        assert state.url.isascii()
        assert state.url.isprintable()
        assert " " not in state.url
        assert urlsplit(state.url).scheme in {"http", "https"}
        assert urlsplit(state.url).hostname


@given(st.lists(_EVIDENCE, max_size=6), _PORTAL, st.integers(0, 6))
def test_evidence_of_a_portal_is_never_outweighed(several: list[Evidence], portal: Evidence, place: int) -> None:
    assert judge([*several[:place], portal, *several[place:]], 1).kind is PortalKind.PORTAL


# Several paths.


def state_of(kind: PortalKind) -> PortalState:
    return attrs.evolve(unknown(3), kind=kind, evidence=(PASSED,))


_OPEN = unknown(3)


@pytest.mark.parametrize(
    ("states", "kind"),
    [
        ([state_of(PortalKind.ONLINE), state_of(PortalKind.PORTAL)], PortalKind.PORTAL),
        ([_OPEN, state_of(PortalKind.PORTAL)], PortalKind.PORTAL),
        ([_OPEN, state_of(PortalKind.ONLINE)], PortalKind.ONLINE),
        ([_OPEN, state_of(PortalKind.PARTIAL)], PortalKind.UNKNOWN),
        ([_OPEN, state_of(PortalKind.OFFLINE)], PortalKind.UNKNOWN),
        ([state_of(PortalKind.UNKNOWN), state_of(PortalKind.OFFLINE)], PortalKind.OFFLINE),
        ([state_of(PortalKind.NO_LINK), state_of(PortalKind.NO_DNS)], PortalKind.NO_DNS),
        ([state_of(PortalKind.NO_LINK), state_of(PortalKind.PARTIAL)], PortalKind.PARTIAL),
        ([], PortalKind.UNKNOWN),
    ],
)
def test_how_paths_combine(states: list[PortalState], kind: PortalKind) -> None:
    for order in (states, states[::-1]):
        together = combine(order, 9)
        assert together.kind is kind
        assert together.open == (not states or (kind is PortalKind.UNKNOWN and _OPEN in states))
        if not together.open:
            assert len(together.evidence) == sum(len(state.evidence) for state in states)


@given(st.lists(st.lists(_EVIDENCE, min_size=1, max_size=3), max_size=4), st.lists(_EVIDENCE, max_size=2), _PORTAL)
def test_a_portal_by_one_path_is_a_portal_by_all(
    paths: list[list[Evidence]], others: list[Evidence], portal: Evidence
) -> None:
    states = [judge(path, 1) for path in paths]
    assert combine(states, 1).kind in {PortalKind.UNKNOWN, *(state.kind for state in states)}
    assert combine([*states, judge([*others, portal], 1)], 1).kind is PortalKind.PORTAL


# What is news.


def test_unknown_promises_nothing() -> None:
    assert unknown(3).result == "No internet"
    assert unknown(3) == judge([], 3)
    assert unknown(3).open


def test_a_fresh_token_in_the_login_url_is_no_news_and_another_page_is() -> None:
    def at(url: str) -> PortalState:
        return judge([seen(Finding.REDIRECT, location=url)], 1)

    assert same_finding(at("http://login.example/x?token=1"), at("http://login.example/x?token=2"))
    assert not same_finding(at("http://login.example/x"), at("http://login.example/y"))
    assert not same_finding(at("http://login.example/x"), judge([PASSED], 1))
    assert not same_finding(judge([seen(Finding.LOGIN_REQUIRED)], 1), at("http://login.example/x"))
