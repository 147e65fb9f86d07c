"""``trio-routes demo``: that it shows what it claims, and says so when it does not."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys

import pytest

from trio_routes.cli import _demo
from trio_routes.cli._demo_report import ActResult, summary
from trio_routes.testing import Lab


@pytest.mark.netns
@pytest.mark.parametrize("family", [4, 6])
def test_the_demo_observes_everything_that_it_promises(family: int) -> None:
    """Takes some 10 s, most of them watching plain connections hang."""
    argv = [sys.executable, "-m", "trio_routes", "demo", "--json", f"-{family}"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    shown = json.loads(line)
    assert shown["ok"] is True and shown["family"] == family
    acts = {act["act"]: act for act in shown["acts"]}
    lost = [act for name, act in acts.items() if name.startswith("(")]
    assert [act["reason"] for act in lost] == [
        "egress changed",
        "source gone",
        "egress changed" if family == 4 else "source gone",
        "carrier lost",
        "egress changed",
    ]
    for act in lost:
        assert act["ended_after_ms"] is not None
        assert set(act["expectations"]) == {
            "the guarded one ended promptly",
            "the plain one still hangs",
            "the neighbour one lives",
            "the loopback one lives",
            "the guarded one is back over LTE",
        }
    assert "captive portal" in acts
    assert "as expected" in done.stderr and "carrier lost" in done.stderr  # the story and the table go there


def test_an_act_without_expectations_or_with_one_unmet_is_not_ok() -> None:
    assert not ActResult("nothing looked at").ok
    result = ActResult("(a) route deleted", {"it ended": True, "the plain one hangs": False}, reason="no route")
    assert not result.ok
    assert "NO: the plain one hangs" in summary([result])
    assert result.as_json()["ok"] is False


def test_one_unmet_expectation_makes_the_exit_status_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def play(family: int, say: object) -> list[ActResult]:
        return [ActResult("one", {"seen": True}), ActResult("two", {"seen": False})]

    monkeypatch.setattr(_demo, "_play", play)
    monkeypatch.setattr(_demo, "become_lab_root", lambda: None)
    monkeypatch.setattr(Lab, "unavailable", staticmethod(lambda: None))
    assert _demo.run(argparse.Namespace(json=True, family=None)) == 1
    assert json.loads(capsys.readouterr().out)["ok"] is False


def test_where_namespaces_are_forbidden_it_says_so_plainly() -> None:
    # A user namespace in which no further one may be made, by its own limit.
    script = (
        "echo 0 > /proc/sys/user/max_user_namespaces; echo 0 > /proc/sys/user/max_net_namespaces;"
        f" exec setpriv --bounding-set -all --inh-caps -all {sys.executable} -m trio_routes demo"
    )
    if subprocess.run(["unshare", "-Ur", "true"], check=False, capture_output=True).returncode != 0:
        pytest.skip("user namespaces are forbidden here, so a narrower one cannot be made")
    done = subprocess.run(
        ["unshare", "-Ur", "sh", "-c", script], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 1, done.stderr
    assert done.stderr.startswith("trio-routes demo: the demo needs network namespaces: ")
    assert "Traceback" not in done.stderr
