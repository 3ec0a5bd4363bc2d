# SPDX-License-Identifier: Apache-2.0
"""
Bind endpoint functions to routes of ``web.api`` by operation id.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import wraps
from typing import TYPE_CHECKING, TypeAlias, TypeVar

from twisted.internet.defer import Deferred

from twisted_serve.web.api.route import Route
from twisted_serve.web.api.template import REST
from twisted_serve.web.http.request import ServeRequest
from twisted_serve.web.http.responses import Body
from twisted_serve.web.routing.fast_path import FastRoute

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from typing import Any

#: The functions that make responses, by operation id. Klein passes them the request and the variable segments by name:
#: ``model``, ``version``, ``workflow``, ``key`` and ``rest``.
Endpoints: TypeAlias = "Mapping[str, Callable[..., Body | Deferred[Body] | Coroutine[Deferred[Any], Any, Body]]]"

#: Those that return no coroutine, which Klein alone awaits.
FastEndpoints: TypeAlias = "Mapping[str, Callable[..., Body | Deferred[Body]]]"

_T = TypeVar("_T")

_CONVERTERS = {
    "{model_name}": "<model>",
    "{model_version}": "<version>",
    "{workflow_name}": "<workflow>",
    "{key_name}": "<key>",
    "{url_path}": "<rest:rest>",
}


def held_to_operations(
    endpoints: Mapping[str, Callable[..., _T]], routes: Sequence[Route], application: bool
) -> dict[str, Callable[..., _T]]:
    """
    Return endpoints that do no more than what was authorized, with the names in its path.

    That is the operation about which an application's authorizer was asked, or for which a named key was checked. Both
    come from the same routes; hence a request that is refused here is a defect, not a bad request.

    :param application: Whether an application's authorizer decides; else only requests with named keys are checked.
    """
    return {
        route.operation_id: _held(endpoints[route.operation_id], route, routes, application)
        for route in routes
        if route.operation_id in endpoints
    }


def _held(endpoint: Callable[..., _T], route: Route, routes: Sequence[Route], application: bool) -> Callable[..., _T]:
    operations = {route.method: route.operation} | {
        other.method: other.operation for other in routes if other.path == route.path and not other.bound
    }

    @wraps(endpoint)
    def call(request: ServeRequest, *arguments: str, **named: str) -> _T:
        sender = request.sender
        if application or sender is not None:
            expected = operations.get(request.method.decode("latin-1").lower(), route.operation)
            if request.operation is not expected:
                raise RuntimeError(f"{route.operation_id} is {expected}, but {request.operation} was authorized")
        if sender is not None and (need := sender.allowed.need) is not None:
            seen = named.get("model", named.get("workflow", next(iter(arguments), None)))
            if seen != need.model:
                raise RuntimeError(f"{route.operation_id} is of {seen!r}, but {need.model!r} was authorized")
        return endpoint(request, *arguments, **named)

    return call


def require_endpoints(routes: Iterable[Route], endpoints: Endpoints) -> None:
    """
    Check that each route has an endpoint.

    :raise KeyError: for a route without one.
    """
    for route in routes:
        if route.bound and route.operation_id not in endpoints:
            raise KeyError(route.operation_id)


def rules_of(route: Route) -> Iterator[str]:
    """Return Klein's rules of a route."""
    rule = route.path
    for parameter, converter in _CONVERTERS.items():
        rule = rule.replace(parameter, converter)
    if route.unmarked:
        rule = rule.replace("<model>", "<unmarked:model>")
    rules = [rule]
    if route.any_case:
        # The rule with the word as it is described has to be there as well: a literal comes before a parameter.
        rules.append(f"/<any_case({route.first}):word>{rule.removeprefix(f'/{route.first}')}")
    for each in rules:
        yield each
        if route.rest:
            yield f"{each}/<{route.rest}:rest>"


def fast_routes(routes: Iterable[Route], endpoints: FastEndpoints) -> dict[str, FastRoute]:
    """Return the fast ones of these routes by their first segment; all with the same one have the same endpoint."""
    lengths: dict[str, list[int]] = {}
    functions = {}
    for route in routes:
        if route.fast and route.bound and route.first is not None:
            single = sum(piece.parameter != REST for piece in route.pieces[1:])
            lengths.setdefault(route.first, []).append(single)
            functions[route.first] = endpoints[route.operation_id]
    return {
        first: FastRoute(functions[first], named=max(counts), needed=min(counts)) for first, counts in lengths.items()
    }
