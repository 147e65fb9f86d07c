"""Every situation of docs/verdicts.md on the real kernel: what happens to the connection, and what we say of it.

The rows are in `_rows_*.py`, what they expect is explained in `_row.py`, how they are played in `_runner.py`. Each has
controls that must live: a connection to a neighbour on another link, and one over loopback.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.verdicts._row import Case
from tests.verdicts._runner import Outcomes
from tests.verdicts._table import NOT_RUN, ROWS

DOCUMENT = Path(__file__).parents[2] / "docs" / "verdicts.md"


def test_each_situation_of_the_document_is_played_or_says_why_not() -> None:
    numbers = set(re.findall(r"^\| (\d+) \|", DOCUMENT.read_text(), re.MULTILINE))
    assert len(numbers) == 95
    assert numbers == {row.number for row in ROWS} | {number for number, _, _ in NOT_RUN}


@pytest.mark.netns
@pytest.mark.verdicts
def test_row(case: Case, outcomes: Outcomes) -> None:
    if case.lacks:
        pytest.skip(f"not installed: {case.lacks}")
    outcome = outcomes[case]
    assert not outcome.problem, f"{case}: {outcome.problem} (the kernel's truth: {outcome.truth}; ours: {outcome.ours})"
