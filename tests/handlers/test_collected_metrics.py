# SPDX-License-Identifier: Apache-2.0
"""Tests for TorchServe's older metrics, and for the readings of the machine."""

from __future__ import annotations

import io
import os
import sys

from twisted.trial.unittest import SynchronousTestCase

from twisted_serve.handlers import host_metrics
from twisted_serve.handlers.collected_metrics import Metric, MetricsStore, emit_metrics
from twisted_serve.handlers.metrics import Dimension
from twisted_serve.handlers.mock_context import MockContext


class MetricTests(SynchronousTestCase):
    """A value that is kept."""

    def test_update(self) -> None:
        """A counter adds, anything else is replaced, and both can begin anew."""
        counter = Metric("hits", 1, "count", [], metric_method="counter")
        gauge = Metric("heat", 1, "K", [])
        for each in (counter, gauge):
            each.update(4)
        self.assertEqual((counter.value, gauge.value), (5, 4))
        counter.reset()
        self.assertEqual(counter.value, 0)

    def test_dictionary(self) -> None:
        """It can be had as plain values."""
        plain = Metric("heat", 1.5, "K", [Dimension("Level", "Model")], "r1").to_dict()
        self.assertEqual(
            {**plain, "Timestamp": 0, "HostName": ""},
            {
                "MetricName": "heat",
                "Value": 1.5,
                "Unit": "K",
                "Dimensions": [{"Name": "Level", "Value": "Model"}],
                "Timestamp": 0,
                "HostName": "",
                "RequestId": "r1",
            },
        )

    def test_emit(self) -> None:
        """Emitted, each is one line as the server reads it."""
        out = io.StringIO()
        self.patch(sys, "stdout", out)
        emit_metrics(
            [Metric("heat", 1, "ms", [Dimension("a", "b\nc")], "r1"), Metric("n", 2, "count", [], None, "counter")]
        )
        emit_metrics(None)
        first, second = out.getvalue().splitlines()
        self.assertRegex(first, r"^\[METRICS\]heat\.Milliseconds:1\|#a:b c\|#type:GAUGE\|#hostname:.*,\d+,r1$")
        self.assertRegex(second, r"^\[METRICS\]n\.Count:2\|#\|#type:COUNTER\|#hostname:.*,\d+$")


class MetricsStoreTests(SynchronousTestCase):
    """Values that are collected."""

    def test_no_position(self) -> None:
        """A value that is not a position in the batch stands for the whole batch."""
        store = MetricsStore({0: "a", 1: "b"}, "m")
        for idx in ("some id", 2, -1, None):
            store.add_time("T", 1, idx)
        self.assertEqual(["a,b"], [each.request_id for each in store.store])
        store.add_counter("C", 1, 1)
        self.assertEqual("b", store.store[-1].request_id)

    def test_kinds(self) -> None:
        """Each kind has its unit, the labels of its model, and the request it belongs to."""
        store = MetricsStore({0: "r0", 1: "r1"}, "m")
        store.add_counter("hits", 1, 1)
        store.add_counter("hits", 2, 1)
        store.add_time("took", 0.5)
        store.add_size("size", 3, 0, "kB")
        store.add_percent("full", 50, 0, [Dimension("Level", "Host")])
        store.add_error("oops", "x")
        store.add_metric("heat", 7, "K")
        found = [(each.name, each.value, each.unit, each.request_id) for each in store.store]
        expected = [
            ("hits", 3, "count", "r1"),
            ("took", 0.5, "ms", "r0,r1"),
            ("size", 3, "kB", "r0"),
            ("full", 50, "percent", "r0"),
            ("oops", "x", "", None),
            ("heat", 7, "K", "r0,r1"),
        ]
        self.assertEqual(found, expected)
        self.assertEqual([str(each) for each in store.store[0].dimensions], ["ModelName:m", "Level:Model"])
        self.assertEqual([str(each) for each in store.store[3].dimensions], ["Level:Host", "ModelName:m"])
        self.assertEqual(list(store.cache.values()), store.store)

    def test_units(self) -> None:
        """A unit that is none is refused."""
        store = MetricsStore(None, "m")
        self.assertRaises(ValueError, store.add_time, "took", 1, unit="h")
        self.assertRaises(ValueError, store.add_size, "size", 1, unit="TB")
        self.assertEqual(store.store, [])

    def test_mock_context(self) -> None:
        """A test sees what its handler emitted."""
        context = MockContext(model_name="m")
        context.metrics.add_counter("hits", 1, 0)
        self.assertEqual([each.name for each in context.metrics.store], ["hits"])


class HostMetricsTests(SynchronousTestCase):
    """Readings of the machine."""

    def test_all(self) -> None:
        """Each reading is a number with its unit."""
        self.patch(host_metrics, "system_metrics", [])
        found = {each.name: (each.value, each.unit) for each in host_metrics.collect_all()}
        self.assertEqual(len(found), 7)
        self.assertGreater(found["MemoryAvailable"][0], 0)
        self.assertTrue(0 <= found["DiskUtilization"][0] <= 100)
        self.assertEqual({unit for _, unit in found.values()}, {"percent", "MB", "GB"})

    def test_process(self) -> None:
        """A process has memory; one that is not there has none."""
        self.assertGreater(host_metrics.get_cpu_usage(os.getpid()), 1_000_000)
        self.assertEqual(host_metrics.get_cpu_usage("-1"), 0)
        self.assertEqual(host_metrics.get_cpu_usage("x"), 0)
