# SPDX-License-Identifier: Apache-2.0
"""
Handle the routes of workflows: ``/workflows`` and ``/wfpredict`` (``docs/torchserve/rest_api.md`` §12).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from twisted.internet.defer import Deferred
from twisted.web.iweb import IRequest

from twisted_serve.planes.workflows import WorkflowPlane, WorkflowRegistration
from twisted_serve.web.http.deadlines import deadline_of
from twisted_serve.web.http.queries import page_wanted
from twisted_serve.web.http.request import ServeRequest, job_id
from twisted_serve.web.http.responses import Body, answer_json, set_common_headers
from twisted_serve.web.routes.changes import given_parameters, shielded, wanted_number
from twisted_serve.web.routes.predictions import Predictor
from twisted_serve.web.routing.binding import Endpoints


def workflow_management_endpoints(plane: WorkflowPlane) -> Endpoints:
    """Return the endpoints of ``/workflows``."""

    def list_workflows(request: IRequest) -> Body:
        return answer_json(request, 200, plane.list_workflows(*page_wanted(request)))

    def register_workflow(request: IRequest) -> Deferred[Body]:
        # Checked before the body is parsed: without the model API the same error responds to any body.
        plane.check_enabled()
        return shielded(request, plane.register(_registration_of(request)))

    def describe_workflow(request: IRequest, workflow: str) -> Body:
        return answer_json(request, 200, plane.describe(workflow))

    def unregister_workflow(request: IRequest, workflow: str) -> Deferred[Body]:
        return shielded(request, plane.unregister(workflow))

    return {
        "listWorkflows": list_workflows,
        "registerWorkflow": register_workflow,
        "describeWorkflow": describe_workflow,
        "unregisterWorkflow": unregister_workflow,
    }


def workflow_prediction_endpoints(plane: WorkflowPlane, predictor: Predictor) -> Endpoints:
    """Return the endpoint of ``/wfpredict``, which ignores what follows the name of the workflow."""

    async def predict_workflow(request: ServeRequest, workflow: str, word: str = "", rest: str = "") -> Body:
        inputs = await predictor.inputs_of(request)
        answer = await plane.predict(
            workflow, job_id(request), predictor.headers_of(request), inputs, deadline_of(request)
        )
        return _answered(request, answer)

    return {"wfpredict": predict_workflow}


def _answered(request: ServeRequest, answer: bytes | Mapping[str, Any]) -> Body:
    """Respond with the result of a workflow; its content type is JSON even if it is something else."""
    if not isinstance(answer, bytes):
        return answer_json(request, 200, answer)
    set_common_headers(request, 200)
    request.responseHeaders.setRawHeaders(b"Content-Type", [b"application/json"])
    request.responseHeaders.setRawHeaders(b"Content-Length", [b"%d" % len(answer)])
    return answer


def _registration_of(request: IRequest) -> WorkflowRegistration:
    """
    Parse a registration.

    :raise BadRequest: as :func:`given_parameters`.
    """
    given = given_parameters(request)
    return WorkflowRegistration(
        url=given.get("url"),
        workflow_name=given.get("workflow_name"),
        response_timeout=wanted_number(given, "response_timeout", 0),
        startup_timeout=wanted_number(given, "startup_timeout", 0),
    )
