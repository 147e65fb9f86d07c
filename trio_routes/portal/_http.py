"""One HTTP/1.1 question over a stream, to a peer that may be hostile: h11, and the limits that h11 leaves to us.

    limit                  value     ends
    ---------------------  --------  -----------------------------------------------------------------------
    one header block       16 KiB    endless headers, one endless line, chunk extensions, trailers (h11's own)
    1xx answers            8         "100 Continue" for ever, which h11 passes on one by one
    body                   64 KiB    a download in place of an answer
    bytes on the wire      128 KiB   what is none of these: framing that carries nothing
    events per checkpoint  100       64 KiB in one-byte chunks are 10 900 events, 42 ms of the loop (measured)

Time is the caller's: every wait here is a checkpoint, and what is known so far stays readable after a cancellation.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import attrs
import h11
import trio

from ._config import MAX_BODY, Endpoint
from ._evidence import MAX_LOCATION, Finding

MAX_HEADERS = 16 * 1024
MAX_INFORMATIONAL = 8
MAX_WIRE = 128 * 1024
EVENTS_PER_CHECKPOINT = 100
_READ = 16 * 1024


class ExchangeError(Exception):
    """The peer did not give a whole answer.

    Attributes:
      finding: CLOSED, NOT_HTTP or TOO_MUCH.
    """

    def __init__(self, finding: Finding, detail: str) -> None:
        super().__init__(detail)
        self.finding: Finding = finding


@attrs.define(eq=False)
class Exchange:
    """A question and what has come back so far.

    Attributes:
      status: The final answer's status as soon as its headers are here; what happens later does not unsay it.
      headers: Its headers, names in lower case.
      body: Its body so far, at most 64 KiB.
    """

    _stream: trio.abc.Stream
    status: int | None = attrs.field(default=None, init=False)
    headers: Sequence[tuple[bytes, bytes]] = attrs.field(default=(), init=False)
    body: bytearray = attrs.field(factory=bytearray, init=False)
    _h11: h11.Connection = attrs.field(
        factory=lambda: h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEADERS), init=False
    )
    _wire: int = attrs.field(default=0, init=False)
    _ended: bool = attrs.field(default=False, init=False)

    def header(self, name: bytes) -> str | None:
        """The first header of a name (in lower case) as latin-1 text; None without one."""
        return next((value.decode("latin-1") for its_name, value in self.headers if its_name == name), None)

    @property
    def location(self) -> str | None:
        """The Location header as latin-1 text, cut at 2048 characters; None without one."""
        location = self.header(b"location")
        return None if location is None else location[:MAX_LOCATION]

    async def ask(self, endpoint: Endpoint, *headers: tuple[str, str]) -> None:
        """Send the request and wait for the final answer's headers. A checkpoint.

        Raises:
          ExchangeError: There will be no answer.
          trio.BrokenResourceError: The connection broke.
        """
        request = h11.Request(
            method="GET",
            target=endpoint.target,
            headers=[
                ("Host", endpoint.authority),
                ("User-Agent", "trio-routes"),
                ("Accept-Encoding", "identity"),
                ("Cache-Control", "no-cache"),  # a proxy must not answer from yesterday
                ("Connection", "close"),
                *headers,
            ],
        )
        await self._stream.send_all((self._h11.send(request) or b"") + (self._h11.send(h11.EndOfMessage()) or b""))
        informational = 0
        while informational <= MAX_INFORMATIONAL:
            event = self._next_event()
            if event is h11.NEED_DATA:
                await self._receive()
            elif isinstance(event, h11.Response):
                self.status = event.status_code
                self.headers = [(bytes(name), bytes(value)) for name, value in event.headers]
                return
            elif isinstance(event, h11.InformationalResponse):
                informational += 1
            else:
                raise ExchangeError(Finding.NOT_HTTP, f"{type(event).__name__} in place of an answer")
        raise ExchangeError(Finding.TOO_MUCH, f"more than {MAX_INFORMATIONAL} 1xx answers")

    async def read_body(self) -> None:
        """Read the answer's body to its end and keep it. A checkpoint.

        Raises:
          ExchangeError: It was cut short, broke its framing, or passed a limit.
          trio.BrokenResourceError: The connection broke.
        """
        await trio.lowlevel.checkpoint()
        for event_number in itertools.count(1):
            if event_number % EVENTS_PER_CHECKPOINT == 0:
                await trio.lowlevel.checkpoint()
            event = self._next_event()
            if event is h11.NEED_DATA:
                await self._receive()
            elif isinstance(event, h11.Data):
                self.body += event.data[: MAX_BODY - len(self.body) + 1]
                if len(self.body) > MAX_BODY:
                    raise ExchangeError(Finding.TOO_MUCH, f"a body of more than {MAX_BODY} bytes")
            else:
                return

    def _next_event(self) -> h11.Event | type[h11.NEED_DATA | h11.PAUSED]:
        try:
            return self._h11.next_event()
        except h11.RemoteProtocolError as error:
            if error.error_status_hint == 431:  # how h11 marks its own limit, MAX_HEADERS
                finding = Finding.TOO_MUCH
            else:
                finding = Finding.CLOSED if self._ended else Finding.NOT_HTTP
            raise ExchangeError(finding, str(error)) from error

    async def _receive(self) -> None:
        data = await self._stream.receive_some(_READ)
        self._ended = not data
        if self._ended and self.status is None:
            # h11 would say "can't handle event type ConnectionClosed in state SEND_RESPONSE".
            raise ExchangeError(Finding.CLOSED, "closed without an answer")
        self._wire += len(data)
        if self._wire > MAX_WIRE:
            raise ExchangeError(Finding.TOO_MUCH, f"more than {MAX_WIRE} bytes")
        self._h11.receive_data(bytes(data))
