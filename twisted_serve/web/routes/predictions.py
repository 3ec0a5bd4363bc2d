# SPDX-License-Identifier: Apache-2.0
"""
This module implements what all routes that predict have in common: from a request to a job, from answers to a response.
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
from twisted_serve.planes.inference import InferencePlane
from twisted_serve.web.http.bodies import body_of, parts_of, takes_long
from twisted_serve.web.http.deadlines import deadline_of
from twisted_serve.web.http.rendering import lines_of
from twisted_serve.web.http.request import ServeRequest, job_id
from twisted_serve.web.http.responses import Body, answer_json, set_common_headers
from twisted_serve.web.openapi.document import describe_model
from twisted_serve.web.routes.hints import FormHints
from twisted_serve.wire.header_text import CONTROL, latin, sendable
from twisted_serve.wire.messages import Item, Job, Part

# What the server says to a handler in headers of these names a client cannot say for it
# (``docs/torchserve/rest_api.md`` §3.1); and a token is for the server, not for the model's code.
_RESERVED = frozenset({b"url_path", b"explain", b"describe"})
_CREDENTIALS = frozenset({b"authorization", b"proxy-authorization"})

# These are ours to set on an answer, whatever a handler says (``docs/torchserve/rest_api.md`` §2.4).
_OURS = frozenset(
    {"content-length", "transfer-encoding", "connection", "x-request-id", "date", "pragma", "cache-control", "expires"}
)

# How the name of a form's field begins that is not a name, but JSON.
_JSON_BEGINS = ("{", "[")

# So many heads of answers are remembered, and none whose headers have more characters.
_REMEMBERED = 256
_LONGEST_REMEMBERED = 1024

#: What the server tells a handler about the route which was taken.
PREDICT: Mapping[str, str] = {"explain": "False"}
EXPLAIN: Mapping[str, str] = {"explain": "True"}


class Predictor:
    """
    Has requests answered by workers.

    :ivar defer_to_thread: Does what takes long and needs nobody.
    :ivar envelope: The request envelope of every model, if there is one.
    :param tokens: Whether token authorization is on, so that handlers do not see ``Authorization``.
    """

    def __init__(
        self, plane: InferencePlane, tokens: bool, defer_to_thread: DeferToThread, envelope: str | None = None
    ) -> None:
        self.plane = plane
        self.defer_to_thread = defer_to_thread
        self.envelope = envelope
        self._tokens = tokens
        self._hints = FormHints()
        self._hidden = _RESERVED | _CREDENTIALS if tokens else _RESERVED

    def answer(
        self,
        request: ServeRequest,
        model: str,
        version: str | None,
        told: Mapping[str, str],
        parts: Sequence[Part] | None = None,
    ) -> Deferred[Body]:
        """
        Answer a request with what a worker makes of it; ``OPTIONS`` with the model's description.

        :param told: What the server says to the handler, as headers.
        :param parts: The handler's inputs, if they are not simply those of the body.
        :raise BadRequest: for a form or a time that cannot be read.
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
        Have a worker answer a request; as `answer`, but the result is the caller's.

        It is to be told to the response: by `Response.finish`, or by `Response.fail`.
        """
        headers = self.headers_of(request)
        headers.update(told)
        if parts is None:
            content_type, body = content_type_of(request), body_of(request)
            if takes_long(content_type, body):
                # Before anything is made of the form.
                self.plane.find(model, version)
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
        answer = self.plane.predict(model, version, job, response.chunk, deadline_of(request), request.timing)
        # After it is known that there is such a model.
        if not job.parts or job.parts[-1].name[:1] in _JSON_BEGINS:
            self._hints.look(request, content_type_of(request), model)
        return answer

    def inputs_of(self, request: ServeRequest) -> Deferred[list[Part]]:
        """
        Read a request's body as a handler's inputs; a large form in a thread.

        The Deferred fails with `BadRequest` for a form that cannot be read.
        """
        content_type, body = content_type_of(request), body_of(request)
        if takes_long(content_type, body):
            return self.defer_to_thread(parts_of, content_type, body)
        return maybeDeferred(parts_of, content_type, body)

    def headers_of(self, request: ServeRequest) -> dict[str, str]:
        """Return what handlers see of a request's headers."""
        return client_headers(request, self._hidden)

    def describe(self, request: ServeRequest, model: str, version: str | None) -> Deferred[Body]:
        """
        Answer with the API description of a model.

        :raise ServeError: as :meth:`Catalogue.resolve`.
        """
        self.plane.find(model, version)
        return succeed(answer_json(request, 200, describe_model(model, self._tokens)))


def client_headers(request: ServeRequest, hidden: frozenset[bytes]) -> dict[str, str]:
    """Return a request's headers as they were spelled, the last of repeated ones, without those that are hidden."""
    return {
        name.decode("latin-1"): value.decode("latin-1")
        for name, value in request.spelled_headers
        if name.lower() not in hidden
    }


def content_type_of(request: ServeRequest) -> str:
    """Return what a request says of its body, ``""`` if it says nothing."""
    return str(request.requestHeaders.getRawHeaders(b"content-type", (b"",))[0].decode("latin-1"))


def _choose(headers: Headers, chosen: Iterable[tuple[str, str]]) -> None:
    for name, value in chosen:
        if name.lower() not in _OURS:
            headers.setRawHeaders(name.encode("latin-1"), [sendable(name, value).encode("latin-1")])


def set_handler_headers(request: ServeRequest, item: Item) -> None:
    """Set the head that a handler has chosen, and ours."""
    _choose(request.responseHeaders, item.headers.items())
    set_common_headers(request, item.status)
    request.setResponseCode(item.status, CONTROL.sub(" ", latin(item.phrase)).encode("latin-1") or None)


@lru_cache(_REMEMBERED)
def _lines_of(chosen: tuple[tuple[str, str], ...]) -> bytes:
    """Write the headers which a handler has chosen, with what `set_common_headers` adds to them if all is well."""
    headers = Headers()
    _choose(headers, chosen)
    headers.setRawHeaders(b"Connection", [b"keep-alive"])
    return lines_of(headers)


class Response:
    """
    A handler's answer on its way to the client: whole, or chunk by chunk.

    :ivar streaming: Whether a part of it has been sent.
    """

    _log = Logger("twisted_serve.web")

    def __init__(self, request: ServeRequest) -> None:
        self._request = request
        self.streaming = False
        self._unsent = 0

    def chunk(self, item: Item, producer: IPushProducer) -> None:
        """Send an intermediate answer; the first one brings the head with it."""
        channel = self._request.channel
        if not self.streaming:
            self.streaming = True
            if self._request.clientproto == b"HTTP/1.0":
                # It knows no chunks: the end of the connection is the end of the answer.
                channel.persistent = False
                self._request.responseHeaders.setRawHeaders(b"Connection", [b"close"])
            self._head(item)
            self._request.registerProducer(producer, True)
        # While the client does not read the worker is told to wait; what it sends all the same is not kept without end.
        self._unsent = self._unsent + len(item.body) if channel.stalled else 0
        self._request.write(item.body)
        if self._unsent > channel.limits.unsent:
            self._log.warn("A stream was broken off: its client reads too slowly for a handler that does not wait.")
            channel.transport.abortConnection()

    def fail(self, failure: Failure) -> Failure:
        """There are no more chunks, and nobody to pause, if the client is still there."""
        if self.streaming and self._request.channel is not None:
            self._request.unregisterProducer()
        return failure

    def finish(self, item: Item) -> Body:
        """Send the last answer."""
        if self.streaming:
            # There are no more chunks, and nobody to pause.
            self._request.unregisterProducer()
            return item.body
        if self._is_usual(item):
            self._request.ready_lines = _lines_of(tuple(item.headers.items()))
            return item.body
        self._head(item)
        if item.status in NO_BODY_CODES:
            return b""
        if item.status == RESET_CONTENT:
            # RFC 9110 §15.3.6: it has no content, and says so.
            self._request.responseHeaders.setRawHeaders(b"Content-Length", [b"0"])
            return b""
        self._request.responseHeaders.setRawHeaders(b"Content-Length", [b"%d" % len(item.body)])
        return item.body

    def _is_usual(self, item: Item) -> bool:
        """Say whether the headers are those of nearly all answers, which need not be put together each time."""
        return (
            item.status == 200
            and not item.phrase
            and self._request.is_usual
            and sum(map(len, item.headers.values())) <= _LONGEST_REMEMBERED
        )

    def _head(self, item: Item) -> None:
        set_handler_headers(self._request, item)
        # The predecessor sends no content type which the handler has not set; nor does Twisted guess one here.
        self._request.defaultContentType = None
