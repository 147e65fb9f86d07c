"""Judge what .ci/ledger.py wrote: ``python judge.py NAME=FILE ...``; status 1 if a kernel ring was not wholly run.

The run called "verdicts" is that of all situations of docs/verdicts.md, of which the others play a part each; status 1
also if it did not play more of them than they, or is not there.

Prints one line for each run and closes with the sum of all.
"""

import json
import sys
from pathlib import Path


def judge(name: str, path: Path) -> tuple[dict[str, int], bool]:
    """Print the line of one run; return its counts and whether its kernel ring ran whole."""
    if not path.is_file():
        print(f"{name}: wrote no ledger, so it did not get to its end")
        return {"passed": 0, "failed": 1, "skipped": 0}, False
    ledger = json.loads(path.read_text())
    kernel, missed = ledger["kernel"], ledger["skipped"] | ledger["uncollected"]
    print(f"{name}: kernel ring {kernel['passed']} passed, {kernel['failed']} failed, {kernel['skipped']} skipped")
    for test, reason in missed.items():
        print(f"  not run: {test}: {reason}")
    if not kernel["passed"]:
        print("  no kernel test passed at all")
    return ledger["all"], bool(kernel["passed"]) and not kernel["failed"] and not missed


def all_situations(paths: dict[str, Path]) -> bool:
    """Say how many situations each run played; whether that of all of them did."""
    played = {
        name: json.loads(path.read_text())["situations"]["passed"] for name, path in paths.items() if path.is_file()
    }
    print("situations played:", ", ".join(f"{name} {count}" for name, count in played.items()))
    return played.pop("verdicts", 0) > max(played.values(), default=0)


def main(arguments: list[str]) -> int:
    """Judge each ``NAME=FILE``."""
    results = [judge(name, Path(path)) for name, _, path in (argument.partition("=") for argument in arguments)]
    total = {outcome: sum(counts[outcome] for counts, _ in results) for outcome in ("passed", "failed", "skipped")}
    print(", ".join(f"{count} {outcome}" for outcome, count in total.items()))
    paths = {name: Path(path) for name, _, path in (argument.partition("=") for argument in arguments)}
    situations = all_situations(paths)
    if not situations:
        print("  not all situations of docs/verdicts.md were played")
    return 0 if results and situations and all(whole for _, whole in results) else 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
