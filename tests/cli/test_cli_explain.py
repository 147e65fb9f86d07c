"""``trio-routes get --explain``: the steps under the answer, as text and in the JSON."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from trio_routes import testing
from trio_routes.cli import ExitStatus, main

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


async def test_a_protocol_and_ports_are_asked_by_as_rules_select_by_them(host: testing.Host) -> None:
    await host.run(["ip", "rule", "add", "pref", "7", "ipproto", "tcp", "sport", "1-9", "dport", "25", "prohibit"])
    await host.run([*PYTHON, "get", "8.8.8.8", "--ipproto", "udp", "--sport", "5", "--dport", "25"])
    with pytest.raises(subprocess.CalledProcessError) as ended:
        await host.run([*PYTHON, "get", "8.8.8.8", "--ipproto", "tcp", "--sport", "5", "--dport", "25", "--explain"])
    assert ended.value.returncode == ExitStatus.NO_ROUTE
    assert ended.value.stdout.decode().startswith("8.8.8.8 prohibited: Permission denied (rule 7)\n")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--mark 0x100000000", "argument --mark: 0x100000000 is not within 0 and 4294967295"),
        ("--mark=-1", "argument --mark: -1 is not within 0 and 4294967295"),
        ("--tos 256", "argument --tos: 256 is not within 0 and 255"),
        ("--uid root", "argument --uid: 'root' is not a number"),
        ("--sport 65536", "argument --sport: 65536 is not within 0 and 65535"),
        ("--dport=-1", "argument --dport: -1 is not within 0 and 65535"),
        ("--ipproto 256", "argument --ipproto: 256 is not within 0 and 255"),
        (
            "--ipproto http",
            "argument --ipproto: 'http' is neither a number nor one of icmp, tcp, udp, ipv6-icmp, sctp",
        ),
        ("--from ::1", "--from ::1 is not of the same family as 8.8.8.8"),
        ("--from 8.8.8", "argument --from: '8.8.8' is not an IPv4 or IPv6 address"),
    ],
)
def test_what_can_be_no_question_is_said_in_one_line_and_exits_as_wrong_arguments(
    words: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        status: object = main(["get", "8.8.8.8", *words.split()])
    except SystemExit as ended:  # argparse's own way
        status = ended.code
    assert status == ExitStatus.USAGE
    captured = capsys.readouterr()
    assert captured.err.splitlines()[-1] == f"trio-routes get: {said}"
    assert not captured.out
