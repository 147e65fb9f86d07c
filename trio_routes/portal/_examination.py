"""One run over one path: all questions at once, and what the answers make one ask besides."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable

import attrs
import trio

from ._config import Endpoint, PortalProbe
from ._evidence import Evidence, Finding, Question
from ._hints import Known
from ._probe import TOTAL_SECONDS, ask_api, ask_for_nonsense, probe
from ._way import Way

# Of all runs of a detector together (Tailscale asks as many). More would only compete for the same thin pipe.
MOST_AT_ONCE = 5

_NO_API = (
    "nobody has told an API's URL for this link: not the application, no router in an advertisement that the kernel took "
    "(systemd-networkd and NetworkManager have it take none on their links), and no state file of theirs"
)

_logger = logging.getLogger("trio_routes.portal")


@attrs.frozen(eq=False)
class Examiner:
    """Asks all that there is to ask.

    Attributes:
      endpoints: Whom to ask; one that is an address of the other family is passed over.
      probes: The application's own.
      limit: Questions at once, shared by all runs.
    """

    endpoints: tuple[Endpoint, ...]
    probes: tuple[PortalProbe, ...]
    limit: trio.CapacityLimiter = attrs.field(factory=lambda: trio.CapacityLimiter(MOST_AT_ONCE))

    async def examine(self, way: Way, known: Known) -> tuple[Evidence, ...]:
        """Ask over one path. A checkpoint; at most 10 s, and 3 s more where names look hijacked. Raises nothing.

        Args:
          way: The path.
          known: What is known of its link.

        Returns:
          The evidence: the API's first, then in the order of the configuration; never empty.
        """
        questions = list(self._questions(way, known))
        found: dict[int, Evidence] = {}

        async def one(number: int, ask: Callable[[], Awaitable[Evidence]]) -> None:
            async with self.limit:
                found[number] = await ask()

        async with trio.open_nursery() as nursery:
            for number, ask in enumerate(questions):
                nursery.start_soon(one, number, ask)
        evidence = [found[number] for number in range(len(questions))]
        evidence += await self._second_thoughts(way, evidence)
        now = trio.current_time()
        if way.device is not None and known.api_url is None:
            evidence.insert(0, Evidence(question=Question.API, finding=Finding.API_UNKNOWN, detail=_NO_API, time=now))
        if not questions:
            detail = "no endpoint has an address of this family"
            finding = Finding.NO_SUCH_ADDRESS
            evidence.append(Evidence(question=Question.TABLES, finding=finding, detail=detail, time=now))
        return tuple(evidence)

    def _questions(self, way: Way, known: Known) -> Iterable[Callable[[], Awaitable[Evidence]]]:
        url = known.api_url
        if url is not None:
            yield lambda: _api(way, url, known.api_source)
        for endpoint in self.endpoints:
            literal = endpoint.literal
            if literal is None or way.family in (0, literal.version):
                yield _asking(way, endpoint)
        for own in self.probes:
            yield _asking_own(way, own)

    async def _second_thoughts(self, way: Way, evidence: Iterable[Evidence]) -> list[Evidence]:
        """Ask whether every name leads to one private address, if an endpoint's did: usually nothing is asked."""
        await trio.lowlevel.checkpoint()
        named = {endpoint.url for endpoint in self.endpoints if endpoint.literal is None}
        for one in evidence:
            if one.endpoint in named and one.address is not None and one.address.is_private:
                async with self.limit:
                    return [await ask_for_nonsense(way, one)]
        return []


def _asking(way: Way, endpoint: Endpoint) -> Callable[[], Awaitable[Evidence]]:
    return lambda: probe(way, endpoint)


def _asking_own(way: Way, own: PortalProbe) -> Callable[[], Awaitable[Evidence]]:
    return lambda: _run_own(way, own)


async def _api(way: Way, url: str, source: str) -> Evidence:
    evidence = await ask_api(way, url)
    return attrs.evolve(evidence, detail="; ".join(filter(None, (evidence.detail, f"URL from {source}"))))


async def _run_own(way: Way, own: PortalProbe) -> Evidence:
    """Run an application's probe within a probe's time; what it raises is evidence too, and logged."""
    started = trio.current_time()
    finding, detail = Finding.TIMEOUT, "the application's probe did not end"
    await trio.lowlevel.checkpoint()
    with trio.move_on_after(TOTAL_SECONDS):
        await trio.lowlevel.checkpoint()
        try:
            evidence = await own(way)
            # Whoever answers has not always a clock at hand; 0.0 is what an Evidence without one has.
            time = evidence.time or trio.current_time()
            return attrs.evolve(evidence, question=Question.OWN, time=time)
        except Exception as error:  # noqa: BLE001  # a probe of one's own must not end the pt, nor what it returns
            _logger.warning("the application's portal probe failed: %r", error)
            finding, detail = Finding.OTHER, f"{type(error).__name__}: {error}"
    now = trio.current_time()
    return Evidence(question=Question.OWN, finding=finding, detail=detail, time=now, seconds=now - started)
