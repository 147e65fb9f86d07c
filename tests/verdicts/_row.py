"""The rows of the table of situations (docs/verdicts.md) as they are played on the real kernel, and what must come of them.

A row is a function that opens its connections on a `Stage` and then changes the network. What it expects is one of

    Kept         alive; the connection is never SUSPECT
    Acquitted    alive; SUSPECT of a verdict for a while, then GOOD again
    Closed       dead; ended with a verdict, not before its wait is over, and at most 10 s later
    LeftSuspect  dead, for all that can be known here; SUSPECT of a hint that closes nothing by itself

"Alive" and "dead" are not believed but tried: a byte each way, over the connection itself or, where that was closed, over a
twin that was opened beside it and that nobody guards.
"""

from __future__ import annotations

import shutil
from collections.abc import Awaitable, Callable
from typing import TypeAlias

import attrs

from tests._uplinks import Family
from tests.verdicts._stage import Side, Stage
from trio_routes import Verdict

LATEST = 10.0
"""Seconds after its wait by which a dead connection must have been ended."""


@attrs.frozen
class Kept:
    """Alive, and never SUSPECT."""

    verdict: Verdict = Verdict.UNCHANGED


@attrs.frozen
class Acquitted:
    """Alive, though SUSPECT for a while.

    Attributes:
      verdict: Of what, at some time.
      by: What showed that it lives.
    """

    verdict: Verdict
    by: str


@attrs.frozen
class Closed:
    """Dead, and ended.

    Attributes:
      verdict: Why.
      after: Seconds since the change; never sooner.
    """

    verdict: Verdict
    after: float


@attrs.frozen
class LeftSuspect:
    """Dead, and suspected of a hint only, for as long as it lasts."""

    verdict: Verdict


Expected: TypeAlias = Kept | Acquitted | Closed | LeftSuspect

BY_KEEPALIVE = "the far side, asked by keepalive"
BY_DATA = "acknowledged data"
BY_PATH = "its path is back"

Playing: TypeAlias = Callable[[Stage], Awaitable[None]]


@attrs.frozen
class Network:
    """How the two uplinks of the stage are built; see `Lab.two_uplinks()`."""

    nat: bool
    spare_gateway: bool = False
    lte_metric: int | None = None


@attrs.frozen
class Row:
    """One situation.

    Attributes:
      number: The row in docs/verdicts.md.
      situation: What happens, in words.
      network: On what it is played.
      expected: What must come of it.
      play: Opens the connections and changes the network.
      families: Of which it is true.
      sides: Who may have opened the connection: this host ("client") or its peer ("server").
      programs: Without which it cannot be played.
    """

    number: str
    situation: str
    network: Network
    expected: Expected
    play: Playing
    families: tuple[Family, ...]
    sides: tuple[Side, ...]
    programs: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Of which there is one."""
        return f"{self.number}: {self.situation}"


@attrs.frozen
class Case:
    """A row for one family and one side."""

    row: Row
    family: Family
    side: Side

    @property
    def lacks(self) -> str:
        """The programs for want of which this cannot be played, or ""."""
        return ", ".join(program for program in self.row.programs if shutil.which(program) is None)

    def __str__(self) -> str:
        return f"{self.row.name}-IPv{self.family}-{self.side}"


@attrs.define(eq=False)
class Rows:
    """A section of the table."""

    all: list[Row] = attrs.field(factory=list[Row])

    def row(
        self,
        number: str,
        situation: str,
        network: Network,
        expected: Expected,
        *,
        families: tuple[Family, ...] = (4, 6),
        sides: tuple[Side, ...] = ("client", "server"),
        programs: tuple[str, ...] = (),
    ) -> Callable[[Playing], Playing]:
        """Add the decorated function as a row."""

        def add(play: Playing) -> Playing:
            self.all.append(Row(number, situation, network, expected, play, families, sides, programs))
            return play

        return add


def cases(rows: list[Row], *, all_of_them: bool) -> list[Case]:
    """All families and sides of all rows, or one of each row: both families and both sides have their turn."""
    if all_of_them:
        return [Case(row, family, side) for row in rows for family in row.families for side in row.sides]
    return [
        Case(row, row.families[index % len(row.families)], row.sides[index // 2 % len(row.sides)])
        for index, row in enumerate(rows)
    ]


NotRun: TypeAlias = tuple[str, str, str]
"""Number, situation, and why it is not played."""
