# SPDX-License-Identifier: Apache-2.0
"""Tests for the reactor's time in memory."""

from __future__ import annotations

from twisted.internet.task import LoopingCall
from twisted.trial.unittest import SynchronousTestCase

from twisted_serve.errors import WorkerFailed
from twisted_serve.testing.memory import MemoryServeReactor
from twisted_serve.testing.server import MemoryServer


class AdvanceTests(SynchronousTestCase):
    """Tests for :meth:`MemoryServeReactor.advance`."""

    def setUp(self) -> None:
        self.clock = MemoryServeReactor()
        self.seen: list[tuple[str, float]] = []

    def see(self, name: str) -> None:
        self.seen.append((name, self.clock.seconds()))

    def every(self, interval: float, name: str) -> LoopingCall:
        loop = LoopingCall(self.see, name)
        loop.clock = self.clock
        loop.start(interval, now=False)
        return loop

    def test_timers(self) -> None:
        """Each timer runs at its own time, also one that another has started, and equal ones in their order."""

        def again() -> None:
            self.see("again")
            if len(self.seen) < 4:
                self.clock.callLater(1.5, again)

        self.clock.callLater(1, again)
        for name in ("first", "second"):
            self.clock.callLater(2.5, self.see, name)
        self.clock.advance(3.9)
        self.assertEqual(self.seen, [("again", 1), ("first", 2.5), ("second", 2.5), ("again", 2.5)])
        self.assertEqual(self.clock.seconds(), 3.9)

    def test_periodic(self) -> None:
        """Between two other timers a periodic one runs once, at the last of its times."""
        self.every(1, "tick")
        self.clock.callLater(10.5, self.see, "timer")
        self.clock.advance(20.25)
        self.assertEqual(self.seen, [("tick", 10), ("timer", 10.5), ("tick", 20)])
        self.clock.advance(0.5)
        self.clock.advance(0.25)
        self.assertEqual(self.seen[3:], [("tick", 21)])

    def test_two_periods(self) -> None:
        """Two periodic ones run in the order of their last times."""
        self.every(3, "three")
        self.every(7, "seven")
        self.clock.advance(20)
        self.assertEqual(self.seen, [("seven", 14), ("three", 18)])

    def test_stopped(self) -> None:
        """A timer that another one cancels does not run, and a periodic one can stop itself."""
        loop = self.every(1, "tick")
        self.clock.callLater(2.5, loop.stop)
        cancelled = self.clock.callLater(2.6, self.see, "cancelled")
        self.clock.callLater(2.5, cancelled.cancel)
        self.clock.advance(1_000_000)
        self.assertEqual(self.seen, [("tick", 2)])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_nested(self) -> None:
        """A timer may let time pass, too; time does not go back."""
        self.clock.callLater(1, self.clock.advance, 5)
        self.clock.callLater(2, self.see, "later")
        self.clock.advance(3)
        self.assertEqual(self.seen, [("later", 2)])
        self.assertEqual(self.clock.seconds(), 6)

    def test_server(self) -> None:
        """In one advance all attempts are made to start a worker that cannot load."""
        with MemoryServer(models={"m": {}}, clock=self.clock) as server:
            server.provider.load_error = WorkerFailed(500, "CUDA out of memory")
            server.provider.workers[0].kill()
            server.advance(1 + 1 + 2 + 3 + 5)
            self.assertEqual(len(server.provider.workers), 1 + 5)
