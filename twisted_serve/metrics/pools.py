# SPDX-License-Identifier: Apache-2.0
"""
Export the state of queues and workers, read at each scrape so that requests do not pay for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

from attrs import frozen
from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

_LABELS = ("model_name", "model_version")


@frozen
class PoolReading:
    """
    The queue and the workers of a model version at one moment.

    :ivar waiting: The number of queued requests.
    :ivar room: The number of requests that can be queued in addition.
    :ivar running: The number of requests in flight at workers.
    :ivar workers: The number of workers by state, with all states present.
    :ivar busy: The number of workers that have a batch.
    """

    name: str
    version: str
    waiting: int
    room: int
    running: int
    workers: Mapping[str, int]
    busy: int


ReadPools = Callable[[], Iterable[PoolReading]]


class PoolCollector(Collector):
    """
    Export the latest readings to Prometheus.

    They are taken beforehand because metrics may be rendered in another thread.

    :param read: Reads the pools; must be called in the reactor's thread.
    """

    def __init__(self, read: ReadPools) -> None:
        self._read = read
        self._readings: Iterable[PoolReading] = ()

    def take(self) -> int:
        """Read all pools, and return their number."""
        self._readings = readings = tuple(self._read())
        return len(readings)

    def describe(self) -> Iterable[Metric]:
        """Describe the metrics without reading the pools."""
        return self._families(())

    def collect(self) -> Iterable[Metric]:
        """Return the metrics of the latest readings."""
        return self._families(self._readings)

    def _families(self, readings: Iterable[PoolReading]) -> Iterator[Metric]:
        readings = tuple(readings)
        single: tuple[tuple[str, str, Callable[[PoolReading], int]], ...] = (
            ("ts_queue_depth", "Requests which wait for a worker.", lambda reading: reading.waiting),
            ("ts_queue_room", "Requests which may wait besides.", lambda reading: reading.room),
            ("ts_requests_running", "Requests which are at workers.", lambda reading: reading.running),
            ("ts_workers_busy", "Workers which have a batch.", lambda reading: reading.busy),
            (
                "ts_workers_idle",
                "Workers which wait for a batch.",
                lambda reading: max(0, reading.workers.get("ready", 0) - reading.busy),
            ),
        )
        for name, text, value in single:
            family = GaugeMetricFamily(name, text, labels=_LABELS)
            for reading in readings:
                family.add_metric((reading.name, reading.version), value(reading))
            yield family
        workers = GaugeMetricFamily("ts_workers", "Workers, by state.", labels=(*_LABELS, "state"))
        for reading in readings:
            for state, number in reading.workers.items():
                workers.add_metric((reading.name, reading.version, state), number)
        yield workers
