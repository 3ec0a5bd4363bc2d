# SPDX-License-Identifier: Apache-2.0
"""
Limit the number of connections, so that the process does not run out of file descriptors.

Each connection takes a descriptor, and so do files, and the pipes and the socket of each worker. Without free
descriptors everything fails together: responses, workers, the log. So clients are refused while some are still free.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from twisted.internet.interfaces import IReactorTime, ISSLTransport
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

_log = Logger("twisted_serve.listening")

# Descriptors reserved for logs, archives and workers (three each).
_RESERVE = 256

# Connections reserved for listeners without predictions.
_KEPT = 16

# The most clients that are being sent a refusal at a time, and the seconds they have to read it. At this number the
# ports stop accepting; up to twice as many may have been accepted by then, and more are closed without a response.
MOST_REFUSALS = 6
REFUSAL_SECONDS = 1.0

# Seconds between two log lines.
LOG_INTERVAL = 60.0


def connection_limit(descriptors: int) -> int:
    """
    Return the most connections of a process.

    :param descriptors: The process's limit of descriptors; below 0 for no limit (``RLIM_INFINITY``).
    """
    return max(1, descriptors // 4, descriptors - _RESERVE) if descriptors >= 0 else 1 << 20


class Admission:
    """
    The limit on the connections of all listeners together.

    :ivar limit: The most connections.
    :ivar refusals: The connections that are being refused.
    """

    def __init__(self, limit: int, reactor: IReactorTime, count_refusal: Callable[[int], None]) -> None:
        self.limit = limit
        self.refusals: set[Refusal] = set()
        self.reactor = reactor
        self._count_refusal = count_refusal
        self._listeners: list[Collection[object]] = []
        self._ports: list[Any] = []
        self._logged: float | None = None
        self._refused = 0

    def watch(self, connections: Collection[object]) -> None:
        """Include the open connections of a listener, a live collection, in the count."""
        self._listeners.append(connections)

    def pause(self, port: Any) -> None:
        """Pause a port whenever too many clients are being refused; the port of a plug-in's endpoint may go on."""
        if not hasattr(port, "stopReading"):
            return
        self._ports.append(port)
        # A port initially accepts up to 100 connections at a time, possibly more than there are free descriptors.
        self._slow_down()

    def begin(self, refusal: Refusal) -> None:
        """Add a connection that is being refused."""
        self.refusals.add(refusal)
        # After accepting a group of connections, Twisted's port raises its group size by twenty.
        self.reactor.callLater(0, self._slow_down)
        if len(self.refusals) == MOST_REFUSALS:
            for port in self._ports:
                port.stopReading()

    def end(self, refusal: Refusal) -> None:
        """Remove a connection that has been refused."""
        self.refusals.discard(refusal)
        if len(self.refusals) == MOST_REFUSALS - 1:
            for port in self._ports:
                if port.connected and not port.disconnecting:
                    port.startReading()

    def _slow_down(self) -> None:
        for port in self._ports:
            port.numberAccepts = 1

    def admits(self, predictions: bool) -> bool:
        """
        Return whether one more connection may be accepted.

        :param predictions: Whether its listener serves predictions. Some connections are reserved for the other
            listeners, e.g. for management, so that an operator can reach a server with too many clients.
        """
        kept = min(_KEPT, max(1, self.limit // 8), self.limit - 1) if predictions else 0
        return sum(map(len, self._listeners)) < self.limit - kept

    def refuse(self, answer: bytes) -> Refusal | Closed:
        """
        Refuse a client; return the protocol that sends ``answer``, or closes if too many clients are being refused.
        """
        self._refused += 1
        self._count_refusal(503)
        now = self.reactor.seconds()
        if self._logged is None or now - self._logged >= LOG_INTERVAL:
            _log.warn(
                "Connections refused: {count}; there may be {limit} at a time (max_connections)",
                count=self._refused,
                limit=self.limit,
            )
            self._logged, self._refused = now, 0
        return Refusal(self, answer) if len(self.refusals) < 2 * MOST_REFUSALS else Closed()

    def close(self) -> None:
        """Abort the connections of all clients that are being refused."""
        for refusal in list(self.refusals):
            refusal.cut()


class Closed(Protocol):
    """A connection that is closed at once, for factories that wrap another and need a protocol from it."""

    transport: Any

    def connectionMade(self) -> None:
        """Close the connection."""
        self.transport.abortConnection()


class Refusal(Protocol):
    """A connection that gets a response which says that there are too many."""

    transport: Any

    def __init__(self, admission: Admission, answer: bytes) -> None:
        self._admission = admission
        self._answer = answer

    def connectionMade(self) -> None:
        """Send the response and wait a moment before closing, since unread bytes would reset the connection."""
        self._admission.begin(self)
        self._limit = self._admission.reactor.callLater(REFUSAL_SECONDS, self._close_gently)
        self.transport.write(self._answer)
        if self._over_tls():
            self.transport.loseConnection()
        else:
            self.transport.loseWriteConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Remove the connection from the count of refusals."""
        self._admission.end(self)
        if self._limit.active():
            self._limit.cancel()

    def cut(self) -> None:
        """Abort the connection."""
        self.transport.abortConnection()

    def _close_gently(self) -> None:
        # Aborting the connection would lose the response for a client that has not read it yet.
        if self._over_tls():
            self.cut()
        else:
            self.transport.loseConnection()

    def _over_tls(self) -> bool:
        return bool(ISSLTransport.providedBy(self.transport))
