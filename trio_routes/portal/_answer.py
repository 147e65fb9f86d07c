"""From an HTTP answer to a finding: pure.

    asked                    status       body            finding
    -----------------------  -----------  --------------  ----------------
    any over http            511          any             LOGIN_REQUIRED
    any over http            3xx          any             REDIRECT
    HTTP 204, HTTPS 204      204          any             PASSED
    HTTP body                200          exactly right   PASSED
    HTTP body                200          its beginning   None: the endpoint's own, cut short; what cut it is the finding
    HTTP body                204          any             FOREIGN_BODY
    HTTP 204                 other 2xx    some, or torn   FOREIGN_BODY
    HTTP body                other 2xx    some, or torn   FOREIGN_BODY
    HTTP 204, HTTP body      other 2xx    whole, empty    WRONG_STATUS: nobody can log in on an empty page
    any over http            4xx, 5xx ... any             WRONG_STATUS (a plain 400 may come from a TLS port)
    HTTPS 204                other        any             WRONG_STATUS: it is the endpoint's own server that says so

What would pass but did not answer a challenge that was put is CHALLENGE_FAILED.
"""

from __future__ import annotations

from ._config import Endpoint
from ._evidence import Finding, Question

CHALLENGE = "X-Trio-Routes-Challenge"
RESPONSE = "X-Trio-Routes-Response"


def expected_response(challenge: str) -> str:
    """What an endpoint of ours answers to a challenge; a mirror of all request headers does not."""
    return f"response {challenge}"


def finding_of(
    endpoint: Endpoint, status: int, body: bytes, *, torn: bool, challenge: str = "", response: str | None = None
) -> Finding | None:
    """Tell what an answer is.

    Args:
      endpoint: Who was asked.
      status: The answer's HTTP status.
      body: Its body, as far as it was read.
      torn: Whether there should have been more of it.
      challenge: The word that was sent; "" for none.
      response: The header X-Trio-Routes-Response; None without one.

    Returns:
      The finding; None where the answer says nothing and what cut it short does.
    """
    finding = _by_status(endpoint, status, body, torn=torn)
    if finding is Finding.PASSED and challenge and response != expected_response(challenge):
        return Finding.CHALLENGE_FAILED
    return finding


def _by_status(endpoint: Endpoint, status: int, body: bytes, *, torn: bool) -> Finding | None:
    question = endpoint.question
    if question is Question.HTTPS_204:
        return Finding.PASSED if status == 204 else Finding.WRONG_STATUS
    if status == 511:
        return Finding.LOGIN_REQUIRED
    if 300 <= status < 400:
        return Finding.REDIRECT
    if question is Question.HTTP_204 and status == 204:
        return Finding.PASSED
    if endpoint.body is not None and status == 200 and endpoint.body.startswith(body) and (body or torn):
        whole = body == endpoint.body and not torn
        return Finding.PASSED if whole else (None if torn else Finding.FOREIGN_BODY)
    if question is Question.HTTP_BODY and status == 204:
        return Finding.FOREIGN_BODY  # a portal that answers 204 to whatever looks like a check
    if 200 <= status < 300 and (body or torn):
        return Finding.FOREIGN_BODY
    return Finding.WRONG_STATUS
