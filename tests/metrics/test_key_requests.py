# SPDX-License-Identifier: Apache-2.0
"""
Tests for ``twisted_serve.metrics.key_requests``.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry
from twisted.trial.unittest import SynchronousTestCase

from twisted_serve.metrics.key_requests import MOST_KEYS, OTHER, KeyRequests


class KeyRequestsTests(SynchronousTestCase):
    """Tests for the counters of keys."""

    def setUp(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = KeyRequests(self.registry)

    def value(self, key: str, outcome: str = "admitted") -> float | None:
        return self.registry.get_sample_value("ts_key_requests_total", {"key": key, "outcome": outcome})

    def series(self) -> int:
        [family] = self.registry.collect()
        return len(family.samples)

    def test_counted(self) -> None:
        """Requests are counted by key and outcome."""
        for key, outcome in (("a", "admitted"), ("a", "admitted"), ("a", "rate"), ("b", "admitted")):
            self.requests.count(key, outcome)
        self.assertEqual((self.value("a"), self.value("a", "rate"), self.value("b")), (2, 1, 1))
        self.assertIsNone(self.value("b", "rate"))

    def test_bounded(self) -> None:
        """However many keys there are, the first ones have series, and the others one together."""
        for number in range(MOST_KEYS + 500):
            self.requests.count(f"k{number}", "admitted")
        self.assertEqual(self.series(), MOST_KEYS + 1)
        self.assertEqual((self.value(f"k{MOST_KEYS - 1}"), self.value(f"k{MOST_KEYS}")), (1, None))
        self.assertEqual(self.value(OTHER), 500)

    def test_gone(self) -> None:
        """A key that is gone has no series, and leaves its place to another; what is counted together stays."""
        for number in range(MOST_KEYS + 1):
            self.requests.count(f"k{number}", "admitted")
        self.requests.count("k0", "scope")
        self.requests.forget(["k0", "k1", "never"])
        self.assertEqual((self.value("k0"), self.value("k0", "scope"), self.value("k1")), (None, None, None))
        self.requests.count("new", "admitted")
        self.assertEqual((self.value("new"), self.value(OTHER)), (1, 1))
