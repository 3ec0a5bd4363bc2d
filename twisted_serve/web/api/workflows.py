# SPDX-License-Identifier: Apache-2.0
"""
List the routes of workflows, on both listeners.
"""

from __future__ import annotations

from twisted_serve.auth.scopes import Operation
from twisted_serve.web.api.route import PAGING, REFUSED, SWITCHED_OFF, Parameter, Route

_KNOWN = {**REFUSED, 404: "No such workflow."}

WORKFLOW_INFERENCE = (
    Route(
        "/wfpredict/{workflow_name}",
        "post",
        "wfpredict",
        "Have a workflow answer. Any method will do.",
        {
            200: "What its last node has answered; of several an object, by their names.",
            **_KNOWN,
            408: "There was no answer in the time which the client gives it.",
            413: "The body is too large.",
            500: "A node failed.",
        },
        Operation.PREDICT_WORKFLOW,
        body="",
        result="Members",
        rest="rest",
        any_method=True,
        any_case=True,
    ),
)

WORKFLOW_MANAGEMENT = (
    Route(
        "/workflows",
        "get",
        "listWorkflows",
        "List the workflows by name.",
        {200: "A page of the list.", **REFUSED},
        Operation.LIST_WORKFLOWS,
        PAGING,
        result="Workflows",
    ),
    Route(
        "/workflows",
        "post",
        "registerWorkflow",
        "Register a workflow, and all its nodes as models. The parameters may be a JSON object in the body instead.",
        {
            200: "Registered, and the workers of all nodes are loaded.",
            **REFUSED,
            404: "Nothing that may be registered is there.",
            **SWITCHED_OFF,
            409: "There is a workflow of this name.",
            500: "The archive is no workflow, or a node could not be registered or started.",
            503: "The server is stopping.",
        },
        Operation.REGISTER_WORKFLOW,
        (
            Parameter("url", "string", "Where the archive is.", required=True),
            Parameter("workflow_name", "string", "The name, if not the archive's."),
            Parameter("response_timeout", "integer", "Seconds that a worker has for an answer.", limits={"minimum": 0}),
            Parameter("startup_timeout", "integer", "Seconds that a worker has to load.", limits={"minimum": 0}),
        ),
    ),
    Route(
        "/workflows/{workflow_name}",
        "get",
        "describeWorkflow",
        "Describe a workflow.",
        {200: "Its members.", **_KNOWN},
        Operation.DESCRIBE_WORKFLOW,
        result="WorkflowDescriptions",
    ),
    Route(
        "/workflows/{workflow_name}",
        "delete",
        "unregisterWorkflow",
        "Unregister a workflow, with all its nodes.",
        {200: "Done.", **_KNOWN, **SWITCHED_OFF},
        Operation.UNREGISTER_WORKFLOW,
    ),
)
