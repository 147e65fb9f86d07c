"""The self-check: a sample of lookups, held against the kernel's own answers (RTM_GETROUTE).

The audit compares tables; this compares what is made of them. After each audit some destinations are
asked for, of registered connections first, then addresses inside routes chosen at random:

    begin() ─▶ waiting ──ask──▶ outstanding ──reply──▶ heard ──weigh──▶ agreed · exempt · nothing
                  ▲                                                │
                  └──────────────── 2 s later, once ◀── differing ─┘──▶ differing again: a difference

The kernel answers at once, on the channel's own socket. An answer is weighed when all that lay in the
queue with it has been applied, and counts only if nothing changed since the question was asked. A
difference must show twice, since some notifications are late: those of a lost carrier by up to a second.

It asks few questions at a time, never waits, and asks no more where the kernel does not answer such
questions (a recording, a kernel in memory).
"""

from __future__ import annotations

import errno
import logging
import math
from collections import deque
from collections.abc import Callable, Iterable
from ipaddress import IPv4Address, IPv6Address
from random import Random

import attrs

from ._once import Once
from ._selfcheck_answers import Answer, Question, agree, exemption, is_answer, read_answer
from .netlink import AF_INET, AF_INET6, RT_TABLE_LOCAL, IPAddress, Request
from .routing import Cache

# Questions in one self-check, and how many of them at most are about connections.
SAMPLE, PEERS = 16, 12
MOST_OUTSTANDING = 4
# Seconds until a difference is looked at again, and until an answer is given up.
SECOND_LOOK, PATIENCE = 2.0, 5.0


@attrs.define(slots=True)
class SelfCheckStatistics:
    """Counters of the self-check.

    Attributes:
      checks: Lookups that were held against the kernel's answer.
      differences: Those of which the kernel's answer was another, and nothing explains it.
      exemptions: Those whose difference says nothing against the cache, by the reason.
    """

    checks: int = 0
    differences: int = 0
    exemptions: dict[str, int] = attrs.field(factory=dict[str, int])


@attrs.define(slots=True)
class _Asked:
    """A question under way.

    Attributes:
      again: Whether it was asked before, and the answers differed.
      at: When it is to be asked, or was.
      generation: The cache's when it was asked.
      answer: The kernel's, once it is there.
    """

    question: Question
    again: bool = False
    at: float = -math.inf
    generation: int = 0
    answer: Answer | None = None


class SelfCheck:
    """Asks the kernel what the cache answers too.

    Args:
      cache: The cache.
      send: Sends a request and returns its sequence number; may raise OSError.
      peers: The questions that connections depend on.
      random: Chooses.

    Attributes:
      statistics: Counters, from the beginning on.
    """

    def __init__(
        self,
        cache: Cache,
        send: Callable[[Request], int],
        peers: Callable[[], Iterable[Question]],
        random: Random | None = None,
    ) -> None:
        self._cache = cache
        self._send = send
        self._peers = peers
        self._random = random or Random()
        self._waiting: deque[_Asked] = deque()
        self._outstanding: dict[int, _Asked] = {}
        self._once = Once()
        self._refused = False
        self.statistics = SelfCheckStatistics()

    def begin(self) -> None:
        """Choose what to ask; `turn` asks it. What is left of the time before is forgotten."""
        self.abandon()
        if not self._refused:
            self._waiting.extend(map(_Asked, self._sample()))

    def abandon(self) -> None:
        """Ask no more, and expect no answers."""
        self._waiting.clear()
        self._outstanding.clear()

    @property
    def wake_at(self) -> float:
        """When `turn` is next to be called if nothing is heard; infinite while nothing is to be done."""
        if not self._outstanding and not self._waiting:
            return math.inf
        times = [asked.at + PATIENCE for asked in self._outstanding.values()]
        if len(times) < MOST_OUTSTANDING:  # else there is nothing to be done before an answer, or its time is up
            times += [asked.at for asked in self._waiting]
        return min(times, default=math.inf)

    def hear(self, sequence: int, data: bytes) -> None:
        """Take what may be a reply; `turn` weighs it."""
        asked = self._outstanding.get(sequence)
        if asked is not None:
            asked.answer = read_answer(data) or Answer(errno.ENODATA)

    def turn(self, now: float) -> bool:
        """Weigh what was heard and ask on; returns whether a difference was found that was not known.

        To be called when everything has been applied that was read, and the generation is that of the tables.
        """
        if not self._outstanding and not self._waiting:
            return False
        found = False
        for sequence, asked in list(self._outstanding.items()):
            if asked.answer is not None:
                del self._outstanding[sequence]
                found |= self._weigh(asked, asked.answer, now)
            elif now >= asked.at + PATIENCE:
                del self._outstanding[sequence]
        self._ask(now)
        return found

    # ---- asking ------------------------------------------------------------------------------

    def _ask(self, now: float) -> None:
        for _ in range(len(self._waiting)):
            if len(self._outstanding) >= MOST_OUTSTANDING:
                return
            asked = self._waiting.popleft()
            if asked.at > now:
                self._waiting.append(asked)
                continue
            asked.at, asked.generation, asked.answer = now, self._cache.generation, None
            try:
                self._outstanding[self._send(asked.question.request())] = asked
            except OSError:
                self.abandon()  # the socket's trouble is for whoever reads it
                return

    def _sample(self) -> list[Question]:
        questions = list(self._peers())
        if len(questions) > PEERS:
            questions = self._random.sample(questions, PEERS)
        for _ in range(SAMPLE - len(questions)):
            destination = self._inside_a_route()
            if destination is not None:
                questions.append(Question(destination))
        return list(dict.fromkeys(questions))

    def _inside_a_route(self) -> IPAddress | None:
        """An address that some route serves; None where one was chosen that no packet of a program goes to."""
        tables = self._cache.state.tables[self._random.choice((AF_INET, AF_INET6))]
        key = tables.pick(self._random, apart_from=RT_TABLE_LOCAL)
        if key is None:
            return None
        _, length, prefix = key
        value = prefix | self._random.getrandbits(tables.width - length)
        address = IPv4Address(value) if tables.family == AF_INET else IPv6Address(value)
        odd = address.is_multicast or address.is_loopback or address.is_unspecified
        if isinstance(address, IPv6Address):
            odd |= address.is_link_local  # which means nothing without its link
        else:
            odd |= address.is_reserved or value >> 24 == 0
        return None if odd else address

    # ---- weighing ----------------------------------------------------------------------------

    def _weigh(self, asked: _Asked, answer: Answer, now: float) -> bool:
        if not is_answer(answer):
            if answer.errno == errno.EOPNOTSUPP:
                self._refused = True
                self._waiting.clear()
            return False
        resolution = asked.question.ask(self._cache)
        if agree(resolution, answer):
            self.statistics.checks += 1
            return False
        if asked.generation != self._cache.generation:
            reason = "the tables changed meanwhile"
        else:
            reason = exemption(asked.question, resolution, answer, self._cache)
        if not reason and not asked.again:
            self._waiting.append(attrs.evolve(asked, again=True, at=now + SECOND_LOOK))
            return False
        self.statistics.checks += 1
        if reason:
            self.statistics.exemptions[reason] = self.statistics.exemptions.get(reason, 0) + 1
            return False
        self.statistics.differences += 1
        return self._once.say(
            logging.WARNING, f"the way to {asked.question}: a lookup says {resolution}, the kernel {answer}"
        )
