# SPDX-License-Identifier: Apache-2.0
"""
This module implements the doors of a listener: which token each path needs (``docs/torchserve/rest_api.md`` §16.2).

Only the first segments decide, compared whole; an unknown path needs a token
like a known one, so that nothing can be learnt by trying.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from twisted_serve.auth.gate import Doors
from twisted_serve.auth.targets import Target
from twisted_serve.auth.tokens import TokenKind
from twisted_serve.web.roles import Role

#: Open on every listener, exactly so: they say yes or no to a probe.
PROBES = frozenset({("livez",), ("readyz",)})

#: Open as well, and exactly so: what the listener can do, for programs and for people.
DESCRIPTIONS = frozenset({("api-description",), ("docs",)})

#: The whole list of what needs no token, as docs/tokens.md has it: what, and on which listeners.
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
    ("`/ping`, with `token_exempt_ping=true`", "the inference listener"),
)

# How many decisions are remembered; none of them depends on anything but method and path.
_REMEMBERED = 256


_ROLES = {TokenKind.INFERENCE: Role.INFERENCE, TokenKind.MANAGEMENT: Role.MANAGEMENT}


def doors_of(roles: Role, exempt_ping: bool, plugged: Mapping[str, TokenKind] | None = None) -> Doors:
    """
    Decide which token a request needs on a listener with these roles.

    :param plugged: The tokens which plug-ins' endpoints need, by first segment.
    """
    here = {segment: kind for segment, kind in (plugged or {}).items() if roles & _ROLES[kind]}

    # Most requests are like the last ones.
    @lru_cache(_REMEMBERED)
    def doors(method: bytes, target: Target) -> TokenKind | None:
        if target.flaw is not None:
            return _otherwise(roles)
        # What is open to everybody is no plug-in's (`twisted_serve.endpoints.RESERVED`), but for an exempt ping.
        if target.first in here:
            return here[target.first]
        if is_open(method, target, roles, exempt_ping):
            return None
        segments = target.segments
        if roles & Role.MANAGEMENT:
            if segments == ("token",):
                return TokenKind.API
            if not roles & Role.INFERENCE or _is_management(segments):
                return TokenKind.MANAGEMENT
        return _otherwise(roles)

    return doors


def is_open(method: bytes, target: Target, roles: Role, exempt_ping: bool) -> bool:
    """Return whether a request needs no token; `OPEN` lists the same in words, and what is answered before the gate."""
    segments = target.segments
    return (
        segments in PROBES
        or (segments == () and method == b"OPTIONS")
        or segments in DESCRIPTIONS
        or roles is Role.METRICS
        or (bool(roles & Role.METRICS) and target.first == "metrics")
        or (exempt_ping and bool(roles & Role.INFERENCE) and segments == ("ping",))
    )


def _otherwise(roles: Role) -> TokenKind | None:
    """Return the token for what is not known by its path."""
    if roles & Role.INFERENCE:
        return TokenKind.INFERENCE
    return TokenKind.MANAGEMENT if roles & Role.MANAGEMENT else None


def _is_management(segments: tuple[str, ...]) -> bool:
    """Say whether a path of a shared listener is management's."""
    match segments:
        case ("models", _, "invoke"):
            return False
        case ("models" | "workflows" | "metrics" | "token", *_):
            return True
        case ("v1", "models"):
            return True
        case ("v1", "models", name):
            return ":" not in name
    return False
