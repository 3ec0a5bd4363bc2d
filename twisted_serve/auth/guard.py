# SPDX-License-Identifier: Apache-2.0
"""
This module implements the guard: a resource which stands around a tree of routes and opens the gate, or not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from twisted.web.iweb import IRequest
from twisted.web.resource import IResource
from zope.interface import implementer

from twisted_serve.auth.gate import Gate, OpenGate, Stop
from twisted_serve.auth.targets import parse_target
from twisted_serve.auth.tokens import TokenKind


@implementer(IResource)
class Guard:
    """
    Everything behind this needs a token, but for what has been put in the open.

    There is a tree for each kind of token, and one for those who have none.  The
    door at which a request stands decides which tree it sees; so a token cannot
    reach a route of another kind, however the path is read further in, and no
    route is open by having been forgotten.

    :param unguarded_trees: By the token which opens them; ``None`` for what is public.
    :param refuse: Answers a request which was stopped, and returns the body.
    :param reject: The same for a request which may pass but whose path has a flaw.
    """

    isLeaf = True

    def __init__(
        self,
        unguarded_trees: Mapping[TokenKind | None, IResource],
        gate: Gate | OpenGate,
        refuse: Callable[[IRequest, Stop], bytes],
        reject: Callable[[IRequest, str], bytes],
    ) -> None:
        self._unguarded_trees = unguarded_trees
        self._gate = gate
        self._refuse = refuse
        self._reject = reject

    def render(self, request: IRequest) -> bytes | int:
        """Answer the request, by the tree it may see or by refusing it."""
        target = parse_target(request.uri)
        authorization = request.requestHeaders.getRawHeaders(b"authorization", ())
        verdict = self._gate.ask(request.method, target, authorization)
        if isinstance(verdict, Stop):
            return self._refuse(request, verdict)
        if target.flaw is not None:
            return self._reject(request, target.flaw)
        # The routes see the path as the gate has read it.
        request.prepath = []
        request.postpath = [segment.encode("utf-8") for segment in target.segments or ("",)]
        return self._unguarded_trees[verdict.door].render(request)  # type: ignore[no-any-return]

    def getChildWithDefault(self, name: bytes, request: IRequest) -> IResource:
        """Be the leaf of every path: the gate decides on the whole of it."""
        return self

    def putChild(self, path: bytes, child: IResource) -> None:
        """
        Refuse: there are no doors beside the gate.

        :raise TypeError: always.
        """
        raise TypeError(f"no child {path!r} can be put beside the gate")
