# SPDX-License-Identifier: Apache-2.0
"""Tests for `twisted_serve.planes.snapshots`: a call is answered when its change is recorded."""

from __future__ import annotations

import json
import shutil
from datetime import datetime, timezone
from typing import Any

from twisted.internet.defer import Deferred

from tests.planes.plane_case import PlaneTestCase
from tests.threads import Threads
from twisted_serve.config.properties import parse_properties
from twisted_serve.errors import WorkerFailed
from twisted_serve.models.settings import RequestedSettings
from twisted_serve.planes.management import Outcome
from twisted_serve.planes.snapshots import SnapshotFolder, Snapshots

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc)


class WaitingTests(PlaneTestCase):
    """A call that changes something is answered when the change is on disk, or could not be written."""

    def setUp(self) -> None:
        super().setUp()
        self.disk = Threads()
        self.path = self.directory / "snapshots"
        self.snapshots = Snapshots(SnapshotFolder(self.path, {}, 20), self.catalogue, lambda: NOW, self.disk)
        self.registrar.changed = self.snapshots.changed
        for file in ("m.mar", "n.mar", "o.mar"):
            self.archive(file, modelName=file[0])
        self.archive("m2.mar", modelVersion="2.0")
        self.successResultOf(Deferred.fromCoroutine(self.snapshots.begin()))

    def recorded(self) -> dict[str, dict[str, Any]]:
        """Read the newest snapshot's models."""
        newest = sorted(self.path.iterdir())[-1]
        models: dict[str, dict[str, Any]] = json.loads(parse_properties(newest.read_bytes())["model_snapshot"])[
            "models"
        ]
        return models

    def scale(self, synchronous: bool) -> Deferred[Outcome]:
        return Deferred.fromCoroutine(self.plane.scale("m", "1.0", 3, 3, synchronous))

    def test_on_disk(self) -> None:
        """Each call waits, also one that does not wait for workers; what it says is then in the newest snapshot."""

        def workers() -> Any:
            return self.recorded()["m"]["1.0"]["minWorkers"]

        self.disk.holding = True
        for change, shown in (
            (lambda: self.register(settings=RequestedSettings(initial_workers=0)), lambda: workers() == 0),
            (lambda: self.register("n.mar"), lambda: "n" in self.recorded()),
            (lambda: self.register("o.mar", synchronous=False), lambda: "o" in self.recorded()),
            (lambda: self.scale(True), lambda: workers() == 3),
            (lambda: self.register("m2.mar"), lambda: "2.0" in self.recorded()["m"]),
            (
                lambda: Deferred.fromCoroutine(self.plane.set_default("m", "2.0")),
                lambda: self.recorded()["m"]["2.0"]["defaultVersion"],
            ),
            (lambda: self.unregister("n"), lambda: "n" not in self.recorded()),
        ):
            answer = change()
            self.assertNoResult(answer)
            self.disk.work()
            self.successResultOf(answer)
            self.assertTrue(shown())

    def test_scaling_without_waiting(self) -> None:
        """A scaling that does not wait for its workers is recorded before it is answered, as in TorchServe."""
        self.successResultOf(self.register())
        self.provider.load_delay = None
        self.disk.holding = True
        answer = self.scale(False)
        self.assertNoResult(answer)
        self.disk.work()
        self.assertEqual(self.successResultOf(answer).status, 202)
        self.assertEqual(self.recorded()["m"]["1.0"]["minWorkers"], 3)

    def test_one_for_many(self) -> None:
        """Changes that come while one is being written share the next snapshot."""
        before = len(list(self.path.iterdir()))
        self.disk.holding = True
        answers = [self.register(f"{name}.mar") for name in "mno"]
        self.disk.work()
        for answer in answers:
            self.successResultOf(answer)
        self.assertEqual(set(self.recorded()), set("mno"))
        self.assertEqual(len(list(self.path.iterdir())) - before, 2)

    def test_not_written(self) -> None:
        """A snapshot that cannot be written fails no call; it is logged, and the next one is tried again."""
        shutil.rmtree(self.path)
        self.path.touch()
        self.assertEqual(self.successResultOf(self.register()).status, 200)
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)
        self.path.unlink()
        self.assertEqual(self.successResultOf(self.register("n.mar")).status, 200)
        self.assertEqual(set(self.recorded()), {"m", "n"})

    def test_failed_scaling(self) -> None:
        """A scaling whose workers failed holds, and is recorded."""
        self.successResultOf(self.register())
        self.provider.load_delay = None
        answer = self.scale(True)
        for worker in self.provider.workers[1:]:
            worker.kill()
        self.failureResultOf(answer, WorkerFailed)
        [(_model, pool)] = self.catalogue
        self.assertEqual(self.recorded()["m"]["1.0"]["minWorkers"], pool.min_workers)
