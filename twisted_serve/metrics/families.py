# SPDX-License-Identifier: Apache-2.0
"""
Keep per-request metrics in plain numbers, which a scrape turns into Prometheus' samples.

All numbers are updated in the reactor's thread; prometheus-client's own metrics take a
lock for each update, several times per request.
"""

from __future__ import annotations

from abc import abstractmethod
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Generic, TypeVar

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import INF, floatToGoString

_Tally = TypeVar("_Tally")
_Family = TypeVar("_Family", bound=Metric)


class ValueFamily(Collector, Generic[_Tally, _Family]):
    """A metric family: one series for each set of labels."""

    def __init__(self, registry: CollectorRegistry, name: str, text: str, labels: Sequence[str]) -> None:
        self._name, self._text, self._labels = name, text, labels
        self._tallies: dict[tuple[str, ...], _Tally] = {}
        registry.register(self)

    def labels(self, *values: str) -> _Tally:
        """
        Return the series with these labels; callers on the path of a request should keep it.

        :raise ValueError: for more or fewer values than there are labels.
        """
        found = self._tallies.get(values)
        if found is None:
            if len(values) != len(self._labels):
                raise ValueError(f"{self._name} has the labels {', '.join(self._labels)}, not {len(values)} of them")
            found = self._tallies[values] = self._new()
        return found

    def remove(self, *values: str) -> None:
        """Remove the series with these labels from the export."""
        self._tallies.pop(values, None)

    def describe(self) -> Iterable[Metric]:
        """Describe the metric family."""
        return [self._family()]

    def collect(self) -> Iterable[Metric]:
        """Return the samples of all series."""
        family = self._family()
        for values, tally in list(self._tallies.items()):
            self._show(family, values, tally)
        return [family]

    @abstractmethod
    def _new(self) -> _Tally: ...

    @abstractmethod
    def _family(self) -> _Family: ...

    @abstractmethod
    def _show(self, family: _Family, values: Sequence[str], tally: _Tally) -> None: ...


class CounterValue:
    """The value of one counter."""

    __slots__ = ("number",)

    def __init__(self) -> None:
        self.number: float = 0

    def inc(self, amount: float = 1) -> None:
        """
        Add 1, or another amount.

        :raise ValueError: for a negative amount.
        """
        if amount < 0:
            raise ValueError(f"a counter cannot be incremented by {amount}")
        self.number += amount


class CounterFamily(ValueFamily[CounterValue, CounterMetricFamily]):
    """A family of Prometheus counters."""

    def _new(self) -> CounterValue:
        return CounterValue()

    def _family(self) -> CounterMetricFamily:
        return CounterMetricFamily(self._name, self._text, labels=self._labels)

    def _show(self, family: CounterMetricFamily, values: Sequence[str], tally: CounterValue) -> None:
        family.add_metric(values, tally.number)


class GaugeValue:
    """The value of one gauge."""

    __slots__ = ("number",)

    def __init__(self) -> None:
        self.number: float = 0

    def set(self, value: float) -> None:
        """Replace the value."""
        self.number = value


class GaugeFamily(ValueFamily[GaugeValue, GaugeMetricFamily]):
    """A family of Prometheus gauges."""

    def _new(self) -> GaugeValue:
        return GaugeValue()

    def _family(self) -> GaugeMetricFamily:
        return GaugeMetricFamily(self._name, self._text, labels=self._labels)

    def _show(self, family: GaugeMetricFamily, values: Sequence[str], tally: GaugeValue) -> None:
        family.add_metric(values, tally.number)


class HistogramValue:
    """
    The buckets of one histogram.

    :ivar numbers: The number of values in each bucket, not cumulative; the last bucket has no upper bound.
    :ivar total: The sum of all values.
    :param ends: The upper bounds of the buckets except the last one.
    """

    __slots__ = ("_ends", "numbers", "total")

    def __init__(self, ends: Sequence[float]) -> None:
        self._ends = ends
        self.numbers = [0] * (len(ends) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Add a value to its bucket and to the sum."""
        self.numbers[bisect_left(self._ends, value)] += 1
        self.total += value


class HistogramFamily(ValueFamily[HistogramValue, HistogramMetricFamily]):
    """
    A family of Prometheus histograms.

    :param ends: The upper bounds of the buckets except the last one.
    """

    def __init__(
        self, registry: CollectorRegistry, name: str, text: str, labels: Sequence[str], ends: Sequence[float]
    ) -> None:
        self._ends = ends
        super().__init__(registry, name, text, labels)

    def _new(self) -> HistogramValue:
        return HistogramValue(self._ends)

    def _family(self) -> HistogramMetricFamily:
        return HistogramMetricFamily(self._name, self._text, labels=self._labels)

    def _show(self, family: HistogramMetricFamily, values: Sequence[str], tally: HistogramValue) -> None:
        names = map(floatToGoString, (*self._ends, INF))
        family.add_metric(values, list(zip(names, accumulate(tally.numbers), strict=True)), tally.total)
