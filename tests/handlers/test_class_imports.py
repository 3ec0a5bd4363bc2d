# SPDX-License-Identifier: Apache-2.0
"""Tests for small things that handlers import."""

from __future__ import annotations

from collections import OrderedDict

from twisted.trial.unittest import SynchronousTestCase

from twisted_serve.handlers.class_imports import import_class
from twisted_serve.handlers.deprecation import deprecated


class ImportClassTests(SynchronousTestCase):
    """Tests for `import_class`."""

    def test_class(self) -> None:
        """A class is found by its full name, or by the rest of it."""
        self.assertIs(import_class("collections.OrderedDict"), OrderedDict)
        self.assertIs(import_class("OrderedDict", "collections"), OrderedDict)

    def test_no_class(self) -> None:
        """A name that is not a class raises an ImportError that says so."""
        for name, message in (
            ("OrderedDict", "'OrderedDict' names no module; it must be package.module.Class"),
            ("collections.Nothing", "collections has no class Nothing"),
            ("collections.abc", "collections has no class abc"),
            ("no_such_package.Class", "No module named 'no_such_package'"),
        ):
            with self.assertRaises(ImportError) as raised:
                import_class(name)
            self.assertEqual(str(raised.exception), message)


class DeprecatedTests(SynchronousTestCase):
    """Tests for `deprecated`."""

    def test_warns(self) -> None:
        """A deprecated function warns its caller, and does what it did."""

        @deprecated("0.2", "new")
        def old(number: int) -> int:
            return number + 1

        self.assertEqual(old(1), 2)
        (warning,) = self.flushWarnings()
        self.assertEqual(warning["message"], "old is deprecated since 0.2; use new")
        self.assertEqual(warning["category"], DeprecationWarning)
