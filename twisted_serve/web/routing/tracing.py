# SPDX-License-Identifier: Apache-2.0
"""
Trace the predictions of a listener if the server has ``tracing``.

Tracing runs after authorization: requests without a token are not traced.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING

from twisted.python.failure import Failure
from twisted.web.resource import IResource

from twisted_serve.auth.targets import parse_target
from twisted_serve.metrics.spans import Prediction
from twisted_serve.web.api.lookup import RouteIndex
from twisted_serve.web.api.surface import EVERY_ROUTE
from twisted_serve.web.http.request import ServeRequest
from twisted_serve.web.routing.leaf import Leaf

if TYPE_CHECKING:
    from twisted_serve.metrics.tracing import Tracer


# Few paths lead to predictions, and most requests are like the last ones.
_CACHE_SIZE = 256

# OPTIONS describes calls, and is not traced.
_ROUTES = RouteIndex(route for route in EVERY_ROUTE if route.method != "options")


@lru_cache(_CACHE_SIZE)
def trace_name_of(segments: tuple[str, ...]) -> str | None:
    """Return the name of the route that a path has on any listener; ``None`` for a path that predicts nothing."""
    route = _ROUTES.find("", segments)
    return None if route is None else route.trace_name


class Tracing(Leaf):
    """
    Wraps a tree of routes and traces its predictions.

    :param seconds: Return the time in seconds.
    """

    def __init__(self, tree: IResource, tracer: Tracer, seconds: Callable[[], float]) -> None:
        self._tree = tree
        self._tracer = tracer
        self._seconds = seconds

    def render(self, request: ServeRequest) -> bytes | int:
        """Answer the request; trace it when the response is finished."""
        route = None if request.method == b"OPTIONS" else trace_name_of(parse_target(request.uri).segments)
        if route is not None:
            request.notifyFinish().addBoth(self._over, request, route)
        return self._tree.render(request)  # type: ignore[no-any-return]

    def _over(self, end: Failure | None, request: ServeRequest, route: str) -> None:
        parents = request.requestHeaders.getRawHeaders(b"traceparent", ())
        self._tracer.trace(
            Prediction(
                began=request.began,
                timing=request.timing,
                ended=self._seconds(),
                method=request.method.decode("latin-1"),
                route=route,
                # More than one ``traceparent`` is invalid and ignored.
                parent=parents[0].decode("latin-1") if len(parents) == 1 else "",
                status=request.code if request.startedWriting else None,
                whole=not isinstance(end, Failure),
            )
        )
