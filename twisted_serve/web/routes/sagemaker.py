# SPDX-License-Identifier: Apache-2.0
"""
Handle the routes of SageMaker's two layouts and of old clients, whose query parameters are inputs.

``/invocations`` serves one model, ``/models/{model}/invoke`` several, ``/{model}/predict`` old clients
(``docs/torchserve/rest_api.md`` §4 and §14).
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
        # Checked before a form is parsed.
        predictor.plane.seen_by(request.sender).find(model, version)
    return await predictor.answer(request, model, version, {}, await _inputs_with_query(predictor, request))


async def _inputs_with_query(predictor: Predictor, request: ServeRequest) -> list[Part]:
    """
    Return the parameters of the query as inputs, followed by those of the body.

    :raise BadRequest: for a query or a form that cannot be parsed.
    """
    query = [Part(name, "", value.encode("utf-8"), decode=False) for name, value in query_pairs(request) if name]
    return query + await predictor.inputs_of(request)


def _model_wanted(predictor: Predictor, request: ServeRequest, parts: Sequence[Part]) -> str:
    """
    Return the name of the model of an invocation.

    The name is the ``model_name`` of the query, or else the only start-up model, or else the form's field
    ``model_name``.

    :raise BadRequest: if all of these are absent.
    """
    asked = next((value for name, value in query_pairs(request) if name == "model_name"), None)
    only = None if asked else predictor.plane.seen_by(request.sender).only_startup_model()
    if asked or only:
        return asked or str(only)
    named = [part.value for part in parts if part.name == "model_name"]
    if not named:
        raise BadRequest("Parameter model_name is required.")
    return named[-1].decode("utf-8", "replace")
