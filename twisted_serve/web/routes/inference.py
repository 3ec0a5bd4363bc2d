# SPDX-License-Identifier: Apache-2.0
"""
Handle ``/ping``, ``/predictions`` and ``/explanations`` (``docs/torchserve/rest_api.md`` §4).
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred

from twisted_serve.planes.inference import SharedInference
from twisted_serve.planes.job_headers import EXPLAIN, PREDICT
from twisted_serve.web.http.request import ServeRequest
from twisted_serve.web.http.responses import Body, answer_status
from twisted_serve.web.routes.predictions import Predictor


def ping_endpoint(plane: SharedInference) -> Callable[..., Body]:
    """Return the endpoint of ``/ping``."""

    def ping(request: ServeRequest, rest: str = "") -> Body:
        healthy = plane.healthy()
        return answer_status(request, 200 if healthy else 500, "Healthy" if healthy else "Unhealthy")

    return ping


def prediction_endpoints(predictor: Predictor) -> dict[str, Callable[..., Deferred[Body]]]:
    """Return the endpoints of ``/predictions`` and ``/explanations``; the handler gets the rest of the path."""

    def predict(request: ServeRequest, model: str, version: str | None = None, rest: str = "") -> Deferred[Body]:
        return predictor.answer(request, model, version, {"url_path": rest, **PREDICT})

    def explain(request: ServeRequest, model: str, version: str | None = None, rest: str = "") -> Deferred[Body]:
        return predictor.answer(request, model, version, {"url_path": rest, **EXPLAIN})

    return {
        "predictions": predict,
        "version_predictions": predict,
        "path_predictions": predict,
        "explanations": explain,
        "version_explanations": explain,
        "path_explanations": explain,
    }
