# SPDX-License-Identifier: Apache-2.0
"""
List the routes of the management listener.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from attrs import evolve

from twisted_serve.auth.scopes import Operation
from twisted_serve.web.api.route import DESCRIPTION, KNOWN, PAGING, REFUSED, SWITCHED_OFF, Parameter, Route

_SCALING = (
    Parameter("min_worker", "integer", "Workers to keep running.", limits={"default": 1, "minimum": 0}),
    Parameter("max_worker", "integer", "The most workers; as many as min_worker if not given.", limits={"minimum": 0}),
    Parameter("synchronous", "boolean", "Whether the answer waits for the workers.", limits={"default": False}),
)

_CUSTOMIZED = (Parameter("customized", "boolean", "Whether the handler is asked, too.", limits={"default": False}),)

_STARTED = {
    202: "Begun.",
    500: "The workers could not be started.",
    507: "The workers ran out of memory.",
}


def _versioned(
    method: str,
    operation: Operation,
    operation_id: str,
    summary: str,
    answers: Mapping[int, str],
    parameters: tuple[Parameter, ...] = (),
    result: str = "Status",
) -> tuple[Route, Route]:
    whole = Route("/models/{model_name}", method, operation_id, summary, answers, operation, parameters, None, result)
    return whole, evolve(whole, path=f"{whole.path}/{{model_version}}", operation_id=f"version_{operation_id}")


_MODELS = (
    *_versioned(
        "get",
        Operation.DESCRIBE_MODEL,
        "describeModel",
        "Describe a version, or every one for the version all.",
        {200: "Its members.", **KNOWN, 500: "The handler failed.", 503: "No worker can describe the model."},
        _CUSTOMIZED,
        "Descriptions",
    ),
    *_versioned(
        "put",
        Operation.SCALE_MODEL,
        "setAutoScale",
        "Change the number of workers.",
        {200: "Done.", **KNOWN, **_STARTED},
        _SCALING,
    ),
    *_versioned(
        "delete",
        Operation.UNREGISTER_MODEL,
        "unregisterModel",
        "Unregister a version.",
        {200: "Done.", 403: "It is the default one of several.", **SWITCHED_OFF, **KNOWN},
    ),
    *_versioned(
        "options",
        Operation.DESCRIBE_MODEL,
        "modelDescription",
        "Describe the calls which manage this model.",
        {**DESCRIPTION, **KNOWN},
        result="Description",
    ),
    Route(
        "/models/{model_name}/{model_version}/set-default",
        "put",
        "setDefault",
        "Make a version the default one.",
        {200: "Done.", **KNOWN},
        Operation.SET_DEFAULT_VERSION,
    ),
)

V1_MODELS = (
    Route(
        "/v1/models",
        "get",
        "v1_models",
        "List the models, as KServe's version 1 has it.",
        {200: "Their names.", **REFUSED},
        Operation.LIST_MODELS,
        result="Members",
    ),
    Route(
        "/v1/models/{model_name}",
        "get",
        "v1_model_ready",
        "Whether the default version has its workers, as KServe's version 1 has it.",
        {200: "Yes or no.", **KNOWN},
        Operation.DESCRIBE_MODEL,
        result="Members",
    ),
)

_REPLACE_KEY = Route(
    "/token",
    "post",
    "replaceToken",
    "Replace the management or the inference key; GET does the same.",
    {
        200: "The new key and when it expires.",
        **REFUSED,
        409: "The key is given by the operator, and replaced where it is given.",
        500: "The key file cannot be written.",
    },
    Operation.REPLACE_KEY,
    (Parameter("type", "string", "Which one.", required=True, limits={"enum": ["management", "inference"]}),),
    result="Members",
)

MANAGEMENT = (
    Route(
        "/models",
        "get",
        "listModels",
        "List the models by name.",
        {200: "A page of the list.", **REFUSED},
        Operation.LIST_MODELS,
        PAGING,
        result="Models",
    ),
    Route(
        "/models",
        "post",
        "registerModel",
        "Register a model version. The parameters may be a JSON object in the body instead.",
        {
            200: "Registered, and its workers are loaded.",
            **_STARTED,
            **REFUSED,
            404: "Nothing that may be registered is there.",
            **SWITCHED_OFF,
            409: "This version is registered already.",
        },
        Operation.REGISTER_MODEL,
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
            Parameter("initial_workers", "integer", "Workers to start; below 1 for none."),
            Parameter("response_timeout", "integer", "Seconds that a worker has for an answer.", limits={"minimum": 0}),
            Parameter("startup_timeout", "integer", "Seconds that a worker has to load.", limits={"minimum": 0}),
            Parameter("synchronous", "boolean", "Whether the answer waits for the workers.", limits={"default": True}),
        ),
    ),
    *_MODELS,
    *V1_MODELS,
    _REPLACE_KEY,
    # The response to HEAD would have no body, and the new key would be lost.
    evolve(_REPLACE_KEY, method="get", operation_id="replaceTokenByGet", head=False, described=False),
)


def management_of_model() -> Iterable[Route]:
    """Return the routes that manage one model."""
    return _MODELS
