# SPDX-License-Identifier: Apache-2.0
"""
Serve the public routes: the probes and the API description; and the root of a listener.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from twisted.web.iweb import IRequest

from twisted_serve.errors import MethodNotAllowed
from twisted_serve.web.http.rendering import json_text
from twisted_serve.web.http.responses import Body, answer_status, answer_text
from twisted_serve.web.openapi.page import answer_page, page_of
from twisted_serve.web.routing.binding import Endpoints
from twisted_serve.web.routing.browsers import answer_way_to_docs, is_browser_at_root

if TYPE_CHECKING:
    from klein import Klein


def probe_endpoints(ready: Callable[[], bool]) -> Endpoints:
    """Return the endpoints of ``/livez`` (the process responds) and ``/readyz`` (all start-up models have workers)."""

    def livez(request: IRequest) -> Body:
        return answer_status(request, 200, "Live")

    def readyz(request: IRequest) -> Body:
        return answer_status(request, 200, "Ready") if ready() else answer_status(request, 503, "Not ready")

    return {"live": livez, "ready": readyz}


def description_endpoints(description: dict[str, Any]) -> Endpoints:
    """Return the endpoints of ``OPTIONS /`` and ``/api-description``, and of ``/docs``, the same as a page."""
    page = page_of(description)
    # Rendered once: it takes milliseconds, and any client may request it without a token.
    text = json_text(description)

    def describe_api(request: IRequest) -> Body:
        return answer_text(request, 200, text)

    def show_page(request: IRequest) -> Body:
        return answer_page(request, page)

    return {"apiDescription": describe_api, "api-description": describe_api, "docs": show_page}


def add_root_route(app: Klein) -> None:
    """Add ``/``, which redirects browsers and allows no method but ``OPTIONS``, which is public."""

    @app.route("/")
    def root(request: IRequest) -> Body:
        if is_browser_at_root(request):
            return answer_way_to_docs(request)
        raise MethodNotAllowed(("OPTIONS",))
