# SPDX-License-Identifier: Apache-2.0
"""Tests for `twisted_serve.backend.ts.names`."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module
from importlib.util import find_spec
from unittest import SkipTest

from twisted.trial.unittest import SynchronousTestCase

import twisted_serve
from twisted_serve.backend.ts.names import BUILT_IN_ENVELOPES, BUILT_IN_HANDLERS, MISSING, NAMES, install, target


class TsNamesTests(SynchronousTestCase):
    """Tests for the modules below ``ts``."""

    def setUp(self) -> None:
        self.patch(sys, "meta_path", [*sys.meta_path])
        self.addCleanup(self._forget)
        install()

    def _forget(self) -> None:
        for name in [each for each in sys.modules if each.partition(".")[0] == "ts"]:
            del sys.modules[name]

    def test_each_name(self) -> None:
        """Each name of the table is the very thing of ours that the table says."""
        if find_spec("torch") is None:
            raise SkipTest("torch is not installed")
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
        self.assertEqual(
            str(raised.exception),
            "ts.torch_handler.nothing is not provided by twisted_serve; docs/ts_names.md lists what is",
        )

    def test_missing_module(self) -> None:
        """Of a module that we leave out on purpose, and of those below it, the reason is given."""
        for name in ("ts.torch_handler.distributed", "ts.torch_handler.distributed.base_deepspeed_handler"):
            with self.assertRaises(ModuleNotFoundError) as raised:
                import_module(name)
            self.assertIn("is not provided by twisted_serve: PiPPy is not developed", str(raised.exception))

    def test_missing(self) -> None:
        """Nothing is said to be missing that is there, and every name of it says why."""
        there = {f"{module}.{target(entry)[0]}" for module, entries in NAMES.items() for entry in entries}
        self.assertEqual(there & set(MISSING), set())
        self.assertTrue(all(MISSING.values()))

    def test_unknown_name(self) -> None:
        """A name that a module of ours does not have is an ImportError that names it."""
        with self.assertRaises(ImportError) as raised:
            exec("from ts.context import Nothing", {})
        self.assertEqual(
            str(raised.exception), "ts.context.Nothing is not provided by twisted_serve; docs/ts_names.md lists what is"
        )
        with self.assertRaises(ImportError) as raised:
            exec("from ts.protocol.otf_message_handler import retrieve_msg", {})
        self.assertIn("the protocol between server and worker is another one", str(raised.exception))
        with self.assertRaises(ImportError) as raised:
            exec("from ts.torch_handler import vllm_handler", {})
        self.assertIn("a server of its own", str(raised.exception))
        with self.assertRaises(AttributeError) as missing:
            _ = import_module("ts.context").Nothing
        self.assertIn("ts.context.Nothing is not provided by twisted_serve", str(missing.exception))
        self.assertFalse(hasattr(import_module("ts.context"), "Nothing"))

    def test_others(self) -> None:
        """Modules whose names only begin with ``ts`` are left to other finders."""
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
        for envelope in BUILT_IN_ENVELOPES.values():
            place, _, name = envelope.partition(":")
            getattr(import_module(place), name)

    def test_light(self) -> None:
        """A handler that imports what most import starts without torch, NumPy and Pillow."""
        code = (
            "import sys\n"
            "from twisted_serve.backend.ts.names import install\n"
            "install()\n"
            "from ts.torch_handler.base_handler import BaseHandler, ONNX_AVAILABLE, PT2_AVAILABLE\n"
            "from ts.torch_handler.image_classifier import ImageClassifier\n"
            "from ts.torch_handler.text_classifier import TextClassifier\n"
            "from ts.torch_handler.request_envelope.kservev2 import KServev2Envelope\n"
            "from ts.handler_utils.micro_batching import MicroBatching\n"
            "print([each for each in ('torch', 'numpy', 'PIL', 'captum', 'twisted') if each in sys.modules])\n"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        self.assertEqual(done.stdout, "[]\n")
