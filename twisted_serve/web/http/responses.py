# SPDX-License-Identifier: Apache-2.0
"""
Render JSON responses with TorchServe's headers, and errors as responses.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, TypeAlias, cast

from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import NO_BODY_CODES, RESET_CONTENT
from twisted.web.iweb import IRequest
from werkzeug.exceptions import HTTPException
from werkzeug.exceptions import MethodNotAllowed as RoutedElsewhere

from twisted_serve.auth.asking import Declined
from twisted_serve.auth.gate import Denied
from twisted_serve.auth.keyring import Reason
from twisted_serve.auth.refusals import refusal_error
from twisted_serve.auth.targets import parse_target
from twisted_serve.errors import (
    BadRequest,
    InsufficientScope,
    InternalError,
    InvalidKey,
    MethodNotAllowed,
    ResourceNotFound,
    ServeError,
    ServiceUnavailable,
    TooManyRequests,
    Unauthorized,
    UnsupportedEncoding,
    WorkerFailed,
)
from twisted_serve.web.http.contracts import AnsweredRequest
from twisted_serve.web.http.rendering import json_text, members_of

_log = Logger("twisted_serve.web")

#: The body of a response, which a route returns.
Body: TypeAlias = bytes


def set_common_headers(request: IRequest, status: int) -> None:
    """Set the common headers of a response, and close after an error (``docs/torchserve/rest_api.md`` §2.6)."""
    served = cast("AnsweredRequest", request)
    headers = served.responseHeaders
    timing = served.server_timing()
    if timing is not None:
        headers.setRawHeaders(b"Server-Timing", [timing])
    if status >= 400:
        headers.setRawHeaders(b"Connection", [b"close"])
        if served.channel is not None:
            served.channel.persistent = False
    elif not headers.hasHeader(b"Connection"):
        headers.setRawHeaders(b"Connection", [b"keep-alive"])


def answer_json(request: IRequest, status: int, value: Any) -> bytes:
    """Answer with JSON."""
    return answer_text(request, status, json_text(value))


def answer_text(request: IRequest, status: int, body: bytes) -> bytes:
    """Answer with rendered JSON."""
    set_common_headers(request, status)
    request.setResponseCode(status)
    request.responseHeaders.setRawHeaders(b"Content-Type", [b"application/json"])
    request.responseHeaders.setRawHeaders(b"Content-Length", [b"%d" % len(body)])
    return body


def answer_status(request: IRequest, status: int, text: str) -> bytes:
    """Answer with the status object."""
    return answer_text(request, status, _status_text(text))


@lru_cache(maxsize=16)
def _status_text(text: str) -> bytes:
    """Render a status object; the few that exist are cached."""
    return json_text({"status": text})


# Of each response to a request without the right key (RFC 9110 §11.6.1).
_CHALLENGE = b'Bearer realm="twisted_serve"'

#: Statuses whose responses have no body.
_WITHOUT_CONTENT = frozenset([*NO_BODY_CODES, RESET_CONTENT])


def answer_error(request: IRequest, error: ServeError) -> bytes:
    """Answer with the error object."""
    if isinstance(error, MethodNotAllowed) and error.allowed is not None:
        request.responseHeaders.setRawHeaders(b"Allow", [", ".join(sorted(error.allowed)).encode("ascii")])
    if isinstance(error, UnsupportedEncoding):
        request.responseHeaders.setRawHeaders(b"Accept-Encoding", [b"gzip, deflate"])
    if isinstance(error, InsufficientScope):
        request.responseHeaders.setRawHeaders(b"WWW-Authenticate", [_CHALLENGE + b', error="insufficient_scope"'])
    if isinstance(error, (ServiceUnavailable, TooManyRequests)) and error.retry_after is not None:
        request.responseHeaders.setRawHeaders(b"Retry-After", [b"%d" % error.retry_after])
    if error.status in _WITHOUT_CONTENT:
        # A handler's PredictionException may have any status (RFC 9110 §15.3.5, §15.3.6, §15.4.5).
        set_common_headers(request, error.status)
        request.setResponseCode(error.status)
        if error.status == RESET_CONTENT:
            request.responseHeaders.setRawHeaders(b"Content-Length", [b"0"])
        return b""
    members = members_of(error)
    if parse_target(request.uri).first == "v2":
        # Clients of the Open Inference Protocol read this member.
        members["error"] = error.message
    return answer_json(request, error.status, members)


def answer_flaw(request: IRequest, flaw: str) -> bytes:
    """Answer a request with an invalid path."""
    return answer_error(request, BadRequest(f"Invalid path: {flaw}."))


def answer_refusal(request: IRequest, denied: Denied, status: int) -> bytes:
    """
    Answer a request without the token it needs, or with a key that may not do this.

    :param status: 400 as in TorchServe, or 401 as in RFC 6750 §3.1, for a token that is not good.
    """
    error = refusal_error(denied)
    if isinstance(error, InvalidKey):
        error.status = status
        challenge = _CHALLENGE if denied.reason is Reason.MISSING else _CHALLENGE + b', error="invalid_token"'
        request.responseHeaders.setRawHeaders(b"WWW-Authenticate", [challenge])
    return answer_error(request, error)


def answer_declined(request: IRequest, declined: Declined) -> bytes:
    """Answer a request that an application's authorizer has refused, or about which it has not answered."""
    answer = declined.answer
    if isinstance(answer, ServeError):
        return answer_error(request, answer)
    if answer.challenge is not None:
        request.responseHeaders.setRawHeaders(b"WWW-Authenticate", [answer.challenge.encode("ascii")])
    error = Unauthorized(answer.message)
    error.status = answer.status
    return answer_error(request, error)


def error_of(failure: Failure) -> ServeError:
    """Return the error to show to a client; log a failure that is not in the error tree."""
    problem = failure.value
    if isinstance(problem, ServeError):
        return problem
    if isinstance(problem, HTTPException):
        # Werkzeug's routing raises only "no such path" and "no such method".
        if isinstance(problem, RoutedElsewhere):
            return MethodNotAllowed(problem.valid_methods or ())
        return ResourceNotFound()
    _log.failure("An answer could not be made", failure)
    return InternalError("Internal server error.")


def no_methods(request: IRequest) -> frozenset[str]:
    """Return the empty set, because the methods of the path are unknown."""
    return frozenset()


def answer_failure(
    request: Any, failure: Failure, methods_of_path: Callable[[IRequest], frozenset[str]] = no_methods
) -> bytes:
    """
    Answer a request whose endpoint failed.

    :param methods_of_path: Return the methods of the routes that match a request's path.
    """
    error = error_of(failure)
    if isinstance(error, WorkerFailed) and error.detail and request.channel is not None:
        error.because(request.channel.site.shown(error.detail))
    if request.startedWriting:
        # The head is sent, so only an incomplete body can signal the error to the client.
        _log.warn("A stream was broken off: {error}", error=error)
        if request.chunked:
            # The data already sent may arrive; the missing last chunk signals the error.
            request.chunked = 0
            request.channel.persistent = False
        else:
            request.channel.transport.abortConnection()
        return b""
    if isinstance(error, MethodNotAllowed) and error.allowed is None:
        error = MethodNotAllowed(methods_of_path(request) - {request.method.decode("latin-1")})
    return answer_error(request, error)
