# SPDX-License-Identifier: Apache-2.0
"""
Emit TorchServe's metrics in its three modes (``docs/torchserve/config_cli.md`` §10.6).

``log``         all metrics are log lines
``prometheus``  all metrics are exported on ``/metrics``
``legacy``      three metrics are exported, all others are log lines
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from attrs import frozen
from msgspec.structs import astuple
from prometheus_client import CollectorRegistry
from twisted.logger import Logger

from twisted_serve.config.values import ConfigError
from twisted_serve.metrics.torchserve.definitions import Definition, Kind, MetricCatalogue
from twisted_serve.metrics.torchserve.lines import Series, parse_line, split_labels
from twisted_serve.metrics.torchserve.recorders import (
    LogRecorder,
    NoRecorder,
    PrometheusRecorder,
    Record,
    Recorder,
    series_of,
)
from twisted_serve.wire.messages import Reading
from twisted_serve.wire.metric_lines import METRIC_MARK, metric_line

_log = Logger("twisted_serve.metrics")

#: The metrics that ``legacy`` exports on ``/metrics``.
LEGACY = frozenset(
    {"ts_inference_requests_total", "ts_inference_latency_microseconds", "ts_queue_latency_microseconds"}
)

#: Exported in every mode, by the server's own registry.
ALWAYS_SHOWN = "ts_inference_requests_total"

# Handlers choose names and labels; a handler that uses user ids as labels must not exhaust the memory.
MOST_SERIES = 10_000
# The maximal number of different problems with workers' metrics that are logged.
MAX_WARNINGS = 100
# The maximal number of values accepted with one response; a worker of ours sends fewer.
MOST_AT_ONCE = 1000
# The maximal length of one such value in characters, as for a line.
LONGEST_TEXT = 16 * 1024


@frozen
class Sinks:
    """
    The destinations of metrics.

    :ivar registry: Prometheus' registry, for exported metrics.
    :ivar server_log: Writes a line of ``TS_METRICS``, with the current time.
    :ivar model_log: Writes a line of ``MODEL_METRICS``.
    """

    registry: CollectorRegistry
    server_log: Callable[[Series, float], object]
    model_log: Callable[[Series, Reading], object]


@frozen(eq=False)
class _Model:
    """
    A metric of handlers.

    :ivar recorder: The recorder of an exported metric; ``None`` for a logged one.
    """

    definition: Definition
    recorder: Recorder | None


class Emitter:
    """
    TorchServe's metrics of one server.

    :ivar counters: The names of counters on ``/metrics``, by the name of their family.
    :param auto_detect: Whether to accept metrics of handlers that are not in the catalogue.
    :raise ConfigError: for an exported metric with a name that Prometheus does not support.
    """

    def __init__(self, catalogue: MetricCatalogue, mode: str, sinks: Sinks, auto_detect: bool = False) -> None:
        self.counters: dict[str, str] = {}
        self._mode = mode
        self._sinks = sinks
        self._auto_detect = auto_detect
        self._warned: set[str] = set()
        # By the text a worker sends, so that a value costs one lookup. A series is recorded by Prometheus, or logged.
        self._series: dict[tuple[str, ...], Record | Series] = {}
        try:
            self._server = {name: self._server_recorder(each) for name, each in catalogue.server.items()}
            self._models = {name: self._model(each) for name, each in catalogue.models.items()}
        except ValueError as e:
            raise ConfigError(str(e), "metrics_config") from e

    def bind(self, name: str, *values: str) -> Record:
        """Return a function that records values of a server metric, or does nothing if the catalogue lacks it."""
        return self._server.get(name, NoRecorder()).bind(*values)

    def receive(self, line: str) -> None:
        """Record a metric from a line of worker output; an invalid line is logged once."""
        try:
            self._record(parse_line(line))
        except ValueError as e:
            self._warn("Parse metrics failed: {line}: {error}", line[:200], line=line[:200], error=e)

    def take(self, readings: Sequence[Reading]) -> None:
        """Record the metrics of a worker's response, with the same effect as if they had been lines of output."""
        plain = ""
        for each in readings[:MOST_AT_ONCE]:
            # The values of a response mostly have the same ids, which are looked at once.
            ids = each.request_ids
            if ids != plain and ids.isprintable() and len(ids) <= LONGEST_TEXT:
                plain = ids
            if ids != plain or not self._add_to_known(each):
                self.receive(f"{METRIC_MARK}{metric_line(*astuple(each))}"[:LONGEST_TEXT])
        if len(readings) > MOST_AT_ONCE:
            self._warn(
                "More than {most} metrics came with an answer; the others are dropped", "at once", most=MOST_AT_ONCE
            )

    def _add_to_known(self, reading: Reading) -> bool:
        """Add a value to a known series; return whether that succeeded."""
        series = self._series.get(_key(reading))
        if series is None or reading.time < 0:
            return False
        if isinstance(series, Series):
            self._sinks.model_log(series, reading)
            return True
        try:
            series(reading.value)
        except ValueError:
            return False
        return True

    def _record(self, reading: Reading) -> None:
        key = _key(reading)
        series = self._series.get(key)
        if series is None:
            series = self._new_series(reading)
            if series is None:
                return
            if len(self._series) < MOST_SERIES:
                self._series[key] = series
        self._add(series, reading)

    def _add(self, series: Record | Series, reading: Reading) -> None:
        if isinstance(series, Series):
            self._sinks.model_log(series, reading)
        else:
            series(reading.value)

    def _new_series(self, reading: Reading) -> Record | Series | None:
        model = self._models.get(reading.name) or self._detect(reading)
        if model is None:
            self._warn(
                "Metric {name} of a handler is not in metrics_config, and is dropped (model_metrics_auto_detect=true "
                "lets it in)",
                reading.name,
                name=reading.name,
            )
            return None
        labels = split_labels(reading.labels)
        names = model.definition.dimensions
        if len(labels) + 1 != len(names):
            raise ValueError(f"{reading.name} has the labels {', '.join(names[:-1])} in metrics_config")
        if model.recorder is None:
            shown = [(name, value) for name, (_said, value) in zip(names, labels, strict=False)]
            return Series(reading.name, model.definition.unit, shown, reading.host)
        if len(self._series) >= MOST_SERIES:
            self._warn("There are {most} series of handlers' metrics; new ones are dropped", "most", most=MOST_SERIES)
            return None
        return model.recorder.bind(*series_of(labels, reading.host))

    def _detect(self, reading: Reading) -> _Model | None:
        if not self._auto_detect or len(self._models) >= MOST_SERIES:
            return None
        names = tuple(name for name, _value in split_labels(reading.labels))
        definition = Definition(reading.name, Kind[reading.kind], reading.unit, (*names, "Hostname"))
        found = self._models[reading.name] = self._model(definition)
        return found

    def _server_recorder(self, definition: Definition) -> Recorder:
        if self._mode == "prometheus" or (self._mode == "legacy" and definition.name in LEGACY):
            if definition.name == ALWAYS_SHOWN:
                return NoRecorder()
            return self._shown(definition)
        return LogRecorder(definition, self._sinks.server_log)

    def _model(self, definition: Definition) -> _Model:
        return _Model(definition, self._shown(definition) if self._mode == "prometheus" else None)

    def _shown(self, definition: Definition) -> Recorder:
        recorder = PrometheusRecorder(definition, self._sinks.registry)
        self.counters[definition.name.removesuffix("_total")] = definition.name
        return recorder

    def _warn(self, text: str, what: str, **about: object) -> None:
        if what not in self._warned and len(self._warned) < MAX_WARNINGS:
            self._warned.add(what)
            _log.warn(text, **about)


def _key(reading: Reading) -> tuple[str, ...]:
    """Return the parts of a reading that identify its series."""
    return reading.name, reading.unit, reading.labels, reading.kind, reading.host
