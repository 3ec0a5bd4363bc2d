# SPDX-License-Identifier: Apache-2.0
"""
This module implements connections: how much a client may send, how long it may take, and the gate before the body.

Twisted's channel reads requests and keeps their order; what is added here is
what it leaves open: a bounded body, deadlines which a slow client cannot put
off byte by byte, and an early answer which reaches a client that is still sending.
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

# After an early answer the client's bytes are read and dropped, so that it gets to read the answer before the
# connection goes: this many of them, for a client that reads only when it has sent all.  The rest is left where it
# is, since cutting the connection would take the answer away from a client that is about to read it; not for longer.
LINGER_BYTES = 1 << 23
LINGER_SECONDS = 5.0

# Of one read, these many requests and these many bytes in small chunks are handled before
# other clients have their turn.
MOST_REQUESTS_AT_ONCE = 16
MOST_CHUNKED_AT_ONCE = 1 << 14

# A longer body is not copied to be sent in one piece with its head.
_JOINED = 1 << 16

# A longer number of bytes is no length (and would be slow to read).
_LONGEST_LENGTH = 18

# What a line of a head begins with which continues the one before.
_BLANKS = frozenset(b" \t")

# Looked up once: they are called for each line.
_receive_line = HTTPChannel.lineReceived
_receive_header = HTTPChannel.headerReceived

# On every answer (``docs/torchserve/rest_api.md`` §2.4); the single semicolon is the predecessor's.
_NO_CACHE = (
    b"Pragma: no-cache\r\nCache-Control: no-cache; no-store, must-revalidate, private\r\n"
    b"Expires: Thu, 01 Jan 1970 00:00:00 UTC\r\n"
)


def _drop(data: bytes) -> None:
    """Take bytes which nobody reads."""


class ServeChannel(HTTPChannel):
    """One client's connection."""

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
        """Begin the connection under the site's limits."""
        self.limits = self.site.limits
        self.MAX_LENGTH = self.limits.request_line
        self.totalHeadersSize = self.limits.headers
        clock = self.site.reactor
        self._deadline, self._silence = Timeout(clock, self._too_late), Timeout(clock, self.timeoutConnection)
        super().connectionMade()
        self.host, self.peer = self.transport.getHost(), self.transport.getPeer()
        self.site.channels.add(self)

    def getHost(self) -> IAddress:
        """Return our own address, without asking the system again for each request."""
        return self.host

    def getPeer(self) -> IAddress:
        """Return the client's address, likewise."""
        return self.peer

    # Reading

    def dataReceived(self, data: bytes) -> None:
        """Take bytes; after an early answer only to drop them."""
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
        """Whether reading goes on in the next turn of the reactor."""
        return self._put_off is not None

    def _let_others(self) -> None:
        """Stop reading until the next turn of the reactor."""
        self.paused = True
        if self._put_off is None:
            self._put_off = self.site.reactor.callLater(0, self._go_on)
        self._networkProducer.pauseProducing()

    def _go_on(self) -> None:
        self._put_off = None
        if self.stalled:
            # It goes on when the client has read its answers.
            return
        self.paused = False
        if not self._handlingRequest:
            self._networkProducer.resumeProducing()
        self.dataReceived(b"")

    def rawDataReceived(self, data: bytes) -> None:
        """Take a part of a body; of one in chunks, which may be tiny, not too much at once."""
        # Without a length the body is in chunks; the decoder's is what is left of the present one.
        chunked = self.length is None and not self._handlingRequest
        if chunked and len(data) > max(MOST_CHUNKED_AT_ONCE, getattr(self._transferDecoder, "length", 0)):
            super().rawDataReceived(data[:MOST_CHUNKED_AT_ONCE])
            if not self._lingering:
                # What follows the body may be there already.
                self._buffer += data[MOST_CHUNKED_AT_ONCE:]
                self._let_others()
        else:
            super().rawDataReceived(data)

    def lineReceived(self, line: bytes) -> None:
        """Take a line of a head: check the request line, and refuse a folded header, which Twisted would unfold."""
        if not self._in_head:
            self._at_once += 1
            if self._at_once > MOST_REQUESTS_AT_ONCE:
                self._let_others()
            try:
                line = checked_request_line(line)
            except ServeError as error:
                self._refuse_head(error)
                return
            # An empty line before the request line is none of the head.
            self._in_head = line != b""
        elif line and line[0] in _BLANKS:
            self._refuse_head(folding())
            return
        _receive_line(self, line)

    def headerReceived(self, line: bytes) -> bool:
        """Keep a header as it was spelled, and refuse a length which is none."""
        name, _, value = line.partition(b":")
        value = value.strip(b" \t")
        lowered = name.lower()
        # Asked here, not in a function: this is done for each header.
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
        """Decide about a body before it is read, and before the client is told to go on."""
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
        """Hand a whole request on."""
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
        """Say whether the connection may go on after this request: HTTP/1.0 clients have to ask."""
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
        Buffer the head of a response, with the headers of all responses, until the first bytes of the body.

        The headers are those of ``docs/torchserve/rest_api.md`` §2.4.
        """
        self._head = self._head_of(version, code, reason, lines_of(headers))

    def write_whole(self, lines: bytes, body: bytes) -> None:
        """Send a whole answer whose status is 200: its headers, each with the end of its line, and its body."""
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
        """Send a part of an answer, after the head if that has not been sent."""
        head, self._head = self._head, b""
        if len(data) > _JOINED:
            self.transport.write(head)
            write_now(self.transport, data)
        else:
            write_now(self.transport, head + data)

    def writeSequence(self, iovec: Iterable[bytes]) -> None:
        """Send a part of an answer."""
        self.write(b"".join(iovec))

    def send_head(self) -> None:
        """Send the head alone, if it has not been sent."""
        if self._head:
            self.write(b"")

    # Answering early

    def answer_early(self, error: ServeError) -> None:
        """Answer the request which is being read; what else it has is dropped."""
        request = self.requests[-1]
        request.method, request.uri, request.clientproto = self._command, self._path, self._version
        self._answer_now(request, lambda request: answer_error(request, error))

    def _answer_now(self, request: ServeRequest, answer: Callable[[ServeRequest], Body]) -> None:
        self._linger()
        request.begin()
        request.write(answer(request))
        request.finish()

    def _linger(self) -> None:
        """Read no more of what is sent but to drop it, the rest of the present read included."""
        self._lingering = True
        self.persistent = False
        self._buffer = b""
        self.lineReceived = self.rawDataReceived = _drop  # type: ignore[assignment, method-assign]
        self._clear_deadline()

    def _respondToBadRequestAndDisconnect(self) -> None:
        """Answer what is not HTTP (the name is Twisted's) with a body that says so."""
        self._refuse_head(BadRequest("Invalid HTTP message."))

    def _refuse_head(self, error: ServeError) -> None:
        """Answer what cannot be read as a request, read nothing of what follows, and close the connection."""
        if self._lingering:
            return
        self._linger()
        answer_id = fresh_id()
        self.site.log_unread(self.transport.getPeer(), error.status, answer_id)
        body = json_text(members_of(error))
        # There is no request to answer: its head may be what cannot be read.
        self.transport.write(
            b"HTTP/1.1 %d %s\r\ncontent-type: application/json\r\nconnection: close\r\n"
            b"x-request-id: %s\r\ncontent-length: %d\r\n\r\n%s"
            % (error.status, RESPONSES[error.status], answer_id.encode(), len(body), body)
        )
        self.loseConnection()

    def lineLengthExceeded(self, line: bytes) -> None:
        """Answer a line that has no end."""
        self._respondToBadRequestAndDisconnect()

    # Clients which do not read

    @property
    def stalled(self) -> bool:
        """Whether the client has to take something before it can be sent more."""
        return bool(self._waitingForTransport)

    def pauseProducing(self) -> None:
        """Stop: the client does not read; a stream waits for it, but not for ever."""
        stalled = self.stalled
        super().pauseProducing()
        if self._handlingRequest and not stalled:
            self._set_deadline(self.limits.body_timeout)

    def requestDone(self, request: Request) -> None:
        """Go on to the next request, but not while the client leaves the answers which it has been sent."""
        if not self._lingering:
            self._clear_deadline()
        if self.stalled:
            # Twisted stops reading from such a client only in the middle of a request.
            self.paused = True
            self._networkProducer.pauseProducing()
        super().requestDone(request)
        if self._put_off is not None:
            self._networkProducer.pauseProducing()

    def resumeProducing(self) -> None:
        """Go on: the client has taken its answers."""
        if self._handlingRequest:
            self._clear_deadline()
        super().resumeProducing()
        if self.paused:
            self.paused = False
            self.dataReceived(b"")

    # Closing

    def loseConnection(self) -> None:
        """Close when all is sent, but after an early answer only when the client has had a chance to read it."""
        if not self._lingering:
            self._set_deadline(self.limits.body_timeout)
            super().loseConnection()
            return
        self.setTimeout(None)
        self._set_deadline(LINGER_SECONDS)
        if ISSLTransport(self.transport, None) is None and hasattr(self.transport, "loseWriteConnection"):
            self.transport.loseWriteConnection()

    def finish_up(self) -> None:
        """Close as soon as nothing is being read or answered: the server is going to stop."""
        self._finishing = True
        for request in self.requests:
            self.persistent = False
            request.responseHeaders.setRawHeaders(b"Connection", [b"close"])
        if not (self.requests or self._buffer or self._lingering):
            self.loseConnection()

    def timeoutConnection(self) -> None:
        """Cut a connection which has been silent for too long; a client that still takes its answer has longer."""
        if self.stalled and not self._deadline.is_set:
            self._set_deadline(self.limits.body_timeout)
        else:
            self.transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Forget the deadline with the connection."""
        self.site.channel_lost(self)
        super().connectionLost(reason)
        self._deadline.cancel()
        self._silence.cancel()
        if self._put_off is not None:
            self._put_off.cancel()
            self._put_off = None

    # Deadlines

    def setTimeout(self, period: int | None) -> int | None:
        """Set for how long the connection may be silent (Twisted makes a delayed call for each request)."""
        before, self.timeOut = self.timeOut, period
        self._silence.set(None if period is None else self.site.reactor.seconds() + period)
        return before

    def resetTimeout(self) -> None:
        """The connection is not silent."""
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
