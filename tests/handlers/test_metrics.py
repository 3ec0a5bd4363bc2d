# SPDX-License-Identifier: Apache-2.0
"""Tests for `twisted_serve.handlers.metrics`."""

from __future__ import annotations

import io
import re
import sys
from typing import Any
from uuid import uuid4

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from twisted_serve.handlers.metrics import (
    Dimension,
    GeneralMetricsCacheError,
    MetricsCacheKeyError,
    MetricsCacheTypeError,
    MetricsCacheValueError,
    MetricsCacheYamlImpl,
    MetricTypes,
)
from twisted_serve.wire.messages import MetricDefinition


class MetricsTests(SynchronousTestCase):
    """Tests for the metrics that handlers emit."""

    def setUp(self) -> None:
        self.lines: list[str] = []
        self.metrics = MetricsCacheYamlImpl("m", write=self.lines.append, epoch=lambda: 1234.9)
        self.metrics.set_request_ids({0: "a", 1: "b"})

    def _line(self) -> str:
        (line,) = self.lines
        self.lines.clear()
        return re.sub(r"#hostname:[^,]+", "#hostname:HOST", line)

    def test_counter(self) -> None:
        """A counter's line has name, unit, value, labels, type, host, time and requests."""
        self.metrics.add_counter("Things", 2)
        self.assertEqual(
            self._line(), "[METRICS]Things.Count:2|#ModelName:m,Level:Model|#type:COUNTER|#hostname:HOST,1234,a,b\n"
        )

    def test_one_request(self) -> None:
        """A value can belong to one request."""
        self.metrics.add_time("Wait", 1.5, idx=1, unit="s")
        self.assertEqual(
            self._line(), "[METRICS]Wait.Seconds:1.5|#ModelName:m,Level:Model|#type:GAUGE|#hostname:HOST,1234,b\n"
        )

    def test_no_position(self) -> None:
        """A value that is not a position in the batch, such as an id of the handler, stands for the whole batch."""
        strange: list[Any] = [uuid4(), str(uuid4()), "1", -1, 2, 1.5, ["a"], {}, None]
        for idx in strange:
            self.metrics.add_time("T", 1, idx, "ms")
            line = "[METRICS]T.Milliseconds:1|#ModelName:m,Level:Model|#type:GAUGE|#hostname:HOST,1234,a,b\n"
            self.assertEqual(line, self._line())
        for add in (
            lambda idx: self.metrics.add_counter("C", 1, idx),
            lambda idx: self.metrics.add_size("S", 1, idx),
            lambda idx: self.metrics.add_percent("P", 1, idx),
            lambda idx: self.metrics.add_metric("M", 1, "lamps", idx),
        ):
            add("some id")
            line = self._line()
            self.assertIn("Level:Model|", line)
            self.assertTrue(line.endswith(",1234,a,b\n"), line)

    def test_defined(self) -> None:
        """The cache begins with what is defined, and does so again; values fit the definition or are dropped."""
        defined = [
            MetricDefinition("Size", "count", "gauge", ["ModelName"]),
            MetricDefinition("N", "ms", "counter", []),
        ]
        metrics = MetricsCacheYamlImpl("m", definitions=defined, write=self.lines.append, epoch=lambda: 1234.9)
        metrics.initialize_cache()
        metrics.get_metric("Size", MetricTypes.GAUGE).add_or_update(3, ["m"], "r")
        self.assertEqual("[METRICS]Size.Count:3|#ModelName:m|#type:GAUGE|#hostname:HOST,1234,r\n", self._line())
        metrics.get_metric("N").add_or_update(1)
        self.assertEqual("[METRICS]N.Milliseconds:1|#|#type:COUNTER|#hostname:HOST,1234\n", self._line())
        self.assertRaises(MetricsCacheKeyError, metrics.get_metric, "Size", MetricTypes.HISTOGRAM)
        # A value with other labels does not change what is defined.
        metrics.add_metric("Size", 4, "count", metric_type=MetricTypes.GAUGE)
        self.assertIn("|#ModelName:m,Level:", self._line())
        metrics.get_metric("Size", MetricTypes.GAUGE).add_or_update(5, ["m"])
        self.assertIn("Size.Count:5|#ModelName:m|", self._line())

    def test_units(self) -> None:
        """Each kind of value has its unit, under its long name."""
        self.metrics.add_time("a", 1)
        self.assertIn("a.Milliseconds:1|", self._line())
        self.metrics.add_size("b", 1)
        self.assertIn("b.Megabytes:1|", self._line())
        self.metrics.add_size("c", 1, unit="kB", metric_type=MetricTypes.HISTOGRAM)
        self.assertIn("c.Kilobytes:1|#ModelName:m,Level:Model|#type:HISTOGRAM", self._line())
        self.metrics.add_percent("d", 50)
        self.assertIn("d.Percent:50|", self._line())
        self.metrics.add_metric("e", 1, "lamps")
        self.assertIn("e.lamps:1|#ModelName:m,Level:Model|#type:COUNTER", self._line())

    def test_wrong_units(self) -> None:
        """A time in miles, or a size in hours, is refused as both a metrics error and a ValueError."""
        self.assertRaises(MetricsCacheValueError, self.metrics.add_time, "a", 1, unit="miles")
        self.assertRaises(ValueError, self.metrics.add_size, "a", 1, unit="mb")
        self.assertEqual(self.lines, [])

    def test_error(self) -> None:
        """An error belongs to no request."""
        self.metrics.add_error("Broken", 1, [Dimension("Part", "lamp")])
        self.assertEqual(
            self._line(), "[METRICS]Broken.unit:1|#Part:lamp,Level:Error|#type:COUNTER|#hostname:HOST,1234\n"
        )

    def test_no_request(self) -> None:
        """Without any request the level is Error."""
        self.metrics.set_request_ids("")
        self.metrics.add_counter("Things", 1)
        self.assertIn("|#ModelName:m,Level:Error|", self._line())

    def test_dimensions(self) -> None:
        """Labels of the handler's come first, and may replace ours; the handler's list is not touched."""
        labels = [Dimension("Level", "Deep"), Dimension("Room", 5)]
        self.metrics.add_counter("Things", 1, dimensions=labels)
        self.assertIn("|#Level:Deep,Room:5,ModelName:m|", self._line())
        self.metrics.add_counter("Others", 1, dimensions=[Dimension("ModelName", "n")])
        self.assertIn("|#ModelName:n,Level:Model|", self._line())
        self.assertEqual(len(labels), 2)
        self.metrics.add_counter("Things", 1)
        self.assertIn("|#ModelName:m,Level:Model|", self._line())

    def test_registered(self) -> None:
        """A metric can be registered first and used later."""
        metric = self.metrics.add_metric_to_cache("Lamps", "count", ["Room"], MetricTypes.GAUGE)
        self.assertIs(self.metrics.get_metric("Lamps", MetricTypes.GAUGE), metric)
        metric.add_or_update(3, ["kitchen"], "r")
        self.assertEqual(self._line(), "[METRICS]Lamps.Count:3|#Room:kitchen|#type:GAUGE|#hostname:HOST,1234,r\n")

    def test_dropped(self) -> None:
        """Values that make no sense are logged and dropped: a metric must not break an answer."""
        metric = self.metrics.add_metric_to_cache("Lamps", "count", ["Room"])
        values: list[Any] = ["1", None, True, -1, 1j]
        with self.assertLogs("twisted_serve.handlers.metrics", "WARNING") as logs:
            for value in values:
                metric.add_or_update(value, ["kitchen"])
            metric.add_or_update(1, [])
        self.assertEqual(len(logs.output), 6)
        self.assertEqual(self.lines, [])

    def test_unknown(self) -> None:
        """A metric that was not registered, or not with this type, is not found."""
        self.metrics.add_metric_to_cache("Lamps", "count")
        self.assertRaises(MetricsCacheKeyError, self.metrics.get_metric, "Chairs")
        self.assertRaises(KeyError, self.metrics.get_metric, "Lamps", MetricTypes.GAUGE)
        self.metrics.initialize_cache()
        self.assertRaises(GeneralMetricsCacheError, self.metrics.get_metric, "Lamps")
        self.assertEqual(self.metrics.cache_keys(), [])

    def test_keys(self) -> None:
        """Metrics are listed with their types."""
        self.metrics.add_metric_to_cache("Lamps", "count")
        self.metrics.add_metric_to_cache("Heat", "ms", [], MetricTypes.HISTOGRAM)
        self.assertEqual(self.metrics.cache_keys(), ["counter:Lamps", "histogram:Heat"])

    def test_wrong_types(self) -> None:
        """Arguments of a wrong type are refused when a metric is registered."""
        wrong: list[tuple[Any, ...]] = [
            (1, "count"),
            ("a", 1),
            ("a", "b", "Room"),
            ("a", "b", [1]),
            ("a", "b", [], "gauge"),
        ]
        for arguments in wrong:
            self.assertRaises(MetricsCacheTypeError, self.metrics.add_metric_to_cache, *arguments)

    @given(st.text(), st.text(), st.text())
    def test_one_line(self, name: str, unit: str, label: str) -> None:
        """Whatever a metric is called, it is one line."""
        lines: list[str] = []
        metrics = MetricsCacheYamlImpl("m", write=lines.append)
        metrics.add_metric(name, 1, unit, dimensions=[Dimension("x", label)])
        self.assertEqual(len("".join(lines).splitlines()), 1)

    def test_stdout(self) -> None:
        """Lines go to what is stdout then; a handler that closed it loses them only."""
        output = io.StringIO()
        self.patch(sys, "stdout", output)
        metrics = MetricsCacheYamlImpl("m")
        metrics.add_counter("Things", 1)
        self.assertTrue(output.getvalue().startswith("[METRICS]Things.Count:1|"))
        output.close()
        metrics.add_counter("Things", 1)
        self.patch(sys, "stdout", None)
        metrics.add_counter("Things", 1)
