# SPDX-License-Identifier: Apache-2.0
"""
Serve the endpoints of SageMaker's batch transform, as plug-ins that a setting enables.

``plugins=sagemaker-execution-parameters,sagemaker-ping`` in the configuration serves both.
"""

from __future__ import annotations

import json
from typing import Any

from twisted_serve.endpoints import Context, Endpoint, EndpointAnswer, EndpointRequest
from twisted_serve.errors import MethodNotAllowed

_MEGABYTE = 1 << 20


def _answer_execution_parameters(request: EndpointRequest, context: Context) -> EndpointAnswer:
    """Return the limits of a batch transform: as many concurrent requests as there are workers."""
    _only_get(request)
    workers = sum(len(model.workers) for model in context.models if model.default)
    return _json(
        200,
        {
            "MaxConcurrentTransforms": max(1, workers),
            "BatchStrategy": "MULTI_RECORD",
            "MaxPayloadInMB": int(context.settings["max_request_size"]) // _MEGABYTE,
        },
    )


def _answer_ping(request: EndpointRequest, context: Context) -> EndpointAnswer:
    """Respond 200 as soon as a worker of a default version has loaded: from then on, SageMaker sends requests."""
    _only_get(request)
    loaded = any(worker.ready for model in context.models if model.default for worker in model.workers)
    if loaded:
        return _json(200, {"Status": "Healthy"})
    return EndpointAnswer(b"Models are not loaded", 503, {"Content-Type": "text/plain"})


def _only_get(request: EndpointRequest) -> None:
    if request.method not in ("GET", "HEAD"):
        raise MethodNotAllowed(("GET", "HEAD"))


def _json(status: int, value: dict[str, Any]) -> EndpointAnswer:
    body = json.dumps(value, indent="\t").encode("ascii") + b"\n"
    return EndpointAnswer(body, status, {"Content-Type": "application/json"})


execution_parameters = Endpoint("execution-parameters", "inference", _answer_execution_parameters)
ping = Endpoint("ping", "inference", _answer_ping)
