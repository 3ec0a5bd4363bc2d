# SPDX-License-Identifier: Apache-2.0
"""Tests for the facade: the names that programs import from ``twisted_serve`` itself."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module

from twisted.trial.unittest import SynchronousTestCase

import twisted_serve

# Prints the modules of ours and of Twisted after importing the package alone.
CHEAP = """
import sys
import twisted_serve
twisted_serve.__version__
print(*sorted(name for name in sys.modules if name.partition(".")[0] in ("twisted", "twisted_serve")))
"""

HOMES = {
    "AccessRequest": "twisted_serve.interfaces.authorization",
    "Answer": "twisted_serve.inprocess.streams",
    "Dependencies": "twisted_serve.assembly.dependencies",
    "IAuthorizer": "twisted_serve.interfaces.authorization",
    "ModelServer": "twisted_serve.service",
    "Operation": "twisted_serve.interfaces.authorization",
    "Principal": "twisted_serve.interfaces.authorization",
    "Refusal": "twisted_serve.interfaces.authorization",
    "Registered": "twisted_serve.inprocess.models",
    "Role": "twisted_serve.listening.roles",
    "ServerObserver": "twisted_serve.interfaces.events",
    "ServerOptions": "twisted_serve.config.options",
    "Stream": "twisted_serve.inprocess.streams",
    "TokenKind": "twisted_serve.auth.tokens",
}


class FacadeTests(SynchronousTestCase):
    """The facade."""

    def test_classes(self) -> None:
        """The classes of the facade are those of their modules."""
        for name, home in HOMES.items():
            self.assertIs(getattr(twisted_serve, name), getattr(import_module(home), name))

    def test_errors(self) -> None:
        """The errors are a module of the facade."""
        self.assertIs(twisted_serve.errors, import_module("twisted_serve.errors"))

    def test_all(self) -> None:
        """`__all__` is complete, and `dir` shows it."""
        self.assertEqual(set(twisted_serve.__all__), {*HOMES, "COMPATIBLE_WITH", "__version__", "errors"})
        self.assertLessEqual(set(twisted_serve.__all__), set(dir(twisted_serve)))

    def test_others(self) -> None:
        """A name that is not public is no attribute, with Python's usual message."""
        with self.assertRaisesRegex(AttributeError, "module 'twisted_serve' has no attribute 'Parts'"):
            twisted_serve.Parts  # noqa: B018

    def test_cheap(self) -> None:
        """Importing the package imports nothing else of ours, and no Twisted."""
        ended = subprocess.run([sys.executable, "-c", CHEAP], capture_output=True, text=True, check=True)
        self.assertEqual(ended.stdout.split(), ["twisted_serve"])
