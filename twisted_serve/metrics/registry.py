# SPDX-License-Identifier: Apache-2.0
"""
This module implements the server's own metrics, on a Prometheus registry which belongs to one server.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class ServerMetrics:
    """
    The metrics of one server.

    :param hostname: The value of the ``hostname`` label.
    """

    def __init__(self, hostname: str) -> None:
        self._hostname = hostname
        self._registry = CollectorRegistry()
        self._answers = Counter(
            "ts_answers", "HTTP answers by class of status code.", ["code_class"], registry=self._registry
        )
        self._inference = Counter(
            "ts_inference_requests",
            "Prediction requests which found their model.",
            ["model_name", "model_version", "hostname"],
            registry=self._registry,
        )
        self._refused = Counter(
            "ts_token_refused", "Requests refused for their token.", ["kind", "reason"], registry=self._registry
        )
        self._rotations = Counter(
            "ts_token_rotations", "Tokens which were replaced.", ["kind"], registry=self._registry
        )
        self._seconds_left = Gauge(
            "ts_token_seconds_left", "Seconds until a token expires.", ["kind"], registry=self._registry
        )
        self._answer_classes = {n: self._answers.labels(code_class=f"{n}xx") for n in range(1, 6)}

    def answered(self, status: int) -> None:
        """Count an HTTP answer."""
        self._answer_classes[min(max(status // 100, 1), 5)].inc()

    def inference_requested(self, model_name: str, model_version: str) -> None:
        """Count a prediction request; the version is ``default`` when the request names none."""
        self._inference.labels(model_name, model_version, self._hostname).inc()

    def token_refused(self, kind: str, reason: str) -> None:
        """Count a request which was refused."""
        self._refused.labels(kind, reason).inc()

    def token_rotated(self, kind: str) -> None:
        """Count a token which was replaced."""
        self._rotations.labels(kind).inc()

    def watch_tokens(self, seconds_left: Mapping[str, Callable[[], float]]) -> None:
        """Have the seconds left of each kind of token read at each scrape."""
        for kind, read in seconds_left.items():
            self._seconds_left.labels(kind).set_function(read)

    def render(self, names: Collection[str] = ()) -> bytes:
        """Write the metrics in Prometheus' text format, only those named if any are."""
        registry = self._registry.restricted_registry(names) if names else self._registry
        return bytes(generate_latest(registry))
