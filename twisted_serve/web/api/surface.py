# SPDX-License-Identifier: Apache-2.0
"""
List the routes of a listener; a test compares them with those of Klein.
"""

from __future__ import annotations

from functools import lru_cache

from attrs import evolve

from twisted_serve.auth.scopes import Operation
from twisted_serve.listening.roles import Role
from twisted_serve.web.api.inference import INFERENCE, OPEN_INFERENCE, PING, READINESS
from twisted_serve.web.api.keys import NAMED_KEYS
from twisted_serve.web.api.management import MANAGEMENT, V1_MODELS
from twisted_serve.web.api.route import DESCRIPTION, Parameter, Route, Surface
from twisted_serve.web.api.workflows import WORKFLOW_INFERENCE, WORKFLOW_MANAGEMENT

PUBLIC = (
    Route(
        "/",
        "options",
        "apiDescription",
        "This description.",
        DESCRIPTION,
        Operation.DESCRIBE_API,
        result="Description",
        exact_method=True,
    ),
    Route(
        "/api-description",
        "get",
        "api-description",
        "This description.",
        DESCRIPTION,
        Operation.DESCRIBE_API,
        any_method=True,
        result="Description",
    ),
    Route(
        "/docs",
        "get",
        "docs",
        "This description, as a page to read.",
        {200: "The page."},
        Operation.DESCRIBE_API,
        result="text/html",
    ),
    Route("/livez", "get", "live", "Whether the process answers.", {200: "It does."}, Operation.PROBE),
    Route(
        "/readyz",
        "get",
        "ready",
        "Whether every start-up model has its workers.",
        {200: "They are loaded.", 503: "Not yet, or no more."},
        Operation.PROBE,
        plain=(503,),
    ),
)

METRICS = (
    Route(
        "/metrics",
        "get",
        "metrics",
        "The metrics in Prometheus' text format.",
        {200: "The metrics."},
        Operation.SCRAPE_METRICS,
        parameters=(Parameter("name[]", "string", "A metric to choose; may be repeated."),),
        result="text/plain",
        rest="path",
        any_method=True,
    ),
)

# The list of models as KServe's version 1 has it is on both listeners, and an operation of each.
_V1_INFERENCE = tuple(evolve(route, operation=Operation.INSPECT_MODELS, unmarked=True) for route in V1_MODELS)


def routes_of(roles: Role, exempt_ping: bool = False) -> tuple[Route, ...]:
    """Return all routes that the settings can give a listener with these roles, the public ones first."""
    routes = list(PUBLIC)
    if roles & Role.INFERENCE:
        if exempt_ping:
            routes += (evolve(PING, operation=Operation.PROBE, rest=""), evolve(PING, described=False))
        else:
            routes.append(PING)
        routes += (*INFERENCE, *READINESS, *WORKFLOW_INFERENCE)
    if roles & Role.MANAGEMENT:
        # Beside predictions a name has no colon: a verb follows it.
        unmarked = bool(roles & Role.INFERENCE)
        routes += (evolve(route, unmarked=unmarked) if route in V1_MODELS else route for route in MANAGEMENT)
        routes += (*WORKFLOW_MANAGEMENT, *NAMED_KEYS)
    if roles & Role.METRICS:
        routes += METRICS
    if roles & Role.INFERENCE:
        if not roles & Role.MANAGEMENT:
            routes += _V1_INFERENCE
        routes += OPEN_INFERENCE
    if roles == Role.INFERENCE | Role.MANAGEMENT:
        routes += (evolve(route, operation=Operation.READ_METRICS) for route in METRICS)
    return tuple(routes)


# Asked for by the listeners of a server, and by those of others in the same process.
@lru_cache(16)
def served_routes(surface: Surface) -> tuple[Route, ...]:
    """Return the routes of a listener."""
    routes = list(routes_of(surface.roles, surface.exempt_ping))
    if not surface.open_inference:
        routes = [route for route in routes if route not in OPEN_INFERENCE]
    absent = set()
    if not surface.guarded_metrics:
        absent.add(Operation.READ_METRICS)
    if not surface.tokens:
        absent |= {Operation.REPLACE_KEY, *(route.operation for route in NAMED_KEYS)}
    return tuple(route for route in routes if route.operation not in absent)


def described_routes(surface: Surface) -> tuple[Route, ...]:
    """Return the routes that the description of a listener has."""
    return tuple(route for route in served_routes(surface) if route.described)


#: The routes of a listener with all roles.
EVERY_ROUTE = routes_of(Role.INFERENCE | Role.MANAGEMENT | Role.METRICS)
