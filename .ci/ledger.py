"""A pytest plugin for .ci/run: writes down what became of the kernel ring, so that a skip cannot pass for a success.

``pytest -p ledger`` with this folder on PYTHONPATH and ``LEDGER_FILE`` set leaves a JSON object there: how many tests
passed, failed and were skipped, the same for those marked ``netns`` and ``verdicts``, and what was skipped, with the reasons. A file that
pytest could not even collect (a module-level skip, a missing extra) hides an unknown number of tests, so it is listed
with them.
"""

import json
import os
from pathlib import Path

import pytest

MARKER = "netns"
SITUATION = "verdicts"


class Ledger:
    """Counts outcomes as pytest reports them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.kernel: set[str] = set()
        self.situations: set[str] = set()
        self.outcomes: dict[str, str] = {}
        self.skipped: dict[str, str] = {}
        self.uncollected: dict[str, str] = {}

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Remember which tests are the kernel ring's; a report no longer says it reliably."""
        self.kernel = {item.nodeid for item in items if item.get_closest_marker(MARKER)}
        self.situations = {item.nodeid for item in items if item.get_closest_marker(SITUATION)}

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Note a file that was skipped as a whole."""
        if report.skipped:
            self.uncollected[report.nodeid] = report.longreprtext

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note the worst outcome of set-up, call and tear-down."""
        expected_failure = hasattr(report, "wasxfail")
        if report.failed:
            self.outcomes[report.nodeid] = "failed"
        elif report.skipped and not expected_failure:
            self.outcomes[report.nodeid] = "skipped"
            self.skipped[report.nodeid] = report.longreprtext
        elif report.when == "call":
            self.outcomes.setdefault(report.nodeid, "passed")

    def pytest_sessionfinish(self) -> None:
        """Write the file."""
        self.path.write_text(
            json.dumps(
                {
                    "all": self._count(set(self.outcomes)),
                    "kernel": self._count(self.kernel),
                    "situations": self._count(self.situations),
                    "skipped": {name: why for name, why in self.skipped.items() if name in self.kernel},
                    "uncollected": self.uncollected,
                }
            )
        )

    def _count(self, names: set[str]) -> dict[str, int]:
        outcomes = [outcome for name, outcome in self.outcomes.items() if name in names]
        return {outcome: outcomes.count(outcome) for outcome in ("passed", "failed", "skipped")}


def pytest_configure(config: pytest.Config) -> None:
    """Register the ledger, if anybody wants it: once, for a pytest that some test starts must not write over it."""
    if path := os.environ.pop("LEDGER_FILE", None):
        config.pluginmanager.register(Ledger(Path(path)))
