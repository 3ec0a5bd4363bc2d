# SPDX-License-Identifier: Apache-2.0
"""
Admit requests to the routes of a listener as an application's authorizer decides.
"""

from __future__ import annotations

from twisted.web.resource import IResource
from twisted.web.server import NOT_DONE_YET

from twisted_serve.auth.asking import Asking
from twisted_serve.web.http.request import ServeRequest
from twisted_serve.web.routing.leaf import Leaf


class Asked(Leaf):
    """
    Wraps the routes of a listener, which no request reaches that is not admitted.

    A request with a body has been asked about before the body was read; one without comes here first.

    :param routes: The resource for admitted requests.
    """

    def __init__(self, routes: IResource, asking: Asking) -> None:
        self._routes = routes
        self._asking = asking

    def render(self, request: ServeRequest) -> bytes | int:
        """Render the request with the routes, or refuse it."""
        if request.asked:
            return self._rendered(request)
        request.ask(self._asking, lambda: request.render(self))
        return NOT_DONE_YET

    def _rendered(self, request: ServeRequest) -> bytes | int:
        if request.refusal is not None:
            return request.refusal(request)
        return self._routes.render(request)  # type: ignore[no-any-return]
