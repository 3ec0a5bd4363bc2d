# SPDX-License-Identifier: Apache-2.0
"""Tests for the predecessor's metrics in its three modes."""

from __future__ import annotations

from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import astuple, replace
from twisted.logger import ILogObserver, LogEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from twisted_serve.config.values import ConfigError
from twisted_serve.metrics.registry import ServerMetrics
from twisted_serve.metrics.timing import Timing
from twisted_serve.metrics.torchserve import emitter
from twisted_serve.metrics.torchserve.definitions import default_catalogue, parse_catalogue
from twisted_serve.metrics.torchserve.lines import lines_of_readings, lines_of_values, parse_line
from twisted_serve.testing.strategies.wire import readings
from twisted_serve.wire.messages import Reading
from twisted_serve.wire.metric_lines import METRIC_MARK, metric_line

LINE = "[METRICS]PredictionTime.Milliseconds:12.5|#ModelName:m,Level:Model|#type:GAUGE|#hostname:w,1717098363,r1,r2"
CUSTOM = "[METRICS]Cats.Count:2|#ModelName:m,Level:Model|#type:COUNTER|#hostname:w,1717098363,r1"


class EmitterTestCase(SynchronousTestCase):
    """What the tests below share."""

    def metrics(self, mode: str, yaml: str | None = None, **more: Any) -> ServerMetrics:
        """Make the metrics of a server whose lines are kept, and whose time stands still."""
        self.server: list[str] = []
        self.model: list[str] = []
        catalogue = default_catalogue() if yaml is None else parse_catalogue(yaml)
        return ServerMetrics(
            "h",
            catalogue,
            mode,
            server_log=lambda *value: self.server.extend(lines_of_values([value], 1717098363)),
            model_log=lambda *value: self.model.extend(lines_of_readings([value], 0)),
            **more,
        )

    def warnings(self, metrics: ServerMetrics, *said: str | list[Reading]) -> list[LogEvent]:
        """Return what is logged while a worker prints lines, and sends metrics."""
        events: list[LogEvent] = []
        observer = cast(ILogObserver, events.append)
        globalLogPublisher.addObserver(observer)
        try:
            for each in said:
                if isinstance(each, str):
                    metrics.emitter.receive(each)
                else:
                    metrics.emitter.take(each)
        finally:
            globalLogPublisher.removeObserver(observer)
        return events


class ModeTests(EmitterTestCase):
    """Where metrics go."""

    def test_log(self) -> None:
        """In the usual mode all are lines of the log, and none of them is on /metrics."""
        metrics = self.metrics("log")
        metrics.answered(200)
        metrics.inference_requested("m", "default")
        metrics.emitter.receive(LINE)
        self.assertEqual(
            self.server,
            [
                "Requests2XX.Count:1.0|#Level:Host|#hostname:h,timestamp:1717098363",
                "ts_inference_requests_total.Count:1.0|#model_name:m,model_version:default"
                "|#hostname:h,timestamp:1717098363",
            ],
        )
        self.assertEqual(
            self.model,
            ["PredictionTime.ms:12.5|#ModelName:m,Level:Model|#hostname:w,requestID:r1,r2,timestamp:1717098363"],
        )
        text = metrics.render().decode()
        self.assertNotIn("Requests2XX", text)
        self.assertNotIn("PredictionTime", text)
        self.assertIn('ts_inference_requests_total{model_name="m",model_version="default",hostname="h",} 1.0', text)

    def test_prometheus(self) -> None:
        """All are on /metrics, with the predecessor's names and help, and the log has none."""
        metrics = self.metrics("prometheus")
        metrics.answered(404)
        metrics.emitter.receive(LINE)
        text = metrics.render().decode()
        self.assertIn("# HELP Requests4XX Torchserve prometheus counter metric with unit: Count\n", text)
        self.assertRegex(text, r'Requests4XX\{Level="Host",Hostname=".+",\} \d+\.\d+')
        self.assertIn('PredictionTime{ModelName="m",Level="Model",Hostname="w",} 12.5\n', text)
        self.assertEqual(text.count("# TYPE ts_inference_requests_total "), 1)
        self.assertEqual(text.count("# TYPE MemoryUsed gauge\n"), 1)
        self.assertEqual((self.server, self.model), ([], []))

    def test_legacy(self) -> None:
        """Three are on /metrics, the rest is in the log."""
        metrics = self.metrics("legacy")
        version = metrics.version("m", "1.0")
        metrics.answered(500)
        metrics.inference_requested("m", "1.0")
        version.batch_sent([Timing(0.0, True, 1.0, 1.5)], 0.0)
        version.batch_answered([Timing(0.0, True, 1.0, 1.5, 3.0)], 0.0)
        text = metrics.render().decode()
        labels = '{model_name="m",model_version="1.0",hostname="h",}'
        self.assertIn(f"ts_inference_requests_total{labels} 1.0\n", text)
        self.assertIn(f"ts_inference_latency_microseconds{labels} 3000000.0\n", text)
        self.assertIn(f"ts_queue_latency_microseconds{labels} 500000.0\n", text)
        self.assertNotIn("Requests5XX", text)
        self.assertEqual(
            [line.partition(".")[0] for line in self.server], ["Requests5XX", "QueueTime", "WorkerThreadTime"]
        )

    def test_redirects(self) -> None:
        """What is neither success nor error is counted as neither."""
        metrics = self.metrics("prometheus")
        for status in (101, 302, 304):
            metrics.answered(status)
        text = metrics.render().decode()
        for name in ("Requests2XX", "Requests4XX", "Requests5XX"):
            self.assertIn(f'{name}{{Level="Host",Hostname="h",}} 0.0\n', text)

    def test_chosen(self) -> None:
        """A metric that is not in the file is not emitted."""
        metrics = self.metrics("log", "ts_metrics: {counter: []}")
        metrics.answered(200)
        metrics.emitter.receive(LINE)
        self.assertEqual((self.server, self.model), ([], []))

    def test_another_kind(self) -> None:
        """A file may make a histogram of a gauge, with its own buckets."""
        yaml = (
            "ts_metrics: {histogram: [{name: QueueTime, unit: ms, dimensions: [Level, Hostname], buckets: [10, 100]}]}"
        )
        metrics = self.metrics("prometheus", yaml)
        metrics.version("m", "1").batch_sent([Timing(0.0, False, 0.0, 0.05)], 0.0)
        self.assertIn('QueueTime_bucket{Level="Host",Hostname="h",le="100.0",} 1.0\n', metrics.render().decode())

    def test_impossible_names(self) -> None:
        """A name that Prometheus does not have stops the start where it is to be shown, and only there."""
        for entry, told in [
            ("{name: a b, unit: s}", "'a b' is no name of a metric"),
            ("{name: a, unit: s, dimensions: [le]}", "'le', of a, is no name of a label"),
            ("{name: a, unit: s, dimensions: [__a]}", "is no name of a label"),
            ("{name: ts_answers_total, unit: s}", "Duplicated timeseries"),
        ]:
            yaml = f"model_metrics: {{gauge: [{entry}]}}"
            error = self.assertRaises(ConfigError, self.metrics, "prometheus", yaml)
            self.assertIn(told, str(error))
            self.metrics("log", yaml)


class HandlerMetricsTests(EmitterTestCase):
    """What workers print."""

    def test_unknown(self) -> None:
        """A metric that the file has not is dropped, which is said once."""
        metrics = self.metrics("log")
        [event] = self.warnings(metrics, CUSTOM, CUSTOM)
        self.assertEqual((event["name"], self.model), ("Cats", []))

    def test_auto_detect(self) -> None:
        """Unless the operator lets it in: with the unit, the type and the labels that the worker says."""
        metrics = self.metrics("log", auto_detect=True)
        self.assertEqual(self.warnings(metrics, CUSTOM), [])
        self.assertEqual(
            self.model, ["Cats.Count:2.0|#ModelName:m,Level:Model|#hostname:w,requestID:r1,timestamp:1717098363"]
        )
        metrics = self.metrics("prometheus", auto_detect=True)
        metrics.emitter.receive(CUSTOM)
        metrics.emitter.receive(CUSTOM)
        text = metrics.render().decode()
        self.assertIn("# TYPE Cats counter\n", text)
        self.assertIn('Cats{ModelName="m",Level="Model",Hostname="w",} 4.0\n', text)

    def test_trouble(self) -> None:
        """What cannot be used is told of once, changes nothing, and what comes after it counts."""
        metrics = self.metrics("prometheus", auto_detect=True)
        troubles = [
            "[METRICS]",
            LINE.replace("ModelName:m,", ""),
            CUSTOM.replace("Cats", "Two Cats"),
            CUSTOM.replace(":2|", ":-2|"),
        ]
        events = self.warnings(metrics, *troubles, *troubles)
        self.assertEqual(len(events), len(troubles))
        self.assertTrue(all(event["log_format"].startswith("Parse metrics failed") for event in events))
        metrics.emitter.receive(LINE)
        self.assertIn("PredictionTime{", metrics.render().decode())

    def test_bounded(self) -> None:
        """A handler that makes up labels for ever fills neither the memory nor the log."""
        self.patch(emitter, "MOST_SERIES", 5)
        for mode in ("prometheus", "log"):
            metrics = self.metrics(mode)
            lines = [LINE.replace("ModelName:m", f"ModelName:{number}") for number in range(20)]
            events = self.warnings(metrics, *lines)
            shown = metrics.render().decode().count("PredictionTime{")
            expected = (5, 1, 0) if mode == "prometheus" else (0, 0, 20)
            self.assertEqual((shown, len(events), len(self.model)), expected)

    @given(st.lists(st.text(max_size=20) | st.sampled_from([LINE, CUSTOM]), max_size=5))
    def test_anything(self, lines: list[str]) -> None:
        """Nothing that a worker prints does any harm."""
        metrics = self.metrics("prometheus", auto_detect=True)
        for line in lines:
            metrics.emitter.receive(line)
        metrics.render()


class TakenTests(EmitterTestCase):
    """What comes with workers' answers."""

    def test_log(self) -> None:
        """A value that is sent is the same line of the log as one that is printed, the first of its series or not."""
        metrics = self.metrics("log")
        value = parse_line(LINE)
        metrics.emitter.take([value, value])
        metrics.emitter.receive(LINE)
        line = "PredictionTime.ms:12.5|#ModelName:m,Level:Model|#hostname:w,requestID:r1,r2,timestamp:1717098363"
        self.assertEqual(self.model, [line, line, line])

    def test_trouble(self) -> None:
        """What cannot be used is told of once, forges no line, and what comes with it counts."""
        metrics = self.metrics("log")
        value = parse_line(LINE)
        troubles = [
            replace(value, name="Time.Of.Day"),
            replace(value, labels="Level:Model"),
            replace(value, kind="TIMER"),
            replace(value, time=-1),
            replace(value, name="Cats"),
        ]
        events = self.warnings(metrics, [*troubles, value, *troubles])
        self.assertEqual(len(events), len(troubles))
        metrics.emitter.take([replace(value, request_ids="a\nb\rc\u2028d")])
        self.assertEqual(len(self.model), 2)
        self.assertIn(",requestID:a b c d,", self.model[1])

    def test_refused_value(self) -> None:
        """A series may be known, and a value of it impossible."""
        metrics = self.metrics("prometheus", auto_detect=True)
        value = parse_line(CUSTOM)
        [event] = self.warnings(metrics, [value, replace(value, value=-1.0), replace(value, value=-1.0), value])
        self.assertIn("Cats.Count:-1.0", event["line"])
        self.assertIn('Cats{ModelName="m",Level="Model",Hostname="w",} 4.0\n', metrics.render().decode())

    def test_bounded(self) -> None:
        """A worker that sends more than a worker does fills neither the log nor a line of it."""
        metrics = self.metrics("log")
        value = parse_line(LINE)
        [event] = self.warnings(metrics, [value] * (emitter.MOST_AT_ONCE + 1))
        self.assertEqual((event["most"], len(self.model)), (emitter.MOST_AT_ONCE, emitter.MOST_AT_ONCE))
        metrics.emitter.take([replace(value, request_ids="r" * 10 * emitter.LONGEST_TEXT)])
        self.assertLess(len(self.model[-1]), emitter.LONGEST_TEXT + 100)

    @given(st.lists(readings(), max_size=5), st.sampled_from(["log", "prometheus", "legacy"]), st.booleans())
    def test_as_lines(self, values: list[Reading], mode: str, auto_detect: bool) -> None:
        """Whatever is sent, what becomes of it is what would have if it had been printed."""
        found = []
        for printed in (False, True):
            metrics = self.metrics(mode, auto_detect=auto_detect)
            lines = [f"{METRIC_MARK}{metric_line(*astuple(each))}" for each in values]
            events = self.warnings(metrics, *(lines if printed else [values]))
            told = [(each["log_format"], each.get("line"), each.get("name")) for each in events]
            series = [line for line in metrics.render().decode().splitlines() if "hostname" in line.lower()]
            found.append((self.model, told, series))
        self.assertEqual(*found)
