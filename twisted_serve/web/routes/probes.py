# SPDX-License-Identifier: Apache-2.0
"""
This module implements the routes which need no token: the probes, the API description, and what a listener leaves open.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from twisted.web.iweb import IRequest

from twisted_serve.errors import MethodNotAllowed
from twisted_serve.web.http.rendering import json_text
from twisted_serve.web.http.responses import Body, answer_status, answer_text
from twisted_serve.web.openapi.page import answer_page, page_of
from twisted_serve.web.routing.browsers import answer_way_to_docs, is_browser_at_root

if TYPE_CHECKING:
    from klein import Klein


def add_probe_routes(app: Klein, ready: Callable[[], bool]) -> None:
    """Add ``/livez`` (the process answers) and ``/readyz`` (every start-up model has its workers)."""

    @app.route("/livez", methods=["GET"])
    def livez(request: IRequest) -> Body:
        return answer_status(request, 200, "Live")

    @app.route("/readyz", methods=["GET"])
    def readyz(request: IRequest) -> Body:
        return answer_status(request, 200, "Ready") if ready() else answer_status(request, 503, "Not ready")


def add_description_routes(app: Klein, description: dict[str, Any]) -> None:
    """Add ``OPTIONS /`` and ``/api-description``, and ``/docs``, which shows the same to people."""
    page = page_of(description)
    # It takes milliseconds to write, and can be asked for without a token.
    text = json_text(description)

    @app.route("/", methods=["OPTIONS"])
    @app.route("/api-description")
    def describe_api(request: IRequest) -> Body:
        return answer_text(request, 200, text)

    @app.route("/docs", methods=["GET"])
    def show_page(request: IRequest) -> Body:
        return answer_page(request, page)


def add_root_route(app: Klein) -> None:
    """Let ``/`` exist, but for ``OPTIONS`` alone, which is public, and for browsers: other methods are not allowed."""

    @app.route("/")
    def root(request: IRequest) -> Body:
        if is_browser_at_root(request):
            return answer_way_to_docs(request)
        raise MethodNotAllowed(("OPTIONS",))
