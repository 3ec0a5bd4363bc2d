# SPDX-License-Identifier: Apache-2.0
"""
Provide a timeout that is cheap to set and cancel for every request.

Setting the timeout to a later time, or clearing it, leaves the clock's delayed call
scheduled; when that call runs, it checks whether the timeout is due.  So a busy worker
or connection costs the reactor one delayed call per timeout period, instead of one for
each batch or request.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf

from twisted.internet.interfaces import IDelayedCall, IReactorTime


class Timeout:
    """
    A timeout that calls ``ring`` at the time it was last set to.

    :param ring: Called without arguments, after the timeout was cleared, so that it may set it again.
    """

    def __init__(self, clock: IReactorTime, ring: Callable[[], object]) -> None:
        self._clock = clock
        self._ring = ring
        self._moment: float | None = None
        self._call: IDelayedCall | None = None
        # When the delayed call is due.
        self._due = inf

    @property
    def is_set(self) -> bool:
        """Whether the timeout is set."""
        return self._moment is not None

    def set(self, moment: float | None) -> None:
        """Set the timeout to ``moment``, in seconds of the clock, instead of any other; ``None`` clears it."""
        self._moment = moment
        if moment is not None and moment < self._due:
            self._arm(moment)

    def cancel(self) -> None:
        """Clear the timeout, and cancel its delayed call."""
        self._moment = None
        self._disarm()

    def _arm(self, moment: float) -> None:
        self._disarm()
        self._due = moment
        self._call = self._clock.callLater(max(0.0, moment - self._clock.seconds()), self._fire)

    def _disarm(self) -> None:
        if self._call is not None:
            self._call.cancel()
            self._call, self._due = None, inf

    def _fire(self) -> None:
        self._call, self._due = None, inf
        if self._moment is None:
            return
        if self._moment > self._clock.seconds():
            self._arm(self._moment)
            return
        self._moment = None
        self._ring()
