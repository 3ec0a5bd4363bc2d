# SPDX-License-Identifier: Apache-2.0
"""
Decide how many batches to prefetch to a worker.

A worker starts a prefetched batch the moment it is free, and the server reads several responses in one go; but a
prefetched batch can no longer go to another worker, whatever happens to the batch before it.  Therefore only workers
with fast handlers prefetch.
"""

from __future__ import annotations

from math import inf

# Maximum seconds that prefetched batches wait at a worker, estimated from recent batches.
LONGEST_STAY = 0.002
# Maximum number of prefetched batches, and the number of bytes after which no more are sent: large batches take so long
# to copy that prefetching gains nothing, and would occupy memory in both processes.
MOST = 16
MOST_BYTES = 1 << 18

# Weight of a new, shorter batch time in the moving average.
_SMOOTHING = 1 / 8


class Prefetch:
    """
    The number of batches that may be prefetched to one worker.

    :ivar batches: Batches allowed besides the one in progress.
    """

    __slots__ = ("_typical", "batches")

    def __init__(self) -> None:
        self.batches = 0
        self._typical = inf

    def took(self, seconds: float) -> None:
        """
        Record a batch's time: a longer one takes effect immediately, a shorter one gradually.

        :param seconds: As the worker measured it; ``0`` if it did not.
        """
        if not 0 < seconds < inf:
            self.batches, self._typical = 0, inf
            return
        typical = self._typical
        self._typical = typical + (seconds - typical) * _SMOOTHING if seconds < typical < inf else seconds
        self.batches = min(MOST, int(LONGEST_STAY / self._typical))
