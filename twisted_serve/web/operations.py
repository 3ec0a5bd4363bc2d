# SPDX-License-Identifier: Apache-2.0
"""
This module implements the table of all operations: what each route does, takes and answers, and which key it needs.

It is what the API description is written from; a test holds it against the real routes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from attrs import evolve, field, frozen

from twisted_serve.openinference.requests import LENGTH_HEADER
from twisted_serve.web.deadlines import MOST_TIMEOUT, TIMEOUT_HEADER
from twisted_serve.web.doors import Role


@frozen
class Parameter:
    """
    A parameter which is not in the path.

    :ivar kind: ``string``, ``integer`` or ``boolean``.
    :ivar limits: What else its schema says: ``default``, ``enum``, ``minimum``, ``maximum``.
    :ivar place: ``query`` or ``header``.
    """

    name: str
    kind: str
    meaning: str
    required: bool = False
    limits: Mapping[str, Any] = field(factory=dict)
    place: str = "query"


@frozen
class Operation:
    """
    One route, as it is described.

    :ivar method: ``get``, ``post``, ``put``, ``delete`` or ``options``.
    :ivar answers: What each status code means.
    :ivar key: Which security scheme it needs; ``None`` for an open one.
    :ivar body: What it takes: a schema's name, ``""`` for anything, ``None`` for nothing.
    :ivar result: What it answers below 400, as ``body``; or a media type.
    :ivar plain: The codes from 400 up which are answered with ``result``, too.
    """

    path: str
    method: str
    operation_id: str
    summary: str
    answers: Mapping[int, str]
    key: str | None = None
    parameters: tuple[Parameter, ...] = ()
    body: str | None = None
    result: str = "Status"
    plain: tuple[int, ...] = ()


@frozen
class Surface:
    """
    What a listener shows.

    :ivar tokens: Whether token authorization is on.
    :ivar guarded_metrics: Whether it serves metrics to who has the management key.
    :ivar exempt_ping: Whether ``/ping`` needs no key.
    :ivar open_inference: Whether it has the extras of the Open Inference Protocol.
    """

    roles: Role
    tokens: bool
    guarded_metrics: bool = False
    exempt_ping: bool = False
    open_inference: bool = False


_REFUSED = {400: "The token is missing, wrong or expired, or the request cannot be understood."}
_KNOWN = {**_REFUSED, 404: "No such model or version."}
_DESCRIPTION = {200: "The description."}

_PUBLIC = (
    Operation("/", "options", "apiDescription", "This description.", _DESCRIPTION, result="Description"),
    Operation("/api-description", "get", "api-description", "This description.", _DESCRIPTION, result="Description"),
    Operation("/docs", "get", "docs", "This description, as a page to read.", {200: "The page."}, result="text/html"),
    Operation("/livez", "get", "live", "Whether the process answers.", {200: "It does."}),
    Operation(
        "/readyz",
        "get",
        "ready",
        "Whether every start-up model has its workers.",
        {200: "They are loaded.", 503: "Not yet, or no more."},
        plain=(503,),
    ),
)

_PREDICTION = {
    200: "The handler's answer; it may choose another code.",
    **_KNOWN,
    408: "There was no answer in the time which the model gives its clients.",
    413: "The body is too large.",
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


def _prediction(path: str, operation_id: str, summary: str, body: str = "") -> tuple[Operation, Operation]:
    """Describe a route which predicts, and what it says of itself."""
    parameters = (_TIMEOUT, _JSON_LENGTH) if body == "InferRequest" else (_TIMEOUT,)
    return (
        Operation(path, "post", operation_id, summary, _PREDICTION, "inference", parameters, body, ""),
        Operation(
            path,
            "options",
            f"{operation_id}Description",
            "Describe the calls of this model.",
            {**_DESCRIPTION, **_KNOWN},
            "inference",
            result="Description",
        ),
    )


_ANY = "Any method will do."

_INFERENCE = (
    Operation(
        "/ping",
        "get",
        "ping",
        "Whether the models have workers.",
        {200: "Healthy.", **_REFUSED, 500: "Unhealthy."},
        "inference",
        plain=(500,),
    ),
    *_prediction("/predictions/{model_name}", "predictions", f"Predict with the default version. {_ANY}"),
    *_prediction("/predictions/{model_name}/{model_version}", "version_predictions", f"Predict with a version. {_ANY}"),
    *_prediction(
        "/predictions/{model_name}/{model_version}/{url_path}",
        "path_predictions",
        f"Predict with a version, whose handler sees the rest of the path, slashes included. {_ANY}",
    ),
    *_prediction("/explanations/{model_name}", "explanations", f"Have the default version explain itself. {_ANY}"),
    *_prediction(
        "/explanations/{model_name}/{model_version}", "version_explanations", f"Have a version explain itself. {_ANY}"
    ),
    *_prediction(
        "/explanations/{model_name}/{model_version}/{url_path}",
        "path_explanations",
        f"Have a version explain itself; its handler sees the rest of the path, slashes included. {_ANY}",
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
    *_prediction("/v1/models/{model_name}:explain", "v1_explain", f"Explain, as KServe's version 1 has it. {_ANY}"),
    *_prediction("/v2/models/{model_name}/infer", "v2_infer", f"Infer from tensors. {_ANY}", "InferRequest"),
    *_prediction("/v2/models/{model_name}/explain", "v2_explain", f"Explain from tensors. {_ANY}", "InferRequest"),
)

_V2_MODEL = "/v2/models/{model_name}"
_V2_VERSION = f"{_V2_MODEL}/versions/{{model_version}}"

_OPEN_INFERENCE = (
    Operation(
        "/v2",
        "get",
        "v2_server",
        "What this server is.",
        {200: "Name, version, extensions.", **_REFUSED},
        "inference",
        result="Members",
    ),
    Operation(
        "/v2/health/live",
        "get",
        "v2_live",
        "Whether the process answers.",
        {200: "It does.", **_REFUSED},
        "inference",
        result="Members",
    ),
    Operation(
        "/v2/health/ready",
        "get",
        "v2_ready",
        "Whether every start-up model has its workers.",
        {200: "They are loaded.", **_REFUSED, 503: "Not yet, or no more."},
        "inference",
        result="Members",
        plain=(503,),
    ),
    *(
        operation
        for prefix, path in (
            ("", "/v2/models/{model_name}"),
            ("version_", "/v2/models/{model_name}/versions/{model_version}"),
        )
        for operation in (
            Operation(
                path,
                "get",
                f"v2_{prefix}model",
                "The versions of a model.",
                {200: "Name, versions, platform.", **_KNOWN},
                "inference",
                result="Members",
            ),
            Operation(
                f"{path}/ready",
                "get",
                f"v2_{prefix}model_ready",
                "Whether a version has its workers.",
                {200: "They are loaded.", **_KNOWN, 503: "Not yet, or no more."},
                "inference",
                result="Members",
                plain=(503,),
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
    ),
)

_SCALING = (
    Parameter("min_worker", "integer", "Workers to keep running.", limits={"default": 1, "minimum": 0}),
    Parameter("max_worker", "integer", "The most workers; as many as min_worker if not given.", limits={"minimum": 0}),
    Parameter("synchronous", "boolean", "Whether the answer waits for the workers.", limits={"default": False}),
)

_CUSTOMIZED = (Parameter("customized", "boolean", "Whether the handler is asked, too.", limits={"default": False}),)

_STARTED = {
    202: "Begun.",
    206: "Done in part.",
    500: "The workers could not be started.",
    507: "The workers ran out of memory.",
}


def _versioned(
    method: str,
    operation_id: str,
    summary: str,
    answers: Mapping[int, str],
    parameters: tuple[Parameter, ...] = (),
    result: str = "Status",
) -> tuple[Operation, Operation]:
    whole = Operation(
        "/models/{model_name}", method, operation_id, summary, answers, "management", parameters, None, result
    )
    return whole, evolve(whole, path=f"{whole.path}/{{model_version}}", operation_id=f"version_{operation_id}")


_MODELS = (
    *_versioned(
        "get",
        "describeModel",
        "Describe a version, or every one for the version all.",
        {200: "Its members.", **_KNOWN, 500: "The handler failed.", 503: "No worker can describe the model."},
        _CUSTOMIZED,
        "Descriptions",
    ),
    *_versioned(
        "put",
        "setAutoScale",
        "Change the number of workers.",
        {200: "Done.", **_KNOWN, **_STARTED},
        _SCALING,
    ),
    *_versioned(
        "delete",
        "unregisterModel",
        "Unregister a version.",
        {200: "Done.", 403: "It is the default one of several.", 405: "The model API is switched off.", **_KNOWN},
    ),
    *_versioned(
        "options",
        "modelDescription",
        "Describe the calls which manage this model.",
        {**_DESCRIPTION, **_KNOWN},
        result="Description",
    ),
    Operation(
        "/models/{model_name}/{model_version}/set-default",
        "put",
        "setDefault",
        "Make a version the default one.",
        {200: "Done.", **_KNOWN},
        "management",
    ),
)

_MANAGEMENT = (
    Operation(
        "/models",
        "get",
        "listModels",
        "List the models by name.",
        {200: "A page of the list.", **_REFUSED},
        "management",
        (
            Parameter(
                "limit",
                "integer",
                "Models on a page.",
                limits={"default": 100, "minimum": 1, "maximum": 100},
            ),
            Parameter("next_page_token", "integer", "Where to go on: what the last page said.", limits={"default": 0}),
        ),
        result="Models",
    ),
    Operation(
        "/models",
        "post",
        "registerModel",
        "Register a model version. The parameters may be a JSON object in the body instead.",
        {
            200: "Registered, and its workers are loaded.",
            **_STARTED,
            **_REFUSED,
            404: "Nothing that may be registered is there.",
            405: "The model API is switched off.",
            409: "This version is registered already.",
        },
        "management",
        (
            Parameter("url", "string", "Where the archive is.", required=True),
            Parameter("model_name", "string", "The name, if not the archive's."),
            Parameter("handler", "string", "The handler, if not the archive's."),
            Parameter(
                "runtime", "string", "The runtime, if not the archive's.", limits={"enum": ["python", "python3"]}
            ),
            Parameter("batch_size", "integer", "The most requests in one call of the handler.", limits={"minimum": 1}),
            Parameter(
                "max_batch_delay", "integer", "Milliseconds that a batch may wait to fill.", limits={"minimum": 0}
            ),
            Parameter("initial_workers", "integer", "Workers to start.", limits={"minimum": 0}),
            Parameter("response_timeout", "integer", "Seconds that a worker has for an answer.", limits={"minimum": 0}),
            Parameter("startup_timeout", "integer", "Seconds that a worker has to load.", limits={"minimum": 0}),
            Parameter("synchronous", "boolean", "Whether the answer waits for the workers.", limits={"default": True}),
        ),
    ),
    *_MODELS,
    Operation(
        "/v1/models",
        "get",
        "v1_models",
        "List the models, as KServe's version 1 has it.",
        {200: "Their names.", **_REFUSED},
        "management",
        result="Members",
    ),
    Operation(
        "/v1/models/{model_name}",
        "get",
        "v1_model_ready",
        "Whether the default version has its workers, as KServe's version 1 has it.",
        {200: "Yes or no.", **_KNOWN},
        "management",
        result="Members",
    ),
    Operation(
        "/token",
        "post",
        "replaceToken",
        "Replace the management or the inference key; GET does the same.",
        {200: "The new key and when it expires.", **_REFUSED, 500: "The key file cannot be written."},
        "API",
        (Parameter("type", "string", "Which one.", required=True, limits={"enum": ["management", "inference"]}),),
        result="Members",
    ),
)

_METRICS = (
    Operation(
        "/metrics",
        "get",
        "metrics",
        "The metrics in Prometheus' text format.",
        {200: "The metrics."},
        parameters=(Parameter("name[]", "string", "A metric to choose; may be repeated."),),
        result="text/plain",
    ),
)

_OPERATIONS = {Role.INFERENCE: _INFERENCE, Role.MANAGEMENT: _MANAGEMENT, Role.METRICS: _METRICS}


def operations_of(surface: Surface) -> tuple[Operation, ...]:
    """Return what a listener serves."""
    operations = _PUBLIC + tuple(op for role, some in _OPERATIONS.items() if surface.roles & role for op in some)
    if surface.open_inference and surface.roles & Role.INFERENCE:
        operations += _OPEN_INFERENCE
    if surface.guarded_metrics:
        operations += tuple(evolve(operation, key="management") for operation in _METRICS)
    if surface.exempt_ping:
        operations = tuple(evolve(op, key=None) if op.path == "/ping" else op for op in operations)
    return tuple(operation for operation in operations if surface.tokens or operation.key != "API")


def management_of_model() -> Iterable[Operation]:
    """Return what manages one model."""
    return _MODELS


def predictions_of_model(model: str) -> Iterable[Operation]:
    """Return what predicts with one model, by its name."""
    for path, body in (
        (f"/predictions/{model}", ""),
        (f"/explanations/{model}", ""),
        (f"/v1/models/{model}:predict", ""),
        (f"/v2/models/{model}/infer", "InferRequest"),
    ):
        yield _prediction(path, f"{model}_{path.split('/')[1]}", f"Call {model}. {_ANY}", body)[0]
