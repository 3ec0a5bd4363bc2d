# SPDX-License-Identifier: Apache-2.0
"""
Cache the current second, for metric lines, of which each request writes several.

Reading the wall clock costs more than the rest of such a line, and is done once a second.
"""

from __future__ import annotations

from twisted.internet.interfaces import IReactorTime

from twisted_serve.interfaces import Now


class EpochClock:
    """
    Return the seconds since the epoch when called.

    A change of the machine's clock takes effect within a second.
    """

    def __init__(self, now: Now, clock: IReactorTime) -> None:
        self._now = now
        self._clock = clock
        self._told = 0
        # The interval in which the cached value is valid, by the reactor's clock.
        self._since = self._until = 0.0

    def __call__(self) -> int:
        """Return the seconds since the epoch."""
        passed = self._clock.seconds()
        if not self._since <= passed < self._until:
            moment = self._now().timestamp()
            self._told = int(moment)
            self._since, self._until = passed, passed + self._told + 1 - moment
        return self._told
