# SPDX-License-Identifier: Apache-2.0
"""
Decide which key each path of a listener needs (``docs/torchserve/rest_api.md`` §16.2).

The routes of ``web.api.surface`` are the only list of paths here, and ``auth.scopes`` of keys. Three rules hold:

* A path without a route needs a key like one that has a route, so that trying paths reveals nothing.
* Literal segments are compared whole, after decoding, and in their case; a public route is its exact path, except for
  what follows ``/metrics`` on a listener with metrics.
* A malformed target never matches a route, hence it is never public where anything needs a key.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import TypeAlias

from twisted_serve.auth.needs import Need, NeedPolicy
from twisted_serve.auth.scopes import Operation, Scope, required
from twisted_serve.auth.targets import Target
from twisted_serve.auth.tokens import TokenKind
from twisted_serve.listening.roles import Role
from twisted_serve.web.api.lookup import RouteIndex
from twisted_serve.web.api.surface import routes_of

__all__ = ["OPEN", "AccessPolicy", "access_policy", "application_policy", "is_open", "need_policy"]

#: Maps a method and a target to the scope needed; ``None`` for a public target.
AccessPolicy: TypeAlias = Callable[[bytes, Target], "Scope | None"]

#: All requests that need no token, as docs/tokens.md lists them, with their listeners.
OPEN = (
    ("`/livez`: the process answers", "every listener"),
    (
        "`/readyz`: every start-up model has its workers; 503 until then, when one is missing, "
        "and while the server stops",
        "every listener",
    ),
    ("`/api-description`, `OPTIONS /`: which routes there are", "every listener"),
    ("`/docs`: the same as a page for people", "every listener"),
    (
        "`GET /` of a browser, that is with `Accept: text/html` and without a key: a redirect to `/docs`",
        "the inference and the management listener",
    ),
    ("a browser's preflight (`OPTIONS` for another origin), with one of `cors_allowed_*`", "every listener"),
    ("`/metrics`, unless `metrics_token_file` is set", "the metrics listener, also where it shares its address"),
    ("any other path, which is 404", "the metrics listener"),
    ("`/ping`, and gRPC's `Ping`, with `token_exempt_ping=true`", "the inference listener"),
    ("`grpc.health.v1.Health`: the same as `/livez` and `/readyz`, for gRPC", "every gRPC listener"),
)

# How many decisions are cached; they depend on nothing but method and path.
_CACHE_SIZE = 256

_ROLES = {TokenKind.INFERENCE: Role.INFERENCE, TokenKind.MANAGEMENT: Role.MANAGEMENT}


def access_policy(roles: Role, exempt_ping: bool, plugged: Mapping[str, TokenKind] | None = None) -> AccessPolicy:
    """
    Return the function that decides which key a request needs on a listener with these roles.

    :param plugged: The keys that the endpoints of plug-ins need, by first segment.
    """
    here = {segment: kind for segment, kind in (plugged or {}).items() if roles & _ROLES[kind]}
    scope_of, otherwise = _scopes_of(roles, exempt_ping), _key_of_unknown(roles)

    # Most requests are like the last ones.
    @lru_cache(_CACHE_SIZE)
    def policy(method: bytes, target: Target) -> TokenKind | None:
        if target.flaw is not None:
            return otherwise
        # No plug-in has the segment of a public route (`twisted_serve.endpoints.RESERVED`) but that of an exempt ping.
        if target.first in here:
            return here[target.first]
        return scope_of(method, target)

    return policy


def need_policy(roles: Role, exempt_ping: bool, plugged: Mapping[str, TokenKind] | None = None) -> NeedPolicy:
    """
    Return the function that decides what a request needs on a listener with these roles: `access_policy` in full.

    :param plugged: As in `access_policy`.
    """
    scope_of, index = access_policy(roles, exempt_ping, plugged), RouteIndex(routes_of(roles, exempt_ping))
    here = {segment for segment, kind in (plugged or {}).items() if roles & _ROLES[kind]}

    @lru_cache(_CACHE_SIZE)
    def policy(method: bytes, target: Target) -> Need:
        scope = scope_of(method, target)
        if target.flaw is not None or target.first in here:
            return Need(None, scope)
        route = index.answering(method.decode("latin-1"), target.segments)
        # The scope decides which tree of routes answers: no route of another tree can.
        if route is None or required(route.operation) is not scope:
            return Need(None, scope)
        return Need(route.operation, scope, route.name_in(target.segments))

    return policy


def application_policy(
    roles: Role, exempt_ping: bool, plugged: Mapping[str, TokenKind] | None = None, metrics_token: bool = False
) -> NeedPolicy:
    """
    Return the function that decides what an application's authorizer is asked about a request.

    It is asked wherever a key is needed, and for metrics that are public only because scrapers have no key.

    :param plugged: As in `access_policy`.
    :param metrics_token: Whether the metrics listener requires a token of its own (``metrics_token_file``).
    """
    need = need_policy(roles, exempt_ping, plugged)
    if metrics_token:
        return need

    def policy(method: bytes, target: Target) -> Need:
        needed = need(method, target)
        return _SCRAPE if needed.operation is Operation.SCRAPE_METRICS else needed

    return policy


_SCRAPE = Need(Operation.SCRAPE_METRICS, TokenKind.MANAGEMENT)


def is_open(method: bytes, target: Target, roles: Role, exempt_ping: bool) -> bool:
    """
    Return whether a request needs no key, flaws of its target aside.

    `OPEN` lists the same in words, and what is answered before the gate.
    """
    return _scopes_of(roles, exempt_ping)(method, target) is None


@lru_cache
def _scopes_of(roles: Role, exempt_ping: bool) -> Callable[[bytes, Target], Scope | None]:
    routes = routes_of(roles, exempt_ping)
    index, otherwise = RouteIndex(routes), _key_of_unknown(roles)
    # Below a path of one segment that only management has, unknown paths are management's, too.
    whole = {route.first for route in routes if len(route.pieces) == 1 and route.first in _MANAGED}

    def scope_of(method: bytes, target: Target) -> Scope | None:
        route = index.find(method.decode("latin-1"), target.segments)
        if route is not None:
            return route.scope
        return TokenKind.MANAGEMENT if target.first in whole else otherwise

    return scope_of


def _key_of_unknown(roles: Role) -> TokenKind | None:
    """Return the key for paths without a route; ``None`` for a listener with nothing but metrics."""
    if roles & Role.INFERENCE:
        return TokenKind.INFERENCE
    return TokenKind.MANAGEMENT if roles & Role.MANAGEMENT else None


_MANAGED = frozenset(
    route.first for route in routes_of(Role.MANAGEMENT) if len(route.pieces) == 1 and route.scope is not None
)
