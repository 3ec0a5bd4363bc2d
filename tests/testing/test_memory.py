# SPDX-License-Identifier: Apache-2.0
"""Tests for `twisted_serve.testing.memory`: how time passes."""

from __future__ import annotations

from twisted.internet.task import LoopingCall
from twisted.trial.unittest import SynchronousTestCase

from twisted_serve.errors import WorkerFailed
from twisted_serve.testing.memory import MemoryServeReactor
from twisted_serve.testing.server import MemoryServer


class AdvanceTests(SynchronousTestCase):
    """Tests for the advance of time."""

    def test_own_times(self) -> None:
        """Each call is made at its own time, also one that another call schedules or postpones."""
        clock = MemoryServeReactor()
        called: list[tuple[str, float]] = []

        def call(name: str, *then: str) -> None:
            called.append((name, clock.seconds()))
            for each in then:
                clock.callLater(2, call, each)

        clock.callLater(1, call, "first", "second", "third")
        clock.callLater(1.5, call, "postponed").delay(2.5)
        clock.callLater(11, call, "never")
        clock.advance(10)
        self.assertEqual(called, [("first", 1), ("second", 3), ("third", 3), ("postponed", 4)])
        self.assertEqual(clock.seconds(), 10)

    def test_periodic_calls(self) -> None:
        """A loop that was due several times is called once, and is due again after its interval."""
        clock = MemoryServeReactor()
        moments: list[float] = []
        loop = LoopingCall(lambda: moments.append(clock.seconds()))
        loop.clock = clock
        loop.start(1.0, now=False)
        clock.callLater(7.5, moments.append, -1.0)
        clock.advance(3600)
        self.assertEqual(moments, [7.5, -1.0, 3600])
        clock.advance(1)
        self.assertEqual(moments[3:], [3601])

    def test_all_attempts(self) -> None:
        """In one advance all attempts are made to start a worker that cannot load."""
        with MemoryServer(models={"m": {}}) as server:
            server.provider.load_error = WorkerFailed(500, "CUDA out of memory")
            server.provider.workers[0].kill()
            server.advance(1 + 1 + 2 + 3 + 5)
            self.assertEqual(len(server.provider.workers), 1 + 5)
