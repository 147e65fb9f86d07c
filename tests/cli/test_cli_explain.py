"""``trio-routes get --explain``: the steps under the answer, as text and in the JSON."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from trio_routes import testing
from trio_routes.cli import ExitStatus

PYTHON = (sys.executable, "-m", "trio_routes")


@pytest.fixture
async def host(lab: testing.Lab) -> testing.Host:
    host = lab.host("device")
    host.plug(lab.network("net"), name="a0", addresses=["10.0.1.2/24"])
    for command in ("route add default via 10.0.1.1", "rule add pref 5 fwmark 7 prohibit", "rule add pref 6 lookup 99"):
        await host.run(["ip", *command.split()])
    return host


async def test_the_steps_are_listed_under_the_answer(host: testing.Host) -> None:
    assert await host.run([*PYTHON, "get", "8.8.8.8", "--uid", "0", "--explain"]) == (
        "8.8.8.8 via 10.0.1.1 dev a0 src 10.0.1.2 uid 0 (by default of table main, rule 32766)\n"
        "  rule 0 lookup local: its table has no route there\n"
        "  rule 5 fwmark 0x7 prohibit: does not match (fwmark 0x7: it is 0x0)\n"
        "  rule 6 lookup 99: its table has no route there\n"
        "  rule 32766 lookup main: answers\n"
        "    default via 10.0.1.1 dev a0: answers\n"
    )


async def test_the_steps_are_in_the_json(host: testing.Host) -> None:
    (said,) = json.loads(await host.run([*PYTHON, "get", "8.8.8.8", "--explain", "--json"]))
    assert said["gateway"] == "10.0.1.1"
    assert [step["why"] for step in said["steps"]] == ["empty", "selector", "empty", "answers", "answers"]
    assert said["steps"][-1] == {
        "why": "answers",
        "text": "default via 10.0.1.1 dev a0: answers",
        "rule": 32766,
        "table": "254",
        "dst": "default",
    }
    (plain,) = json.loads(await host.run([*PYTHON, "get", "8.8.8.8", "--json"]))
    assert "steps" not in plain


async def test_a_refusal_is_explained_and_exits_as_ever(host: testing.Host) -> None:
    with pytest.raises(subprocess.CalledProcessError) as ended:
        await host.run([*PYTHON, "get", "8.8.8.8", "--mark", "7", "--explain"])
    assert ended.value.returncode == ExitStatus.NO_ROUTE
    assert ended.value.stdout.decode().endswith("  rule 5 fwmark 0x7 prohibit: rejects\n")
