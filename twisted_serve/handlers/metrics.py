# SPDX-License-Identifier: Apache-2.0
"""
Emit metrics from handlers: ``context.metrics``.

Names, units and errors are TorchServe's (``docs/torchserve/archives_workers_handlers.md``
§7.14). Each value is sent with the response to its batch, or printed as a line on
stdout; the worker does not aggregate values.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextvars import ContextVar
from enum import Enum
from functools import lru_cache
from numbers import Real
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from attrs import define, field, frozen

from twisted_serve.wire.metric_lines import METRIC_MARK, metric_line

if TYPE_CHECKING:
    from twisted_serve.wire.messages import MetricDefinition

__all__ = [
    "CachingMetric",
    "Dimension",
    "GeneralMetricsCacheError",
    "MetricTypes",
    "MetricsCacheIOError",
    "MetricsCacheKeyError",
    "MetricsCachePyYamlError",
    "MetricsCacheTypeError",
    "MetricsCacheValueError",
    "MetricsCacheYamlImpl",
    "Units",
    "keeper",
    "print_metrics",
]

_log = logging.getLogger(__name__)

_UNITS = {
    "ms": "Milliseconds",
    "s": "Seconds",
    "percent": "Percent",
    "count": "Count",
    "MB": "Megabytes",
    "GB": "Gigabytes",
    "kB": "Kilobytes",
    "B": "Bytes",
    "": "unit",
}

Value: TypeAlias = "int | float"
RequestIds: TypeAlias = "str | Mapping[int, str]"
#: A position in the batch; any other value stands for the whole batch.
Index: TypeAlias = "int | str | None"


class GeneralMetricsCacheError(Exception):
    """Base class of the errors for wrong use of metrics."""


class MetricsCacheIOError(GeneralMetricsCacheError, IOError):
    """The file of metric definitions cannot be read."""


class MetricsCachePyYamlError(GeneralMetricsCacheError):
    """The metric definitions are not valid YAML."""


class MetricsCacheTypeError(GeneralMetricsCacheError, TypeError):
    """An argument of a metric has the wrong type."""


class MetricsCacheValueError(GeneralMetricsCacheError, ValueError):
    """An argument of a metric, such as its unit, has a value that is not allowed."""


class MetricsCacheKeyError(GeneralMetricsCacheError, KeyError):
    """There is no metric of this name and type."""


class Units:
    """
    The units of metrics.

    :cvar spell_out: The short name, as handlers use it, to the long name in log lines.
    """

    spell_out: Mapping[str, str] = _UNITS


class MetricTypes(Enum):
    """The type of a metric."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@frozen
class Dimension:
    """A label (dimension) of a metric: its name and value."""

    name: str = field(converter=str)
    value: str = field(converter=str)

    def __str__(self) -> str:
        return f"{self.name}:{self.value}"


@lru_cache(maxsize=16)
def _own_labels(model_name: str, level: str) -> tuple[Dimension, Dimension]:
    """Return the labels that every metric has."""
    return Dimension("ModelName", model_name), Dimension("Level", level)


# Without slots: handlers may replace its methods or set attributes.
@define(eq=False, slots=False)
class CachingMetric:
    """
    A metric; emit a value with :meth:`add_or_update`.

    :ivar unit: The unit's short name, e.g. ``ms``.
    :ivar dimension_names: The names of the labels, in order.
    """

    metric_name: str
    unit: str
    dimension_names: list[str]
    metric_type: MetricTypes
    emit: Callable[[CachingMetric, object, str, Sequence[Dimension]], None] = field(repr=False)

    def add_or_update(self, value: Value, dimension_values: Sequence[object] = (), request_id: str = "") -> None:
        """
        Emit ``value``; log and drop one that is invalid for this metric, or whose labels do not fit.

        :param dimension_values: One value for each of ``dimension_names``.
        """
        if len(dimension_values) != len(self.dimension_names):
            _log.warning("%s needs the dimensions %s, not %s", self.metric_name, self.dimension_names, dimension_values)
            return
        labels = [Dimension(*pair) for pair in zip(self.dimension_names, dimension_values, strict=True)]
        self.emit_as(value, request_id, labels)

    def update(self, value: Value, request_id: str = "", dimensions: Sequence[Dimension] = ()) -> None:
        """Emit ``value`` with these labels, and make their names the metric's ``dimension_names``."""
        self.dimension_names = [each.name for each in dimensions]
        self.emit_as(value, request_id, dimensions)

    def emit_as(self, value: Any, request_id: str, dimensions: Sequence[Dimension]) -> None:
        """Emit ``value`` with these labels, without keeping them; log and drop a value invalid for this metric."""
        # The slow check against ``Real`` is only for numbers of other libraries.
        if isinstance(value, bool) or not isinstance(value, (float, int, Real)):
            _log.warning("%s: a metric's value must be a number, not %r", self.metric_name, value)
        elif self.metric_type is MetricTypes.COUNTER and value < 0:
            _log.warning("%s is a counter and cannot be changed by %s", self.metric_name, value)
        else:
            self.emit(self, value, request_id, dimensions)


class Keep(Protocol):
    """A buffer of values for the response to the current batch."""

    def __call__(
        self, name: str, unit: str, value: object, labels: str, kind: str, host: str, time: int, request_ids: str
    ) -> bool:
        """Buffer a value, given as to `metric_line`; return false if the caller must print it instead."""


#: The buffer of values emitted in this thread, or in this task of an event loop.
keeper: ContextVar[Keep | None] = ContextVar("keeper", default=None)


def print_metrics(lines: str) -> None:
    """Write complete lines to stdout; ignore errors."""
    # A handler that closes stdout loses its metrics, not its responses.
    with contextlib.suppress(OSError, ValueError, AttributeError):
        sys.stdout.write(lines)


def request_ids_of(ids: Mapping[int, str], idx: object) -> str:
    """
    Return the id of the request at a position in the batch, or the ids of the whole batch, separated by commas.

    :param idx: The position; any value that is not a position stands for the whole batch.
    """
    try:
        found = ids.get(idx)  # type: ignore[call-overload]
    except TypeError:
        # An unhashable value, for example a list.
        found = None
    return ",".join(ids.values()) if found is None else str(found)


@define(eq=False, slots=False)
class MetricsCacheYamlImpl:
    """
    The metrics API of one worker: ``context.metrics``.

    :ivar cache: The metrics defined, used or registered so far, by type and name.
    :ivar request_ids: The request ids of the current batch; attached to each metric emitted meanwhile.
    :ivar definitions: The metrics that ``metrics_config`` defines for handlers: the initial content of the cache.
    """

    model_name: str = ""
    config_file_path: str = ""
    definitions: Sequence[MetricDefinition] = field(default=(), kw_only=True)
    write: Callable[[str], object] = field(default=print_metrics, kw_only=True)
    epoch: Callable[[], float] = field(default=time.time, kw_only=True)
    cache: dict[MetricTypes, dict[str, CachingMetric]] = field(
        factory=lambda: {each: {} for each in MetricTypes}, init=False
    )
    store: list[CachingMetric] = field(factory=list, init=False)
    request_ids: RequestIds = field(default="", init=False)
    _host: str = field(factory=socket.gethostname, init=False)

    def __attrs_post_init__(self) -> None:
        self.initialize_cache()

    def set_request_ids(self, request_ids: RequestIds) -> None:
        """Set the request ids of the current batch."""
        self.request_ids = request_ids

    def initialize_cache(self) -> None:
        """Reset the cache to the metrics that ``metrics_config`` defines."""
        self.cache = {each: {} for each in MetricTypes}
        for each in self.definitions:
            self.add_metric_to_cache(each.name, each.unit, each.dimensions, MetricTypes(each.kind))

    def cache_keys(self) -> list[str]:
        """Return the metrics in the cache, each as ``type:name``."""
        return [f"{kind.value}:{name}" for kind, metrics in self.cache.items() for name in metrics]

    def add_counter(self, name: str, value: Value, idx: Index = None, dimensions: Sequence[Dimension] = ()) -> None:
        """Add ``value`` to a counter."""
        self.add_metric(name, value, "count", idx, dimensions, MetricTypes.COUNTER)

    def add_time(
        self,
        name: str,
        value: Value,
        idx: Index = None,
        unit: str = "ms",
        dimensions: Sequence[Dimension] = (),
        metric_type: MetricTypes = MetricTypes.GAUGE,
    ) -> None:
        """
        Emit a duration.

        :raise MetricsCacheValueError: if ``unit`` is neither ``ms`` nor ``s``.
        """
        self._check_unit(name, unit, ("ms", "s"))
        self.add_metric(name, value, unit, idx, dimensions, metric_type)

    def add_size(
        self,
        name: str,
        value: Value,
        idx: Index = None,
        unit: str = "MB",
        dimensions: Sequence[Dimension] = (),
        metric_type: MetricTypes = MetricTypes.GAUGE,
    ) -> None:
        """
        Emit a size.

        :raise MetricsCacheValueError: if ``unit`` is none of ``MB``, ``kB``, ``GB``, ``B``.
        """
        self._check_unit(name, unit, ("MB", "kB", "GB", "B"))
        self.add_metric(name, value, unit, idx, dimensions, metric_type)

    def add_percent(
        self,
        name: str,
        value: Value,
        idx: Index = None,
        dimensions: Sequence[Dimension] = (),
        metric_type: MetricTypes = MetricTypes.GAUGE,
    ) -> None:
        """Emit a percentage."""
        self.add_metric(name, value, "percent", idx, dimensions, metric_type)

    def add_error(self, name: str, value: Value, dimensions: Sequence[Dimension] = ()) -> None:
        """Add ``value`` to a counter of errors, without a request id."""
        labels = [*dimensions, Dimension("Level", "Error")]
        self._metric(name, "", labels, MetricTypes.COUNTER).emit_as(value, "", labels)

    def add_metric(
        self,
        name: str,
        value: Value,
        unit: str,
        idx: Index = None,
        dimensions: Sequence[Dimension] = (),
        metric_type: MetricTypes = MetricTypes.COUNTER,
    ) -> None:
        """
        Emit a value of any unit. The labels ``ModelName`` and ``Level`` are added if they are missing.

        :param idx: The position of the request in the batch; ``None``, or any value that is not a position (such as an
            id of the caller), for all requests.
        """
        request_id = self._request_id(idx)
        labels = list(dimensions)
        own = _own_labels(self.model_name, "Model" if request_id else "Error")
        if labels:
            names = {each.name for each in labels}
            labels += [each for each in own if each.name not in names]
        else:
            labels += own
        self._metric(name, unit, labels, metric_type).emit_as(value, request_id, labels)

    def add_metric_to_cache(
        self,
        metric_name: str,
        unit: str,
        dimension_names: Iterable[str] = (),
        metric_type: MetricTypes = MetricTypes.COUNTER,
    ) -> CachingMetric:
        """
        Register a metric without emitting anything.

        :raise MetricsCacheTypeError: if an argument has the wrong type.
        """
        if isinstance(dimension_names, str):
            raise MetricsCacheTypeError(f"dimension_names of {metric_name} must be a list, not {dimension_names!r}")
        names = list(dimension_names)
        for what, text in [
            ("metric_name", metric_name),
            ("unit", unit),
            *(("dimension_names", each) for each in names),
        ]:
            if not isinstance(text, str):
                raise MetricsCacheTypeError(f"{what} must be a string, not {text!r}")
        if not isinstance(metric_type, MetricTypes):
            raise MetricsCacheTypeError(f"metric_type of {metric_name} must be a MetricTypes, not {metric_type!r}")
        metric = CachingMetric(metric_name, unit, names, metric_type, self._emit)
        self.cache[metric_type][metric_name] = metric
        return metric

    def get_metric(self, metric_name: str, metric_type: MetricTypes = MetricTypes.COUNTER) -> CachingMetric:
        """
        Return a metric that was emitted or registered before.

        :raise MetricsCacheKeyError: if there is no metric of this name and type.
        """
        try:
            return self.cache[metric_type][metric_name]
        except KeyError:
            raise MetricsCacheKeyError(f"no metric {metric_name} of type {metric_type}") from None

    def _metric(self, name: str, unit: str, labels: Sequence[Dimension], metric_type: MetricTypes) -> CachingMetric:
        found = self.cache.get(metric_type, {}).get(name)
        return found or self.add_metric_to_cache(name, unit, [each.name for each in labels], metric_type)

    def _request_id(self, idx: Index) -> str:
        ids = self.request_ids
        if isinstance(ids, str):
            return ids
        return request_ids_of(ids, idx)

    @staticmethod
    def _check_unit(name: str, unit: str, allowed: Sequence[str]) -> None:
        if unit not in allowed:
            raise MetricsCacheValueError(f"the unit of {name} must be one of {', '.join(allowed)}, not {unit!r}")

    def _emit(self, metric: CachingMetric, value: object, request_id: str, dimensions: Sequence[Dimension]) -> None:
        reading = (
            metric.metric_name,
            _UNITS.get(metric.unit, metric.unit),
            value,
            # Formatted in place: a call of ``__str__`` for each label would take longer.
            ",".join([f"{d.name}:{d.value}" if type(d) is Dimension else str(d) for d in dimensions]),
            metric.metric_type.name,
            self._host,
            int(self.epoch()),
            request_id,
        )
        keep = keeper.get()
        if keep is None or not keep(*reading):
            self.write(f"{METRIC_MARK}{metric_line(*reading)}\n")
