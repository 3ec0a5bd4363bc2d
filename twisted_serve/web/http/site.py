# SPDX-License-Identifier: Apache-2.0
"""
Serve the connections of a listener, with its access log and response counters.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.logger import Logger
from twisted.web.iweb import IRequest
from twisted.web.resource import IResource
from twisted.web.server import Site

from twisted_serve.auth.asking import Asking, Declined
from twisted_serve.auth.gate import Allowed, Authorizer, Denied, OpenAuthorizer
from twisted_serve.auth.redaction import Redact
from twisted_serve.eventloop.threads import DeferToThread
from twisted_serve.listening.admission import Admission
from twisted_serve.listening.open_connections import OpenConnections
from twisted_serve.logs import AccessLog
from twisted_serve.planes.senders import Sender
from twisted_serve.web.http.channel import ServeChannel, host_and_port, host_of
from twisted_serve.web.http.contracts import FastLane, Fronts
from twisted_serve.web.http.heads import HttpDate
from twisted_serve.web.http.limits import Limits
from twisted_serve.web.http.rendering import json_text
from twisted_serve.web.http.request import ServeRequest
from twisted_serve.web.http.responses import Body, answer_declined

_log = Logger("twisted_serve.web")


def peer_of(request: IRequest) -> str:
    """Return the client's address without the port, which differs for each connection."""
    return host_of(request.getClientAddress())


def sender_of(request: IRequest) -> str:
    """Return the origin of a request, as audit lines have it: the client's address, and its named key if it has one."""
    key = request.sender.allowed.key if isinstance(request, ServeRequest) and request.sender is not None else None
    if key is None:
        return peer_of(request)
    record = key.record
    return f"{peer_of(request)} with the key {record.name} ({record.id})"


_FULL = json_text(
    {
        "code": 503,
        "type": "ServiceUnavailableException",
        "message": "The server has as many connections as it can have.",
    }
)
_REFUSAL = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nRetry-After: 1\r\nConnection: close\r\n"
    b"Content-Length: %d\r\n\r\n%s" % (len(_FULL), _FULL)
)

#: The status in the access log, as in nginx, of a request whose client disconnected before the response.
CLIENT_CLOSED = 499


class ServeSite(Site):
    """
    The site of one listener.

    :ivar authorizer: Checks a request with a body when its headers have arrived; the guard in ``resource`` checks
        every request, these included.
    :ivar refuse: Renders the response to a denied request.
    :ivar asking: Asks the application's authorizer, which decides instead of keys; ``None`` if there is none.
    :ivar decline: Renders the response to a request that it did not admit.
    :param take: Takes a request with a named key: from an address, with a method and a path. Or returns why the key
        has reached a limit.
    :ivar extra_headers: CORS headers of every response, unless a handler sets them.
    :ivar server_timing: Whether responses have a ``Server-Timing`` header.
    :ivar defer_to_thread: Runs slow work, such as inflating a large body, in a thread.
    :ivar admission: Admits or refuses each connection.
    :ivar predictions: Whether this listener serves predictions.
    :ivar error_detail: Whether responses include the details of handler errors.
    :ivar channels: The open connections.
    :ivar access_log: The access log of this listener.
    :ivar fast_lane: Takes usual requests from channels; ``None`` if there is none.
    :ivar fronts: Takes connections; ``None`` if there are no other processes that read and write them.
    :ivar date: Returns the value of the ``Date`` header.
    """

    noisy = False

    def __init__(
        self,
        resource: IResource,
        reactor: IReactorTime,
        authorizer: Authorizer | OpenAuthorizer,
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
        asking: Asking | None = None,
        decline: Callable[[IRequest, Declined], Body] = answer_declined,
        take: Callable[[Allowed, str, str, bytes], Sender | Denied] | None = None,
    ) -> None:
        super().__init__(
            resource,
            requestFactory=ServeRequest,
            timeout=limits.keepalive_timeout,
            reactor=reactor,
            parsePOSTFormSubmission=False,
        )
        self.protocol = ServeChannel  # type: ignore[assignment, method-assign]
        self.authorizer = authorizer
        self.refuse = refuse
        self.asking = asking
        self.decline = decline
        self._take = take
        self.limits = limits
        self.count_answer = count_answer
        self.extra_headers = extra_headers
        self.server_timing = server_timing
        self.error_detail = error_detail
        self._redact = redact
        self.defer_to_thread = defer_to_thread
        self.access_log = AccessLog(_log, redact)
        self._open: OpenConnections[ServeChannel] = OpenConnections(reactor)
        self.channels = self._open.all
        self.predictions = predictions
        self.admission = admission
        self.fast_lane: FastLane | None = None
        self.fronts: Fronts | None = None
        if admission is not None:
            admission.watch(self.channels)
        self.date = HttpDate(reactor.seconds)

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """Accept a connection or refuse it, or close it without a response."""
        if self.admission is not None and not self.admission.admits(self.predictions):
            return self.admission.refuse(_REFUSAL)
        return self.channel_for(addr)

    def channel_for(self, addr: IAddress | None) -> ServeChannel:
        """Return the channel of a connection that has been admitted."""
        channel: ServeChannel = super().buildProtocol(addr)
        return channel

    def acceptableProtocols(self) -> list[bytes]:
        """Offer HTTP/1.1 only: over TLS, Twisted would offer HTTP/2 if ``h2`` is installed."""
        return [b"http/1.1"]

    def startFactory(self) -> None:
        """Do nothing: Twisted's own access log, with its timer, is not used."""

    def stopFactory(self) -> None:
        """Do nothing: there is no log to close."""

    def take(self, allowed: Allowed, request: IRequest) -> Sender | Denied:
        """
        Take a request with a named key, or return why the key has reached a limit.

        :raise RuntimeError: without tokens, where no request has a key.
        """
        return self.take_from(peer_of(request), allowed, request.method, request.uri)

    def take_from(self, peer: str, allowed: Allowed, method: bytes, uri: bytes) -> Sender | Denied:
        """
        Take a request with a named key from an address; as `take`.

        :raise RuntimeError: as `take`.
        """
        if self._take is None:
            raise RuntimeError("a request with a named key, but there are none")
        return self._take(allowed, peer, method.decode("latin-1"), uri)

    def shown(self, detail: str) -> str | None:
        """Return the detail of a handler's error for clients, with keys redacted; ``None`` if they may not see it."""
        if not self.error_detail:
            return None
        return self._redact(detail.encode("utf-8", "replace")).decode("utf-8", "replace")

    def log(self, request: ServeRequest) -> None:  # type: ignore[override]
        """Write an answered request to the access log and count its response."""
        self.count_answer(request.code)
        self._log_request(request, request.code)

    def log_abandoned(self, request: ServeRequest) -> None:
        """Write a request whose client disconnected before the response to the access log, without counting it."""
        self._log_request(request, CLIENT_CLOSED)

    def log_quick(
        self,
        peer: tuple[str, int] | None,
        method: bytes,
        target: bytes,
        began: float,
        request_id: str,
        named: bool,
        principal: str | None,
    ) -> None:
        """Write a request that was answered on the fast lane, with status 200, to the access log, and count it."""
        self.count_answer(200)
        self.access_log.add(
            peer, method, target, b"HTTP/1.1", 200, self.reactor.seconds() - began, request_id, named, principal
        )

    def _log_request(self, request: ServeRequest, status: int) -> None:
        self.access_log.add(
            host_and_port(request.getClientAddress()),
            request.method,
            request.uri,
            request.clientproto,
            status,
            self.reactor.seconds() - request.began,
            request.answer_id or None,
            request.client_id is not None,
            request.principal,
        )

    def log_unread(self, address: IAddress, status: int, request_id: str) -> None:
        """Write a malformed request to the access log and count its response; only its sender's address is known."""
        self.count_answer(status)
        self.access_log.add(host_and_port(address), b"-", b"-", b"-", status, 0.0, request_id, False, None)

    def finish_up(self) -> None:
        """Close every connection as soon as it is idle."""
        for channel in list(self.channels):
            channel.finish_up()

    def channel_lost(self, channel: ServeChannel) -> None:
        """Remove a closed connection."""
        self._open.lost(channel)

    def all_closed(self, limit: float) -> Deferred[None]:
        """Return a Deferred that fires when all connections are closed; abort those left after ``limit`` seconds."""
        return self._open.all_closed(limit)

    def abort(self) -> None:
        """Abort every connection."""
        self._open.abort()
