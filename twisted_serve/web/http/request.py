# SPDX-License-Identifier: Apache-2.0
"""
Represent a request with a bounded body in memory and its headers as spelled.
"""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from typing import Any, TypeAlias

from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.iweb import IRequest
from twisted.web.resource import IResource
from twisted.web.server import NOT_DONE_YET, Request

from twisted_serve.auth.asking import Asked, Asking, Outcome
from twisted_serve.auth.gate import Allowed, Denied
from twisted_serve.auth.scopes import Operation
from twisted_serve.auth.targets import parse_target
from twisted_serve.errors import (
    ExpectationFailed,
    InternalError,
    RequestTooLarge,
    ServeError,
    UnsupportedEncoding,
)
from twisted_serve.eventloop.threads import abandonable
from twisted_serve.metrics.timing import Timing
from twisted_serve.planes.request_ids import client_id_of, fresh_id, id_for_worker
from twisted_serve.planes.senders import Sender
from twisted_serve.web.http.content_coding import MOST_AT_ONCE, codings_of, inflated
from twisted_serve.web.http.contracts import ChannelSite, RequestChannel
from twisted_serve.web.http.responses import Body, answer_error

_log = Logger("twisted_serve.web")

# Headers that affect this server and are rare, so that requests without any of them skip the look-ups.
RARE = frozenset(
    {b"connection", b"content-encoding", b"expect", b"transfer-encoding", b"x-request-id", b"x-request-timeout-ms"}
)

# The most bytes of a body at a path that needs no token; no such endpoint reads a body.
PUBLIC_BODY = 8192

# In bytes. Shorter pieces of a body are collected: a list of millions of them would take many times their size.
_SMALL_PIECE = 1 << 14

#: Answer a request, and return the body.
Answering: TypeAlias = "Callable[[ServeRequest], Body]"


def _left(failure: Failure) -> None:
    """End the question of a client that has disconnected."""
    failure.trap(CancelledError)


def body_of(request: IRequest) -> bytes:
    """Return the whole body of a request."""
    # ``read()`` would make a copy that lives as long as the request waits for a worker.
    body: bytes = request.content.getvalue()
    return body


def job_id(request: ServeRequest) -> str:
    """Return the id of a request for workers and their metrics."""
    return id_for_worker(request.client_id, request.answer_id)


class ServeRequest(Request):
    """
    A request with a bounded body in memory, rendered by the single resource of its site.

    :ivar spelled_headers: The headers with their names as the client spelled them, for handlers
        (``docs/torchserve/rest_api.md`` §3.1).
    :ivar client_id: The client's request id, if any.
    :ivar answer_id: The id of the response.
    :ivar began: When the first line of the request arrived, in seconds of the clock.
    :ivar timing: The timestamps of the request, starting when it had arrived completely.
    :ivar plain: Whether the request has none of the `RARE` headers.
    :ivar ready_lines: The header lines of a complete response with status 200, prepared by `Response`; ``None`` if
        the headers are in ``responseHeaders``.
    :ivar public: Whether the path needs no token, so that any client may have sent the request.
    :ivar asked: Whether the application's authorizer has answered, or need not be asked.
    :ivar principal: The name of the sender: as an authorizer has named it, or of its named key.
    :ivar operation: What the authorizer was asked about, or what the named key was checked for.
    :ivar sender: The sender, if it has a named key; ``None`` otherwise.
    :ivar refusal: What answers the request if it is not admitted by the authorizer.
    """

    # Twisted declares its own classes here; only these parts of them are used.
    channel: RequestChannel  # type: ignore[assignment]
    site: ChannelSite  # type: ignore[assignment]
    content: BytesIO

    # Of the class, because most servers have no authorizer but keys.
    asked = False
    principal: str | None = None
    operation: Operation | None = None
    sender: Sender | None = None
    refusal: Answering | None = None

    def __init__(self, channel: RequestChannel, queued: Any = None) -> None:
        super().__init__(channel, queued)
        self.spelled_headers: list[tuple[bytes, bytes]] = []
        self.plain = True
        self.ready_lines: bytes | None = None
        self.public = False
        self.client_id: str | None = None
        self.answer_id = ""
        self._awaited: Deferred[Any] | None = None
        self._size = 0
        self._drop_pieces()
        self.began = channel.site.reactor.seconds()
        self.timing = Timing(self.began)

    @property
    def gone(self) -> bool:
        """Whether nothing more can be sent, because the client disconnected or the response is complete."""
        return self._disconnected or bool(self.finished)

    @property
    def is_usual(self) -> bool:
        """Whether the head of the response depends on the response alone."""
        return (
            self.clientproto == b"HTTP/1.1"
            and self.method != b"HEAD"
            and self.channel is not None
            and bool(self.channel.persistent)
            and not (self.site.extra_headers or self.site.server_timing)
        )

    def wait_for(self, answer: Deferred[Any]) -> None:
        """Cancel ``answer`` if the client disconnects before it is sent."""
        self._awaited = answer

    def connectionLost(self, reason: Failure) -> None:
        """Log the request and cancel its work, as its client has disconnected."""
        if self.sender is not None:
            self.sender.leave()
        super().connectionLost(reason)
        if self.answer_id and not self.finished:
            self.site.log_abandoned(self)
        if self._awaited is not None:
            self._awaited.cancel()

    def ask(self, asking: Asking, then: Callable[[], object]) -> None:
        """
        Ask the application's authorizer whether the request is admitted, and call ``then`` when that is known.

        ``then`` is not called if the client disconnects before.
        """
        authorization = self.requestHeaders.getRawHeaders(b"authorization", ())
        outcome = asking.ask(self.method, parse_target(self.uri), authorization, self.channel.getPeer())
        self.wait_for(outcome)
        outcome.addCallbacks(self._answered, _left, callbackArgs=(then,)).addErrback(self.processingFailed)

    def _answered(self, outcome: Outcome, then: Callable[[], object]) -> None:
        self._awaited = None
        self.asked = True
        if isinstance(outcome, Asked):
            self.operation, self.principal = outcome.operation, outcome.principal
        else:
            decline = self.channel.site.decline
            self.refusal = lambda request: decline(request, outcome)
        then()

    def admit(self, allowed: Allowed) -> Denied | None:
        """Take a request with a named key, which counts once; or return why the key has reached a limit."""
        if self.sender is None:
            taken = self.channel.site.take(allowed, self)
            if isinstance(taken, Denied):
                return taken
            self.sender = taken
        # The key may have changed while the body was read.
        self.sender.allowed = allowed
        if allowed.key is not None and allowed.need is not None:
            self.principal, self.operation = allowed.key.record.name, allowed.need.operation
        return None

    @property
    def body_limit(self) -> int:
        """The most bytes of the body."""
        limit = self.channel.limits.body
        return min(limit, PUBLIC_BODY) if self.public else limit

    def getRequestHostname(self) -> bytes:
        """Return a constant: no route depends on the host, and a client's value need not be a host name."""
        return b"localhost"

    def parseCookies(self) -> None:
        """Skip parsing, since this server uses no cookies."""

    def problem_before_body(self, length: int | None) -> Answering | None:
        """
        Return what answers the request if its head is enough to refuse it; ``None`` if its body is wanted.

        :param length: The length of the body; ``None`` if it is not known yet.
        """
        if self.refusal is not None:
            return self.refusal
        headers, site = self.requestHeaders, self.channel.site
        authorization = headers.getRawHeaders(b"authorization", ())
        verdict = site.authorizer.ask(self.method, parse_target(self.uri), authorization)
        if isinstance(verdict, Denied):
            return lambda request: site.refuse(request, verdict)
        denied = None if verdict.key is None else self.admit(verdict)
        if denied is not None:
            limited = denied
            return lambda request: site.refuse(request, limited)
        self.public = verdict.scope is None
        if length is not None and length > self.body_limit:
            return lambda request: answer_error(request, request.too_large())
        if not self.plain:
            try:
                self.codings()
            except UnsupportedEncoding as error:
                unsupported = error
                return lambda request: answer_error(request, unsupported)
        for value in headers.getRawHeaders(b"expect", ()):
            if value.lower() != b"100-continue":
                return lambda request: answer_error(request, ExpectationFailed())
        return None

    def gotLength(self, length: int | None) -> None:
        """Prepare for the pieces of the body, which are kept in memory, since its size is bounded."""
        self.content = BytesIO()
        self._size = 0
        self._drop_pieces()

    def _drop_pieces(self) -> None:
        self._pieces: list[bytes] = []
        self._small = bytearray()

    def handleContentChunk(self, data: bytes) -> None:
        """Keep a piece of the body, or refuse a body over the limit (only here for a chunked body)."""
        if self.finished:
            return
        self._size += len(data)
        if self._size > self.body_limit:
            self._drop_pieces()
            self.channel.answer_early(self.too_large())
        elif len(data) < _SMALL_PIECE:
            self._small += data
        else:
            self._keep_small()
            self._pieces.append(data)

    def _keep_small(self) -> None:
        if self._small:
            self._pieces.append(bytes(self._small))
            self._small = bytearray()

    def take_body(self) -> bytes:
        """Return what has come of the body, and forget it."""
        self._keep_small()
        body = b"".join(self._pieces)
        self._drop_pieces()
        self._size = 0
        return body

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        """Process the request, whose body has come."""
        # A file made of bytes shares them.
        self.content = BytesIO(self.take_body())
        super().requestReceived(command, path, version)

    def too_large(self) -> RequestTooLarge:
        """Return the error for a body over the limit."""
        bound = "what an open path takes" if self.public else "max_request_size"
        return RequestTooLarge(f"The request body is larger than {bound}, which is {self.body_limit} bytes.")

    def process(self) -> None:
        """Render the listener's resource, which handles all paths."""
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

    def render(self, resrc: IResource) -> None:
        """Render a resource; of a response to HEAD only the head is sent, and its body is no reason to log anything."""
        if self.method != b"HEAD":
            super().render(resrc)
            return
        body = resrc.render(self)
        if body is NOT_DONE_YET:
            return
        if body:
            self.setHeader(b"Content-Length", b"%d" % len(body))
        self.write(b"")
        self.finish()

    def codings(self) -> tuple[bytes, ...]:
        """
        Return the content codings of the body.

        :raise UnsupportedEncoding: as `codings_of`.
        """
        return codings_of(self.requestHeaders.getRawHeaders(b"content-encoding", ()))

    def _inflate(self, codings: tuple[bytes, ...]) -> None:
        """Inflate the body, then render the request."""
        body = self.content.getvalue()
        if len(body) > MOST_AT_ONCE:
            work = abandonable(self.site.defer_to_thread(inflated, body, codings, self.body_limit), lambda _body: None)
            self.wait_for(work)
        else:
            work = maybeDeferred(inflated, body, codings, self.body_limit)
        work.addCallbacks(self._render_inflated, self._refuse_body).addErrback(self.processingFailed)

    def _render_inflated(self, body: bytes) -> None:
        """Render the request as if it had arrived uncompressed, with headers that match."""
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
        """Answer a request whose body cannot be inflated, unless its client has disconnected."""
        error = failure.value
        if isinstance(error, CancelledError) and self.gone:
            return None
        if not isinstance(error, ServeError):
            return failure
        self.write(answer_error(self, self.too_large() if isinstance(error, RequestTooLarge) else error))
        self.finish()
        return None

    def begin(self) -> None:
        """Set the ids of the request and the headers of every response of the site."""
        self.site = self.channel.site
        client_id = None if self.plain else client_id_of(self.requestHeaders.getRawHeaders(b"x-request-id"))
        self.identify(client_id, client_id or fresh_id())
        for name, value in self.site.extra_headers.items():
            self.setHeader(name, value)

    def identify(self, client_id: str | None, answer_id: str) -> None:
        """Set the ids of the request: the client's, if there is one, and the response's."""
        self.client_id, self.answer_id = client_id, answer_id

    def write(self, data: bytes) -> None:
        """Send a part of the response; the first part, even if empty, sends the head as well."""
        if self.ready_lines is not None and not (self.startedWriting or self.finished or self._disconnected):
            self.startedWriting = 1
            self.sentLength = len(data)
            self.channel.write_whole(self.answer_id, self.ready_lines, data)
            return
        super().write(data)
        if self.channel is not None:
            self.channel.send_head()

    def server_timing(self) -> bytes | None:
        """Return the value of the ``Server-Timing`` header; ``None`` if the header is off."""
        if not self.channel.site.server_timing:
            return None
        return self.timing.server_timing(self.channel.site.reactor.seconds()).encode("ascii")

    def processingFailed(self, reason: Failure) -> None:
        """Log the failure and answer with a generic error, or abort a response in progress."""
        _log.failure("A request failed", reason)
        if self.startedWriting:
            self.channel.transport.abortConnection()
        else:
            self.write(answer_error(self, InternalError("Internal server error.")))
            self.finish()
