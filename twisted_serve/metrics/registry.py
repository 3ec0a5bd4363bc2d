# SPDX-License-Identifier: Apache-2.0
"""
Hold the metrics of one server, in a Prometheus registry of that server.

Our own metrics are exported in every mode; TorchServe's are exported or logged, depending on the mode (`Emitter`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from platform import python_version

from prometheus_client import CollectorRegistry, Gauge, ProcessCollector

import twisted_serve
from twisted_serve.metrics.families import CounterFamily, CounterValue
from twisted_serve.metrics.key_requests import KeyRequests
from twisted_serve.metrics.model_metrics import VersionFamilies, VersionMetrics
from twisted_serve.metrics.pools import PoolCollector, ReadPools
from twisted_serve.metrics.torchserve.definitions import MetricCatalogue
from twisted_serve.metrics.torchserve.emitter import Emitter, Sinks
from twisted_serve.metrics.torchserve.lines import Series
from twisted_serve.metrics.torchserve.recorders import Record, ignore
from twisted_serve.metrics.torchserve.text import CONTENT_TYPE, render_text
from twisted_serve.wire.messages import Reading

__all__ = ["CONTENT_TYPE", "ServerMetrics"]

# The approximate size in bytes of the metrics of a model version.
_SIZE_OF_VERSION = 7000

_NO_METRICS = MetricCatalogue({}, {})


class ServerMetrics:
    """
    The metrics of one server.

    :ivar emitter: Emits TorchServe's metrics.
    :ivar keys: Counts the requests of named keys.
    :ivar catalogue: The definitions of TorchServe's metrics.
    :param hostname: The value of the ``hostname`` label.
    :param mode: The mode of TorchServe's metrics: ``log``, ``prometheus`` or ``legacy``.
    :param auto_detect: Whether to accept metrics of handlers that are not in the catalogue.
    :param server_log: Writes a line of ``TS_METRICS``, with the current time.
    :param model_log: Writes a line of ``MODEL_METRICS``.
    :raise ConfigError: for an exported metric with a name that Prometheus does not support.
    """

    def __init__(
        self,
        hostname: str,
        catalogue: MetricCatalogue = _NO_METRICS,
        mode: str = "log",
        *,
        auto_detect: bool = False,
        server_log: Callable[[Series, float], object] = lambda series, value: None,
        model_log: Callable[[Series, Reading], object] = lambda series, reading: None,
    ) -> None:
        self.catalogue = catalogue
        self._hostname = hostname
        self._pools: PoolCollector | None = None
        self._size = 0
        self._registry = registry = CollectorRegistry()
        answers = CounterFamily(registry, "ts_answers", "HTTP answers by class of status code.", ["code_class"])
        self._calls = CounterFamily(registry, "ts_grpc_calls", "gRPC calls by status.", ["method", "code"])
        self._inference = CounterFamily(
            registry,
            "ts_inference_requests",
            "Torchserve prometheus counter metric with unit: Count",
            ["model_name", "model_version", "hostname"],
        )
        self._refused = CounterFamily(
            registry, "ts_token_refused", "Requests refused for their token.", ["kind", "reason"]
        )
        self._rotations = CounterFamily(registry, "ts_token_rotations", "Tokens which were replaced.", ["kind"])
        self.keys = KeyRequests(registry)
        self._seconds_left = Gauge(
            "ts_token_seconds_left", "Seconds until a token expires.", ["kind"], registry=registry
        )
        build = Gauge("ts_build_info", "What is running.", ["version", "compatible_with", "python"], registry=registry)
        build.labels(twisted_serve.__version__, twisted_serve.COMPATIBLE_WITH, python_version()).set(1)
        ProcessCollector(registry=registry)
        self._families = VersionFamilies(registry)
        self.emitter = Emitter(catalogue, mode, Sinks(registry, server_log, model_log), auto_detect)
        # TorchServe counts every other class as 5XX; but a redirect is not an error.
        shown = {n: self.emitter.bind(f"Requests{n}XX", "Host", hostname) for n in (2, 4, 5)}
        self._answers = [(answers.labels(f"{n}xx"), shown.get(n, ignore)) for n in range(1, 6)]
        self._requested: dict[tuple[str, str], tuple[CounterValue, Record]] = {}

    def answered(self, status: int) -> None:
        """Count an HTTP response."""
        counter, record = self._answers[min(max(status // 100, 1), 5) - 1]
        counter.number += 1
        record(1)

    def call_ended(self, method: str, code: str) -> None:
        """
        Count a gRPC call.

        :param method: ``/package.Service/Method``; the same text for all calls of unknown methods.
        :param code: The name of its status code.
        """
        self._calls.labels(method, code).inc()

    def inference_requested(self, model_name: str, model_version: str) -> None:
        """Count a prediction request; the version is ``default`` when the request names none."""
        bound = self._requested.get((model_name, model_version))
        if bound is None:
            labels = (model_name, model_version, self._hostname)
            bound = self._inference.labels(*labels), self.emitter.bind("ts_inference_requests_total", *labels)
            self._requested[model_name, model_version] = bound
        count, record = bound
        count.number += 1
        record(1)

    def version(self, name: str, version: str) -> VersionMetrics:
        """Create the metrics of a model version, which are exported until the version is retired."""
        return VersionMetrics(self._families, self.emitter, self._hostname, name, version)

    def token_refused(self, kind: str, reason: str) -> None:
        """Count a request that was refused for its token."""
        self._refused.labels(kind, reason).inc()

    def token_rotated(self, kind: str) -> None:
        """Count a rotation of a token."""
        self._rotations.labels(kind).inc()

    def watch_tokens(self, seconds_left: Mapping[str, Callable[[], float]]) -> None:
        """Register functions that return the seconds left of each kind of token, called at each scrape."""
        for kind, read in seconds_left.items():
            self._seconds_left.labels(kind).set_function(read)

    def watch_pools(self, read: ReadPools) -> None:
        """Register a function that reads queues and workers, called at each scrape."""
        self._pools = PoolCollector(read)
        self._registry.register(self._pools)

    def render(self, names: Collection[str] = ()) -> bytes:
        """Render the metrics in Prometheus' text format: all, or only those named."""
        self.read()
        return self.render_in_thread(names)

    def read(self) -> int:
        """Read the state that only the reactor's thread may read; return the approximate number of bytes to render."""
        versions = 0 if self._pools is None else self._pools.take()
        return max(self._size, versions * _SIZE_OF_VERSION)

    def render_in_thread(self, names: Collection[str] = ()) -> bytes:
        """Render the metrics like `render`, from the state last read by `read`; safe in any thread."""
        text = render_text(self._registry.collect(), self.emitter.counters, names)
        if not names:
            self._size = len(text)
        return text
