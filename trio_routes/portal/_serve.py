"""The endpoint's side: what a self-hosted endpoint answers. One request a connection, within bounds.

A GET or HEAD of any path is answered 204, with X-Trio-Routes-Response where a challenge came along. A challenge is 1 to 64
letters, digits, `-`, `_` or `.`; another one gets no answer to it, so that nothing of a stranger's is echoed into a header.
"""

from __future__ import annotations

import re

import h11
import trio

from ._answer import CHALLENGE, RESPONSE, expected_response

REQUEST_SECONDS = 10.0
_MAX_HEADERS = 16 * 1024
_READ = 16 * 1024
_CHALLENGE = re.compile(rb"[A-Za-z0-9._-]{1,64}")


async def serve_endpoint(stream: trio.abc.Stream) -> None:
    """Answer one request and close: a handler for `trio.serve_tcp`. A checkpoint; at most 10 s; raises nothing."""
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=_MAX_HEADERS)
    with trio.move_on_after(REQUEST_SECONDS):
        await trio.lowlevel.checkpoint()
        try:
            await stream.send_all(_answer(connection, await _request(connection, stream)))
        except (h11.RemoteProtocolError, trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # its own fault, and nobody is left to tell
    await trio.aclose_forcefully(stream)


async def _request(connection: h11.Connection, stream: trio.abc.Stream) -> h11.Request:
    while True:
        event = connection.next_event()
        if isinstance(event, h11.Request):
            await trio.lowlevel.checkpoint()
            return event
        if event is not h11.NEED_DATA:
            raise trio.BrokenResourceError("closed without a request")
        connection.receive_data(bytes(await stream.receive_some(_READ)))


def _answer(connection: h11.Connection, request: h11.Request) -> bytes:
    headers = [("Cache-Control", "no-store"), ("Connection", "close")]
    if request.method not in (b"GET", b"HEAD"):
        answer = h11.Response(status_code=405, headers=[*headers, ("Allow", "GET, HEAD"), ("Content-Length", "0")])
    else:
        challenge = next((value for name, value in request.headers if name == CHALLENGE.lower().encode()), b"")
        if _CHALLENGE.fullmatch(challenge):
            headers.append((RESPONSE, expected_response(challenge.decode("ascii"))))
        answer = h11.Response(status_code=204, headers=headers)
    return (connection.send(answer) or b"") + (connection.send(h11.EndOfMessage()) or b"")
