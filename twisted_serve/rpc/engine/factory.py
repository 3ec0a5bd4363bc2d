# SPDX-License-Identifier: Apache-2.0
"""
Serve the gRPC connections of a listener.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IProtocolNegotiationFactory, IReactorTime
from twisted.internet.protocol import Factory
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from twisted_serve.errors import InternalError, ServeError, WorkerFailed
from twisted_serve.eventloop.threads import DeferToThread
from twisted_serve.listening.admission import Admission
from twisted_serve.listening.open_connections import OpenConnections
from twisted_serve.rpc.contracts import Door, End, Methods
from twisted_serve.rpc.engine import wire
from twisted_serve.rpc.engine.connection import GrpcConnection
from twisted_serve.rpc.engine.limits import RpcLimits

_log = Logger("twisted_serve.rpc")


# What a client gets if there are too many: its calls fail with UNAVAILABLE, and it tries again later.
_FULL = wire.settings({}) + wire.go_away(
    0, wire.Reason.ENHANCE_YOUR_CALM, b"the server has as many connections as it can have"
)


def _show_nothing(detail: str) -> str | None:
    return None


@implementer(IProtocolNegotiationFactory)
class GrpcFactory(Factory):
    """
    The gRPC connections of one listener.

    :ivar connections: The open connections.
    :param methods: What is served.
    :param door: Decides about each call at its headers.
    :param on_end: Called once for each call that is over; it must not raise.
    :param defer_to_thread: Inflates large messages in a thread.
    :param shown: Return the detail of a handler's error for clients; ``None`` if they may not see it.
    :param admission: Admits or refuses each connection.
    :param predictions: Whether this listener serves predictions.
    """

    noisy = False

    def __init__(
        self,
        methods: Methods,
        door: Door,
        on_end: Callable[[End], None],
        limits: RpcLimits,
        reactor: IReactorTime,
        defer_to_thread: DeferToThread,
        shown: Callable[[str], str | None] = _show_nothing,
        admission: Admission | None = None,
        predictions: bool = False,
    ) -> None:
        self.methods = methods
        self.door = door
        self.on_end = on_end
        self.limits = limits
        self.reactor = reactor
        self.defer_to_thread = defer_to_thread
        self._open: OpenConnections[GrpcConnection] = OpenConnections(reactor)
        self.connections = self._open.all
        self._shown = shown
        self._predictions = predictions
        self._admission = admission
        if admission is not None:
            admission.watch(self.connections)

    def acceptableProtocols(self) -> list[bytes]:
        """Offer HTTP/2 only; clients of gRPC demand that TLS negotiates it."""
        return [b"h2"]

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """Accept a connection or refuse it, or close it without a response."""
        if self._admission is not None and not self._admission.admits(self._predictions):
            return self._admission.refuse(_FULL)
        return GrpcConnection(self)

    def error_of(self, failure: Failure) -> ServeError:
        """Return the error to show to a client; log a failure that is not in the error tree."""
        error = failure.value
        if not isinstance(error, ServeError):
            _log.failure("A call could not be answered", failure)
            return InternalError("Internal server error.")
        if isinstance(error, WorkerFailed) and error.detail:
            error.because(self._shown(error.detail))
        return error

    def finish_up(self) -> None:
        """Tell all clients to begin no more calls, and close each connection when its calls have ended."""
        for connection in list(self.connections):
            connection.finish_up()

    def connection_lost(self, connection: GrpcConnection) -> None:
        """Remove a closed connection."""
        self._open.lost(connection)

    def all_closed(self, limit: float) -> Deferred[None]:
        """Return a Deferred that fires when all connections are closed; abort those left after ``limit`` seconds."""
        return self._open.all_closed(limit)

    def abort(self) -> None:
        """Abort every connection."""
        self._open.abort()
