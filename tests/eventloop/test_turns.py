# SPDX-License-Identifier: Apache-2.0
"""
Tests for ``twisted_serve.eventloop.turns``.
"""

from __future__ import annotations

import gc
import re
import time
from collections.abc import Callable

from twisted.internet.task import Clock
from twisted.logger import LogLevel, capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from tests.eventloop.test_monotonic import Reactor
from twisted_serve.eventloop.turns import SLOW_TURN, TurnWatch

LIMIT = 0.05
# The time in which anything that is going to happen has happened, on a busy machine.
LONG = 30.0


class TurnTestCase(SynchronousTestCase):
    """A reactor whose turns are watched."""

    def watch_turns(self, now: Callable[[], float] | None) -> None:
        self.reactor = Reactor()
        self.watch = TurnWatch(self.reactor, LIMIT, now)
        self.watch.startService()
        self.addCleanup(self.watch.stopService)

    def turn(self, work: Callable[[], object]) -> list[str]:
        """Do what a turn does, and return what was logged at its end."""
        with capturedLogs() as events:
            self.reactor.callLater(0, work)
            self.reactor.runUntilCurrent()
            self.reactor.runUntilCurrent()
        return [str(formatEvent(event)) for event in events if event["log_level"] == LogLevel.error]

    def wait_until_seen(self) -> None:
        """Wait until the other thread has seen what runs."""
        deadline = time.monotonic() + LONG
        while self.watch._seen is None:
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.001)


class TurnWatchTests(TurnTestCase):
    """Tests for what is said of long turns, which take no other time than they say."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.watch_turns(self.clock.seconds)

    def burn(self, seconds: float) -> list[str]:
        """Use processor time in a turn, and return what was logged."""
        return self.turn(lambda: self.clock.advance(seconds))

    def test_long(self) -> None:
        """A turn that takes too much of the processor is logged, with the milliseconds and what ran."""

        def burn() -> None:
            self.clock.advance(3 * LIMIT)
            self.wait_until_seen()

        self.watch.arm()
        self.burn(0)
        [line] = self.turn(burn)
        self.assertTrue(line.startswith(SLOW_TURN))
        self.assertIn("took 150 ms of processor time, more than 50 ms", line)
        self.assertIn(", in burn", line)
        self.assertEqual(self.burn(0), [])

    def test_short(self) -> None:
        """A short one is not."""
        self.watch.arm()
        self.assertEqual(self.burn(LIMIT / 5), [])

    def test_start(self) -> None:
        """What takes long before the end of the start is not."""
        self.assertEqual(self.burn(2 * LIMIT), [])

    def test_end_of_start(self) -> None:
        """The turn in which the start ends is part of the start; the next one is not."""

        def end() -> None:
            self.watch.arm()
            self.clock.advance(3 * LIMIT)

        self.assertEqual(self.turn(end), [])
        [_line] = self.burn(3 * LIMIT)

    def test_stopped(self) -> None:
        """Afterwards nothing is measured."""
        self.watch.arm()
        self.watch.stopService()
        self.assertEqual(self.burn(2 * LIMIT), [])
        self.assertNotIn("runUntilCurrent", vars(self.reactor))

    def test_another_reactor(self) -> None:
        """A reactor which is none of Twisted's has no turns to measure."""
        watch = TurnWatch(Clock(), LIMIT)
        watch.startService()
        watch.arm()
        watch.stopService()


class ProcessorTimeTests(TurnTestCase):
    """Tests with the processor's own time."""

    def setUp(self) -> None:
        # The garbage of the other tests would take its time in any turn.
        gc.disable()
        self.addCleanup(gc.enable)
        self.watch_turns(None)
        self.watch.arm()
        self.turn(lambda: None)

    def test_used(self) -> None:
        """What uses the processor counts."""

        def burn() -> None:
            began = time.thread_time()
            while time.thread_time() - began < 3 * LIMIT:
                pass
            self.wait_until_seen()

        [line] = self.turn(burn)
        [milliseconds] = re.findall(r"took (\d+) ms of processor time", line)
        self.assertGreaterEqual(int(milliseconds), 1000 * 3 * LIMIT)
        self.assertIn(", in burn", line)

    def test_waiting(self) -> None:
        """What waits for something does not."""
        self.assertEqual(self.turn(lambda: time.sleep(3 * LIMIT)), [])
