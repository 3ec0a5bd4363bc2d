# SPDX-License-Identifier: Apache-2.0
"""
This module implements a timer that is set and cleared for every request, and hardly ever goes off.

Setting it to a later moment, or clearing it, leaves the clock's delayed call
where it is; that call looks, when it comes, whether it is needed.  So a busy
worker or connection costs the reactor one delayed call for a whole timeout
instead of one for each batch or request.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime


class Alarm:
    """
    Calls ``ring`` at the moment it was last set to.

    :param ring: Called without arguments; the alarm is clear by then and may be set again.
    """

    def __init__(self, clock: IReactorTime, ring: Callable[[], object]) -> None:
        self._clock = clock
        self._ring = ring
        self._moment: float | None = None
        self._call: IDelayedCall | None = None

    @property
    def is_set(self) -> bool:
        """Whether it is going to ring."""
        return self._moment is not None

    def set(self, moment: float | None) -> None:
        """Ring at ``moment``, in seconds of the clock, instead of any other; ``None``: do not ring."""
        self._moment = moment
        if moment is not None and (self._call is None or moment < self._call.getTime()):
            self._arm(moment)

    def cancel(self) -> None:
        """Do not ring, and leave nothing with the clock."""
        self._moment = None
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def _arm(self, moment: float) -> None:
        if self._call is not None:
            self._call.cancel()
            self._call = None
        self._call = self._clock.callLater(max(0.0, moment - self._clock.seconds()), self._come)

    def _come(self) -> None:
        self._call = None
        if self._moment is None:
            return
        if self._moment > self._clock.seconds():
            self._arm(self._moment)
            return
        self._moment = None
        self._ring()
