# SPDX-License-Identifier: Apache-2.0
"""
Make jobs of requests, and responses of what handlers return: common to all routes that predict.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache

from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.interfaces import IPushProducer
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import NO_BODY_CODES, RESET_CONTENT
from twisted.web.http_headers import Headers

from twisted_serve.eventloop.threads import DeferToThread
from twisted_serve.planes.inference import SharedInference
from twisted_serve.planes.inputs import parts_of, takes_long
from twisted_serve.planes.job_headers import hidden_headers, job_headers, sender_header
from twisted_serve.web.http.deadlines import deadline_of
from twisted_serve.web.http.rendering import lines_of
from twisted_serve.web.http.request import ServeRequest, body_of, job_id
from twisted_serve.web.http.responses import Body, answer_json, set_common_headers
from twisted_serve.web.openapi.document import describe_model
from twisted_serve.web.routes.hints import FormHints
from twisted_serve.wire.header_text import CONTROL, latin, sendable
from twisted_serve.wire.messages import Item, Job, Part

_log = Logger("twisted_serve.web")

# Headers that the server sets; those of a handler are ignored (``docs/torchserve/rest_api.md`` §2.4).
_OURS = frozenset(
    {"content-length", "transfer-encoding", "connection", "x-request-id", "date", "pragma", "cache-control", "expires"}
)

# The first character of a form's field name that is JSON rather than a name.
_JSON_BEGINS = ("{", "[")

# The size of the cache of rendered headers, and the most characters of headers that are cached.
_REMEMBERED = 256
_LONGEST_REMEMBERED = 1024


class Predictor:
    """
    Submits requests to workers and responds with the results.

    :ivar defer_to_thread: Used to parse large bodies.
    :ivar envelope: The request envelope of every model, if there is one.
    :ivar hidden: The lower-case names of the headers that handlers do not see.
    :param tokens: Whether token authorization is on; handlers do not get ``Authorization`` then.
    :param principals: Whether an application's authorizer decides instead: handlers get the name of the sender.
    """

    def __init__(
        self,
        plane: SharedInference,
        tokens: bool,
        defer_to_thread: DeferToThread,
        envelope: str | None = None,
        principals: bool = False,
    ) -> None:
        self.plane = plane
        self.defer_to_thread = defer_to_thread
        self.envelope = envelope
        self._tokens = tokens
        self._hints = FormHints()
        self.hidden = hidden_headers(tokens, principals)

    def answer(
        self,
        request: ServeRequest,
        model: str,
        version: str | None,
        told: Mapping[str, str],
        parts: Sequence[Part] | None = None,
    ) -> Deferred[Body]:
        """
        Respond to a request with the result of a worker; to ``OPTIONS`` with the model's description.

        :param told: Headers from the server for the handler.
        :param parts: The handler's inputs; ``None`` for those of the body.
        :raise BadRequest: for a form or a deadline that cannot be parsed.
        :raise ServeError: as :meth:`InferencePlane.predict`.
        """
        if request.method == b"OPTIONS":
            return self.describe(request, model, version)
        response = Response(request)
        return self.submit(request, model, version, told, parts, response).addCallbacks(response.finish, response.fail)

    def submit(
        self,
        request: ServeRequest,
        model: str,
        version: str | None,
        told: Mapping[str, str],
        parts: Sequence[Part] | None,
        response: Response,
    ) -> Deferred[Item]:
        """
        Submit a request to a worker; as `answer`, but return the worker's result.

        The caller passes the result to `Response.finish`, or the failure to `Response.fail`.
        """
        headers = self.headers_of(request)
        headers.update(told)
        if parts is None:
            content_type, body = content_type_of(request), body_of(request)
            if takes_long(content_type, body):
                # Checked before the form is parsed.
                self.plane.seen_by(request.sender).find(model, version)
                reading = self.defer_to_thread(parts_of, content_type, body)
                return reading.addCallback(
                    lambda parts: self._predict(request, model, version, headers, parts, response)
                )
            parts = parts_of(content_type, body)
        return self._predict(request, model, version, headers, parts, response)

    def _predict(
        self,
        request: ServeRequest,
        model: str,
        version: str | None,
        headers: dict[str, str],
        parts: Sequence[Part],
        response: Response,
    ) -> Deferred[Item]:
        job = Job(job_id(request), headers, list(parts))
        plane = self.plane.seen_by(request.sender)
        answer = plane.predict(model, version, job, response.chunk, deadline_of(request), request.timing)
        # Afterwards, because the model is known to exist then.
        if not job.parts or job.parts[-1].name[:1] in _JSON_BEGINS:
            self._hints.look(request, content_type_of(request), model)
        return answer

    def inputs_of(self, request: ServeRequest) -> Deferred[list[Part]]:
        """
        Parse the body of a request into a handler's inputs; a large form in a thread.

        The Deferred fails with `BadRequest` for a form that cannot be parsed.
        """
        content_type, body = content_type_of(request), body_of(request)
        if takes_long(content_type, body):
            return self.defer_to_thread(parts_of, content_type, body)
        return maybeDeferred(parts_of, content_type, body)

    def headers_of(self, request: ServeRequest) -> dict[str, str]:
        """Return the headers of a request that handlers get."""
        headers = job_headers(request.spelled_headers, self.hidden)
        if request.principal is not None:
            headers.update(sender_header(request.principal, request.sender is not None))
        return headers

    def describe(self, request: ServeRequest, model: str, version: str | None) -> Deferred[Body]:
        """
        Respond with the API description of a model.

        :raise ServeError: as :meth:`Catalogue.resolve`.
        """
        self.plane.seen_by(request.sender).find(model, version)
        return succeed(answer_json(request, 200, describe_model(model, self._tokens)))


def content_type_of(request: ServeRequest) -> str:
    """Return the content type of a request, ``""`` if there is none."""
    return str(request.requestHeaders.getRawHeaders(b"content-type", (b"",))[0].decode("latin-1"))


def _choose(headers: Headers, chosen: Iterable[tuple[str, str]]) -> None:
    for name, value in chosen:
        if name.lower() not in _OURS:
            headers.setRawHeaders(name.encode("latin-1"), [sendable(name, value).encode("latin-1")])


def set_handler_headers(request: ServeRequest, item: Item) -> None:
    """Set the status and headers of a handler, and those of the server."""
    _choose(request.responseHeaders, item.headers.items())
    set_common_headers(request, item.status)
    request.setResponseCode(item.status, CONTROL.sub(" ", latin(item.phrase)).encode("latin-1") or None)


@lru_cache(_REMEMBERED)
def _lines_of(chosen: tuple[tuple[str, str], ...]) -> bytes:
    """Render the headers of a handler, with those that `set_common_headers` adds to a usual response."""
    headers = Headers()
    _choose(headers, chosen)
    headers.setRawHeaders(b"Connection", [b"keep-alive"])
    return lines_of(headers)


def usual_lines(item: Item) -> bytes | None:
    """Return the header lines of nearly all responses, which are cached; ``None`` for an unusual response."""
    if item.status != 200 or item.phrase or sum(map(len, item.headers.values())) > _LONGEST_REMEMBERED:
        return None
    return _lines_of(tuple(item.headers.items()))


class Response:
    """
    The response to one prediction, sent whole or chunk by chunk.

    :ivar streaming: Whether a chunk has been sent.
    """

    def __init__(self, request: ServeRequest) -> None:
        self._request = request
        self.streaming = False
        self._unsent = 0

    def chunk(self, item: Item, producer: IPushProducer) -> None:
        """Send a chunk, preceded by the head if it is the first."""
        channel = self._request.channel
        if not self.streaming:
            self.streaming = True
            if self._request.clientproto == b"HTTP/1.0":
                # HTTP/1.0 has no chunked coding: the end of the connection is the end of the response.
                channel.persistent = False
                self._request.responseHeaders.setRawHeaders(b"Connection", [b"close"])
            self._head(item)
            self._request.registerProducer(producer, True)
        # The worker is paused while the client does not read; the bytes that it sends nevertheless are bounded.
        self._unsent = self._unsent + len(item.body) if channel.stalled else 0
        self._request.write(item.body)
        if self._unsent > channel.limits.unsent:
            _log.warn("A stream was broken off: its client reads too slowly for a handler that does not wait.")
            channel.transport.abortConnection()

    def fail(self, failure: Failure) -> Failure:
        """End a stream, if the client is still connected; return the failure."""
        if self.streaming and self._request.channel is not None:
            self._request.unregisterProducer()
        return failure

    def finish(self, item: Item) -> Body:
        """Set the head unless it has been sent; return the body, or the last chunk."""
        if self.streaming:
            # No chunk follows that back-pressure could delay.
            self._request.unregisterProducer()
            return item.body
        lines = usual_lines(item) if self._request.is_usual else None
        if lines is not None:
            self._request.ready_lines = lines
            return item.body
        self._head(item)
        if item.status in NO_BODY_CODES:
            return b""
        if item.status == RESET_CONTENT:
            # RFC 9110 §15.3.6: without content, and with the length 0.
            self._request.responseHeaders.setRawHeaders(b"Content-Length", [b"0"])
            return b""
        self._request.responseHeaders.setRawHeaders(b"Content-Length", [b"%d" % len(item.body)])
        return item.body

    def _head(self, item: Item) -> None:
        set_handler_headers(self._request, item)
        # TorchServe sends no content type unless the handler sets one; Twisted must not guess one here.
        self._request.defaultContentType = None
