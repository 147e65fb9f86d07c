"""One probe: resolve, connect, ask; whatever the network does, it ends in time and returns evidence.

    time from the start   what is over
    --------------------  -----------------------------------------------------------------------------
    3 s                   waiting for names, connections and the first answer (Tailscale, Android)
    10 s                  everything; an answer whose body drips keeps its status

A name with addresses of both families gets one try in each, in the resolver's order, and each try an equal share
of what is left of the 3 s: a dead IPv6 path must not pass for a dead network. A first SYN that is lost is sent again
after 1 s, which a share of 1.5 s still covers.
"""

from __future__ import annotations

import errno
import ipaddress
from collections.abc import Iterable
from typing import Protocol

import trio

from ..netlink import IPAddress
from ._config import Endpoint
from ._evidence import Evidence, Trouble
from ._http import Exchange, ExchangeError

FIRST_ANSWER_SECONDS = 3.0
TOTAL_SECONDS = 10.0

# How connect() says that the routing table will not have it: no route, `unreachable`, `prohibit`, `blackhole`
# (ip-route(8); the same four as NoRouteError's).
_NO_ROUTE = frozenset({errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EACCES, errno.EINVAL})
_TROUBLES = {
    errno.ECONNREFUSED: Trouble.REFUSED,
    errno.ETIMEDOUT: Trouble.TIMEOUT,
    errno.ECONNRESET: Trouble.CLOSED,
}


class Network(Protocol):
    """The part of a `Kernel` that a probe uses."""

    async def resolve(self, host: str, port: int) -> list[IPAddress]:
        """As `Kernel.resolve`."""
        ...

    async def connect_tcp(self, address: IPAddress, port: int) -> trio.abc.HalfCloseableStream:
        """As `Kernel.connect_tcp`."""
        ...


async def examine(network: Network, endpoints: Iterable[Endpoint]) -> tuple[Evidence, ...]:
    """Probe all endpoints at once and return their evidence in the same order. A checkpoint; at most 10 s."""
    endpoints = tuple(endpoints)
    found: dict[Endpoint, Evidence] = {}

    async def one(endpoint: Endpoint) -> None:
        found[endpoint] = await probe(network, endpoint)

    async with trio.open_nursery() as nursery:
        for endpoint in endpoints:
            nursery.start_soon(one, endpoint)
    return tuple(found[endpoint] for endpoint in endpoints)


async def probe(network: Network, endpoint: Endpoint) -> Evidence:
    """Ask one endpoint once. A checkpoint; nothing that a peer or the network does makes it raise.

    Returns:
      What was seen: the first answer that any address gave, else the trouble with the last one tried.
    """
    await trio.lowlevel.checkpoint()
    started = trio.current_time()
    answer_by = started + FIRST_ANSWER_SECONDS
    try:
        with trio.fail_at(answer_by):
            candidates = _one_of_each_family(await _addresses(network, endpoint))
    except (OSError, trio.TooSlowError) as error:
        detail = _sentence(error) if isinstance(error, OSError) else "no answer from the resolver"
        return Evidence(
            endpoint=endpoint.url, trouble=Trouble.DNS, detail=detail, seconds=trio.current_time() - started
        )
    evidence = Evidence(endpoint=endpoint.url, trouble=Trouble.DNS, detail="the name has no address")
    for tries_left, address in zip(range(len(candidates), 0, -1), candidates, strict=True):
        now = trio.current_time()
        share = (answer_by - now) / tries_left
        evidence = await _try(network, endpoint, address, started=started, answer_by=now + share)
        if evidence.status is not None:
            break
    return evidence


async def _addresses(network: Network, endpoint: Endpoint) -> list[IPAddress]:
    try:
        literal = ipaddress.ip_address(endpoint.host)
    except ValueError:
        return await network.resolve(endpoint.host, endpoint.port)
    await trio.lowlevel.checkpoint()
    return [literal]


def _one_of_each_family(addresses: Iterable[IPAddress]) -> list[IPAddress]:
    firsts: dict[int, IPAddress] = {}
    for address in addresses:
        firsts.setdefault(address.version, address)
    return list(firsts.values())


async def _try(
    network: Network, endpoint: Endpoint, address: IPAddress, *, started: float, answer_by: float
) -> Evidence:
    """Ask at one address: the headers by `answer_by`, all by the end of the probe's ten seconds."""
    await trio.lowlevel.checkpoint()
    stream: trio.abc.HalfCloseableStream | None = None
    exchange: Exchange | None = None
    trouble: Trouble | None = None
    detail = ""
    try:
        with trio.move_on_at(answer_by) as scope:
            stream = await network.connect_tcp(address, endpoint.port)
            exchange = Exchange(stream)
            await exchange.ask(endpoint)
            scope.deadline = started + TOTAL_SECONDS
            await exchange.read_body()
        if scope.cancelled_caught:
            trouble, detail = Trouble.TIMEOUT, "the connection hangs" if exchange is None else "the answer hangs"
    except ExchangeError as error:
        trouble, detail = error.trouble, str(error)
    except trio.BrokenResourceError as error:
        trouble, detail = Trouble.CLOSED, str(error.__cause__ or error) or "the connection broke"
    except OSError as error:
        trouble, detail = _trouble_of(error), _sentence(error)
    finally:
        if stream is not None:
            await trio.aclose_forcefully(stream)  # a probe owes its peer no goodbye
    return Evidence(
        endpoint=endpoint.url,
        address=address,
        status=exchange.status if exchange else None,
        location=exchange.location if exchange else None,
        body_bytes=exchange.body_bytes if exchange else 0,
        trouble=trouble,
        detail=detail,
        seconds=trio.current_time() - started,
    )


def _trouble_of(error: OSError) -> Trouble:
    if error.errno in _NO_ROUTE:
        return Trouble.NO_ROUTE
    return _TROUBLES.get(error.errno or 0, Trouble.OTHER)


def _sentence(error: OSError) -> str:
    return error.strerror or str(error) or type(error).__name__
