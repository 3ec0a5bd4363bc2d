# SPDX-License-Identifier: Apache-2.0
"""
This module implements the routes of SageMaker's two layouts and of old clients, which take query parameters as inputs.

``/invocations`` serves one model, ``/models/{model}/invoke`` several, ``/{model}/predict``
those who have called it so for long (``docs/torchserve/rest_api.md`` §4 and §14).
"""

from __future__ import annotations

from collections.abc import Sequence

from twisted_serve.errors import BadRequest, ResourceNotFound
from twisted_serve.web.api.segments import CLAIMED
from twisted_serve.web.http.queries import query_pairs
from twisted_serve.web.http.request import ServeRequest
from twisted_serve.web.http.responses import Body
from twisted_serve.web.routes.predictions import Predictor
from twisted_serve.web.routing.binding import Endpoints
from twisted_serve.wire.messages import Part


def invocation_endpoints(predictor: Predictor) -> Endpoints:
    """Return the endpoints of ``/invocations`` and ``/models/{model}/invoke``."""

    async def invocations(request: ServeRequest) -> Body:
        parts = await _inputs_with_query(predictor, request)
        return await predictor.answer(request, _model_wanted(predictor, request, parts), None, {}, parts)

    async def invoke(request: ServeRequest, model: str) -> Body:
        return await _answer(predictor, request, model, None)

    return {"invocations": invocations, "invoke": invoke}


def legacy_endpoints(predictor: Predictor) -> Endpoints:
    """Return the endpoints of ``/{model}/predict`` and ``/{model}/{version}/predict``, for unclaimed names."""

    async def legacy_predict(request: ServeRequest, model: str, version: str | None = None) -> Body:
        if model in CLAIMED:
            raise ResourceNotFound()
        return await _answer(predictor, request, model, version)

    return {"legacy_predictions": legacy_predict, "legacy_version_predictions": legacy_predict}


async def _answer(predictor: Predictor, request: ServeRequest, model: str, version: str | None) -> Body:
    if request.method != b"OPTIONS":
        # Before anything is made of a form.
        predictor.plane.find(model, version)
    return await predictor.answer(request, model, version, {}, await _inputs_with_query(predictor, request))


async def _inputs_with_query(predictor: Predictor, request: ServeRequest) -> list[Part]:
    """
    Return the query's parameters as inputs, then the body's.

    :raise BadRequest: for a query or a form that cannot be read.
    """
    query = [Part(name, "", value.encode("utf-8"), decode=False) for name, value in query_pairs(request) if name]
    return query + await predictor.inputs_of(request)


def _model_wanted(predictor: Predictor, request: ServeRequest, parts: Sequence[Part]) -> str:
    """
    Find out which model an invocation is for.

    It is the query's ``model_name``, or else the only start-up model, or else
    the form's field of that name.

    :raise BadRequest: if nothing says so.
    """
    asked = next((value for name, value in query_pairs(request) if name == "model_name"), None)
    only = None if asked else predictor.plane.only_startup_model()
    if asked or only:
        return asked or str(only)
    named = [part.value for part in parts if part.name == "model_name"]
    if not named:
        raise BadRequest("Parameter model_name is required.")
    return named[-1].decode("utf-8", "replace")
