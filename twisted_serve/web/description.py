# SPDX-License-Identifier: Apache-2.0
"""
This module implements the API description: an OpenAPI 3.0.1 document of what a listener serves.
"""

from __future__ import annotations

from typing import Any

from attrs import evolve, frozen

from twisted_serve.web.doors import Role


@frozen
class Operation:
    """
    One route, as it is described.

    :ivar method: ``get``, ``post``, ``put``, ``delete`` or ``options``.
    :ivar answers: What each status code means.
    :ivar query: The query parameters with their types and meanings.
    :ivar key: Which security scheme it needs; ``None`` for an open one.
    """

    path: str
    method: str
    operation_id: str
    summary: str
    answers: dict[int, str]
    key: str | None = None
    query: tuple[tuple[str, str, str], ...] = ()
    takes_body: bool = False


_REFUSED = "The token is missing, wrong or expired, or the request cannot be understood."

_PROBES = (
    Operation("/", "options", "apiDescription", "This description.", {200: "The description."}),
    Operation("/api-description", "get", "api-description", "This description.", {200: "The description."}),
    Operation("/livez", "get", "live", "Whether the process answers.", {200: "It does."}),
    Operation(
        "/readyz",
        "get",
        "ready",
        "Whether every start-up model has its workers.",
        {200: "They are loaded.", 503: "Not yet, or no more."},
    ),
)

_PREDICTION = {
    200: "The handler's answer; it may choose another code.",
    400: _REFUSED,
    404: "No such model or version.",
    413: "The body is too large.",
    500: "The worker died.",
    503: "No worker can take the request, or the handler failed.",
    507: "The handler ran out of memory.",
}

_INFERENCE = (
    Operation(
        "/ping",
        "get",
        "ping",
        "Whether the models have workers.",
        {200: "Healthy.", 400: _REFUSED, 500: "Unhealthy."},
        key="inference",
    ),
    Operation(
        "/predictions/{model_name}",
        "post",
        "predictions",
        "Predict with the default version; any method will do.",
        _PREDICTION,
        key="inference",
        takes_body=True,
    ),
    Operation(
        "/predictions/{model_name}/{model_version}",
        "post",
        "version_predictions",
        "Predict with a version; any method will do.",
        _PREDICTION,
        key="inference",
        takes_body=True,
    ),
)

_KNOWN = {400: _REFUSED, 404: "No such model or version."}
_SCALING = (
    ("min_worker", "integer", "Workers to keep running; 1 if not given."),
    ("max_worker", "integer", "The most workers; as many as min_worker if not given."),
    ("synchronous", "boolean", "Whether the answer waits for the workers; false if not given."),
)


def _versioned(
    method: str, operation_id: str, summary: str, answers: dict[int, str], query: tuple[tuple[str, str, str], ...] = ()
) -> tuple[Operation, Operation]:
    return (
        Operation("/models/{model_name}", method, operation_id, summary, answers, "management", query),
        Operation(
            "/models/{model_name}/{model_version}",
            method,
            f"version_{operation_id}",
            summary,
            answers,
            "management",
            query,
        ),
    )


_MANAGEMENT = (
    Operation(
        "/models",
        "get",
        "listModels",
        "List the models by name.",
        {200: "A page of the list.", 400: _REFUSED},
        key="management",
        query=(
            ("limit", "integer", "Models on a page, at most 100."),
            ("next_page_token", "integer", "Where to go on."),
        ),
    ),
    Operation(
        "/models",
        "post",
        "registerModel",
        "Register a model version.",
        {
            200: "Registered, and its workers are loaded.",
            202: "Registered, and its workers are starting.",
            400: _REFUSED,
            404: "Nothing that may be registered is there.",
            405: "The model API is switched off.",
            409: "This version is registered already.",
            500: "Its workers could not be started.",
            507: "Its workers ran out of memory.",
        },
        key="management",
        query=(
            ("url", "string", "Where the archive is."),
            ("model_name", "string", "The name, if not the archive's."),
            ("handler", "string", "The handler, if not the archive's."),
            ("runtime", "string", "python or python3."),
            ("batch_size", "integer", "The most requests in one call of the handler."),
            ("max_batch_delay", "integer", "Milliseconds that a batch may wait to fill."),
            ("initial_workers", "integer", "Workers to start."),
            ("response_timeout", "integer", "Seconds that a worker has for an answer."),
            ("startup_timeout", "integer", "Seconds that a worker has to load."),
            ("synchronous", "boolean", "Whether the answer waits for the workers; true if not given."),
        ),
    ),
    *_versioned(
        "get", "describeModel", "Describe a version, or every one for the version all.", {200: "Its members.", **_KNOWN}
    ),
    *_versioned(
        "put",
        "setAutoScale",
        "Change the number of workers.",
        {200: "Done.", 202: "Begun.", **_KNOWN, 500: "The workers could not be started."},
        _SCALING,
    ),
    *_versioned(
        "delete",
        "unregisterModel",
        "Unregister a version.",
        {200: "Done.", 403: "It is the default one of several.", 405: "The model API is switched off.", **_KNOWN},
    ),
    Operation(
        "/models/{model_name}/{model_version}/set-default",
        "put",
        "setDefault",
        "Make a version the default one.",
        {200: "Done.", **_KNOWN},
        key="management",
    ),
    Operation(
        "/token",
        "post",
        "replaceToken",
        "Replace the management or the inference key; GET does the same.",
        {200: "The new key and when it expires.", 400: _REFUSED, 500: "The key file cannot be written."},
        key="API",
        query=(("type", "string", "management or inference."),),
    ),
)

_METRICS = (
    Operation(
        "/metrics",
        "get",
        "metrics",
        "The metrics in Prometheus' text format.",
        {200: "The metrics."},
        query=(("name[]", "string", "A metric to choose; may be repeated."),),
    ),
)

_OPERATIONS = {Role.INFERENCE: _INFERENCE, Role.MANAGEMENT: _MANAGEMENT, Role.METRICS: _METRICS}


def operations_of(
    roles: Role, tokens: bool, guarded_metrics: bool = False, exempt_ping: bool = False
) -> tuple[Operation, ...]:
    """
    Return what a listener with these roles serves.

    :param tokens: Whether there are tokens to replace.
    :param guarded_metrics: Whether it serves metrics to who has the management key.
    :param exempt_ping: Whether ``/ping`` needs no key.
    """
    operations = _PROBES + tuple(op for role, some in _OPERATIONS.items() if roles & role for op in some)
    if guarded_metrics:
        operations += tuple(evolve(operation, key="management") for operation in _METRICS)
    if exempt_ping:
        operations = tuple(evolve(op, key=None) if op.path == "/ping" else op for op in operations)
    return tuple(operation for operation in operations if tokens or operation.key != "API")


def describe_api(
    roles: Role, version: str, tokens: bool, guarded_metrics: bool = False, exempt_ping: bool = False
) -> dict[str, Any]:
    """
    Write the OpenAPI document of a listener.

    :param tokens: Whether token authorization is on; the others as for `operations_of`.
    """
    paths: dict[str, dict[str, Any]] = {}
    keys = set()
    for operation in operations_of(roles, tokens, guarded_metrics, exempt_ping):
        paths.setdefault(operation.path, {})[operation.method] = _describe(operation, tokens)
        if tokens and operation.key is not None:
            keys.add(operation.key)
    document: dict[str, Any] = {
        "openapi": "3.0.1",
        "info": {
            "title": "TorchServe APIs",
            "description": "Served by twisted_serve: serving of PyTorch models over HTTP.",
            "version": version,
        },
        "paths": paths,
    }
    if keys:
        document["components"] = {
            "securitySchemes": {key: {"type": "http", "scheme": "bearer"} for key in sorted(keys)}
        }
    return document


def _describe(operation: Operation, tokens: bool) -> dict[str, Any]:
    parameters = [
        {"in": "path", "name": name, "required": True, "schema": {"type": "string"}}
        for name in ("model_name", "model_version")
        if f"{{{name}}}" in operation.path
    ]
    parameters += [
        {"in": "query", "name": name, "description": meaning, "schema": {"type": kind}}
        for name, kind, meaning in operation.query
    ]
    described: dict[str, Any] = {"operationId": operation.operation_id, "summary": operation.summary}
    if parameters:
        described["parameters"] = parameters
    if operation.takes_body:
        described["requestBody"] = {"content": {"*/*": {"schema": {"type": "string", "format": "binary"}}}}
    described["responses"] = {str(code): {"description": meaning} for code, meaning in operation.answers.items()}
    if tokens and operation.key is not None:
        described["security"] = [{operation.key: []}]
    return described
