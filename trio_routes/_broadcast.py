"""Telling many tasks of one run what happened, without ever waiting for any of them.

`Broadcast` carries events, each to every subscriber that asked for its kind; a subscriber is a
bounded memory channel. `Pulse` carries only the fact that the tables changed, for tasks that
look at the state themselves and would make nothing of the events in between.

A subscriber's buffer, and what becomes of a reader that is too slow (`buffer=3`)::

    published   1  2  3  4  5  6              7  8
    buffered    1  2  3  -  -  -              7  8
    read                          1  2  3  L        7  8

    L = Lagged(missed=3): generation and time are those of event 6, the last one missed

Once one event is lost, the later ones must be lost too until the reader has seen Lagged, or it
would apply new events to an old snapshot. On Lagged it reads the snapshot anew; the events that
follow are exactly those published after it was handed out, so nothing is missed between the two.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager
from typing import final

import attrs
import trio

from ._events import Event, Lagged

DEFAULT_BUFFER = 256  # events; a flap of a link with a few hundred routes fits, and costs some 2 KiB of references


@final
@attrs.define(eq=False)
class EventChannel(trio.abc.ReceiveChannel[Event]):
    """One subscriber's end of a `Broadcast`.

    Several tasks may receive from it; each event then goes to one of them.
    """

    _on_close: Callable[[EventChannel], None]
    _kinds: tuple[type[Event], ...]
    _room: int
    _buffer: deque[Event] = attrs.field(factory=deque[Event], init=False)
    _missed: int = attrs.field(default=0, init=False)
    _last_missed: Event | None = attrs.field(default=None, init=False)
    _waiting: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot, init=False)
    _ended: bool = attrs.field(default=False, init=False)
    _closed: bool = attrs.field(default=False, init=False)

    def wants(self, kind: type[Event]) -> bool:
        """Whether events of this class were asked for."""
        return issubclass(kind, self._kinds)

    def put(self, event: Event) -> None:
        """Buffer an event, or count it as missed. For the broadcast."""
        if self._last_missed is not None or len(self._buffer) >= self._room:
            self._missed += 1
            self._last_missed = event
        else:
            self._buffer.append(event)
        # Also for a missed event: of two waiting tasks the first may be about to empty the buffer, and then
        # it is the second that Lagged is for.
        if self._waiting:
            self._waiting.unpark()

    def end(self) -> None:
        """Let the reader have what is buffered, then EndOfChannel. For the broadcast."""
        self._ended = True
        self._waiting.unpark_all()

    def receive_nowait(self) -> Event:
        """Take the next event, or the `Lagged` that stands for those that did not fit.

        Raises:
          trio.WouldBlock: There is none yet.
          trio.EndOfChannel: There will be none: the pt has closed, and everything was received.
          trio.ClosedResourceError: This channel was closed on this side.
        """
        if self._closed:
            raise trio.ClosedResourceError("this subscription was closed")
        if self._buffer:
            return self._buffer.popleft()
        last = self._last_missed
        if last is not None:
            lagged = Lagged(generation=last.generation, time=last.time, missed=self._missed)
            self._missed, self._last_missed = 0, None
            return lagged
        if self._ended:
            raise trio.EndOfChannel("the pt has closed")
        raise trio.WouldBlock

    async def receive(self) -> Event:
        """Wait for the next event. Always a checkpoint; a cancelled receive takes nothing.

        Raises:
          trio.EndOfChannel: The pt has closed, and everything was received.
          trio.ClosedResourceError: This channel was closed on this side, before or meanwhile.
        """
        # A whole checkpoint, and before anything is taken: a reader that never catches up still lets others run
        # and can be cancelled, and no event is in its hands when it is.
        await trio.lowlevel.checkpoint()
        while not (self._buffer or self._missed or self._ended or self._closed):
            await self._waiting.park()
        return self.receive_nowait()

    def close(self) -> None:
        """Stop receiving; what is buffered is dropped. Tasks waiting in `receive` get ClosedResourceError."""
        if self._closed:
            return
        self._closed = True
        self._buffer.clear()
        self._on_close(self)
        self._waiting.unpark_all()

    async def aclose(self) -> None:
        """Close as `close` does, then run a checkpoint."""
        self.close()
        await trio.lowlevel.checkpoint()


class Broadcast:
    """Hands each event to every subscriber that wants its kind. Belongs to one Trio run."""

    def __init__(self) -> None:
        # Kept in order of subscription; a dict for removal in constant time.
        self._channels: dict[EventChannel, None] = {}
        # Who gets an event of exactly this class: asked once per class, until the subscribers change.
        self._audiences: dict[type[Event], tuple[EventChannel, ...]] = {}
        self._closed = False

    def publish(self, event: Event) -> None:
        """Give `event` to its subscribers, or count it as missed by those whose buffer is full. Never blocks."""
        for channel in self._audience(type(event)):
            channel.put(event)

    def wanted(self, kind: type[Event]) -> bool:
        """Whether an event of this class would reach anybody; if not, it need not be built."""
        return bool(self._audience(kind))

    def subscribe(
        self, *kinds: type[Event], buffer: int = DEFAULT_BUFFER
    ) -> AbstractContextManager[trio.abc.ReceiveChannel[Event]]:
        """Receive events of `kinds` (none given: of every kind), and `Lagged` in any case.

        The subscription begins when the context manager is entered and ends when it is left.

        Args:
          *kinds: Event classes; their subclasses count.
          buffer: How many unread events are kept, at least 1.

        Raises:
          TypeError: One of `kinds` is no event class.
          ValueError: `buffer` is under 1.
          trio.ClosedResourceError: The pt has closed. Raised by the call itself, as the others are.
        """
        for kind in kinds:
            _check_kind(kind)
        if buffer < 1:
            raise ValueError(f"a subscription needs room for at least one event, not {buffer}")
        if self._closed:
            raise trio.ClosedResourceError("the pt has closed")
        return self._subscribed(EventChannel(self._remove, kinds or (Event,), buffer))

    @contextmanager
    def _subscribed(self, channel: EventChannel) -> Generator[EventChannel]:
        self._channels[channel] = None
        self._audiences.clear()
        if self._closed:  # between the call and the `with`
            channel.end()
        try:
            yield channel
        finally:
            channel.close()

    def close(self) -> None:
        """End every subscription: its reader gets what is buffered, then EndOfChannel."""
        self._closed = True
        for channel in self._channels:
            channel.end()
        self._channels.clear()
        self._audiences.clear()

    def _audience(self, kind: type[Event]) -> tuple[EventChannel, ...]:
        audience = self._audiences.get(kind)
        if audience is None:
            audience = tuple(channel for channel in self._channels if channel.wants(kind))
            self._audiences[kind] = audience
        return audience

    def _remove(self, channel: EventChannel) -> None:
        if self._channels.pop(channel, self) is None:
            self._audiences.clear()


def _check_kind(kind: object) -> None:
    """What a caller without a type checker may pass would be subscribed to for ever, and never come."""
    if not (isinstance(kind, type) and issubclass(kind, Event)):
        raise TypeError(f"{kind!r} is no event class")


class Pulse:
    """The beat of the tables: wakes whoever waits for a change, and remembers how far they are.

    Attributes:
      generation: The cache's generation at the last beat; 0 before the first.
    """

    def __init__(self) -> None:
        self.generation: int = 0
        self._waiting = trio.lowlevel.ParkingLot()
        self._closed = False

    def beat(self, generation: int) -> None:
        """Tell that the tables are at `generation` now."""
        self.generation = generation
        if self._waiting:
            self._waiting.unpark_all()

    async def wait_beyond(self, generation: int) -> int:
        """Return the tables' generation once it is greater than `generation`. Always a checkpoint.

        Raises:
          trio.ClosedResourceError: The pt has closed, before or meanwhile: there will be no more changes to wait for.
        """
        await trio.lowlevel.checkpoint()
        while not self._closed and self.generation <= generation:
            await self._waiting.park()
        if self._closed:
            raise trio.ClosedResourceError("the pt has closed")
        return self.generation

    def close(self) -> None:
        """End it: whoever waits now or later gets ClosedResourceError."""
        self._closed = True
        self._waiting.unpark_all()
