# SPDX-License-Identifier: Apache-2.0
"""
Tests for ``twisted_serve.eventloop.monotonic``.
"""

from __future__ import annotations

import time

from twisted.internet.selectreactor import SelectReactor
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from twisted_serve.eventloop.monotonic import steady_seconds, use_steady_clock


class Reactor(SelectReactor):
    """A reactor of the tests' own, which is never run."""

    def installWaker(self) -> None:
        """Open no file."""


class SteadyTests(SynchronousTestCase):
    """Tests for a clock that is never set."""

    def test_goes_forward(self) -> None:
        """It goes on as time does, and has nothing to do with the date."""
        before = steady_seconds()
        began = time.monotonic()
        time.sleep(0.01)
        self.assertGreaterEqual(steady_seconds() - before, 0.01)
        self.assertLess(steady_seconds() - before, time.monotonic() - began + 1)
        self.assertGreater(abs(time.time() - steady_seconds()), 3600)

    def test_reactor(self) -> None:
        """A reactor of Twisted's has delays by that clock: one that was set back an hour later would not notice."""
        reactor = Reactor()
        self.assertTrue(use_steady_clock(reactor))
        called: list[int] = []
        call = reactor.callLater(0, called.append, 1)
        self.assertLess(abs(call.getTime() - steady_seconds()), 60)
        self.assertEqual(reactor.timeout(), 0)
        reactor.runUntilCurrent()
        self.assertEqual(called, [1])

    def test_too_late(self) -> None:
        """Where calls are scheduled by the date already, and on other reactors, all stays as it is."""
        reactor = Reactor()
        call = reactor.callLater(5, lambda: None)
        self.assertFalse(use_steady_clock(reactor))
        self.assertLess(abs(reactor.seconds() - time.time()), 60)
        call.cancel()
        self.assertFalse(use_steady_clock(Clock()))
