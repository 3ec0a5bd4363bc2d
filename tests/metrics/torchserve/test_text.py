# SPDX-License-Identifier: Apache-2.0
"""Tests for :mod:`twisted_serve.metrics.torchserve.text`."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.parser import text_string_to_metric_families
from twisted.trial.unittest import SynchronousTestCase

from twisted_serve.metrics.torchserve.text import render_text


class RenderTests(SynchronousTestCase):
    """Tests for `render_text`."""

    def setUp(self) -> None:
        self.registry = CollectorRegistry()

    def render(self, *chosen: str) -> str:
        return render_text(self.registry.collect(), {"Requests2XX": "Requests2XX"}, chosen).decode()

    def test_predecessor(self) -> None:
        """The predecessor's dashboards and tests find what they look for."""
        counter = Counter("Requests2XX", "H \\ \n", ["Level", "Hostname"], registry=self.registry)
        self.assertEqual(self.render(), "# HELP Requests2XX H \\\\ \\n\n# TYPE Requests2XX counter\n")
        counter.labels("Host", "h").inc(8)
        self.assertRegex(self.render(), r'(?m)^Requests2XX\{Level="Host",Hostname=".+",\} \d+\.\d+$')

    def test_kinds(self) -> None:
        """Counters of our own have a total, histograms their three series; nothing says when it began."""
        Counter("a", "A.", registry=self.registry).inc()
        Histogram("b", "B.", ["l"], registry=self.registry, buckets=[1, 2]).labels("x").observe(1.5)
        Gauge("c", "C.", registry=self.registry).set(math.inf)
        self.assertEqual(
            self.render(),
            "# HELP a_total A.\n# TYPE a_total counter\na_total 1.0\n"
            "# HELP b B.\n# TYPE b histogram\n"
            'b_bucket{l="x",le="1.0",} 0.0\nb_bucket{l="x",le="2.0",} 1.0\nb_bucket{l="x",le="+Inf",} 1.0\n'
            'b_count{l="x",} 1.0\nb_sum{l="x",} 1.5\n'
            "# HELP c C.\n# TYPE c gauge\nc +Inf\n",
        )

    def test_chosen(self) -> None:
        """Samples are chosen by their name, or by that of all of them."""
        Histogram("b", "B.", registry=self.registry, buckets=[1])
        Gauge("c", "C.", registry=self.registry)
        self.assertEqual(self.render("b_sum"), "# HELP b B.\n# TYPE b histogram\nb_sum 0.0\n")
        self.assertIn("b_count 0.0", self.render("b"))
        self.assertNotIn("c", self.render("b").replace("bucket", "").replace("count", ""))
        self.assertEqual(self.render("d"), "")

    @given(st.dictionaries(st.text(), st.floats(), max_size=5))
    def test_reads_back(self, values: dict[str, float]) -> None:
        """Prometheus' own reader finds every label and every number, whatever they are."""
        registry = CollectorRegistry()
        gauge = Gauge("g", "G.", ["l"], registry=registry)
        for label, value in values.items():
            gauge.labels(label).set(value)
        text = render_text(registry.collect(), {}).decode("utf-8", "surrogatepass")
        [family] = text_string_to_metric_families(text)
        found = {sample.labels["l"]: sample.value for sample in family.samples}
        self.assertEqual(found.keys(), values.keys())
        for label, value in values.items():
            self.assertTrue(found[label] == value or (math.isnan(value) and math.isnan(found[label])))
