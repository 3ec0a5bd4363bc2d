# SPDX-License-Identifier: Apache-2.0
"""
Respond to requests that are still arriving, and let the client read the response before the connection is closed.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import ISSLTransport
from twisted.web.http import RESPONSES

from twisted_serve.errors import BadRequest, ServeError
from twisted_serve.eventloop.timeout import Timeout
from twisted_serve.planes.request_ids import fresh_id
from twisted_serve.web.http.limits import Limits
from twisted_serve.web.http.rendering import json_text, members_of
from twisted_serve.web.http.request import ServeRequest
from twisted_serve.web.http.responses import Body, answer_error
from twisted_serve.web.http.writing import WritingChannel

# After an early response, incoming bytes are discarded, up to this many, so that a client that reads only after sending
# everything gets the response before the connection is closed. Further bytes are left unread, since aborting the
# connection would lose the response for a client that is about to read it. After these seconds it is aborted.
LINGER_BYTES = 1 << 23
LINGER_SECONDS = 5.0


def _discard(data: bytes) -> None:
    """Discard bytes."""


class EarlyResponseChannel(WritingChannel):
    """The part of a connection that responds early, with the timeouts of the connection."""

    limits: Limits
    _deadline: Timeout
    _idle_timeout: Timeout
    _lingering = False

    def answer_early(self, error: ServeError) -> None:
        """Send an error response to the request being read, and discard the rest of the request."""
        request = self.requests[-1]
        request.method, request.uri, request.clientproto = self._command, self._path, self._version
        self._answer_now(request, lambda request: answer_error(request, error))

    def _answer_now(self, request: ServeRequest, answer: Callable[[ServeRequest], Body]) -> None:
        request.begin()
        self.refuse_early(request, answer)

    def refuse_early(self, request: ServeRequest, answer: Callable[[ServeRequest], Body]) -> None:
        """Send an error response to a request that has its ids, and discard all further data."""
        self._linger()
        request.write(answer(request))
        request.finish()

    def _linger(self) -> None:
        """Discard all further data, including the rest of the current read."""
        self._lingering = True
        self.persistent = False
        self._buffer = b""
        self.lineReceived = self.rawDataReceived = _discard  # type: ignore[method-assign]
        self._clear_deadline()

    def _respondToBadRequestAndDisconnect(self) -> None:
        """Answer a malformed head with an error body (the method name is Twisted's)."""
        self._refuse_head(BadRequest("Invalid HTTP message."))

    def _refuse_head(self, error: ServeError) -> None:
        """Answer a malformed head with an error, discard all further data and close the connection."""
        if self._lingering:
            return
        self._linger()
        answer_id = fresh_id()
        self.site.log_unread(self.transport.getPeer(), error.status, answer_id)
        body = json_text(members_of(error))
        # There may be no request object, since its head may be malformed.
        self.transport.write(
            b"HTTP/1.1 %d %s\r\ncontent-type: application/json\r\nconnection: close\r\n"
            b"x-request-id: %s\r\ncontent-length: %d\r\n\r\n%s"
            % (error.status, RESPONSES[error.status], answer_id.encode(), len(body), body)
        )
        self.loseConnection()

    def lineLengthExceeded(self, line: bytes) -> None:
        """Answer a line that exceeds the limit with an error."""
        self._respondToBadRequestAndDisconnect()

    def loseConnection(self) -> None:
        """Close when everything is sent; after an early response, linger so that the client can read it."""
        if not self._lingering:
            self._set_deadline(self.limits.body_timeout)
            super().loseConnection()
            return
        self.setTimeout(None)
        self._set_deadline(LINGER_SECONDS)
        if ISSLTransport(self.transport, None) is None and hasattr(self.transport, "loseWriteConnection"):
            self.transport.loseWriteConnection()

    def setTimeout(self, period: int | None) -> int | None:
        """Set the idle timeout in seconds (Twisted would make a delayed call for each request)."""
        before, self.timeOut = self.timeOut, period
        self._idle_timeout.set(None if period is None else self.site.reactor.seconds() + period)
        return before

    def resetTimeout(self) -> None:
        """Restart the idle timeout."""
        if self.timeOut is not None:
            self._idle_timeout.set(self.site.reactor.seconds() + self.timeOut)

    def _set_deadline(self, seconds: float) -> None:
        self._deadline.set(self.site.reactor.seconds() + seconds)

    def _clear_deadline(self) -> None:
        self._deadline.set(None)
