# SPDX-License-Identifier: Apache-2.0
"""Tests for `twisted_serve.scheduling.backoff`."""

from __future__ import annotations

from hypothesis import given
from hypothesis.strategies import integers
from twisted.trial.unittest import SynchronousTestCase

from twisted_serve.scheduling.backoff import retry_delay


class RetryDelayTests(SynchronousTestCase):
    """The delay before a failed worker is restarted."""

    def test_table(self) -> None:
        """The delays are TorchServe's; the last one repeats."""
        self.assertEqual([1, 1, 2, 3, 5, 8], [retry_delay(attempt) for attempt in range(6)])
        self.assertEqual([987, 1597, 1597], [retry_delay(attempt) for attempt in (15, 16, 1000)])

    @given(integers(0, 10_000))
    def test_never_shorter(self, attempt: int) -> None:
        """No delay is shorter than the one before."""
        self.assertLessEqual(retry_delay(attempt), retry_delay(attempt + 1))
