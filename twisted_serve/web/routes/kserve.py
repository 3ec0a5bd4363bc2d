# SPDX-License-Identifier: Apache-2.0
"""
This module implements KServe's routes: version 1, and version 2, which is the Open Inference Protocol.

``docs/torchserve/rest_api.md`` §9.  Predictions and readiness are there always; the rest of version 2 is an extra
(``ts_open_inference_protocol``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred
from twisted.web.iweb import IRequest

from twisted_serve.planes.inference import InferencePlane
from twisted_serve.web.http.request import ServeRequest
from twisted_serve.web.http.responses import Body, answer_json
from twisted_serve.web.routes.predictions import EXPLAIN, PREDICT, Predictor
from twisted_serve.web.routes.tensors import infer

if TYPE_CHECKING:
    from klein import Klein

# What the predecessor says of itself, under its own spelling; and the protocol's member, with what there is besides.
_EXTENSIONS = ["kserve", "kubeflow"]
_SERVER = "Torchserve"


def add_v1_routes(app: Klein, predictor: Predictor) -> None:
    """Add version 1's predictions, which take any method and the default version."""

    @app.route("/v1/models/<model>:predict")
    def v1_predict(request: ServeRequest, model: str) -> Deferred[Body]:
        return predictor.answer(request, model, None, PREDICT)

    @app.route("/v1/models/<model>:explain")
    def v1_explain(request: ServeRequest, model: str) -> Deferred[Body]:
        return predictor.answer(request, model, None, EXPLAIN)


def add_v1_model_routes(app: Klein, plane: InferencePlane, name: str = "<model>") -> None:
    """
    Add version 1's list of models, and whether one is ready.

    :param name: How a name is written in a route; beside predictions it has no colon.
    """

    @app.route("/v1/models", methods=["GET"])
    def v1_models(request: IRequest) -> Body:
        return answer_json(request, 200, {"models": plane.names()})

    @app.route(f"/v1/models/{name}", methods=["GET"])
    def v1_ready(request: IRequest, model: str) -> Body:
        return answer_json(request, 200, {"name": model, "ready": plane.model_ready(model, None)})


def add_v2_routes(app: Klein, predictor: Predictor) -> None:
    """Add version 2's predictions with the default version, which take any method."""

    @app.route("/v2/models/<model>/infer")
    def v2_infer(request: ServeRequest, model: str) -> Deferred[Body]:
        return infer(predictor, request, model, None, PREDICT)

    @app.route("/v2/models/<model>/explain")
    def v2_explain(request: ServeRequest, model: str) -> Deferred[Body]:
        return infer(predictor, request, model, None, EXPLAIN)


def add_v2_readiness_routes(app: Klein, plane: InferencePlane) -> None:
    """Add version 2's health, of the server and of a model, which clients ask for before they predict."""

    @app.route("/v2/health/live")
    def v2_live(request: IRequest) -> Body:
        return answer_json(request, 200, {"live": True})

    @app.route("/v2/health/ready")
    def v2_ready(request: IRequest) -> Body:
        return _answer_ready(request, {}, plane.ready())

    @app.route("/v2/models/<model>/ready", methods=["GET"])
    @app.route("/v2/models/<model>/versions/<version>/ready", methods=["GET"])
    def v2_model_ready(request: IRequest, model: str, version: str | None = None) -> Body:
        return _answer_ready(request, {"name": model}, plane.model_ready(model, version))


def add_open_inference_routes(app: Klein, predictor: Predictor, server_version: str) -> None:
    """Add what else the Open Inference Protocol has: metadata, versions."""
    plane = predictor.plane

    @app.route("/v2")
    def v2_server(request: IRequest) -> Body:
        extensions = [*_EXTENSIONS, "binary_tensor_data"]
        return answer_json(
            request,
            200,
            {"name": _SERVER, "version": server_version, "extenstion": _EXTENSIONS, "extensions": extensions},
        )

    @app.route("/v2/models/<model>", methods=["GET"])
    @app.route("/v2/models/<model>/versions/<version>", methods=["GET"])
    def v2_metadata(request: IRequest, model: str, version: str | None = None) -> Body:
        plane.find(model, version)
        members = {"name": model, "versions": plane.versions(model), "platform": "", "inputs": [], "outputs": []}
        return answer_json(request, 200, members)

    @app.route("/v2/models/<model>/versions/<version>/infer")
    def v2_version_infer(request: ServeRequest, model: str, version: str) -> Deferred[Body]:
        return infer(predictor, request, model, version, PREDICT)

    @app.route("/v2/models/<model>/versions/<version>/explain")
    def v2_version_explain(request: ServeRequest, model: str, version: str) -> Deferred[Body]:
        return infer(predictor, request, model, version, EXPLAIN)


def _answer_ready(request: IRequest, members: dict[str, str], ready: bool) -> Body:
    """Answer by the status code, too: probes look at nothing else."""
    return answer_json(request, 200 if ready else 503, {**members, "ready": ready})
