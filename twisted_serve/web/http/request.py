# SPDX-License-Identifier: Apache-2.0
"""
This module implements a request on a connection: its body is in memory and bounded, its headers are kept as spelled.
"""

from __future__ import annotations

import re
from io import BytesIO
from random import getrandbits
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http_headers import Headers
from twisted.web.server import Request

from twisted_serve.errors import InternalError, RequestTooLarge, ServeError
from twisted_serve.eventloop.threads import abandonable
from twisted_serve.metrics.timing import Timing
from twisted_serve.web.http.content_coding import MOST_AT_ONCE, codings_of, inflated
from twisted_serve.web.http.contracts import ChannelSite, RequestChannel
from twisted_serve.web.http.responses import answer_error

# Headers which mean something to us and which most requests do not have, so that nobody need look for them each time.
RARE = frozenset(
    {b"connection", b"content-encoding", b"expect", b"transfer-encoding", b"x-request-id", b"x-request-timeout-ms"}
)

# What somebody without a token may make us keep of a body; nothing at an open door reads one.
PUBLIC_BODY = 8192

# What a client may call its request: nothing that could end a header, a line of the log, or an id in a list of ids.
_CLIENT_ID = re.compile(rb"[A-Za-z0-9._:/+=@-]{1,128}")


def client_request_id(headers: Headers) -> str | None:
    """Return what the client calls its request, ``None`` if it says nothing or nothing that can be used."""
    said = headers.getRawHeaders(b"x-request-id")
    return said[0].decode("ascii") if said is not None and len(said) == 1 and _CLIENT_ID.fullmatch(said[0]) else None


def fresh_id() -> str:
    """Make an id for a request whose client has none: a UUID."""
    # A name, not a secret: it need not be hard to guess, and is made for every request.
    bits = f"{getrandbits(128):032x}"
    return f"{bits[:8]}-{bits[8:12]}-4{bits[13:16]}-a{bits[17:20]}-{bits[20:]}"


def job_id(request: ServeRequest) -> str:
    """
    Return the id by which workers know a request, and which its metrics have in the log.

    It is that of the answer; behind a client's own id there is something more, for
    two clients may use the same one at the same time, and each gets its own answer.
    """
    return request.answer_id if request.client_id is None else f"{request.answer_id}.{getrandbits(64):016x}"


class ServeRequest(Request):
    """
    A request whose body is in memory, bounded, and which goes to the site's one resource.

    :ivar spelled_headers: The headers as the client spelled their names, which
        handlers see (``docs/torchserve/rest_api.md`` §3.1).
    :ivar client_id: What the client calls it, if anything; ``answer_id``: what its answer is called.
    :ivar timing: Its moments, from the one when the whole of it was there.
    :ivar plain: Whether it has none of the headers that few requests have and that are for us (`RARE`).
    :ivar ready_lines: The headers of a whole answer with status 200, as `Response` makes them ready; ``None``: they
        are in ``responseHeaders``.
    :ivar public: Whether it stands at an open door, so that anybody may have sent it.
    """

    _log = Logger("twisted_serve.web")
    # Twisted names its own classes here, of which only these parts are used.
    channel: RequestChannel  # type: ignore[assignment]
    site: ChannelSite  # type: ignore[assignment]
    content: BytesIO

    def __init__(self, channel: RequestChannel, queued: Any = None) -> None:
        super().__init__(channel, queued)
        self.spelled_headers: list[tuple[bytes, bytes]] = []
        self.plain = True
        self.ready_lines: bytes | None = None
        self.public = False
        self.client_id: str | None = None
        self.answer_id = ""
        self._awaited: Deferred[Any] | None = None
        self.began = channel.site.reactor.seconds()
        self.timing = Timing(self.began)

    @property
    def gone(self) -> bool:
        """Whether nothing can be sent any more: the client has left, or has been sent everything."""
        return self._disconnected or bool(self.finished)

    @property
    def is_usual(self) -> bool:
        """Whether nothing but the answer itself decides about its head."""
        return (
            self.clientproto == b"HTTP/1.1"
            and self.method != b"HEAD"
            and self.channel is not None
            and bool(self.channel.persistent)
            and not (self.site.extra_headers or self.site.server_timing)
        )

    def wait_for(self, answer: Deferred[Any]) -> None:
        """Cancel ``answer`` when the client leaves before it is sent."""
        self._awaited = answer

    def connectionLost(self, reason: Failure) -> None:
        """Cancel the work of a request whose client has gone, and log the request."""
        super().connectionLost(reason)
        if self.answer_id and not self.finished:
            self.site.log_abandoned(self)
        if self._awaited is not None:
            self._awaited.cancel()

    @property
    def body_limit(self) -> int:
        """How many bytes its body may have."""
        limit = self.channel.limits.body
        return min(limit, PUBLIC_BODY) if self.public else limit

    def getRequestHostname(self) -> bytes:
        """Name no host: no route depends on it, and what a client sends as one need not be a name at all."""
        return b"localhost"

    def parseCookies(self) -> None:
        """Leave cookies alone: nothing here reads them."""

    def gotLength(self, length: int | None) -> None:
        """Take the body in memory: it is bounded by then."""
        self.content = BytesIO()

    def handleContentChunk(self, data: bytes) -> None:
        """Take a piece of the body, unless it is too much by now (a chunked body says so only here)."""
        if self.finished:
            return
        if self.content.tell() + len(data) > self.body_limit:
            self.channel.answer_early(self.too_large())
        else:
            self.content.write(data)

    def too_large(self) -> RequestTooLarge:
        """Make the error for a body over the limit."""
        whose = "what an open path takes" if self.public else "max_request_size"
        return RequestTooLarge(f"The request body is larger than {whose}, which is {self.body_limit} bytes.")

    def process(self) -> None:
        """Hand the request to the listener's resource, which decides on the whole path."""
        self.begin()
        self.timing = Timing(self.site.reactor.seconds())
        self.prepath, self.postpath = [], []
        try:
            if not self.plain and self.content.getbuffer().nbytes and (codings := self.codings()):
                self._inflate(codings)
            else:
                self.render(self.site.resource)
        except Exception:
            self.processingFailed(Failure())

    def codings(self) -> tuple[bytes, ...]:
        """
        Return how the body is compressed.

        :raise UnsupportedEncoding: as `codings_of`.
        """
        return codings_of(self.requestHeaders.getRawHeaders(b"content-encoding", ()))

    def _inflate(self, codings: tuple[bytes, ...]) -> None:
        """Inflate the body, and go on with it."""
        body = self.content.getvalue()
        if len(body) > MOST_AT_ONCE:
            work = abandonable(self.site.defer_to_thread(inflated, body, codings, self.body_limit), lambda _body: None)
            self.wait_for(work)
        else:
            work = maybeDeferred(inflated, body, codings, self.body_limit)
        work.addCallbacks(self._go_on_with, self._refuse_body).addErrback(self.processingFailed)

    def _go_on_with(self, body: bytes) -> None:
        """Answer the request as if its body had come so: a handler sees no header that says otherwise."""
        self._awaited = None
        self.content = BytesIO(body)
        self.requestHeaders.removeHeader(b"content-encoding")
        length = b"%d" % len(body)
        if self.requestHeaders.hasHeader(b"content-length"):
            self.requestHeaders.setRawHeaders(b"content-length", [length])
        self.spelled_headers = [
            (name, length if name.lower() == b"content-length" else value)
            for name, value in self.spelled_headers
            if name.lower() != b"content-encoding"
        ]
        self.render(self.site.resource)

    def _refuse_body(self, failure: Failure) -> Failure | None:
        """Answer a request whose body cannot be inflated, unless its client has left."""
        error = failure.value
        if isinstance(error, CancelledError) and self.gone:
            return None
        if not isinstance(error, ServeError):
            return failure
        self.write(answer_error(self, self.too_large() if isinstance(error, RequestTooLarge) else error))
        self.finish()
        return None

    def begin(self) -> None:
        """Set what every answer of the site has."""
        self.site = self.channel.site
        self.client_id = None if self.plain else client_request_id(self.requestHeaders)
        self.answer_id = self.client_id or fresh_id()
        for name, value in self.site.extra_headers.items():
            self.setHeader(name, value)

    def write(self, data: bytes) -> None:
        """Send a part of the answer; the first brings the head with it, empty as it may be."""
        if self.ready_lines is not None and not (self.startedWriting or self.finished or self._disconnected):
            self.startedWriting = 1
            self.sentLength = len(data)
            self.channel.write_whole(self.ready_lines, data)
            return
        super().write(data)
        if self.channel is not None:
            self.channel.send_head()

    def server_timing(self) -> bytes | None:
        """Return the value of the ``Server-Timing`` header, if there is to be one."""
        if not self.channel.site.server_timing:
            return None
        return self.timing.server_timing(self.channel.site.reactor.seconds()).encode("ascii")

    def processingFailed(self, reason: Failure) -> None:
        """Tell the log what happened, and the client that something did."""
        self._log.failure("A request failed", reason)
        if self.startedWriting:
            self.channel.transport.abortConnection()
        else:
            self.write(answer_error(self, InternalError("Internal server error.")))
            self.finish()
