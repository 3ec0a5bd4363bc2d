# SPDX-License-Identifier: Apache-2.0
"""Tests for what each request counts."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Histogram
from twisted.trial.unittest import SynchronousTestCase

from twisted_serve.metrics.families import CounterFamily, HistogramFamily
from twisted_serve.metrics.model_metrics import SECONDS, SIZES
from twisted_serve.metrics.torchserve.text import render_text

LABELS = ("model_name", "word")

names = st.tuples(st.sampled_from(["m", 'a"\n\\']), st.text(max_size=3))


def shown(registry: CollectorRegistry) -> str:
    """Return what a scrape would."""
    return render_text(registry.collect(), {}).decode()


class TalliesTests(SynchronousTestCase):
    """Tests for `CounterFamily` and `HistogramFamily`."""

    def setUp(self) -> None:
        self.registry = CollectorRegistry()

    @given(
        st.sampled_from([SECONDS, SIZES]),
        st.lists(
            st.tuples(names, st.sampled_from([*SECONDS, *SIZES]) | st.floats(0, 1e6) | st.integers(0, 300)),
            max_size=20,
        ),
        st.sets(names, max_size=3),
    )
    def test_as_prometheus(
        self, ends: tuple[float, ...], said: list[tuple[tuple[str, str], float]], removed: set[tuple[str, str]]
    ) -> None:
        """A scrape shows, to the letter, what it would of prometheus-client's own."""
        ours, theirs = CollectorRegistry(), CollectorRegistry()
        spreads = HistogramFamily(ours, "ts_time", 'How\nlong, "\\".', LABELS, ends)
        counts = CounterFamily(ours, "ts_things", "How many.", LABELS)
        histogram = Histogram("ts_time", 'How\nlong, "\\".', LABELS, registry=theirs, buckets=ends)
        counter = Counter("ts_things", "How many.", LABELS, registry=theirs)
        for labels, value in said:
            spreads.labels(*labels).observe(value)
            counts.labels(*labels).inc()
            histogram.labels(*labels).observe(value)
            counter.labels(*labels).inc()
        self.assertEqual(shown(ours), shown(theirs))
        for labels in removed.intersection(labels for labels, _value in said):
            for family in (spreads, counts, histogram, counter):
                family.remove(*labels)
        self.assertEqual(shown(ours), shown(theirs))

    def test_shown_from_the_start(self) -> None:
        """A tally that was asked for is shown before anything is counted."""
        CounterFamily(self.registry, "ts_things", "How many.", LABELS).labels("a", "b")
        self.assertIn('ts_things_total{model_name="a",word="b",} 0.0\n', shown(self.registry))

    def test_kept(self) -> None:
        """Whoever has a tally goes on with it, which after its removal does no harm; the next one begins anew."""
        counts = CounterFamily(self.registry, "ts_things", "How many.", LABELS)
        old = counts.labels("a", "b")
        self.assertIs(counts.labels("a", "b"), old)
        old.inc()
        counts.remove("a", "b")
        counts.remove("a", "b")
        old.inc()
        self.assertNotIn("model_name", shown(self.registry))
        self.assertEqual(counts.labels("a", "b").number, 0)

    def test_taken_name(self) -> None:
        """A name is given once."""
        CounterFamily(self.registry, "ts_things", "How many.", LABELS)
        self.assertRaises(ValueError, HistogramFamily, self.registry, "ts_things_total", "How long.", LABELS, SECONDS)
        self.assertRaises(ValueError, Counter, "ts_things", "", registry=self.registry)
