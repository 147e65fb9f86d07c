"""The interface's rules (docs/interface.md) and their tests: each rule that is kept has one that names it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
INTERFACE = TESTS.parent / "docs" / "interface.md"


def rules() -> dict[int, str]:
    """Every rule's number and text, but for those that the document says are not there yet."""
    text = INTERFACE.read_text()
    found = re.findall(r"^- \*\*R(\d+)\*\*(.*?)(?=^- |^#|\Z)", text, re.MULTILINE | re.DOTALL)
    return {int(number): what for number, what in found if "*Not there yet*" not in what}


def named_by_tests() -> Iterator[int]:
    """The rules that a test names in its docstring, or in its own name as `test_r37_...`."""
    for path in TESTS.rglob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
                words = [*re.findall(r"\bR(\d+)\b", ast.get_docstring(node) or ""), *re.findall(r"_r(\d+)_", node.name)]
                yield from map(int, words)


TESTED = frozenset(named_by_tests())


def test_the_document_has_the_rules_in_order() -> None:
    numbers = list(rules())
    assert numbers == sorted(numbers)
    assert set(range(1, 49)) <= set(numbers)


@pytest.mark.parametrize("rule", rules(), ids=lambda number: f"R{number}")
def test_each_rule_has_a_test_that_names_it(rule: int) -> None:
    assert rule in TESTED, rules()[rule]
