# SPDX-License-Identifier: Apache-2.0
"""
This module implements the inference routes: ``/ping`` and ``/predictions`` (``spec/rest_api.md`` §4).
"""

from __future__ import annotations

from klein import Klein
from twisted.internet.defer import Deferred
from twisted.web.http import NO_BODY_CODES

from twisted_serve.errors import BadRequest
from twisted_serve.planes.inference import InferencePlane
from twisted_serve.web.answers import Answer, answer_status, request_id, set_common_headers
from twisted_serve.web.bodies import body_of, parts_of
from twisted_serve.web.request import ServeRequest
from twisted_serve.wire.messages import Item, Job

# How long a client waits for the first sign of an answer, in milliseconds from when its request began to arrive.
TIMEOUT_HEADER = b"X-Request-Timeout-Ms"
# A day; nobody waits longer, and the clock's arithmetic stays exact.
MOST_TIMEOUT = 24 * 3600 * 1000

# What the server says to a handler in headers of these names a client cannot say for it
# (``spec/rest_api.md`` §3.1); and a token is for the server, not for the model's code.
_RESERVED = frozenset({"url_path", "explain", "describe"})
_CREDENTIALS = frozenset({"authorization", "proxy-authorization"})

# These are ours to set on an answer, whatever a handler says (``spec/rest_api.md`` §2.4).
_OURS = frozenset(
    {"content-length", "transfer-encoding", "connection", "x-request-id", "date", "pragma", "cache-control", "expires"}
)


def add_ping_route(app: Klein, plane: InferencePlane) -> None:
    """Add ``/ping``, which takes any method."""

    @app.route("/ping")
    @app.route("/ping/<path:rest>")
    def ping(request: ServeRequest, rest: str = "") -> Answer:
        healthy = plane.healthy()
        return answer_status(request, 200 if healthy else 500, "Healthy" if healthy else "Unhealthy")


def add_prediction_routes(app: Klein, plane: InferencePlane, pass_credentials: bool) -> None:
    """
    Add ``/predictions``, which takes any method.

    :param pass_credentials: Whether handlers see ``Authorization``: when it holds no token of ours.
    """
    hidden = _RESERVED if pass_credentials else _RESERVED | _CREDENTIALS

    @app.route("/predictions/<model>")
    @app.route("/predictions/<model>/<version>")
    @app.route("/predictions/<model>/<version>/<path:rest>")
    def predict(
        request: ServeRequest, model: str, version: str | None = None, rest: str = ""
    ) -> Answer | Deferred[Answer]:
        job = _job_of(request, rest, hidden)
        response = _Response(request)
        return plane.predict(model, version, job, response.chunk, _deadline_of(request)).addCallback(response.finish)


def _job_of(request: ServeRequest, url_path: str, hidden: frozenset[str]) -> Job:
    """
    Make the job of a request.

    :raise BadRequest: for a form that cannot be read.
    """
    content_type = request.requestHeaders.getRawHeaders(b"content-type", (b"",))[0].decode("latin-1")
    spelled = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in request.spelled_headers]
    headers = {name: value for name, value in spelled if name.lower() not in hidden}
    headers["url_path"] = url_path
    headers["explain"] = "False"
    return Job(request_id(request), headers, parts_of(content_type, body_of(request)))


def _deadline_of(request: ServeRequest) -> float | None:
    """
    Say when the client stops waiting, in seconds of the clock, if it does.

    :raise BadRequest: for a header that is no number of milliseconds.
    """
    given = request.requestHeaders.getRawHeaders(TIMEOUT_HEADER)
    if given is None:
        return None
    value = b", ".join(given)
    # Digits and few of them: int() takes blanks and underscores, and as many digits as there is time for.
    if not (value.isdigit() and len(value) <= 9 and 1 <= int(value) <= MOST_TIMEOUT):
        raise BadRequest(
            f"{TIMEOUT_HEADER.decode('ascii')} must be from 1 to {MOST_TIMEOUT} milliseconds, "
            f"not {value.decode('latin-1')!r:.200}."
        )
    return request.began + int(value) / 1000


class _Response:
    """A handler's answer on its way to the client: whole, or chunk by chunk."""

    def __init__(self, request: ServeRequest) -> None:
        self._request = request
        self._streaming = False

    def chunk(self, item: Item) -> None:
        """Send an intermediate answer; the first one brings the head with it."""
        if not self._streaming:
            self._streaming = True
            if self._request.clientproto == b"HTTP/1.0":
                # It knows no chunks: the end of the connection is the end of the answer.
                self._request.channel.persistent = False
                self._request.responseHeaders.setRawHeaders(b"Connection", [b"close"])
            self._head(item)
        if item.body:
            self._request.write(item.body)

    def finish(self, item: Item) -> Answer:
        """Send the last answer."""
        if self._streaming:
            return item.body
        self._head(item)
        if item.status in NO_BODY_CODES:
            return b""
        self._request.responseHeaders.setRawHeaders(b"Content-Length", [b"%d" % len(item.body)])
        return item.body

    def _head(self, item: Item) -> None:
        headers = self._request.responseHeaders
        for name, value in item.headers.items():
            if name.lower() not in _OURS:
                headers.setRawHeaders(name.encode("latin-1"), [value.encode("latin-1")])
        set_common_headers(self._request, item.status)
        self._request.setResponseCode(item.status, item.phrase.encode("latin-1") or None)
        # The predecessor sends no content type which the handler has not set; nor does Twisted guess one here.
        self._request.defaultContentType = None
