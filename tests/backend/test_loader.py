# SPDX-License-Identifier: Apache-2.0
"""Tests for `twisted_serve.backend.loader`, through a worker in this process."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest import skipUnless

from twisted.trial.unittest import SynchronousTestCase

from twisted_serve.testing.local_worker import local_worker
from twisted_serve.wire.messages import Part

FUNCTION = """
calls = []

def handle(data, context):
    calls.append((data, context.model_name))
    if data is None:
        return None
    return [repr(calls[0])] * len(data)

def other(data, context):
    return data and ["other"] * len(data)
"""

CLASS = """
class Handler:
    def initialize(self, context):
        self.name = context.model_name

    def handle(self, data, context):
        return [self.name] * len(data)
"""


class LoaderTests(SynchronousTestCase):
    """Which callable a handler's name stands for."""

    def setUp(self) -> None:
        self.dir = Path(self.mktemp())
        self.dir.mkdir()

    def _write(self, name: str, source: str) -> None:
        path = self.dir / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)

    def _answer(self, handler: str, **settings: Any) -> bytes:
        with local_worker(self.dir, handler, **settings) as worker:
            return worker.predict(Part("body", "", b"x"))[0].body

    def _refused(self, handler: str, error: type[Exception]) -> str:
        with self.assertRaises(error) as raised, local_worker(self.dir, handler):
            pass
        return str(raised.exception)

    def test_function(self) -> None:
        """A module with a function ``handle`` is called once without data to initialize."""
        self._write("h.py", FUNCTION)
        self.assertEqual(self._answer("h.py"), b"(None, 'model')")

    def test_spellings(self) -> None:
        """A file may be named with or without its ending, and with its function."""
        self._write("h.py", FUNCTION)
        self.assertEqual(self._answer("h"), b"(None, 'model')")
        self.assertEqual(self._answer("h:other"), b"other")
        self.assertEqual(self._answer("h.py:other"), b"other")

    def test_paths(self) -> None:
        """A file may be named by a path, inside the model's directory or anywhere."""
        self._write("sub/deep/h.py", FUNCTION)
        self.assertEqual(self._answer("sub/deep/h.py:other"), b"other")
        self.assertEqual(self._answer(f"{self.dir.resolve()}/sub/deep/h.py:other"), b"other")

    def test_package(self) -> None:
        """A module in a package is named with dots."""
        self._write("package/__init__.py", "")
        self._write("package/h.py", FUNCTION)
        self.assertEqual(self._answer("package.h:other"), b"other")

    def test_class(self) -> None:
        """The class of a module without functions is initialized, once."""
        self._write("h.py", CLASS)
        self.assertEqual(self._answer("h.py", model_name="m"), b"m")

    def test_named_class(self) -> None:
        """A class may be named, too."""
        self._write("h.py", CLASS + CLASS.replace("Handler", "Second"))
        self.assertEqual(self._answer("h:Second"), b"model")

    def test_missing_function(self) -> None:
        """A module without the named function is served by its class, as in TorchServe."""
        self._write("h.py", CLASS)
        self.assertEqual(self._answer("h:nothing"), b"model")

    def test_helper_classes(self) -> None:
        """Classes without ``handle``, and bases of the handler, do not compete with it."""
        source = "class Config: pass\n" + CLASS.replace("Handler", "Base") + "class Mine(Base):\n    pass\n"
        self._write("h.py", source)
        self.assertEqual(self._answer("h.py"), b"model")

    def test_ambiguous(self) -> None:
        """Two handlers in a module are an error that names them."""
        self._write("h.py", CLASS + CLASS.replace("Handler", "Second"))
        expected = "Expected only one class in custom service code or a function entry point ['Handler', 'Second']"
        self.assertEqual(self._refused("h.py", ValueError), expected)

    def test_nothing(self) -> None:
        """A module with neither function nor class is an error."""
        self._write("h.py", "")
        self.assertIn("Expected only one class", self._refused("h.py", ValueError))
        self.assertIn("names no module", self._refused("", ValueError))

    def test_incomplete_class(self) -> None:
        """A class that cannot be a handler is an error that names what it lacks."""
        self._write("h.py", "class Handler:\n    def initialize(self, context): pass\n")
        self.assertEqual(self._refused("h.py", ValueError), "Expect handle method in class Handler")
        self._write("g.py", "class Handler:\n    def handle(self, data, context): pass\n")
        self.assertEqual(self._refused("g.py", ValueError), "Expect initialize method in class Handler")

    def test_imported_classes(self) -> None:
        """Classes that a module imports are not its own."""
        source = "from ts.torch_handler.base_handler import BaseHandler\nfrom collections import OrderedDict\n" + CLASS
        self._write("h.py", source)
        self.assertEqual(self._answer("h.py"), b"model")

    def test_own_import_error(self) -> None:
        """If the handler's own import fails, that is what is reported."""
        self._write("h.py", "import surely_not_installed\n")
        self.assertIn("surely_not_installed", self._refused("h.py", ModuleNotFoundError))
        self._write("base_handler.py", "from json import nothing\n")
        self.assertIn("nothing", self._refused("base_handler", ImportError))

    def test_unknown(self) -> None:
        """A handler that is neither in the archive nor built in is said to be so."""
        message = self._refused("nowhere.py", ModuleNotFoundError)
        self.assertEqual(message, "the archive has no module nowhere, nor is it a built-in handler")

    def test_taken_name(self) -> None:
        """A file whose name another module has taken is not confused with that one."""
        self._write("json.py", FUNCTION)
        self.assertIn("json.py has the name of a module", self._refused("json.py", ImportError))
        self._write("sys.py", FUNCTION)
        self.assertIn("sys.py has the name of a module", self._refused("sys.py", ImportError))

    @skipUnless(find_spec("torch"), "torch is not installed")
    def test_built_in(self) -> None:
        """A built-in handler needs no file; what it lacks is the model."""
        message = self._refused("base_handler", RuntimeError)
        self.assertEqual(message, "No model weights could be loaded: the manifest names no serializedFile")

    def test_built_in_shadowed(self) -> None:
        """An archive's own file goes before a built-in handler."""
        self._write("base_handler.py", CLASS)
        self.assertEqual(self._answer("base_handler"), b"model")

    def test_put_back(self) -> None:
        """A worker in this process leaves no trace in it."""
        self._write("h.py", "import ts.context\n" + CLASS)
        path, finders, directory = sys.path[:], sys.meta_path[:], Path.cwd()
        self._answer("h.py")
        self.assertEqual((sys.path, sys.meta_path, Path.cwd()), (path, finders, directory))
        self.assertFalse({"h", "ts", "ts.context"} & set(sys.modules))
