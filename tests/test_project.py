"""The project as it is built and started: metadata, pins, the command line's plumbing, the benchmarks' table, CI's judge."""

import argparse
import importlib
import importlib.metadata
import json
import os
import re
import signal
import subprocess
import sys
import sysconfig
import time
import tomllib
import types
from collections.abc import Callable
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from benchmarks.table import Row, best_of, format_table
from trio_routes._version import __version__
from trio_routes.cli import CommandFailedError, ExitStatus, _arguments, _main, main

ROOT = Path(__file__).parent.parent
SCRIPT = Path(sysconfig.get_path("scripts")) / "trio-routes"

InstallCommand = Callable[[Callable[[], int]], None]


def run(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, capture_output=True, text=True, timeout=30, check=False)


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return {
        str(canonicalize_name(name)): version
        for name, _, version in (line.partition("==") for line in lines if not line.startswith("#"))
    }


def requirements() -> list[Requirement]:
    return [Requirement(text) for text in importlib.metadata.requires("trio-routes") or ()]


# --- metadata and pins


def test_the_installed_version_is_the_package_s_own() -> None:
    assert importlib.metadata.version("trio-routes") == __version__


def test_every_line_of_the_constraints_is_one_exact_version_and_no_address() -> None:
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        assert line.startswith("#") or re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.]*", line), line


def test_every_requirement_and_all_that_it_pulls_in_is_pinned_to_what_it_allows() -> None:
    pinned = pins()
    waiting, seen = requirements(), set[str]()
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        if name == "trio-routes":
            continue
        assert name in pinned, f"{name} is not in constraints.txt"
        assert pinned[name] in requirement.specifier, requirement
        try:
            further = importlib.metadata.requires(name) or ()
        except importlib.metadata.PackageNotFoundError:
            continue  # The linters are installed by `make check` only.
        key = f"{name}[{','.join(sorted(requirement.extras))}]"
        if key not in seen:
            seen.add(key)
            extras = requirement.extras or {""}
            candidates = [Requirement(text) for text in further]
            waiting += [r for r in candidates if not r.marker or any(r.marker.evaluate({"extra": e}) for e in extras)]


def test_the_extra_all_has_every_extra_for_users() -> None:
    with (ROOT / "pyproject.toml").open("rb") as file:
        extras = tomllib.load(file)["project"]["optional-dependencies"]
    assert Requirement(extras["all"][0]).extras == set(extras) - {"all", "test", "lint"}


# --- the command line


@pytest.mark.parametrize("start", [(SCRIPT,), (sys.executable, "-m", "trio_routes")], ids=["script", "python -m"])
def test_both_ways_to_start_print_the_version(start: tuple[str | Path, ...]) -> None:
    done = run(*start, "--version")
    assert (done.returncode, done.stdout) == (ExitStatus.OK, f"trio-routes {__version__}\n")


def test_help_lists_every_command_and_every_exit_status() -> None:
    done = run(sys.executable, "-m", "trio_routes", "--help")
    assert done.returncode == ExitStatus.OK
    for entry in _main.COMMANDS:
        assert re.search(rf"^ +{entry.name} +{re.escape(entry.help[:20])}", done.stdout, re.MULTILINE), entry.name
    for status in ExitStatus:
        assert re.search(rf"^ +{status.value} +{re.escape(status.meaning)}$", done.stdout, re.MULTILINE), status


@pytest.mark.parametrize("entry", _main.COMMANDS, ids=lambda entry: entry.name)
def test_every_command_of_the_registry_explains_itself(entry: _main.Entry, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main([entry.name, "--help"])
    assert exit_.value.code == ExitStatus.OK
    assert capsys.readouterr().out.startswith(f"usage: trio-routes {entry.name}")
    assert callable(importlib.import_module(entry.module).run)


def test_help_imports_no_command() -> None:
    done = run(
        sys.executable,
        "-c",
        "import sys; from trio_routes.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "print('imported', [n for n in sys.modules if n in ('rich', 'trio_routes.cli._demo')])",
    )
    assert done.stdout.endswith("imported []\n"), done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "COMMAND"),
        (["fly"], "invalid choice: 'fly'"),
        (["--verbos", "stub"], "--verbos"),
        (["stub", "--high"], "unrecognized arguments: --high"),
        (["stub", "--at", "192.0.2.300"], "'192.0.2.300' is not an IPv4 or IPv6 address"),
    ],
)
def test_wrong_arguments_say_what_was_wrong_and_end_with_64(
    words: list[str], said: str, install: InstallCommand, capsys: pytest.CaptureFixture[str]
) -> None:
    install(lambda: 0)
    with pytest.raises(SystemExit) as exit_:
        main(words)
    assert exit_.value.code == ExitStatus.USAGE
    assert said in capsys.readouterr().err


@pytest.fixture(name="install")
def install_(monkeypatch: pytest.MonkeyPatch) -> InstallCommand:
    """Make ``trio-routes stub`` a command that does what it is given."""

    def install(body: Callable[[], int]) -> None:
        module = types.ModuleType("stub_command")

        def add_arguments(parser: argparse.ArgumentParser) -> None:
            parser.add_argument("--at", type=_arguments.ip_address)

        def run(_namespace: argparse.Namespace) -> int:
            return body()

        vars(module).update(add_arguments=add_arguments, run=run)
        monkeypatch.setitem(sys.modules, "stub_command", module)
        monkeypatch.setattr(_main, "COMMANDS", (_main.Entry("stub", "stub_command", "for the tests"),))

    return install


def raising(error: BaseException) -> Callable[[], int]:
    def body() -> int:
        raise error

    return body


def test_a_command_s_status_is_the_program_s(install: InstallCommand) -> None:
    install(lambda: ExitStatus.NO_ROUTE)
    assert main(["stub"]) == ExitStatus.NO_ROUTE


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt(), BaseExceptionGroup("nursery", [BaseExceptionGroup("inner", [KeyboardInterrupt()])])]
)
def test_ctrl_c_is_quiet_in_a_nursery_too(
    error: BaseException, install: InstallCommand, capsys: pytest.CaptureFixture[str]
) -> None:
    install(raising(error))
    assert main(["stub"]) == ExitStatus.INTERRUPTED
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    "error",
    [
        CommandFailedError("no such table: 7"),
        OSError("no such table: 7"),
        ExceptionGroup("nursery", [OSError("no such table: 7")]),
    ],
)
def test_a_foreseen_failure_is_one_line_on_stderr(
    error: Exception, install: InstallCommand, capsys: pytest.CaptureFixture[str]
) -> None:
    install(raising(error))
    assert main(["stub"]) == ExitStatus.FAILED
    assert capsys.readouterr() == ("", "trio-routes stub: no such table: 7\n")


@pytest.mark.parametrize(
    "error", [RuntimeError("bug"), BaseExceptionGroup("both", [KeyboardInterrupt(), RuntimeError("bug")])]
)
def test_a_bug_keeps_its_traceback(error: BaseException, install: InstallCommand) -> None:
    install(raising(error))
    with pytest.raises(type(error)) as raised:
        main(["stub"])
    assert raised.value is error


def test_a_missing_extra_is_named_with_its_cure(install: InstallCommand, capsys: pytest.CaptureFixture[str]) -> None:
    install(raising(ModuleNotFoundError("No module named 'rich'", name="rich")))
    assert main(["stub"]) == ExitStatus.FAILED
    assert "pip install 'trio-routes[cli]'" in capsys.readouterr().err


PROGRAM = """
import sys, time, types
from trio_routes.cli import _main
def run(arguments):
    print("started", flush=True)
    sys.stdin.read()
    {body}
    return 0
module = types.ModuleType("stub_command")
module.add_arguments = lambda parser: None
module.run = run
sys.modules["stub_command"] = module
_main.COMMANDS = (_main.Entry("stub", "stub_command", ""),)
sys.exit(_main.main(["stub"]))
"""


def start(body: str) -> subprocess.Popen[str]:
    """Start a command that prints "started", waits until its stdin ends and then does ``body``."""
    words = [sys.executable, "-c", PROGRAM.format(body=body)]
    # As users run it: PYTHONUNBUFFERED, which CI systems like to set, would leave nothing for the final flush.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    pipe = subprocess.PIPE
    return subprocess.Popen(words, stdin=pipe, stdout=pipe, stderr=pipe, text=True, env=environment)


@pytest.mark.parametrize(
    "body", ["print('more', flush=True)", "print('more')"], ids=["in the command", "at the final flush"]
)
def test_a_reader_that_goes_away_is_no_error(body: str) -> None:
    with start(body) as process:
        assert process.stdin and process.stdout and process.stderr
        assert process.stdout.readline() == "started\n"
        process.stdout.close()
        process.stdin.close()
        assert process.stderr.read() == ""
        assert process.wait(timeout=30) == ExitStatus.BROKEN_PIPE


def test_a_broken_pipe_that_is_not_our_output_is_a_failure(
    install: InstallCommand, capfd: pytest.CaptureFixture[str]
) -> None:
    install(raising(BrokenPipeError(32, "Broken pipe")))
    assert main(["stub"]) == ExitStatus.FAILED
    assert "Broken pipe" in capfd.readouterr().err


def test_a_real_sigint_ends_with_130_and_says_nothing() -> None:
    with start("time.sleep(30)") as process:
        assert process.stdin and process.stdout and process.stderr
        assert process.stdout.readline() == "started\n"
        process.send_signal(signal.SIGINT)
        assert process.stderr.read() == ""
        assert process.wait(timeout=30) == ExitStatus.INTERRUPTED


# --- the benchmarks' table


def test_a_ratio_is_to_the_first_row_of_the_same_unit() -> None:
    rows = [Row("ours", 2e-6), Row("theirs", 3e-5), Row("ours, memory", 100, "B"), Row("theirs, memory", 4300, "B")]
    lines = format_table([("decode", rows)]).splitlines()
    assert [line.split("×")[1].strip() for line in lines[1:]] == ["1.00", "15.00", "1.00", "43.00"]
    assert "30 µs" in lines[2] and "4.2 KiB" in lines[4]


def test_best_of_measures_one_call() -> None:
    assert 0.001 <= best_of(lambda: time.sleep(0.001), repeats=1) < 0.01


# --- CI's judge: it must say no

RING = """
import pytest
@pytest.mark.netns
def test_kernel() -> None: {body}
def test_pure() -> None: pass
"""


@pytest.mark.parametrize(
    ("files", "accepted", "said"),
    [
        ({"test_a": RING.format(body="pass")}, True, "1 passed, 0 failed, 0 skipped"),
        ({"test_a": RING.format(body="pytest.skip('no rights')")}, False, "no rights"),
        ({"test_a": RING.format(body="assert 0")}, False, "1 failed"),
        ({"test_a": "def test_pure() -> None: pass"}, False, "no kernel test passed"),
        (
            {"test_a": RING.format(body="pass"), "test_b": "import pytest\npytest.importorskip('no_such_extra')"},
            False,
            "no_such_extra",
        ),
        ({}, False, "0 passed"),
    ],
    ids=["whole", "skipped", "failed", "none", "uncollected", "empty"],
)
def test_ci_accepts_only_a_kernel_ring_that_was_run_whole(
    files: dict[str, str], accepted: bool, said: str, tmp_path: Path
) -> None:
    for name, text in files.items():
        (tmp_path / f"{name}.py").write_text(text)
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = netns\n")
    ledger = tmp_path / "ledger.json"
    environment = os.environ | {
        "LEDGER_FILE": str(ledger),
        "PYTHONPATH": str(ROOT / ".ci"),
        "PYTEST_ADDOPTS": "-p ledger",
    }
    subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        timeout=60,
        check=False,
    )
    found = json.loads(ledger.read_text())
    # As if all situations had been played in another run, and none in this one.
    verdicts = tmp_path / "verdicts.json"
    verdicts.write_text(json.dumps(found | {"situations": {"passed": 1, "failed": 0, "skipped": 0}}))
    done = run(sys.executable, ROOT / ".ci" / "judge.py", f"root={ledger}", f"verdicts={verdicts}")
    assert (done.returncode == 0) is accepted, done.stdout
    assert said in done.stdout
    # As if there had been no such run, or one of no more than this.
    for arguments in ((f"root={ledger}",), (f"root={verdicts}", f"verdicts={verdicts}")):
        done = run(sys.executable, ROOT / ".ci" / "judge.py", *arguments)
        assert done.returncode == 1
        assert "not all situations" in done.stdout
