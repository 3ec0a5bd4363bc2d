# SPDX-License-Identifier: Apache-2.0
"""
Record the values of one metric, in the log or in Prometheus' registry.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol, TypeAlias

from prometheus_client import CollectorRegistry, Histogram

from twisted_serve.metrics.families import CounterFamily, GaugeFamily
from twisted_serve.metrics.torchserve.definitions import Definition, Kind
from twisted_serve.metrics.torchserve.lines import Series

#: Records a value of one metric with fixed labels.
Record: TypeAlias = Callable[[float], object]

# TorchServe's, regardless of the unit.
DEFAULT_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)

# Stricter than prometheus-client, which accepts names that some scrapers reject.
_METRIC_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_LABEL_NAME = re.compile(r"(?!__)[a-zA-Z_][a-zA-Z0-9_]*")

# Labels that histograms and summaries use themselves.
_RESERVED_LABELS = frozenset({"le", "quantile"})


class Recorder(Protocol):
    """Record the values of one metric."""

    def bind(self, *values: str) -> Record:
        """Return a function that records values with these labels; keep it, because creating it is the costly part."""


def ignore(value: float) -> None:
    """Record nothing."""


class NoRecorder:
    """Discard the values of a metric that is not in the catalogue."""

    def bind(self, *values: str) -> Record:
        """See `Recorder`."""
        return ignore


class LogRecorder:
    """
    Write a log line for each value.

    :param write: Writes the line of a value, with the current time.
    """

    def __init__(self, definition: Definition, write: Callable[[Series, float], object]) -> None:
        self._definition = definition
        self._write = write

    def bind(self, *values: str) -> Record:
        """See `Recorder`."""
        *labels, host = zip(self._definition.dimensions, values, strict=True)
        return partial(self._write, Series(self._definition.name, self._definition.unit, labels, host[1]))


class PrometheusRecorder:
    """
    Record values in Prometheus' registry, one series for each set of labels.

    :raise ValueError: for a name that Prometheus does not support, or that is already registered.
    """

    def __init__(self, definition: Definition, registry: CollectorRegistry) -> None:
        check_names(definition)
        name, labels = definition.name, definition.dimensions
        help_text = f"Torchserve prometheus {definition.kind.value} metric with unit: {definition.unit}"
        self._bind: Callable[..., Record]
        if definition.kind is Kind.COUNTER:
            counters = CounterFamily(registry, name, help_text, labels)
            self._bind = lambda *values: counters.labels(*values).inc
        elif definition.kind is Kind.GAUGE:
            gauges = GaugeFamily(registry, name, help_text, labels)
            self._bind = lambda *values: gauges.labels(*values).set
        else:
            # Not one of the server's own metrics is one.
            histogram = Histogram(
                name, help_text, labels, registry=registry, buckets=definition.buckets or DEFAULT_BUCKETS
            )
            self._bind = lambda *values: (histogram.labels(*values) if values else histogram).observe
        if not labels:
            # Shown from the first scrape.
            self._bind()

    def bind(self, *values: str) -> Record:
        """See `Recorder`."""
        return self._bind(*values)


def check_names(definition: Definition) -> None:
    """
    Check that Prometheus supports the names of a metric and its labels.

    :raise ValueError: with the name that Prometheus does not support.
    """
    if not _METRIC_NAME.fullmatch(definition.name):
        raise ValueError(f"{definition.name!r} is no name of a metric in Prometheus: letters, digits, _ and : only")
    for label in definition.dimensions:
        if not _LABEL_NAME.fullmatch(label) or label in _RESERVED_LABELS:
            raise ValueError(f"{label!r}, of {definition.name}, is no name of a label in Prometheus")


def series_of(labels: Sequence[tuple[str, str]], host: str) -> tuple[str, ...]:
    """Return the values of a worker's labels, in the metric's order (``docs/torchserve/config_cli.md`` §10.4)."""
    return (*(value for _name, value in labels), host)
