# SPDX-License-Identifier: Apache-2.0
"""
End connections that are old, whose client is gone, and that unknown clients keep without calls.
"""

from __future__ import annotations

from collections.abc import Callable
from random import uniform
from typing import Protocol

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from twisted_serve.rpc.engine.limits import RpcLimits


class LimitedConnection(Protocol):
    """
    A connection, as its lifetime sees it.

    :ivar known: Whether a call of a known sender was admitted.
    """

    known: bool

    @property
    def begun(self) -> tuple[int, bool]:
        """How many calls were begun, in any measure that grows, and whether there are any now."""

    def ask(self) -> None:
        """Send a ping, to which the client has to answer."""

    def finish_up(self, why: bytes) -> None:
        """Close the connection when its calls have ended, and let the client begin no more."""

    def end_calls(self) -> None:
        """End the calls that are left."""

    def cut(self) -> None:
        """Abort the connection."""


class Lifetime:
    """
    The timers of a connection, except those of its calls.

    :ivar heard: Whether anything has come from the client since the last look.
    """

    __slots__ = ("_clock", "_connection", "_delayed", "_limits", "_seen", "heard")

    def __init__(self, connection: LimitedConnection, limits: RpcLimits, clock: IReactorTime) -> None:
        self._connection, self._limits, self._clock = connection, limits, clock
        self.heard = False
        self._seen = 0
        self._delayed: dict[str, IDelayedCall] = {}

    def begin(self) -> None:
        """Start the timers."""
        limits = self._limits
        self._later("keepalive", limits.keepalive_time, self._look_for_data)
        self._later("stranger", limits.stranger_timeout, self._look_for_calls)
        if limits.age is not None:
            # Not all connections of a client that has begun them together.
            self._later("age", limits.age * uniform(0.9, 1.1), self._grow_old)  # noqa: S311 (no secret)

    def end(self) -> None:
        """Stop the timers."""
        for delayed in self._delayed.values():
            if delayed.active():
                delayed.cancel()

    def _look_for_data(self) -> None:
        """Ask the client whether it is there, if nothing has come since the last look."""
        if not self.heard:
            self._connection.ask()
            self._later("answer", self._limits.keepalive_timeout, self._look_for_answer)
        self.heard = False
        self._later("keepalive", self._limits.keepalive_time, self._look_for_data)

    def _look_for_answer(self) -> None:
        if not self.heard:
            self._connection.cut()

    def _look_for_calls(self) -> None:
        """End the connection if there were no calls since the last look, unless a known sender had one before."""
        if self._connection.known:
            return
        begun, running = self._connection.begun
        if running or begun != self._seen:
            self._seen = begun
            self._later("stranger", self._limits.stranger_timeout, self._look_for_calls)
        else:
            self._connection.finish_up(b"idle")

    def _grow_old(self) -> None:
        self._connection.finish_up(b"max_age")
        if self._limits.grace is not None:
            self._later("grace", self._limits.grace, self._connection.end_calls)

    def _later(self, name: str, seconds: float, work: Callable[[], None]) -> None:
        self._delayed[name] = self._clock.callLater(seconds, work)
