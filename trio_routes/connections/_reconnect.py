"""Staying connected: wait until the peer is routable, connect, run a handler, again after a loss.

    what happened                                          then
    ----------------------------------------------------   --------------------------------------------
    the handler returned                                   its value is returned
    its own stream's route was lost                        again as soon as there is a route
    its own stream broke in another way; `retry_on`        again after a back-off
    connecting failed, or the name does not resolve        again after a back-off
    anything else, another connection's loss included      it is raised

The back-off starts anew once a handler has run longer than the last delay. A name that does not
resolve while the tables have no way out is no failure: it is waited for like a route.
"""

from __future__ import annotations

import logging
import random
import socket
from collections.abc import Awaitable, Callable
from functools import partial
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING, TypeVar, Unpack

import attrs
import trio

from .._errors import NoRouteError
from ..netlink import IPAddress
from ..routing import Kind, Outcome, Resolution
from ._blame import remainder, stems_from
from ._connect import Egress, addresses_of, as_address, check_port, open_tcp_stream

if TYPE_CHECKING:
    from ._ground import Ground
    from ._options import ConnectOptions
    from ._stream import GuardedStream

_T = TypeVar("_T")
_logger = logging.getLogger(__name__)

# Seconds after which a name is resolved anew though the tables have not changed: the least time for which
# resolvers commonly keep a negative answer.
RESOLVE_AGAIN = 30.0

# Seconds between two look-ups of a name, however often the tables change: a daemon that loads a full table makes
# thousands of batches, and a resolver is not to be asked thousands of times. The last change is never missed.
RESOLVE_PACE = 0.1

# Seconds over which those that were lost together are spread when the route is back, as far as jitter goes.
SPREAD = 0.1

# Documentation addresses (RFC 5737, RFC 3849): no table has a route of its own for them, so what a lookup says of
# them it says of the default route.
_ANYWHERE: tuple[IPAddress, ...] = (IPv4Address("192.0.2.1"), IPv6Address("2001:db8::1"))


@attrs.frozen
class Backoff:
    """How long to wait between attempts that fail one after another.

    Attributes:
      first: Seconds after the first failure.
      factor: What each further failure multiplies them by.
      limit: Seconds that no wait exceeds.
      jitter: Which part of a wait is left to chance, from 0 (none) to 1 (all of it).
    """

    first: float = attrs.field(default=0.1, validator=attrs.validators.gt(0))
    factor: float = attrs.field(default=2.0, validator=attrs.validators.ge(1))
    limit: float = attrs.field(default=60.0, validator=attrs.validators.gt(0))
    jitter: float = attrs.field(default=0.5, validator=(attrs.validators.ge(0), attrs.validators.le(1)))

    def after(self, delay: float) -> float:
        """The delay that follows a delay, in seconds, without chance."""
        return min(self.limit, delay * self.factor)

    def jittered(self, delay: float) -> float:
        """A delay with chance in it: never longer, so that `limit` holds."""
        return delay * (1.0 - self.jitter * random.random())


DEFAULT_BACKOFF = Backoff()


async def wait_routable(
    ground: Ground,
    host: str | IPAddress,
    *,
    port: int | None = None,
    source: str | IPAddress | None = None,
    device: str | None = None,
    mark: int = 0,
) -> Resolution:
    """Wait until there is a way to a host. Always a checkpoint; without monitoring it returns at once.

    The answer is advice: true when given, and a connect may still fail. A name is resolved anew at each change of
    the tables (of several within 0.1 s, at the last) and every 30 s; any of its addresses will do.

    Args:
      ground: The pt's parts.
      host: A name or an address.
      port: The TCP port that is to be reached, where rules select by it; None leaves such rules aside.
      source: The source address that is to be used.
      device: The name of the interface that is to be used.
      mark: The mark that is to be used.

    Returns:
      The path. Unmonitored, one that names no route.

    Raises:
      OSError: The name does not exist, and the resolver could be asked (socket.gaierror).
      ValueError: A port that cannot be.
      trio.ClosedResourceError: The pt is closed, or is being closed while waiting.
    """
    if port is not None:
        check_port(port)
    egress = Egress.of(source, device, mark)
    is_address = _is_address(host)
    waited = False
    await trio.lowlevel.checkpoint()
    while True:
        generation = ground.pulse.generation
        if not ground.monitoring():
            return Resolution(Outcome.ROUTED, generation=generation)
        path = await _path_to(ground, egress, host, port)
        if path is not None:
            if waited:
                _logger.info("there is a way to %s%s: %s", host, egress, path)
            return path
        if not waited:  # once, however long it takes
            waited = True
            _logger.info("waiting for a way to %s%s", host, egress)
        asked = trio.current_time()
        with trio.move_on_after(RESOLVE_AGAIN):
            await ground.pulse.wait_beyond(generation)
        if not is_address:
            await trio.sleep_until(asked + RESOLVE_PACE)


async def _path_to(ground: Ground, egress: Egress, host: str | IPAddress, port: int | None) -> Resolution | None:
    """The first path to any of a host's addresses that can carry something; None where there is none."""
    try:
        addresses = await addresses_of(ground.kernel, host, 0)
    except socket.gaierror as error:
        if error.errno == socket.EAI_AGAIN or not _has_default_route(ground, egress):
            return None  # noqa: ASYNC910 -- the failed look-up was the checkpoint
        raise
    for address in addresses:
        if egress.suits(address):
            path = egress.lookup(address, ground.cache, port)
            if path.outcome is Outcome.ROUTED and _can_pass(ground, path):
                return path
    return None


def _is_address(host: str | IPAddress) -> bool:
    try:
        as_address(host)
    except ValueError:
        return False
    return True


def _can_pass(ground: Ground, path: Resolution) -> bool:
    # The kernel keeps routes over a link without carrier, and answers with them.
    links = [ground.cache.link(hop.ifindex) for hop in path.hops]
    return path.kind is Kind.LOCAL or not links or any(link is None or not link.dead for link in links)


def _has_default_route(ground: Ground, egress: Egress) -> bool:
    return any(
        egress.lookup(address, ground.cache).outcome is Outcome.ROUTED for address in _ANYWHERE if egress.suits(address)
    )


async def keep_connected(
    ground: Ground,
    handler: Callable[[GuardedStream], Awaitable[_T]],
    host: str | IPAddress,
    port: int,
    *,
    retry_on: tuple[type[Exception], ...] = (),
    backoff: Backoff = DEFAULT_BACKOFF,
    **options: Unpack[ConnectOptions],
) -> _T:
    """Run a handler on a connection, on a new one after each loss, until it returns. A checkpoint.

    It starts no task: cancelling it cancels the handler. Each stream is closed when its handler ends.

    Args:
      ground: The pt's parts.
      handler: Gets each new stream; what it returns ends this and is returned.
      host: A name or an address.
      port: The peer's port.
      retry_on: Errors of the handler's after which to connect again, beside those of its own stream.
      backoff: The waits after failures that are no losses.
      **options: As for `open_tcp_stream`; see `ConnectOptions`.

    Raises:
      trio.ClosedResourceError: The pt is closed.
      Exception: Whatever the handler raises that did not come out of its own stream.
    """
    delay = backoff.first
    lost = False
    while True:
        generation = ground.pulse.generation
        try:
            await wait_routable(
                ground,
                host,
                port=port,
                source=options.get("local_address"),
                device=options.get("device"),
                mark=options.get("mark") or 0,
            )
            if lost:
                # All that were lost together are woken together by the route's return.
                await trio.sleep(SPREAD - backoff.jittered(SPREAD))
                await ground.reconnects.take()
            stream = await open_tcp_stream(ground, host, port, **options)
        except OSError as error:
            wait = backoff.jittered(delay)
            _logger.info("connecting to %s port %d failed, again in %.1f s: %s", host, port, wait, error)
            await _pause(ground, wait, generation if isinstance(error, NoRouteError | socket.gaierror) else None)
            delay = backoff.after(delay)
            continue
        started = trio.current_time()
        try:
            return await handler(stream)
        except BaseException as error:  # noqa: ASYNC103 -- what is swallowed holds no Cancelled
            going_on = remainder(error, partial(_is_reason, stream, retry_on))
            if going_on is error:
                raise
            if going_on is not None:  # cancelled meanwhile
                raise going_on from None  # noqa: ASYNC104 -- it is the Cancelled
        finally:
            await trio.aclose_forcefully(stream)
        lost = stream.connection.loss is not None
        if trio.current_time() - started > delay:
            delay = backoff.first
        if not lost:
            await trio.sleep(backoff.jittered(delay))
            delay = backoff.after(delay)


def _is_reason(stream: GuardedStream, retry_on: tuple[type[Exception], ...], error: BaseException) -> bool:
    """Whether an error of the handler's is a reason to connect again."""
    return isinstance(error, retry_on) or stems_from(error, stream.raised)


async def _pause(ground: Ground, seconds: float, generation: int | None) -> None:
    """Wait for a back-off; with a generation, no longer than until the tables are beyond it. A checkpoint."""
    with trio.move_on_after(seconds):
        if generation is None:
            await trio.sleep_forever()
        await ground.pulse.wait_beyond(generation)
