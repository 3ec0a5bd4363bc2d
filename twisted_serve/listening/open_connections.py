# SPDX-License-Identifier: Apache-2.0
"""
Wait for the open connections of a listener to close.
"""

from __future__ import annotations

from typing import Any, Generic, Protocol, TypeVar

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime


class Connection(Protocol):
    """A connection, whose transport can be aborted."""

    transport: Any


_Connection = TypeVar("_Connection", bound=Connection)


class OpenConnections(Generic[_Connection]):
    """
    The open connections of one listener.

    :ivar all: The connections; the listener adds each when it is made.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self.all: set[_Connection] = set()
        self._clock = clock
        self._waiting: list[Deferred[None]] = []

    def lost(self, connection: _Connection) -> None:
        """Remove a closed connection."""
        self.all.discard(connection)
        if not self.all:
            waiting, self._waiting = self._waiting, []
            for waiter in waiting:
                waiter.callback(None)

    def all_closed(self, limit: float) -> Deferred[None]:
        """Return a Deferred that fires when all connections are closed; abort those left after ``limit`` seconds."""
        if not self.all:
            return succeed(None)
        waiter: Deferred[None] = Deferred()
        self._waiting.append(waiter)
        cut = self._clock.callLater(limit, self.abort)

        def closed(_result: None) -> None:
            if cut.active():
                cut.cancel()

        return waiter.addCallback(closed)

    def abort(self) -> None:
        """Abort every connection."""
        for connection in list(self.all):
            connection.transport.abortConnection()
