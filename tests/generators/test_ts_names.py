# SPDX-License-Identifier: Apache-2.0
"""Tests for the page of TorchServe's names."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from docs.generators.ts_names import ts_names_page
from twisted_serve.backend.ts.names import MISSING, NAMES

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "ts_names.md"


class TsNamesPageTests(SynchronousTestCase):
    """Tests for `ts_names_page`."""

    def test_committed_page(self) -> None:
        """The page in docs is of this code; if not: python -m docs.generators.ts_names > docs/ts_names.md"""
        self.assertEqual(PAGE.read_text(encoding="utf-8"), ts_names_page())

    def test_complete(self) -> None:
        """Each module that has something, and each that is left out, has its row."""
        first_cells = {
            line.split("|")[1].strip(" `") for line in ts_names_page().splitlines() if line.startswith("| `")
        }
        self.assertEqual(first_cells, {name for name, entries in NAMES.items() if entries} | set(MISSING))

    def test_command(self) -> None:
        """The module prints the page."""
        command = [sys.executable, "-m", "docs.generators.ts_names"]
        made = subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
        self.assertEqual(made.stdout.decode(), ts_names_page())

    def test_example(self) -> None:
        """The page's example imports a handler's base class."""
        (code,) = [each.removeprefix("python") for each in ts_names_page().split("```")[1::2]]
        subprocess.run([sys.executable, "-c", code + "assert BaseHandler.handle"], check=True)
