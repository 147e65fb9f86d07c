"""The table of bench-judge must be able to say no."""

from __future__ import annotations

import pytest

from benchmarks.judge import Line, format_lines


@pytest.mark.parametrize(
    ("value", "verdict"), [(4.9e-6, "met"), (5e-6, "met"), (5.1e-6, "MISSED"), (float("nan"), "MISSED")]
)
def test_a_goal_is_met_up_to_its_limit_and_missed_beyond_it(value: float, verdict: str) -> None:
    assert Line("an event", value, "s", 5e-6).cells()[2:] == ("≤ 5 µs", verdict)


def test_what_has_no_goal_is_neither_met_nor_missed() -> None:
    assert Line("the last body", 1.5).cells() == ("  the last body", "1.5 s", "", "")


def test_the_table_names_measured_goal_and_verdict_in_columns() -> None:
    sections = [("Latency", [Line("C", 2e-5), Line("times C's", 12.345, "times", 6.0)])]
    lines = format_lines(sections).splitlines()
    assert lines[0] == "Latency"
    assert lines[1].split() == ["C", "20", "µs"]
    assert lines[2].split() == ["times", "C's", "×", "12.3", "≤", "×", "6.0", "MISSED"]
    assert lines[1].index("µs") + 2 == lines[2].index("12.3") + 4, "figures end in one column"
