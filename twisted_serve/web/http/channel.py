# SPDX-License-Identifier: Apache-2.0
"""
Handle a connection: size limits, timeouts, and authorization before the body.

Twisted's channel parses requests and keeps their order. This module adds a bounded body, deadlines that a slow client
cannot extend byte by byte, and early responses that reach a client while it is still sending.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import IAddress, IDelayedCall
from twisted.internet.protocol import connectionDone
from twisted.internet.tcp import Connection
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel

from twisted_serve.errors import RequestTimeout, ServeError
from twisted_serve.eventloop.timeout import Timeout
from twisted_serve.web.http.early_responses import LINGER_BYTES
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
from twisted_serve.web.http.large_bodies import LARGE_BODY
from twisted_serve.web.http.quick import QuickChannel
from twisted_serve.web.http.request import RARE, ServeRequest

# The most requests, and the most bytes of small chunks, handled from one read before other connections get a turn.
MOST_REQUESTS_AT_ONCE = 16
MOST_CHUNKED_AT_ONCE = 1 << 14

# In bytes. Of more, head and body are handled one after the other.
_LONG_READ = 4096

# In digits. A longer Content-Length is invalid (and slow to parse).
_LONGEST_LENGTH = 18

# The first byte of a line that continues the previous header line.
_BLANKS = frozenset(b" \t")

# Looked up once, because they are called for each line.
_receive_line = HTTPChannel.lineReceived
_receive_header = HTTPChannel.headerReceived


def host_and_port(address: Any) -> tuple[str, int] | None:
    """Return the host and port of an address; ``None`` for the address of a UNIX socket."""
    return (address.host, address.port) if hasattr(address, "port") else None


def host_of(address: Any) -> str:
    """Return the host of an address; this machine's for the address of a UNIX socket."""
    return str(getattr(address, "host", None) or "127.0.0.1")


class ServeChannel(QuickChannel):
    """
    The connection of one client.

    :ivar address: The host and port of the client; ``None`` for a UNIX socket.
    :ivar peer_host: The host of the client.
    """

    requestFactory: Any = ServeRequest
    host: IAddress
    peer: IAddress
    _in_head = False
    _dropped = 0
    _postponed_read: IDelayedCall | None = None
    _requests_in_read = 0
    _has_addresses = False
    # Whether an empty line before a request line was the last that was read.
    _after_empty_line = False
    #: Seconds for which a front has kept the beginning of the next request.
    waited = 0.0

    def connectionMade(self) -> None:
        """Apply the site's limits to the new connection."""
        self.limits = self.site.limits
        self.MAX_LENGTH = self.limits.request_line
        self.totalHeadersSize = self.limits.headers
        clock = self.site.reactor
        self._deadline, self._idle_timeout = Timeout(clock, self._timed_out), Timeout(clock, self.timeoutConnection)
        self._keep_addresses()
        if self.patience == 0 and self._is_handed_out():
            return
        super().connectionMade()
        self._has_addresses = isinstance(self.transport, Connection)
        self.site.channels.add(self)
        self._fast_lane = self.site.fast_lane

    def _keep_addresses(self) -> None:
        self.host, self.peer = self.transport.getHost(), self.transport.getPeer()
        self.address, self.peer_host = host_and_port(self.peer), host_of(self.peer)

    def getHost(self) -> IAddress:
        """Return the cached local address, without a system call per request."""
        return self.host

    def getPeer(self) -> IAddress:
        """Return the cached address of the client."""
        return self.peer

    # Reading

    def dataReceived(self, data: bytes) -> None:
        """Handle incoming data; discard it after an early response."""
        if not self._has_addresses:
            # The proxy protocol (``haproxy:``) tells the client's address before the first data.
            self._has_addresses = True
            self._keep_addresses()
        if self._quick is not None:
            # Whatever it is, it is handled after the answer, as Twisted does.
            self._quick.take_over()
        elif (
            self._fast_lane is not None
            and not (self.requests or self._buffer or self.paused or self._lingering)
            and not (self._waitingForTransport or self._after_empty_line or self._postponed_read)
            and self.persistent
            and self._fast_lane.take(self, data)
        ):
            return
        self._usual = 0
        if self._lingering:
            self._dropped += len(data)
            if self._dropped > LINGER_BYTES:
                self.transport.pauseProducing()
            return
        if self._held:
            self._keep(data)
            return
        if self._postponed_read is not None:
            self._networkProducer.pauseProducing()
        elif not self._busyReceiving:
            self._requests_in_read = 0
        if len(data) > _LONG_READ and self.line_mode and not (self._buffer or self._busyReceiving):
            # Twisted would copy all that follows for each line of the head.
            end = data.find(b"\r\n\r\n") + 4
            super().dataReceived(data[:end])
            if self._lingering or self.transport.disconnecting:
                return
            data = data[end:]
        super().dataReceived(data)
        if not (self._handlingRequest or self._deadline.is_set or self._held) and (self.requests or self._buffer):
            self._set_deadline(self.limits.header_timeout)

    @property
    def has_postponed_read(self) -> bool:
        """Whether reading resumes in the next reactor iteration."""
        return self._postponed_read is not None

    def _yield_to_others(self) -> None:
        """Pause reading until the next reactor iteration, so that other connections get a turn."""
        self.paused = True
        if self._postponed_read is None:
            self._postponed_read = self.site.reactor.callLater(0, self._resume_reading)
        self._networkProducer.pauseProducing()

    def _resume_reading(self) -> None:
        self._postponed_read = None
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
                self._yield_to_others()
        else:
            super().rawDataReceived(data)

    def lineReceived(self, line: bytes) -> None:
        """Handle a line of a head: check the request line, and refuse folded headers, which Twisted would unfold."""
        if not self._in_head:
            self._requests_in_read += 1
            if self._requests_in_read > MOST_REQUESTS_AT_ONCE:
                self._yield_to_others()
            try:
                line = checked_request_line(line)
            except ServeError as error:
                self._refuse_head(error)
                return
            # An empty line before the request line is not part of the head.
            self._in_head = line != b""
            self._after_empty_line = not self._in_head
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
        if self.waited:
            request.began -= self.waited
            self.waited = 0.0
        hosts = request.requestHeaders.getRawHeaders(b"host", ())
        if len(hosts) != 1 or not is_host(hosts[0]):
            flaw = flaw_of_hosts(hosts, self._version)
            if flaw is not None:
                self._refuse_head(flaw)
                return
        if self.length != 0 or (not request.plain and request.requestHeaders.hasHeader(b"expect")):
            request.method, request.uri, request.clientproto = self._command, self._path, self._version
            asking = self.site.asking
            if asking is not None and self.length != 0 and not request.asked:
                self._hold(request, asking)
                return
            self._set_deadline(self.limits.body_timeout)
            problem = request.problem_before_body(self.length)
            if problem is not None:
                request.gotLength(0)
                self._answer_now(request, problem)
                return
            if self.length is not None and self.length > LARGE_BODY:
                self.read_large_body(self.length)
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
        if self._reader is not None:
            self.stop_reading_body()
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

    def requestDone(self, request: ServeRequest) -> None:
        """Continue with the next request, unless the client is not reading its responses."""
        if request.sender is not None:
            # Before the next request of the key is read.
            request.sender.leave()
        if not self._lingering:
            self._clear_deadline()
        if self.stalled:
            # Twisted pauses reading from such a client only during a request.
            self.paused = True
            self._networkProducer.pauseProducing()
        super().requestDone(request)
        if self._postponed_read is not None:
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

    def finish_up(self) -> None:
        """Close the connection as soon as it is idle, because the server is stopping."""
        self._finishing = True
        if self._quick is not None:
            self._quick.take_over()
        for request in self.requests:
            self.persistent = False
            request.responseHeaders.setRawHeaders(b"Connection", [b"close"])
        if not (self.requests or self._buffer or self._lingering):
            self.loseConnection()

    def timeoutConnection(self) -> None:
        """Abort an idle connection; a client still reading a response gets the body timeout first."""
        if self._quick is not None:
            # Its time is not the client's.
            self.resetTimeout()
        elif self.stalled and not self._deadline.is_set:
            self._set_deadline(self.limits.body_timeout)
        else:
            self.transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Abandon what is in progress, and cancel the timeouts and delayed calls of the connection."""
        if self._quick is not None:
            self._quick.take_over()
        self.stop_reading_body()
        super().connectionLost(reason)
        self._ended()

    def _ended(self) -> None:
        """Cancel the timeouts and delayed calls, and remove the channel."""
        self.site.channel_lost(self)
        self._deadline.cancel()
        self._idle_timeout.cancel()
        if self._postponed_read is not None:
            self._postponed_read.cancel()
            self._postponed_read = None

    def _timed_out(self) -> None:
        if self.requests and hasattr(self, "_command") and not self._lingering:
            self.answer_early(RequestTimeout("The request did not arrive in time."))
        else:
            self.transport.abortConnection()
