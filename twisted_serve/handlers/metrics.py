# SPDX-License-Identifier: Apache-2.0
"""
This module implements ``context.metrics``: the metrics that a handler emits.

Names, units and errors are the predecessor's (``docs/torchserve/archives_workers_handlers.md``
§7.14).  Each value leaves with the answer to the batch that it was emitted for, or
as one line on stdout; nothing is summed up in the worker.
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
#: A position in the batch; anything else belongs to the whole batch.
Index: TypeAlias = "int | str | None"


class GeneralMetricsCacheError(Exception):
    """A metric is used in a way it cannot be."""


class MetricsCacheIOError(GeneralMetricsCacheError, IOError):
    """The definitions of metrics cannot be read."""


class MetricsCachePyYamlError(GeneralMetricsCacheError):
    """The definitions of metrics are no YAML."""


class MetricsCacheTypeError(GeneralMetricsCacheError, TypeError):
    """An argument of a metric is of the wrong type."""


class MetricsCacheValueError(GeneralMetricsCacheError, ValueError):
    """An argument of a metric, such as its unit, is not one of those allowed."""


class MetricsCacheKeyError(GeneralMetricsCacheError, KeyError):
    """There is no metric of this name and type."""


class Units:
    """
    The units of metrics: how handlers name each, and how it is written.

    :cvar spell_out: The long name of each short one.
    """

    spell_out: Mapping[str, str] = _UNITS


class MetricTypes(Enum):
    """What a metric's values mean."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@frozen
class Dimension:
    """A label of a metric and its value."""

    name: str = field(converter=str)
    value: str = field(converter=str)

    def __str__(self) -> str:
        return f"{self.name}:{self.value}"


@lru_cache(maxsize=16)
def _own_labels(model_name: str, level: str) -> tuple[Dimension, Dimension]:
    """Make the labels that metrics have anyway."""
    return Dimension("ModelName", model_name), Dimension("Level", level)


# Handlers may replace its methods, or put things of their own on it.
@define(eq=False, slots=False)
class CachingMetric:
    """
    A metric: emit a value with :meth:`add_or_update`.

    :ivar dimension_names: Its labels, in order.
    """

    metric_name: str
    unit: str
    dimension_names: list[str]
    metric_type: MetricTypes
    emit: Callable[[CachingMetric, object, str, Sequence[Dimension]], None] = field(repr=False)

    def add_or_update(self, value: Value, dimension_values: Sequence[object] = (), request_id: str = "") -> None:
        """
        Emit ``value``; what cannot be a value of this metric is logged and dropped.

        :param dimension_values: One for each of ``dimension_names``.
        """
        if len(dimension_values) != len(self.dimension_names):
            _log.warning("%s needs the dimensions %s, not %s", self.metric_name, self.dimension_names, dimension_values)
            return
        labels = [Dimension(*pair) for pair in zip(self.dimension_names, dimension_values, strict=True)]
        self.emit_as(value, request_id, labels)

    def update(self, value: Value, request_id: str = "", dimensions: Sequence[Dimension] = ()) -> None:
        """Emit ``value`` with these labels, which from now on are the metric's."""
        self.dimension_names = [each.name for each in dimensions]
        self.emit_as(value, request_id, dimensions)

    def emit_as(self, value: Any, request_id: str, dimensions: Sequence[Dimension]) -> None:
        """Emit ``value`` with these labels, this time; what cannot be a value of this metric is logged and dropped."""
        # Only a number of another library is compared with all that may be numbers.
        if isinstance(value, bool) or not isinstance(value, (float, int, Real)):
            _log.warning("%s: a metric's value must be a number, not %r", self.metric_name, value)
        elif self.metric_type is MetricTypes.COUNTER and value < 0:
            _log.warning("%s is a counter and cannot be changed by %s", self.metric_name, value)
        else:
            self.emit(self, value, request_id, dimensions)


class Keep(Protocol):
    """What may keep values until the answer to the batch that is running here."""

    def __call__(
        self, name: str, unit: str, value: object, labels: str, kind: str, host: str, time: int, request_ids: str
    ) -> bool:
        """Keep a value, said as to `metric_line`; unless this returns that it has, the value is to be printed."""


#: What keeps the values that are emitted here: in this thread, or this task of an event loop.
keeper: ContextVar[Keep | None] = ContextVar("keeper", default=None)


def print_metrics(lines: str) -> None:
    """Print lines, of which each ends."""
    # A handler that closes stdout loses its metrics, not its answers.
    with contextlib.suppress(OSError, ValueError, AttributeError):
        sys.stdout.write(lines)


def request_ids_of(ids: Mapping[int, str], idx: object) -> str:
    """
    Return the id of the request at a position in the batch, or those of the whole batch, with commas between them.

    :param idx: What is no position stands for the whole batch.
    """
    try:
        found = ids.get(idx)  # type: ignore[call-overload]
    except TypeError:
        # A list, say.
        found = None
    return ",".join(ids.values()) if found is None else str(found)


@define(eq=False, slots=False)
class MetricsCacheYamlImpl:
    """
    All metrics of one worker.

    :ivar cache: The metrics defined, used or registered so far, by type and name.
    :ivar request_ids: Whose requests are being answered; given to each metric emitted meanwhile.
    :ivar definitions: What ``metrics_config`` defines for handlers: what the cache begins with.
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
        """Say whose requests are being answered from now on."""
        self.request_ids = request_ids

    def initialize_cache(self) -> None:
        """Forget all metrics but those that ``metrics_config`` defines."""
        self.cache = {each: {} for each in MetricTypes}
        for each in self.definitions:
            self.add_metric_to_cache(each.name, each.unit, each.dimensions, MetricTypes(each.kind))

    def cache_keys(self) -> list[str]:
        """List the metrics, each as ``type:name``."""
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
        """Count an error; it belongs to no request."""
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
        Emit a value of any unit.  The labels ``ModelName`` and ``Level`` are added if they are not there.

        :param idx: The position in the batch of the request it belongs to; ``None``, and whatever is no position in
            the batch (an id of the caller's own, say), for all of them.
        """
        request_id = self._request_id(idx)
        labels = list(dimensions)
        names = {each.name for each in labels}
        own = _own_labels(self.model_name, "Model" if request_id else "Error")
        labels += [each for each in own if each.name not in names]
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

        :raise MetricsCacheTypeError: if an argument is of the wrong type.
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
        Get a metric used or registered before.

        :raise MetricsCacheKeyError: if there is none.
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
            ",".join(map(str, dimensions)),
            metric.metric_type.name,
            self._host,
            int(self.epoch()),
            request_id,
        )
        keep = keeper.get()
        if keep is None or not keep(*reading):
            self.write(f"{METRIC_MARK}{metric_line(*reading)}\n")
