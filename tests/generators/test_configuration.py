# SPDX-License-Identifier: Apache-2.0
"""Tests for the page of all settings."""

from __future__ import annotations

import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
from twisted.trial.unittest import SynchronousTestCase

from docs.generators.configuration import configuration_page
from twisted_serve.config.options import KEYS
from twisted_serve.config.without_effect import ACCEPTED_WITHOUT_EFFECT

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "configuration.md"


class ConfigurationPageTests(SynchronousTestCase):
    """Tests for `configuration_page`."""

    def test_committed_page(self) -> None:
        """The page in docs is of this code; if not: python -m docs.generators.configuration > docs/configuration.md"""
        self.assertEqual(PAGE.read_text(encoding="utf-8"), configuration_page())

    def test_complete(self) -> None:
        """Each setting has its row, those without effect, too, and every row of a table has as many cells."""
        rows = [line for line in configuration_page().splitlines() if line.startswith("|")]
        first_cells = {row.split("|")[1].strip(" `") for row in rows}
        self.assertEqual({*KEYS, *ACCEPTED_WITHOUT_EFFECT} - first_cells, set())
        for row, following in pairwise(rows):
            if following.startswith("| `") and row.startswith("| `"):
                self.assertEqual(row.replace("\\|", "").count("|"), following.replace("\\|", "").count("|"), following)

    def test_parts(self) -> None:
        """Each part of the page has a heading, and a table that Markdown knows as one."""
        page = configuration_page()
        for part in (
            "Listeners",
            "Limits of a connection",
            "Tokens",
            "Shutdown and plug-ins",
            "Models",
            "Workers",
            "Environment",
        ):
            self.assertIn(f"\n\n## {part}\n\n", page)
        self.assertEqual(page.count("\n\n| setting | "), 9)


@pytest.mark.integration
def test_program() -> None:
    """The command that the page names writes the page."""
    command = [sys.executable, "-m", "docs.generators.configuration"]
    made = subprocess.run(command, cwd=ROOT, capture_output=True, check=True, timeout=60)
    assert made.stdout.decode() == configuration_page()
