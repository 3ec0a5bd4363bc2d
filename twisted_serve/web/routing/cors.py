# SPDX-License-Identifier: Apache-2.0
"""
This module implements the answer to a browser's question whether a page may call us (the CORS protocol's preflight).

A browser asks without the token, so this is answered before the gate, and tells
nothing but the configured headers, the same for every path.
"""

from __future__ import annotations

from twisted.web.iweb import IRequest
from twisted.web.resource import IResource
from twisted.web.server import NOT_DONE_YET
from zope.interface import implementer

from twisted_serve.web.http.responses import set_common_headers


def is_preflight(request: IRequest) -> bool:
    """Say whether a request is a preflight (Fetch standard, "CORS-preflight request")."""
    headers = request.requestHeaders
    asked = (b"origin", b"access-control-request-method")
    return bool(request.method == b"OPTIONS" and all(headers.hasHeader(name) for name in asked))


@implementer(IResource)
class Preflight:
    """
    Stands before the guard of a listener whose answers other origins may read.

    :param guarded: Answers everything else.
    """

    isLeaf = True

    def __init__(self, guarded: IResource) -> None:
        self.guarded = guarded

    def render(self, request: IRequest) -> bytes | int:
        """Answer a preflight, whose headers the site has set already; hand anything else on."""
        if not is_preflight(request):
            return self.guarded.render(request)  # type: ignore[no-any-return]
        set_common_headers(request, 204)
        request.setResponseCode(204)
        # Not returned as a body: to a body of no bytes Twisted gives a length, which this code may not have.
        request.finish()
        return NOT_DONE_YET

    def getChildWithDefault(self, name: bytes, request: IRequest) -> IResource:
        """Be the leaf of every path."""
        return self

    def putChild(self, path: bytes, child: IResource) -> None:
        """
        Refuse: nothing stands beside the guard.

        :raise TypeError: always.
        """
        raise TypeError(f"no child {path!r} can be put beside the guard")
