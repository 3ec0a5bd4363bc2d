# SPDX-License-Identifier: Apache-2.0
"""
Tests for the maps: a package's docstring names its modules.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import twisted_serve

SOURCE = Path(twisted_serve.__file__).parent

#: One module for each package that the docstring speaks of.
UNNAMED = {"testing/strategies"}


def parts_of(package: Path) -> set[str]:
    """Return the names of a package's modules and packages."""
    modules = {path.stem for path in package.glob("*.py")} - {"__init__", "__main__"}
    return modules | {path.parent.name for path in package.glob("*/__init__.py")}


def documentation_of(package: Path) -> str:
    """Return the docstring of a package."""
    return ast.get_docstring(ast.parse((package / "__init__.py").read_text())) or ""


def entries_of(text: str) -> set[str]:
    """Return the names with which lines of a map begin: those of one line are divided by commas."""
    heads = re.findall(r"^(?:- )?((?:(?:, )?`{1,2}[a-z_]+`{1,2})+)(?=:|  )", text, re.M)
    return {name for head in heads for name in re.findall(r"[a-z_]+", head)}


class MapTests(SynchronousTestCase):
    """Each package's docstring is its map."""

    def test_complete(self) -> None:
        """A package's docstring names each module in it, and a line of the map begins with no other name."""
        packages = [path.parent for path in sorted(SOURCE.rglob("__init__.py"))]
        self.assertGreater(len(packages), 30)
        for package in packages:
            name = str(package.relative_to(SOURCE))
            if name == "." or name in UNNAMED:
                continue
            text = documentation_of(package)
            named = set(re.findall(r"`([a-z_]+)`", text))
            self.assertEqual(parts_of(package) - named, set(), f"{name}: not on the map")
            self.assertEqual(entries_of(text) - parts_of(package) - {"__main__"}, set(), f"{name}: not there")
