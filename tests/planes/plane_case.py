# SPDX-License-Identifier: Apache-2.0
"""What the tests of the management plane share: one over a real store, with fake workers and threads."""

from __future__ import annotations

import json
import shutil
import tempfile
import zipfile
from datetime import datetime, timezone
from itertools import count
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.client import Agent

from tests.specs import worker_spec
from tests.threads import Threads
from twisted_serve.archives.extraction import UnpackLimits
from twisted_serve.archives.fetch import Fetcher, FetchLimits
from twisted_serve.archives.intake import Intake
from twisted_serve.archives.store import ModelArchive, ModelStore
from twisted_serve.archives.urls import AllowedUrls
from twisted_serve.models.settings import RequestedSettings
from twisted_serve.models.version import ModelSettings, ModelVersion
from twisted_serve.planes.catalogue import Catalogue
from twisted_serve.planes.management import ManagementPlane, Outcome
from twisted_serve.planes.memory_usage import Memory
from twisted_serve.planes.registrar import Registrar, Registration
from twisted_serve.scheduling.pool import Pool
from twisted_serve.testing.fakes import FakeProvider
from twisted_serve.testing.server import MemoryServeReactor
from twisted_serve.workers.packages import Installer

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
        spec = worker_spec(model.name, model.version, model.model_dir, "h.py", 1, {}, {}, "python", {}, 10.0)
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
