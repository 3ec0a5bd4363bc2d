# SPDX-License-Identifier: Apache-2.0
"""
This module implements the metrics of one server, on a Prometheus registry which belongs to it.

Its own are shown in every mode; the predecessor's go where the mode says (`Emitter`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from platform import python_version

from prometheus_client import CollectorRegistry, Gauge, ProcessCollector

import twisted_serve
from twisted_serve.metrics.catalogue import MetricCatalogue
from twisted_serve.metrics.emitter import Emitter, Sinks, WriteLine
from twisted_serve.metrics.pools import PoolCollector, ReadPools
from twisted_serve.metrics.recorders import Record, ignore
from twisted_serve.metrics.tallies import Counts
from twisted_serve.metrics.text import CONTENT_TYPE, render_text
from twisted_serve.metrics.version import VersionFamilies, VersionMetrics

__all__ = ["CONTENT_TYPE", "ServerMetrics"]

# The bytes that the metrics of a model version have, about.
_SIZE_OF_VERSION = 7000

_NO_METRICS = MetricCatalogue({}, {})


class ServerMetrics:
    """
    The metrics of one server.

    :ivar emitter: The predecessor's.
    :ivar catalogue: Which of them there are.
    :param hostname: The value of the ``hostname`` label.
    :param mode: Where the predecessor's metrics go: ``log``, ``prometheus`` or ``legacy``.
    :param server_log: Takes lines of ``TS_METRICS``.
    :param model_log: Takes lines of ``MODEL_METRICS``.
    :param epoch: The seconds since the epoch, for these lines.
    :raise ConfigError: for a catalogue that cannot be shown to Prometheus.
    """

    def __init__(
        self,
        hostname: str,
        catalogue: MetricCatalogue = _NO_METRICS,
        mode: str = "log",
        *,
        auto_detect: bool = False,
        server_log: WriteLine = lambda line: None,
        model_log: WriteLine = lambda line: None,
        epoch: Callable[[], int] = lambda: 0,
    ) -> None:
        self.catalogue = catalogue
        self._hostname = hostname
        self._pools: PoolCollector | None = None
        self._size = 0
        self._registry = registry = CollectorRegistry()
        answers = Counts(registry, "ts_answers", "HTTP answers by class of status code.", ["code_class"])
        self._inference = Counts(
            registry,
            "ts_inference_requests",
            "Torchserve prometheus counter metric with unit: Count",
            ["model_name", "model_version", "hostname"],
        )
        self._refused = Counts(registry, "ts_token_refused", "Requests refused for their token.", ["kind", "reason"])
        self._rotations = Counts(registry, "ts_token_rotations", "Tokens which were replaced.", ["kind"])
        self._seconds_left = Gauge(
            "ts_token_seconds_left", "Seconds until a token expires.", ["kind"], registry=registry
        )
        build = Gauge("ts_build_info", "What is running.", ["version", "compatible_with", "python"], registry=registry)
        build.labels(twisted_serve.__version__, twisted_serve.COMPATIBLE_WITH, python_version()).set(1)
        ProcessCollector(registry=registry)
        self._families = VersionFamilies(registry)
        self.emitter = Emitter(catalogue, mode, Sinks(registry, server_log, model_log, epoch), auto_detect)
        self._answer_classes = {n: answers.labels(f"{n}xx").inc for n in range(1, 6)}
        # The predecessor counted everything else as 5XX; a redirect is no error.
        self._answer_counters = {n: self.emitter.bind(f"Requests{n}XX", "Host", hostname) for n in (2, 4, 5)}
        self._requested: dict[tuple[str, str], tuple[Callable[[], None], Record]] = {}

    def answered(self, status: int) -> None:
        """Count an HTTP answer."""
        first = min(max(status // 100, 1), 5)
        self._answer_classes[first]()
        self._answer_counters.get(first, ignore)(1)

    def inference_requested(self, model_name: str, model_version: str) -> None:
        """Count a prediction request; the version is ``default`` when the request names none."""
        bound = self._requested.get((model_name, model_version))
        if bound is None:
            labels = (model_name, model_version, self._hostname)
            bound = self._inference.labels(*labels).inc, self.emitter.bind("ts_inference_requests_total", *labels)
            self._requested[model_name, model_version] = bound
        count, record = bound
        count()
        record(1)

    def version(self, name: str, version: str) -> VersionMetrics:
        """Make the metrics of a model version; they are shown until it is retired."""
        return VersionMetrics(self._families, self.emitter, self._hostname, name, version)

    def token_refused(self, kind: str, reason: str) -> None:
        """Count a request which was refused."""
        self._refused.labels(kind, reason).inc()

    def token_rotated(self, kind: str) -> None:
        """Count a token which was replaced."""
        self._rotations.labels(kind).inc()

    def watch_tokens(self, seconds_left: Mapping[str, Callable[[], float]]) -> None:
        """Have the seconds left of each kind of token read at each scrape."""
        for kind, read in seconds_left.items():
            self._seconds_left.labels(kind).set_function(read)

    def watch_pools(self, read: ReadPools) -> None:
        """Have queues and workers read at each scrape."""
        self._pools = PoolCollector(read)
        self._registry.register(self._pools)

    def render(self, names: Collection[str] = ()) -> bytes:
        """Write the metrics in Prometheus' text format, only those named if any are."""
        self.read()
        return self.render_in_thread(names)

    def read(self) -> int:
        """Read what only the reactor's thread may read, and return about how many bytes all metrics have."""
        versions = 0 if self._pools is None else self._pools.take()
        return max(self._size, versions * _SIZE_OF_VERSION)

    def render_in_thread(self, names: Collection[str] = ()) -> bytes:
        """Write the metrics as `render` does, with what `read` has read; any thread may do this."""
        text = render_text(self._registry.collect(), self.emitter.counters, names)
        if not names:
            self._size = len(text)
        return text
