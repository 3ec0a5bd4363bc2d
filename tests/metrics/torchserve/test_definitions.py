# SPDX-License-Identifier: Apache-2.0
"""Tests for :mod:`twisted_serve.metrics.torchserve.definitions`."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from twisted_serve.config.values import ConfigError
from twisted_serve.metrics.torchserve.definitions import Kind, default_catalogue, parse_catalogue, read_catalogue

# Values of YAML, and the words of this grammar among them.
WORDS = st.sampled_from(["ts_metrics", "model_metrics", "counter", "gauge", "histogram", "name", "unit", "dimensions"])
DOCUMENTS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS | st.text(max_size=3), inner, max_size=4),
    max_leaves=12,
)


class CatalogueTests(SynchronousTestCase):
    """Tests for `parse_catalogue` and the file that comes with the server."""

    def test_default(self) -> None:
        """The default file has every metric of the predecessor, with its labels in order."""
        catalogue = default_catalogue()
        host, request = ("Level", "Hostname"), ("model_name", "model_version", "hostname")
        gpu = ("Level", "DeviceId", "Hostname")
        self.assertEqual(
            {name: (each.kind.value, each.unit, each.dimensions) for name, each in catalogue.server.items()},
            {
                "Requests2XX": ("counter", "Count", host),
                "Requests4XX": ("counter", "Count", host),
                "Requests5XX": ("counter", "Count", host),
                "ts_inference_requests_total": ("counter", "Count", request),
                "ts_inference_latency_microseconds": ("counter", "Microseconds", request),
                "ts_queue_latency_microseconds": ("counter", "Microseconds", request),
                "QueueTime": ("gauge", "Milliseconds", host),
                "WorkerThreadTime": ("gauge", "Milliseconds", host),
                "WorkerLoadTime": ("gauge", "Milliseconds", ("WorkerName", *host)),
                "CPUUtilization": ("gauge", "Percent", host),
                "MemoryUsed": ("gauge", "Megabytes", host),
                "MemoryAvailable": ("gauge", "Megabytes", host),
                "MemoryUtilization": ("gauge", "Percent", host),
                "DiskUsage": ("gauge", "Gigabytes", host),
                "DiskUtilization": ("gauge", "Percent", host),
                "DiskAvailable": ("gauge", "Gigabytes", host),
                "GPUMemoryUtilization": ("gauge", "Percent", gpu),
                "GPUMemoryUsed": ("gauge", "Megabytes", gpu),
                "GPUUtilization": ("gauge", "Percent", gpu),
            },
        )
        model = ("gauge", "ms", ("ModelName", "Level", "Hostname"))
        self.assertEqual(
            {name: (each.kind.value, each.unit, each.dimensions) for name, each in catalogue.models.items()},
            {"HandlerTime": model, "PredictionTime": model},
        )

    def test_anchors_and_buckets(self) -> None:
        """Dimensions may be anchors of YAML, as in the predecessor's file; a histogram may have its own buckets."""
        catalogue = parse_catalogue(
            "dimensions: [&model ModelName]\n"
            "model_metrics:\n"
            "  histogram: [{name: H, unit: ms, dimensions: [*model], buckets: [1, 2.5]}]\n"
            "  gauge: [{name: G, unit: ms}]\n"
        )
        self.assertEqual(catalogue.models["H"].buckets, (1.0, 2.5))
        self.assertEqual(catalogue.models["H"].dimensions, ("ModelName", "Hostname"))
        self.assertEqual(catalogue.models["G"].dimensions, ("Hostname",))
        self.assertEqual((dict(catalogue.server), catalogue.models["G"].kind), ({}, Kind.GAUGE))

    def test_broken(self) -> None:
        """What is wrong is named, with its place in the file."""
        entry = "ts_metrics: {gauge: [{name: G, unit: ms, dimensions: [a]}, %s]}"
        for text, told in [
            ("[", "this is no YAML: while parsing"),
            ("", "the file must have the keys"),
            ("more: 1", "the file has the unknown key 'more'"),
            ("ts_metrics: [1]", "ts_metrics must have the keys counter, gauge, histogram, not be [1]"),
            ("ts_metrics: {timer: []}", "ts_metrics has the unknown key 'timer'"),
            ("model_metrics: {gauge: {}}", "model_metrics.gauge must be a list"),
            (entry % "5", "ts_metrics.gauge[1] must have the keys"),
            (entry % "{unit: ms}", "ts_metrics.gauge[1].name must be a text that is not empty, not None"),
            (entry % "{name: H, unit: ' '}", "ts_metrics.gauge[1].unit must be a text"),
            (entry % "{name: 5, unit: ms}", "ts_metrics.gauge[1].name must be a text"),
            (entry % "{name: H, unit: ms, labels: []}", "ts_metrics.gauge[1] has the unknown key 'labels'"),
            (entry % "{name: H, unit: ms, dimensions: a}", "ts_metrics.gauge[1].dimensions must be a list of names"),
            (entry % "{name: H, unit: ms, dimensions: [a, a]}", "ts_metrics.gauge[1].dimensions has a name twice"),
            (entry % "{name: G, unit: ms}", "ts_metrics.gauge[1]: G is there twice"),
            (entry % "{name: H, unit: ms, buckets: [1]}", "ts_metrics.gauge[1].buckets is for histograms"),
            ("model_metrics: {gauge: [{name: G, unit: s, dimensions: [Hostname]}]}", "has a name twice"),
            (
                "ts_metrics: {gauge: [{name: QueueTime, unit: s, dimensions: [a]}]}",
                "QueueTime in ts_metrics must have 2",
            ),
        ]:
            error = self.assertRaises(ValueError, parse_catalogue, text)
            self.assertIn(told, str(error))
        for buckets in ("[]", "[2, 1]", "[1, 1]", "['1']", "[.inf]", "[true]", "5"):
            text = f"ts_metrics: {{histogram: [{{name: H, unit: s, buckets: {buckets}}}]}}"
            self.assertIn(
                "histogram[0].buckets must be numbers", str(self.assertRaises(ValueError, parse_catalogue, text))
            )

    @given(DOCUMENTS)
    def test_anything(self, document: object) -> None:
        """Whatever a file has, it is a catalogue or an error that says what is wrong."""
        import yaml

        try:
            catalogue = parse_catalogue(yaml.safe_dump(document))
        except ValueError as e:
            self.assertTrue(str(e))
        else:
            self.assertTrue(all(name == each.name for name, each in catalogue.server.items()))

    def test_file(self) -> None:
        """An error names the setting and the file; no file at all is the default."""
        directory = Path(tempfile.mkdtemp())
        self.addCleanup(directory.rmdir)
        path = directory / "metrics.yaml"
        self.assertIn(
            f"cannot be read: No such file or directory (metrics_config in {path})",
            str(self.assertRaises(ConfigError, read_catalogue, path)),
        )
        self.addCleanup(path.unlink)
        path.write_bytes(b"\xff")
        self.assertRaises(ConfigError, read_catalogue, path)
        path.write_text("x: 1")
        self.assertIn("unknown key 'x'", str(self.assertRaises(ConfigError, read_catalogue, path)))
        self.assertEqual(read_catalogue(None), default_catalogue())
