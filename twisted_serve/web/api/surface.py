# SPDX-License-Identifier: Apache-2.0
"""
This module implements the list of a listener's operations; a test holds it against the real routes.
"""

from __future__ import annotations

from attrs import evolve

from twisted_serve.web.api.inference import INFERENCE, OPEN_INFERENCE, READINESS
from twisted_serve.web.api.management import MANAGEMENT, V1_MODELS
from twisted_serve.web.api.route import DESCRIPTION, Operation, Parameter, Surface
from twisted_serve.web.api.workflows import WORKFLOW_INFERENCE, WORKFLOW_MANAGEMENT
from twisted_serve.web.roles import Role

PUBLIC = (
    Operation("/", "options", "apiDescription", "This description.", DESCRIPTION, result="Description"),
    Operation("/api-description", "get", "api-description", "This description.", DESCRIPTION, result="Description"),
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


METRICS = (
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


_OPERATIONS = {
    Role.INFERENCE: (*INFERENCE, *READINESS, *WORKFLOW_INFERENCE),
    Role.MANAGEMENT: (*MANAGEMENT, *WORKFLOW_MANAGEMENT),
    Role.METRICS: METRICS,
}


def operations_of(surface: Surface) -> tuple[Operation, ...]:
    """Return what a listener serves."""
    operations = PUBLIC + tuple(op for role, some in _OPERATIONS.items() if surface.roles & role for op in some)
    if surface.roles & Role.INFERENCE and not surface.roles & Role.MANAGEMENT:
        operations += tuple(evolve(operation, key="inference") for operation in V1_MODELS)
    if surface.open_inference and surface.roles & Role.INFERENCE:
        operations += OPEN_INFERENCE
    if surface.guarded_metrics:
        operations += tuple(evolve(operation, key="management") for operation in METRICS)
    if surface.exempt_ping:
        operations = tuple(evolve(op, key=None) if op.path == "/ping" else op for op in operations)
    return tuple(operation for operation in operations if surface.tokens or operation.key != "API")
