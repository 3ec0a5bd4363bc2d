# SPDX-License-Identifier: Apache-2.0
"""
Tests for the names of loggers, which operators write into ``log_levels``.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import twisted_serve

SOURCE = Path(twisted_serve.__file__).parent
PAGE = SOURCE.parent / "docs" / "observability.md"


def logger_calls() -> list[ast.Call]:
    """Return the calls in the source that make a ``twisted.logger.Logger``."""
    trees = [ast.parse(path.read_text()) for path in sorted(SOURCE.rglob("*.py"))]
    return [
        node
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Logger"
    ]


class LoggerTests(SynchronousTestCase):
    """Names of loggers are fixed: a module that moves takes none of them away."""

    def test_named(self) -> None:
        """Each logger has a name of one room, and the page lists these names and no others."""
        arguments = [argument for call in logger_calls() for argument in call.args]
        names = {argument.value for argument in arguments if isinstance(argument, ast.Constant)}
        self.assertEqual(len(logger_calls()), len(arguments))
        listed = set(re.findall(r"^\| `(twisted_serve\.[a-z]+)` \|", PAGE.read_text(), re.M))
        self.assertEqual(names, listed)
        self.assertGreater(len(names), 5)
