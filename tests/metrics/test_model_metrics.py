# SPDX-License-Identifier: Apache-2.0
"""Tests for the metrics of model versions, their queues and their workers."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from twisted_serve.metrics.pools import PoolReading
from twisted_serve.metrics.registry import ServerMetrics
from twisted_serve.metrics.timing import Timing
from twisted_serve.metrics.torchserve.definitions import default_catalogue

LABELS = 'model_name="m",model_version="1.0"'


class VersionTests(SynchronousTestCase):
    """Tests for `VersionMetrics`."""

    def setUp(self) -> None:
        self.metrics = ServerMetrics("h", default_catalogue(), "prometheus")
        self.version = self.metrics.version("m", "1.0")

    def lines(self) -> list[str]:
        return self.metrics.render().decode().splitlines()

    def test_batch(self) -> None:
        """A batch is one of the worker's and several of its requests'."""
        batch = [Timing(0.0, False, 0.0, 0.2, 0.5), Timing(0.1, True, 0.1, 0.2, 0.5)]
        self.version.batch_sent(batch, 0.001)
        self.version.batch_answered(batch, 0.002)
        lines = self.lines()
        for line in [
            f"ts_batch_size_sum{{{LABELS},}} 2.0",
            f"ts_batch_size_count{{{LABELS},}} 1.0",
            f"ts_worker_time_seconds_count{{{LABELS},}} 1.0",
            f'ts_worker_time_seconds_bucket{{{LABELS},le="0.25",}} 0.0',
            f'ts_worker_time_seconds_bucket{{{LABELS},le="0.5",}} 1.0',
            f"ts_queue_time_seconds_count{{{LABELS},}} 2.0",
            f'ts_queue_time_seconds_bucket{{{LABELS},le="0.1",}} 1.0',
            f"ts_request_latency_seconds_sum{{{LABELS},}} 0.9",
            'QueueTime{Level="Host",Hostname="h",} 100.0',
            'WorkerThreadTime{Level="Host",Hostname="h",} 3.0',
            'ts_inference_latency_microseconds{model_name="m",model_version="default",hostname="h",} 500000.0',
            'ts_inference_latency_microseconds{model_name="m",model_version="1.0",hostname="h",} 400000.0',
        ]:
            self.assertIn(line, lines)

    def test_troubles(self) -> None:
        """Refusals have a reason, failures a status, workers their deaths and restarts."""
        self.version.refused("queue_full")
        self.version.failed(503)
        self.version.failed(503)
        self.version.worker_died()
        self.version.worker_restarted()
        self.version.worker_loaded("W-9000-m_1.0", 1.2345)
        lines = self.lines()
        for line in [
            f'ts_requests_refused_total{{{LABELS},reason="queue_full",}} 1.0',
            f'ts_prediction_failures_total{{{LABELS},status="503",}} 2.0',
            f"ts_worker_deaths_total{{{LABELS},}} 1.0",
            f"ts_worker_restarts_total{{{LABELS},}} 1.0",
            'WorkerLoadTime{WorkerName="W-9000-m_1.0",Level="Host",Hostname="h",} 1234.0',
        ]:
            self.assertIn(line, lines)

    def test_retired(self) -> None:
        """A version that is gone is shown no more; what is told of it then does no harm; it may come again."""
        self.metrics.version("m", "2.0")
        self.version.refused("no_worker")
        self.version.retired()
        self.version.retired()
        self.assertFalse([line for line in self.lines() if LABELS in line and "hostname" not in line])
        self.assertIn('ts_worker_deaths_total{model_name="m",model_version="2.0",} 0.0', self.lines())
        self.version.worker_died()
        self.metrics.version("m", "1.0").worker_died()
        self.assertIn(f"ts_worker_deaths_total{{{LABELS},}} 1.0", self.lines())

    def test_pools(self) -> None:
        """Queues and workers are those of the scrape."""
        readings = [PoolReading("m", "1.0", 3, 97, 4, {"ready": 2, "starting": 0}, 1)]
        self.metrics.watch_pools(lambda: readings)
        lines = self.lines()
        for line in [
            f"ts_queue_depth{{{LABELS},}} 3.0",
            f"ts_queue_room{{{LABELS},}} 97.0",
            f"ts_requests_running{{{LABELS},}} 4.0",
            f"ts_workers_busy{{{LABELS},}} 1.0",
            f"ts_workers_idle{{{LABELS},}} 1.0",
            f'ts_workers{{{LABELS},state="ready",}} 2.0',
            f'ts_workers{{{LABELS},state="starting",}} 0.0',
        ]:
            self.assertIn(line, lines)
        readings.clear()
        self.assertFalse([line for line in self.lines() if line.startswith("ts_queue_depth{")])

    def test_build_and_process(self) -> None:
        """A first scrape says what is running, and what it uses."""
        text = "\n".join(self.lines())
        self.assertRegex(text, r'ts_build_info\{version="[^"]+",compatible_with="[^"]+",python="3\.[^"]+",\} 1\.0')
        self.assertIn("process_resident_memory_bytes ", text)


class TimingTests(SynchronousTestCase):
    """Tests for `Timing`."""

    def test_server_timing(self) -> None:
        """The header has what is known."""
        self.assertEqual(Timing(1.0).server_timing(1.5), "total;dur=500.000")
        self.assertEqual(
            Timing(1.0, False, 1.0, 1.25, 1.5).server_timing(2.0),
            "queue;dur=250.000, handler;dur=250.000, total;dur=1000.000",
        )
