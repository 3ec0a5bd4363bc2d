# SPDX-License-Identifier: Apache-2.0
"""Tests for the seconds since the epoch."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from twisted_serve.metrics.torchserve.epoch import EpochClock

EPOCH = datetime(2026, 1, 1, tzinfo=timezone.utc)


class SecondsTests(SynchronousTestCase):
    """Tests for `EpochClock`."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.asked = 0
        self.set_by = 0.0

    def now(self) -> datetime:
        """Return the date by the test's clock, which somebody may have set."""
        self.asked += 1
        return EPOCH + timedelta(seconds=self.clock.seconds() + self.set_by)

    @given(st.floats(0, 1e6), st.lists(st.floats(0, 3), max_size=20))
    def test_right(self, start: float, steps: list[float]) -> None:
        """Whenever it is asked, it is right; where one second ends it may be a microsecond late."""
        self.clock = Clock()
        self.clock.advance(start)
        seconds = EpochClock(self.now, self.clock)
        for step in steps:
            self.clock.advance(step)
            moment = self.now().timestamp()
            self.assertIn(seconds(), (int(moment - 1e-5), int(moment + 1e-5)))

    def test_asked_once(self) -> None:
        """The date is asked for once a second."""
        seconds = EpochClock(self.now, self.clock)
        self.clock.advance(0.25)
        for _ in range(75):
            seconds()
            self.clock.advance(0.01)
        self.assertEqual(self.asked, 1)
        self.assertEqual(seconds(), EPOCH.timestamp() + 1)
        self.assertEqual(self.asked, 2)

    def test_set(self) -> None:
        """A clock that is set, either way, is believed within a second."""
        seconds = EpochClock(self.now, self.clock)
        for by in (3600.0, -3600.0):
            seconds()
            self.set_by += by
            self.clock.advance(1)
            self.assertEqual(seconds(), int(self.now().timestamp()))

    def test_reactor_set_back(self) -> None:
        """So is one that the reactor reads, too."""
        seconds = EpochClock(self.now, self.clock)
        self.clock.advance(100)
        seconds()
        self.clock.rightNow = 50.0
        self.assertEqual(seconds(), EPOCH.timestamp() + 50)
