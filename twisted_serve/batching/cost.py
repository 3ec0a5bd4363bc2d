# SPDX-License-Identifier: Apache-2.0
"""
Estimate batch times and arrivals from recent ones, and derive how long to wait for a fuller batch.

A batch of ``n`` jobs is modelled to take ``a·n + b`` seconds; batching saves ``b`` for each job that joins.
"""

from __future__ import annotations

from math import inf

# Decay of older observations per batch and per arrival: about the last twenty batches and five arrivals count.
_BATCH_MEMORY = 0.95
_ARRIVAL_MEMORY = 0.8

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

    __slots__ = ("_gap", "_last", "_max_delay", "cost")

    def __init__(self, max_delay: float) -> None:
        self.cost = BatchCost()
        self._max_delay = max_delay
        self._last: float | None = None
        self._gap = inf

    @property
    def gap(self) -> float:
        """The moving average of seconds between arrivals; infinite before two arrivals."""
        return self._gap

    def arrived(self, now: float) -> None:
        """Record the arrival of a job."""
        if self._last is not None:
            # Clamped, because a longer pause says no more than one of max_delay, for which no batch waits.
            gap = min(max(0.0, now - self._last), self._max_delay)
            self._gap = gap if self._gap == inf else _ARRIVAL_MEMORY * self._gap + (1 - _ARRIVAL_MEMORY) * gap
        self._last = now

    def patience(self, size: int) -> float:
        """
        Return how long ``size`` jobs, for which the last free worker is available, should wait for one more.

        If they are dispatched immediately, the next job waits until they are done and then pays ``b`` alone.  If they
        wait ``gap`` for it, each of them is answered later by ``gap + a``, and ``b`` is paid once.  The sum of all
        delays is smaller if they wait as long as ``(size + 1)·gap < b - size·a``.

        :return: Seconds from the last arrival, after which the expected job has not come; 0 if waiting does not pay.
        """
        worth = (self.cost.per_batch - size * self.cost.per_job) / (size + 1)
        return worth if self._gap < worth else 0.0

    def answered_in(self, ahead: int, batch_size: int, workers: int) -> float:
        """
        Return the minimum expected seconds until a job with ``ahead`` jobs before it is answered.

        :param workers: Number of workers, all assumed to become free immediately.
        """
        rounds = ahead // batch_size // max(1, workers)
        return rounds * self.cost.of(batch_size) + self.cost.of(1)
