# SPDX-License-Identifier: Apache-2.0
"""Tests for the page that says row by row what is the same: no row is lost, and the tests that it names are there."""

from __future__ import annotations

import ast
import re
from collections import Counter
from functools import cache
from pathlib import Path

import pytest
from attrs import frozen

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "compatibility.md").read_text(encoding="utf-8")

VERDICTS = ("same", "better", "missing")

_SECTION = re.compile(r"^## (.+)\n((?:(?!^## ).*\n)+)", re.M)
_TOTALS = re.compile(r"^(\d+) rows: (\d+) same, (\d+) better, (\d+) missing\.$", re.M)
_TEST = re.compile(r"`([^`]+)`")

#: How the rows of each section are numbered; of the one that is missing here, by the points of its list.
_NUMBERS = {
    "What clients depend on": [f"K{number}" for number in range(1, 26)],
    "Requests of its suites": [f"R{number}" for number in range(1, 27)],
    "gRPC": [f"G{number}" for number in range(1, 59)],
}
_POINTS = [str(number) for number in range(1, 8)]


@frozen
class Row:
    """
    A row of the page.

    :ivar number: What it is called, e.g. ``K1``.
    :ivar verdict: What became of it, with what is different after a colon.
    :ivar tests: The tests that show it, each as ``file::Class::name`` or ``file::name``.
    """

    number: str
    what: str
    verdict: str
    tests: tuple[str, ...]


def rows_of(section: str) -> list[Row]:
    """Read the table of a section."""
    lines = [line for line in section.splitlines() if line.startswith("|")]
    assert lines[1] == "| --- | --- | --- | --- |"
    return [
        Row(number, what, verdict, tuple(_TEST.findall(shown)))
        for number, what, verdict, shown in (re.split(r" \| ", line.strip("| ")) for line in lines[2:])
    ]


SECTIONS = {match[1]: match[2] for match in _SECTION.finditer(PAGE)}
ROWS = [row for section in SECTIONS.values() for row in rows_of(section)]


@cache
def named_in(file: Path) -> frozenset[str]:
    """Return the names of the tests that a file defines, those of a class after its name."""
    names: list[str] = []
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef):
            names.append(node.name)
        elif isinstance(node, ast.ClassDef):
            names += [f"{node.name}::{each.name}" for each in node.body if isinstance(each, ast.FunctionDef)]
    return frozenset(name for name in names if name.rpartition("::")[2].startswith("test_"))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.number)
def test_row(row: Row) -> None:
    """A row has a verdict, with the difference if there is one, and the tests that show it exist."""
    verdict, _, difference = row.verdict.partition(": ")
    assert verdict in VERDICTS
    assert bool(difference) == (verdict != "same"), "what differs has to be said, and nothing else"
    assert row.tests or verdict == "missing"
    for test in row.tests:
        file, _, name = test.partition("::")
        assert name in named_in(ROOT / file), test


@pytest.mark.parametrize("title", SECTIONS)
def test_no_row_is_lost(title: str) -> None:
    """The rows of a section are as many as it says, of each verdict, and numbered without a gap."""
    rows = rows_of(SECTIONS[title])
    [totals] = _TOTALS.findall(SECTIONS[title])
    counted = Counter(row.verdict.partition(":")[0] for row in rows)
    assert [int(total) for total in totals] == [len(rows), *(counted[verdict] for verdict in VERDICTS)]
    numbers = [row.number for row in rows]
    if title in _NUMBERS:
        assert numbers == _NUMBERS[title]
    else:
        points = Counter(number.partition(".")[0] for number in numbers)
        assert list(points) == _POINTS
        assert numbers == [f"{point}.{part}" for point in points for part in range(1, points[point] + 1)]


def test_all_sections() -> None:
    """The page has its four lists."""
    assert len(SECTIONS) == 4
    assert set(_NUMBERS) < set(SECTIONS)
