# SPDX-License-Identifier: Apache-2.0
"""Tests for metrics in Prometheus' registry: they are what prometheus-client makes of the same values."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from twisted.trial.unittest import SynchronousTestCase

from twisted_serve.metrics.torchserve.definitions import Definition, Kind
from twisted_serve.metrics.torchserve.recorders import DEFAULT_BUCKETS, PrometheusRecorder
from twisted_serve.metrics.torchserve.text import render_text

WORDS = st.text(max_size=3) | st.sampled_from(["a", "b", 'q"\n\\'])


def is_refused(record: Callable[[float], object], number: float) -> bool:
    """Record a value, and return whether that was refused."""
    try:
        record(number)
    except ValueError:
        return True
    return False


class PrometheusRecorderTests(SynchronousTestCase):
    """Tests for `PrometheusRecorder`."""

    @given(
        st.sampled_from([Kind.COUNTER, Kind.GAUGE, Kind.HISTOGRAM]),
        st.sampled_from(["n", "n_total"]),
        st.integers(0, 2),
        st.data(),
    )
    def test_same(self, kind: Kind, name: str, count: int, data: st.DataObject) -> None:
        """Whatever is recorded and refused, at each scrape there is what prometheus-client shows."""
        labels = ("Level", "Hostname")[:count]
        ours, theirs = CollectorRegistry(), CollectorRegistry()
        recorder = PrometheusRecorder(Definition(name, kind, "ms", labels), ours)
        help_text = f"Torchserve prometheus {kind.value} metric with unit: ms"
        other: Counter | Gauge | Histogram
        if kind is Kind.HISTOGRAM:
            other = Histogram(name, help_text, labels, registry=theirs, buckets=DEFAULT_BUCKETS)
        else:
            other = {Kind.COUNTER: Counter, Kind.GAUGE: Gauge}[kind](name, help_text, labels, registry=theirs)
        steps = st.none() | st.tuples(st.tuples(*[WORDS] * count), st.integers(-1, 3) | st.floats())
        for step in [*data.draw(st.lists(steps, max_size=12)), None]:
            if step is None:
                self.assertEqual(render_text(ours.collect(), {}), render_text(theirs.collect(), {}))
                continue
            values, number = step
            child = other.labels(*values) if values else other
            method = {Kind.COUNTER: "inc", Kind.GAUGE: "set", Kind.HISTOGRAM: "observe"}[kind]
            self.assertEqual(is_refused(recorder.bind(*values), number), is_refused(getattr(child, method), number))

    def test_wrong(self) -> None:
        """Labels that are not the metric's are refused, and so is a name that is taken."""
        registry = CollectorRegistry()
        for kind in (Kind.COUNTER, Kind.GAUGE):
            recorder = PrometheusRecorder(Definition(f"n{kind.value}", kind, "ms", ("a", "b")), registry)
            self.assertRaises(ValueError, recorder.bind, "x")
            self.assertRaises(ValueError, recorder.bind, "x", "y", "z")
            self.assertRaises(ValueError, PrometheusRecorder, Definition(f"n{kind.value}", kind, "ms", ()), registry)
