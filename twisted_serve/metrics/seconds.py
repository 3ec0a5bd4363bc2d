# SPDX-License-Identifier: Apache-2.0
"""
This module implements the seconds since the epoch, for lines which each request brings several of.

To ask for the date costs more than the rest of such a line, and is done once a second.
"""

from __future__ import annotations

from twisted.internet.interfaces import IReactorTime

from twisted_serve.interfaces import Now


class Seconds:
    """
    Tells the seconds since the epoch.

    Who sets the machine's clock is noticed within a second.
    """

    def __init__(self, now: Now, clock: IReactorTime) -> None:
        self._now = now
        self._clock = clock
        self._told = 0
        # By the reactor's clock: since when, and for how long, that is right.
        self._since = self._until = 0.0

    def __call__(self) -> int:
        """Return them."""
        passed = self._clock.seconds()
        if not self._since <= passed < self._until:
            moment = self._now().timestamp()
            self._told = int(moment)
            self._since, self._until = passed, passed + self._told + 1 - moment
        return self._told
