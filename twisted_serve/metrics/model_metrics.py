# SPDX-License-Identifier: Apache-2.0
"""
Record the metrics of one model version; its labels are bound once, since each request updates them.
"""

from __future__ import annotations

from collections.abc import Sequence

from prometheus_client import CollectorRegistry

from twisted_serve.metrics.families import CounterFamily, HistogramFamily
from twisted_serve.metrics.observer import PoolObserver
from twisted_serve.metrics.timing import Timing
from twisted_serve.metrics.torchserve.emitter import Emitter

# Bucket bounds in seconds, from the latency of a small model on a CPU to that of a large one.
SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)

# In a second. TorchServe counts in nanoseconds, and shows a thousandth: there are no more decimals than three.
_NANOSECONDS = 1e9

_LABELS = ("model_name", "model_version")


class VersionFamilies:
    """
    The metric families that have series for each model version.

    :ivar of_versions: The families with exactly one series for each version, created with it.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        def seconds(name: str, text: str) -> HistogramFamily:
            return HistogramFamily(registry, name, text, _LABELS, SECONDS)

        def counter(name: str, text: str, *more: str) -> CounterFamily:
            return CounterFamily(registry, name, text, (*_LABELS, *more))

        self.latency = seconds("ts_request_latency_seconds", "Seconds from a whole request to its whole answer.")
        self.queue_time = seconds("ts_queue_time_seconds", "Seconds that a request waited for a worker.")
        self.worker_time = seconds("ts_worker_time_seconds", "Seconds that a worker took for a batch.")
        self.batch_size = HistogramFamily(
            registry, "ts_batch_size", "Requests sent to a worker at once.", _LABELS, SIZES
        )
        self.failures = counter("ts_prediction_failures", "Predictions which failed, by status code.", "status")
        self.refused = counter("ts_requests_refused", "Requests which no worker has seen, by reason.", "reason")
        self.deaths = counter("ts_worker_deaths", "Workers which were lost.")
        self.restarts = counter("ts_worker_restarts", "Workers started in the place of lost ones.")
        self.of_versions = (
            self.latency,
            self.queue_time,
            self.worker_time,
            self.batch_size,
            self.deaths,
            self.restarts,
        )


class VersionMetrics(PoolObserver):
    """
    The metrics of one model version.

    :param emitter: Emits TorchServe's metrics.
    """

    def __init__(self, families: VersionFamilies, emitter: Emitter, hostname: str, name: str, version: str) -> None:
        self._families = families
        self._emitter = emitter
        self._hostname = hostname
        self._name, self._version = name, version
        self._latency = families.latency.labels(name, version).observe
        self._queue_time = families.queue_time.labels(name, version).observe
        self._worker_time = families.worker_time.labels(name, version).observe
        self._batch_size = families.batch_size.labels(name, version).observe
        self._deaths = families.deaths.labels(name, version).inc
        self._restarts = families.restarts.labels(name, version).inc
        self._shown: set[tuple[CounterFamily | HistogramFamily, tuple[str, ...]]] = {
            (family, (name, version)) for family in families.of_versions
        }
        self._last_queue_time = emitter.bind("QueueTime", "Host", hostname)
        self._overhead = emitter.bind("WorkerThreadTime", "Host", hostname)
        self._sent_overhead = 0.0
        # Of requests that name no version, and of those that do.
        labels = ((name, "default", hostname), (name, version, hostname))
        self._latency_sums = [emitter.bind("ts_inference_latency_microseconds", *each) for each in labels]
        self._queue_sums = [emitter.bind("ts_queue_latency_microseconds", *each) for each in labels]

    def batch_sent(self, batch: Sequence[Timing], overhead: float, going: int = 0) -> None:
        """See `PoolObserver`."""
        self._batch_size(len(batch) + going)
        observe, show, sums = self._queue_time, self._last_queue_time, self._queue_sums
        for timing in batch:
            queued, sent = timing.queued, timing.sent
            waited = 0.0 if queued is None or sent is None else sent - queued
            observe(waited)
            show(int(waited * 1000))
            sums[timing.versioned](round(waited * _NANOSECONDS) / 1000)
        self._sent_overhead = overhead

    def batch_answered(self, batch: Sequence[Timing], overhead: float) -> None:
        """See `PoolObserver`."""
        self._worker_time(batch[0].worked or 0.0)
        self._overhead(int((self._sent_overhead + overhead) * 1000))
        observe, sums = self._latency, self._latency_sums
        for timing in batch:
            elapsed = (timing.answered or 0.0) - timing.received
            observe(elapsed)
            sums[timing.versioned](round(elapsed * _NANOSECONDS) / 1000)

    def failed(self, status: int) -> None:
        """See `PoolObserver`."""
        self._count(self._families.failures, str(status))

    def refused(self, reason: str) -> None:
        """See `PoolObserver`."""
        self._count(self._families.refused, reason)

    def worker_loaded(self, name: str, seconds: float) -> None:
        """See `PoolObserver`."""
        self._emitter.bind("WorkerLoadTime", name, "Host", self._hostname)(int(seconds * 1000))

    def worker_died(self) -> None:
        """See `PoolObserver`."""
        self._deaths()

    def worker_restarted(self) -> None:
        """See `PoolObserver`."""
        self._restarts()

    def retired(self) -> None:
        """See `PoolObserver`."""
        shown, self._shown = self._shown, set()
        for family, labels in shown:
            family.remove(*labels)

    def _count(self, family: CounterFamily, word: str) -> None:
        labels = (self._name, self._version, word)
        self._shown.add((family, labels))
        family.labels(*labels).inc()
