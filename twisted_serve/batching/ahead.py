# SPDX-License-Identifier: Apache-2.0
"""
This module implements how many batches may lie at a worker before it has answered the one it is at.

What lies there is begun the moment the worker is free, and many answers are read
at once; but it can go to no other worker any more, whatever happens to the one
before it.  So only quick handlers are given anything ahead of time.
"""

from __future__ import annotations

from math import inf

# Seconds that batches may lie at a worker, going by what the last ones took.
LONGEST_STAY = 0.002
# So many lie there at most, and no more once they have as many bytes: large ones take so long to be copied that
# nothing is gained, and would be in memory here and there.
MOST = 16
MOST_BYTES = 1 << 18

# How much of the difference to a batch that took less time is believed.
_SHARE = 1 / 8


class Ahead:
    """
    The allowance of one worker.

    :ivar batches: How many may lie there, besides the one it is at.
    """

    __slots__ = ("_typical", "batches")

    def __init__(self) -> None:
        self.batches = 0
        self._typical = inf

    def took(self, seconds: float) -> None:
        """
        Learn how long the worker took for a batch: a longer time counts at once, a shorter one by and by.

        :param seconds: As the worker measured it; ``0`` if it did not.
        """
        if not 0 < seconds < inf:
            self.batches, self._typical = 0, inf
            return
        typical = self._typical
        self._typical = typical + (seconds - typical) * _SHARE if seconds < typical < inf else seconds
        self.batches = min(MOST, int(LONGEST_STAY / self._typical))
