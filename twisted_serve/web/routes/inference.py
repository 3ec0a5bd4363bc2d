# SPDX-License-Identifier: Apache-2.0
"""
This module implements ``/ping``, ``/predictions`` and ``/explanations`` (``docs/torchserve/rest_api.md`` §4).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred

from twisted_serve.planes.inference import InferencePlane
from twisted_serve.web.http.request import ServeRequest
from twisted_serve.web.http.responses import Body, answer_status
from twisted_serve.web.routes.predictions import EXPLAIN, PREDICT, Predictor
from twisted_serve.web.routing.fast_path import FastRoute

if TYPE_CHECKING:
    from klein import Klein


def add_ping_route(app: Klein, plane: InferencePlane) -> FastRoute:
    """Add ``/ping``, which takes any method; return the short way to it."""

    @app.route("/ping")
    @app.route("/ping/<path:rest>")
    def ping(request: ServeRequest, rest: str = "") -> Body:
        healthy = plane.healthy()
        return answer_status(request, 200 if healthy else 500, "Healthy" if healthy else "Unhealthy")

    return FastRoute(ping, named=0, needed=0)


def add_prediction_routes(app: Klein, predictor: Predictor) -> FastRoute:
    """
    Add ``/predictions`` and ``/explanations``, which take any method; what follows is the handler's.

    :return: The short way to ``/predictions``.
    """

    @app.route("/predictions/<model>")
    @app.route("/predictions/<model>/<version>")
    @app.route("/predictions/<model>/<version>/<rest:rest>")
    def predict(request: ServeRequest, model: str, version: str | None = None, rest: str = "") -> Deferred[Body]:
        return predictor.answer(request, model, version, {"url_path": rest, **PREDICT})

    @app.route("/explanations/<model>")
    @app.route("/explanations/<model>/<version>")
    @app.route("/explanations/<model>/<version>/<rest:rest>")
    def explain(request: ServeRequest, model: str, version: str | None = None, rest: str = "") -> Deferred[Body]:
        return predictor.answer(request, model, version, {"url_path": rest, **EXPLAIN})

    return FastRoute(predict, named=2, needed=1)
