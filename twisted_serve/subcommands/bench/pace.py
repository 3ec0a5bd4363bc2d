# SPDX-License-Identifier: Apache-2.0
"""
Decide when the next request is due.

Without a rate each connection sends its next request when it has an answer.  With one, requests are due at equal
intervals, whatever the server does, and a latency begins when its request was due: a server that stops for a second
delays all requests of that second, not the ones in flight alone.
"""

from __future__ import annotations

from attrs import define


@define
class Pace:
    """
    When requests are due.

    :ivar rate: Requests a second; ``None``: always.
    :ivar begin: When the first is due, in seconds.
    """

    rate: float | None
    begin: float
    _taken: int = 0

    def take(self, now: float) -> float | None:
        """Return the time at which the next request was due and take it; ``None`` if none is due yet."""
        if self.rate is None:
            return now
        due = self.begin + self._taken / self.rate
        if due > now:
            return None
        self._taken += 1
        return due

    def next_due(self) -> float:
        """Return when the next request is due."""
        return self.begin if self.rate is None else self.begin + self._taken / self.rate

    def overdue(self, now: float) -> int:
        """Return how many requests are due and not taken."""
        return 0 if self.rate is None else max(0, int((now - self.begin) * self.rate) + 1 - self._taken)
