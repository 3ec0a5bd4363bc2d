# SPDX-License-Identifier: Apache-2.0
"""
Serve the endpoints of plug-ins, after authorization and before the server's own routes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from twisted.internet.defer import Deferred, maybeDeferred

from twisted_serve.auth.targets import parse_target
from twisted_serve.auth.tokens import TokenKind
from twisted_serve.endpoints import Context, Endpoint, EndpointAnswer, EndpointRequest
from twisted_serve.planes.job_headers import HIDDEN_FROM_PLUGINS
from twisted_serve.web.http.queries import query_pairs
from twisted_serve.web.http.request import ServeRequest, body_of
from twisted_serve.web.http.responses import Body, set_common_headers
from twisted_serve.web.routing.fast_path import FastRoute
from twisted_serve.wire.header_text import sendable


def kind_of(endpoint: Endpoint) -> TokenKind:
    """Return the kind of token that an endpoint needs."""
    return TokenKind.INFERENCE if endpoint.kind == "inference" else TokenKind.MANAGEMENT


def ways_to(endpoints: Iterable[Endpoint], kind: TokenKind, look: Callable[[], Context]) -> dict[str, FastRoute]:
    """
    Return the fast routes to the endpoints of one kind, by first segment.

    :param look: Return the overview of the server that an endpoint gets with each request.
    """
    return {
        endpoint.segment: FastRoute(_asking(endpoint, look), named=0, needed=0, whatever_follows=True)
        for endpoint in endpoints
        if kind_of(endpoint) is kind
    }


def _asking(endpoint: Endpoint, look: Callable[[], Context]) -> Callable[[ServeRequest], Deferred[Body]]:
    def ask(request: ServeRequest) -> Deferred[Body]:
        asked = _request_of(request)
        return maybeDeferred(endpoint.answer, asked, look()).addCallback(_render, endpoint, request)

    return ask


def _request_of(request: ServeRequest) -> EndpointRequest:
    query: dict[str, tuple[str, ...]] = {}
    for name, value in query_pairs(request):
        query[name] = (*query.get(name, ()), value)
    return EndpointRequest(
        method=request.method.decode("latin-1"),
        segments=parse_target(request.uri).segments,
        query=query,
        headers=_headers_of(request),
        body=body_of(request),
        principal=request.principal,
    )


def _headers_of(request: ServeRequest) -> Mapping[str, str]:
    every = ((name.lower(), values[-1]) for name, values in request.requestHeaders.getAllRawHeaders())
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in every if name not in HIDDEN_FROM_PLUGINS}


def _render(answer: object, endpoint: Endpoint, request: ServeRequest) -> Body:
    if not isinstance(answer, EndpointAnswer):
        raise TypeError(f"the plug-in {endpoint.origin} has answered {type(answer).__name__}, expected EndpointAnswer")
    set_common_headers(request, answer.status)
    request.setResponseCode(answer.status)
    for name, value in answer.headers.items():
        request.responseHeaders.setRawHeaders(name.encode("ascii"), [sendable(name, value).encode("latin-1")])
    request.responseHeaders.setRawHeaders(b"Content-Length", [b"%d" % len(answer.body)])
    return answer.body
