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

import attrs
import h11
import trio

from ._config import Endpoint
from ._evidence import MAX_LOCATION, Trouble

MAX_HEADERS = 16 * 1024
MAX_INFORMATIONAL = 8
MAX_BODY = 64 * 1024
MAX_WIRE = 128 * 1024
EVENTS_PER_CHECKPOINT = 100
_READ = 16 * 1024


class ExchangeError(Exception):
    """The peer did not give a whole answer.

    Attributes:
      trouble: CLOSED, NOT_HTTP or TOO_MUCH.
    """

    def __init__(self, trouble: Trouble, detail: str) -> None:
        super().__init__(detail)
        self.trouble = trouble


@attrs.define(eq=False)
class Exchange:
    """A question and what has come back so far.

    Attributes:
      status: The final answer's status as soon as its headers are here; what happens later does not unsay it.
      location: Its Location header as latin-1 text, cut at 2048 characters; None without one.
      body_bytes: Length in bytes of the body so far.
    """

    _stream: trio.abc.Stream
    status: int | None = attrs.field(default=None, init=False)
    location: str | None = attrs.field(default=None, init=False)
    body_bytes: int = attrs.field(default=0, init=False)
    _h11: h11.Connection = attrs.field(
        factory=lambda: h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEADERS), init=False
    )
    _wire: int = attrs.field(default=0, init=False)
    _ended: bool = attrs.field(default=False, init=False)

    async def ask(self, endpoint: Endpoint) -> None:
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
                self.location = _location(event)
                return
            elif isinstance(event, h11.InformationalResponse):
                informational += 1
            else:
                raise ExchangeError(Trouble.NOT_HTTP, f"{type(event).__name__} in place of an answer")
        raise ExchangeError(Trouble.TOO_MUCH, f"more than {MAX_INFORMATIONAL} 1xx answers")

    async def read_body(self) -> None:
        """Read the answer's body to its end and count it. A checkpoint.

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
                self.body_bytes += len(event.data)
                if self.body_bytes > MAX_BODY:
                    raise ExchangeError(Trouble.TOO_MUCH, f"a body of more than {MAX_BODY} bytes")
            else:
                return

    def _next_event(self) -> h11.Event | type[h11.NEED_DATA | h11.PAUSED]:
        try:
            return self._h11.next_event()
        except h11.RemoteProtocolError as error:
            if error.error_status_hint == 431:  # how h11 marks its own limit, MAX_HEADERS
                trouble = Trouble.TOO_MUCH
            else:
                trouble = Trouble.CLOSED if self._ended else Trouble.NOT_HTTP
            raise ExchangeError(trouble, str(error)) from error

    async def _receive(self) -> None:
        data = await self._stream.receive_some(_READ)
        self._ended = not data
        if self._ended and self.status is None:
            # h11 would say "can't handle event type ConnectionClosed in state SEND_RESPONSE".
            raise ExchangeError(Trouble.CLOSED, "closed without an answer")
        self._wire += len(data)
        if self._wire > MAX_WIRE:
            raise ExchangeError(Trouble.TOO_MUCH, f"more than {MAX_WIRE} bytes")
        self._h11.receive_data(bytes(data))


def _location(response: h11.Response) -> str | None:
    for name, value in response.headers:
        if name == b"location":
            return bytes(value).decode("latin-1")[:MAX_LOCATION]
    return None
