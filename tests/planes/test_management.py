# SPDX-License-Identifier: Apache-2.0
"""
Tests for ``twisted_serve.planes.management``: what happens between the beginning and the end of a change.

What the changes are, seen from a client, is in ``tests/web/routes/test_management.py``.
"""

from __future__ import annotations

import json
import zipfile
from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.logger import LogLevel, capturedLogs, formatEvent

from tests.planes.plane_case import PlaneTestCase
from twisted_serve.errors import BadRequest, InvalidModel, ModelNotFound, WorkerFailed
from twisted_serve.models.version import ModelSettings
from twisted_serve.planes.management import Outcome
from twisted_serve.planes.registrar import Registration
from twisted_serve.planes.startup import StartupFailure


class RefusalTests(PlaneTestCase):
    """Tests for what cannot be registered: nothing of it stays."""

    def assertRefused(self, error: type[Exception], text: str, **wanted: Any) -> None:
        failure = self.failureResultOf(self.register(**wanted), error)
        self.assertIn(text, str(failure.value))
        self.assertEqual((list(self.catalogue), self.unpacked()), ([], []))

    def test_no_name(self) -> None:
        """A model needs a name, from the request or from its manifest."""
        self.archive(modelName="")
        self.assertRefused(InvalidModel, "Model name is not defined.")
        self.successResultOf(self.register(model_name="given"))

    def test_no_handler(self) -> None:
        """A model needs a handler, from the request, its manifest or the configuration."""
        self.archive(handler="")
        self.assertRefused(InvalidModel, "default_service_handler")
        self.successResultOf(self.register(handler="given.py"))

    def test_runtime(self) -> None:
        """A runtime which is not to be had is refused, whoever names it."""
        self.archive(runtime="LSP")
        with zipfile.ZipFile(self.store_path / "m.mar", "w") as archive:
            archive.writestr("MAR-INF/MANIFEST.json", json.dumps({"runtime": "LSP", "model": {"modelName": "m"}}))
        self.assertRefused(InvalidModel, "LSP", handler="h.py")
        self.assertRefused(BadRequest, "RuntimeType", runtime="LSP")

    def test_defect(self) -> None:
        """Whatever else goes wrong while a model is entered, its files are removed."""
        self.archive()
        self.settle_broken()
        self.failureResultOf(self.register(), ZeroDivisionError)
        self.assertEqual(self.unpacked(), [])

    def settle_broken(self) -> None:
        def settle(*_args: object) -> ModelSettings:
            raise ZeroDivisionError

        self.registrar._settle = settle


class WorkerTests(PlaneTestCase):
    """Tests for workers that cannot be started, and for scaling."""

    def test_cannot_start(self) -> None:
        """A registration whose workers fail says why, with 507 for memory, and leaves nothing."""
        self.archive()
        for status, expected in ((500, 500), (507, 507), (503, 500)):
            self.provider.load_error = WorkerFailed(status, "No luck today.")
            failure = self.failureResultOf(self.register(), WorkerFailed)
            self.assertEqual(failure.value.status, expected)
            self.assertEqual(failure.value.message, "Failed to start workers for model m version: 1.0")
            self.assertEqual(failure.value.reason, "No luck today.")
            self.assertEqual((list(self.catalogue), self.unpacked()), ([], []))

    def test_failed_default(self) -> None:
        """When the first version of several fails late, another one becomes the default."""
        self.archive()
        self.archive("n.mar", modelVersion="2.0")
        self.provider.load_delay = None
        first = self.register()
        second = self.register("n.mar")
        self.provider.workers[1].load()
        self.successResultOf(second)
        self.provider.workers[0].fail_to_load(WorkerFailed(500, "No luck."))
        self.failureResultOf(first, WorkerFailed)
        self.assertEqual(self.catalogue.resolve("m", None).version, "2.0")
        self.assertEqual(len(self.unpacked()), 1)

    def test_nobody_waits(self) -> None:
        """What becomes of an asynchronous registration is in the log, and it stays registered."""
        self.archive()
        self.provider.load_error = WorkerFailed(500, "No luck.")
        with capturedLogs() as events:
            self.assertEqual(self.successResultOf(self.register(synchronous=False)).status, 202)
        self.assertIn("No luck.", " ".join(str(formatEvent(event)) for event in events))
        self.catalogue.resolve("m", None)
        self.successResultOf(self.unregister())

    def test_traceback_is_printed(self) -> None:
        """What the model's log has as a traceback is not said again, unless a client waits; describe has the reason."""
        self.archive()
        self.provider.load_error = WorkerFailed(500, "AssertionError (h.py, line 3)", printed=True)
        with capturedLogs() as events:
            self.assertEqual(self.successResultOf(self.register(synchronous=False)).status, 202)
        said = [formatEvent(event) for event in events]
        self.assertIn("Workers of model m version 1.0 failed: why is in the model's log", said)
        self.assertNotIn("AssertionError", " ".join(said))
        [described] = self.successResultOf(Deferred.fromCoroutine(self.plane.describe("m", None)))
        self.assertIn("AssertionError (h.py, line 3)", str(described))
        self.successResultOf(self.unregister())
        with capturedLogs() as events:
            self.failureResultOf(self.register(), WorkerFailed)
        self.assertIn("AssertionError (h.py, line 3)", " ".join(str(formatEvent(event)) for event in events))

    def test_defect_while_nobody_waits(self) -> None:
        """A defect in a change which nobody waits for is in the log as such."""
        self.archive()
        self.successResultOf(self.register())
        pool = self.catalogue.pool_of(self.catalogue.resolve("m", None))
        broken: Deferred[Any] = Deferred()
        pool.scale = lambda *_args: broken  # type: ignore[method-assign]
        outcome = Deferred.fromCoroutine(self.plane.scale("m", None, 2, None, synchronous=False))
        self.assertEqual(self.successResultOf(outcome).status, 202)
        broken.errback(ZeroDivisionError())
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_scale(self) -> None:
        """Scaling says how many workers there are, and names the version if the request did."""
        self.archive()
        self.successResultOf(self.register())
        for version, said in ((None, ""), ("1.0", ", version: 1.0")):
            outcome = self.successResultOf(Deferred.fromCoroutine(self.plane.scale("m", version, 2, None, True)))
            self.assertEqual(outcome, Outcome(200, f"Workers scaled to 2 for model: m{said}"))
        self.assertEqual(len(self.provider.alive), 2)

    def test_scale_refused(self) -> None:
        """Numbers that cannot be are refused before it is asked whether the model exists."""
        for least, most in ((2, 1), (-1, 1), (-2, None), (0, -1)):
            scaling = Deferred.fromCoroutine(self.plane.scale("absent", None, least, most, True))
            self.failureResultOf(scaling, BadRequest)
        scaling = Deferred.fromCoroutine(self.plane.scale("absent", None, 1, 1, True))
        self.failureResultOf(scaling, ModelNotFound)

    def test_scale_fails(self) -> None:
        """A scaling whose workers fail names the version, or literally null."""
        self.archive()
        self.successResultOf(self.register())
        self.provider.load_error = WorkerFailed(500, "No luck.")
        for version in (None, "1.0"):
            scaling = Deferred.fromCoroutine(self.plane.scale("m", version, 3, None, True))
            failure = self.failureResultOf(scaling, WorkerFailed)
            self.assertTrue(failure.value.message.endswith(f"version: {version or 'null'}"), failure.value)


class StartUpTests(PlaneTestCase):
    """Tests for start-up models."""

    def load(self, url: str, name: str | None = None) -> Deferred[StartupFailure | None]:
        return self.successResultOf(Deferred.fromCoroutine(self.plane.load_at_startup(name, url)))

    def test_settled(self) -> None:
        """It is told when the workers are loaded or have failed to."""
        self.archive()
        self.provider.load_delay = 5
        settled = self.load("m.mar")
        self.assertNoResult(settled)
        self.clock.advance(5)
        self.assertIsNone(self.successResultOf(settled))
        self.assertTrue(self.catalogue.resolve("m", None).loaded_at_startup)

    def test_name_of_the_file(self) -> None:
        """A model which nobody has named is named after its file."""
        self.archive("my-model.mar", modelName="")
        self.load("my-model.mar")
        self.catalogue.resolve("my_model", None)

    def test_no_workers(self) -> None:
        """Where no workers are wanted there is nothing to wait for."""
        self.archive()
        self.registrar._settle = lambda *_args: ModelSettings(min_workers=0)
        self.assertIsNone(self.successResultOf(self.load("m.mar")))
        self.catalogue.resolve("m", None)

    def test_broken(self) -> None:
        """A model that cannot be loaded is a warning, and the server goes on."""
        with capturedLogs() as events:
            failure = self.successResultOf(self.load("absent.mar"))
        assert failure is not None
        self.assertEqual((failure.name, failure.url, failure.registered), (None, "absent.mar", False))
        self.assertIn("Model not found at: absent.mar (there is no ", failure.reason)
        self.assertEqual(self.catalogue.missing, {"absent": "absent.mar"})
        [warning] = [event for event in events if event["log_level"] is LogLevel.warn]
        self.assertIn("Failed to load model: absent.mar", str(formatEvent(warning)))


class WarningTests(PlaneTestCase):
    """Tests for what an archive's configuration should not say."""

    def test_logged(self) -> None:
        """Whoever registers a model finds the warnings in the log, with the model's name."""
        with zipfile.ZipFile(self.store_path / "m.mar", "w") as archive:
            model = {"modelName": "m", "handler": "h.py", "configFile": "c.yaml"}
            archive.writestr("MAR-INF/MANIFEST.json", json.dumps({"model": model}))
            archive.writestr("c.yaml", "deviceType: abacus")
        with capturedLogs() as events:
            self.successResultOf(self.register())
        [warning] = [event for event in events if event["log_level"] is LogLevel.warn]
        self.assertIn("Model m: Invalid deviceType", str(formatEvent(warning)))


class ListTests(PlaneTestCase):
    """Tests for the list of models."""

    def test_pages(self) -> None:
        """The list has the default versions by name, a page at a time, with the next page's token if there is one."""
        for name in "cab":
            self.archive(f"{name}.mar", modelName=name)
            self.successResultOf(self.register(f"{name}.mar"))
        first = self.plane.list_models(2, 0)
        self.assertEqual([each["modelName"] for each in first["models"]], ["a", "b"])
        self.assertEqual(first["nextPageToken"], "2")
        last = self.plane.list_models(2, 2)
        self.assertEqual(last, {"models": [{"modelName": "c", "modelUrl": "c.mar"}]})

    def test_url(self) -> None:
        """A registration without a URL says so."""
        registration = evolve(Registration("x"), url=None)
        self.failureResultOf(Deferred.fromCoroutine(self.plane.register(registration)), BadRequest)
