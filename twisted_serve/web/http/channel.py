# SPDX-License-Identifier: Apache-2.0
"""
Handle a connection: size limits, timeouts, and authorization before the body.

Twisted's channel parses requests and keeps their order. This module adds a bounded body, deadlines that a slow client
cannot extend byte by byte, and early responses that reach a client while it is still sending.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from twisted.internet.interfaces import IAddress, IDelayedCall, ISSLTransport
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from twisted.web.http import RESPONSES, HTTPChannel
from twisted.web.http_headers import Headers
from twisted.web.server import Request

from twisted_serve.auth.gate import Denied
from twisted_serve.auth.targets import parse_target
from twisted_serve.errors import BadRequest, ExpectationFailed, RequestTimeout, ServeError, UnsupportedEncoding
from twisted_serve.eventloop.timeout import Timeout
from twisted_serve.eventloop.writing import write_now
from twisted_serve.web.http.contracts import ChannelSite
from twisted_serve.web.http.head_checks import (
    CONTROLS,
    check_coding,
    check_trailers,
    checked_request_line,
    control_in,
    flaw_of_hosts,
    folding,
    is_host,
)
from twisted_serve.web.http.limits import Limits
from twisted_serve.web.http.rendering import json_text, lines_of, members_of
from twisted_serve.web.http.request import RARE, ServeRequest, fresh_id
from twisted_serve.web.http.responses import Body, answer_error

# After an early response, incoming bytes are discarded, up to this many, so that a client that reads only after sending
# everything gets the response before the connection is closed. Further bytes are left unread, since aborting the
# connection would lose the response for a client that is about to read it. After these seconds it is aborted.
LINGER_BYTES = 1 << 23
LINGER_SECONDS = 5.0

# The most requests, and the most bytes of small chunks, handled from one read before other connections get a turn.
MOST_REQUESTS_AT_ONCE = 16
MOST_CHUNKED_AT_ONCE = 1 << 14

# In bytes. A longer body is written separately, since joining it with its head would copy it.
_JOINED = 1 << 16

# In digits. A longer Content-Length is invalid (and slow to parse).
_LONGEST_LENGTH = 18

# The first byte of a line that continues the previous header line.
_BLANKS = frozenset(b" \t")

# Looked up once, because they are called for each line.
_receive_line = HTTPChannel.lineReceived
_receive_header = HTTPChannel.headerReceived

# In every response (``docs/torchserve/rest_api.md`` §2.4); the single semicolon is TorchServe's.
_NO_CACHE = (
    b"Pragma: no-cache\r\nCache-Control: no-cache; no-store, must-revalidate, private\r\n"
    b"Expires: Thu, 01 Jan 1970 00:00:00 UTC\r\n"
)


def _drop(data: bytes) -> None:
    """Discard bytes."""


class ServeChannel(HTTPChannel):
    """The connection of one client."""

    site: ChannelSite
    transport: Any
    requestFactory: Any = ServeRequest
    limits: Limits
    host: IAddress
    peer: IAddress
    _deadline: Timeout
    _silence: Timeout
    _head = b""
    _in_head = False
    _lingering = False
    _dropped = 0
    _finishing = False
    _put_off: IDelayedCall | None = None
    _at_once = 0

    def connectionMade(self) -> None:
        """Apply the site's limits to the new connection."""
        self.limits = self.site.limits
        self.MAX_LENGTH = self.limits.request_line
        self.totalHeadersSize = self.limits.headers
        clock = self.site.reactor
        self._deadline, self._silence = Timeout(clock, self._too_late), Timeout(clock, self.timeoutConnection)
        super().connectionMade()
        self.host, self.peer = self.transport.getHost(), self.transport.getPeer()
        self.site.channels.add(self)

    def getHost(self) -> IAddress:
        """Return the cached local address, without a system call per request."""
        return self.host

    def getPeer(self) -> IAddress:
        """Return the cached address of the client."""
        return self.peer

    # Reading

    def dataReceived(self, data: bytes) -> None:
        """Handle incoming data; discard it after an early response."""
        if self._lingering:
            self._dropped += len(data)
            if self._dropped > LINGER_BYTES:
                self.transport.pauseProducing()
            return
        if self._put_off is not None:
            self._networkProducer.pauseProducing()
        elif not self._busyReceiving:
            self._at_once = 0
        super().dataReceived(data)
        if not (self._handlingRequest or self._deadline.is_set) and (self.requests or self._buffer):
            self._set_deadline(self.limits.header_timeout)

    @property
    def has_put_off(self) -> bool:
        """Whether reading resumes in the next reactor iteration."""
        return self._put_off is not None

    def _let_others(self) -> None:
        """Pause reading until the next reactor iteration, so that other connections get a turn."""
        self.paused = True
        if self._put_off is None:
            self._put_off = self.site.reactor.callLater(0, self._go_on)
        self._networkProducer.pauseProducing()

    def _go_on(self) -> None:
        self._put_off = None
        if self.stalled:
            # `resumeProducing` resumes reading when the client has read its responses.
            return
        self.paused = False
        if not self._handlingRequest:
            self._networkProducer.resumeProducing()
        self.dataReceived(b"")

    def rawDataReceived(self, data: bytes) -> None:
        """Handle a part of a body; handle a bounded part of a chunked body at a time, as its chunks may be tiny."""
        # Without a length the body is chunked; the decoder's length is the rest of the current chunk.
        chunked = self.length is None and not self._handlingRequest
        if chunked and len(data) > max(MOST_CHUNKED_AT_ONCE, getattr(self._transferDecoder, "length", 0)):
            super().rawDataReceived(data[:MOST_CHUNKED_AT_ONCE])
            if not self._lingering:
                # The buffer may already hold data after the body.
                self._buffer += data[MOST_CHUNKED_AT_ONCE:]
                self._let_others()
        else:
            super().rawDataReceived(data)

    def lineReceived(self, line: bytes) -> None:
        """Handle a line of a head: check the request line, and refuse folded headers, which Twisted would unfold."""
        if not self._in_head:
            self._at_once += 1
            if self._at_once > MOST_REQUESTS_AT_ONCE:
                self._let_others()
            try:
                line = checked_request_line(line)
            except ServeError as error:
                self._refuse_head(error)
                return
            # An empty line before the request line is not part of the head.
            self._in_head = line != b""
        elif line and line[0] in _BLANKS:
            self._refuse_head(folding())
            return
        _receive_line(self, line)

    def headerReceived(self, line: bytes) -> bool:
        """Check a header and keep it as spelled."""
        name, _, value = line.partition(b":")
        value = value.strip(b" \t")
        lowered = name.lower()
        # Checked inline, not in a function, because this runs for each header.
        if line.translate(None, CONTROLS) != line:
            self._refuse_head(control_in(line))
            return False
        if lowered == b"transfer-encoding":
            try:
                check_coding(value, self._version)
            except ServeError as error:
                self._refuse_head(error)
                return False
        if lowered == b"content-length" and len(value) > _LONGEST_LENGTH:
            self._respondToBadRequestAndDisconnect()
            return False
        if not _receive_header(self, line):
            return False
        request = self.requests[-1]
        request.spelled_headers.append((name, value))
        if lowered in RARE:
            request.plain = False
        return True

    def allHeadersReceived(self) -> None:
        """Check whether to refuse the request before its body is read and before ``100 Continue`` is sent."""
        self._in_head = False
        request = self.requests[-1]
        hosts = request.requestHeaders.getRawHeaders(b"host", ())
        if len(hosts) != 1 or not is_host(hosts[0]):
            flaw = flaw_of_hosts(hosts, self._version)
            if flaw is not None:
                self._refuse_head(flaw)
                return
        if self.length != 0 or (not request.plain and request.requestHeaders.hasHeader(b"expect")):
            self._set_deadline(self.limits.body_timeout)
            request.method, request.uri, request.clientproto = self._command, self._path, self._version
            problem = self._problem_before_body(request)
            if problem is not None:
                request.gotLength(0)
                self._answer_now(request, problem)
                return
        super().allHeadersReceived()

    def allContentReceived(self) -> None:
        """Process a complete request, after checking the trailers of a chunked body."""
        if self._lingering:
            return
        if self.length is None:
            try:
                check_trailers(getattr(self._transferDecoder, "_trailerHeaders", ()))
            except ServeError as error:
                self._refuse_head(error)
                return
        self._clear_deadline()
        super().allContentReceived()

    def checkPersistence(self, request: ServeRequest, version: bytes) -> bool:
        """Return whether the connection persists after this request; HTTP/1.0 clients must ask for it."""
        if request.plain and version == b"HTTP/1.1" and not self._finishing:
            return True
        headers = request.requestHeaders
        listed = b",".join(headers.getRawHeaders(b"connection", ())).lower().split(b",")
        options = {option.strip(b" \t") for option in listed}
        persistent = b"close" not in options
        if version == b"HTTP/1.0":
            persistent = persistent and b"keep-alive" in options
        persistent = persistent and not self._finishing
        if not persistent:
            request.responseHeaders.setRawHeaders(b"Connection", [b"close"])
        return persistent

    def _problem_before_body(self, request: ServeRequest) -> Callable[[ServeRequest], Body] | None:
        headers = request.requestHeaders
        authorization = headers.getRawHeaders(b"authorization", ())
        verdict = self.site.gate.ask(request.method, parse_target(request.uri), authorization)
        if isinstance(verdict, Denied):
            return lambda request: self.site.refuse(request, verdict)
        request.public = verdict.door is None
        if self.length is not None and self.length > request.body_limit:
            return lambda request: answer_error(request, request.too_large())
        if not request.plain:
            try:
                request.codings()
            except UnsupportedEncoding as error:
                unsupported = error
                return lambda request: answer_error(request, unsupported)
        for value in headers.getRawHeaders(b"expect", ()):
            if value.lower() != b"100-continue":
                return lambda request: answer_error(request, ExpectationFailed())
        return None

    # Writing

    def writeHeaders(self, version: bytes, code: bytes, reason: bytes, headers: Headers) -> None:
        """
        Buffer the head of a response until the first bytes of its body.

        The head includes the headers of every response (``docs/torchserve/rest_api.md`` §2.4).
        """
        self._head = self._head_of(version, code, reason, lines_of(headers))

    def write_whole(self, lines: bytes, body: bytes) -> None:
        """Send a complete response with status 200: its headers, each with its line end, and its body."""
        self._head = self._head_of(b"HTTP/1.1", b"200", b"OK", b"%sContent-Length: %d\r\n" % (lines, len(body)))
        self.write(body)

    def _head_of(self, version: bytes, code: bytes, reason: bytes, lines: bytes) -> bytes:
        answer_id = self.requests[0].answer_id.encode("ascii")
        date = self.site.date()
        return b"%s %s %s\r\nDate: %s\r\nX-Request-Id: %s\r\n%s%s\r\n" % (
            version,
            code,
            reason,
            date,
            answer_id,
            _NO_CACHE,
            lines,
        )

    def write(self, data: bytes) -> None:
        """Send a part of a response, preceded by its head if not yet sent."""
        head, self._head = self._head, b""
        if len(data) > _JOINED:
            self.transport.write(head)
            write_now(self.transport, data)
        else:
            write_now(self.transport, head + data)

    def writeSequence(self, iovec: Iterable[bytes]) -> None:
        """Send a part of a response."""
        self.write(b"".join(iovec))

    def send_head(self) -> None:
        """Send the head alone, unless already sent."""
        if self._head:
            self.write(b"")

    # Early responses

    def answer_early(self, error: ServeError) -> None:
        """Send an error response to the request being read, and discard the rest of the request."""
        request = self.requests[-1]
        request.method, request.uri, request.clientproto = self._command, self._path, self._version
        self._answer_now(request, lambda request: answer_error(request, error))

    def _answer_now(self, request: ServeRequest, answer: Callable[[ServeRequest], Body]) -> None:
        self._linger()
        request.begin()
        request.write(answer(request))
        request.finish()

    def _linger(self) -> None:
        """Discard all further data, including the rest of the current read."""
        self._lingering = True
        self.persistent = False
        self._buffer = b""
        self.lineReceived = self.rawDataReceived = _drop  # type: ignore[assignment, method-assign]
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

    # Back-pressure

    @property
    def stalled(self) -> bool:
        """Whether the client must read before more can be sent."""
        return bool(self._waitingForTransport)

    def pauseProducing(self) -> None:
        """Pause, as the client is not reading; a stream waits for it until the body timeout."""
        stalled = self.stalled
        super().pauseProducing()
        if self._handlingRequest and not stalled:
            self._set_deadline(self.limits.body_timeout)

    def requestDone(self, request: Request) -> None:
        """Continue with the next request, unless the client is not reading its responses."""
        if not self._lingering:
            self._clear_deadline()
        if self.stalled:
            # Twisted pauses reading from such a client only during a request.
            self.paused = True
            self._networkProducer.pauseProducing()
        super().requestDone(request)
        if self._put_off is not None:
            self._networkProducer.pauseProducing()

    def resumeProducing(self) -> None:
        """Resume, as the client has read its responses."""
        if self._handlingRequest:
            self._clear_deadline()
        super().resumeProducing()
        if self.paused:
            self.paused = False
            self.dataReceived(b"")

    # Closing

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

    def finish_up(self) -> None:
        """Close the connection as soon as it is idle, because the server is stopping."""
        self._finishing = True
        for request in self.requests:
            self.persistent = False
            request.responseHeaders.setRawHeaders(b"Connection", [b"close"])
        if not (self.requests or self._buffer or self._lingering):
            self.loseConnection()

    def timeoutConnection(self) -> None:
        """Abort an idle connection; a client still reading a response gets the body timeout first."""
        if self.stalled and not self._deadline.is_set:
            self._set_deadline(self.limits.body_timeout)
        else:
            self.transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Cancel the timeouts and delayed calls of the connection."""
        self.site.channel_lost(self)
        super().connectionLost(reason)
        self._deadline.cancel()
        self._silence.cancel()
        if self._put_off is not None:
            self._put_off.cancel()
            self._put_off = None

    # Deadlines

    def setTimeout(self, period: int | None) -> int | None:
        """Set the idle timeout in seconds (Twisted would make a delayed call for each request)."""
        before, self.timeOut = self.timeOut, period
        self._silence.set(None if period is None else self.site.reactor.seconds() + period)
        return before

    def resetTimeout(self) -> None:
        """Restart the idle timeout."""
        if self.timeOut is not None:
            self._silence.set(self.site.reactor.seconds() + self.timeOut)

    def _set_deadline(self, seconds: float) -> None:
        self._deadline.set(self.site.reactor.seconds() + seconds)

    def _clear_deadline(self) -> None:
        self._deadline.set(None)

    def _too_late(self) -> None:
        if self.requests and hasattr(self, "_command") and not self._lingering:
            self.answer_early(RequestTimeout("The request did not arrive in time."))
        else:
            self.transport.abortConnection()
