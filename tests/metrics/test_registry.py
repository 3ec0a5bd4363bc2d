# SPDX-License-Identifier: Apache-2.0
"""Tests for the server's own metrics, read back with Prometheus' own parser."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families
from twisted.trial.unittest import SynchronousTestCase

from twisted_serve.auth.keyring import Reason
from twisted_serve.auth.tokens import TokenKind
from twisted_serve.metrics.registry import CONTENT_TYPE, ServerMetrics

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def samples(metrics: ServerMetrics, *names: str) -> Samples:
    """Scrape."""
    families = text_string_to_metric_families(metrics.render(names).decode("utf-8"))
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value for each in families for sample in each.samples
    }


def sample(metrics: ServerMetrics, name: str, **labels: str) -> float:
    """Scrape one sample."""
    return samples(metrics)[name, frozenset(labels.items())]


class ServerMetricsTests(SynchronousTestCase):
    """Tests for `ServerMetrics`."""

    @given(st.lists(st.integers(-10, 1000)))
    def test_answers(self, statuses: list[int]) -> None:
        """Every answer is counted once, in the class of its status; odd statuses fall into the nearest."""
        metrics = ServerMetrics("h")
        for status in statuses:
            metrics.answered(status)
        for digit in range(1, 6):
            expected = sum(min(max(status // 100, 1), 5) == digit for status in statuses)
            self.assertEqual(sample(metrics, "ts_answers_total", code_class=f"{digit}xx"), expected)

    @given(st.lists(st.tuples(st.text(), st.text())), st.text())
    def test_predictions(self, models: list[tuple[str, str]], hostname: str) -> None:
        """Predictions are counted for each model and version, whatever characters their names have."""
        metrics = ServerMetrics(hostname)
        for name, version in models:
            metrics.inference_requested(name, version)
        for name, version in models:
            counted = sample(
                metrics, "ts_inference_requests_total", model_name=name, model_version=version, hostname=hostname
            )
            self.assertEqual(counted, models.count((name, version)))

    def test_refusals_and_rotations(self) -> None:
        """Refusals are counted by kind and reason, rotations by kind."""
        metrics = ServerMetrics("h")
        for kind in TokenKind:
            for number, reason in enumerate(Reason, 1):
                for _ in range(number):
                    metrics.token_refused(kind.value, reason.value)
        metrics.token_rotated("inference")
        for kind in TokenKind:
            for number, reason in enumerate(Reason, 1):
                refused = sample(metrics, "ts_token_refused_total", kind=kind.value, reason=reason.value)
                self.assertEqual(refused, number)
        self.assertEqual(sample(metrics, "ts_token_rotations_total", kind="inference"), 1)
        self.assertNotIn(("ts_token_rotations_total", frozenset({("kind", "management")})), samples(metrics))

    def test_seconds_left(self) -> None:
        """The seconds left of a token are those of the scrape, not of some moment before."""
        metrics = ServerMetrics("h")
        left = 60.0
        metrics.watch_tokens({"inference": lambda: left, "management": lambda: float("inf")})
        self.assertEqual(sample(metrics, "ts_token_seconds_left", kind="inference"), 60)
        left = 0.5
        self.assertEqual(sample(metrics, "ts_token_seconds_left", kind="inference"), 0.5)
        self.assertEqual(sample(metrics, "ts_token_seconds_left", kind="management"), float("inf"))

    def test_chosen_names(self) -> None:
        """Of named metrics only these are rendered, and nothing for a name that is none."""
        metrics = ServerMetrics("h")
        self.assertEqual({name for name, _labels in samples(metrics, "ts_answers_total")}, {"ts_answers_total"})
        self.assertEqual(samples(metrics, "no_such_metric"), {})
        self.assertEqual(metrics.render(["no_such_metric"]), b"")

    def test_registries_are_apart(self) -> None:
        """Two servers in one process do not count each other's answers."""
        one, other = ServerMetrics("h"), ServerMetrics("h")
        one.answered(200)
        self.assertEqual(sample(one, "ts_answers_total", code_class="2xx"), 1)
        self.assertEqual(sample(other, "ts_answers_total", code_class="2xx"), 0)

    def test_content_type(self) -> None:
        """The content type is that of Prometheus' text format."""
        self.assertTrue(CONTENT_TYPE.startswith("text/plain; version=0.0.4"))
