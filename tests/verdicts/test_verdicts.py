"""Every situation of docs/verdicts.md on the real kernel: what happens to the connection, and what we say of it.

The rows are in `_rows_*.py`, what they expect is explained in `_row.py`, how they are played in `_runner.py`. Each has
controls that must live: a connection to a neighbour on another link, and one over loopback.
"""

from __future__ import annotations

import pytest

from tests.verdicts._row import Case
from tests.verdicts._runner import Outcomes

pytestmark = [pytest.mark.netns, pytest.mark.verdicts]


def test_row(case: Case, outcomes: Outcomes) -> None:
    if case.lacks:
        pytest.skip(f"not installed: {case.lacks}")
    outcome = outcomes[case]
    assert not outcome.problem, f"{case}: {outcome.problem} (the kernel's truth: {outcome.truth}; ours: {outcome.ours})"
