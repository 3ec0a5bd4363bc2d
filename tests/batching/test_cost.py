# SPDX-License-Identifier: Apache-2.0
"""Tests for `twisted_serve.batching.cost`."""

from __future__ import annotations

from hypothesis import given
from hypothesis.strategies import floats, integers, lists, tuples
from twisted.trial.unittest import SynchronousTestCase

from twisted_serve.batching.cost import BatchCost, Forecast

batches = lists(tuples(integers(1, 64), floats(0, 100, allow_nan=False)), min_size=1, max_size=50)


def learned(*seen: tuple[int, float]) -> BatchCost:
    """Return the cost learned from these batches."""
    cost = BatchCost()
    for size, seconds in seen:
        cost.observe(size, seconds)
    return cost


class BatchCostTests(SynchronousTestCase):
    """Tests for the line through the times of recent batches."""

    def test_nothing_known(self) -> None:
        """Before the first batch nothing is claimed."""
        cost = BatchCost()
        self.assertEqual((False, 0.0), (cost.known, cost.of(8)))

    def test_one_size(self) -> None:
        """Batches of one size say nothing of what a batch costs besides its jobs."""
        cost = learned((4, 2.0), (4, 2.0))
        self.assertTrue(cost.known)
        self.assertAlmostEqual(0.5, cost.per_job)
        self.assertEqual(0.0, cost.per_batch)

    @given(
        floats(0, 10), floats(0, 10), lists(integers(1, 64), min_size=2, max_size=60).filter(lambda s: len({*s}) > 1)
    )
    def test_finds_the_line(self, per_job: float, per_batch: float, sizes: list[int]) -> None:
        """A line is found from times at any two sizes."""
        cost = learned(*((size, per_job * size + per_batch) for size in sizes))
        for size in (1, 10, 64):
            self.assertAlmostEqual(per_job * size + per_batch, cost.of(size), delta=1e-3)

    @given(batches)
    def test_never_negative(self, seen: list[tuple[int, float]]) -> None:
        """Whatever the times were, nothing is free of cost and more jobs take no less time."""
        cost = learned(*seen)
        self.assertGreaterEqual(cost.per_job, 0)
        self.assertGreaterEqual(cost.per_batch, 0)
        self.assertLessEqual(cost.of(1), cost.of(2))

    @given(batches, floats(0.1, 10))
    def test_forgets(self, seen: list[tuple[int, float]], seconds: float) -> None:
        """When the handler becomes faster or slower, that is known soon."""
        cost = learned(*seen)
        for _ in range(300):
            cost.observe(1, seconds)
            cost.observe(8, 8 * seconds)
        self.assertAlmostEqual(1.0, cost.of(4) / (4 * seconds), delta=0.05)


class ForecastTests(SynchronousTestCase):
    """Tests for the forecast of the next arrival."""

    def forecast(self, gaps: list[float], per_job: float, per_batch: float) -> Forecast:
        """Return the forecast after arrivals with these gaps, and two batches."""
        forecast = Forecast(10.0)
        now = 0.0
        forecast.arrived(now)
        for gap in gaps:
            now += gap
            forecast.arrived(now)
        for size in (1, 4):
            forecast.cost.observe(size, per_job * size + per_batch)
        return forecast

    def test_waits_only_while_it_pays(self) -> None:
        """A dear batch waits for a job that is about to come, a cheap one does not, nor a large one."""
        regular = [0.1] * 20
        self.assertAlmostEqual(0.125, self.forecast(regular, 0.2, 1.0).patience(1))
        self.assertEqual(0.0, self.forecast(regular, 0.2, 0.3).patience(1))
        self.assertEqual(0.0, self.forecast([0.5] * 20, 0.2, 1.0).patience(1))
        self.assertEqual(0.0, self.forecast(regular, 0.2, 1.0).patience(4))

    def test_bursts(self) -> None:
        """The pauses between bursts do not keep the first job of a burst from waiting for the others."""
        forecast = self.forecast([0.01, 0.01, 0.01, 5.0] * 8, 0.1, 1.0)
        self.assertAlmostEqual(0.0125, forecast.patience(1))

    def test_rare_jobs(self) -> None:
        """Two jobs that once came together do not make all others wait."""
        self.assertEqual(0.0, self.forecast([0.5] + [5.0] * 31, 0.1, 1.0).patience(1))

    def test_nothing_known(self) -> None:
        """Without observations, a batch does not wait."""
        forecast = Forecast(10.0)
        self.assertEqual(0.0, forecast.patience(1))
        forecast.arrived(0.0)
        self.assertEqual(0.0, forecast.patience(1))

    def test_forgets_gaps(self) -> None:
        """When arrivals become rare, that is known after some of them."""
        self.assertEqual(0.0, self.forecast([0.01] * 100 + [5.0] * 32, 0.1, 1.0).patience(1))

    @given(lists(floats(0.001, 2), min_size=1, max_size=32), floats(0, 1), floats(0, 1), integers(1, 64))
    def test_the_best_wait(self, gaps: list[float], per_job: float, per_batch: float, size: int) -> None:
        """Over the last gaps no other wait would have made the sum of all delays smaller."""
        forecast = self.forecast(gaps, per_job, per_batch)
        a, b, n = forecast.cost.per_job, forecast.cost.per_batch, size

        def delays(wait: float) -> float:
            total = 0.0
            for gap in gaps:
                if wait and gap <= wait * (1 + 1e-9):
                    total += n * (gap + a * (n + 1) + b) + (a * (n + 1) + b)
                else:
                    # In vain: the next job finds the worker as if nothing had waited.
                    total += n * (wait + a * n + b) + (a * n + b - gap) + (a + b)
            return total

        chosen = delays(forecast.patience(n) / 1.25)
        for wait in (0.0, *gaps):
            self.assertLessEqual(chosen, delays(wait) + 1e-6)

    @given(integers(0, 200), integers(1, 32), integers(0, 8), integers(0, 8))
    def test_time_of_an_answer(self, ahead: int, batch_size: int, workers: int, free: int) -> None:
        """More workers, or a free one, never make an answer later, more jobs ahead never earlier."""
        forecast = self.forecast([0.1] * 20, 0.2, 1.0)
        needed = forecast.answered_in(ahead, batch_size, workers, free)
        self.assertLessEqual(forecast.answered_in(ahead, batch_size, workers + 1, free), needed)
        self.assertLessEqual(forecast.answered_in(ahead, batch_size, workers, 1), needed)
        self.assertLessEqual(needed, forecast.answered_in(ahead + 1, batch_size, workers, free) + 1e-9)
        self.assertAlmostEqual(1.2, forecast.answered_in(0, batch_size, workers, 1))
        self.assertAlmostEqual(2.4, forecast.answered_in(0, batch_size, 1, 0))
