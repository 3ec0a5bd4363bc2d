# SPDX-License-Identifier: Apache-2.0
"""Tests for :mod:`docs.generators.command_line`."""

from __future__ import annotations

from pathlib import Path

from docs.generators.command_line import command_line_page
from twisted_serve.subcommands import NAMES
from twisted_serve.subcommands.outcomes import ExitStatus

ROOT = Path(__file__).resolve().parents[2]


def test_committed_page() -> None:
    """The page in docs is of this code; if not: python -m docs.generators.command_line > docs/command_line.md"""
    assert (ROOT / "docs" / "command_line.md").read_text(encoding="utf-8") == command_line_page()


def test_complete() -> None:
    """Each sub-command, those below it, each exit status, and the options that all have in common are on the page."""
    page = command_line_page()
    for word in NAMES:
        assert f"\n## {word}\n" in page
    for heading in ("token rotate", "models set-default"):
        assert f"\n### {heading}\n" in page
    for each in ExitStatus:
        assert f"| {int(each)} | {each.meaning} |" in page
    assert page.count("| `--url TEXT` |") == 1
    assert page.count("| `--json`") >= 1
    assert "| `--header` |" in page
    assert "\x08" not in page
