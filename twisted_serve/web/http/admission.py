# SPDX-License-Identifier: Apache-2.0
"""
Decide whether one more connection is taken, before the process runs out of descriptors.

Each connection is a descriptor, and so are files, and the pipes and the socket of each worker.  Where there are none
left, everything fails at once: answers, workers, the log.  So clients are refused while some are left.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from twisted.internet.interfaces import IReactorTime, ISSLTransport
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

from twisted_serve.web.http.rendering import json_text

# Descriptors that are not for connections: logs, archives, three for each worker.
_RESERVE = 256

# Of all connections, those that clients of predictions leave to listeners that have none.
_KEPT = 16

# Clients that are told at a time that they are refused, and the seconds in which they have to take that.  While there
# are so many, others wait at the listeners; twice as many may have been accepted by then, and what is more is closed.
MOST_REFUSALS = 6
REFUSAL_SECONDS = 1.0

# Seconds between two lines of the log.
LOG_INTERVAL = 60.0

_BODY = json_text(
    {
        "code": 503,
        "type": "ServiceUnavailableException",
        "message": "The server has as many connections as it can have.",
    }
)
_ANSWER = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nRetry-After: 1\r\nConnection: close\r\n"
    b"Content-Length: %d\r\n\r\n%s" % (len(_BODY), _BODY)
)


def connection_limit(descriptors: int) -> int:
    """
    Return how many connections a process may have.

    :param descriptors: How many descriptors it may have; below 0 for any number (``RLIM_INFINITY``).
    """
    return max(1, descriptors // 4, descriptors - _RESERVE) if descriptors >= 0 else 1 << 20


class Admission:
    """
    The connections of all listeners together.

    :ivar limit: How many there may be.
    :ivar refusals: The clients that are being refused.
    """

    _log = Logger("twisted_serve.web")

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
        """Count the connections of a listener, which change."""
        self._listeners.append(connections)

    def pause(self, port: Any) -> None:
        """Stop a port from accepting while too many clients are being refused."""
        self._ports.append(port)
        # It begins with a hundred at once, which may be more than there are descriptors.
        self._slow_down()

    def begin(self, refusal: Refusal) -> None:
        """Count a client that is being refused."""
        self.refusals.add(refusal)
        # When it has done with those at hand, a port takes twenty more at once than before.
        self.reactor.callLater(0, self._slow_down)
        if len(self.refusals) == MOST_REFUSALS:
            for port in self._ports:
                port.stopReading()

    def end(self, refusal: Refusal) -> None:
        """Count it no more."""
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
        Return whether one more connection may be taken.

        :param predictions: Whether its listener takes predictions; the others, e.g. for management, are kept some of
            the connections, so that an operator can see to a server that has too many clients.
        """
        kept = min(_KEPT, max(1, self.limit // 8), self.limit - 1) if predictions else 0
        return sum(map(len, self._listeners)) < self.limit - kept

    def refuse(self) -> Refusal | None:
        """Refuse a client; return what tells it, if there are descriptors enough to do so."""
        self._refused += 1
        self._count_refusal(503)
        now = self.reactor.seconds()
        if self._logged is None or now - self._logged >= LOG_INTERVAL:
            self._log.warn(
                "Connections refused: {count}; there may be {limit} at a time (max_connections)",
                count=self._refused,
                limit=self.limit,
            )
            self._logged, self._refused = now, 0
        return Refusal(self) if len(self.refusals) < 2 * MOST_REFUSALS else None

    def close(self) -> None:
        """Close the connections of all clients that are being refused."""
        for refusal in list(self.refusals):
            refusal.cut()


class Refusal(Protocol):
    """One client that is told to come again."""

    transport: Any

    def __init__(self, admission: Admission) -> None:
        self._admission = admission

    def connectionMade(self) -> None:
        """Answer whatever is going to be asked, and wait a moment: bytes that stay unread would undo the answer."""
        self._admission.begin(self)
        self._limit = self._admission.reactor.callLater(REFUSAL_SECONDS, self._leave)
        self.transport.write(_ANSWER)
        if self._over_tls():
            self.transport.loseConnection()
        else:
            self.transport.loseWriteConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Forget it."""
        self._admission.end(self)
        if self._limit.active():
            self._limit.cancel()

    def cut(self) -> None:
        """Close the connection, whatever has come of it."""
        self.transport.abortConnection()

    def _leave(self) -> None:
        # To cut the connection would take the answer away from a client that has not read it yet.
        if self._over_tls():
            self.cut()
        else:
            self.transport.loseConnection()

    def _over_tls(self) -> bool:
        return bool(ISSLTransport.providedBy(self.transport))
