# SPDX-License-Identifier: Apache-2.0
"""
Tests for ``twisted_serve.planes.describing``.
"""

from __future__ import annotations

import os
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from attrs import evolve
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.specs import worker_spec
from twisted_serve.archives.manifest import Manifest
from twisted_serve.archives.model_config import ModelConfig
from twisted_serve.errors import WorkerFailed
from twisted_serve.models.version import ModelSettings, ModelVersion
from twisted_serve.planes.describing import describe, pids
from twisted_serve.planes.memory_usage import measured
from twisted_serve.scheduling.pool import Pool
from twisted_serve.testing.fakes import FakeProvider

# In a zone of its own: what clients see is UTC.
NOW = datetime(2026, 1, 1, 2, 0, 0, 123456, tzinfo=timezone(timedelta(hours=2)))


class DescribeTests(SynchronousTestCase):
    """Tests for a version's members."""

    def setUp(self) -> None:
        self.provider = FakeProvider(Clock())
        self.settings = ModelSettings(max_workers=2)
        self.config = ModelConfig()

    def described(self, gpu: int | None = None) -> dict[str, Any]:
        spec = worker_spec("m", "1.0", Path("/m"), "h.py", 1, {}, {}, "python", {}, 10.0)
        pool = Pool(
            spec,
            self.settings,
            self.provider,
            self.provider.clock,
            lambda: NOW,
            worker_ids=lambda: "9000",
            next_gpu=lambda: gpu,
        )
        pool.start().addErrback(lambda failure: None)
        model = ModelVersion("m", "1.0", "m.mar", Path("/m"), Manifest("m", "1.0"), self.config, "h.py", self.settings)
        # Fake workers have made-up ids; these are processes which can be looked at.
        for worker in self.provider.workers:
            worker.pid = self.pid
        return describe(model, pool, measured(pids([pool])))

    pid: int | None = os.getpid()

    def test_sequences(self) -> None:
        """The limits of sequences are 0 for a model without any, and its own for one that has them."""
        names = ("sequenceMaxIdleMSec", "sequenceTimeoutMSec", "maxNumSequence", "maxSequenceJobQueueSize")
        for config, expected in (
            (ModelConfig(), [0, 0, 0, 0]),
            (ModelConfig(max_num_sequence=4, max_sequence_job_queue_size=2), [0, 0, 0, 0]),
            (ModelConfig(sequence_batching=True), [0, 0, 1, 1]),
            (ModelConfig(sequence_max_idle=30, sequence_timeout=60, max_num_sequence=4), [30, 60, 4, 1]),
        ):
            self.config = config
            described = self.described()
            self.assertEqual(expected, [described[name] for name in names], config)

    def test_worker(self) -> None:
        """A worker has its id, its process with the memory it has, and its start in UTC."""
        [worker] = self.described()["workers"]
        self.assertGreater(worker.pop("memoryUsage"), 1 << 20)
        self.assertEqual(
            worker,
            {
                "id": "9000",
                "startTime": "2026-01-01T00:00:00.123Z",
                "status": "READY",
                "pid": os.getpid(),
                "gpu": False,
                "gpuUsage": "N/A",
                "statusSince": "2026-01-01T00:00:00.123Z",
                "sharesWeights": False,
            },
        )

    def test_no_process(self) -> None:
        """A worker without a process, or whose process has just gone, has no memory."""
        self.pid = None
        [worker] = self.described()["workers"]
        self.assertEqual((worker["pid"], worker["memoryUsage"]), (-1, 0))
        # No system has as many processes as that.
        self.pid = 2**31 - 1
        [worker] = self.described()["workers"]
        self.assertEqual(worker["memoryUsage"], 0)

    def test_failing(self) -> None:
        """A worker that failed says why, and when it is tried again; so does the model if there is no other."""
        self.pid = None
        self.provider.load_error = WorkerFailed(500, "broken")
        described = self.described()
        [worker] = described["workers"]
        self.assertEqual(("broken", "2026-01-01T00:00:01.123Z"), (worker["reason"], worker["retryAt"]))
        self.assertNotIn("circuit", described)
        for seconds, until in ((60.0, "2026-01-01T00:01:00.123Z"), (0.0, None)):
            self.settings = evolve(self.settings, max_retry_timeout=0, circuit_retry=seconds)
            described = self.described()
            self.assertEqual(described["circuit"], {"state": "open", "reason": "broken", "retryAt": until})
            self.assertEqual(until, described["workers"][0].get("retryAt"))

    def test_gpu(self) -> None:
        """Devices are shown where some are configured, and that a worker has one."""
        self.assertNotIn("deviceIds", self.described())
        self.settings = evolve(self.settings, device_type="gpu", device_ids=(1, 3))
        described = self.described(gpu=3)
        self.assertEqual((described["deviceType"], described["deviceIds"]), ("gpu", [1, 3]))
        self.assertIs(described["workers"][0]["gpu"], True)

    def test_members(self) -> None:
        """The members and their order are the predecessor's; ours come after them."""
        self.assertEqual(
            list(self.described()),
            [
                "modelName",
                "modelVersion",
                "modelUrl",
                "runtime",
                "minWorkers",
                "maxWorkers",
                "batchSize",
                "maxBatchDelay",
                "responseTimeout",
                "startupTimeout",
                "maxRetryTimeoutInSec",
                "clientTimeoutInMills",
                "parallelType",
                "parallelLevel",
                "deviceType",
                "continuousBatching",
                "useJobTicket",
                "useVenv",
                "stateful",
                "sequenceMaxIdleMSec",
                "sequenceTimeoutMSec",
                "maxNumSequence",
                "maxSequenceJobQueueSize",
                "loadedAtStartup",
                "workers",
                "jobQueueStatus",
                "batchPolicy",
            ],
        )
