# SPDX-License-Identifier: Apache-2.0
"""
Find the route of a path.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from twisted_serve.web.api.route import Route


class RouteIndex:
    """
    Routes by the first segment of their path, each list in the order in which they are tried.

    A path whose first segment is a literal of some route is never a route that begins with a parameter.

    :param routes: Of routes with the same template the first one counts.
    """

    def __init__(self, routes: Iterable[Route]) -> None:
        self._by_first: dict[str, list[Route]] = {}
        self._others: list[Route] = []
        self._any_case: dict[str, list[Route]] = {}
        for route in sorted(routes, key=_ranks):
            first = route.first if route.pieces else ""
            (self._others if first is None else self._by_first.setdefault(first, [])).append(route)
            if route.any_case and first:
                self._any_case.setdefault(first, []).append(route)

    def find(self, method: str, segments: Sequence[str]) -> Route | None:
        """Return the route of a path, whose method need not be the route's unless it is exact."""
        first = segments[0] if segments else ""
        routes = self._by_first.get(first)
        if routes is None:
            routes = [*self._any_case.get(first.lower(), ()), *self._others]
        for route in routes:
            if route.matches(segments) and not (route.exact_method and route.method.upper() != method):
                return route
        return None

    def answering(self, method: str, segments: Sequence[str]) -> Route | None:
        """
        Return the route that answers a request; ``None`` if its path or its method has none.

        Unlike for `find`, the method counts, and a route that begins with a parameter matches any first segment.
        """
        first = segments[0] if segments else ""
        routes = [*self._by_first.get(first, self._any_case.get(first.lower(), ())), *self._others]
        found = [route for route in routes if route.matches(segments) and route.takes(method)]
        # Of several with one path, that of exactly this method.
        exact = [route for route in found if route.pieces == found[0].pieces and route.method.upper() == method]
        return next(iter(exact or found), None)


def _ranks(route: Route) -> tuple[int, ...]:
    return tuple(piece.rank for piece in route.pieces)
