# SPDX-License-Identifier: Apache-2.0
"""
Handle KServe's routes: version 1, and version 2, which is the Open Inference Protocol.

``docs/torchserve/rest_api.md`` §9. Predictions and readiness are always available; the rest of version 2 is optional
(``ts_open_inference_protocol``).
"""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.web.iweb import IRequest

from twisted_serve.openinference.server import EXTENSIONS, SERVER, TORCHSERVE_EXTENSIONS
from twisted_serve.planes.inference import SharedInference
from twisted_serve.planes.job_headers import EXPLAIN, PREDICT
from twisted_serve.web.http.request import ServeRequest
from twisted_serve.web.http.responses import Body, answer_json
from twisted_serve.web.routes.predictions import Predictor
from twisted_serve.web.routes.tensors import infer
from twisted_serve.web.routing.binding import Endpoints


def v1_endpoints(predictor: Predictor) -> Endpoints:
    """Return the endpoints of version 1's predictions with the default version."""

    def v1_predict(request: ServeRequest, model: str) -> Deferred[Body]:
        return predictor.answer(request, model, None, PREDICT)

    def v1_explain(request: ServeRequest, model: str) -> Deferred[Body]:
        return predictor.answer(request, model, None, EXPLAIN)

    return {"v1_predict": v1_predict, "v1_explain": v1_explain}


def v1_model_endpoints(plane: SharedInference) -> Endpoints:
    """Return the endpoints of version 1's list of models, and of the readiness of one."""

    def v1_models(request: ServeRequest) -> Body:
        return answer_json(request, 200, {"models": plane.seen_by(request.sender).names()})

    def v1_ready(request: ServeRequest, model: str) -> Body:
        ready = plane.seen_by(request.sender).model_ready(model, None)
        return answer_json(request, 200, {"name": model, "ready": ready})

    return {"v1_models": v1_models, "v1_model_ready": v1_ready}


def v2_endpoints(predictor: Predictor) -> Endpoints:
    """Return the endpoints of version 2's predictions with the default version."""

    def v2_infer(request: ServeRequest, model: str) -> Deferred[Body]:
        return infer(predictor, request, model, None, PREDICT)

    def v2_explain(request: ServeRequest, model: str) -> Deferred[Body]:
        return infer(predictor, request, model, None, EXPLAIN)

    return {"v2_infer": v2_infer, "v2_explain": v2_explain}


def v2_readiness_endpoints(plane: SharedInference) -> Endpoints:
    """Return the endpoints of version 2's health of the server and of a model, which clients read first."""

    def v2_live(request: IRequest) -> Body:
        return answer_json(request, 200, {"live": True})

    def v2_ready(request: IRequest) -> Body:
        return _answer_ready(request, {}, plane.ready())

    def v2_model_ready(request: ServeRequest, model: str, version: str | None = None) -> Body:
        return _answer_ready(request, {"name": model}, plane.seen_by(request.sender).model_ready(model, version))

    return {
        "v2_live": v2_live,
        "v2_ready": v2_ready,
        "v2_model_ready": v2_model_ready,
        "v2_version_model_ready": v2_model_ready,
    }


def open_inference_endpoints(predictor: Predictor, server_version: str) -> Endpoints:
    """Return the other endpoints of the Open Inference Protocol: metadata, versions."""
    plane = predictor.plane

    def v2_server(request: IRequest) -> Body:
        members = {
            "name": SERVER,
            "version": server_version,
            # TorchServe's spelling, and the protocol's.
            "extenstion": TORCHSERVE_EXTENSIONS,
            "extensions": EXTENSIONS,
        }
        return answer_json(request, 200, members)

    def v2_metadata(request: ServeRequest, model: str, version: str | None = None) -> Body:
        seen = plane.seen_by(request.sender)
        seen.find(model, version)
        members = {"name": model, "versions": seen.versions(model), "platform": "", "inputs": [], "outputs": []}
        return answer_json(request, 200, members)

    def v2_version_infer(request: ServeRequest, model: str, version: str) -> Deferred[Body]:
        return infer(predictor, request, model, version, PREDICT)

    def v2_version_explain(request: ServeRequest, model: str, version: str) -> Deferred[Body]:
        return infer(predictor, request, model, version, EXPLAIN)

    return {
        "v2_server": v2_server,
        "v2_model": v2_metadata,
        "v2_version_model": v2_metadata,
        "v2_version_infer": v2_version_infer,
        "v2_version_explain": v2_version_explain,
    }


def _answer_ready(request: IRequest, members: dict[str, str], ready: bool) -> Body:
    """Respond with the readiness, as status code as well, the only part that probes read."""
    return answer_json(request, 200 if ready else 503, {**members, "ready": ready})
