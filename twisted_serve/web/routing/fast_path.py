# SPDX-License-Identifier: Apache-2.0
"""
Dispatch the most frequent requests to their endpoints without Klein.

Finding and calling a route takes Klein and werkzeug longer than all the rest of a prediction. The path is already
parsed by then, and the first segment alone identifies a few routes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

from attrs import frozen
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.resource import IResource
from twisted.web.server import NOT_DONE_YET

from twisted_serve.auth.targets import parse_target
from twisted_serve.web.http.request import ServeRequest
from twisted_serve.web.http.responses import Body, answer_failure
from twisted_serve.web.routing.leaf import Leaf

_log = Logger("twisted_serve.web")

#: The function that Klein calls for a route, with the request and the variable segments of the path.
Endpoint: TypeAlias = Callable[..., "Body | Deferred[Body]"]


@frozen
class FastRoute:
    """
    The route of all paths with a certain first segment.

    :ivar named: How many segments after the first are passed as separate arguments; the rest is passed unsplit.
    :ivar needed: The minimum number of segments after the first.
    :ivar whatever_follows: Whether all paths with this first segment match, and the endpoint gets no arguments.
    """

    endpoint: Endpoint
    named: int
    needed: int
    whatever_follows: bool = False


class FastPath(Leaf):
    """
    A tree of routes with a fast path to some of them.

    :ivar tree: The resource for all other requests; it has the fast routes as well.
    :param fast_routes: The fast routes by the first segment of the path.
    """

    def __init__(self, tree: IResource, fast_routes: Mapping[str, FastRoute]) -> None:
        self.tree = tree
        self._fast_routes = fast_routes

    def render(self, request: ServeRequest) -> bytes | int:
        """Answer the request."""
        segments = parse_target(request.uri).segments
        route = self._fast_routes.get(segments[0]) if segments else None
        # Only Klein knows which routes match an empty segment.
        if route is None or (not route.whatever_follows and (len(segments) <= route.needed or "" in segments)):
            return self.tree.render(request)  # type: ignore[no-any-return]
        end = 1 + route.named
        arguments = segments[1:end] if len(segments) <= end else (*segments[1:end], "/".join(segments[end:]))
        if route.whatever_follows:
            arguments = ()
        try:
            answer = route.endpoint(request, *arguments)
        except Exception:
            answer = answer_failure(request, Failure())
        if isinstance(answer, Deferred):
            deliver(answer, request)
        else:
            _send(answer, request)
        return NOT_DONE_YET


def deliver(answer: Deferred[Body], request: ServeRequest) -> None:
    """Send a response, or the error in place of it; cancel the Deferred if the client disconnects before."""
    request.wait_for(answer)
    answer.addCallbacks(_send, _failed, callbackArgs=(request,), errbackArgs=(request,))


def _failed(failure: Failure, request: ServeRequest) -> None:
    if not request.gone:
        _send(answer_failure(request, failure), request)
    elif not failure.check(CancelledError):
        # The client has disconnected; a cancelled response is the expected result and is not logged.
        _log.failure("The answer to a client that has gone could not be made", failure)


def _send(answer: Body, request: ServeRequest) -> None:
    if not request.gone:
        request.write(answer)
        request.finish()
