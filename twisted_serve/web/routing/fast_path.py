# SPDX-License-Identifier: Apache-2.0
"""
This module implements the short way of the requests of which there are most, past Klein to the same endpoints.

What Klein and werkzeug do to find a route and to call it takes longer than all the
rest of a prediction.  The path has been read by then, and
a few of them say by their first segment where they lead.
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
from zope.interface import implementer

from twisted_serve.auth.targets import parse_target
from twisted_serve.web.http.request import ServeRequest
from twisted_serve.web.http.responses import Body, answer_failure

#: What Klein calls for a route: with the request, and with what stands in the variable segments of the path.
Endpoint: TypeAlias = Callable[..., "Body | Deferred[Body]"]


@frozen
class FastRoute:
    """
    Where paths with a certain first segment lead.

    :ivar named: How many of the segments after the first are arguments of their own; the rest is one, as it was.
    :ivar needed: How many of them there must be.
    :ivar whatever_follows: Whether all paths with that first segment lead there, and none is told from another.
    """

    endpoint: Endpoint
    named: int
    needed: int
    whatever_follows: bool = False


@implementer(IResource)
class FastPath:
    """
    A tree of routes with a shorter way to some of them.

    :ivar tree: Answers everything else; it has the same routes, too.
    :param ways: By the first segment of the path.
    """

    isLeaf = True
    _log = Logger("twisted_serve.web")

    def __init__(self, tree: IResource, ways: Mapping[str, FastRoute]) -> None:
        self.tree = tree
        self._ways = ways

    def render(self, request: ServeRequest) -> bytes | int:
        """Answer the request."""
        segments = parse_target(request.uri).segments
        way = self._ways.get(segments[0]) if segments else None
        # An empty segment matches some routes and not others; Klein knows.
        if way is None or (not way.whatever_follows and (len(segments) <= way.needed or "" in segments)):
            return self.tree.render(request)  # type: ignore[no-any-return]
        end = 1 + way.named
        arguments = segments[1:end] if len(segments) <= end else (*segments[1:end], "/".join(segments[end:]))
        if way.whatever_follows:
            arguments = ()
        try:
            answer = way.endpoint(request, *arguments)
        except Exception:
            answer = answer_failure(request, Failure())
        if isinstance(answer, Deferred):
            request.wait_for(answer)
            answer.addCallbacks(_send, self._failed, callbackArgs=(request,), errbackArgs=(request,))
        else:
            _send(answer, request)
        return NOT_DONE_YET

    def getChildWithDefault(self, name: bytes, request: ServeRequest) -> IResource:
        """Be the leaf of every path."""
        return self

    def putChild(self, path: bytes, child: IResource) -> None:
        """
        Refuse: routes are Klein's.

        :raise TypeError: always.
        """
        raise TypeError(f"no child {path!r} can be put here")

    def _failed(self, failure: Failure, request: ServeRequest) -> None:
        if not request.gone:
            _send(answer_failure(request, failure), request)
        elif not failure.check(CancelledError):
            # Nobody is left to be told; that the answer was called off is no news.
            self._log.failure("The answer to a client that has gone could not be made", failure)


def _send(answer: Body, request: ServeRequest) -> None:
    if not request.gone:
        request.write(answer)
        request.finish()
