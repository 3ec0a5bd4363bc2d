# SPDX-License-Identifier: Apache-2.0
"""
Tests for ``twisted_serve.eventloop.turns``.
"""

from __future__ import annotations

import time

from twisted.internet.task import Clock
from twisted.logger import LogLevel, capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from tests.eventloop.test_monotonic import Reactor
from twisted_serve.eventloop.turns import SLOW_TURN, TurnWatch

LIMIT = 0.05


def burn(seconds: float) -> None:
    """Use the processor."""
    began = time.thread_time()
    while time.thread_time() - began < seconds:
        pass


class TurnWatchTests(SynchronousTestCase):
    """Tests for what is said of long turns."""

    def setUp(self) -> None:
        self.reactor = Reactor()
        self.watch = TurnWatch(self.reactor, LIMIT)
        self.watch.startService()
        self.addCleanup(self.watch.stopService)

    def turn(self, seconds: float) -> list[str]:
        """Do what a turn does, and return what was logged at its end."""
        with capturedLogs() as events:
            self.reactor.callLater(0, burn, seconds)
            self.reactor.runUntilCurrent()
            self.reactor.runUntilCurrent()
        return [str(formatEvent(event)) for event in events if event["log_level"] == LogLevel.error]

    def test_long(self) -> None:
        """A turn that takes too much of the processor is logged, with the milliseconds and what ran."""
        self.watch.arm()
        [line] = self.turn(3 * LIMIT)
        self.assertTrue(line.startswith(SLOW_TURN))
        self.assertRegex(line, r"took 1[5-9][0-9] ms of processor time, more than 50 ms")
        self.assertIn(", in burn", line)
        self.assertEqual(self.turn(0), [])

    def test_short(self) -> None:
        """A short one is not, nor one that waits for something."""
        self.watch.arm()
        self.assertEqual(self.turn(LIMIT / 5), [])
        with capturedLogs() as events:
            self.reactor.callLater(0, time.sleep, 3 * LIMIT)
            self.reactor.runUntilCurrent()
            self.reactor.runUntilCurrent()
        self.assertEqual(events, [])

    def test_start(self) -> None:
        """What takes long before the end of the start is not."""
        self.assertEqual(self.turn(2 * LIMIT), [])

    def test_end_of_start(self) -> None:
        """The turn in which the start ends is part of the start; the next one is not."""

        def end() -> None:
            self.watch.arm()
            burn(3 * LIMIT)

        with capturedLogs() as events:
            self.reactor.callLater(0, end)
            self.reactor.runUntilCurrent()
            self.reactor.runUntilCurrent()
        self.assertEqual(events, [])
        [_line] = self.turn(3 * LIMIT)

    def test_stopped(self) -> None:
        """Afterwards nothing is measured."""
        self.watch.arm()
        self.watch.stopService()
        self.assertEqual(self.turn(2 * LIMIT), [])
        self.assertNotIn("runUntilCurrent", vars(self.reactor))

    def test_another_reactor(self) -> None:
        """A reactor which is none of Twisted's has no turns to measure."""
        watch = TurnWatch(Clock(), LIMIT)
        watch.startService()
        watch.arm()
        watch.stopService()
