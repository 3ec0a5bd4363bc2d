# SPDX-License-Identifier: Apache-2.0
"""Tests for `twisted_serve.backend.service`: the metrics of handlers."""

from __future__ import annotations

import io
import os
import sys
from typing import Any, ClassVar

from tests.backend.handler_case import HandlerTestCase, job
from twisted_serve.backend import metric_buffer
from twisted_serve.wire.messages import MetricDefinition


class MetricTests(HandlerTestCase):
    """Which way metrics take."""

    def setUp(self) -> None:
        super().setUp()
        # Whatever else this machine is at.
        self.patch(metric_buffer, "LONGEST_WAIT", 600.0)
        self.output = io.StringIO()
        self.patch(sys, "stdout", self.output)

    def _printed(self) -> list[str]:
        lines = self.output.getvalue().splitlines()
        self.output.seek(0)
        self.output.truncate()
        self.assertTrue(all(line.startswith("[METRICS]") for line in lines), lines)
        return [line[len("[METRICS]") :].partition(".")[0] for line in lines]

    def _sent(self, code: str, jobs: int = 1) -> list[tuple[str, str]]:
        metrics = self.worker.answer(*(job(code, number) for number in range(jobs))).metrics
        return [(each.name, each.request_ids) for each in metrics]

    def test_with_the_answer(self) -> None:
        """Once it is known that answers come soon, metrics come with them, in order and with their requests."""
        self.assertEqual(self._sent("['a']"), [])
        self.assertEqual(self._printed(), ["PredictionTime"])
        code = "[context.metrics.add_counter('A', 1), context.metrics.add_time('B', 2, 1)] and ['a', 'b']"
        self.assertEqual(self._sent(code, 2), [("A", "r0,r1"), ("B", "r1"), ("PredictionTime", "r0,r1")])
        self.assertEqual(self._printed(), [])

    def test_with_the_failure(self) -> None:
        """Metrics emitted before a failure are sent with it, whatever failed."""
        self._sent("['a']")
        emit = "context.metrics.add_counter('A', 1)"
        self.assertEqual(self._sent(f"[{emit}, throw(ValueError())]"), [("A", "r0")])
        self.assertEqual(self._sent(f"[{emit}, throw(PredictionException('no', 404))]"), [("A", "r0")])
        for result in ("'no list'", "[]", "[object()]"):
            self.assertEqual(self._sent(f"({emit}, {result})[1]"), [("A", "r0"), ("PredictionTime", "r0")])

    def test_before_the_end(self) -> None:
        """Who ends the process is not answered: what was emitted is printed."""
        self._sent("['a']")
        self._printed()
        self.assertRaises(SystemExit, self.worker.answer, job("[context.metrics.add_counter('A', 1), sys.exit(3)]"))
        self.assertEqual(self._printed(), ["A"])

    def test_before_a_chunk(self) -> None:
        """A stream may be long: what was emitted before a chunk is not kept until the end."""
        self._sent("['a']")
        self._printed()
        code = (
            "(context.metrics.add_counter('A', 1), stream(context, 'a'), context.metrics.add_counter('B', 1), ['b'])[3]"
        )
        self.assertEqual(self._sent(code), [("B", "r0"), ("PredictionTime", "r0")])
        self.assertEqual(self._printed(), ["A"])

    def test_between_batches(self) -> None:
        """Metrics emitted between batches are printed, also those of a thread that a batch has left."""
        self._sent("['a']")
        self._sent("(setattr(sys.modules['h'], 'left', (context.metrics, copy_context())), ['a'])[1]")
        self._printed()
        metrics, there = sys.modules["h"].left
        metrics.add_counter("A", 1)
        there.run(metrics.add_counter, "B", 1)
        self.assertEqual(self._printed(), ["A", "B"])
        self.assertEqual(self._sent("['a']"), [("PredictionTime", "r0")])

    def test_from_a_thread(self) -> None:
        """Metrics emitted by another thread count, with or without the batch's context variable."""
        self._sent("['a']")
        self._printed()
        start = "(lambda f: (f.start(), f.join()))(Thread(target={}))"
        plain = start.format("lambda: context.metrics.add_counter('A', 1)")
        aware = start.format("lambda here=copy_context(): here.run(context.metrics.add_counter, 'B', 1)")
        self.assertEqual(self._sent(f"({plain}, {aware}, ['a'])[2]"), [("B", "r0"), ("PredictionTime", "r0")])
        self.assertEqual(self._printed(), ["A"])

    def test_from_a_child(self) -> None:
        """Metrics emitted by a process that the handler has forked are printed there, once."""
        self._sent("['a']")
        sys.stdout.flush()
        reading, writing = os.pipe()
        self.addCleanup(os.close, reading)
        code = (
            f"(context.metrics.add_counter('A', 1), fork(lambda: (setattr(sys, 'stdout', open({writing}, 'w')),"
            " context.metrics.add_counter('B', 1), sys.stdout.close())), ['a'])[2]"
        )
        self.assertEqual(self._sent(code), [("A", "r0"), ("PredictionTime", "r0")])
        os.close(writing)
        printed = os.read(reading, 10_000).decode().splitlines()
        self.assertEqual([line.partition(".")[0] for line in printed], ["[METRICS]B"])

    def test_copied(self) -> None:
        """A copy of the metrics, by whatever means, is as good as they are."""
        self._sent("['a']")
        for copied in ("copy.copy(context.metrics)", "copy.deepcopy(context.metrics)"):
            code = f"({copied}.add_counter('A', 1), ['a'])[1]"
            self.assertEqual(self._sent(code), [("A", "r0"), ("PredictionTime", "r0")])

    def test_not_to_be_sent(self) -> None:
        """A metric that the wire cannot carry breaks no answer: it is printed."""
        self._sent("['a']")
        self._printed()
        for metric in (
            "add_metric('A', 10**30, '')",
            "add_metric('A', float('inf'), '')",
            "add_metric('A', Fraction(1, 2), '')",
            "add_metric('A', 1, '', dimensions=[Dimension('x', chr(0xD800))])",
            "add_metric('A', 1, '', dimensions=[Dimension('x', 'a' + chr(10) + 'b')])",
            "add_metric('A', 1, '', dimensions=[Dimension('x', 'a' * 5000)])",
            "add_metric_to_cache(type('Text', (str,), {})('A'), 'ms').update(1)",
            "add_metric_to_cache('A', 'ms').add_or_update(1, request_id=5)",
        ):
            self.assertEqual(self._sent(f"(context.metrics.{metric}, ['a'])[1]"), [("PredictionTime", "r0")], metric)
            self.assertEqual(self._printed(), ["A"], metric)


class DefinedMetricTests(HandlerTestCase):
    """Metrics defined in ``metrics_config`` exist before the handler uses them."""

    settings: ClassVar[dict[str, Any]] = {"metrics": [MetricDefinition("Size", "count", "gauge", ["ModelName"])]}

    def test_found(self) -> None:
        """A handler gets it by name and type, as TorchServe's own example of custom metrics does."""
        code = "[str(context.metrics.get_metric('Size', __import__('ts.metrics.metric_type_enum', fromlist='a')"
        [item] = self._items(code + ".MetricTypes.GAUGE).dimension_names)]")
        self.assertEqual(b"['ModelName']", item.body)
