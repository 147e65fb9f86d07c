"""Servers: listeners whose streams are guarded, and `trio.serve_tcp` on top of them.

A server does not cancel its handlers at a loss: `except RouteLostError: await save()` is to
work. Only a handler that lets the loss of its own stream out ends quietly; the rest is Trio's.

A listener tells when its address goes and when it is back (`_bindings.py`). Where the socket itself
cannot serve on, the task that accepts binds a new one: no task besides it, nothing to end with it.
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, NoReturn, TypeVar, final

import attrs
import trio

from ._blame import remainder, stems_from
from ._connect import adopt
from ._stream import GuardedStream

if TYPE_CHECKING:
    from ._bindings import Binding
    from ._ground import Ground
    from ._policy import Policy, Probe

_S = TypeVar("_S", bound=trio.abc.Stream)
_logger = logging.getLogger(__name__)


@final
@attrs.define(eq=False)
class GuardedListener(trio.abc.Listener[GuardedStream]):
    """A listener whose streams are guarded.

    Attributes:
      inner: The listener that does the work.
    """

    _ground: Ground
    inner: trio.abc.Listener[trio.abc.Stream]
    _policy: Policy | None = None
    _probe: Probe | None = None
    _rebind: Callable[[Binding], Awaitable[trio.SocketListener]] | None = attrs.field(default=None, alias="rebind")
    _binding: Binding | None = attrs.field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        sock = getattr(self.inner, "socket", None)
        if isinstance(sock, trio.socket.SocketType):
            self._binding = self._ground.bindings.watch(sock)

    async def accept(self) -> GuardedStream:
        """Accept the next connection; one that is gone by the time it is looked at is passed over.

        Raises:
          trio.ClosedResourceError: The listener or the pt is closed.
          OSError: As the inner listener's `accept`.
        """
        while True:
            stream = await self._accept()
            try:
                return adopt(self._ground, stream, None, policy=self._policy, probe=self._probe, label="")
            except ConnectionResetError:
                await trio.aclose_forcefully(stream)
            except BaseException:
                await trio.aclose_forcefully(stream)
                raise

    async def _accept(self) -> trio.abc.Stream:
        """Accept on whatever socket can be connected to."""
        binding, rebind = self._binding, self._rebind
        if binding is None or rebind is None:
            return await self.inner.accept()
        while True:
            if binding.moved:
                binding = await self._bind_again(binding, rebind)
            with trio.CancelScope() as binding.accepting:
                return await self.inner.accept()

    async def _bind_again(
        self, binding: Binding, rebind: Callable[[Binding], Awaitable[trio.SocketListener]]
    ) -> Binding:
        """Take a new socket for one that cannot serve any more, as soon as the kernel lets us."""
        ground = self._ground
        while True:
            generation = ground.pulse.generation
            try:
                listener = await rebind(binding)
            except OSError as error:  # gone again, or somebody else has the port: the next change may help
                _logger.warning("listening on %s again failed: %s", binding, error)
                await ground.pulse.wait_beyond(generation)
                continue
            self.socket.close()
            self.inner = listener
            new = self._binding = ground.bindings.watch(listener.socket)
            assert new is not None  # an address, as before
            ground.bindings.forget(binding)
            ground.bindings.up(new)
            return new

    async def aclose(self) -> None:
        """Close the inner listener."""
        if self._binding is not None:
            self._ground.bindings.forget(self._binding)
        await self.inner.aclose()

    @property
    def socket(self) -> trio.socket.SocketType:
        """The listening socket.

        Raises:
          AttributeError: The inner listener has none.
        """
        found = getattr(self.inner, "socket", None)
        if not isinstance(found, trio.socket.SocketType):
            raise AttributeError(f"{type(self.inner).__name__} has no socket")
        return found


def guard_listener(
    ground: Ground, listener: trio.abc.Listener[_S], *, policy: Policy | None = None, probe: Probe | None = None
) -> GuardedListener:
    """Wrap a listener so that the streams it accepts are guarded. Not a checkpoint.

    Where it is bound to an address, `ListenerDown` and `ListenerUp` tell when that goes and comes back.

    Args:
      ground: The pt's parts.
      listener: Any listener of streams over sockets.
      policy: Seconds from SUSPECT to LOST for its connections, instead of the pt's.
      probe: The application's own check of an uncertain path, instead of the kernel's keepalive.
    """
    return GuardedListener(ground, listener, policy, probe)


async def serve_tcp(
    ground: Ground,
    handler: Callable[[GuardedStream], Awaitable[object]],
    port: int,
    *,
    host: str | None = None,
    backlog: int | None = None,
    handler_nursery: trio.Nursery | None = None,
    policy: Policy | None = None,
    task_status: trio.TaskStatus[list[GuardedListener]] = trio.TASK_STATUS_IGNORED,
) -> NoReturn:
    """Serve TCP, as `trio.serve_tcp`, with guarded streams. Returns only by being cancelled.

    It goes on while an address that it is bound to is away, and serves again when that is back. A handler that ends by
    the loss of its own stream ends quietly. Anything else that it lets out ends the server.

    Args:
      ground: The pt's parts.
      handler: Runs once per connection; its stream is closed when it ends.
      port: The port; 0 lets the kernel choose, for each address its own.
      host: The address or name to listen on; None is every address of both families.
      backlog: The listen backlog; None is the most that the system has.
      handler_nursery: Where the handlers run; None is a nursery of the server's own.
      policy: Seconds from SUSPECT to LOST for its connections, instead of the pt's.
      task_status: For `nursery.start`, which then returns the listeners.

    Raises:
      OSError: Listening or accepting failed.
    """
    listeners = await _guarded_listeners(ground, port, host, backlog, policy)
    await trio.serve_listeners(
        partial(_run_until_lost, handler, _itself),
        listeners,
        handler_nursery=handler_nursery,
        task_status=task_status,
    )


async def serve_ssl_over_tcp(
    ground: Ground,
    handler: Callable[[trio.SSLStream[GuardedStream]], Awaitable[object]],
    port: int,
    ssl_context: ssl.SSLContext,
    *,
    host: str | None = None,
    https_compatible: bool = False,
    backlog: int | None = None,
    handler_nursery: trio.Nursery | None = None,
    policy: Policy | None = None,
    task_status: trio.TaskStatus[list[trio.SSLListener[GuardedStream]]] = trio.TASK_STATUS_IGNORED,
) -> NoReturn:
    """Serve TLS over TCP, as `trio.serve_ssl_over_tcp`, with guarded streams underneath.

    Arguments and errors are those of `serve_tcp`, and of `trio.SSLListener`.
    """
    listeners = [
        trio.SSLListener(listener, ssl_context, https_compatible=https_compatible)
        for listener in await _guarded_listeners(ground, port, host, backlog, policy)
    ]
    await trio.serve_listeners(
        partial(_run_until_lost, handler, _under_tls),
        listeners,
        handler_nursery=handler_nursery,
        task_status=task_status,
    )


async def _guarded_listeners(
    ground: Ground, port: int, host: str | None, backlog: int | None, policy: Policy | None
) -> list[GuardedListener]:
    async def listen(port: int, host: str | None) -> list[trio.SocketListener]:
        return await ground.kernel.listen_tcp(port, host=host, backlog=backlog, share_port=ground.share_ports)

    async def rebind(binding: Binding) -> trio.SocketListener:
        (listener,) = await listen(binding.port, str(binding.address))
        return listener

    return [GuardedListener(ground, listener, policy, None, rebind) for listener in await listen(port, host)]


def _itself(stream: GuardedStream) -> GuardedStream:
    return stream


def _under_tls(stream: trio.SSLStream[GuardedStream]) -> GuardedStream:
    return stream.transport_stream


async def _run_until_lost(  # noqa: ASYNC910 -- the whole of a task, or all but
    handler: Callable[[_S], Awaitable[object]], guarded_of: Callable[[_S], GuardedStream], stream: _S
) -> None:
    """Run a handler, and let it end quietly if nothing but the loss of its own stream ended it."""
    guarded = guarded_of(stream)
    try:
        await handler(stream)
    except BaseException as error:  # noqa: ASYNC103 -- what is swallowed holds no Cancelled
        going_on = remainder(error, partial(stems_from, is_own=guarded.tells_of_loss))
        if going_on is error:
            raise
        if going_on is not None:  # the server was cancelled meanwhile
            raise going_on from None  # noqa: ASYNC104 -- it is the Cancelled
