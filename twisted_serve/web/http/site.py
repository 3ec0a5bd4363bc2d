# SPDX-License-Identifier: Apache-2.0
"""
This module implements what a listener serves its connections from, with the access log and the counters of answers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.logger import Logger
from twisted.web.http import datetimeToString
from twisted.web.iweb import IRequest
from twisted.web.resource import IResource
from twisted.web.server import Site

from twisted_serve.auth.gate import Authorizer, Denied, OpenAuthorizer
from twisted_serve.auth.redaction import Redact
from twisted_serve.eventloop.threads import DeferToThread
from twisted_serve.logs import log_access
from twisted_serve.web.http.admission import Admission
from twisted_serve.web.http.channel import ServeChannel
from twisted_serve.web.http.limits import Limits
from twisted_serve.web.http.request import ServeRequest
from twisted_serve.web.http.responses import Body


def peer_of(request: IRequest) -> str:
    """Name the client's address without its port, which changes with each connection."""
    return str(getattr(request.getClientAddress(), "host", None) or "127.0.0.1")


def _host_and_port(address: Any) -> tuple[str, int] | None:
    """Return where a client is; ``None`` if its address, on a UNIX socket, is no host's."""
    return (address.host, address.port) if hasattr(address, "port") else None


#: What the access log has, as nginx has it, for a request whose client left before it was answered.
CLIENT_CLOSED = 499


class ServeSite(Site):
    """
    One listener's site.

    :ivar gate: Asked when the headers of a request with a body are in; the guard in
        ``resource`` asks it again.
    :ivar refuse: Answers a request which the gate stopped.
    :ivar extra_headers: On every answer, unless a handler sets them itself (CORS).
    :ivar server_timing: Whether answers say where the time went.
    :ivar defer_to_thread: Does what takes long, such as inflating a large body.
    :ivar admission: Asked for each connection.
    :ivar predictions: Whether this listener takes predictions.
    :ivar error_detail: Whether clients learn what went wrong in a handler.
    :ivar channels: The connections which are open.
    """

    noisy = False
    _log = Logger("twisted_serve.web")

    def __init__(
        self,
        resource: IResource,
        reactor: IReactorTime,
        gate: Authorizer | OpenAuthorizer,
        refuse: Callable[[IRequest, Denied], Body],
        limits: Limits,
        count_answer: Callable[[int], None],
        extra_headers: Mapping[bytes, bytes],
        redact: Redact,
        defer_to_thread: DeferToThread,
        server_timing: bool = False,
        admission: Admission | None = None,
        predictions: bool = False,
        error_detail: bool = False,
    ) -> None:
        super().__init__(
            resource,
            requestFactory=ServeRequest,
            timeout=limits.keepalive_timeout,
            reactor=reactor,
            parsePOSTFormSubmission=False,
        )
        self.protocol = ServeChannel  # type: ignore[assignment, method-assign]
        self.gate = gate
        self.refuse = refuse
        self.limits = limits
        self.count_answer = count_answer
        self.extra_headers = extra_headers
        self.server_timing = server_timing
        self.error_detail = error_detail
        self._redact = redact
        self.defer_to_thread = defer_to_thread
        # A class's logger is made anew each time that it is asked for.
        self._access = self._log
        self.channels: set[ServeChannel] = set()
        self.predictions = predictions
        self.admission = admission
        if admission is not None:
            admission.watch(self.channels)
        self._waiting: list[Deferred[None]] = []
        self._second = -1
        self._date = b""

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """Take a connection, or refuse it; without a protocol it is closed."""
        if self.admission is not None and not self.admission.admits(self.predictions):
            return self.admission.refuse()
        return super().buildProtocol(addr)

    def acceptableProtocols(self) -> list[bytes]:
        """Speak HTTP/1.1 only: over TLS, Twisted would offer HTTP/2 wherever ``h2`` is installed."""
        return [b"http/1.1"]

    def startFactory(self) -> None:
        """Begin to serve; Twisted's own access log, with its timer, is not wanted."""

    def stopFactory(self) -> None:
        """Stop serving."""

    def date(self) -> bytes:
        """Return the date of an answer, which is made once a second."""
        second = int(self.reactor.seconds())
        if second != self._second:
            self._second, self._date = second, datetimeToString()
        return self._date

    def shown(self, detail: str) -> str | None:
        """Return what a client of this listener may know of a handler's error, without any key; ``None``: nothing."""
        if not self.error_detail:
            return None
        return self._redact(detail.encode("utf-8", "replace")).decode("utf-8", "replace")

    def log(self, request: ServeRequest) -> None:  # type: ignore[override]
        """Write an answered request to the access log and count it."""
        self.count_answer(request.code)
        self._log_request(request, request.code)

    def log_abandoned(self, request: ServeRequest) -> None:
        """Write a request to the access log whose connection ended before its answer; there is nothing to count."""
        self._log_request(request, CLIENT_CLOSED)

    def _log_request(self, request: ServeRequest, status: int) -> None:
        log_access(
            self._access,
            peer=_host_and_port(request.getClientAddress()),
            method=request.method,
            target=self._redact(request.uri),
            version=request.clientproto,
            status=status,
            elapsed=self.reactor.seconds() - request.began,
            request_id=request.answer_id or None,
            named=request.client_id is not None,
        )

    def log_unread(self, address: IAddress, status: int, request_id: str) -> None:
        """Write what was no request to the access log and count it; who sent it is all that is known."""
        self.count_answer(status)
        log_access(
            self._access,
            peer=_host_and_port(address),
            method=b"-",
            target=b"-",
            version=b"-",
            status=status,
            elapsed=0.0,
            request_id=request_id,
        )

    def finish_up(self) -> None:
        """Close every connection as soon as nothing is being answered on it."""
        for channel in list(self.channels):
            channel.finish_up()

    def channel_lost(self, channel: ServeChannel) -> None:
        """Forget a connection."""
        self.channels.discard(channel)
        if not self.channels:
            waiting, self._waiting = self._waiting, []
            for waiter in waiting:
                waiter.callback(None)

    def all_closed(self, limit: float) -> Deferred[None]:
        """Fire when no connection is left; those that are after ``limit`` seconds are cut."""
        if not self.channels:
            return succeed(None)
        waiter: Deferred[None] = Deferred()
        self._waiting.append(waiter)
        cut = self.reactor.callLater(limit, self.abort)

        def closed(_result: None) -> None:
            if cut.active():
                cut.cancel()

        return waiter.addCallback(closed)

    def abort(self) -> None:
        """Cut every connection."""
        for channel in list(self.channels):
            channel.transport.abortConnection()
