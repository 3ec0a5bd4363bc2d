# SPDX-License-Identifier: Apache-2.0
"""
Tests for ``twisted_serve.eventloop.turn_end``.
"""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.eventloop.test_monotonic import Reactor
from twisted_serve.eventloop.turn_end import TurnEnd


class TurnEndTests(SynchronousTestCase):
    """Tests for calls at the end of a turn."""

    def test_once_a_turn(self) -> None:
        """It is called at the end of the turn, once, however often it was asked for; and again in the next turn."""
        reactor = Reactor()
        called: list[int] = []
        end = TurnEnd(reactor, lambda: called.append(1))
        for turn in (1, 2):
            end.ask()
            end.ask()
            self.assertEqual((turn - 1, 1), (len(called), len(reactor.getDelayedCalls())))
            self.assertEqual(0, reactor.timeout())
            reactor.runUntilCurrent()
            self.assertEqual((turn, 0), (len(called), len(reactor.getDelayedCalls())))

    def test_asked_in_call(self) -> None:
        """The call may ask for another one, at the end of the next turn."""
        reactor = Reactor()
        called: list[int] = []

        def call() -> None:
            called.append(1)
            if len(called) < 2:
                end.ask()

        end = TurnEnd(reactor, call)
        end.ask()
        reactor.runUntilCurrent()
        self.assertEqual(1, len(called))
        reactor.runUntilCurrent()
        self.assertEqual(2, len(called))

    def test_clock(self) -> None:
        """A clock has no turns: it is called immediately."""
        clock = Clock()
        called: list[int] = []
        TurnEnd(clock, lambda: called.append(1)).ask()
        self.assertEqual(([1], []), (called, clock.getDelayedCalls()))
