# SPDX-License-Identifier: Apache-2.0
"""
Count latencies in bounded memory.

Each is counted in a bucket 1 % wide, so that a percentile is at most 1 % too high; the mean and the largest are exact.
"""

from __future__ import annotations

import math

_WIDTH = math.log(1.01)

# Seconds; what is quicker is counted as this.
_LEAST = 1e-6


class Latencies:
    """
    The latencies of requests, in seconds.

    :ivar count: How many.
    :ivar longest: The largest; 0 without any.
    """

    def __init__(self) -> None:
        self.count = 0
        self.longest = 0.0
        self._sum = 0.0
        self._buckets: dict[int, int] = {}

    def add(self, seconds: float) -> None:
        """Count a latency."""
        self.count += 1
        self._sum += seconds
        self.longest = max(self.longest, seconds)
        bucket = math.ceil(math.log(max(seconds, _LEAST)) / _WIDTH)
        self._buckets[bucket] = self._buckets.get(bucket, 0) + 1

    @property
    def mean(self) -> float:
        """The mean; 0 without any."""
        return self._sum / self.count if self.count else 0.0

    def percentile(self, percent: float) -> float:
        """Return the latency that so many percent of the requests do not exceed; 0 without any."""
        wanted, seen = self.count * percent / 100, 0
        for bucket in sorted(self._buckets):
            seen += self._buckets[bucket]
            if seen >= wanted:
                return min(math.exp(bucket * _WIDTH), self.longest)
        return 0.0
