# SPDX-License-Identifier: Apache-2.0
"""
Make one call for all events of a reactor's turn.

A turn under load brings many requests.  What is done once at its end, for all of them, need not be done for each.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.base import ReactorBase
from twisted.internet.interfaces import IReactorTime


class TurnEnd:
    """
    A call that is made at the end of the turn in which it was asked for, once.

    A clock that is no reactor has no turns: the call is made immediately.

    :param call: Called without arguments; it must not raise.
    """

    def __init__(self, clock: IReactorTime, call: Callable[[], None]) -> None:
        self._call = call
        self._reactor = clock if isinstance(clock, ReactorBase) else None
        self._asked = False

    def ask(self) -> None:
        """Ask for the call."""
        if self._reactor is None:
            self._call()
        elif not self._asked:
            self._asked = True
            # Between two polls the reactor makes the calls that are due, so this waits for nothing.
            self._reactor.callLater(0, self._end)

    def _end(self) -> None:
        self._asked = False
        self._call()
