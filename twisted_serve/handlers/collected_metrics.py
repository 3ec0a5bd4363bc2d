# SPDX-License-Identifier: Apache-2.0
"""
Collect metrics and emit them together, as TorchServe's older API does.

``MockContext`` uses this store, so that a test can inspect the metrics of a handler.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from twisted_serve.handlers.metrics import Dimension, Index, MetricTypes, Units, request_ids_of
from twisted_serve.wire.metric_lines import METRIC_MARK, metric_line

__all__ = ["PREDICTION_METRIC", "Metric", "MetricsStore", "emit_metrics"]

#: The name of the metric for the handler's time per batch.
PREDICTION_METRIC = "PredictionTime"


class Metric:
    """
    A metric with its current value.

    :ivar metric_method: ``"counter"`` for a counter, whose updates are added; ``None`` for a gauge.
    """

    def __init__(
        self,
        name: str,
        value: Any,
        unit: str,
        dimensions: Sequence[Dimension],
        request_id: str | None = None,
        metric_method: str | None = None,
    ) -> None:
        self.name = name
        self.unit = unit
        self.dimensions = list(dimensions)
        self.metric_method = metric_method
        self.value = value
        self.request_id = request_id

    def reset(self) -> None:
        """Set the value to 0."""
        self.value = 0

    def update(self, value: Any) -> None:
        """Add ``value`` to a counter, or replace the value of a gauge."""
        self.value = self.value + value if self.metric_method == "counter" else value

    def to_dict(self) -> dict[str, Any]:
        """Return a dictionary that can be serialized as JSON; ``Timestamp`` is in seconds since the epoch."""
        return {
            "MetricName": self.name,
            "Value": self.value,
            "Unit": self.unit,
            "Dimensions": [{"Name": each.name, "Value": each.value} for each in self.dimensions],
            "Timestamp": int(time.time()),
            "HostName": socket.gethostname(),
            "RequestId": self.request_id,
        }

    def __str__(self) -> str:
        """Return the log line that the server parses."""
        return metric_line(
            self.name,
            Units.spell_out.get(self.unit, self.unit),
            self.value,
            ",".join(map(str, self.dimensions)),
            (MetricTypes.COUNTER if self.metric_method == "counter" else MetricTypes.GAUGE).name,
            socket.gethostname(),
            int(time.time()),
            self.request_id,
        )


class MetricsStore:
    """
    The metrics of one batch.

    :ivar store: The metrics, in the order of their first values.
    :ivar cache: The same metrics, by name, unit, labels and request id.
    """

    def __init__(self, request_ids: Mapping[int, str] | None, model_name: str) -> None:
        self.store: list[Metric] = []
        self.request_ids = request_ids
        self.model_name = model_name
        self.cache: dict[str, Metric] = {}

    def set_request_ids(self, request_ids: Mapping[int, str] | None) -> None:
        """Set the request ids of the current batch, by position."""
        self.request_ids = request_ids

    def add_counter(self, name: str, value: int, idx: Index = None, dimensions: Sequence[Dimension] = ()) -> None:
        """Add ``value`` to a counter."""
        self._add(name, value, self._request_id(idx), "count", dimensions, "counter")

    def add_time(
        self,
        name: str,
        value: float,
        idx: Index = None,
        unit: str = "ms",
        dimensions: Sequence[Dimension] = (),
    ) -> None:
        """
        Record a duration.

        :raise ValueError: if ``unit`` is neither ``ms`` nor ``s``.
        """
        self._add_checked(name, value, idx, unit, ("ms", "s"), dimensions)

    def add_size(
        self,
        name: str,
        value: float,
        idx: Index = None,
        unit: str = "MB",
        dimensions: Sequence[Dimension] = (),
    ) -> None:
        """
        Record a size.

        :raise ValueError: if ``unit`` is none of ``MB``, ``kB``, ``GB``, ``B``.
        """
        self._add_checked(name, value, idx, unit, ("MB", "kB", "GB", "B"), dimensions)

    def add_percent(self, name: str, value: float, idx: Index = None, dimensions: Sequence[Dimension] = ()) -> None:
        """Record a percentage."""
        self._add(name, value, self._request_id(idx), "percent", dimensions)

    def add_error(self, name: str, value: Any, dimensions: Sequence[Dimension] = ()) -> None:
        """Record an error, without a request id."""
        self._add(name, value, None, "", [*dimensions, Dimension("Level", "Error")])

    def add_metric(
        self,
        name: str,
        value: Any,
        unit: str = "",
        idx: Index = None,
        dimensions: Sequence[Dimension] = (),
    ) -> None:
        """Record a value of any unit."""
        self._add(name, value, self._request_id(idx), unit, dimensions)

    def _add_checked(
        self, name: str, value: Any, idx: Index, unit: str, allowed: Sequence[str], dimensions: Sequence[Dimension]
    ) -> None:
        if unit not in allowed:
            raise ValueError(f"the unit of {name} must be one of {', '.join(allowed)}, not {unit!r}")
        self._add(name, value, self._request_id(idx), unit, dimensions)

    def _add(
        self,
        name: str,
        value: Any,
        request_id: str | None,
        unit: str,
        dimensions: Sequence[Dimension],
        method: str | None = None,
    ) -> None:
        names = {each.name for each in dimensions}
        own = [Dimension("ModelName", self.model_name), Dimension("Level", "Model")]
        labels = [*dimensions, *(each for each in own if each.name not in names)]
        key = f"[{name}]-[{unit}]-[{':'.join(map(str, labels))}]-[{request_id}]"
        if key in self.cache:
            self.cache[key].update(value)
            return
        metric = self.cache[key] = Metric(name, value, unit, labels, request_id, method)
        self.store.append(metric)

    def _request_id(self, idx: Index) -> str | None:
        return request_ids_of(self.request_ids, idx) if self.request_ids else None


def emit_metrics(metrics: Iterable[Metric] | None) -> None:
    """Print metrics to stdout, where the server parses them; ``None`` prints nothing."""
    for each in metrics or ():
        print(f"{METRIC_MARK}{each}", flush=True)  # noqa: T201
