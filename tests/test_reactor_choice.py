# SPDX-License-Identifier: Apache-2.0
"""Tests for the choice of the reactor: importing the server leaves it to the program."""

from __future__ import annotations

import json
import pkgutil
import subprocess
import sys

from twisted.trial.unittest import SynchronousTestCase

import twisted_serve.testing
import twisted_serve.web

# Uses each name of the facade, then prints the same.
FACADE = """
import json, sys
from twisted_serve import *
import twisted_serve
assert twisted_serve.ModelServer is ModelServer
print(json.dumps([name for name in ("klein", "twisted.internet.reactor") if name in sys.modules]))
"""

# Prints which of the modules that install a reactor are there after an import.
PROGRAM = """
import importlib, json, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
print(json.dumps([name for name in ("klein", "twisted.internet.reactor") if name in sys.modules]))
"""

PUBLIC = (
    "twisted_serve",
    "twisted_serve.service",
    "twisted_serve.config.load",
    "twisted_serve.config.options",
    "twisted_serve.endpoints",
    "twisted_serve.errors",
    "twisted_serve.tap",
    "twisted_serve.cli",
)

#: The only one that imports Klein.
MAKES_APPLICATIONS = "twisted_serve.web.routing.klein_app"


def installed_by(*names: str, program: str = PROGRAM) -> list[str]:
    """Import modules in a fresh interpreter; return which of Klein and the reactor are imported then."""
    ended = subprocess.run([sys.executable, "-c", program, *names], capture_output=True, text=True, check=True)
    found: list[str] = json.loads(ended.stdout)
    return found


def modules_of(package: object) -> list[str]:
    """Return the names of a package and of all modules below it."""
    name: str = package.__name__  # type: ignore[attr-defined]
    path: list[str] = package.__path__  # type: ignore[attr-defined]
    return [name, *(each.name for each in pkgutil.walk_packages(path, f"{name}."))]


class ReactorChoiceTests(SynchronousTestCase):
    """The program, not an import, chooses the reactor."""

    def test_public_modules(self) -> None:
        """No module that programs of embedders import installs a reactor."""
        self.assertEqual(installed_by(*PUBLIC, *modules_of(twisted_serve.testing)), [])

    def test_facade(self) -> None:
        """Importing the names of the facade installs no reactor."""
        self.assertEqual(installed_by(program=FACADE), [])

    def test_web(self) -> None:
        """One module of the HTTP side imports Klein, and the others do not import that module."""
        names = modules_of(twisted_serve.web)
        self.assertIn(MAKES_APPLICATIONS, names)
        self.assertGreater(len(names), 30)
        self.assertEqual(installed_by(*(name for name in names if name != MAKES_APPLICATIONS)), [])

    def test_would_be_seen(self) -> None:
        """The module that makes applications installs one, with which the tests above would fail."""
        self.assertEqual(installed_by(MAKES_APPLICATIONS), ["klein", "twisted.internet.reactor"])
