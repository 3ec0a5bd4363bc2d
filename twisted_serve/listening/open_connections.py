# SPDX-License-Identifier: Apache-2.0
"""
Wait for the open connections of a listener to close.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, Generic, Protocol, TypeVar

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime


class Connection(Protocol):
    """A connection, whose transport can be aborted."""

    transport: Any


class AllClosed:
    """
    The end of a number of connections.

    :param connections: Those that are open: a live collection.
    :param abort: Aborts all of them.
    """

    def __init__(self, clock: IReactorTime, connections: Collection[object], abort: Callable[[], object]) -> None:
        self._clock = clock
        self._connections = connections
        self._abort = abort
        self._waiting: list[Deferred[None]] = []

    def look(self) -> None:
        """Fire the Deferreds of `wait` if no connection is left; to be called when one has gone."""
        if not self._connections:
            waiting, self._waiting = self._waiting, []
            for waiter in waiting:
                waiter.callback(None)

    def wait(self, limit: float) -> Deferred[None]:
        """Return a Deferred that fires when all connections are closed; abort those left after ``limit`` seconds."""
        if not self._connections:
            return succeed(None)
        waiter: Deferred[None] = Deferred()
        self._waiting.append(waiter)
        cut = self._clock.callLater(limit, self._abort)

        def closed(_result: None) -> None:
            if cut.active():
                cut.cancel()

        return waiter.addCallback(closed)


_Connection = TypeVar("_Connection", bound=Connection)


class OpenConnections(Generic[_Connection]):
    """
    The open connections of one listener.

    :ivar all: The connections; the listener adds each when it is made.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self.all: set[_Connection] = set()
        self._closing = AllClosed(clock, self.all, self.abort)

    def lost(self, connection: _Connection) -> None:
        """Remove a closed connection."""
        self.all.discard(connection)
        self._closing.look()

    def all_closed(self, limit: float) -> Deferred[None]:
        """Return a Deferred that fires when all connections are closed; abort those left after ``limit`` seconds."""
        return self._closing.wait(limit)

    def abort(self) -> None:
        """Abort every connection."""
        for connection in list(self.all):
            connection.transport.abortConnection()
