"""One probe: resolve, connect, ask; whatever the network does, it ends in time and returns evidence.

    time from the start   what is over
    --------------------  -----------------------------------------------------------------------------
    3 s                   waiting for names, connections and the first answer (Tailscale, Android)
    10 s                  everything; an answer whose body drips keeps its status

A way of either family gets one try in each, in the resolver's order, and each try an equal share of what is left of
the 3 s: a dead IPv6 path must not pass for a dead network. A first SYN that is lost is sent again after 1 s, which a share
of 1.5 s still covers.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable

import attrs
import trio

from ..netlink import IPAddress
from ._answer import CHALLENGE, RESPONSE, finding_of
from ._capport import UNRESTRICTED, parse_capport
from ._config import Endpoint
from ._evidence import Evidence, Finding, Question
from ._http import Exchange, ExchangeError
from ._trouble import finding_of_error, sentence
from ._way import Addresses, Way

FIRST_ANSWER_SECONDS = 3.0
TOTAL_SECONDS = 10.0

_NOT_BY_LINK = (
    "the name was looked up by the machine's resolver: no resolver of this link is known but loopback ones, if any"
)


async def probe(way: Way, endpoint: Endpoint) -> Evidence:
    """Ask one endpoint once. A checkpoint; nothing that a peer or the network does makes it raise.

    Returns:
      What was seen: the first answer that any address gave, else the trouble with the last one tried.
    """
    return await _Inquiry(way, endpoint, endpoint.question).run()


async def ask_api(way: Way, url: str) -> Evidence:
    """Ask a captive portal API once (RFC 8908), within the limits of a probe. A checkpoint; raises nothing, as `probe`.

    Args:
      way: By which link; the API's server is reachable from inside the captivity, and perhaps from nowhere else.
      url: As the network told it: `https:`, or the urn that says that there is no portal.
    """
    started = trio.current_time()
    await trio.lowlevel.checkpoint()
    finding, detail = Finding.API_UNRESTRICTED, "the network says that it has no portal"
    if url != UNRESTRICTED:
        try:
            endpoint = Endpoint(url)
        except ValueError as error:
            endpoint, finding, detail = None, Finding.API_INVALID, str(error)
        if endpoint is not None and endpoint.secure:
            return await _Inquiry(way, endpoint, Question.API).run()
        if endpoint is not None:
            finding, detail = Finding.API_INVALID, "the URL must be https (RFC 8908 §4)"
    return Evidence(question=Question.API, finding=finding, endpoint=url[:200], detail=detail, time=started)


async def ask_for_nonsense(way: Way, suspect: Evidence) -> Evidence:
    """Look up a name that cannot exist, because an endpoint turned out to have a private address. A checkpoint.

    Captive resolvers point every name to one address; a resolver that is told the truth by its owner does not. The name
    ends in `.invalid` (RFC 6761 §6.4), so that an honest resolver need not ask anybody.
    """
    started = trio.current_time()
    await trio.lowlevel.checkpoint()
    name = f"{secrets.token_hex(8)}.invalid"
    found = Addresses(())
    try:
        with trio.fail_after(FIRST_ANSWER_SECONDS):
            found = await way.resolve(name)
        same = suspect.address in found.addresses
        finding = Finding.NAMES_HIJACKED if same else Finding.NAMES_SANE
        others = "another address" if found.addresses else "no address of this family"
        detail = f"{name} has the address {suspect.address}, too" if same else f"{name} has {others}"
    except trio.TooSlowError:
        finding, detail = Finding.NAME_SILENT, "no answer from the resolver"
    except OSError as error:
        finding, detail = finding_of_error(error, naming=True), f"{name}: {sentence(error)}"
        if finding is Finding.NAME_FAILED:  # that there is no such name, or that it cannot tell: an honest resolver's
            finding = Finding.NAMES_SANE
    return Evidence(
        question=Question.NAMES,
        finding=finding,
        address=suspect.address,
        resolver=found.resolver,
        detail=detail,
        time=trio.current_time(),
        seconds=trio.current_time() - started,
    )


@attrs.define(eq=False)
class _Inquiry:
    """One question to one URL, and what becomes of it."""

    _way: Way
    _endpoint: Endpoint
    _question: Question
    _started: float = attrs.field(factory=trio.current_time)
    _resolver: IPAddress | None = None

    async def run(self) -> Evidence:
        await trio.lowlevel.checkpoint()
        answer_by = self._started + FIRST_ANSWER_SECONDS
        try:
            with trio.fail_at(answer_by):
                candidates = _one_of_each_family(await self._addresses())
        except trio.TooSlowError:
            return self._evidence(Finding.NAME_SILENT, "no answer from the resolver")
        except OSError as error:
            return self._evidence(finding_of_error(error, naming=True), sentence(error))
        evidence = self._evidence(Finding.NO_SUCH_ADDRESS, "the name has no address of this family")
        for tries_left, address in zip(range(len(candidates), 0, -1), candidates, strict=True):
            now = trio.current_time()
            share = (answer_by - now) / tries_left
            evidence = await self._try(address, answer_by=now + share)
            if evidence.status is not None:
                break
        return evidence

    async def _addresses(self) -> tuple[IPAddress, ...]:
        literal = self._endpoint.literal
        if literal is None:
            found = await self._way.resolve(self._endpoint.host, self._endpoint.port)
            self._resolver = found.resolver
            return found.addresses
        await trio.lowlevel.checkpoint()
        return (literal,) if self._way.family in (0, literal.version) else ()

    async def _try(self, address: IPAddress, *, answer_by: float) -> Evidence:
        """Ask at one address: the headers by `answer_by`, all by the end of the probe's ten seconds."""
        await trio.lowlevel.checkpoint()
        stream: trio.abc.Stream | None = None
        exchange: Exchange | None = None
        trouble: Finding | None = None
        detail, challenge = "", secrets.token_hex(8) if self._endpoint.challenge else ""
        try:
            with trio.move_on_at(answer_by) as scope:
                stream = await self._way.connect(address, self._endpoint.port)
                if self._endpoint.secure:
                    stream = await self._way.start_tls(stream, self._endpoint.host)
                exchange = Exchange(stream)
                await exchange.ask(self._endpoint, *self._headers(challenge))
                scope.deadline = self._started + TOTAL_SECONDS
                await exchange.read_body()
            if scope.cancelled_caught:
                trouble, detail = Finding.TIMEOUT, "the connection hangs" if exchange is None else "the answer hangs"
        except ExchangeError as error:
            trouble, detail = error.finding, str(error)
        except (trio.BrokenResourceError, OSError) as error:
            trouble, detail = finding_of_error(error), sentence(error)
        finally:
            if stream is not None:
                await trio.aclose_forcefully(stream)  # a probe owes its peer no goodbye
        return self._conclude(address, exchange, trouble, detail, challenge)

    def _headers(self, challenge: str) -> Iterable[tuple[str, str]]:
        if self._question is Question.API:
            yield "Accept", "application/captive+json"
        if challenge:
            yield CHALLENGE, challenge

    def _conclude(
        self, address: IPAddress, exchange: Exchange | None, trouble: Finding | None, detail: str, challenge: str
    ) -> Evidence:
        if exchange is None or exchange.status is None:
            evidence = self._evidence(trouble or Finding.OTHER, detail)
            return attrs.evolve(evidence, address=address)
        if self._question is Question.API:
            evidence = self._of_api(exchange, trouble, detail)
        else:
            finding = finding_of(
                self._endpoint,
                exchange.status,
                bytes(exchange.body),
                torn=trouble is not None,
                challenge=challenge,
                response=exchange.header(RESPONSE.lower().encode()),
            )
            evidence = self._evidence(finding or trouble or Finding.OTHER, detail)
        return attrs.evolve(
            evidence,
            address=address,
            status=exchange.status,
            location=exchange.location,
            body_bytes=len(exchange.body),
        )

    def _of_api(self, exchange: Exchange, trouble: Finding | None, detail: str) -> Evidence:
        if trouble is not None:
            return self._evidence(trouble, detail)
        if exchange.status != 200:
            return self._evidence(Finding.API_INVALID, f"the API answered {exchange.status}")
        try:
            capport = parse_capport(exchange.header(b"content-type") or "", bytes(exchange.body))
        except ValueError as error:
            return self._evidence(Finding.API_INVALID, str(error))
        finding = Finding.API_CAPTIVE if capport.captive else Finding.API_OPEN
        return attrs.evolve(self._evidence(finding, detail), capport=capport)

    def _evidence(self, finding: Finding, detail: str) -> Evidence:
        now = trio.current_time()
        if self._endpoint.literal is None and self._way.device is not None and not self._way.resolves_by_link:
            detail = f"{detail}; {_NOT_BY_LINK}" if detail else _NOT_BY_LINK
        return Evidence(
            question=self._question,
            finding=finding,
            endpoint=self._endpoint.url,
            resolver=self._resolver,
            detail=detail,
            time=now,
            seconds=now - self._started,
        )


def _one_of_each_family(addresses: Iterable[IPAddress]) -> list[IPAddress]:
    firsts: dict[int, IPAddress] = {}
    for address in addresses:
        firsts.setdefault(address.version, address)
    return list(firsts.values())
