# SPDX-License-Identifier: Apache-2.0
"""
This module implements what is shown of queues and workers: read when somebody asks, so that no request pays for it.
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

    :ivar waiting: Requests that wait for a worker.
    :ivar room: How many more may.
    :ivar running: Requests that are at workers.
    :ivar workers: How many workers there are in each state; all states are there.
    :ivar busy: How many workers have a batch.
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
    Shows readings to Prometheus: those that were taken last, since metrics may be written in a thread.

    :param read: Reads pools, which only the reactor's thread may do.
    """

    def __init__(self, read: ReadPools) -> None:
        self._read = read
        self._readings: Iterable[PoolReading] = ()

    def take(self) -> int:
        """Take readings, and return of how many pools."""
        self._readings = readings = tuple(self._read())
        return len(readings)

    def describe(self) -> Iterable[Metric]:
        """Describe what there is, without asking anybody."""
        return self._families(())

    def collect(self) -> Iterable[Metric]:
        """Show everything."""
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
