"""What all tests share: the rights for the namespace lab, the marker ``netns``, the fixture ``lab``, both families.

A test is marked ``netns`` by hand or by using ``lab``. Where there can be no lab it is skipped with the reason, or
fails with ``TRIO_ROUTES_REQUIRE_LAB=1`` in the environment, as in CI, where a skip would hide that nothing was tested.
"""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Literal

import pytest

from trio_routes import testing


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "netns: needs the namespace lab (root, or a user namespace of one's own)")
    # First of all hooks: a second thread (a debugger's, a plugin's) makes it impossible. pytest-xdist's workers
    # are started later and inherit the rights.
    with suppress(testing.LabUnavailable):  # Lab.unavailable() keeps the reason for the tests that need the lab
        testing.become_lab_root()
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # As in a background job of a script's shell. Tests press Ctrl-C, here and in programs that would inherit this.
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "lab" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.netns)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("netns") is None:
        return
    reason = testing.Lab.unavailable()
    if reason is None:
        return
    if os.environ.get("TRIO_ROUTES_REQUIRE_LAB") == "1":
        pytest.fail(f"TRIO_ROUTES_REQUIRE_LAB=1, but {reason}", pytrace=False)
    pytest.skip(reason)


@pytest.fixture
async def lab() -> AsyncIterator[testing.Lab]:
    """A lab, open and empty."""
    async with testing.Lab() as lab:
        yield lab


@pytest.fixture(params=[4, 6], ids=["IPv4", "IPv6"])
def family(request: pytest.FixtureRequest) -> Literal[4, 6]:
    """Run the test once for each family."""
    return 6 if request.param == 6 else 4
