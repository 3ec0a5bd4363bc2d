# SPDX-License-Identifier: Apache-2.0
"""
Tests for the names of loggers, which operators write into ``log_levels``.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

import twisted_serve
from twisted_serve.auth.audit import AuditLog
from twisted_serve.auth.gate import Denied
from twisted_serve.auth.keyring import Reason
from twisted_serve.auth.tokens import TokenKind

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

    def test_no_class_attribute(self) -> None:
        """No logger is a class attribute: Twisted would give it the name of the class instead."""
        found = [
            f"{path}: {owner.name}"
            for path in sorted(SOURCE.rglob("*.py"))
            for owner in ast.walk(ast.parse(path.read_text()))
            if isinstance(owner, ast.ClassDef)
            for statement in owner.body
            if isinstance(statement, ast.Assign | ast.AnnAssign) and isinstance(statement.value, ast.Call)
            if isinstance(statement.value.func, ast.Name) and statement.value.func.id == "Logger"
        ]
        self.assertEqual(found, [])

    def test_event(self) -> None:
        """An event of the audit has the name that the page tells operators to write into ``log_levels``."""
        with capturedLogs() as events:
            audit_log = AuditLog(lambda: 0.0, lambda *_: None, lambda *_: None)
            audit_log.refused(Denied(TokenKind.MANAGEMENT, Reason.UNKNOWN), "192.0.2.1", "GET", "/models")
        self.assertEqual([event["log_namespace"] for event in events], ["twisted_serve.auth"])
