# SPDX-License-Identifier: Apache-2.0
"""
Tests for ``twisted_serve.planes.inference``.
"""

from __future__ import annotations

from datetime import datetime, timezone
from itertools import count
from pathlib import Path
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.specs import worker_spec
from twisted_serve.archives.manifest import Manifest
from twisted_serve.archives.model_config import ModelConfig
from twisted_serve.errors import ModelNotFound, ServiceUnavailable
from twisted_serve.metrics.registry import ServerMetrics
from twisted_serve.models.version import ModelSettings, ModelVersion
from twisted_serve.planes.catalogue import Catalogue
from twisted_serve.planes.inference import InferencePlane
from twisted_serve.scheduling.pool import Pool
from twisted_serve.testing.fakes import FakeProvider
from twisted_serve.wire.messages import Item, Job, Part


class InferenceTests(SynchronousTestCase):
    """Tests for prediction and health, with fake workers."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.provider = FakeProvider(self.clock)
        self.catalogue = Catalogue()
        self.metrics = ServerMetrics("host")
        self.plane = InferencePlane(self.catalogue, self.metrics)
        self.ids = count(9000)

    def add(self, name: str = "m", version: str = "1.0", at_startup: bool = True, **settings: Any) -> Pool:
        """Register a version and start its workers."""
        made = ModelSettings(**settings)
        spec = worker_spec(name, version, Path("/m"), "h.py", 1, {}, {}, "python", {}, 10.0)
        pool = Pool(
            spec,
            made,
            self.provider,
            self.clock,
            lambda: datetime(2026, 1, 1, tzinfo=timezone.utc),
            worker_ids=lambda: str(next(self.ids)),
        )
        model = ModelVersion(
            name, version, name, Path("/m"), Manifest(name, version), ModelConfig(), "h.py", made,
            loaded_at_startup=at_startup,
        )  # fmt: skip
        self.catalogue.add(model, pool)
        pool.start().addErrback(lambda failure: None)
        return pool

    def predict(self, name: str = "m", version: str | None = None, body: bytes = b"hi") -> Deferred[Item]:
        self.chunks: list[Item] = []
        return self.plane.predict(
            name, version, Job("r", {}, [Part("body", "", body)]), lambda item, _producer: self.chunks.append(item)
        )

    def counted(self) -> list[str]:
        lines = self.metrics.render(["ts_inference_requests_total"]).decode().splitlines()
        return [line for line in lines if not line.startswith("#")]

    def test_predict(self) -> None:
        """A job is answered by a worker of the version that it is for, and counted."""
        self.add()
        self.add(version="2.0")
        self.assertEqual(self.successResultOf(self.predict()).body, b"hi")
        self.assertEqual(self.successResultOf(self.predict(version="2.0")).body, b"hi")
        self.assertEqual([len(worker.batches) for worker in self.provider.workers], [1, 1])
        self.assertEqual(
            self.counted(),
            [
                'ts_inference_requests_total{model_name="m",model_version="default",hostname="host",} 1.0',
                'ts_inference_requests_total{model_name="m",model_version="2.0",hostname="host",} 1.0',
            ],
        )

    def test_stream(self) -> None:
        """Intermediate answers are passed on as they come, before the last one."""
        self.provider.holding = True
        self.add()
        answer = self.predict()
        worker = self.provider.workers[0]
        worker.chunk(Item("r", 200, "", {}, b"1"))
        self.assertEqual([item.body for item in self.chunks], [b"1"])
        self.assertNoResult(answer)
        worker.answer()
        self.assertEqual(self.successResultOf(answer).body, b"hi")

    def test_unknown(self) -> None:
        """What finds no model is not counted: made-up names must not become metrics."""
        for name in ("absent", "a" * 1000):
            self.assertRaises(ModelNotFound, self.predict, name)
        self.assertEqual(self.counted(), [])

    def test_nobody_there(self) -> None:
        """What finds its model but no worker is counted, and refused."""
        self.add(min_workers=0, max_workers=0)
        self.failureResultOf(self.predict(), ServiceUnavailable)
        self.assertEqual(len(self.counted()), 1)

    def test_given_up(self) -> None:
        """Cancelling gives the job up."""
        self.provider.holding = True
        self.add()
        answer = self.predict()
        answer.cancel()
        self.failureResultOf(answer, CancelledError)
        self.assertEqual(self.provider.workers[0].cancelled, ["r"])

    def test_healthy(self) -> None:
        """An empty server is healthy, one that starts or stops is not."""
        self.assertTrue(self.plane.healthy())
        self.catalogue.starting = True
        self.assertFalse(self.plane.healthy())
        self.catalogue.starting, self.catalogue.stopping = False, True
        self.assertFalse(self.plane.healthy())

    def test_unhealthy(self) -> None:
        """A default version which has lost its worker for too long makes the server unhealthy; another does not."""
        first = self.add(max_retry_timeout=0)
        self.add(version="2.0", max_retry_timeout=0)
        self.provider.workers[1].kill()
        self.assertTrue(self.plane.healthy())
        self.provider.workers[0].kill()
        self.assertFalse(first.healthy())
        self.assertFalse(self.plane.healthy())

    def test_ready(self) -> None:
        """Ready means that each start-up model has its workers; others do not count."""
        self.provider.load_delay = 5
        self.assertTrue(self.plane.ready())
        self.add("late", at_startup=False)
        self.assertTrue(self.plane.ready())
        self.add("m")
        self.assertFalse(self.plane.ready())
        self.clock.advance(5)
        self.assertTrue(self.plane.ready())
        self.catalogue.starting = True
        self.assertFalse(self.plane.ready())
        self.catalogue.starting, self.catalogue.stopping = False, True
        self.assertFalse(self.plane.ready())
