# SPDX-License-Identifier: Apache-2.0
"""
Serve the public routes: the probes and the API description.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

from twisted.web.iweb import IRequest

from twisted_serve.web.api.route import Surface
from twisted_serve.web.http.rendering import json_text
from twisted_serve.web.http.responses import Body, answer_status, answer_text
from twisted_serve.web.openapi.document import describe_api
from twisted_serve.web.openapi.page import answer_page, page_of
from twisted_serve.web.routing.binding import Endpoints

# How many descriptions are kept: for the listeners of a server, and of others in the same process.
_DESCRIPTIONS = 16


def probe_endpoints(ready: Callable[[], bool]) -> Endpoints:
    """Return the endpoints of ``/livez`` (the process responds) and ``/readyz`` (all start-up models have workers)."""

    def livez(request: IRequest) -> Body:
        return answer_status(request, 200, "Live")

    def readyz(request: IRequest) -> Body:
        return answer_status(request, 200, "Ready") if ready() else answer_status(request, 503, "Not ready")

    return {"live": livez, "ready": readyz}


def description_endpoints(surface: Surface, version: str) -> Endpoints:
    """Return the endpoints of ``OPTIONS /`` and ``/api-description``, and of ``/docs``, the same as a page."""
    text, page = _rendered(surface, version)

    def describe(request: IRequest) -> Body:
        return answer_text(request, 200, text)

    def show_page(request: IRequest) -> Body:
        return answer_page(request, page)

    return {"apiDescription": describe, "api-description": describe, "docs": show_page}


# Rendered once, and not for a request: it takes milliseconds, and any client may request it without a token.
@lru_cache(_DESCRIPTIONS)
def _rendered(surface: Surface, version: str) -> tuple[bytes, bytes]:
    """Return the description of a listener as JSON and as a page."""
    description = describe_api(surface, version)
    return json_text(description), page_of(description)
