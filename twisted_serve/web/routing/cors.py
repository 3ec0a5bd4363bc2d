# SPDX-License-Identifier: Apache-2.0
"""
Answer CORS preflight requests, by which a browser asks whether a page may call this server.

A browser sends a preflight without the token, so it is answered before authorization, and the response holds only the
configured headers, the same for every path.
"""

from __future__ import annotations

from twisted.web.iweb import IRequest
from twisted.web.resource import IResource
from twisted.web.server import NOT_DONE_YET

from twisted_serve.web.http.responses import set_common_headers
from twisted_serve.web.routing.leaf import Leaf


def is_preflight(request: IRequest) -> bool:
    """Return whether a request is a preflight (Fetch standard, "CORS-preflight request")."""
    headers = request.requestHeaders
    asked = (b"origin", b"access-control-request-method")
    return bool(request.method == b"OPTIONS" and all(headers.hasHeader(name) for name in asked))


class Preflight(Leaf):
    """
    Wraps the guard of a listener with responses that other origins may read.

    :param guarded: The resource for all other requests.
    """

    def __init__(self, guarded: IResource) -> None:
        self.guarded = guarded

    def render(self, request: IRequest) -> bytes | int:
        """Answer a preflight, with the headers that the site has already set; pass on all other requests."""
        if not is_preflight(request):
            return self.guarded.render(request)  # type: ignore[no-any-return]
        set_common_headers(request, 204)
        request.setResponseCode(204)
        # Not returned as an empty body: Twisted would add a Content-Length, which a 204 must not have.
        request.finish()
        return NOT_DONE_YET
