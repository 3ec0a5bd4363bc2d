# SPDX-License-Identifier: Apache-2.0
"""
Run real sockets in virtual time.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

from twisted.internet.pollreactor import PollReactor

from twisted_serve.testing.memory import next_due

__all__ = ["SocketReactor"]

# Real seconds without an event after which nothing more is expected, and after which what a test waits for is not
# expected; a packet on the loopback interface takes less than a millisecond, more only if the machine is overloaded.
_QUIET, _PATIENCE = 0.1, 0.5

# So many times may be met in one advance at which calls are due.
_MOST_TURNS = 100_000


class SocketReactor(PollReactor):
    """A reactor of its own with real sockets and virtual time, which starts at 0; the global reactor is not used."""

    def __init__(self) -> None:
        self._seconds = 0.0
        super().__init__()

    def seconds(self) -> float:
        """Return the virtual time."""
        return self._seconds

    def advance(self, amount: float) -> None:
        """
        Advance the time as `MemoryServeReactor.advance` does.

        :raise RuntimeError: if there is no end of such calls.
        """
        end = self._seconds + amount
        for _ in range(_MOST_TURNS):
            self.iterate(0)
            moment, _call = next_due(self.getDelayedCalls(), end)
            if moment > end:
                self._seconds = end
                self.iterate(0)
                return
            self._seconds = max(self._seconds, moment)
        raise RuntimeError("there is no end of calls that are due")

    def settle(self) -> None:
        """Send and receive until nothing happens."""
        self._run(lambda: False, _QUIET)

    def run_until(self, done: Callable[[], bool]) -> None:
        """Send and receive until ``done`` returns true, or nothing happens for half a second."""
        self._run(done, _PATIENCE)

    def _run(self, done: Callable[[], bool], patience: float) -> None:
        while not done():
            wait = 0.0 if self._due() else patience
            before = monotonic()
            self.iterate(wait)
            if wait and monotonic() - before >= wait:
                return

    def discard(self) -> None:
        """Close all sockets and forget all delayed calls; the time is 0 again."""
        self.disconnectAll()
        for call in self.getDelayedCalls():
            call.cancel()
        self._seconds = 0.0

    def _due(self) -> bool:
        return any(call.getTime() <= self._seconds for call in self.getDelayedCalls())
