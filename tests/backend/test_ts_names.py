# SPDX-License-Identifier: Apache-2.0
"""Tests for `twisted_serve.backend.ts_names`."""

from __future__ import annotations

import sys
from importlib import import_module

from twisted.trial.unittest import SynchronousTestCase

import twisted_serve
from twisted_serve.backend.ts_names import BUILT_IN_HANDLERS, NAMES, install


class TsNamesTests(SynchronousTestCase):
    """What a handler finds below ``ts``."""

    def setUp(self) -> None:
        self.patch(sys, "meta_path", [*sys.meta_path])
        self.addCleanup(self._forget)
        install()

    def _forget(self) -> None:
        for name in [each for each in sys.modules if each.partition(".")[0] == "ts"]:
            del sys.modules[name]

    def test_each_name(self) -> None:
        """Each name of the table is the very thing of ours that the table says."""
        for module, entries in NAMES.items():
            for entry in entries:
                place, _, name = entry.partition(":")
                attribute, _, alias = name.partition(" as ")
                found = getattr(import_module(module), alias or attribute)
                self.assertIs(found, getattr(import_module(place), attribute), f"{module}: {entry}")

    def test_all(self) -> None:
        """``from ts.… import *`` gives the names of the table, and ``dir`` lists them."""
        util = import_module("ts.utils.util")
        self.assertIn("PredictionException", util.__all__)
        self.assertEqual(dir(util), sorted(util.__all__))

    def test_version(self) -> None:
        """Handlers that look at TorchServe's version see the one we are compatible with."""
        self.assertEqual(import_module("ts").__version__, twisted_serve.COMPATIBLE_WITH)

    def test_unknown_module(self) -> None:
        """A module that we do not have is said to be ours to provide, not to be missing on the machine."""
        for name in ("ts.nothing", "ts.torch_handler.nothing", "ts.context.nothing"):
            with self.assertRaises(ImportError) as raised:
                import_module(name)
            self.assertIn(name, str(raised.exception))
        with self.assertRaises(ModuleNotFoundError) as raised:
            import_module("ts.torch_handler.nothing")
        self.assertEqual(str(raised.exception), "ts.torch_handler.nothing is not provided by twisted_serve")

    def test_unknown_name(self) -> None:
        """A name that a module of ours does not have is an ImportError that names it."""
        with self.assertRaises(ImportError) as raised:
            exec("from ts.context import Nothing", {})
        self.assertIn("Nothing", str(raised.exception))
        with self.assertRaises(AttributeError) as missing:
            _ = import_module("ts.context").Nothing
        self.assertEqual(str(missing.exception), "ts.context.Nothing is not provided by twisted_serve")

    def test_others(self) -> None:
        """Modules whose names only begin alike are nobody's business."""
        finder = install()
        self.assertIsNone(finder.find_spec("tsx"))
        self.assertIsNone(finder.find_spec("json"))

    def test_once(self) -> None:
        """Installing again changes nothing."""
        before = [*sys.meta_path]
        install()
        self.assertEqual(sys.meta_path, before)
        self.assertIs(sys.meta_path[0], install())

    def test_built_in(self) -> None:
        """Every built-in handler is there."""
        for place in BUILT_IN_HANDLERS.values():
            import_module(place)
