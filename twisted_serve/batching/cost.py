# SPDX-License-Identifier: Apache-2.0
"""
Estimate batch times and arrivals from recent ones, and derive how long to wait for a fuller batch.

A batch of ``n`` jobs is modelled to take ``a·n + b`` seconds; batching saves ``b`` for each job that joins.
"""

from __future__ import annotations

from collections import deque

# Decay of older observations per batch: about the last twenty count.
_BATCH_MEMORY = 0.95

# Number of recent gaps between arrivals that count, and the factor by which a wait exceeds the chosen gap.
_GAPS = 32
_SLACK = 1.25

# Minimum relative variance of batch sizes from which the dependence of the cost on the size can be estimated.
_SPREAD = 1e-9


class BatchCost:
    """
    A least-squares line through the times of recent batches.

    Each new batch reduces the weight of older ones, so that only five sums are stored.
    """

    __slots__ = ("_line", "_n", "_nn", "_nt", "_t", "_weight")

    def __init__(self) -> None:
        self._weight = self._n = self._nn = self._t = self._nt = 0.0
        self._line: tuple[float, float] | None = None

    @property
    def known(self) -> bool:
        """Whether any batch has been observed."""
        return self._weight > 0

    def observe(self, size: int, seconds: float) -> None:
        """Record that a batch of ``size`` jobs took ``seconds``."""
        keep = _BATCH_MEMORY
        self._weight = keep * self._weight + 1
        self._n = keep * self._n + size
        self._nn = keep * self._nn + size * size
        self._t = keep * self._t + seconds
        self._nt = keep * self._nt + size * seconds
        self._line = None

    @property
    def per_job(self) -> float:
        """``a``: the cost of each further job in seconds; never negative."""
        return self._fitted()[0]

    @property
    def per_batch(self) -> float:
        """``b``: the fixed cost of a batch in seconds; never negative."""
        return self._fitted()[1]

    def of(self, size: int) -> float:
        """Return the expected seconds for a batch of ``size`` jobs; 0 before any observation."""
        per_job, per_batch = self._fitted()
        return per_job * size + per_batch

    def _fitted(self) -> tuple[float, float]:
        if self._line is None:
            self._line = self._fit()
        return self._line

    def _fit(self) -> tuple[float, float]:
        if not self._weight:
            return 0.0, 0.0
        mean_n, mean_t = self._n / self._weight, self._t / self._weight
        spread = self._nn / self._weight - mean_n * mean_n
        # The best line with non-negative slope and intercept.  If all batches had the same size, the cost is attributed
        # to the jobs, so that requests do not wait for a saving that has not been observed.
        through_origin = self._nt / self._nn
        if spread <= _SPREAD * mean_n * mean_n:
            return through_origin, 0.0
        slope = (self._nt / self._weight - mean_n * mean_t) / spread
        if slope <= 0:
            return 0.0, mean_t
        rest = mean_t - slope * mean_n
        return (slope, rest) if rest >= 0 else (through_origin, 0.0)


class Forecast:
    """
    Estimates of a queue's next arrival and of its batches.

    :param max_delay: Maximum seconds that a batch waits for further jobs.
    """

    __slots__ = ("_gaps", "_last", "_max_delay", "cost")

    def __init__(self, max_delay: float) -> None:
        self.cost = BatchCost()
        self._max_delay = max_delay
        self._last: float | None = None
        self._gaps: deque[float] = deque(maxlen=_GAPS)

    def arrived(self, now: float) -> None:
        """Record the arrival of a job."""
        if self._last is not None:
            # Clamped, because a longer pause says no more than one of max_delay, for which no batch waits.
            self._gaps.append(min(max(0.0, now - self._last), self._max_delay))
        self._last = now

    def patience(self, size: int) -> float:
        """
        Return how long ``size`` jobs, for which the last free worker is available, should wait for one more.

        If they are dispatched immediately, the next job waits until they are done and then pays ``b`` alone.  If they
        wait ``gap`` for it, each of them is answered later by ``gap + a``, and ``b`` is paid once: the sum of all
        delays is smaller by ``b - size·a - (size + 1)·gap``.  If no job arrives during the wait, the sum is larger by
        ``size`` times the wait.  The recent gaps give the frequency of both; the mean gap would not, because the pauses
        between bursts outweigh the gaps within.

        :return: Seconds from the last arrival, 0 if waiting does not pay.
        """
        saved = self.cost.per_batch - size * self.cost.per_job
        best, wait, caught = 0.0, 0.0, 0.0
        if saved > 0:
            for more, gap in zip(range(len(self._gaps) - 1, -1, -1), sorted(self._gaps), strict=True):
                caught += saved - (size + 1) * gap
                gain = caught - more * size * gap
                if gain > best:
                    best, wait = gain, gap
        return wait * _SLACK

    def answered_in(self, ahead: int, batch_size: int, workers: int, free: int = 0) -> float:
        """
        Return the expected seconds until a job with ``ahead`` jobs before it is answered.

        Running batches are assumed to have just started.  If the queue is longer than a batch, jobs arrive faster than
        they are processed, and the job's own batch will be full.

        :param workers: The number of workers.
        :param free: The number of idle workers.
        """
        batches = ahead // batch_size
        each = self.cost.of(batch_size if batches else min(batch_size, ahead + 1))
        return ((batches + (not free)) / max(1, workers) + 1) * each
