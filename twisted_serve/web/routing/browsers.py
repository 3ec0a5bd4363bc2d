# SPDX-License-Identifier: Apache-2.0
"""
Redirect browsers from the root of a listener to the page that describes its API.

The page needs no token, so neither does the redirect; all other clients get the ordinary response of the root.
"""

from __future__ import annotations

from twisted.web.iweb import IRequest

from twisted_serve.auth.targets import parse_target
from twisted_serve.web.http.responses import Body, set_common_headers

_PAGES = frozenset({b"text/html", b"application/xhtml+xml"})


def is_browser_at_root(request: IRequest) -> bool:
    """Return whether a request is a GET or HEAD of ``/`` whose ``Accept`` names HTML, not only ``*/*``."""
    target = parse_target(request.uri)
    if target.segments or target.flaw is not None or request.method not in (b"GET", b"HEAD"):
        return False
    accepted = b",".join(request.requestHeaders.getRawHeaders(b"accept", ())).lower()
    return any(_accepts_page(media_range) for media_range in accepted.split(b","))


def answer_way_to_docs(request: IRequest) -> Body:
    """Redirect to ``/docs``, relatively, since a proxy may serve this server below another path."""
    set_common_headers(request, 302)
    request.setResponseCode(302)
    for name, value in ((b"Location", b"docs"), (b"Vary", b"Accept"), (b"Content-Length", b"0")):
        request.responseHeaders.setRawHeaders(name, [value])
    return b""


def _accepts_page(media_range: bytes) -> bool:
    name, *parameters = [piece.strip(b" \t") for piece in media_range.split(b";")]
    refused = any(piece.partition(b"=")[0] == b"q" and not piece.strip(b"q=0. ") for piece in parameters)
    return name in _PAGES and not refused
