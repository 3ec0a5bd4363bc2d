# SPDX-License-Identifier: Apache-2.0
"""
Tests for ``twisted_serve.planes.management``: what happens between the beginning and the end of a change.

What the changes are, seen from a client, is in ``tests/web/test_management.py``.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import zipfile
from datetime import datetime, timezone
from itertools import count
from pathlib import Path
from typing import Any

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import LogLevel, capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.client import Agent

from tests.threads import Threads
from twisted_serve.archives.fetch import Fetcher, FetchLimits
from twisted_serve.archives.places import Intake
from twisted_serve.archives.store import ModelArchive, ModelStore
from twisted_serve.archives.tree import UnpackLimits
from twisted_serve.archives.urls import AllowedUrls
from twisted_serve.errors import BadRequest, Conflict, InvalidModel, ModelNotFound, ServiceUnavailable, WorkerFailed
from twisted_serve.interfaces import IWorker, Placement, WorkerSpec
from twisted_serve.models.settings import RequestedSettings
from twisted_serve.models.version import ModelSettings, ModelVersion
from twisted_serve.planes.catalogue import Catalogue
from twisted_serve.planes.management import ManagementPlane, Outcome
from twisted_serve.planes.memory import Memory
from twisted_serve.planes.registrar import Registrar, Registration
from twisted_serve.testing.fakes import FakeProvider
from twisted_serve.testing.processes import ProcessReactor
from twisted_serve.testing.server import MemoryServeReactor
from twisted_serve.wire.messages import Item, Job
from twisted_serve.workers.installation import Installer
from twisted_serve.workers.pool import Pool

GRACE = 30.0


class PlaneTestCase(SynchronousTestCase):
    """A plane over a real store, with fake workers and threads."""

    def setUp(self) -> None:
        self.directory = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.directory)
        self.store_path, self.work_dir = self.directory / "store", self.directory / "work"
        self.store_path.mkdir()
        self.work_dir.mkdir()
        reactor: Any = MemoryServeReactor()
        self.clock: Clock = reactor
        self.threads = Threads()
        self.provider = FakeProvider(self.clock)
        self.catalogue = Catalogue()
        self.ids = count(9000)
        fetcher = Fetcher(Agent(reactor), reactor, AllowedUrls(("http://.*",)), FetchLimits(), self.threads)
        self.store = ModelStore(self.store_path, Intake(self.work_dir, fetcher, UnpackLimits(), self.threads))
        self.use_registrar()

    def use_registrar(self, installer: Installer | None = None) -> None:
        self.registrar = Registrar(self.catalogue, self.store, self.settle, self.pool, None, GRACE, installer)
        self.plane = ManagementPlane(self.catalogue, self.registrar, Memory(self.threads, self.clock.seconds), True)

    def settle(
        self, wanted: RequestedSettings, archive: ModelArchive, name: str, version: str, at_startup: bool
    ) -> ModelSettings:
        workers = 1 if wanted.initial_workers is None else wanted.initial_workers
        return ModelSettings(min_workers=workers, max_workers=workers)

    def pool(self, model: ModelVersion) -> Pool:
        spec = WorkerSpec(model.name, model.version, model.model_dir, "h.py", 1, {}, {}, "python", {}, 10.0)
        return Pool(
            spec,
            model.settings,
            self.provider,
            self.clock,
            lambda: datetime(2026, 1, 1, tzinfo=timezone.utc),
            worker_ids=lambda: str(next(self.ids)),
        )

    def archive(self, file: str = "m.mar", **manifest: str) -> None:
        """Put an archive into the store."""
        model = {"modelName": "m", "modelVersion": "1.0", "handler": "handler.py", **manifest}
        with zipfile.ZipFile(self.store_path / file, "w") as archive:
            archive.writestr("MAR-INF/MANIFEST.json", json.dumps({"model": {k: v for k, v in model.items() if v}}))
            archive.writestr("handler.py", "")

    def register(self, url: str = "m.mar", **wanted: Any) -> Deferred[Outcome]:
        return Deferred.fromCoroutine(self.plane.register(Registration(url, **wanted)))

    def unregister(self, name: str = "m") -> Deferred[Outcome]:
        return Deferred.fromCoroutine(self.plane.unregister(name, None))

    def unpacked(self) -> list[Path]:
        """List what was unpacked and is still there."""
        return list((self.work_dir / "models").glob("*")) if (self.work_dir / "models").is_dir() else []

    def model_dir(self) -> Path:
        return self.catalogue.resolve("m", None).model_dir


class Reluctant(FakeProvider):
    """Its workers do not stop when they are told to."""

    def start(self, spec: WorkerSpec, placement: Placement) -> IWorker:
        worker = super().start(spec, placement)
        worker.stop = lambda grace: Deferred()  # type: ignore[method-assign]
        return worker


class RaceTests(PlaneTestCase):
    """Tests for changes which meet."""

    def test_registered_again_before_it_is_gone(self) -> None:
        """A version may come back while its predecessor still answers: each has its own files, and loses only them."""
        self.archive()
        self.successResultOf(self.register())
        old = self.model_dir()
        worker = self.provider.workers[0]
        worker.holding = True
        answer = self.catalogue.pool_of(self.catalogue.resolve("m", None)).submit(Job("r", {}, []))
        going = self.unregister()
        self.assertNoResult(going)
        self.archive(description="another")
        self.successResultOf(self.register())
        new = self.model_dir()
        worker.answer([Item("r", 200, "", {}, b"")])
        self.successResultOf(answer)
        self.successResultOf(going)
        self.assertEqual((old.exists(), new.exists()), (False, True))
        self.successResultOf(self.unregister())
        self.assertEqual(self.unpacked(), [])

    def test_unregistered_while_loading(self) -> None:
        """Who waits for the workers of a version that somebody unregisters is told that they did not start."""
        self.archive()
        self.provider.load_delay = None
        coming = self.register()
        self.successResultOf(self.unregister())
        self.failureResultOf(coming, WorkerFailed)
        self.assertEqual((list(self.catalogue), self.unpacked()), ([], []))

    def test_another_in_its_place(self) -> None:
        """A registration that fails because it was unregistered leaves alone the one which has come after it."""
        self.archive()
        provider = self.provider
        self.provider = Reluctant(self.clock, load_delay=None)
        coming = self.register()
        [first] = self.provider.workers
        going = self.unregister()
        self.assertNoResult(going)
        self.provider = provider
        self.successResultOf(self.register())
        first.kill()
        self.failureResultOf(coming, WorkerFailed)
        self.successResultOf(going)
        self.assertEqual(self.catalogue.resolve("m", None).model_dir, self.unpacked()[0])
        self.assertEqual(len(self.unpacked()), 1)

    def test_two_at_once(self) -> None:
        """Of two registrations of one version which are opened at once, one is refused and leaves nothing."""
        self.archive()
        self.threads.holding = True
        both = [self.register(), self.register()]
        self.threads.work()
        results: list[Any] = []
        for registration in both:
            registration.addBoth(results.append)
        self.assertEqual(sorted(type(result).__name__ for result in results), ["Failure", "Outcome"])
        self.assertEqual(len(self.unpacked()), 1)


class StoppingTests(PlaneTestCase):
    """Tests for what is under way when the server stops."""

    def stop(self) -> Deferred[None]:
        self.catalogue.stopping = True
        return Deferred.fromCoroutine(self.plane.retire_all(0.0))

    def test_while_opening(self) -> None:
        """What is being opened is not waited for, and is not registered when it has been opened."""
        self.archive()
        for steps in range(2):
            self.catalogue.stopping = False
            self.threads.holding = True
            coming = self.register()
            self.threads.work(steps)
            self.successResultOf(self.stop())
            self.threads.work()
            self.failureResultOf(coming, ServiceUnavailable)
            self.assertEqual((self.provider.workers, list(self.catalogue), self.unpacked()), ([], [], []))

    def test_afterwards(self) -> None:
        """Nothing is registered on a server that stops, and nothing stays of the attempt."""
        self.archive()
        self.successResultOf(self.stop())
        self.failureResultOf(self.register(), ServiceUnavailable)
        self.assertEqual((self.provider.workers, self.unpacked()), ([], []))

    def test_start_up(self) -> None:
        """A start-up model that is being opened is given up, as one that cannot be loaded."""
        self.archive()
        self.threads.holding = True
        loading = Deferred.fromCoroutine(self.plane.load_at_startup(None, "m.mar"))
        self.successResultOf(self.stop())
        self.assertIsNone(self.successResultOf(loading))

    def test_workers(self) -> None:
        """All workers end."""
        self.archive()
        self.archive("n.mar", modelName="n")
        self.successResultOf(self.register())
        self.successResultOf(self.register("n.mar"))
        self.successResultOf(self.stop())
        self.assertEqual(self.provider.alive, [])


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

    def load(self, url: str, name: str | None = None) -> Deferred[None] | None:
        return self.successResultOf(Deferred.fromCoroutine(self.plane.load_at_startup(name, url)))

    def test_settled(self) -> None:
        """It is told when the workers are loaded or have failed to."""
        self.archive()
        self.provider.load_delay = 5
        settled = self.load("m.mar")
        assert settled is not None
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
        self.assertIsNone(self.load("m.mar"))
        self.catalogue.resolve("m", None)

    def test_broken(self) -> None:
        """A model that cannot be loaded is a warning, and the server goes on."""
        with capturedLogs() as events:
            self.assertIsNone(self.load("absent.mar"))
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


class InstallationTests(PlaneTestCase):
    """Tests for models that need something to be installed."""

    def setUp(self) -> None:
        super().setUp()
        self.reactor = ProcessReactor()
        reactor: Any = self.reactor
        installer = Installer(reactor, self.work_dir, "python", {}, 60.0, self.threads)
        self.use_registrar(installer)
        self.patch(os, "killpg", lambda pid, number: None)
        self.archive("m.mar", requirementsFile="handler.py")

    def installed(self) -> list[Path]:
        return list((self.work_dir / "packages").glob("*"))

    def test_registered(self) -> None:
        """A version is registered when pip is done, with what was installed; unregistering removes it."""
        coming = self.register()
        self.assertNoResult(coming)
        self.assertEqual(list(self.catalogue), [])
        self.reactor.children[0].end()
        self.successResultOf(coming)
        self.assertEqual(self.catalogue.resolve("m", None).packages, self.installed()[0] / "packages")
        self.successResultOf(self.unregister())
        self.assertEqual((self.installed(), self.unpacked()), ([], []))

    def test_failed(self) -> None:
        """When pip fails, nothing is registered; the next attempt is as good as the first."""
        for _ in range(2):
            coming = self.register()
            self.reactor.children[-1].end(1)
            self.failureResultOf(coming, InvalidModel)
            self.assertEqual((list(self.catalogue), self.installed(), self.unpacked()), ([], [], []))

    def test_registered_already(self) -> None:
        """Nothing is installed for a version that is registered already."""
        coming = self.register()
        self.reactor.children[0].end()
        self.successResultOf(coming)
        self.failureResultOf(self.register(), Conflict)
        self.assertEqual((len(self.reactor.children), len(self.installed())), (1, 1))

    def test_two_at_once(self) -> None:
        """Of two that are installed at once, the later one is refused and leaves nothing."""
        both = [self.register(), self.register()]
        for child in self.reactor.children:
            child.end()
        self.successResultOf(both[0])
        self.failureResultOf(both[1], Conflict)
        self.assertEqual((len(self.installed()), len(self.unpacked())), (1, 1))

    def test_stopped(self) -> None:
        """A server that stops waits for no pip, and nothing is registered."""
        coming = self.register()
        self.catalogue.stopping = True
        self.successResultOf(Deferred.fromCoroutine(self.plane.retire_all(0.0)))
        self.failureResultOf(coming, ServiceUnavailable)
        self.reactor.children[0].end(None, 9)
        self.assertEqual((list(self.catalogue), self.installed(), self.unpacked()), ([], [], []))

    def test_failed_workers(self) -> None:
        """Workers that cannot start take with them what was installed for them."""
        self.provider.load_delay = None
        coming = self.register()
        self.reactor.children[0].end()
        self.provider.workers[0].kill()
        self.failureResultOf(coming, WorkerFailed)
        self.assertEqual((self.installed(), self.unpacked()), ([], []))
