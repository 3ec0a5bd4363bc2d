# SPDX-License-Identifier: Apache-2.0
"""
List the routes of the inference listener.
"""

from __future__ import annotations

from collections.abc import Iterable

from twisted_serve.auth.scopes import Operation
from twisted_serve.openinference.requests import LENGTH_HEADER
from twisted_serve.web.api.route import DESCRIPTION, KNOWN, REFUSED, Parameter, Route
from twisted_serve.web.http.deadlines import MOST_TIMEOUT, TIMEOUT_HEADER

_PREDICTION = {
    200: "The handler's answer; it may choose another code.",
    **KNOWN,
    408: "There was no answer in the time which the model gives its clients.",
    413: "The body is too large.",
    415: "The body is compressed in another way than gzip or deflate.",
    500: "The worker died.",
    503: "No worker can take the request, or the handler failed.",
    507: "The handler ran out of memory.",
}


_TIMEOUT = Parameter(
    TIMEOUT_HEADER,
    "integer",
    "Milliseconds that the client waits.",
    limits={"minimum": 1, "maximum": MOST_TIMEOUT},
    place="header",
)
_JSON_LENGTH = Parameter(
    LENGTH_HEADER, "integer", "Bytes of the JSON, if binary tensors follow it.", limits={"minimum": 0}, place="header"
)


def _prediction(
    path: str,
    operation_id: str,
    summary: str,
    body: str = "",
    operation: Operation = Operation.PREDICT,
    fast: bool = False,
) -> tuple[Route, Route]:
    """Return a route that predicts, and the description of its calls."""
    parameters = (_TIMEOUT, _JSON_LENGTH) if body == "InferRequest" else (_TIMEOUT,)
    return (
        Route(
            path,
            "post",
            operation_id,
            summary,
            _PREDICTION,
            operation,
            parameters,
            body,
            "",
            any_method=True,
            fast=fast,
        ),
        Route(
            path,
            "options",
            f"{operation_id}Description",
            "Describe the calls of this model.",
            {**DESCRIPTION, **KNOWN},
            Operation.INSPECT_MODELS,
            result="Description",
            bound=False,
        ),
    )


_ANY = "Any method will do."

_V2_MODEL = "/v2/models/{model_name}"
_V2_VERSION = f"{_V2_MODEL}/versions/{{model_version}}"

PING = Route(
    "/ping",
    "get",
    "ping",
    "Whether the models have workers.",
    {200: "Healthy.", **REFUSED, 500: "Unhealthy."},
    Operation.CHECK_HEALTH,
    plain=(500,),
    rest="path",
    any_method=True,
    fast=True,
)

INFERENCE = (
    *_prediction("/predictions/{model_name}", "predictions", f"Predict with the default version. {_ANY}", fast=True),
    *_prediction(
        "/predictions/{model_name}/{model_version}", "version_predictions", f"Predict with a version. {_ANY}", fast=True
    ),
    *_prediction(
        "/predictions/{model_name}/{model_version}/{url_path}",
        "path_predictions",
        f"Predict with a version, whose handler sees the rest of the path, slashes included. {_ANY}",
        fast=True,
    ),
    *_prediction(
        "/explanations/{model_name}",
        "explanations",
        f"Have the default version explain itself. {_ANY}",
        operation=Operation.EXPLAIN,
    ),
    *_prediction(
        "/explanations/{model_name}/{model_version}",
        "version_explanations",
        f"Have a version explain itself. {_ANY}",
        operation=Operation.EXPLAIN,
    ),
    *_prediction(
        "/explanations/{model_name}/{model_version}/{url_path}",
        "path_explanations",
        f"Have a version explain itself; its handler sees the rest of the path, slashes included. {_ANY}",
        operation=Operation.EXPLAIN,
    ),
    *_prediction(
        "/invocations",
        "invocations",
        "Predict with the model that the query, the start-up list or the form names (model_name); "
        f"query parameters are inputs. {_ANY}",
    ),
    *_prediction(
        "/models/{model_name}/invoke",
        "invoke",
        f"Predict with the default version; query parameters are inputs. {_ANY}",
    ),
    *_prediction(
        "/{model_name}/predict",
        "legacy_predictions",
        f"Predict with the default version, as old clients do; query parameters are inputs. {_ANY}",
    ),
    *_prediction(
        "/{model_name}/{model_version}/predict",
        "legacy_version_predictions",
        f"Predict with a version, as old clients do; query parameters are inputs. {_ANY}",
    ),
    *_prediction("/v1/models/{model_name}:predict", "v1_predict", f"Predict, as KServe's version 1 has it. {_ANY}"),
    *_prediction(
        "/v1/models/{model_name}:explain",
        "v1_explain",
        f"Explain, as KServe's version 1 has it. {_ANY}",
        operation=Operation.EXPLAIN,
    ),
    *_prediction("/v2/models/{model_name}/infer", "v2_infer", f"Infer from tensors. {_ANY}", "InferRequest"),
    *_prediction(
        "/v2/models/{model_name}/explain",
        "v2_explain",
        f"Explain from tensors. {_ANY}",
        "InferRequest",
        Operation.EXPLAIN,
    ),
)

READINESS = (
    Route(
        "/v2/health/live",
        "get",
        "v2_live",
        "Whether the process answers.",
        {200: "It does.", **REFUSED},
        Operation.CHECK_HEALTH,
        any_method=True,
        result="Members",
    ),
    Route(
        "/v2/health/ready",
        "get",
        "v2_ready",
        "Whether every start-up model has its workers.",
        {200: "They are loaded.", **REFUSED, 503: "Not yet, or no more."},
        Operation.CHECK_HEALTH,
        any_method=True,
        result="Members",
        plain=(503,),
    ),
    *(
        Route(
            f"{path}/ready",
            "get",
            f"v2_{prefix}model_ready",
            "Whether a version has its workers.",
            {200: "They are loaded.", **KNOWN, 503: "Not yet, or no more."},
            Operation.INSPECT_MODELS,
            result="Members",
            plain=(503,),
        )
        for prefix, path in (("", _V2_MODEL), ("version_", _V2_VERSION))
    ),
)

OPEN_INFERENCE = (
    Route(
        "/v2",
        "get",
        "v2_server",
        "What this server is.",
        {200: "Name, version, extensions.", **REFUSED},
        Operation.CHECK_HEALTH,
        any_method=True,
        result="Members",
    ),
    *(
        route
        for prefix, path in (("", _V2_MODEL), ("version_", _V2_VERSION))
        for route in (
            Route(
                path,
                "get",
                f"v2_{prefix}model",
                "The versions of a model.",
                {200: "Name, versions, platform.", **KNOWN},
                Operation.INSPECT_MODELS,
                result="Members",
            ),
        )
    ),
    *_prediction(
        f"{_V2_VERSION}/infer",
        "v2_version_infer",
        f"Infer from tensors with a version. {_ANY}",
        "InferRequest",
    ),
    *_prediction(
        f"{_V2_VERSION}/explain",
        "v2_version_explain",
        f"Explain from tensors with a version. {_ANY}",
        "InferRequest",
        Operation.EXPLAIN,
    ),
)


def predictions_of_model(model: str) -> Iterable[Route]:
    """Return the routes that predict with a model, with its name in their paths."""
    for path, body in (
        (f"/predictions/{model}", ""),
        (f"/explanations/{model}", ""),
        (f"/v1/models/{model}:predict", ""),
        (f"/v2/models/{model}/infer", "InferRequest"),
    ):
        yield _prediction(path, f"{model}_{path.split('/')[1]}", f"Call {model}. {_ANY}", body)[0]
