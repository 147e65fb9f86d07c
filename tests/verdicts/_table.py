"""All rows, and the summary of what became of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from tests.verdicts import (
    _rows_addresses,
    _rows_gateways,
    _rows_links,
    _rows_producers,
    _rows_sockets,
    _rows_tunnels,
    _rows_uplinks,
)
from tests.verdicts._row import NotRun, Row
from tests.verdicts._runner import Outcome, Played

ROWS: list[Row] = [
    *_rows_uplinks.uplinks.all,
    *_rows_tunnels.tunnels.all,
    *_rows_addresses.addresses.all,
    *_rows_gateways.gateways.all,
    *_rows_links.links.all,
    *_rows_sockets.sockets.all,
    *_rows_producers.producers.all,
]

NOT_RUN: list[NotRun] = sorted(
    [
        *_rows_uplinks.NOT_RUN,
        *_rows_tunnels.NOT_RUN,
        *_rows_gateways.NOT_RUN,
        *_rows_links.NOT_RUN,
        *_rows_sockets.NOT_RUN,
    ],
    key=lambda row: int(row[0]),
)


def summary(played: Played) -> Iterator[str]:
    """Yield the lines of the table: one for each connection, then the rows that were not run, then the counts."""
    yield f"{'row':>4}  {'situation':66}  {'side':10}  {'truth':6}  {'ours':44}  seconds"
    for case, outcome in played.outcomes.items():
        side = f"v{case.family} {case.side}"
        seconds = "" if outcome.seconds is None else f"{outcome.seconds:7.2f}"
        line = f"{case.row.number:>4}  {case.row.situation:66}  {side:10}  {_truth(outcome):6}  {outcome.ours:44}  {seconds:7}"
        yield line.rstrip() + ("  again" if outcome.again else "")
        if outcome.problem:
            yield f"      DIFFERENT: {outcome.problem}"
    for number, situation, reason in NOT_RUN:
        yield f"{number:>4}  {situation:66}  not run: {reason}"
    yield _counts(played.outcomes.values())
    yield f"The loop was at most {played.worst:.2f} s late."


def _truth(outcome: Outcome) -> str:
    if outcome.truth is None:
        return "?"
    return "alive" if outcome.truth == "alive" else "dead"


def _counts(outcomes: Iterable[Outcome]) -> str:
    outcomes = list(outcomes)
    different = sum(bool(outcome.problem) for outcome in outcomes)
    again = sum(outcome.again for outcome in outcomes)
    return (
        f"{len(outcomes)} connections: {len(outcomes) - different} as the table says, {different} different, "
        f"{again} played again; {len(NOT_RUN)} rows not run"
    )
