# SPDX-License-Identifier: Apache-2.0
"""Tests for `twisted_serve.scheduling.autoscaling`."""

from __future__ import annotations

from attrs import evolve
from hypothesis import assume, given
from hypothesis.strategies import SearchStrategy, builds, floats, integers
from twisted.trial.unittest import SynchronousTestCase

from twisted_serve.scheduling.autoscaling import LoadSample, ScalingRules, next_check, wanted_workers

RULES = ScalingRules(1, 8, up_delay=1.0, idle_time=60.0, batch_size=4)


def rules() -> SearchStrategy[ScalingRules]:
    """Build bounds and delays."""
    return builds(
        lambda least, more, up, idle, size: ScalingRules(least, least + more, up, idle, size),
        integers(0, 4),
        integers(0, 8),
        floats(0, 10),
        floats(0.1, 100),
        integers(1, 8),
    )


def samples() -> SearchStrategy[LoadSample]:
    """Build load samples of a pool."""
    return builds(
        LoadSample,
        workers=integers(0, 12),
        starting=integers(0, 2),
        free=integers(0, 3),
        waiting=integers(0, 100),
        oldest_wait=floats(0, 20),
        longest_idle=floats(0, 200),
    )


class ScalingTests(SynchronousTestCase):
    """The wanted number of workers."""

    def test_up(self) -> None:
        """If a request has waited too long, workers are added: as many as can be used, at most doubling the number."""
        self.assertEqual(1, wanted_workers(RULES, LoadSample(1, waiting=9, oldest_wait=0.9)))
        self.assertEqual(2, wanted_workers(RULES, LoadSample(1, waiting=9, oldest_wait=1.0)))
        self.assertEqual(4, wanted_workers(RULES, LoadSample(3, waiting=4, oldest_wait=1.0)))
        self.assertEqual(6, wanted_workers(RULES, LoadSample(3, waiting=99, oldest_wait=1.0)))
        self.assertEqual(8, wanted_workers(RULES, LoadSample(7, waiting=99, oldest_wait=1.0)))

    def test_help_is_under_way(self) -> None:
        """While a worker is starting, no other is started, however long requests wait."""
        self.assertEqual(2, wanted_workers(RULES, LoadSample(2, starting=1, waiting=9, oldest_wait=99.0)))

    def test_waiting_to_fill_a_batch(self) -> None:
        """Requests which wait for their batch to fill, while a worker is free, need no other worker."""
        self.assertEqual(1, wanted_workers(RULES, LoadSample(1, free=1, waiting=3, oldest_wait=9.0)))

    def test_from_nothing(self) -> None:
        """Without any worker the first request does not wait for the delay."""
        none = evolve(RULES, min_workers=0)
        self.assertEqual(1, wanted_workers(none, LoadSample(0, waiting=1)))
        self.assertEqual(0, wanted_workers(none, LoadSample(0)))

    def test_down(self) -> None:
        """A worker that has been idle for long is removed, down to the minimum."""
        self.assertEqual(2, wanted_workers(RULES, LoadSample(2, free=1, longest_idle=59.0)))
        self.assertEqual(1, wanted_workers(RULES, LoadSample(2, free=1, longest_idle=60.0)))
        self.assertEqual(1, wanted_workers(RULES, LoadSample(1, free=1, longest_idle=999.0)))
        self.assertEqual(0, wanted_workers(evolve(RULES, min_workers=0), LoadSample(1, free=1, longest_idle=60.0)))

    def test_when_to_look(self) -> None:
        """The next check is due when the decision may change, and not before."""
        self.assertIsNone(next_check(RULES, LoadSample(1, free=1)))
        self.assertAlmostEqual(0.4, next_check(RULES, LoadSample(1, waiting=1, oldest_wait=0.6)) or 0.0)
        self.assertEqual(20.0, next_check(RULES, LoadSample(2, free=1, longest_idle=40.0)))
        self.assertEqual(60.0, next_check(RULES, LoadSample(2)))
        self.assertIsNone(next_check(evolve(RULES, min_workers=8), LoadSample(8, waiting=9, oldest_wait=9.0)))

    @given(rules(), samples())
    def test_within_the_bounds(self, rules: ScalingRules, sample: LoadSample) -> None:
        """For every load sample the number of workers stays within the bounds."""
        self.assertTrue(rules.min_workers <= wanted_workers(rules, sample) <= rules.max_workers)

    @given(rules(), samples(), integers(0, 50), floats(0, 10))
    def test_monotone(self, rules: ScalingRules, sample: LoadSample, more: int, longer: float) -> None:
        """More load never means fewer workers, and a longer idle time never means more."""
        busier = evolve(sample, waiting=sample.waiting + more, oldest_wait=sample.oldest_wait + longer)
        assume(sample.waiting or not more)
        self.assertLessEqual(wanted_workers(rules, sample), wanted_workers(rules, busier))
        rested = evolve(sample, longest_idle=sample.longest_idle + longer)
        self.assertLessEqual(wanted_workers(rules, rested), wanted_workers(rules, sample))

    @given(rules(), samples())
    def test_no_flapping(self, rules: ScalingRules, sample: LoadSample) -> None:
        """A worker just started is not stopped, nor one just stopped started again, by the same load."""
        assume(rules.min_workers <= sample.workers <= rules.max_workers)
        wanted = wanted_workers(rules, sample)
        if wanted > sample.workers:
            after = evolve(sample, workers=wanted, starting=sample.starting + wanted - sample.workers)
            self.assertEqual(wanted, wanted_workers(rules, after))
        elif wanted < sample.workers:
            after = evolve(sample, workers=wanted, free=sample.free - 1, longest_idle=0.0)
            self.assertLessEqual(wanted_workers(rules, after), wanted)

    @given(rules(), samples(), floats(0, 300))
    def test_nothing_changes_before_the_next_look(self, rules: ScalingRules, sample: LoadSample, later: float) -> None:
        """While only time passes, the decision does not change before the next check is due."""
        assume(rules.min_workers <= sample.workers <= rules.max_workers)
        assume(sample.waiting or not sample.oldest_wait)
        assume(sample.free or not sample.longest_idle)
        wanted, due = wanted_workers(rules, sample), next_check(rules, sample)
        assume(wanted == sample.workers)
        if due is None or later < due * 0.999:
            aged = evolve(
                sample,
                oldest_wait=sample.oldest_wait + later if sample.waiting else 0.0,
                longest_idle=sample.longest_idle + later if sample.free else 0.0,
            )
            self.assertEqual(wanted, wanted_workers(rules, aged))
