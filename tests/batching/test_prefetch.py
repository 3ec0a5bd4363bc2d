# SPDX-License-Identifier: Apache-2.0
"""Tests for `twisted_serve.batching.prefetch`."""

from __future__ import annotations

from math import inf, nan

from hypothesis import given
from hypothesis.strategies import floats, lists
from twisted.trial.unittest import SynchronousTestCase

from twisted_serve.batching.prefetch import LONGEST_STAY, MOST, Prefetch


def after(*seconds: float) -> int:
    """Return how many batches may be prefetched to a worker after these times."""
    ahead = Prefetch()
    for each in seconds:
        ahead.took(each)
    return ahead.batches


class AheadTests(SynchronousTestCase):
    """Tests for the number of prefetched batches."""

    def test_by_its_time(self) -> None:
        """As many as it works off in the time that one may lie there, up to a limit; none if that is unknown."""
        self.assertEqual(0, Prefetch().batches)
        self.assertEqual(1, after(LONGEST_STAY))
        self.assertEqual(4, after(LONGEST_STAY / 4))
        self.assertEqual(MOST, after(1e-9))
        self.assertEqual(0, after(LONGEST_STAY * 1.01))

    def test_no_measure(self) -> None:
        """What is no time says nothing, and makes nothing of what was known."""
        for odd in (0.0, -1.0, nan, inf):
            self.assertEqual(0, after(1e-5, odd))
            self.assertEqual(MOST, after(odd, 1e-5))

    def test_one_slow_batch(self) -> None:
        """A slow batch stops prefetching immediately; several fast ones are needed to resume it."""
        ahead = Prefetch()
        ahead.took(0.0001)
        ahead.took(0.05)
        self.assertEqual(0, ahead.batches)
        needed = 0
        while not ahead.batches:
            ahead.took(0.0001)
            needed += 1
        self.assertGreater(needed, 8)
        self.assertLess(needed, 64)

    @given(lists(floats(1e-6, 10.0), min_size=1))
    def test_never_more_than_the_last_one_allows(self, seconds: list[float]) -> None:
        """Prefetched batches finish within the limit if each takes as long as the last batch."""
        self.assertLessEqual(after(*seconds) * seconds[-1], LONGEST_STAY * 1.001)
        self.assertLessEqual(after(*seconds), MOST)
