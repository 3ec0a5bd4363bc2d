# SPDX-License-Identifier: Apache-2.0
"""
This module implements what is learned from the last batches and arrivals, and what follows for those that wait.

A batch of ``n`` jobs is taken to cost ``a·n + b`` seconds; ``b`` is what company saves.
"""

from __future__ import annotations

from math import inf

# What each batch, or arrival, leaves of the weight of those before it: about the last twenty, or five, count.
_BATCH_MEMORY = 0.95
_ARRIVAL_MEMORY = 0.8

# Sizes that differ by less, relatively, say nothing of how the cost depends on the size.
_SPREAD = 1e-9


class BatchCost:
    """
    The line through the times of recent batches, by least squares.

    Each new batch makes the older ones count less, so that five sums are all that is kept.
    """

    __slots__ = ("_line", "_n", "_nn", "_nt", "_t", "_weight")

    def __init__(self) -> None:
        self._weight = self._n = self._nn = self._t = self._nt = 0.0
        self._line: tuple[float, float] | None = None

    @property
    def known(self) -> bool:
        """Whether there has been a batch at all."""
        return self._weight > 0

    def observe(self, size: int, seconds: float) -> None:
        """Learn that a batch of ``size`` jobs took ``seconds``."""
        keep = _BATCH_MEMORY
        self._weight = keep * self._weight + 1
        self._n = keep * self._n + size
        self._nn = keep * self._nn + size * size
        self._t = keep * self._t + seconds
        self._nt = keep * self._nt + size * seconds
        self._line = None

    @property
    def per_job(self) -> float:
        """``a``: what one more job adds, in seconds; never negative."""
        return self._fitted()[0]

    @property
    def per_batch(self) -> float:
        """``b``: what every batch costs besides, in seconds; never negative."""
        return self._fitted()[1]

    def of(self, size: int) -> float:
        """Say how many seconds a batch of ``size`` jobs will probably take; 0 while nothing is known."""
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
        # The best line that falls nowhere and starts nowhere below nothing.  If all batches were of one size,
        # the whole cost is laid to the jobs: nobody waits for company of which nothing is known.
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
    What to expect of a queue's next arrival and of its batches.

    :param max_delay: The longest that anybody waits for company, in seconds.
    """

    __slots__ = ("_gap", "_last", "_max_delay", "cost")

    def __init__(self, max_delay: float) -> None:
        self.cost = BatchCost()
        self._max_delay = max_delay
        self._last: float | None = None
        self._gap = inf

    @property
    def gap(self) -> float:
        """The seconds from one arrival to the next, averaged, recent ones first; infinite while nothing is known."""
        return self._gap

    def arrived(self, now: float) -> None:
        """Learn that a job came."""
        if self._last is not None:
            # A night without clients says no more than a pause in which nobody would have been waited for.
            gap = min(max(0.0, now - self._last), self._max_delay)
            self._gap = gap if self._gap == inf else _ARRIVAL_MEMORY * self._gap + (1 - _ARRIVAL_MEMORY) * gap
        self._last = now

    def patience(self, size: int) -> float:
        """
        Say how long ``size`` jobs, for which the last free worker is there, wait for one more.

        If they go at once, the next job waits until they are done and then pays ``b``
        alone.  If they wait ``gap`` for it, each of them is answered by ``gap + a``
        later, and ``b`` is paid once.  The sum of all delays is smaller if they wait
        as long as ``(size + 1)·gap < b - size·a``.

        :return: Seconds from the last arrival, 0 if waiting does not pay; when they are
            over, what was hoped for has not come.
        """
        worth = (self.cost.per_batch - size * self.cost.per_job) / (size + 1)
        return worth if self._gap < worth else 0.0

    def answered_in(self, ahead: int, batch_size: int, workers: int) -> float:
        """
        Say in how many seconds, at best, a job is answered before which ``ahead`` others wait.

        :param workers: How many there are; they may all be free in a moment, for all that is known.
        """
        rounds = ahead // batch_size // max(1, workers)
        return rounds * self.cost.of(batch_size) + self.cost.of(1)
