# SPDX-License-Identifier: Apache-2.0
"""
Describe a listener or one model as an OpenAPI 3.0.1 document.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from twisted_serve import COMPATIBLE_WITH
from twisted_serve.web.api.inference import predictions_of_model
from twisted_serve.web.api.management import management_of_model
from twisted_serve.web.api.route import Parameter, Route, Surface
from twisted_serve.web.api.surface import described_routes

_STRING = {"type": "string"}
_BINARY = {"type": "string", "format": "binary"}
_INTEGER = {"type": "integer", "format": "int32"}


def _object(required: Iterable[str], **members: Mapping[str, Any]) -> dict[str, Any]:
    described: dict[str, Any] = {"type": "object"}
    if needed := list(required):
        described["required"] = needed
    return {**described, "properties": members}


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def _array(of: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": of}


_TENSOR = _object(
    ("name", "shape", "datatype"),
    name=_STRING,
    shape=_array({"type": "integer", "format": "int64"}),
    datatype=_STRING,
    parameters={"type": "object"},
    data=_array({}),
)

_DATE = {"type": "string", "format": "date-time", "nullable": True}
_LIMIT = {"type": "integer", "format": "int32", "minimum": 1, "nullable": True}

# What a request may give of a named key.
_KEY_VALUES = {
    "scopes": _array(_STRING),
    "expires": _DATE,
    "expires_in_sec": {"type": "number", "description": "Instead of expires."},
    "rate": {**_LIMIT, "description": "Requests a minute."},
    "concurrent": {**_LIMIT, "description": "Requests at the same time."},
}
_KEY = _object(
    ("name", "id", "scopes", "created", "expires", "disabled", "rate", "concurrent", "lastUsed"),
    name=_STRING,
    id=_STRING,
    scopes=_array(_STRING),
    created={"type": "string", "format": "date-time"},
    expires=_DATE,
    disabled={"type": "boolean"},
    rate=_LIMIT,
    concurrent=_LIMIT,
    lastUsed=_DATE,
    warnings=_array(_STRING),
)

_SCHEMAS: Mapping[str, Mapping[str, Any]] = {
    "Error": _object(
        ("code", "type", "message"), code=_INTEGER, type=_STRING, message=_STRING, reason=_STRING, error=_STRING
    ),
    "Status": _object(("status",), status=_STRING),
    "Members": {"type": "object"},
    "Description": {"type": "object", "description": "An OpenAPI document."},
    "Descriptions": _array(_object(("modelName", "modelVersion"), modelName=_STRING, modelVersion=_STRING)),
    "Models": _object(
        ("models",),
        nextPageToken=_STRING,
        models=_array(_object(("modelName", "modelUrl"), modelName=_STRING, modelUrl=_STRING)),
    ),
    "WorkflowDescriptions": _array(_object(("workflowName", "workflowUrl"), workflowName=_STRING, workflowUrl=_STRING)),
    "Workflows": _object(
        ("workflows",),
        nextPageToken=_STRING,
        workflows=_array(_object(("workflowName", "workflowUrl"), workflowName=_STRING, workflowUrl=_STRING)),
    ),
    "Keys": _object(("keys",), nextPageToken=_STRING, keys=_array(_KEY)),
    "Key": _KEY,
    "KeyWithSecret": _object((*_KEY["required"], "key"), **_KEY["properties"], key=_STRING),
    "NewKey": _object(("name", "scopes"), name=_STRING, **_KEY_VALUES),
    "KeyChange": _object((), disabled={"type": "boolean"}, **_KEY_VALUES),
    "InferRequest": _object(
        ("inputs",),
        id=_STRING,
        parameters={"type": "object"},
        inputs=_array(_TENSOR),
        outputs=_array({"type": "object"}),
    ),
}

_SECURITY = {
    kind: {"type": "http", "scheme": "bearer", "description": f"The {kind} key of the key file."}
    for kind in ("API", "inference", "management")
}

_PATH_PARAMETERS = {
    "model_name": "The model's name.",
    "model_version": "The version.",
    "workflow_name": "The workflow's name.",
    "key_name": "The key's name.",
    "url_path": "What follows, for the handler.",
}


def describe_api(surface: Surface, version: str) -> dict[str, Any]:
    """Return the document of a listener."""
    info = {
        "title": "TorchServe APIs",
        "description": "Served by twisted_serve: serving of PyTorch models over HTTP.",
        "version": version,
    }
    return _document(info, described_routes(surface), surface.tokens)


def describe_model(model: str, tokens: bool) -> dict[str, Any]:
    """Return the document of the prediction routes of a model."""
    return _document({"title": f"RESTful API for: {model}", "version": "1.0.0"}, predictions_of_model(model), tokens)


def describe_model_management(model: str, tokens: bool) -> dict[str, Any]:
    """Return the document of the management routes of a model."""
    info = {"title": f"RESTful Management API for: {model}", "version": COMPATIBLE_WITH}
    return _document(info, management_of_model(), tokens)


def _document(info: Mapping[str, str], routes: Iterable[Route], tokens: bool) -> dict[str, Any]:
    paths: dict[str, dict[str, Any]] = {}
    schemas, keys = {"Error"}, set()
    for route in routes:
        paths.setdefault(route.path, {})[route.method] = _describe(route, tokens)
        schemas |= _SCHEMAS.keys() & {route.body, route.result}
        if tokens and route.scope is not None:
            keys.add(route.scope.value)
    components: dict[str, Any] = {"schemas": {name: _SCHEMAS[name] for name in _SCHEMAS if name in schemas}}
    if keys:
        components["securitySchemes"] = {key: _SECURITY[key] for key in sorted(keys)}
    return {"openapi": "3.0.1", "info": dict(info), "paths": paths, "components": components}


def _describe(route: Route, tokens: bool) -> dict[str, Any]:
    parameters: list[dict[str, Any]] = [
        {"in": "path", "name": name, "description": meaning, "required": True, "schema": _STRING}
        for name, meaning in _PATH_PARAMETERS.items()
        if f"{{{name}}}" in route.path
    ]
    parameters += [_describe_parameter(parameter) for parameter in route.parameters]
    described: dict[str, Any] = {
        "operationId": route.operation_id,
        "summary": route.summary,
        "parameters": parameters,
    }
    if route.body is not None:
        described["requestBody"] = {"content": _content(route.body)}
    described["responses"] = {
        str(code): {"description": meaning, "content": _answer(route, code)}
        for code, meaning in sorted(route.answers.items())
    }
    if route.path == "/api-description":
        described["deprecated"] = True
    if tokens and route.scope is not None:
        described["security"] = [{route.scope.value: []}]
    return described


def _describe_parameter(parameter: Parameter) -> dict[str, Any]:
    return {
        "in": parameter.place,
        "name": parameter.name,
        "description": parameter.meaning,
        "required": parameter.required,
        "schema": {"type": parameter.kind, **parameter.limits},
    }


def _answer(route: Route, code: int) -> dict[str, Any]:
    if code < 400 or code in route.plain:
        return _content(route.result)
    return {"application/json": {"schema": _ref("Error")}}


def _content(what: str) -> dict[str, Any]:
    """Return the content of a body: a named schema, text of a media type, or arbitrary bytes."""
    if what == "InferRequest":
        return {"application/json": {"schema": _ref(what)}, "application/octet-stream": {"schema": _BINARY}}
    if what in _SCHEMAS:
        return {"application/json": {"schema": _ref(what)}}
    return {what: {"schema": _STRING}} if what else {"*/*": {"schema": _BINARY}}
