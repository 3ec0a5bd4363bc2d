# SPDX-License-Identifier: Apache-2.0
"""Tests for the models that an application registers itself, by a server in memory."""

from __future__ import annotations

import os
import sys
from itertools import product
from pathlib import Path
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from twisted_serve import ModelServer, Registered
from twisted_serve.errors import (
    BadRequest,
    Conflict,
    InvalidModel,
    InvalidModelVersion,
    ModelNotFound,
    ServeError,
    ServiceUnavailable,
    WorkerFailed,
)
from twisted_serve.inprocess.models import import_path
from twisted_serve.testing.server import MemoryServer

OWN = "myapp.models:Digits"


class ModelsCase(SynchronousTestCase):
    """A server in memory without models."""

    options: dict[str, Any] = {"enable_model_api": False}
    snapshots = False

    def setUp(self) -> None:
        self.memory = MemoryServer(self.options, models={}, snapshots=self.snapshots)
        self.addCleanup(self.memory.close)
        self.server: ModelServer = self.memory.server

    def result(self, deferred: Deferred[Any]) -> Any:
        """Return a result that is there."""
        return self.successResultOf(deferred)

    def models(self) -> dict[str, tuple[str, ...]]:
        """Return the registered versions."""
        models: dict[str, tuple[str, ...]] = self.result(self.server.models())
        return models

    def assert_nothing(self) -> None:
        """Check that neither a version nor a worker is left."""
        self.assertEqual((self.models(), self.memory.provider.alive), ({}, []))


class RegisterTests(ModelsCase):
    """Registering, whatever ``enable_model_api`` says."""

    def test_handler(self) -> None:
        """A handler of the application needs no archive; its workers have the application's import path."""
        registered = self.result(self.server.register(name="digits", handler=OWN, workers=2, batch_size=4))
        self.assertEqual(registered, Registered("digits", "1.0"))
        self.assertEqual(self.models(), {"digits": ("1.0",)})
        first, second = self.memory.provider.alive
        load = first.spec.load
        self.assertIs(first.spec, second.spec)
        self.assertEqual((load.handler, load.batch_size), (OWN, 4))
        self.assertEqual(load.import_path, list(import_path(sys.path)))
        self.assertEqual(os.listdir(load.model_dir), [])
        self.assertTrue(Path(load.model_dir).is_relative_to(self.memory.directory))
        self.assertEqual(self.result(self.server.predict("digits", b"7")).body, b"7")
        [described] = self.result(self.server.describe("digits"))
        self.assertEqual((described["modelUrl"], described["batchSize"]), (f"python:{OWN}", 4))

    def test_directory(self) -> None:
        """A relative path is the application's, even if the model store has an entry of the same name."""
        self.memory.add_model("digits", {})
        own = self.memory.directory / "own" / "digits"
        own.mkdir(parents=True)
        (own / "handler.py").write_text("")
        self.addCleanup(os.chdir, os.getcwd())
        os.chdir(own.parent)
        self.result(self.server.register("digits", name="first", handler="handler.py"))
        self.result(self.server.register(Path("digits"), name="second", handler="handler.py"))
        dirs = {worker.spec.load.model_dir for worker in self.memory.provider.alive}
        self.assertEqual([os.path.realpath(each) for each in dirs], [os.path.realpath(own)])
        os.chdir(own)
        self.result(self.server.register("digits"))
        self.assertEqual(
            self.memory.provider.alive[-1].spec.load.model_dir, str(self.memory.directory / "models" / "digits")
        )
        self.assertEqual(self.memory.provider.alive[-1].spec.load.import_path, [])

    def test_without_store(self) -> None:
        """A directory can be registered without a model store."""
        self.options = {"model_store": None}
        self.memory.close()
        self.setUp()
        own = self.memory.directory / "own"
        own.mkdir()
        self.result(self.server.register(own, name="own", handler="handler.py", workers=0))
        failure = self.failureResultOf(self.server.register("nowhere"), ModelNotFound)
        self.assertIn("Model not found at: nowhere", str(failure.value))

    def test_versions(self) -> None:
        """The default version is the first, until another is made it; it is unregistered last."""
        for version in ("1.0", "2.0"):
            self.result(self.server.register(name="m", handler=OWN, version=version))
        self.assertEqual(self.models(), {"m": ("1.0", "2.0")})
        self.result(self.server.set_default("m", "2.0"))
        self.assertEqual(self.models(), {"m": ("2.0", "1.0")})
        self.failureResultOf(self.server.unregister("m"), InvalidModelVersion)
        self.assertEqual(len(self.result(self.server.describe("m", version="all"))), 2)
        self.result(self.server.unregister("m", version="1.0"))
        self.result(self.server.unregister("m"))
        self.assert_nothing()

    def test_bad_arguments(self) -> None:
        """An argument that cannot be used is an error that names it, and nothing is left."""
        cases: list[tuple[dict[str, Any], str]] = [
            ({}, "Either url or handler is required"),
            ({"handler": OWN}, "name is required"),
            ({"handler": "__main__:Digits", "name": "m"}, "handler is '__main__:Digits'"),
            ({"handler": "../x.py", "name": "m"}, "handler is '../x.py'"),
            ({"handler": "a b", "name": "m"}, "handler is 'a b'"),
            ({"handler": "", "name": "m"}, "handler must be a string that is not empty"),
            ({"handler": "a:b:c", "name": "m"}, "handler is 'a:b:c'"),
            ({"handler": OWN, "name": "m", "workers": -1}, "workers must be a number from 0 to 1024, not -1"),
            ({"handler": OWN, "name": "m", "workers": "2"}, "not '2'"),
            ({"handler": OWN, "name": "m/../n"}, "m/../n"),
            ({"handler": OWN, "name": "m", "version": "1/2"}, "1/2"),
            ({"url": "x", "version": "2.0"}, "version is '2.0', but the archive at x"),
        ]
        for arguments, text in cases:
            failure = self.failureResultOf(self.server.register(**arguments), BadRequest)
            self.assertIn(text, str(failure.value))
            self.assert_nothing()

    def test_bad_archives(self) -> None:
        """What is no model is an error, and nothing is left."""
        self.failureResultOf(self.server.register("nowhere"), ModelNotFound)
        self.failureResultOf(self.server.register("https://"), Exception)
        self.memory.add_model("bad", {"MAR-INF/MANIFEST.json": "{"})
        self.failureResultOf(self.server.register("bad"), InvalidModel)
        self.assert_nothing()

    def test_twice(self) -> None:
        """The same version again is a conflict, which leaves the first."""
        self.result(self.server.register(name="m", handler=OWN))
        self.failureResultOf(self.server.register(name="m", handler="other"), Conflict)
        [worker] = self.memory.provider.alive
        self.assertEqual(worker.spec.load.handler, OWN)

    def test_cannot_be_loaded(self) -> None:
        """A handler that workers cannot load is an error with the reason, and nothing is left."""
        self.memory.provider.load_error = WorkerFailed(500, "No module named 'myapp'")
        failure = self.failureResultOf(self.server.register(name="m", handler=OWN), WorkerFailed)
        self.assertEqual(failure.value.reason, "No module named 'myapp'")
        self.assert_nothing()

    def test_cancel(self) -> None:
        """Cancelling leaves nothing, once or twice."""
        self.memory.provider.load_delay = None
        waiting = self.server.register(name="m", handler=OWN)
        self.assertEqual(self.models(), {"m": ("1.0",)})
        waiting.cancel()
        waiting.cancel()
        self.memory.advance(60)
        self.failureResultOf(waiting, CancelledError)
        self.assert_nothing()

    def test_stop_while_loading(self) -> None:
        """The stop of the server ends a registration."""
        self.memory.provider.load_delay = None
        waiting = self.server.register(name="m", handler=OWN)
        stopping = self.server.stopService()
        self.memory.advance(60)
        self.successResultOf(stopping)
        self.failureResultOf(waiting, ServiceUnavailable, WorkerFailed)
        self.assertEqual(self.memory.provider.alive, [])


class ScaleTests(ModelsCase):
    """Scaling."""

    def test_scale(self) -> None:
        """It fires when the workers are there, or have ended."""
        self.result(self.server.register(name="m", handler=OWN, workers=0))
        self.memory.provider.load_delay = 1
        waiting = self.server.scale("m", 2)
        self.assertNoResult(waiting)
        self.memory.advance(1)
        self.successResultOf(waiting)
        self.assertEqual(len(self.memory.provider.alive), 2)
        self.result(self.server.scale("m", 1, 3, version="1.0"))
        [described] = self.result(self.server.describe("m"))
        self.assertEqual((described["minWorkers"], described["maxWorkers"]), (1, 3))

    def test_bad_arguments(self) -> None:
        """Numbers that cannot be, and models that are not there, are errors."""
        self.result(self.server.register(name="m", handler=OWN))
        self.failureResultOf(self.server.scale("m", 2, 1), BadRequest)
        self.failureResultOf(self.server.scale("m", -1), BadRequest)
        self.failureResultOf(self.server.scale("n", 1), ModelNotFound)
        self.failureResultOf(self.server.describe("n"), ModelNotFound)
        self.failureResultOf(self.server.set_default("n", "1.0"), ModelNotFound)
        self.failureResultOf(self.server.unregister("n"), ModelNotFound)


class SnapshotTests(ModelsCase):
    """Snapshots of a server with models of the application."""

    snapshots = True

    def test_omitted(self) -> None:
        """A snapshot has what it can restore: no handlers of the application."""
        self.memory.add_model("archived", {})
        self.result(self.server.register("archived"))
        self.result(self.server.register(name="own", handler=OWN))
        texts = [path.read_text() for path in sorted((self.memory.directory / "snapshots").glob("*.cfg"))]
        self.assertIn("archived", texts[-1])
        self.assertNotIn("own", texts[-1])


class ImportPathTests(SynchronousTestCase):
    """The import path that workers get."""

    def test_own(self) -> None:
        """Python's own directories are left out, the others are absolute and in order."""
        path = import_path(["", os.__file__.rpartition("/")[0], "b", "/a", "/a", *sys.path])
        self.assertEqual(path[:3], (os.getcwd(), os.path.abspath("b"), "/a"))
        self.assertFalse([each for each in path if each.endswith((".zip", "site-packages"))])


JUNK: tuple[Any, ...] = (
    None,
    5,
    -1,
    True,
    2.5,
    float("nan"),
    b"x",
    "x",
    "",
    "\0",
    "\ud800",
    [],
    {},
    object(),
    "x" * 5000,
)

#: The arguments of each call, of which one or two are junk.
CALLS: dict[str, dict[str, Any]] = {
    "predict": {"model": "m", "data": b"", "content_type": "", "version": None, "headers": None, "timeout": None},
    "register": {
        "url": None,
        "name": "m",
        "handler": OWN,
        "version": None,
        "workers": 1,
        "batch_size": None,
        "max_batch_delay": None,
        "response_timeout": None,
        "startup_timeout": None,
    },
    "scale": {"name": "m", "workers": 1, "most": None, "version": None},
    "set_default": {"name": "m", "version": "1.0"},
    "unregister": {"name": "m", "version": None},
    "describe": {"name": "m", "version": None},
}


class JunkTests(ModelsCase):
    """Arguments that make no sense."""

    def test_junk(self) -> None:
        """A call with junk succeeds or fails with an error of ours, and the server goes on."""
        for call, arguments in CALLS.items():
            for name, junk in product(arguments, JUNK):
                with self.subTest(call=call, name=name, junk=junk):
                    result = getattr(self.server, call)(**{**arguments, name: junk})
                    outcome: list[Any] = []
                    result.addBoth(outcome.append)
                    if isinstance(outcome[0], Failure):
                        self.assertTrue(outcome[0].check(ServeError), outcome[0])
        self.assertEqual(self.flushLoggedErrors(), [])
        self.result(self.server.register(name="after", handler=OWN))
        self.assertEqual(self.result(self.server.predict("after", b"x")).body, b"x")
