# SPDX-License-Identifier: Apache-2.0
"""Tests for `twisted_serve.eventloop.timeout`."""

from __future__ import annotations

from hypothesis import given
from hypothesis.strategies import lists, none, sampled_from, tuples
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from twisted_serve.eventloop.timeout import Timeout

MOMENTS = none() | sampled_from([0.0, 1.0, 2.0, 3.5, 10.0])


class AlarmTests(SynchronousTestCase):
    """A timer that moves cheaply."""

    def test_rings_once(self) -> None:
        """It rings at its moment, and not again."""
        clock, rung = Clock(), []
        alarm = Timeout(clock, lambda: rung.append(clock.seconds()))
        alarm.set(2.0)
        clock.pump([1.0, 1.0, 1.0])
        self.assertEqual([2.0], rung)
        self.assertEqual([], clock.getDelayedCalls())

    def test_later_costs_nothing(self) -> None:
        """Setting it to a later moment leaves the clock's delayed call alone; it still rings in time."""
        clock, rung = Clock(), []
        alarm = Timeout(clock, lambda: rung.append(clock.seconds()))
        alarm.set(1.0)
        calls = clock.getDelayedCalls()
        alarm.set(2.0)
        self.assertEqual(calls, clock.getDelayedCalls())
        clock.pump([1.0, 1.0])
        self.assertEqual([2.0], rung)

    def test_sooner(self) -> None:
        """Set to an earlier moment, or one that has passed, it rings then, or now."""
        clock, rung = Clock(), []
        alarm = Timeout(clock, lambda: rung.append(clock.seconds()))
        clock.advance(5.0)
        alarm.set(9.0)
        alarm.set(1.0)
        clock.advance(0)
        self.assertEqual([5.0], rung)

    def test_cancel(self) -> None:
        """Cancelled, it leaves nothing behind; cancelling again is harmless."""
        clock = Clock()
        alarm = Timeout(clock, self.fail)
        alarm.set(1.0)
        alarm.cancel()
        alarm.cancel()
        self.assertEqual([], clock.getDelayedCalls())
        clock.advance(1.0)

    @given(lists(tuples(MOMENTS, sampled_from([0.0, 0.5, 1.0, 3.0]))))
    def test_like_a_plain_timer(self, moves: list[tuple[float | None, float]]) -> None:
        """However it is moved, it rings when a timer that is cancelled and set anew would."""
        clock, rung, plain = Clock(), [], []
        alarm = Timeout(clock, lambda: rung.append(clock.seconds()))
        call = None
        for delay, pause in moves:
            moment = None if delay is None else clock.seconds() + delay
            alarm.set(moment)
            if call is not None and call.active():
                call.cancel()
            call = None if delay is None else clock.callLater(delay, lambda: plain.append(clock.seconds()))
            clock.advance(pause)
        clock.advance(10.0)
        self.assertEqual(plain, rung)
        self.assertEqual([], clock.getDelayedCalls())
