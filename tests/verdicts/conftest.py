"""Which cases of the table are played, and the summary at the end."""

from __future__ import annotations

import os

import pytest

from tests.verdicts._row import Case, cases
from tests.verdicts._runner import Outcomes, Played, play
from tests.verdicts._table import ROWS, summary

PLAYED = pytest.StashKey[Played]()

# `make test` plays one family and one side of each row, `make test-verdicts` all of them.
SELECTED = cases(ROWS, all_of_them=os.environ.get("TRIO_ROUTES_VERDICTS") == "all")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "case" in metafunc.fixturenames:
        metafunc.parametrize("case", SELECTED, ids=str)


@pytest.fixture(scope="session")
def outcomes(request: pytest.FixtureRequest) -> Outcomes:
    """What became of all cases that are asked for in this run; played when the first test asks."""
    items = (item for item in request.session.items if isinstance(item, pytest.Function))
    wanted = [item.callspec.params["case"] for item in items if "outcomes" in item.fixturenames]
    played = play([case for case in wanted if isinstance(case, Case) and not case.lacks])
    request.config.stash[PLAYED] = played
    return played.outcomes


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the table, if it was wanted whole or if anything in it is not as it should be."""
    played = config.stash.get(PLAYED, None)
    if played is None:
        return
    if os.environ.get("TRIO_ROUTES_VERDICTS") == "all" or any(outcome.problem for outcome in played.outcomes.values()):
        terminalreporter.section("Situations and verdicts")
        for line in summary(played):
            terminalreporter.write_line(line)
